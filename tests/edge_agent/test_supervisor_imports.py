"""What each process of the agent imports is memory on every node, and time until it serves or answers."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("imported", "kept_out"),
    [
        ("edgewright_agent.main", {"pydantic", "cryptography", "httpx2", "numpy", "msgspec"}),
        ("edgewright_agent.running", {"numpy", "onnxruntime", "fastapi", "onnx"}),
        ("edgewright_agent.selftest, numpy, onnxruntime", {"pydantic", "cryptography", "httpx2", "msgspec"}),
        (
            "edgewright_agent.serving.__main__",
            {"fastapi", "pydantic", "cryptography", "httpx2", "aiomqtt", "grpc", "google.protobuf"},
        ),
    ],
    ids=["supervisor before the server starts", "supervisor", "self-test", "server"],
)
def test_a_process_does_without_what_it_does_not_need(imported: str, kept_out: set[str]) -> None:
    script = f"import sys, {imported}; bad = {kept_out} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
