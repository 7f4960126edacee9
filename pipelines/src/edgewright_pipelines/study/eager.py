"""Beside `latency`: how long one window takes in torch without any export, the yardstick of the published study."""

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from edgewright_pipelines.networks import Classifier

WARMUP, RUNS = 20, 200


def eager_p50(
    network: Classifier,
    example: npt.NDArray[np.uint16],
    *,
    runs: int = RUNS,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> float:
    """Median microseconds of one window `example` [window] at one thread, batch 1."""
    watts = torch.from_numpy(example.astype(np.float32))[None, None, :]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    taken = []
    try:
        with torch.inference_mode():
            for _ in range(WARMUP + runs):
                started = clock()
                torch.softmax(network(watts), dim=1)
                taken.append(clock() - started)
    finally:
        torch.set_num_threads(before)
    return float(np.median(np.asarray(taken[WARMUP:]))) / 1000.0
