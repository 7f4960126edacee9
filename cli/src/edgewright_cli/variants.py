"""What `train` and `sweep` end with: the variants in a table, and their release as a folder or in MLflow."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright_cli.output import out, print_table

if TYPE_CHECKING:
    from edgewright_pipelines.flow import Result


def row(built: Any, result: "Result") -> dict[str, Any]:
    """One variant for scripts."""
    measured = built.measured
    return {
        "name": built.name,
        "bytes": measured.bytes,
        "parameters": measured.parameters,
        "macs": measured.macs,
        "p50Microseconds": round(measured.latency.p50, 1),
        "p95Microseconds": round(measured.latency.p95, 1),
        # a score on made-up data means nothing, so none is told
        "macroF1": None if result.synthetic else round(measured.scores.macro_f1, 4),
        "dayMacroF1": None if result.synthetic else round(measured.scores.macro_f1_by_day, 4),
        "bce": None if result.synthetic else round(measured.scores.bce, 4),
        "matchRate": measured.scores.match_rate,  # these three: of the second task only
        "maeWatts": measured.scores.mae_watts,
        "sae": measured.scores.sae,
        "cpuMicroseconds": None if measured.latency.cpu is None else round(measured.latency.cpu, 1),
        "joules": measured.latency.joules,
        "released": built.verdict.passed,
        "reasons": list(built.verdict.reasons),
    }


COLUMNS = ("VARIANT", "BYTES", "P50 us", "F1 window", "F1 day", "BCE", "RELEASED")


def rows(variants: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """All variants for people, under COLUMNS."""
    for entry in variants:
        scores = [f"{entry[key]:.3f}" if entry[key] is not None else "-" for key in ("macroF1", "dayMacroF1", "bce")]
        told = "yes" if entry["released"] else "no"
        yield entry["name"], f"{entry['bytes']:,}", f"{entry['p50Microseconds']:.0f}", *scores, told


def tell(summary: dict[str, Any]) -> None:
    """The table, why a variant is not released, and where the release is."""
    print_table(COLUMNS, rows(summary["variants"]))
    for entry in summary["variants"]:
        if not entry["released"]:
            out.print(f"{entry['name']} is not released: {' '.join(entry['reasons'])}")
    if "published" in summary:
        out.print(f"published version {summary['published']['version']} ({summary['published']['manifest']})")
    out.print(f"release in {summary['release']}; `edgewright evaluate latest` scores it")


def released(
    result: "Result",
    workspace: Path,
    *,
    mlflow: str | None,
    keys: Path | None,
    alias: str | None = None,
    only: list[str] | None = None,
) -> dict[str, Any]:
    """What a command says of its release: every variant, and the folder or the published version."""
    summary: dict[str, Any] = {"variants": [row(built, result) for built in result.variants]}
    if mlflow and keys:
        summary["published"] = publish(result, mlflow, keys, alias, only, workspace)
        summary["release"] = summary["published"].pop("folder")
    else:
        summary["release"] = str(keep(result, only, workspace))
    return {**summary, "synthetic": result.synthetic}


def keep(result: "Result", only: list[str] | None, workspace: Path) -> Path:
    """The release as a folder, without a signature: to look at and to score, not to roll out."""
    from edgewright_pipelines import handover, release_folder, resolve

    now = datetime.now(UTC)
    unsigned = handover.unsigned(result, created=now, only=only)
    folder = workspace / resolve.RELEASES / unsigned.registered_model / "unpublished"
    return release_folder.write_unsigned(folder, unsigned.numbered(version=1, sequence=int(now.timestamp())))


def publish(
    result: "Result", url: str, keys: Path, alias: str | None, only: list[str] | None, workspace: Path
) -> dict[str, Any]:
    """A signed release in MLflow, and a verified copy of it in the workspace."""
    from edgewright_pipelines import handover, registry, resolve, signing_keys, tracking
    from edgewright_pipelines import publish as publishing

    client = registry.connect(url)
    key = signing_keys.load(keys).private(signing_keys.Role.RELEASE)
    run_id = tracking.log(client, result)
    unsigned = handover.unsigned(result, created=datetime.now(UTC), only=only, run_id=run_id)
    done = publishing.to_mlflow(unsigned, key, client, alias=alias, now=time.time(), run_id=run_id)
    folder = resolve.fetch(client, unsigned.registered_model, str(done.version), keys, workspace)
    return {
        "version": done.version,
        "sequence": done.sequence,
        "manifest": done.manifest,
        "run": run_id,
        "folder": str(folder),
    }
