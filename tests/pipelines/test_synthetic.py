import numpy as np
import pytest

from edgewright_pipelines.data.synthetic import BEHAVIORS, GENERATED, generate
from edgewright_pipelines.splits import by_day, by_device
from edgewright_pipelines.windows import cut, starts


def test_same_arguments_same_days_other_seed_other_days():
    first, second = generate(seed=4, devices=2, days=2), generate(seed=4, devices=2, days=2)
    other = generate(seed=5, devices=2, days=2)
    for a, b, c in zip(first, second, other, strict=True):
        assert (a.name, a.watts.tobytes()) == (b.name, b.watts.tobytes())
        assert a.watts.tobytes() != c.watts.tobytes()


def test_a_day_does_not_depend_on_how_many_are_made():
    few = {trace.name: trace.watts.tobytes() for trace in generate(seed=1, classes=["Lamp"], devices=1, days=1)}
    many = {trace.name: trace.watts.tobytes() for trace in generate(seed=1, devices=2, days=2)}
    assert few.items() <= many.items()


def test_names_are_unique_days_differ_and_every_day_has_an_active_window():
    traces = generate(seed=0, devices=3, days=8)
    assert len(traces) == len(BEHAVIORS) * 24
    assert len({trace.name for trace in traces}) == len(traces)
    assert len({trace.watts.tobytes() for trace in traces}) == len(traces)
    for trace in traces:
        assert trace.subset == GENERATED
        assert trace.watts.dtype == np.uint16
        assert trace.watts.shape == (86_400,)
        assert trace.watts.max() < 4000
        assert len(starts(trace.watts, window=4096, hop=512)), trace.name


def test_classes_look_different():
    mean = {}
    for trace in generate(seed=0, devices=2, days=2):
        on = trace.watts[trace.watts >= 5]
        mean.setdefault(trace.appliance, []).append(float(on.mean()))
    assert min(mean["WaterKettle"]) > 1500 > max(mean["Toaster"]) > min(mean["Toaster"]) > 600
    assert max(mean["Router"]) < 12


def test_every_later_stage_takes_them():
    traces = generate(seed=0)
    split = by_day(traces, seed=0)
    assert len(split.classes) == len(BEHAVIORS)
    assert len(by_device(traces, fold=0, seed=0, folds=3).classes) == len(BEHAVIORS)
    windows = cut(split.test, split.classes, window=4096, hop=2048)
    assert set(windows.label.tolist()) == set(range(len(BEHAVIORS)))


def test_mistakes_are_sentences():
    with pytest.raises(ValueError, match="No behavior is known for Sauna; known: Refrigerator"):
        generate(seed=0, classes=["Sauna"])
    with pytest.raises(ValueError, match="0 devices"):
        generate(seed=0, devices=0)
