from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright_agent import install
from edgewright_agent.settings import from_environment
from edgewright_agent.starting import PREFIX

GIVEN = ("--node", "plant-a-1", "--api-url", "https://10.0.0.1:6443", "--gateway-url", "https://gateway:8443")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgewright_agent.main", "install", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_dry_run_prints_everything_and_writes_nothing(tmp_path: Path) -> None:
    ended = _run("--systemd", "--dry-run", "--root", str(tmp_path), *GIVEN)
    assert ended.returncode == 0, ended.stderr
    for part in ("edgewright-agent.service", "ExecStart=", "ProtectSystem=strict", "EDGEWRIGHT_AGENT_NODE=plant-a-1"):
        assert part in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_below_a_root_is_what_the_agent_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = _run("--systemd", "--root", str(tmp_path), *GIVEN, "--port", "9000")
    assert ended.returncode == 0, ended.stderr
    text = (tmp_path / "etc/edgewright/agent.env").read_text()
    for line in text.splitlines():
        name, _, value = line.partition("=")
        assert name.startswith(PREFIX)
        monkeypatch.setenv(name, value)
    settings = from_environment(os.environ)
    assert (settings.node, settings.port, settings.state_dir) == ("plant-a-1", 9000, Path("/var/lib/edgewright"))


def test_settings_of_the_site_are_kept_when_it_is_installed_again(tmp_path: Path) -> None:
    _run("--systemd", "--root", str(tmp_path), *GIVEN)
    settings = tmp_path / "etc/edgewright/agent.env"
    settings.write_text(settings.read_text() + f"{PREFIX}TRIAL_SECONDS=60\n")
    again = _run("--systemd", "--root", str(tmp_path), *GIVEN)
    assert f"kept {settings}" in again.stdout
    assert "TRIAL_SECONDS=60" in settings.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    _run("--systemd", "--root", str(tmp_path), *GIVEN)
    unit = tmp_path / "etc/systemd/system/edgewright-agent.service"
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if "edgewright-agent" in line]
    assert complaints == []
    offline = ["systemd-analyze", "security", "--offline=yes", "--threshold=25", str(unit)]
    judged = subprocess.run(offline, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-2000:]


def test_a_value_that_an_environment_file_would_change_is_refused() -> None:
    ended = _run("--systemd", "--dry-run", *GIVEN[:-1], "https://gate way")
    assert ended.returncode == 1
    assert "--gateway-url: 'https://gate way'" in ended.stderr


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    with pytest.raises(install.InstallError, match="etc"):
        install.apply(install.planned({}, Path("/x")), tmp_path, start=False)
