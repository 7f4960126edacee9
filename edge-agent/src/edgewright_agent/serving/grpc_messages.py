"""Open Inference Protocol v2 over gRPC, messages to tensors and back. Pure; protocol_v2.py says what a tensor must be.

Only where gRPC is asked for is this imported: it needs the extra `edgewright-agent[grpc]`.
"""

from typing import Final

import numpy as np
from google.protobuf.message import DecodeError, Message

from edgewright_agent.serving import protocol_v2
from edgewright_agent.serving.engine import INPUT, OUTPUT, Model, Probabilities, Watts
from edgewright_agent.serving.open_inference_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
    ServerMetadataResponse,
)
from edgewright_agent.serving.protocol_v2 import BadRequest, InferRequest

_FLOAT32: Final = np.dtype("<f4")
_OTHER_NUMBERS: Final = tuple(name for name in InferTensorContents.DESCRIPTOR.fields_by_name if name != "fp32_contents")


def read(message: Message, data: bytes) -> None:
    """Fill the message from the bytes of the request.

    Raises:
        BadRequest: they are no message of this kind.
    """
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise BadRequest(f"The request is no {type(message).__name__} message.") from None


def parse(request: ModelInferRequest, seconds: int) -> InferRequest:
    """Check an infer request for a window of so many seconds; `binary_output` says that it came with raw contents.

    Raises:
        BadRequest: anything that does not fit.
    """
    if len(request.id) > protocol_v2.MAX_ID:
        raise BadRequest(f"The id may have at most {protocol_v2.MAX_ID} characters.")
    protocol_v2.check_single(len(request.inputs))
    if request.outputs:
        classified = "classification" in request.outputs[0].parameters
        protocol_v2.check_outputs([output.name for output in request.outputs], classified=classified)
    item = request.inputs[0]
    count, raw = protocol_v2.numbers_of(item.name, item.datatype, item.shape, seconds), request.raw_input_contents
    flat = _raw(item, raw, count) if raw else _typed(item.contents, count)
    return InferRequest(protocol_v2.windows(flat, seconds), request.id or None, bool(raw))


def _raw(item: ModelInferRequest.InferInputTensor, raw: "list[bytes]", count: int) -> Watts:
    if item.HasField("contents"):
        raise BadRequest(f"Input {INPUT!r} has both contents and raw_input_contents; send one of them.")
    if len(raw) != 1 or len(raw[0]) != 4 * count:
        came = ", ".join(str(len(part)) for part in raw[:8])
        raise BadRequest(f"Input {INPUT!r} needs one raw_input_contents of {4 * count} bytes; {came} came.")
    values = np.frombuffer(raw[0], _FLOAT32)
    return values if values.flags.aligned else values.copy()


def _typed(contents: InferTensorContents, count: int) -> Watts:
    for name in _OTHER_NUMBERS:
        if getattr(contents, name):
            raise BadRequest(f"Input {INPUT!r} is FP32: send fp32_contents, not {name}.")
    values = contents.fp32_contents
    if len(values) != count:
        raise BadRequest(f"Input {INPUT!r}: the shape says {count} numbers, fp32_contents holds {len(values)}.")
    return np.fromiter(values, np.float32, count)


def encode(name: str, model: Model, request: InferRequest, answer: Probabilities) -> bytes:
    """The answer, [rows, classes], as a ModelInferResponse in the form in which the request came."""
    response = ModelInferResponse(model_name=name, model_version=str(model.version), id=request.id or "")
    response.parameters["variant"].string_param = model.variant
    output = response.outputs.add(name=OUTPUT, datatype="FP32", shape=answer.shape)
    if request.binary_output:
        response.raw_output_contents.append(answer.astype(_FLOAT32, copy=False).tobytes())
    else:
        output.contents.fp32_contents.extend(answer.ravel().tolist())
    return bytes(response.SerializeToString())


def model_metadata(name: str, model: Model) -> ModelMetadataResponse:
    """The same as over HTTP."""
    return ModelMetadataResponse(**protocol_v2.model_metadata(name, model))


def server_metadata() -> ServerMetadataResponse:
    """The same as over HTTP; raw contents belong to the protocol here, so there is no extension to name."""
    return ServerMetadataResponse(**protocol_v2.SERVER)
