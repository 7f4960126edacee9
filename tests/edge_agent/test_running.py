"""What the settings name and nobody can use ends the agent with a sentence that names the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright_agent.starting import PREFIX
from edgewright_contract import keys


@pytest.mark.parametrize(
    ("setting", "content", "sentence"),
    [
        ("API_CA", None, "holds no certificate authority that can be read"),
        ("GATEWAY_CA", b"no certificate", "holds no certificate authority that can be read"),
        ("ROOT_KEY_FILE", b"no key", "/wrong: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, setting: str, content: bytes | None, sentence: str
) -> None:
    root, wrong = tmp_path / "root.pub", tmp_path / "wrong"
    root.write_bytes(keys.public_pem(keys.generate().public_key()))
    if content is not None:
        wrong.write_bytes(content)
    token = {f"{part}_TOKEN_FILE": str(root) for part in ("API", "GATEWAY")}
    place = {"STATE_DIR": str(tmp_path), "PORT": "0", "NODE": "n", "ROOT_KEY_FILE": str(root)}
    urls = {"API_URL": "https://127.0.0.1:9", "GATEWAY_URL": "https://127.0.0.1:9"}
    given = place | urls | token | {setting: str(wrong)}
    environment = {**os.environ, **{PREFIX + name: value for name, value in given.items()}}
    command = [sys.executable, "-m", "edgewright_agent.main", "run"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert str(wrong) in ended.stderr
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
