"""Open Inference Protocol v2 over gRPC: models, checks, bounds and counts of the HTTP door, in the same event loop.

Only where an address is set is this imported: it needs the extra `edgewright-agent[grpc]`.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from grpc import aio

from edgewright_agent.backoff import pause_seconds
from edgewright_agent.serving import grpc_messages
from edgewright_agent.serving.door import DRAIN_SECONDS, Door
from edgewright_agent.serving.grpc_backlog import CHANNELZ, Backlog
from edgewright_agent.serving.inference import BUSY, FAILED
from edgewright_agent.serving.open_inference_pb2 import (
    DESCRIPTOR,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerReadyResponse,
)
from edgewright_agent.serving.protocol_v2 import LONG_TEXT, BadRequest
from edgewright_agent.serving.slots import Loaded, NoFiniteAnswer

log = logging.getLogger(__name__)
SERVICE: Final = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
STREAMS: Final = 64
"""Calls that one connection may have under way at once.

Well below it no call is ever reset: a call ends for the client when its answer is sent, but the core counts it until
Python has let go of it, and resets the call that a client at the very bound begins in its place. Without that count
(`grpc.http.overload_protection`) a client that begins and resets calls makes the server grow by 30 MB a second.
"""
_LOOKAHEAD: Final = 16 * 1024
"""Bytes of a request that the core takes in unasked: 64 MiB for all calls of all connections."""
_SHARE: Final = 8
"""One of so many of the server's connections may be a gRPC one."""
_IDENTITY_ONLY: Final = 1
_LATER: Final = (("grpc-retry-pushback-ms", "1000"),)
"""What Retry-After is to HTTP, for clients with a retry policy."""
_BUSY_CODES: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


class Refused(Exception):
    """The call ends with this status and a sentence."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class GrpcDoor:
    """One gRPC server beside the HTTP door."""

    def __init__(self, door: Door) -> None:
        self._door, self._inference = door, door.inference
        self._slots, self._limits = door.inference.slots, door.inference.limits
        self._in_flight, self._backlog = 0, Backlog(self._limits.connections)
        self._rng = random.Random()  # noqa: S311 - a spread, not a secret

    async def serve(self, address: str) -> None:
        """Answer on this address, host:port, until cancelled; while it cannot be had, try again and say so."""
        attempts = 0
        while True:
            server = self._server()
            try:
                server.add_insecure_port(address)
                break
            except RuntimeError as error:
                attempts += 1
                pause = pause_seconds(attempts, FIRST_PAUSE, LONGEST_PAUSE, self._rng)
                log.error("gRPC does not listen on %s: %s; next try in %.1f s.", address, error, pause)
                await asyncio.sleep(pause)
        await server.start()
        log.info("gRPC listens on %s", address)
        try:
            await server.wait_for_termination()
        finally:
            await server.stop(DRAIN_SECONDS)

    def _server(self) -> aio.Server:
        limits = self._limits
        connections = max(1, limits.connections // _SHARE)
        options = [
            ("grpc.max_receive_message_length", limits.body_bytes),
            ("grpc.max_metadata_size", limits.head_bytes),
            ("grpc.absolute_max_metadata_size", limits.head_bytes),
            ("grpc.max_concurrent_streams", STREAMS),
            CHANNELZ,
            ("grpc.http2.lookahead_bytes", _LOOKAHEAD),
            ("grpc.http2.bdp_probe", 0),  # else it takes in more from a fast client
            # beyond these calls end as CANCELLED without a word
            ("grpc.server.max_pending_requests", connections * STREAMS),
            ("grpc.server.max_pending_requests_hard_limit", connections * STREAMS),
            ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.server_handshake_timeout_ms", int(limits.body_seconds * 1000)),
            ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
            ("grpc.so_reuseport", 1),  # a server that takes over listens before the former one ends
        ]
        server = aio.server(options=options)
        calls = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        # as a stream of one request: only so can the server end a call whose request never arrives whole
        handlers = {name: grpc.stream_unary_rpc_method_handler(self._call(answer)) for name, answer in calls.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        return server

    def _call(self, answer: Callable[[bytes], Awaitable[bytes]]) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def call(_: Any, context: Any) -> bytes:
            self._in_flight += 1
            self._backlog.arrived()
            try:
                if self._in_flight > self._limits.connections:
                    raise self._too_many()
                return await answer(await self._request(context))
            except Refused as refused:
                later = _LATER if refused.code in _BUSY_CODES else ()
                await context.abort(refused.code, str(refused), later)
                raise  # abort has raised already
            except BadRequest as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                raise
            finally:
                self._in_flight -= 1

        return call

    async def _request(self, context: Any) -> bytes:
        seconds = self._limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                message = await context.read()
        except TimeoutError:
            sentence = f"The request took longer than {seconds:g} s."
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, sentence) from None
        if message is aio.EOF:
            raise BadRequest("The call holds no message.")
        return bytes(message)

    async def _server_live(self, _: bytes) -> bytes:
        return bytes(ServerLiveResponse(live=True).SerializeToString())

    async def _server_ready(self, _: bytes) -> bytes:
        return bytes(ServerReadyResponse(ready=bool(self._slots.live)).SerializeToString())

    async def _server_metadata(self, _: bytes) -> bytes:
        return bytes(grpc_messages.server_metadata().SerializeToString())

    async def _model_ready(self, data: bytes) -> bytes:
        request = ModelReadyRequest()
        grpc_messages.read(request, data)
        found = self._slots.live.get(request.name)
        ready = found is not None and request.version in ("", str(found.model.version))
        return bytes(ModelReadyResponse(ready=ready).SerializeToString())

    async def _model_metadata(self, data: bytes) -> bytes:
        request = ModelMetadataRequest()
        grpc_messages.read(request, data)
        found = self._find(request.name, request.version)
        return bytes(grpc_messages.model_metadata(found.name, found.model).SerializeToString())

    async def _infer(self, data: bytes) -> bytes:
        request, inference = ModelInferRequest(), self._inference
        if len(data) > LONG_TEXT:
            async with inference.one_by_one:
                grpc_messages.read(request, data)
        else:
            grpc_messages.read(request, data)
        loaded = self._find(request.model_name, request.model_version)
        if self._backlog.sheds():
            inference.shed(loaded)
            raise self._too_many()
        if not self._door.admits(self._in_flight) or inference.in_work >= self._limits.concurrency:
            inference.shed(loaded)
            raise Refused(grpc.StatusCode.UNAVAILABLE, BUSY)
        inference.in_work += 1
        try:
            asked = grpc_messages.parse(request, loaded.model.window.seconds)
            answer = await self._slots.infer(loaded, asked.watts)
        except NoFiniteAnswer as error:
            raise BadRequest(str(error)) from None
        except BadRequest:
            raise
        except Exception:
            log.exception("%s failed on a gRPC request", loaded.full_name)
            raise Refused(grpc.StatusCode.INTERNAL, FAILED) from None
        finally:
            inference.in_work -= 1
        return grpc_messages.encode(loaded.name, loaded.model, asked, answer)

    def _too_many(self) -> Refused:
        sentence = f"More than {self._limits.connections} calls are under way here; try again in a second."
        return Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)

    def _find(self, name: str, version: str) -> Loaded:
        found = self._slots.live.get(name)
        if found is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"No model {name[:80]!r} is live here.")
        if version not in ("", str(found.model.version)):
            sentence = f"Model {name} is live in version {found.model.version}, not {version[:20]!r}."
            raise Refused(grpc.StatusCode.NOT_FOUND, sentence)
        return found
