"""FastAPI with pydantic bodies: what most people would write."""

import os
import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
app = FastAPI()


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    id: str | None = None
    inputs: list[Tensor]


class Response(BaseModel):
    model_name: str
    id: str | None
    outputs: list[Tensor]


@app.post("/v2/models/m/infer")
async def infer(request: Request) -> Response:
    tensor = request.inputs[0]
    answer = session.run(None, {"watts": np.asarray(tensor.data, np.float32).reshape(tensor.shape)})[0]
    output = Tensor(name="probabilities", shape=list(answer.shape), datatype="FP32", data=answer.ravel().tolist())
    return Response(model_name="m", id=request.id, outputs=[output])


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False)
