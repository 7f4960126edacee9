from __future__ import annotations

import base64
import json
import random
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent import joining
from edgewright_agent.kube import KubeError
from edgewright_agent.renewal import NotAToken, Renewal, claims, request

NOW = 1_800_000_000


def _token(issued: int, expires: int, **body: Any) -> str:
    bound = {"kubernetes.io": {"node": {"name": "n", "uid": "u"}}, "iat": issued, "exp": expires, **body}
    return "h." + base64.urlsafe_b64encode(json.dumps(bound).encode()).decode().rstrip("=") + ".s"


class Issuer:
    def __init__(self, token: str | None) -> None:
        self.token, self.asked = token, list[tuple[str, dict[str, Any]]]()

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((path, body))
        if self.token is None:
            raise KubeError("401 Unauthorized", 401)
        return {"status": {"token": self.token}}


def _renewal(issuer: Issuer, path: Path, now: int = NOW, **more: Any) -> Renewal:
    wall = lambda: datetime.fromtimestamp(now, UTC)  # noqa: E731
    return Renewal(issuer, "agent-n", {path: "edgewright-gateway"}, wall, random.Random(1), retry_seconds=5, **more)  # type: ignore[arg-type]


async def test_nothing_is_asked_before_half_of_the_life(tmp_path: Path) -> None:
    path, issuer = tmp_path / "gateway", Issuer(None)
    path.write_text(_token(NOW - 100, NOW + 200))
    assert 44 <= await _renewal(issuer, path).once() <= 50
    assert issuer.asked == []


@pytest.mark.parametrize("now", [NOW, 0, NOW + 10**9])
async def test_at_half_of_its_life_or_with_a_wrong_clock_it_is_renewed_for_the_same_node(
    tmp_path: Path, now: int
) -> None:
    path, issuer = tmp_path / "gateway", Issuer(fresh := _token(NOW, NOW + 1000))
    path.write_text(_token(NOW - 100, NOW + 50))
    assert 450 <= await _renewal(issuer, path, now).once() <= 500, "half of the life that was given, not asked for"
    assert path.read_text() == fresh
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ((where, body),) = issuer.asked
    assert where == "/api/v1/namespaces/edgewright/serviceaccounts/agent-n/token"
    assert body["spec"]["audiences"] == ["edgewright-gateway"]
    assert body["spec"]["boundObjectRef"] == {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}
    assert body["spec"]["expirationSeconds"] == 30 * 86_400


async def test_an_expired_token_is_kept_and_says_what_to_do(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "gateway"
    path.write_text(before := _token(NOW - 100, NOW - 50))
    assert await _renewal(Issuer(None), path).once() <= 5
    assert path.read_text() == before
    assert "run edgewright nodes join" in caplog.text


@pytest.mark.parametrize("answer", ["", "a.b.c", _token(1, 2, **{"kubernetes.io": {}})])
async def test_an_answer_without_a_bound_token_is_not_written(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "gateway"
    path.write_text(before := _token(NOW - 100, NOW + 50))
    await _renewal(Issuer(answer), path).once()
    assert path.read_text() == before


async def test_a_power_loss_leaves_a_whole_token(tmp_path: Path, faulty: Any, power_cut: type[BaseException]) -> None:
    for number in range(1, 9):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "gateway"
        path.write_text(before := _token(NOW - 100, NOW + 50))
        disk = faulty(folder)
        disk.fault_at = number
        fresh = _token(NOW, NOW + 1000)
        try:
            await _renewal(Issuer(fresh), path, ops=disk.ops()).once()
        except power_cut:
            disk.after_power_loss(tmp_path / f"after{number}", set())
            assert (tmp_path / f"after{number}" / "gateway").read_text() in (before, fresh)
            continue
        break
    assert number == 6  # create, write, fsync, rename, fsync of the folder, and then none


def test_a_token_of_another_kind_is_named() -> None:
    with pytest.raises(NotAToken, match="run edgewright nodes join"):
        claims("not a token")
    assert "audiences" not in request(claims(_token(1, 2)), None)["spec"]


JOIN = {
    "node": "plant-a-1",
    "serviceAccount": "agent-plant-a-1",
    "apiUrl": "https://10.0.0.1:6443",
    "apiCa": "PEM A",
    "apiToken": "t" * 20,
    "gatewayUrl": "https://gateway:8443",
    "gatewayCa": "PEM G",
    "gatewayToken": "g" * 20,
    "rootKey": "PEM R",
}


def test_a_join_file_becomes_a_service(tmp_path: Path) -> None:
    (tmp_path / "join.json").write_text(json.dumps(JOIN))
    root = tmp_path / "machine"
    command = [sys.executable, "-m", "edgewright_agent.main", "install", "--systemd", "--join", tmp_path / "join.json"]
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    assert "t" * 20 not in dry.stdout
    done = subprocess.run([*command, "--root", root], capture_output=True, text=True, check=True)
    assert "delete" in done.stdout
    environment = (root / "etc/edgewright/agent.env").read_text()
    assert "EDGEWRIGHT_AGENT_SERVICE_ACCOUNT=agent-plant-a-1\n" in environment
    assert (root / "etc/edgewright/root.pub").read_text() == "PEM R"
    token = root / "var/lib/edgewright/tokens/api"
    assert (token.read_text(), stat.S_IMODE(token.stat().st_mode)) == ("t" * 20, 0o600)
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("wrong", [b"", b"[]", b"{}", json.dumps({**JOIN, "node": ""}).encode(), b'{"apiToken": "x"}'])
def test_a_join_file_that_cannot_be_used_is_refused(wrong: bytes) -> None:
    with pytest.raises(joining.JoinError, match="edgewright nodes join"):
        joining.parse(wrong)


def test_without_a_join_file_what_is_missing_is_named() -> None:
    command = [sys.executable, "-m", "edgewright_agent.main", "install", "--systemd", "--dry-run", "--node", "x"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "--api-url --gateway-url" in ended.stderr
