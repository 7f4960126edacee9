"""Progress of long work: a bar with its time for people, a line for each stage where standard error is no terminal."""

from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgewright_cli.output import err

if TYPE_CHECKING:
    from edgewright_pipelines.data.report import Progress as Steps


class StageProgress:
    """Call it with what runs and which fraction of it is done; a stage's detail stands in brackets after its name."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description:44}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=1.0)
        self._stage = ""

    def __enter__(self) -> Self:
        if err.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if err.is_terminal:
            self._bar.stop()

    def __call__(self, what: str, fraction: float) -> None:
        """Tell it; calling often is cheap."""
        new = (stage := what.partition(" (")[0]) != self._stage
        self._stage = stage
        if not err.is_terminal:
            if new:
                err.print(stage)
            return
        if new:
            self._bar.reset(self._task)
        self._bar.update(self._task, description=what, completed=fraction)

    def steps(self, steps: "Steps") -> None:
        """The same from work that counts its steps."""
        self(steps.step, steps.done / steps.total if steps.total else 0.0)
