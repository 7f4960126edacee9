from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright_agent.disk import FileOps
from edgewright_agent.serving import rehearsal
from edgewright_agent.serving.engine import Model
from edgewright_agent.serving.history import HOURS, RECORD, History
from edgewright_agent.serving.metrics import Tally
from edgewright_agent.serving.slots import Figures, Loaded
from edgewright_agent.serving.spread import Spread
from edgewright_contract.release import Histogram, Reference, Window

START = 490_000 * 3600
"""In 2025: neither before this program was nor to come."""


def _filled(folder: Path, seconds: range, ops: FileOps | None = None) -> History:
    history = History(folder, ops)
    for second in seconds:
        if history.add(START + second, float(second % 3600)):
            history.flush()
    history.flush()
    return history


def test_readings_come_back_after_a_restart(tmp_path: Path) -> None:
    _filled(tmp_path, range(3000, 4200))
    assert np.array_equal(History(tmp_path).dense(), [float(second % 3600) for second in range(3000, 4200)])


def test_a_short_gap_holds_the_last_value_and_a_long_one_is_unknown(tmp_path: Path) -> None:
    history = History(tmp_path)
    for second in (0, 10, 200):
        history.add(START + second, second + 1.0)
    watts = history.dense()
    assert np.array_equal(watts[:10], [1.0] * 10)
    assert np.array_equal(watts[10:71], [11.0] * 61)
    assert np.isnan(watts[71:200]).all()
    assert watts[200] == 201.0


def test_48_hours_are_kept_and_no_more(tmp_path: Path) -> None:
    history = History(tmp_path)
    for hour in range(HOURS + 5):
        history.add(START + hour * 3600, 1.0)
        history.flush()
    assert len(list(tmp_path.iterdir())) == HOURS
    assert len(history.dense()) == (HOURS - 1) * 3600 + 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= HOURS * 3600 * RECORD.itemsize


def _kept(tmp_path: Path, *readings: tuple[float, int]) -> list[int]:
    """The hours since the start that are left after readings at (clock, second)."""
    now = [0.0]
    history = History(tmp_path, clock=lambda: now[0])
    for clock, second in readings:
        now[0] = clock
        history.add(second, 1.0)
        history.flush()
    return sorted(int(path.stem) - START // 3600 for path in tmp_path.iterdir())


HOUR = 3600


def test_a_clock_set_back_forgets_the_future(tmp_path: Path) -> None:
    assert _kept(tmp_path, (START + 90 * HOUR, START + 90 * HOUR), (START, START)) == [0]


@pytest.mark.parametrize(("clock", "second"), [(1000, 1000), (START + 2 * HOUR, 1), (START + 2 * HOUR, START * 2)])
def test_a_reading_of_another_time_costs_no_other(tmp_path: Path, clock: int, second: int) -> None:
    """A node without a clock of its own boots in 1970; and anybody on the host may push a reading of any time."""
    ring = [(START + hour * HOUR, START + hour * HOUR) for hour in range(3)]
    assert _kept(tmp_path, *ring, (clock, second)) == [0, 1, 2]


def test_a_node_that_never_knew_the_time_keeps_what_it_reads(tmp_path: Path) -> None:
    _kept(tmp_path, (1000, 1000), (5 * HOUR, 5 * HOUR))
    assert sorted(int(path.stem) for path in tmp_path.iterdir()) == [0, 5]


def test_a_torn_end_and_rubbish_are_cut_off(tmp_path: Path) -> None:
    _filled(tmp_path, range(60))
    (path,) = tmp_path.iterdir()
    with path.open("ab") as file:
        file.write(np.array([(9999, 1.0), (61, np.inf), (62, 1e9)], RECORD).tobytes() + b"\1\2\3")
    history = History(tmp_path)
    assert len(history.dense()) == 60
    history.add(START + 60, 5.0)
    assert history.dense()[-1] == 5.0
    assert path.stat().st_size % RECORD.itemsize == 0


def test_a_pipe_in_the_folder_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"{START // 3600}.readings")
    history = History(tmp_path)
    history.add(START, 1.0)
    assert len(history.dense()) == 0


def test_a_full_disk_costs_evidence_only(tmp_path: Path, faulty: Any) -> None:
    disk = faulty(tmp_path)

    def full() -> None:
        raise OSError(28, "No space left on device")

    disk.fault_at, disk.fault = 2, full
    history = _filled(tmp_path, range(30), disk.ops())
    history.add(START + 100, 7.0)
    assert history.dense()[-1] == 7.0


@pytest.mark.parametrize("skip", [None, ("_append", "file"), ("_append", "folder")])
def test_a_power_loss_costs_what_was_not_flushed(tmp_path: Path, faulty: Any, skip: tuple[str, str] | None) -> None:
    folder = tmp_path / "history"
    folder.mkdir()
    disk = faulty(folder)
    disk.skip = skip
    _filled(folder, range(120), disk.ops())
    assert disk.sites == {("_append", "file"), ("_append", "folder")}
    disk.after_power_loss(tmp_path / "after", set())
    whole = len(History(tmp_path / "after").dense()) == 120
    assert whole == (skip is None), "each flush is needed"


class Session:
    def __init__(self, watts_of_kettle: float, fails: bool = False) -> None:
        self.limit, self.fails = watts_of_kettle, fails

    def run(self, _: object, given: dict[str, Any]) -> list[Any]:
        mean = given["watts"].mean()
        if self.fails and mean > 1000:
            return [np.full((1, 2), np.nan, np.float32)]
        return [np.array([[0.9, 0.1] if mean < self.limit else [0.1, 0.9]], np.float32)]


def _loaded(session: Session) -> Loaded:
    window = Window(seconds=60, hop_seconds=60)
    model = Model(1, "v", ("off", "kettle"), window, "m", "d", session, 1, 0.001)
    return Loaded("default/nilm", model, Figures(), Tally())


def _watts() -> Any:
    return np.repeat([100.0, 2000.0, 500.0, np.nan, 600.0, 100.0], 60).astype(np.float32)


def test_both_models_answer_each_known_window_once() -> None:
    new = _loaded(Session(400))
    evidence = asyncio.run(rehearsal.rehearse(new, _loaded(Session(550)), _watts(), 5))
    assert (evidence.replayed, evidence.errors, evidence.compared, evidence.agreed) == (5, 0, 5, 4)
    figures = new.figures
    assert (figures.replayed, figures.effective_samples, figures.samples, figures.compared) == (5, 5, 5, 5)
    assert evidence.to_json()["agreement"] == 0.8


def test_replayed_windows_are_compared_with_the_reference() -> None:
    both = Histogram(edges=[0.5], counts=[0, 9])
    new = _loaded(Session(400))
    watts = Histogram(edges=[400], counts=[5, 4])
    new.figures.spread = Spread(
        Reference(windows=9, threshold=0.95, unknown_ratio=0, confidence=both, mean_watts=watts)
    )
    asyncio.run(rehearsal.rehearse(new, _loaded(Session(550)), _watts(), 5))
    told = new.figures.spread.to_json()
    assert told["unknown"] == 5
    assert told["found"] == {"confidence": [0, 5], "meanWatts": [2, 3]}


def test_windows_without_a_finite_answer_are_errors() -> None:
    evidence = asyncio.run(rehearsal.rehearse(_loaded(Session(400, fails=True)), None, _watts(), 5))
    assert (evidence.replayed, evidence.errors, evidence.to_json()["agreement"]) == (4, 1, None)


def test_an_empty_history_is_no_evidence() -> None:
    evidence = asyncio.run(rehearsal.rehearse(_loaded(Session(400)), None, np.zeros(0, np.float32), 5))
    nothing = {"replayed": 0, "errors": 0, "compared": 0, "agreement": None, "previousP95Microseconds": 0}
    assert evidence.to_json() == nothing
