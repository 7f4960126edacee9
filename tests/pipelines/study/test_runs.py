import json

import pytest

from edgewright_pipelines import train
from edgewright_pipelines.latency import Effort
from edgewright_pipelines.stages import Stages
from edgewright_pipelines.study import report, runs, settings
from edgewright_pipelines.study.results import collect
from edgewright_pipelines.study.store import Store

BRIEF = Effort(warmup=1, rounds=2, runs=2)


def _quiet(_what, _fraction):
    pass


@pytest.fixture(scope="module")
def finished(small, made_up, tmp_path_factory):
    """All three cells, computed once."""
    folder = tmp_path_factory.mktemp("study")
    store = Store(folder / "results" / "study")
    progress = runs.run(small, made_up, store, Stages(folder / "stages"), _quiet, effort=BRIEF)
    return folder, store, progress


def test_three_cells_are_files_and_a_rerun_computes_none(small, made_up, finished, monkeypatch):
    folder, store, progress = finished
    assert (progress.found, progress.computed, progress.total) == (0, 3, 3)
    names = sorted(file.name for file in store.folder.iterdir())
    assert names == ["tiny.day.1.base.json", "tiny.day.1.l2-local-50.json", "trees.day.1.base.json"]
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("trained again"))
    again = runs.run(small, made_up, store, Stages(folder / "stages"), _quiet, effort=BRIEF)
    assert (again.found, again.computed) == (3, 0)


def test_each_file_of_a_cell_is_measured_and_scored(finished):
    _, store, _ = finished
    cell = json.loads(store.path("tiny.day.1.l2-local-50").read_text())
    assert sorted(cell["files"]) == ["fp32", "int8", "int8-dynamic"]
    for entry in cell["files"].values():
        assert entry["bytes"] > 0
        assert entry["p50Microseconds"] > 0
        assert {"validation", "test", "testMostFrequent"} <= entry.keys()
    assert [layer["achieved"] for layer in cell["files"]["fp32"]["audit"]["pruning"]["layers"]][-2:] == [4, 4]
    assert cell["baseEagerP50Microseconds"] > 0


def test_only_a_lost_damaged_or_stale_cell_is_computed(small, made_up, finished, tmp_path):
    folder, store, _ = finished
    copy = Store(tmp_path)
    for file in store.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy.path("trees.day.1.base").unlink()
    copy.path("tiny.day.1.base").write_text("{")
    kept = copy.path("tiny.day.1.l2-local-50").read_bytes()
    progress = runs.run(small, made_up, copy, Stages(folder / "stages"), _quiet, effort=BRIEF)
    assert progress.computed == 2
    assert copy.path("tiny.day.1.l2-local-50").read_bytes() == kept
    more = small.study.model_copy(update={"trees": settings.Trees(trees=6, hop_seconds=4096)})
    stale = small.model_copy(update={"study": more})
    assert runs.run(stale, made_up, copy, Stages(folder / "stages"), _quiet, effort=BRIEF).computed == 1


def test_at_most_so_many_cells_and_what_is_missing_is_said(small, made_up, finished, tmp_path):
    folder, _, _ = finished
    store = Store(tmp_path / "results" / "study")
    assert runs.run(small, made_up, store, Stages(folder / "stages"), _quiet, most=1, effort=BRIEF).computed == 1
    places = report.Places(tmp_path / "results", tmp_path / "study.md", tmp_path)
    told = report.write(small, made_up, store, places)
    assert told["missing"] == ["tiny.day.1.base", "tiny.day.1.l2-local-50"]
    assert list(told["variants"]) == ["trees"]
    text = places.document.read_text()
    assert "1 of 3 cells" in text
    assert "`tiny.day.1.base`" in text


def test_a_cell_that_fails_keeps_the_cells_before_it(small, made_up, finished, tmp_path, monkeypatch):
    folder, _, _ = finished
    store = Store(tmp_path)
    write = Store.write

    def full(self, name, wanted, content):
        if "l2" in name:
            raise OSError(28, "No space left on device")
        write(self, name, wanted, content)

    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(OSError, match="No space left"):
        runs.run(small, made_up, store, Stages(folder / "stages"), _quiet, effort=BRIEF)
    assert len(collect(small, store, made_up.digest()).missing) == 1


def test_the_report_tells_what_the_cells_hold(small, made_up, finished, tmp_path):
    _, store, _ = finished
    places = report.Places(tmp_path / "results", tmp_path / "docs" / "study.md", tmp_path / "pages")
    told = report.write(small, made_up, store, places)
    assert json.loads((tmp_path / "results" / "study.json").read_text()) == told
    assert told["missing"] == []
    assert told["estimatedCpuSeconds"] == told["cpuSeconds"] > 0
    entry = told["variants"]["tiny/base-int8"]
    assert entry["macroF1ByDay"]["low"] <= entry["macroF1ByDay"]["mean"] <= entry["macroF1ByDay"]["high"]
    assert entry["macroF1ByDevice"] is None
    assert entry["eagerP50Microseconds"] > 0
    assert entry["bytes"] == json.loads(store.path("tiny.day.1.base").read_text())["files"]["int8"]["bytes"]
    assert "tiny/base-fp32" in told["againstTrees"]
    text = places.document.read_text()
    assert f"{entry['macroF1ByDay']['mean']:.3f} [" in text
    page = places.page.read_text()
    assert page.count("<svg") == 3  # Pareto, ratio, confusion of the best
    assert "<td>base-int8</td>" in page
    assert str(tmp_path) not in page
