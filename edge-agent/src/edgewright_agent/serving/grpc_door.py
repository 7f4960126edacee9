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
from edgewright_agent.serving.protocol_v2 import BadRequest
from edgewright_agent.serving.slots import Loaded, NoFiniteAnswer

log = logging.getLogger(__name__)
SERVICE: Final = DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
STREAMS: Final = 16
"""Calls that one connection may have under way at once; further ones wait at the client until their deadline.

gRPC's core takes calls in before this process sees them, so that nobody here could count and shed what waits there.
With 64 KiB that the core holds of each, all connections together can make it hold 64 MiB.
"""
_SHARE: Final = 8
"""One of so many of the server's connections may be a gRPC one."""
_IDENTITY_ONLY: Final = 1
_LATER: Final = (("grpc-retry-pushback-ms", "1000"),)
"""What Retry-After is to HTTP, for clients with a retry policy."""


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
        self._in_flight = 0
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
        options = [
            ("grpc.max_receive_message_length", limits.body_bytes),
            ("grpc.max_metadata_size", limits.head_bytes),
            ("grpc.absolute_max_metadata_size", limits.head_bytes),
            ("grpc.max_concurrent_streams", STREAMS),
            ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
            ("grpc.max_allowed_incoming_connections", max(1, limits.connections // _SHARE)),
            ("grpc.server_handshake_timeout_ms", int(limits.body_seconds * 1000)),
            ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
            ("grpc.so_reuseport", 1),  # a server that takes over listens before the former one ends
        ]
        server = aio.server(options=options, maximum_concurrent_rpcs=limits.connections)
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
            try:
                return await answer(await self._request(context))
            except Refused as refused:
                later = _LATER if refused.code is grpc.StatusCode.UNAVAILABLE else ()
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
        grpc_messages.read(request, data)
        loaded = self._find(request.model_name, request.model_version)
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

    def _find(self, name: str, version: str) -> Loaded:
        found = self._slots.live.get(name)
        if found is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"No model {name[:80]!r} is live here.")
        if version not in ("", str(found.model.version)):
            sentence = f"Model {name} is live in version {found.model.version}, not {version[:20]!r}."
            raise Refused(grpc.StatusCode.NOT_FOUND, sentence)
        return found
