"""Open Inference Protocol v2, bytes to tensors and back. Pure; every refusal is a sentence for the client."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from edgewright_agent.serving.engine import INPUT, OUTPUT, Model, Probabilities, Watts

HEADER: Final = "inference-header-content-length"


class BadRequest(ValueError):
    """The request is wrong; the sentence says where and how to mend it."""


@dataclass(frozen=True)
class InferRequest:
    """A request that passed every check: watts [rows, 1, window seconds]."""

    watts: Watts
    id: str | None
    binary_output: bool


def parse(body: bytes, header_length: str | None, seconds: int) -> InferRequest:
    """Read an infer request for a window of so many seconds.

    Raises:
        BadRequest: anything that does not fit.
    """
    head_bytes = _header_bytes(body, header_length)
    try:
        head = orjson.loads(body[:head_bytes])
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The request is not JSON: {error}.") from None
    if not isinstance(head, dict):
        raise BadRequest("The request must be a JSON object.")
    request_id = head.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > 256):
        raise BadRequest("id must be a string of at most 256 characters.")
    inputs = head.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest(f"inputs must hold exactly one tensor, {INPUT!r}.")
    watts = _tensor(inputs[0], memoryview(body)[head_bytes:], seconds)
    return InferRequest(watts, request_id, _binary_output(head))


def _header_bytes(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 9:
        raise BadRequest("Inference-Header-Content-Length must be a whole number.")
    if int(header_length) > len(body):
        raise BadRequest(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes.")
    return int(header_length)


def _parameters(item: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = item.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadRequest(f"{where}: parameters must be an object.")
    return parameters


def _tensor(item: dict[str, Any], rest: memoryview, seconds: int) -> Watts:
    name, datatype, shape = item.get("name"), item.get("datatype"), item.get("shape")
    if name != INPUT:
        raise BadRequest(f"The input must be named {INPUT!r}.")
    if datatype != "FP32":
        raise BadRequest(f"Input {INPUT!r} must have datatype FP32.")
    if not isinstance(shape, list) or not all(type(side) is int for side in shape):
        raise BadRequest(f"Input {INPUT!r}: shape must be a list of whole numbers.")
    if len(shape) != 3 or shape[0] < 1 or shape[1:] != [1, seconds]:
        raise BadRequest(f"Input {INPUT!r} must have shape [batch, 1, {seconds}] with batch >= 1.")
    count = shape[0] * seconds
    size = _parameters(item, f"Input {INPUT!r}").get("binary_data_size")
    flat = _json_values(item, rest, count) if size is None else _binary_values(item, rest, count, size)
    if not np.isfinite(flat).all():
        raise BadRequest(f"Input {INPUT!r} holds NaN, null or infinity; fill gaps before sending.")
    return flat.reshape(shape)


def _binary_values(item: dict[str, Any], rest: memoryview, count: int, size: Any) -> Watts:
    if "data" in item:
        raise BadRequest(f"Input {INPUT!r} has both data and binary_data_size; send one of them.")
    if type(size) is not int or size != 4 * count or len(rest) != size:
        raise BadRequest(f"Input {INPUT!r} needs {4 * count} bytes; binary_data_size is {size!r}, {len(rest)} came.")
    return np.require(np.frombuffer(rest, "<f4"), requirements=["C", "A"])


def _json_values(item: dict[str, Any], rest: memoryview, count: int) -> Watts:
    if len(rest):
        raise BadRequest("Bytes follow the JSON header, but no input has binary_data_size.")
    data = item.get("data")
    if not isinstance(data, list):
        raise BadRequest(f"Input {INPUT!r}: data must be a list of numbers.")
    try:
        values = np.asarray(data)
    except ValueError:
        raise BadRequest(f"Input {INPUT!r}: data must be a flat list or lists nested as the shape says.") from None
    if values.dtype.kind not in "iuf":
        raise BadRequest(f"Input {INPUT!r}: data must hold numbers only.")
    if values.size != count:
        raise BadRequest(f"Input {INPUT!r}: the shape says {count} numbers, data holds {values.size}.")
    with np.errstate(over="ignore"):
        return values.astype(np.float32).ravel()


def _binary_output(head: dict[str, Any]) -> bool:
    binary = _parameters(head, "request").get("binary_data_output", False)
    outputs = head.get("outputs") or []
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadRequest("outputs must be a list of objects.")
    if len(outputs) > 1 or any(output.get("name") != OUTPUT for output in outputs):
        raise BadRequest(f"The only output is {OUTPUT!r}.")
    for output in outputs:
        parameters = _parameters(output, f"Output {OUTPUT!r}")
        if "classification" in parameters:
            raise BadRequest("The classification parameter is not supported; take the largest probability.")
        binary = parameters.get("binary_data", binary)
    if type(binary) is not bool:
        raise BadRequest("binary_data and binary_data_output must be true or false.")
    return binary


def encode(name: str, model: Model, request: InferRequest, answer: Probabilities) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON header where a binary tensor follows."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(answer.shape)}
    head: dict[str, Any] = {"model_name": name, "model_version": str(model.version)}
    if request.id is not None:
        head["id"] = request.id
    head["parameters"] = {"variant": model.variant}
    head["outputs"] = [output]
    if not request.binary_output:
        output["data"] = answer.ravel().tolist()
        return orjson.dumps(head), None
    data = answer.astype("<f4", copy=False).tobytes()
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
