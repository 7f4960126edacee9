"""Held-out traces and windows sent to every agent while the demo runs: the proof that a swap costs no request."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx2
import numpy as np
import numpy.typing as npt

from edgewright_local.errors import LocalPlatformError
from edgewright_pipelines.data.traces import Trace

PAUSE_SECONDS = 0.01
CHUNK = 7_200
"""Readings of one request: two hours, a third of what a body may hold."""


@dataclass(slots=True)
class Counts:
    """Requests so far."""

    sent: int = 0
    failed: int = 0
    last_error: str = ""


def replay(url: str, days: Sequence[Trace], end: int) -> int:
    """Push whole days at 1 Hz into an agent as if the last had ended at Unix second `end`; gives the readings taken.

    Raises:
        LocalPlatformError: the agent refused a reading.
    """
    watts = np.concatenate([day.watts for day in days])
    first, taken = end - len(watts) + 1, 0
    with httpx2.Client(timeout=60, trust_env=False) as client:
        for start in range(0, len(watts), CHUNK):
            part = watts[start : start + CHUNK].tolist()
            readings = [{"t": first + start + index, "watts": value} for index, value in enumerate(part)]
            answer = client.post(f"{url}/v1/readings", json={"readings": readings})
            if not answer.is_success:
                raise LocalPlatformError(f"{url} took no readings: {answer.status_code} {answer.text[:300]}")
            taken += int(answer.json()["taken"])
    return taken


class Traffic:
    """One thread for each agent posts windows [n, window] in turn until `stop`."""

    def __init__(self, urls: Mapping[str, str], model: str, windows: npt.NDArray[np.uint16]) -> None:
        self.counts = Counts()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(node, f"{url}/v2/models/{model}/infer", windows), daemon=True)
            for node, url in urls.items()
        ]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> Counts:
        """End after the requests under way; what was counted."""
        self._ending.set()
        for thread in self._threads:
            thread.join(timeout=15)
        return self.counts

    def _send(self, node: str, url: str, windows: npt.NDArray[np.uint16]) -> None:
        with httpx2.Client(timeout=10, trust_env=False) as client:
            index = 0
            while not self._ending.is_set():
                watts = windows[index % len(windows)].astype(float).tolist()
                shape = [1, 1, len(watts)]
                body = {"inputs": [{"name": "watts", "shape": shape, "datatype": "FP32", "data": watts}]}
                self._count(node, client, url, body)
                index += 1
                time.sleep(PAUSE_SECONDS)

    def _count(self, node: str, client: httpx2.Client, url: str, body: Mapping[str, object]) -> None:
        problem = ""
        try:
            answer = client.post(url, json=body)
            if answer.status_code != 200 or not isinstance(answer.json(), dict):
                problem = f"{node}: {answer.status_code} {answer.text[:200]}"
        except (httpx2.HTTPError, ValueError) as error:
            problem = f"{node}: {type(error).__name__}: {error}"
        with self._lock:
            self.counts.sent += 1
            if problem:
                self.counts.failed += 1
                self.counts.last_error = problem
