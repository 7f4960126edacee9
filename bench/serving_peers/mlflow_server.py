"""MLflow's scoring server on an ONNX model; writes the model folder first."""

import os
import sys
from pathlib import Path

import mlflow.onnx
import onnx

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    if not folder.exists():
        options = {"onnx_session_options": {"intra_op_num_threads": 1, "inter_op_num_threads": 1}}
        model = onnx.load(os.environ["BENCH_MODEL"])
        mlflow.onnx.save_model(model, folder, pip_requirements=["onnx"], **options)
    here = Path(sys.executable).parent
    path = f"{here}:{os.environ['PATH']}"
    command = ["mlflow", "models", "serve", "-m", str(folder), "-p", sys.argv[1], "--env-manager", "local", "-w", "1"]
    os.environ["PATH"] = path
    os.execvp(str(here / "mlflow"), command)
