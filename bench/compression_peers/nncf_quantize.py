"""Runs inside NNCF's own environment: nncf_quantize.py FP32.onnx windows.npy INT8.onnx"""

import sys

import nncf
import numpy as np
import onnx

source, windows, target = sys.argv[1:]
model = onnx.load(source)
name = model.graph.input[0].name
parts = [{name: part[None]} for part in np.load(windows)]
onnx.save(nncf.quantize(model, nncf.Dataset(parts), subset_size=len(parts)), target)
