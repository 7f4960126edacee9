import itertools

import numpy as np
import pytest

from edgewright_pipelines import export, latency, networks
from edgewright_pipelines.latency import Effort


def test_percentiles_of_known_times():
    times = [value * 1000 for value in range(1, 101)]  # 1 … 100 microseconds
    found = latency.summarize(times)
    assert found.p50 == pytest.approx(50.5)
    assert found.p95 == pytest.approx(95.05)
    assert found.runs == 100


@pytest.fixture(scope="module")
def model(tiny_recipe):
    return export.to_onnx(networks.build(tiny_recipe.network, 256, 3), 256)


def test_rounds_alternate_so_that_a_slow_phase_meets_all_files(model):
    """A clock that runs ten times faster from the second half on: both files must see both halves."""
    reads = itertools.count()
    effort = Effort(warmup=1, rounds=4, runs=5)

    def clock():
        read = next(reads)
        return read * 1000 if read < 2 * 2 * 5 * 2 else read * 10_000

    found = latency.measure({"a": model, "b": model}, np.zeros(256), effort=effort, clock=clock)
    assert found["a"].runs == found["b"].runs == 20
    assert found["a"].p95 == found["b"].p95 == pytest.approx(10.0)
    assert 1.0 <= found["a"].p50 == found["b"].p50 <= 10.0


def test_warm_up_is_not_timed(model):
    reads = []

    def clock():
        reads.append(0)
        return len(reads) * 1000

    latency.measure({"a": model}, np.zeros(256), effort=Effort(warmup=7, rounds=2, runs=3), clock=clock)
    assert len(reads) == 2 * 2 * 3


def test_real_time_is_plausible(model):
    found = latency.measure({"a": model}, np.zeros(256), effort=Effort(warmup=5, rounds=3, runs=20))["a"]
    assert 1.0 < found.p50 <= found.p95 < 1_000_000


def test_processor_time_is_that_of_one_window(model):
    """A processor clock that moves 30 us in each round of 3 runs."""
    reads = itertools.count()
    effort = Effort(warmup=0, rounds=4, runs=3)
    found = latency.measure(
        {"a": model}, np.zeros(256), effort=effort, cpu_clock=lambda: (next(reads) + 1) // 2 * 30_000
    )
    assert found["a"].cpu == pytest.approx(10.0)


class _Counter:
    """Each reading is one joule later."""

    def __init__(self):
        self.joules = 0.0

    def read(self):
        self.joules += 1.0
        return self.joules

    def since(self, before):
        return self.read() - before


def test_joules_are_those_of_one_window_where_they_can_be_read(model):
    effort = Effort(warmup=0, rounds=2, runs=4)
    found = latency.measure({"a": model}, np.zeros(256), effort=effort, counter=_Counter())
    assert found["a"].joules == pytest.approx(0.25)
