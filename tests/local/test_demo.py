"""The demo's first step: Ctrl-C or a failed training ends the builds too, which take minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgewright_local import binaries, demo
from edgewright_local.binaries import Binary, Phase, Progress
from edgewright_local.commands import Commands
from edgewright_local.errors import LocalPlatformError
from edgewright_local.mlflow_server import MlflowServer


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), LocalPlatformError("training failed")])
def test_whoever_ends_the_training_does_not_wait_for_the_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, problem: BaseException
) -> None:
    built: list[str] = []

    def ensure(_: Any, report: Callable[[Progress], None]) -> dict[Binary, Path]:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            report(Progress(Binary.ETCD, Phase.BUILDING, 1.0))
            time.sleep(0.01)
        built.append("etcd")
        return {}

    def train(*_: Any) -> Any:
        time.sleep(0.1)  # so that the build is under way
        raise problem

    monkeypatch.setattr(MlflowServer, "start", lambda *_: None)
    monkeypatch.setattr(binaries, "ensure", ensure)
    monkeypatch.setattr(Commands, "answer", train)
    said: list[str] = []
    with pytest.raises(type(problem)):
        demo._build_and_train(demo.Demo(tmp_path, tmp_path / "demo", said.append))
    assert built == []
    assert said[-1] == "ending what is being built and started"
