"""`edgewright-gateway`: what is wrong with the settings is one sentence, before anything is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_contract import keys
from edgewright_operator.gateway.main import main


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "root.pub").write_bytes(keys.public_pem(keys.generate().public_key()))
    return {
        "CACHE": str(tmp_path / "cache"),
        "MLFLOW_URL": "http://127.0.0.1:9",
        "TRUST_FILE": str(tmp_path / "trust.json"),
        "ROOT_KEY_FILE": str(tmp_path / "root.pub"),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"CACHE": None}, "EDGEWRIGHT_GATEWAY_CACHE: Field required"),
        ({"PORT": "x"}, "EDGEWRIGHT_GATEWAY_PORT"),
        ({"CACHE_BYTES": "1"}, "EDGEWRIGHT_GATEWAY_CACHE_BYTES"),
        ({"TLS_KEY_FILE": "key.pem"}, "TLS needs both"),
        ({"ROOT_KEY_FILE": "/nowhere/root.pub"}, "No such file or directory: '/nowhere/root.pub'"),
        ({"ROOT_KEY_FILE": "no.pem"}, "not a PEM public key"),
        ({}, "no kubeconfig with a server, a CA and a token"),
    ],
)
def test_a_wrong_setting_is_one_sentence(
    settings: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, str | None],
    told: str,
) -> None:
    (tmp_path / "no.pem").write_text("none")
    monkeypatch.chdir(tmp_path)
    for key, value in {**settings, **changed}.items():
        if value is not None:
            monkeypatch.setenv(f"EDGEWRIGHT_GATEWAY_{key}", value)
    monkeypatch.setattr("sys.argv", ["edgewright-gateway"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert told in str(ended.value)
    assert len(str(ended.value).splitlines()) == 1
