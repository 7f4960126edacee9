"""`edgewright keys`: make, list, rotate and revoke the keys that sign releases, permits and trust."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_cli.output import JsonFlag, err, out, print_json, print_table, sentences

if TYPE_CHECKING:
    from edgewright_pipelines.signing_keys import SigningKeys

HELP = """Make, list, rotate and revoke signing keys.

Examples:
  edgewright keys new keys
  edgewright keys list keys
"""
app = typer.Typer(no_args_is_help=True, help=HELP)
Folder = Annotated[Path, typer.Argument(help="Folder of the keys (mode 0700; the private keys are mode 0600).")]
Root = Annotated[Path | None, typer.Option(help="File of the root key, if it is kept elsewhere.")]


@app.command("new")
def new(
    folder: Folder,
    models: Annotated[
        str, typer.Option(help="What the release key may sign: shell patterns, separated by commas.")
    ] = "*",
    rotate: Annotated[str | None, typer.Option(help="Make a new `release` or `permit` key beside the old one.")] = None,
    root: Root = None,
    json_output: JsonFlag = False,
) -> None:
    """Make a root, a release and a permit key and a signed trust.json; existing keys are kept.

    With --rotate: a new key, trusted beside the old one until that is revoked. Give the new trust.json to the gateway.

    Examples:
      edgewright keys new keys --models 'nilm-*'
      edgewright keys new keys --rotate release --root /media/offline/root.key
    """
    from edgewright_pipelines import signing_keys, trust_file

    with sentences(signing_keys.KeysError, OSError):
        patterns = tuple(pattern.strip() for pattern in models.split(",") if pattern.strip())
        before = sorted(folder.glob("*")) if folder.is_dir() else []
        if rotate is None:
            made = signing_keys.ensure(folder, registered_models=patterns)
        else:
            if rotate not in trust_file.ROTATED:
                raise signing_keys.KeysError(f"--rotate is {' or '.join(trust_file.ROTATED)}, not {rotate}")
            made = signing_keys.load(folder)
            trust_file.rotate(made, signing_keys.Role(rotate), root)
        _show(made, json_output=json_output)
    if rotate is None and sorted(folder.glob("*")) == before:
        err.print(f"Nothing was made: {folder} has all of its keys; --rotate makes a new one beside the old.")
    elif rotate is None:
        err.print(f"Keep {folder / 'root.key'} offline; nodes need root.pub only.")
    else:
        err.print("Give trust.json to the gateway; when all nodes have it, revoke the old key.")


@app.command("list")
def listing(folder: Folder, json_output: JsonFlag = False) -> None:
    """The keys of a folder: role, id, and whether trust.json trusts them.

    Example: edgewright keys list keys --json
    """
    from edgewright_pipelines import signing_keys

    with sentences(signing_keys.KeysError, OSError):
        _show(signing_keys.load(folder), json_output=json_output)


@app.command("revoke")
def revoke(
    folder: Folder,
    what: Annotated[str, typer.Argument(help="A key id or its first digits, a folder of a release, or sha256:…")],
    root: Root = None,
    json_output: JsonFlag = False,
) -> None:
    """Sign a trust.json that no longer trusts a key or a release. Nodes go on serving, and install it no more.

    Examples:
      edgewright keys revoke keys 1f2e3d4c5b6a
      edgewright keys revoke keys .edgewright/releases/nilm-identify/7 --root /media/offline/root.key
    """
    from edgewright_pipelines import signing_keys, trust_file

    with sentences(signing_keys.KeysError, OSError):
        made = signing_keys.load(folder)
        for gone in trust_file.revoke(made, what, root):
            err.print(f"revoked {gone}")
        _show(made, json_output=json_output)
    err.print("Give trust.json to the gateway.")


def _show(made: "SigningKeys", *, json_output: bool) -> None:
    from edgewright_pipelines import trust_file

    found = trust_file.overview(made)
    if json_output:
        trusted = {
            "sequence": found.sequence,
            "digest": found.digest,
            "revokedManifests": list(found.revoked_manifests),
        }
        print_json({"keys": [entry.as_json() for entry in found.keys], "trust": trusted})
        return
    rows = []
    for entry in found.keys:
        private = "here" if entry.private else "elsewhere"
        models = " ".join(entry.registered_models) or "-"
        rows.append((entry.role, entry.identity[:16], entry.state, models, private))
    print_table(("ROLE", "ID", "STATE", "MODELS", "PRIVATE"), rows)
    out.print(f"trust.json: sequence {found.sequence}, {len(found.revoked_manifests)} revoked manifests")
