"""KServe's Python server: its base model class around one ONNX session."""

import logging
import os
import sys

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Onnx(Model):
    def __init__(self) -> None:
        super().__init__("m")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        self.ready = True

    def load(self) -> bool:
        return True

    async def predict(self, payload: InferRequest, headers: dict[str, str] | None = None, **_: object) -> InferResponse:
        answer = self.session.run(None, {"watts": payload.inputs[0].as_numpy().astype(np.float32, copy=False)})[0]
        output = InferOutput("probabilities", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=False)
        return InferResponse(payload.id or "1", "m", [output])


if __name__ == "__main__":
    for name in ("kserve", "kserve.trace", "uvicorn.access", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rest, grpc = int(sys.argv[1]), int(sys.argv[2])
    sys.argv = sys.argv[:1]
    ModelServer(http_port=rest, grpc_port=grpc, enable_grpc=True, workers=1, access_log_format=None).start([Onnx()])
