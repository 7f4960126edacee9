"""Beside a sweep: where its trials run, processes of this machine or workers of a Dask cluster."""

import multiprocessing
import signal
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

from edgewright_pipelines.sweep import SweepError

CONNECT_SECONDS = 10


class ProcessWorkers:
    """So many processes of this machine, each with one thread."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> Executor:
        """A new pool; its processes start with the first tasks."""
        context = multiprocessing.get_context("spawn")  # forked torch hangs
        # Ctrl-C reaches the whole group of processes; only the sweep answers it
        ignore = (signal.SIGINT, signal.SIG_IGN)
        self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=signal.signal, initargs=ignore)
        return self._pool

    def stop(self) -> None:
        """Kill what still runs: a trial may take minutes, and its finished steps are in the stages."""
        if self._pool is None:
            return
        # no public way before Python 3.14 (terminate_workers)
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


class DaskWorkers:
    """The workers of an existing Dask cluster that see the same folders; one trial for each at a time.

    Raises SweepError if the scheduler does not answer, has no worker, a worker has several threads (torch's random
    state belongs to a process), or `distributed` is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise SweepError("--dask needs the package distributed: pip install 'edgewright-pipelines[dask]'") from None
        try:
            client: Any = distributed.Client
            self._client = client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise SweepError(f"no Dask scheduler answers at {address}: {error}") from None
        threads: dict[str, int] = self._client.nthreads()
        if not threads or max(threads.values()) > 1:
            self._client.close()
            many = [worker for worker, count in threads.items() if count > 1]
            why = f"worker {many[0]} has several threads" if many else "it has no worker"
            raise SweepError(f"the Dask cluster at {address} cannot be used: {why}; start `dask worker --nthreads 1`")
        self.count = len(threads)

    def start(self) -> Executor:
        """An executor over the cluster."""
        executor: Executor = self._client.get_executor()
        return executor

    def stop(self) -> None:
        """Let go of the cluster, which drops what was not begun; the cluster itself stays."""
        self._client.close()
