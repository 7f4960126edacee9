"""`edgewright demo`: the whole platform on this machine, from nothing to a rolled-out model."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edgewright_cli.output import JsonFlag, err, out, print_json, sentences

DIRECTORY = Path(".edgewright/demo")


def demo(
    stop: Annotated[bool, typer.Option("--stop", help="End everything that a demo started.")] = False,
    exit_: Annotated[bool, typer.Option("--exit", help="End everything after the summary, for CI.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Train, compress, publish, start a real control plane, roll out, swap under load, and tell what was seen.

    Examples:
      edgewright demo
      edgewright demo --exit --json
      edgewright demo --stop
    """
    from edgewright_local import demo as demonstration
    from edgewright_local.errors import LocalPlatformError

    root = Path.cwd()
    directory = root / DIRECTORY
    ended = demonstration.stop(directory)
    if stop:
        out.print(f"ended {', '.join(ended)}" if ended else "no demo is running here")
        return
    _fresh(directory)
    started = time.monotonic()
    say = lambda line: err.print(f"[dim]{time.monotonic() - started:6.1f} s[/]  {line}", markup=True)  # noqa: E731
    try:
        with sentences(LocalPlatformError):
            summary = demonstration.run(demonstration.Demo(root, directory, say))
        _show(summary, json_output=json_output)
        if not exit_:
            err.print("Running. Ctrl-C, or `make demo-stop` elsewhere, ends everything.")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        err.print("ending")
    finally:
        demonstration.stop(directory)


def _fresh(directory: Path) -> None:
    """A demo begins from nothing: objects and releases of an earlier one would be taken for its own."""
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _show(summary: dict[str, Any], *, json_output: bool) -> None:
    variants = {row["name"]: row for row in summary["variants"]}
    table = Table("NODE", "CLASS", "RELEASE", "VARIANT", "BYTES", "P95 ms", "F1", "STATE", box=None)
    for row in summary["nodes"]:
        variant = variants.get(row["variant"] or "", {})
        table.add_row(
            row["name"],
            row["hardwareClass"],
            str(row["release"] or ""),
            row["variant"] or "",
            f"{variant.get('bytes', 0):,}",
            f"{row['p95Milliseconds']:.3f}" if row["p95Milliseconds"] else "-",
            f"{variant['macroF1']:.3f}" if variant.get("macroF1") else "-",
            row["state"] or "",
        )
    console = err if json_output else out
    console.print(table)
    requests = summary["requests"]
    console.print(f"requests: {requests['sent']} sent, {requests['failed']} failed {requests['lastError']}")
    for name, url in summary["urls"].items():
        console.print(f"{name:12} {url}")
    if json_output:
        print_json(summary)
