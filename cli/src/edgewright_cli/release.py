"""`edgewright release`: what is published, and what may be done with it: show, verify, promote, renew."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewright_cli import expected
from edgewright_cli.data import WORKSPACE
from edgewright_cli.output import JsonFlag, err, out, print_json, print_table, sentences

if TYPE_CHECKING:
    from edgewright_contract.release import Release
    from edgewright_pipelines.registry import Entry

HELP = """List, show, verify, promote and renew releases.

Examples:
  edgewright release show latest
  edgewright release list --mlflow http://127.0.0.1:5000
"""
app = typer.Typer(no_args_is_help=True, help=HELP)
Mlflow = Annotated[str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="URL of the MLflow server.")]
Server = Annotated[str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="URL of the MLflow server.")]
Keys = Annotated[
    Path | None, typer.Option(envvar="EDGEWRIGHT_KEYS", help="Folder with root.pub and trust.json, to verify with.")
]
NeededKeys = Annotated[Path, typer.Option(envvar="EDGEWRIGHT_KEYS", help="Folder of `edgewright keys new`.")]
Where = Annotated[Path, typer.Option(help="Where releases are kept that came from MLflow.")]
Reference = Annotated[str, typer.Argument(help="A folder, name/version, name/alias, name/latest, or latest.")]


@app.command("list")
def listing(
    mlflow: Server,
    name: Annotated[str | None, typer.Argument(help="Only this registered model.")] = None,
    json_output: JsonFlag = False,
) -> None:
    """All registered versions with their aliases; one without a manifest was never published wholly.

    Examples:
      edgewright release list --mlflow http://127.0.0.1:5000
      edgewright release list nilm-identify --json
    """
    with sentences(*expected.of_releases(remote=True)):
        from edgewright_pipelines import registry

        found = registry.entries(registry.connect(mlflow), name)
    if json_output:
        print_json({"releases": [entry.as_json() for entry in found]})
        return
    if found:
        print_table(("NAME", "VERSION", "SIGNED", "MANIFEST", "ALIASES", "VARIANTS"), map(_row, found))
    else:
        out.print("no registered model: publish a release first")


@app.command("show")
def show(
    release: Reference,
    mlflow: Mlflow = None,
    keys: Keys = None,
    workspace: Where = WORKSPACE,
    json_output: JsonFlag = False,
) -> None:
    """What a release is: its variants with what was measured of each, and who signed it (with --keys).

    Examples:
      edgewright release show latest
      edgewright release show nilm-identify/production --mlflow http://127.0.0.1:5000 --keys keys
    """
    with sentences(*expected.of_releases(remote=mlflow is not None)):
        from edgewright_pipelines import release_folder, resolve, scoring

        folder = resolve.resolve_release(release, mlflow=mlflow, keys=keys, workspace=workspace)
        parsed = scoring.read_release(folder)
        signer = _verified(folder, keys)["key"] if keys else None
    if json_output:
        body = parsed.model_dump(mode="json", by_alias=True)
        for variant in body["variants"]:
            del variant["golden"]["answers"]  # thousands of numbers that no reader wants
        manifest = release_folder.manifest_digest(folder)
        print_json({"folder": str(folder), "manifest": manifest, "signedBy": signer, "release": body})
        return
    _describe(parsed)
    out.print(f"folder      {folder}")
    out.print(f"signed by   {signer or 'not checked: name --keys'}")


@app.command("verify")
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a release: manifest.json beside release/.")],
    keys: NeededKeys,
    json_output: JsonFlag = False,
) -> None:
    """Check signature, trust, every digest and release.json, as a node does; exit code 1 if anything is wrong.

    Example: edgewright release verify .edgewright/releases/nilm-identify/7 --keys keys
    """
    with sentences(*expected.of_releases(remote=False)):
        found = _verified(folder, keys)
    if json_output:
        print_json(found)
    else:
        out.print(f"{found['name']} version {found['version']}: {found['files']} files, signed by {found['key']}")
        out.print(found["manifest"])


@app.command("promote")
def promote(
    release: Annotated[str, typer.Argument(help="name/version, name/alias or name/latest.")],
    alias: Annotated[str, typer.Argument(help="The alias to move, for example production.")],
    mlflow: Server,
    keys: NeededKeys,
    rollback: Annotated[bool, typer.Option("--rollback", help="Also to an older release: nodes go back.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Move an alias to a version, after all of its files were downloaded and verified.

    Examples:
      edgewright release promote nilm-identify/7 production --mlflow http://127.0.0.1:5000 --keys keys
      edgewright release promote nilm-identify/6 production --rollback
    """
    with sentences(*expected.of_releases(remote=True)):
        from edgewright_pipelines import registry, release_folder, resolve, signing_keys

        name, which = resolve.split(release)
        if name is None:
            raise resolve.ResolveError(f"name the model whose alias moves: name/version, not {release}")
        client = registry.connect(mlflow)
        entry = registry.find(client, name, which)
        registry.fetch(client, entry, release_folder.opened_trust(signing_keys.load(keys)))
        before = registry.move_alias(client, entry, alias, rollback=rollback)
    former = before.version if before else None
    if json_output:
        print_json({"name": name, "alias": alias, "version": entry.version, "former": former})
    else:
        out.print(f"{alias} of {name}: version {entry.version}" + (f", before it {former}" if former else ""))


@app.command("renew")
def renew(
    release: Reference,
    mlflow: Server,
    keys: NeededKeys,
    alias: Annotated[str | None, typer.Option(help="Alias to move to the new version.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="No node installs it anew after so many days.")] = None,
    workspace: Where = WORKSPACE,
    json_output: JsonFlag = False,
) -> None:
    """Publish the same files anew: a new version, sequence and signature; nodes that hold the bytes download nothing.

    For a release whose expiry comes near, or after the signing key was rotated.

    Example: edgewright release renew nilm-identify/production --alias production --days 365 --keys keys
    """
    with sentences(*expected.of_releases(remote=True)):
        from edgewright_pipelines import publish, registry, release_folder, resolve, signing_keys
        from edgewright_pipelines import release as releases

        folder = resolve.resolve_release(release, mlflow=mlflow, keys=keys, workspace=workspace)
        stored = release_folder.read(folder)
        made = signing_keys.load(keys)
        release_folder.verified(stored, release_folder.opened_trust(made))
        now = time.time()
        unsigned = releases.again(stored.files, not_after=int(now) + days * 86_400 if days else None)
        key = made.private(signing_keys.Role.RELEASE)
        done = publish.to_mlflow(unsigned, key, registry.connect(mlflow), alias=alias, now=now)
    name = unsigned.registered_model
    if json_output:
        print_json({"name": name, "version": done.version, "sequence": done.sequence, "manifest": done.manifest})
    else:
        out.print(f"{name} version {done.version} ({done.manifest})")
        if alias is None:
            err.print("No alias moved: name --alias, or run `edgewright release promote`.")


def _verified(folder: Path, keys: Path) -> dict[str, Any]:
    from edgewright_pipelines import release_folder, signing_keys

    opened = release_folder.opened_trust(signing_keys.load(keys))
    found = release_folder.verified(release_folder.read(folder), opened)
    return {
        "name": found.release.registered_model,
        "version": found.release.version,
        "sequence": found.release.sequence,
        "manifest": found.manifest.digest,
        "key": found.manifest.key_id,
        "files": len(found.manifest.files),
    }


def _row(entry: "Entry") -> tuple[str, ...]:
    from edgewright_contract.digests import short

    signed = f"{datetime.fromtimestamp(entry.sequence, UTC):%Y-%m-%d %H:%M}" if entry.sequence else "-"
    manifest = short(entry.manifest) if entry.manifest else "not published"
    return entry.name, str(entry.version), signed, manifest, " ".join(entry.aliases), " ".join(entry.variants)


def _describe(release: "Release") -> None:
    source = " (made-up data)" if release.provenance.synthetic else ""
    out.print(f"{release.registered_model} version {release.version}, sequence {release.sequence}{source}")
    out.print(f"answers     {', '.join(release.labels)}")
    out.print(f"window      {release.window.seconds} s, every {release.window.hop_seconds} s")
    rows = []
    for variant in release.variants:
        scores = variant.accuracy
        figures = (scores.macro_f1, scores.day_macro_f1, scores.bce) if scores else (None, None, None)
        shown = [f"{figure:.3f}" if figure is not None else "-" for figure in figures]
        rows.append((variant.name, f"{variant.bytes:,}", f"{variant.latency.p50_microseconds:.0f}", *shown))
    print_table(("VARIANT", "BYTES", "P50 us", "F1 window", "F1 day", "BCE"), rows)
