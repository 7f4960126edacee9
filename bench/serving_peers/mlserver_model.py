"""MLServer: a custom runtime, because its ONNX runtime is not on the package index."""

import os

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Onnx(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        data = tensor.data.root if hasattr(tensor.data, "root") else tensor.data
        watts = np.frombuffer(data, np.float32) if isinstance(data, bytes) else np.asarray(data, np.float32)
        watts = watts.reshape(tensor.shape)
        answer = self.session.run(None, {"watts": watts})[0]
        values = answer.ravel().tolist()
        output = ResponseOutput(name="probabilities", shape=list(answer.shape), datatype="FP32", data=values)
        return InferenceResponse(model_name=self.name, outputs=[output])
