import pytest

from edgewright_pipelines import rapl


def _package(root, number, energy, most=1_000_000):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder


def test_joules_of_all_packages_are_summed(tmp_path):
    _package(tmp_path, 0, 300_000)
    second = _package(tmp_path, 1, 100_000)
    counter = rapl.found(tmp_path)
    before = counter.read()
    assert before == pytest.approx(0.4)
    (second / "energy_uj").write_text("350000")
    assert counter.since(before) == pytest.approx(0.25)


def test_a_counter_that_ran_over_is_continued(tmp_path):
    only = _package(tmp_path, 0, 900_000)
    counter = rapl.found(tmp_path)
    before = counter.read()
    (only / "energy_uj").write_text("100000")
    assert counter.since(before) == pytest.approx(0.2)


def test_no_counter_or_an_unreadable_one_is_none(tmp_path):
    assert rapl.found(tmp_path / "absent") is None
    assert rapl.found(tmp_path) is None
    (_package(tmp_path, 0, 1) / "energy_uj").unlink()
    assert rapl.found(tmp_path) is None
