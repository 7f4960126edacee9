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
