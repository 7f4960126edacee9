"""The peers of bench/serving.py and how each is configured."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from serving_peers import wire
from serving_peers.servers import HERE, MLSERVER, ONNX, Door, Peer

from edgewright_local.ports import free_ports

PATH = "/v2/models/m/infer"
QUICK = ("MLServer REST, parallel_workers=0", "FastAPI + pydantic")


def peers(watts: npt.NDArray[np.float32], folder: Path) -> list[Peer]:
    """All of them, each with ports of its own."""
    return [
        _mlserver("MLServer REST", MLSERVER, 1, watts, grpc=False),
        _mlserver("MLServer REST, parallel_workers=0", MLSERVER, 0, watts, grpc=True),
        _mlserver("MLServer REST, parallel_workers=0, httptools", (*MLSERVER, "httptools"), 0, watts, grpc=False),
        _kserve(watts),
        _simple("LitServe", ("litserve==0.2.19", ONNX), "litserve_server.py", watts, "/predict"),
        _bentoml(watts),
        _fastapi(watts),
        _mlflow(watts, folder),
    ]


def _http(name: str, port: int, request: bytes) -> Door:
    return Door(name, "http", f"127.0.0.1:{port}", request)


def _mlserver(
    name: str, packages: tuple[str, ...], workers: int, watts: npt.NDArray[np.float32], *, grpc: bool
) -> Peer:
    rest, rpc, metrics = free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": rest, "grpc_port": rpc, "metrics_port": metrics, "debug": False}
    files = {
        "settings.json": json.dumps(settings | {"parallel_workers": workers}),
        "model-settings.json": json.dumps({"name": "m", "implementation": "mlserver_model.Onnx"}),
    }
    doors = [_http(name, rest, wire.v2_json(watts, PATH))]
    if grpc:
        doors.append(Door("MLServer gRPC, parallel_workers=0", "grpc", f"127.0.0.1:{rpc}", wire.grpc(watts, "m")))
    return Peer(name, packages, ("mlserver", "start", "."), tuple(doors), files)


def _kserve(watts: npt.NDArray[np.float32]) -> Peer:
    rest, rpc = free_ports(2)
    doors = (
        _http("KServe REST", rest, wire.v2_json(watts, PATH)),
        Door("KServe gRPC", "grpc", f"127.0.0.1:{rpc}", wire.grpc(watts, "m")),
    )
    command = ("python", str(HERE / "kserve_server.py"), str(rest), str(rpc))
    return Peer("KServe REST", ("kserve==0.21.0", ONNX), command, doors)


def _simple(name: str, packages: tuple[str, ...], script: str, watts: npt.NDArray[np.float32], path: str) -> Peer:
    (port,) = free_ports(1)
    door = _http(name, port, wire.plain_json(watts, path, "data"))
    return Peer(name, packages, ("python", str(HERE / script), str(port)), (door,))


def _bentoml(watts: npt.NDArray[np.float32]) -> Peer:
    (port,) = free_ports(1)
    command = ("bentoml", "serve", "bentoml_service:Onnx", "--host", "127.0.0.1", "--port", str(port))
    door = _http("BentoML", port, wire.plain_json(watts, "/predict", "data"))
    return Peer("BentoML", ("bentoml==1.4.39", ONNX), command, (door,))


def _fastapi(watts: npt.NDArray[np.float32]) -> Peer:
    (port,) = free_ports(1)
    packages = ("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", ONNX)
    door = _http("FastAPI + pydantic", port, wire.v2_json(watts, PATH))
    return Peer("FastAPI + pydantic", packages, ("python", str(HERE / "fastapi_pydantic.py"), str(port)), (door,))


def _mlflow(watts: npt.NDArray[np.float32], folder: Path) -> Peer:
    (port,) = free_ports(1)
    command = ("python", str(HERE / "mlflow_server.py"), str(port), str(folder / "mlflow-model"))
    door = _http("MLflow scoring", port, wire.plain_json(watts, "/invocations", "watts", nested=True))
    return Peer("MLflow scoring", ("mlflow==3.17.2", "onnx", ONNX), command, (door,))
