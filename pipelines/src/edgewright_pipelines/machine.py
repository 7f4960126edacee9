"""Beside measuring: which machine and runtime figures were taken on, so that nobody compares them with another's."""

import os
import platform
from pathlib import Path

import onnxruntime

CPUINFO = Path("/proc/cpuinfo")


def described() -> dict[str, str | int]:
    """Architecture, processor, its SIMD flags that matter, cores, system, Python and ONNX Runtime."""
    model, flags = _processor(CPUINFO.read_text() if CPUINFO.exists() else "")
    return {
        "architecture": platform.machine(),
        "processor": model or platform.processor(),
        "simd": flags,
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _processor(cpuinfo: str) -> tuple[str, str]:
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    present = named.get("flags", named.get("Features", "")).split()
    simd = [flag for flag in present if flag.startswith(("avx", "amx", "asimd", "sve"))]
    return named.get("model name", ""), " ".join(sorted(simd))
