"""The ways to reach the API server: a kubeconfig or a pod's own account; what is missing is said."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.config import incluster_config

from edgewright_operator import lifecycle
from edgewright_operator.connection import ConnectionProblem, configured


def kubeconfig(folder: Path, **user: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://cluster:6443"}}],
        "users": [{"name": "u", "user": user}],
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


async def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    found = await configured(kubeconfig(tmp_path, token="secret"))
    assert found.host == "https://cluster:6443"
    assert await found.get_api_key_with_prefix("BearerToken") == "Bearer secret"
    told = lifecycle.connection(found, "Bearer secret")
    assert (told.server, told.scheme, told.token) == ("https://cluster:6443", "Bearer", "secret")


@pytest.mark.parametrize("text", [None, "", "[]", "kind: Config", "a: ["])
async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "kubeconfig"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConnectionProblem, match="kubeconfig"):
        await configured(file)


async def test_in_a_pod_the_mounted_account_is_taken_and_its_new_token_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    authority.write_text("authority")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = await configured(None)
    assert found.host == "https://[fd00::1]:443"
    assert found.ssl_ca_cert == str(authority)
    key = await found.get_api_key_with_prefix("BearerToken")
    assert key is not None
    assert lifecycle.connection(found, key).token == "first"
    token.write_text("second")

    class Later(incluster_config.datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + incluster_config.datetime.timedelta(minutes=2)

    monkeypatch.setattr(incluster_config.datetime, "datetime", Later)
    assert "second" in str(await found.get_api_key_with_prefix("BearerToken"))


async def test_neither_a_kubeconfig_nor_a_pod_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConnectionProblem, match="EDGEWRIGHT_OPERATOR_KUBECONFIG"):
        await configured(None)
