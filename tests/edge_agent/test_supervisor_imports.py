from __future__ import annotations

import subprocess
import sys


def test_the_supervisor_loads_no_engine() -> None:
    script = (
        "import sys, edgewright_agent.main, edgewright_agent.selftest;"
        "bad = {'numpy', 'onnxruntime', 'fastapi', 'onnx'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_self_test_child_loads_the_engine_and_little_else() -> None:
    """What it imports is what a change waits for."""
    script = (
        "import sys, edgewright_agent.selftest, numpy, onnxruntime;"
        "bad = {'pydantic', 'cryptography', 'httpx2', 'msgspec'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_the_server_does_without_what_costs_memory_and_start() -> None:
    script = (
        "import sys, edgewright_agent.serving.__main__;"
        "bad = {'fastapi', 'cryptography', 'httpx2', 'aiomqtt'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
