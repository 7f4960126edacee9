"""The counts and splits of the real data, where they are."""

import os
from pathlib import Path

import pytest

from edgewright_pipelines.data.location import locate
from edgewright_pipelines.data.traces import read
from edgewright_pipelines.splits import by_day, by_device, strong_classes


@pytest.fixture(scope="module")
def tracebase(tmp_path_factory):
    root = Path(__file__).parents[2]
    found = locate(os.environ, root)
    if found is None:
        pytest.skip("no traces here; set TRACEBASE_DIR to check the counts of the real data")
    return read(found, tmp_path_factory.mktemp("cache"))


def test_counts_of_the_real_data(tracebase):
    traces, report = tracebase
    if report.files != 1407:
        pytest.skip(f"{report.files} files are not the pinned 1,407")
    assert (report.read, len(report.skipped), len(report.dropped)) == (1407, 0, 12)
    assert sum("Monitor-TFT/dev_B7BE29" in name for name in report.dropped) == 7
    assert len(traces) == report.traces == 1395
    assert len(report.days) == 48
    assert {"Monitor-TFT/B81116", "Refrigerator/B1C121"} <= report.suspected.keys()


def test_splits_of_the_real_data(tracebase):
    traces, report = tracebase
    if report.files != 1407:
        pytest.skip(f"{report.files} files are not the pinned 1,407")
    split = by_day(traces, seed=1)
    sides = (split.train, split.validation, split.test)
    assert len(split.classes) == 36
    assert sum(map(len, sides)) == 1341  # 20 days have no active window, 34 are of classes with fewer than 8 days
    assert [len(side) for side in sides] == [906, 168, 267]
    assert {trace.device for side in sides for trace in side} == {trace.device for trace in split.train}
    assert len(by_device(traces, fold=0, seed=1).classes) == 24
    assert len(strong_classes(traces)) == 14
