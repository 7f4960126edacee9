"""One engine, one thread, one model: `engine_worker.py ENGINE MODEL.onnx SECONDS`; prints quantiles and the answer."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Run = Callable[[np.ndarray], np.ndarray]


def onnxruntime(model: str) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"watts": x})[0]


def openvino(model: str) -> Run:
    import openvino as ov

    core = ov.Core()
    config = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    loaded = core.read_model(model)
    loaded.reshape({"watts": [1, 1, _width(model)]})
    request = core.compile_model(loaded, "CPU", config).create_infer_request()
    return lambda x: next(iter(request.infer({"watts": x}, share_inputs=True).values()))


def mnn(model: str) -> Run:
    import subprocess

    import MNN

    target = str(Path(model).with_suffix(".mnn"))
    tool = Path(sys.executable).parent / "mnnconvert"
    command = [str(tool), "-f", "ONNX", "--modelFile", model, "--MNNModel", target, "--bizCode", "bench"]
    subprocess.run(command, check=True, capture_output=True)
    interpreter = MNN.Interpreter(target)
    session = interpreter.createSession({"numThread": 1})
    tensor = interpreter.getSessionInput(session)
    shape = (1, 1, _width(model))
    interpreter.resizeTensor(tensor, shape)
    interpreter.resizeSession(session)

    def run(x: np.ndarray) -> np.ndarray:
        tensor.copyFrom(MNN.Tensor(shape, MNN.Halide_Type_Float, x, MNN.Tensor_DimensionType_Caffe))
        interpreter.runSession(session)
        answer = interpreter.getSessionOutput(session)
        return np.array(answer.getData(), np.float32)

    return run


def tvm(model: str) -> Run:
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    # as it comes, without a search for schedules, which takes hours
    module = from_onnx(onnx.load(model), shape_dict={"watts": [1, 1, _width(model)]})
    target = tvm.target.Target({"kind": "llvm", "mcpu": "native"})
    machine = relax.VirtualMachine(tvm.compile(module, target), tvm.cpu())
    return lambda x: machine["main"](tvm.runtime.tensor(x)).numpy()


def litert(model: str) -> Run:
    from ai_edge_litert.interpreter import Interpreter
    from serving_peers import other_formats

    interpreter = Interpreter(model_content=other_formats.litert(other_formats.read(model)), num_threads=1)
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(into, x)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    return run


def ncnn(model: str) -> Run:
    return _ncnn(model, flat=True)


def ncnn_2d(model: str) -> Run:
    return _ncnn(model, flat=False)


def _ncnn(model: str, *, flat: bool) -> Run:
    import ncnn
    from serving_peers import other_formats

    text, weights = other_formats.ncnn(other_formats.read(model), flat=flat)
    files = [Path(model).with_suffix(end) for end in (f".{flat}.param", f".{flat}.bin")]
    files[0].write_text(text)
    files[1].write_bytes(weights)
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if net.load_param(str(files[0])) or net.load_model(str(files[1])):
        raise ValueError("ncnn does not take what was written for it")

    def run(x: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("watts", ncnn.Mat(x[0] if flat else x))
        return np.array(extractor.extract("probabilities")[1])

    return run


def _width(model: str) -> int:
    return int(Path(model).with_suffix(".width").read_text())


ENGINES = {item.__name__: item for item in (onnxruntime, openvino, mnn, tvm, litert, ncnn, ncnn_2d)}


def main() -> None:
    engine, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    run = ENGINES[engine](model)
    x = np.random.default_rng(1).uniform(0, 2000, (1, 1, _width(model))).astype(np.float32)
    for _ in range(50):
        answer = run(x)
    taken, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        answer = run(x)
        taken.append((time.perf_counter_ns() - start) / 1000)
    p50, p99 = np.percentile(taken, [50, 99])
    print(json.dumps({"p50": float(p50), "p99": float(p99), "answer": np.asarray(answer).ravel().tolist()}))


if __name__ == "__main__":
    main()
