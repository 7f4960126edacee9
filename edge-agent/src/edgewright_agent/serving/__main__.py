"""Start of the server process: `python -m edgewright_agent.serving --fd N --control PATH [--replay FILE ...]`."""

import argparse
import asyncio
import contextlib
import logging
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn
import uvloop

from edgewright_agent.serving import replay
from edgewright_agent.serving.control import Control
from edgewright_agent.serving.live import Live
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.routes import Limits, Routes
from edgewright_agent.serving.slots import Slots


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edgewright_agent.serving", description="The serving process of an edge node."
    )
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--control", type=Path, required=True, help="path of the control socket")
    parser.add_argument("--replay", type=Path, nargs="+", default=[], help="traces to play: .csv, .npy or folders")
    parser.add_argument("--replay-speed", type=float, default=1.0, help="1 is real time, 0 is without pauses")
    parser.add_argument("--max-body-bytes", type=int, default=Limits.body_bytes)
    parser.add_argument("--max-concurrency", type=int, default=Limits.concurrency)
    return parser.parse_args(argv)


async def _run(arguments: argparse.Namespace, listening: socket.socket, traces: Sequence[Path]) -> None:
    metrics = Metrics()
    slots = Slots(metrics)
    live = Live(slots, metrics)
    limits = Limits(body_bytes=arguments.max_body_bytes, concurrency=arguments.max_concurrency)
    control = await Control(slots, metrics).listen(arguments.control)
    config = uvicorn.Config(
        Routes(slots, live, metrics, limits).app(),
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        limit_concurrency=512,
        timeout_graceful_shutdown=10,
    )
    playing = asyncio.create_task(replay.play(live, traces, int(time.time()), arguments.replay_speed))
    try:
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        control.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; gives 2 where an argument cannot be used."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        traces = replay.find(arguments.replay)
        listening = socket.socket(fileno=arguments.fd)
    except (replay.BadTrace, OSError) as error:
        print(f"edgewright_agent.serving: {error}", file=sys.stderr)
        return 2
    listening.setblocking(False)
    uvloop.run(_run(arguments, listening, traces))
    return 0


if __name__ == "__main__":
    sys.exit(main())
