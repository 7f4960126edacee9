"""Search instead of a grid: Optuna asks, workers answer, and every finished trial is on disk before the next begins.

One process writes the study (SQLite); workers only compute. So a killed worker, a full disk or Ctrl-C cost the trials
that ran, never those that had finished, and the same command goes on where it stopped.
"""

import errno
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from edgewright_pipelines import trial
from edgewright_pipelines.choices import Choice, Outcome, Task
from edgewright_pipelines.compress import Compressor, Kept, Made
from edgewright_pipelines.recipe import Importance, Pruning, Recipe, Scope, Sweep, Way

DIRECTIONS: Final = ("maximize", "minimize", "minimize")  # macro-F1, bytes, p50
RATIO_STEP: Final = 0.05
NOT_ROUNDED: Final = "none"
BCE: Final = "bce"
REASON: Final = "reason"
MOST_FAILURES: Final = 5  # in a row: then it is not the choice that is wrong
MOST_DEATHS: Final = 3
PARAMETERS: Final = 4

_FULL = (errno.ENOSPC, errno.EDQUOT)

Report = Callable[[str, float], None]
Clock = Callable[[], float]
Run = Callable[[Task], Outcome]
Finished = Callable[[FrozenTrial], None]


class SweepError(RuntimeError):
    """A sweep that stopped early; the text says why and that finished trials are kept."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C, once the study is in order."""


class Workers(Protocol):
    """Where trials run."""

    count: int

    def start(self) -> Executor:
        """A new executor, also after the former one broke."""

    def stop(self) -> None:
        """End what still runs, without waiting for it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every task of a sweep shares."""

    recipe: Recipe
    data: Path | None
    workspace: Path

    def task(self, choice: Choice) -> Task:
        """The work of one trial."""
        return Task(self.recipe.model_dump_json(), self.data, self.workspace, choice)


def opened(recipe: Recipe, data_digest: str, workspace: Path) -> optuna.Study:
    """The study of this recipe and these data in the workspace, new or as an earlier run left it.

    Trials that an earlier run was killed in are queued again.
    Raises SweepError if its file cannot be read or written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = workspace / "sweep"
    # the number of trials decides when to stop, not what is searched
    searched = recipe.model_copy(update={"sweep": recipe.sweep.model_copy(update={"trials": 1})}).digest()
    name = f"{recipe.name}-{searched.partition(':')[2][:8]}-{data_digest.partition(':')[2][:8]}"
    with _sentences(lambda: None):
        folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=f"sqlite:///{folder / name}.db",
            study_name=name,
            sampler=optuna.samplers.TPESampler(seed=recipe.seed, n_startup_trials=10, constant_liar=True),
            directions=list(DIRECTIONS),
            load_if_exists=True,
        )
        for stale in study.get_trials(states=(TrialState.RUNNING,)):
            _queue_again(study, stale)
    return study


def search(
    study: optuna.Study,
    plan: Plan,
    workers: Workers,
    *,
    report: Report,
    finished: Finished = lambda _: None,
    run: Run = trial.run,
    clock: Clock = time.monotonic,
) -> None:
    """Run trials until the recipe's number has finished, those of earlier runs included.

    Raises:
        SweepError: the disk is full, workers keep dying, or no choice can be made.
        Stopped: Ctrl-C; the trials that ran are queued for the next time.
    """
    hunt = _Hunt(study, plan, workers, report, finished, run, clock)
    with _sentences(lambda: study):
        try:
            hunt.run()
        except KeyboardInterrupt:
            hunt.abandon("the sweep was stopped while it ran")
            raise Stopped from None
        except BaseException:
            hunt.abandon("the sweep ended while it ran")
            raise
        finally:
            workers.stop()


def done(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that finished."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def front(study: optuna.Study) -> list[Choice]:
    """The choices that none beats in F1, bytes and p50 together; smallest file first, each once."""
    best = sorted(study.best_trials, key=lambda each: (each.values[1], each.number))
    return list({choice_of(each).name: choice_of(each) for each in best}.values())


def files(study: optuna.Study, compressor: Compressor, base: Kept) -> list[Made]:
    """The base and the front with the FP32 parents that it needs, from their stages; the base's FP32 file first."""
    found = {made.name: made for made in compressor.precisions(base, base)}
    for choice in front(study):
        found |= {made.name: made for made in trial.made(compressor, base, choice)}
    return list(found.values())


def choice_of(asked: Trial | FrozenTrial) -> Choice:
    """What a trial stands for."""
    params = asked.params
    pruning = Pruning(
        importance=Importance(params["importance"]), scope=Scope(params["scope"]), ratio=round(params["ratio"], 2)
    )
    return Choice(pruning, None if params["way"] == NOT_ROUNDED else Way(params["way"]))


def suggest(asked: Trial, space: Sweep) -> Choice:
    """Let the sampler choose."""
    asked.suggest_categorical("importance", [importance.value for importance in space.importances])
    asked.suggest_categorical("scope", [scope.value for scope in space.scopes])
    steps = math.floor((space.highest_ratio - space.lowest_ratio) / RATIO_STEP + 1e-9)
    asked.suggest_float("ratio", space.lowest_ratio, space.lowest_ratio + steps * RATIO_STEP, step=RATIO_STEP)
    asked.suggest_categorical("way", [NOT_ROUNDED, *(way.value for way in space.ways)])
    return choice_of(asked)


@dataclass(slots=True)
class _Hunt:
    study: optuna.Study
    plan: Plan
    workers: Workers
    report: Report
    finished: Finished
    work: Run
    clock: Clock
    running: dict[Future[Outcome], Trial] = field(default_factory=dict)
    here: int = 0  # trials that finished in this run
    failures: int = 0
    deaths: int = 0

    def run(self) -> None:
        executor = self.workers.start()
        began = self.clock()
        while left := self._left(began):
            try:
                self._fill(executor, left)
                ended, _ = wait(self.running, return_when=FIRST_COMPLETED)
                for future in ended:
                    self._settle(future)
            except BrokenExecutor:
                executor = self._revive()

    def abandon(self, reason: str) -> None:
        """Queue again what ran. Where the study cannot be written, `opened` does it the next time."""
        with suppress(optuna.exceptions.StorageInternalError):
            for asked in self.running.values():
                asked.set_user_attr(REASON, reason)
                _queue_again(self.study, asked)
        self.running.clear()

    def _fill(self, executor: Executor, left: int) -> None:
        while len(self.running) < min(self.workers.count, left):
            asked = self.study.ask()
            choice = suggest(asked, self.plan.recipe.sweep)
            future: Future[Outcome] = Future()
            self.running[future] = asked  # first, so that a pool that is already broken loses no trial
            started = executor.submit(self.work, self.plan.task(choice))
            self.running[started] = self.running.pop(future)

    def _settle(self, future: Future[Outcome]) -> None:
        try:
            outcome = future.result()
        except BrokenExecutor:
            raise  # all that ran are lost, this one with them
        except Exception as error:
            self._failed(self.running.pop(future), error)
            return
        asked = self.running[future]
        asked.set_user_attr(BCE, outcome.bce)
        told = self.study.tell(asked, (outcome.macro_f1, float(outcome.bytes), outcome.p50))
        del self.running[future]
        self.here, self.failures = self.here + 1, 0
        self.finished(told)

    def _failed(self, asked: Trial, error: Exception) -> None:
        asked.set_user_attr(REASON, f"{type(error).__name__}: {error}"[:500])
        if isinstance(error, OSError) and error.errno in _FULL:
            _queue_again(self.study, asked)  # nothing is wrong with the choice
            raise error
        self.finished(self.study.tell(asked, state=TrialState.FAIL))
        self.failures += 1
        if self.failures >= MOST_FAILURES:
            raise SweepError(f"{self.failures} trials in a row failed, the last with: {error}")

    def _revive(self) -> Executor:
        """A worker was killed: what ran is queued again, and new workers take over."""
        self.abandon("its worker was killed")
        self.deaths += 1
        if self.deaths > MOST_DEATHS:
            raise SweepError(f"workers were killed {self.deaths} times, perhaps for want of memory; use fewer")
        self.workers.stop()
        return self.workers.start()

    def _left(self, began: float) -> int:
        wanted = self.plan.recipe.sweep.trials
        left = max(0, wanted - len(done(self.study)))
        rest = f", about {_minutes((self.clock() - began) / self.here * left)} left" if self.here and left else ""
        self.report(f"searching ({wanted - left} of {wanted} trials{rest})", (wanted - left) / wanted)
        return left


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds < 90 else f"{math.ceil(seconds / 60)} min"


def _queue_again(study: optuna.Study, asked: Trial | FrozenTrial) -> None:
    study.tell(asked.number, state=TrialState.FAIL)
    if len(asked.params) == PARAMETERS:  # else it was stopped before it was chosen
        study.enqueue_trial(dict(asked.params))


@contextmanager
def _sentences(study: Callable[[], optuna.Study | None]) -> Iterator[None]:
    try:
        yield
    except SweepError as error:
        raise SweepError(f"The sweep stopped: {error}. {_kept(study())}") from error
    except optuna.exceptions.StorageInternalError as error:
        cause = str(error.__cause__ or error).partition("\n")[0]
        raise SweepError(f"The sweep stopped, its study cannot be used: {cause}. {_kept(study())}") from error
    except OSError as error:
        why = "the disk is full, make room" if error.errno in _FULL else str(error)
        raise SweepError(f"The sweep stopped: {why}. {_kept(study())}") from error


def _kept(study: optuna.Study | None) -> str:
    if study is None:
        return "Nothing was lost."
    try:
        kept = f"The {len(done(study))} finished trials are kept"
    except optuna.exceptions.StorageInternalError:
        kept = "Finished trials are kept"
    return f"{kept}; the same command goes on from there."
