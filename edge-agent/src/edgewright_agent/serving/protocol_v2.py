"""Open Inference Protocol v2 over HTTP, bytes to tensors and back. Pure; every refusal is a sentence for the client.

What a tensor must be is checked here for gRPC too (grpc_messages.py).
"""

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, UnsetType

from edgewright_agent.serving.engine import INPUT, OUTPUT, Model, Probabilities, Watts

HEADER: Final = "inference-header-content-length"
SERVER: Final = {"name": "edgewright-agent", "version": "0.1.0"}
MAX_ID: Final = 256
_FLOAT32: Final = np.dtype("<f4")
_OTHERS: Final = 512
"""Commas beside those between the numbers, lists beside those around them, and objects; an id may look like 256."""
MAX_NUMBERS: Final = 131_072
"""So many take 5 ms to read as JSON, in which nobody else is served; a body of 1 MiB could hold four times as many."""
_TOO_MANY: Final = f"At most {MAX_NUMBERS} numbers may come as JSON; send fewer windows, or send them binary."
_SHORT_TEXT: Final = 16 * 1024
"""Whatever so many bytes hold is read within a millisecond."""
LONG_TEXT: Final = 64 * 1024
"""Bytes of JSON beyond which a request is read in a turn of its own."""


class BadRequest(ValueError):
    """The request is wrong; the sentence says where and how to mend it."""


@dataclass(slots=True)
class InferRequest:
    """A request that passed every check: watts [rows, 1, window seconds]."""

    watts: Watts
    id: str | None
    binary_output: bool


class _InputParameters(msgspec.Struct):
    binary_data_size: int | UnsetType = UNSET


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[float] | UnsetType = UNSET
    parameters: _InputParameters | None = None


class _NestedInput(_Input):
    data: list[list[list[float]]] | UnsetType = UNSET  # type: ignore[assignment]


class _OutputParameters(msgspec.Struct):
    binary_data: bool | UnsetType = UNSET
    classification: Any = UNSET


class _Output(msgspec.Struct):
    name: str
    parameters: _OutputParameters | None = None


class _Parameters(msgspec.Struct):
    binary_data_output: bool = False


class _Head(msgspec.Struct):
    inputs: list[_Input]
    id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None
    outputs: list[_Output] | None = None
    parameters: _Parameters | None = None


class _NestedHead(_Head):
    inputs: list[_NestedInput]  # type: ignore[assignment]


_decoder = msgspec.json.Decoder(_Head)
_nested = msgspec.json.Decoder(_NestedHead)


def parse(body: bytes | bytearray, header_length: str | None, seconds: int) -> InferRequest:
    """Read an infer request for a window of so many seconds.

    Raises:
        BadRequest: anything that does not fit.
    """
    if header_length is None:
        head, rest = _decode(body, seconds), None
    else:
        view, size = memoryview(body), _header_bytes(len(body), header_length)
        head, rest = _decode(view[:size], seconds), view[size:]
    check_single(len(head.inputs))
    return InferRequest(_tensor(head.inputs[0], rest, seconds), head.id, _binary_output(head))


def is_long_text(body: bytes | bytearray, header_length: str | None) -> bool:
    """Whether the JSON of this request takes so long to read that others should have their turn before."""
    if len(body) <= LONG_TEXT:
        return False
    return header_length is None or not header_length.isdigit() or int(header_length[:9]) > LONG_TEXT


def check_single(inputs: int) -> None:
    """There is one input.

    Raises:
        BadRequest: there are more, or none.
    """
    if inputs != 1:
        raise BadRequest(f"inputs must hold exactly one tensor, {INPUT!r}; it holds {inputs}.")


def _check_counts(text: bytes, seconds: int) -> None:
    """Nothing that a request for windows of so many seconds cannot hold is made into objects only to be refused."""
    if text.count(b",") > MAX_NUMBERS + _OTHERS:
        raise BadRequest(_TOO_MANY)
    if text.count(b"{") > _OTHERS:
        raise BadRequest(f"The request holds more than {_OTHERS} objects; it needs one input and one output.")
    lists = 2 * (MAX_NUMBERS // seconds) + _OTHERS  # [rows][1][seconds]
    if text.count(b"[") > lists:
        raise BadRequest(f"The request holds more than {lists} lists; nest data as the shape says, or send it flat.")


def _decode(text: bytes | bytearray | memoryview, seconds: int) -> _Head:
    if len(text) > _SHORT_TEXT:
        _check_counts(bytes(text), seconds)
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        flat = error
    try:  # data may also be nested as the shape says, which is rare enough to cost a second look
        return _nested.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BadRequest(f"The request cannot be read: {flat}.") from None


def _header_bytes(length: int, header_length: str) -> int:
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 9:
        raise BadRequest("Inference-Header-Content-Length must be a whole number.")
    if int(header_length) > length:
        raise BadRequest(f"Inference-Header-Content-Length is {header_length}, but the body has {length} bytes.")
    return int(header_length)


def _tensor(item: _Input, rest: memoryview | None, seconds: int) -> Watts:
    count = numbers_of(item.name, item.datatype, item.shape, seconds)
    size = UNSET if item.parameters is None else item.parameters.binary_data_size
    flat = _json_values(item.data, rest, count) if size is UNSET else _binary_values(item.data, rest, count, size)
    return windows(flat, seconds)


def numbers_of(name: str, datatype: str, shape: Sequence[int], seconds: int) -> int:
    """How many numbers an input of this description must hold.

    Raises:
        BadRequest: it is not the model's input, or not whole windows of so many seconds.
    """
    if name != INPUT:
        raise BadRequest(f"The input must be named {INPUT!r}.")
    if datatype != "FP32":
        raise BadRequest(f"Input {INPUT!r} must have datatype FP32.")
    if len(shape) != 3 or shape[0] < 1 or shape[1] != 1 or shape[2] != seconds:
        raise BadRequest(f"Input {INPUT!r} must have shape [batch, 1, {seconds}] with batch >= 1.")
    return shape[0] * seconds


def windows(flat: Watts, seconds: int) -> Watts:
    """Watts [rows, 1, window seconds] of the same numbers in one line.

    Raises:
        BadRequest: a number is not finite.
    """
    if not np.isfinite(flat).all():
        raise BadRequest(f"Input {INPUT!r} holds NaN, null or infinity; fill gaps before sending.")
    return flat.reshape(-1, 1, seconds)


def _binary_values(data: list[Any] | UnsetType, rest: memoryview | None, count: int, size: int) -> Watts:
    if data is not UNSET:
        raise BadRequest(f"Input {INPUT!r} has both data and binary_data_size; send one of them.")
    came = 0 if rest is None else len(rest)
    if rest is None or size != 4 * count or came != size:
        raise BadRequest(f"Input {INPUT!r} needs {4 * count} bytes; binary_data_size is {size}, {came} came.")
    values = np.frombuffer(rest, _FLOAT32)
    return values if values.flags.aligned else values.copy()


def _json_values(data: list[Any] | UnsetType, rest: memoryview | None, count: int) -> Watts:
    if rest:
        raise BadRequest("Bytes follow the JSON header, but no input has binary_data_size.")
    if data is UNSET:
        raise BadRequest(f"Input {INPUT!r}: data must be a list of numbers.")
    if count > MAX_NUMBERS:
        raise BadRequest(_TOO_MANY)
    if data and isinstance(data[0], list):
        data = [number for row in data for channel in row for number in channel]
    if len(data) != count:
        raise BadRequest(f"Input {INPUT!r}: the shape says {count} numbers, data holds {len(data)}.")
    try:
        return np.frombuffer(_packer(count).pack(*data), _FLOAT32)
    except OverflowError:
        raise BadRequest(f"Input {INPUT!r}: a number is beyond the range of float32.") from None


@functools.lru_cache(maxsize=64)
def _packer(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}f")  # four times as fast as np.asarray of a list


def _binary_output(head: _Head) -> bool:
    binary = head.parameters is not None and head.parameters.binary_data_output
    if not head.outputs:
        return binary
    parameters = head.outputs[0].parameters
    classified = parameters is not None and parameters.classification is not UNSET
    check_outputs([output.name for output in head.outputs], classified=classified)
    if parameters is None:
        return binary
    own = parameters.binary_data
    return binary if isinstance(own, UnsetType) else own


def check_outputs(wanted: Sequence[str], *, classified: bool) -> None:
    """What is asked for is there.

    Raises:
        BadRequest: it is not.
    """
    if list(wanted) != [OUTPUT]:
        raise BadRequest(f"The only output is {OUTPUT!r}.")
    if classified:
        raise BadRequest("The classification parameter is not supported; take the largest probability.")


def encode(name: str, model: Model, request: InferRequest, answer: Probabilities) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON header where a binary tensor follows."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": answer.shape}
    head: dict[str, Any] = {"model_name": name, "model_version": str(model.version)}
    if request.id is not None:
        head["id"] = request.id
    head["parameters"] = {"variant": model.variant}
    head["outputs"] = [output]
    if not request.binary_output:
        output["data"] = answer.ravel().tolist()
        return orjson.dumps(head), None
    data = answer.astype(_FLOAT32, copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    encoded = orjson.dumps(head)
    return encoded + data, len(encoded)


def model_metadata(name: str, model: Model) -> dict[str, Any]:
    """What GET /v2/models/{name} answers."""
    return {
        "name": name,
        "versions": [str(model.version)],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, 1, model.window.seconds]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(model.labels)]}],
    }
