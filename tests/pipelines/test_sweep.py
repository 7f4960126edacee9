"""The search with real executors and a real SQLite study, on trials that cost nothing."""

import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.trial import TrialState

from edgewright_pipelines import sweep
from edgewright_pipelines.choices import Outcome
from edgewright_pipelines.prune import PruningError
from edgewright_pipelines.recipe import Importance, Recipe, Scope, Way
from edgewright_pipelines.sweep import Plan, Stopped, SweepError
from edgewright_pipelines.workers import DaskWorkers, ProcessWorkers

DATA = "sha256:" + "0" * 64

# What the workers of other processes import: a trial that leaves its process number, waits, and answers by its ratio.
TRIAL = """
import os, time
from pathlib import Path
from edgewright_pipelines.choices import Outcome

def answer(task):
    ratio = task.choice.pruning.ratio
    return Outcome(1.0 - ratio**2, round(100_000 * (1 - ratio)), 100.0 * (1 - ratio), 0.5)

def slowly(task):
    begun = task.workspace / f"begun-{os.getpid()}-{time.monotonic_ns()}"
    begun.touch()
    while not (task.workspace / "go").exists():
        time.sleep(0.02)
    return answer(task)
"""


class Threads:
    """Workers of this process."""

    def __init__(self, count=2):
        self.count = count

    def start(self):
        self.pool = ThreadPoolExecutor(self.count)
        return self.pool

    def stop(self):
        self.pool.shutdown(wait=True, cancel_futures=True)


def _recipe(trials=6, **space):
    return Recipe.model_validate({"name": "tiny", "sweep": {"trials": trials, **space}})


def _answer(task):
    ratio = task.choice.pruning.ratio
    return Outcome(1.0 - ratio**2, round(100_000 * (1 - ratio)), 100.0 * (1 - ratio), 0.5)


def _silent(_what, _fraction):
    pass


def _sweep(workspace, *, run=_answer, workers=None, trials=6, report=_silent, **more):
    recipe = _recipe(trials)
    study = sweep.opened(recipe, DATA, workspace)
    plan = Plan(recipe, None, workspace)
    sweep.search(study, plan, workers or Threads(), report=report, run=run, **more)
    return study


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A module that spawned processes can import, as they get this process's path."""
    (tmp_path / "costs_nothing.py").write_text(TRIAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    import costs_nothing

    yield costs_nothing
    sys.modules.pop("costs_nothing")


def test_it_runs_as_many_trials_as_asked_and_keeps_figures(tmp_path):
    study = _sweep(tmp_path)
    assert len(sweep.done(study)) == 6
    for trial in sweep.done(study):
        choice = sweep.choice_of(trial)
        assert trial.values == [
            1 - choice.pruning.ratio**2,
            round(100_000 * (1 - choice.pruning.ratio)),
            pytest.approx(100 * (1 - choice.pruning.ratio)),
        ]
        assert trial.user_attrs[sweep.BCE] == 0.5


def test_the_same_command_goes_on_where_it_stopped_and_then_has_nothing_to_do(tmp_path):
    _sweep(tmp_path, trials=4)
    calls = []

    def counted(task):
        calls.append(task.choice)
        return _answer(task)

    assert len(sweep.done(_sweep(tmp_path, trials=7, run=counted))) == 7
    assert len(calls) == 3
    assert len(sweep.done(_sweep(tmp_path, trials=7, run=counted))) == 7
    assert len(calls) == 3


def test_other_data_or_another_recipe_is_another_study(tmp_path):
    _sweep(tmp_path, trials=2)
    assert sweep.done(sweep.opened(_recipe(2), "sha256:" + "1" * 64, tmp_path)) == []
    assert sweep.done(sweep.opened(_recipe(2, highest_ratio=0.5), DATA, tmp_path)) == []
    assert len(sweep.done(sweep.opened(_recipe(9), DATA, tmp_path))) == 2


def test_choices_stay_inside_the_space(tmp_path):
    space = {"lowest_ratio": 0.2, "highest_ratio": 0.43, "importances": ("l2",), "scopes": ("local",), "ways": ("qat",)}
    recipe = Recipe.model_validate_json(_recipe(12).model_copy().model_dump_json())
    recipe = recipe.model_copy(
        update={"sweep": recipe.sweep.model_copy(update={"lowest_ratio": 0.2, "highest_ratio": 0.43})}
    )
    assert space["ways"] == ("qat",)
    study = sweep.opened(recipe, DATA, tmp_path)
    sweep.search(study, Plan(recipe, None, tmp_path), Threads(), report=_silent, run=_answer)
    ratios = {sweep.choice_of(trial).pruning.ratio for trial in sweep.done(study)}
    assert ratios <= {0.2, 0.25, 0.3, 0.35, 0.4}
    assert len(ratios) > 2


def test_the_front_holds_what_none_beats_smallest_first(tmp_path):
    study = sweep.opened(_recipe(4), DATA, tmp_path)
    points = {0.2: (0.9, 800, 80.0), 0.4: (0.8, 600, 60.0), 0.5: (0.7, 700, 70.0), 0.6: (0.6, 300, 90.0)}
    for ratio, values in points.items():
        study.enqueue_trial({"importance": "l2", "scope": "global", "ratio": ratio, "way": "ptq"})
        asked = study.ask()
        sweep.suggest(asked, _recipe().sweep)
        study.tell(asked, values)
    names = [choice.name for choice in sweep.front(study)]
    assert names == ["l2-global-60-int8", "l2-global-40-int8", "l2-global-20-int8"]


def test_names_tell_the_way(tmp_path):
    study = sweep.opened(_recipe(), DATA, tmp_path)
    found = []
    for way in ("none", "ptq", "qat"):
        study.enqueue_trial({"importance": "taylor", "scope": "local", "ratio": 0.35, "way": way})
        choice = sweep.suggest(study.ask(), _recipe().sweep)
        assert (choice.pruning.importance, choice.pruning.scope) == (Importance.TAYLOR, Scope.LOCAL)
        assert choice.way == (None if way == "none" else Way(way))
        found.append(choice.name)
    assert found == ["taylor-local-35-fp32", "taylor-local-35-int8", "taylor-local-35-int8-qat"]


def test_progress_says_how_many_and_how_long(tmp_path):
    told, clock = [], iter(range(0, 10_000, 30))
    _sweep(
        tmp_path,
        trials=4,
        workers=Threads(1),
        report=lambda what, part: told.append((what, part)),
        clock=lambda: next(clock),
    )
    assert told[0] == ("searching (0 of 4 trials)", 0.0)
    assert told[1] == ("searching (1 of 4 trials, about 90 s left)", 0.25) or "min left" in told[1][0]
    assert told[-1] == ("searching (4 of 4 trials)", 1.0)
    assert all("left" in what for what, _ in told[1:-1])


def test_a_choice_that_cannot_be_made_fails_alone_and_says_why(tmp_path):
    calls = iter(range(100))

    def sometimes(task):
        if next(calls) == 1:
            raise PruningError("The pruned network does not run: no channel is left")
        return _answer(task)

    ended = []
    study = _sweep(tmp_path, run=sometimes, workers=Threads(1), finished=ended.append)
    assert len(sweep.done(study)) == 6
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert [trial.user_attrs[sweep.REASON] for trial in failed] == [
        "PruningError: The pruned network does not run: no channel is left"
    ]
    assert [trial.state for trial in ended].count(TrialState.FAIL) == 1
    assert len(ended) == 7


def test_a_search_in_which_nothing_works_ends_with_the_reason(tmp_path):
    def never(_task):
        raise PruningError("no layer")

    with pytest.raises(SweepError, match=r"5 trials in a row failed, the last with: no layer\. The 0 finished trials"):
        _sweep(tmp_path, run=never, workers=Threads(1))


def test_a_full_disk_in_a_worker_keeps_what_finished_and_the_choice(tmp_path):
    calls = iter(range(100))

    def full(task):
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return _answer(task)

    with pytest.raises(SweepError, match=r"the disk is full, make room\. The 3 finished trials are kept"):
        _sweep(tmp_path, run=full, workers=Threads(1))
    study = sweep.opened(_recipe(), DATA, tmp_path)
    lost = study.get_trials(states=(TrialState.FAIL,))
    again = study.get_trials(states=(TrialState.WAITING,))
    assert [trial.system_attrs["fixed_params"] for trial in again] == [trial.params for trial in lost]
    assert len(sweep.done(_sweep(tmp_path))) == 6


def test_a_study_that_can_no_longer_be_written_keeps_what_finished(tmp_path):
    """The file may really not grow: the kernel refuses the write, as it does on a full disk."""
    _sweep(tmp_path, trials=2)
    (file,) = (tmp_path / "sweep").glob("*.db")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, before[1]))
    try:
        with pytest.raises(SweepError, match=r"its study cannot be used: .*the same command goes on from there"):
            _sweep(tmp_path, trials=200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(sweep.done(sweep.opened(_recipe(), DATA, tmp_path))) >= 2


def test_ctrl_c_keeps_finished_trials_and_queues_the_running_ones(tmp_path):
    calls, begun, release = iter(range(100)), threading.Event(), threading.Event()

    def stuck(task):
        if next(calls) < 2:
            return _answer(task)
        begun.set()
        release.wait(30)
        return _answer(task)

    def interrupt():
        begun.wait(30)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(2)  # until the main thread has met the signal, on a busy machine too
        release.set()

    threading.Thread(target=interrupt).start()
    with pytest.raises(Stopped):
        _sweep(tmp_path, run=stuck, workers=Threads(1))
    study = sweep.opened(_recipe(), DATA, tmp_path)
    assert len(sweep.done(study)) == 2
    assert len(study.get_trials(states=(TrialState.WAITING,))) == 1
    assert study.get_trials(states=(TrialState.RUNNING,)) == []
    assert len(sweep.done(_sweep(tmp_path))) == 6


def test_a_sweep_that_was_killed_outright_queues_its_running_trials_again(tmp_path):
    study = sweep.opened(_recipe(), DATA, tmp_path)
    sweep.suggest(study.ask(), _recipe().sweep)
    study.ask()  # killed before anything was chosen
    again = sweep.opened(_recipe(), DATA, tmp_path)
    assert again.get_trials(states=(TrialState.RUNNING,)) == []
    assert len(again.get_trials(states=(TrialState.WAITING,))) == 1


def _begun(folder, count):
    deadline = time.monotonic() + 90
    while len(found := sorted(folder.glob("begun-*"))) < count:
        assert time.monotonic() < deadline, "the workers did not begin"
        time.sleep(0.02)
    return [int(path.name.split("-")[1]) for path in found]


def test_a_killed_worker_costs_no_finished_trial_and_its_choice_runs_again(tmp_path, elsewhere):
    """A real process dies by SIGKILL in the middle of a trial."""
    _sweep(tmp_path, trials=2)

    def kill():
        (victim,) = _begun(tmp_path, 1)
        os.kill(victim, signal.SIGKILL)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    study = _sweep(tmp_path, trials=4, run=elsewhere.slowly, workers=ProcessWorkers(1))
    killer.join()
    assert len(sweep.done(study)) == 4
    (lost,) = study.get_trials(states=(TrialState.FAIL,))
    assert lost.user_attrs[sweep.REASON] == "its worker was killed"
    assert lost.params in [trial.params for trial in sweep.done(study)[2:]]


def test_workers_that_keep_dying_end_the_search_with_a_sentence(tmp_path):
    from concurrent.futures.process import BrokenProcessPool

    def dies(_task):
        raise BrokenProcessPool("a child process terminated abruptly")

    with pytest.raises(SweepError, match=r"workers were killed 4 times.*use fewer\. The 0 finished trials are kept"):
        _sweep(tmp_path, run=dies, workers=Threads(1))


@pytest.fixture
def cluster(tmp_path, elsewhere):
    """A real Dask scheduler and two workers, each a process of its own; gives the address."""
    assert elsewhere
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    common = ["--scheduler-file", str(file)]
    commands = [
        ["distributed.cli.dask_scheduler", *common, "--host", "127.0.0.1", "--port", "0", "--no-dashboard"],
        *[
            [
                "distributed.cli.dask_worker",
                *common,
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--host",
                "127.0.0.1",
            ]
        ]
        * 2,
    ]
    log = (tmp_path / "dask.log").open("wb")
    started = []
    try:
        for command in commands:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", *command], env=environment, stdout=log, stderr=log, cwd=tmp_path
                )
            )
            _until(file.exists)
        yield f"tcp://{_address(file)}"
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait(20)
        log.close()


def _until(happened):
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "the cluster did not start"
        time.sleep(0.05)


def _address(file: Path) -> str:
    import json

    return json.loads(file.read_text())["address"].removeprefix("tcp://")


def _joined(address):
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)


def test_a_dask_cluster_of_two_workers_runs_the_trials(tmp_path, cluster, elsewhere):
    _joined(cluster)
    workers = DaskWorkers(cluster)
    assert workers.count == 2

    def go():
        _begun(tmp_path, 2)  # both workers hold a trial at the same time
        (tmp_path / "go").touch()

    helper = threading.Thread(target=go)
    helper.start()
    study = _sweep(tmp_path, trials=4, run=elsewhere.slowly, workers=workers)
    helper.join()
    assert len(sweep.done(study)) == 4
    assert len({path.name.split("-")[1] for path in tmp_path.glob("begun-*")}) == 2


def test_a_scheduler_that_does_not_answer_is_a_sentence(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("edgewright_pipelines.workers.CONNECT_SECONDS", 0.5)
    with pytest.raises(SweepError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        DaskWorkers("tcp://127.0.0.1:9")


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SweepError, match=r"pip install 'edgewright-pipelines\[dask\]'"):
        DaskWorkers("tcp://127.0.0.1:9")
