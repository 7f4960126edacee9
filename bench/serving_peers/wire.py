"""The same window as each server wants it: bytes that the load client sends again and again."""

import json
import struct

import numpy as np
import numpy.typing as npt


def post(path: str, body: bytes, *headers: str) -> bytes:
    """An HTTP/1.1 request."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def v2_json(watts: npt.NDArray[np.float32], path: str) -> bytes:
    """Open Inference Protocol with numbers as text."""
    values = [round(float(value), 4) for value in watts.ravel()]
    tensor = {"name": "watts", "shape": list(watts.shape), "datatype": "FP32", "data": values}
    return post(path, json.dumps({"id": "1", "inputs": [tensor]}).encode(), "content-type: application/json")


def v2_binary(watts: npt.NDArray[np.float32], path: str) -> bytes:
    """Open Inference Protocol with the binary extension, both ways."""
    data = watts.tobytes()
    parameters = {"binary_data_size": len(data)}
    tensor = {"name": "watts", "shape": list(watts.shape), "datatype": "FP32", "parameters": parameters}
    head = json.dumps({"id": "1", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return post(path, head + data, f"inference-header-content-length: {len(head)}")


def plain_json(watts: npt.NDArray[np.float32], path: str, key: str, *, nested: bool = False) -> bytes:
    """One JSON object with the numbers under a key."""
    values = [round(float(value), 4) for value in watts.ravel()]
    body = {"inputs": {key: [[values]]}} if nested else {key: values}
    return post(path, json.dumps(body).encode(), "content-type: application/json")


def frame(watts: npt.NDArray[np.float32], name: str) -> bytes:
    """A frame of the agent's Unix socket."""
    data, encoded = watts.tobytes(), name.encode()
    return struct.pack("<IB", 1 + len(encoded) + len(data), len(encoded)) + encoded + data


def grpc(watts: npt.NDArray[np.float32], name: str) -> bytes:
    """Path, NUL and ModelInferRequest with raw contents, as the load client wants it."""

    def field(number: int, data: bytes) -> bytes:
        return _varint(number << 3 | 2) + _varint(len(data)) + data

    shape = b"".join(_varint(side) for side in watts.shape)
    tensor = field(1, b"watts") + field(2, b"FP32") + field(3, shape)
    message = field(1, name.encode()) + field(3, b"1") + field(5, tensor) + field(7, watts.tobytes())
    return b"/inference.GRPCInferenceService/ModelInfer\0" + message


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
