"""LitServe with one worker on the CPU."""

import os
import sys

import litserve
import numpy as np
import onnxruntime as ort


class Onnx(litserve.LitAPI):
    def setup(self, device: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: dict) -> np.ndarray:
        return np.asarray(request["data"], np.float32).reshape(1, 1, -1)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"watts": x})[0]

    def encode_response(self, output: np.ndarray) -> dict:
        return {"data": output.ravel().tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Onnx(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error", access_log=False)
