"""Start of the server process: `python -m edgewright_agent.serving --fd N --control PATH [--replay FILE ...]`."""

import argparse
import asyncio
import importlib.util
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvicorn
import uvloop
from starlette.applications import Starlette

from edgewright_agent.serving import frames, replay
from edgewright_agent.serving.busy_poll import BusyPoll
from edgewright_agent.serving.control import Control
from edgewright_agent.serving.door import Door
from edgewright_agent.serving.history import History
from edgewright_agent.serving.hot_route import protocol_for
from edgewright_agent.serving.inference import Inference, Limits
from edgewright_agent.serving.live import Live
from edgewright_agent.serving.metrics import Metrics
from edgewright_agent.serving.quiet_server import QuietServer
from edgewright_agent.serving.routes import Routes
from edgewright_agent.serving.settings import PREFIX, ServingSettings, from_environment
from edgewright_agent.serving.slots import Slots
from edgewright_agent.serving.uvicorn_fit import misfit

log = logging.getLogger(__name__)
DESCRIPTORS: Final = 4096
SWITCH_SECONDS: Final = 0.0002
"""A thread that loads a model must give way sooner than after Python's 5 ms, which every request would wait."""


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="edgewright_agent.serving", description="The serving process of an edge node."
    )
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--control", type=Path, required=True, help="path of the control socket")
    parser.add_argument("--hold", action="store_true", help="take requests only when the control socket says `serve`")
    parser.add_argument("--history", type=Path, help="folder that keeps the readings of the last 48 hours")
    parser.add_argument("--frames", type=Path, help="path of the frame socket (else EDGEWRIGHT_AGENT_FRAMES_PATH)")
    parser.add_argument("--replay", type=Path, nargs="+", default=[], help="traces to play: .csv, .npy or folders")
    parser.add_argument("--replay-speed", type=float, default=1.0, help="1 is real time, 0 is without pauses")
    parser.add_argument("--max-body-bytes", type=int, default=Limits.body_bytes)
    parser.add_argument("--max-concurrency", type=int, default=Limits.concurrency)
    parser.add_argument("--max-connections", type=int, default=Limits.connections)
    parser.add_argument("--body-seconds", type=float, default=Limits.body_seconds, help="deadline of a whole request")
    return parser.parse_args(argv)


def _http_protocol(door: Door) -> str | type[asyncio.Protocol]:
    """The hot route's protocol class, or uvicorn's own where that does not fit."""
    reason = misfit()
    if reason is None:
        return protocol_for(door)
    log.warning("Infer requests take the plain way: %s.", reason)
    return "httptools"


def _uvicorn(app: Starlette, door: Door) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=_http_protocol(door),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=int(door.limits.idle_seconds),
        timeout_graceful_shutdown=10,
    )
    return QuietServer(config)


async def _run(
    arguments: argparse.Namespace, settings: ServingSettings, listening: socket.socket, traces: Sequence[Path]
) -> None:
    metrics = Metrics()
    slots = Slots(metrics)
    history = History(arguments.history) if arguments.history else None
    live = Live(slots, metrics, history)
    limits = Limits(
        body_bytes=arguments.max_body_bytes,
        concurrency=arguments.max_concurrency,
        connections=arguments.max_connections,
        body_seconds=arguments.body_seconds,
    )
    inference = Inference(slots, limits)
    alone = (os.cpu_count() or 1) < 2  # then staying awake would keep the client from asking
    busy_poll = BusyPoll(0.0 if alone else settings.busy_poll_microseconds / 1e6)
    door = Door(inference, busy_poll)
    server = _uvicorn(Routes(inference, live, metrics, settings.readings_token_file).app(), door)
    control = Control(slots, metrics, history)
    door_of_supervisor = await control.listen(arguments.control)
    frame_path = arguments.frames or settings.frames_path
    framing = await frames.listen(inference, frame_path, busy_poll) if frame_path else None
    beside = [
        asyncio.create_task(replay.play(live, traces, int(time.time()), arguments.replay_speed)),
        asyncio.create_task(door.sweep(server.server_state.connections)),
    ]
    if settings.mqtt_host:  # imported here: a node without MQTT need not hold it in memory
        from edgewright_agent.serving.mqtt import Mqtt

        beside.append(asyncio.create_task(Mqtt(settings, live, time.time).run()))
    try:
        if arguments.hold:  # connections wait in the socket's queue meanwhile
            await control.serve.wait()
        if settings.grpc_address:
            from edgewright_agent.serving.grpc_door import GrpcDoor

            beside.append(asyncio.create_task(GrpcDoor(door).serve(settings.grpc_address)))
        await server.serve(sockets=[listening])
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        door_of_supervisor.close()
        if framing is not None:
            framing.close()
        if history is not None:
            history.flush()


def _raise_descriptor_limit() -> None:
    """Connections beyond the bound are turned away with a sentence, for which they must be accepted first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; gives 2 where an argument cannot be used."""
    arguments = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    _raise_descriptor_limit()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        settings = from_environment(os.environ)
        if settings.grpc_address and importlib.util.find_spec("grpc") is None:
            raise ValueError(f"{PREFIX}GRPC_ADDRESS is set, which needs the extra edgewright-agent[grpc]; install it")
        traces = replay.find(arguments.replay)
        listening = socket.socket(fileno=arguments.fd)
    except (replay.BadTrace, OSError, ValueError) as error:
        print(f"edgewright_agent.serving: {error}", file=sys.stderr)
        return 2
    listening.setblocking(False)
    uvloop.run(_run(arguments, settings, listening, traces))
    return 0


if __name__ == "__main__":
    sys.exit(main())
