"""BentoML with one worker."""

import os

import bentoml
import numpy as np
import onnxruntime as ort


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Onnx:
    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api
    async def predict(self, data: list[float]) -> list[float]:
        x = np.asarray(data, np.float32).reshape(1, 1, -1)
        return self.session.run(None, {"watts": x})[0].ravel().tolist()
