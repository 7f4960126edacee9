"""`edgewright demo`: the whole platform on this machine, from nothing to a rolled-out model."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from edgewright_cli.data import WORKSPACE
from edgewright_cli.output import INTERRUPTED, JsonFlag, err, out, print_json, print_table, sentences, tell_error

if TYPE_CHECKING:
    from edgewright_local.demo import Demo

COLUMNS = ("NODE", "CLASS", "RELEASE", "VARIANT", "BYTES", "P95 ms", "F1", "STATE")
NODE_FIELDS = ("name", "hardwareClass", "release", "variant", "state", "p95Milliseconds")
VARIANT_FIELDS = ("name", "bytes", "macroF1", "p50Microseconds")


def demo(
    stop: Annotated[bool, typer.Option("--stop", help="End everything that a demo started here.")] = False,
    exit_: Annotated[bool, typer.Option("--exit", help="End everything after the summary, for CI.")] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Use this cluster and start none; what is put there is taken out again."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Another recipe; its name must be nilm-identify.")] = None,
    workspace: Annotated[Path, typer.Option(help="Where finished stages and the demo's state are kept.")] = WORKSPACE,
    quick: Annotated[bool, typer.Option("--quick", help="Without the release that answers wrong.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Train, compress, publish, start a real control plane, roll out, swap under load, and tell what was seen.

    While it runs, and afterwards, demo/summary.json in the workspace holds all that was seen, with every URL.

    Examples:
      edgewright demo
      edgewright demo --exit --quick --json
      edgewright demo --kubeconfig ~/.kube/config
      edgewright demo --stop
    """
    root = Path.cwd()
    directory = root / workspace / "demo"
    if not stop:
        _check(root, kubeconfig)

    from edgewright_local import demo as demonstration
    from edgewright_local import one_demo
    from edgewright_local.errors import LocalPlatformError

    with sentences(LocalPlatformError):
        if stop:
            holder = one_demo.end(directory)
            ended = [f"the demo of process {holder}"] if holder else []
            ended += demonstration.stop(directory)
            out.print(f"ended {', '.join(ended)}" if ended else "no demo is running here")
            return
        with one_demo.alone(directory):
            demonstration.stop(directory)  # what one that was killed left
            _fresh(directory)
            asked = demonstration.Demo(root, directory, _teller(), recipe or demonstration.RECIPE, kubeconfig, quick)
            _run(asked, exit_=exit_, json_output=json_output)


def _run(asked: "Demo", *, exit_: bool, json_output: bool) -> None:
    """Run it, tell what was seen, and wait unless `exit_`; whatever happens, all that it started is ended."""
    from edgewright_local import demo as demonstration
    from edgewright_local.errors import LocalPlatformError

    with _ended_by_sigterm():
        finished = False
        try:
            summary = demonstration.run(asked)
            _show(summary, json_output=json_output)
            finished = True
            sent, failed = summary["requests"]["sent"], summary["requests"]["failed"]
            if exit_ and (failed or not sent):
                told = "no request may fail while releases are swapped"
                raise LocalPlatformError(f"{failed} of {sent} requests failed: {told}")
            if not exit_:
                err.print("Running. Ctrl-C, or `make demo-stop` elsewhere, ends everything.")
                while True:
                    time.sleep(3600)
        except KeyboardInterrupt:
            err.print("ending")
            if not finished:
                raise typer.Exit(INTERRUPTED) from None
        finally:
            for sign in (signal.SIGINT, signal.SIGTERM):
                signal.signal(sign, signal.SIG_IGN)  # a second one must leave nothing running
            demonstration.stop(asked.directory)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does."""
    before = [(sign, signal.getsignal(sign)) for sign in (signal.SIGINT, signal.SIGTERM)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for sign, handler in before:
            signal.signal(sign, handler)


def _teller() -> Any:
    started = time.monotonic()

    def say(line: object) -> None:
        err.print(Text.assemble((f"{time.monotonic() - started:6.1f} s", "dim"), "  ", str(line)))

    return say


def _check(root: Path, kubeconfig: Path | None) -> None:
    if kubeconfig is not None and not kubeconfig.is_file():
        tell_error(f"no kubeconfig at {kubeconfig}: pass the path of one, or leave --kubeconfig out")
        raise typer.Exit(2)
    if not (root / "deploy/k8s/samples/demo.yaml").is_file():
        tell_error("the demo runs in a clone of Edgewright: change into its folder first")
        raise typer.Exit(2)


def _fresh(directory: Path) -> None:
    """A demo begins from nothing: objects and releases of an earlier one would be taken for its own."""
    import shutil

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)


def _show(summary: dict[str, Any], *, json_output: bool) -> None:
    console = err if json_output else out
    print_table(COLUMNS, _rows(summary), console)
    if contained := summary["containment"]:
        exposed = ", ".join(contained["exposedNodes"]) or "no node"
        console.print(f"bad release (version {contained['version']}): {exposed} exposed, stopped, rolled back; why:")
        for line in contained["why"]:
            console.print(f"  {line}")
    requests = summary["requests"]
    told = f"requests: {requests['sent']} sent, {requests['failed']} failed {requests['lastError']}".rstrip()
    console.print(told)
    for name, url in summary["urls"].items():
        console.print(f"{name:16} {url}")
    for what in summary["leftOut"]:
        console.print(f"Left out by --quick: {what}.")
    if json_output:
        print_json(for_scripts(summary))


def for_scripts(summary: dict[str, Any]) -> dict[str, Any]:
    """The fields that scripts may rely on."""
    nodes = [{key: row[key] for key in NODE_FIELDS} for row in summary["nodes"]]
    variants = [{key: row[key] for key in VARIANT_FIELDS} for row in summary["variants"]]
    requests = {key: summary["requests"][key] for key in ("sent", "failed")}
    return {"nodes": nodes, "variants": variants, "requests": requests, "seconds": summary["seconds"]}


def _rows(summary: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in summary["nodes"]:
        yield (
            row["name"],
            row["hardwareClass"],
            str(row["release"] or ""),
            row["variant"] or "",
            f"{row['bytes']:,}" if row["bytes"] is not None else "-",
            f"{row['p95Milliseconds']:.3f}" if row["p95Milliseconds"] is not None else "-",
            f"{row['macroF1']:.3f}" if row["macroF1"] is not None else "-",
            row["state"] or "",
        )
