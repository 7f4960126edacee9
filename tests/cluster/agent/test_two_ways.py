"""The pod's way and the service's way, with the same tests: install, swap, kill, start with no network, revert.

Neither a kubelet nor a systemd is here. What they would do is done by hand from their own texts, the DaemonSet and the
written unit: a root of its own that is read-only, the mounted files, the user, no capabilities, no new privileges, the
environment and the command. What only they can do is left out: filters of system calls, address families, memory.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from edgewright_agent.install import UNIT
from edgewright_agent.settings import PREFIX

CHECKOUT = Path(__file__).parents[3]
BASE = CHECKOUT / "deploy" / "k8s" / "base"
TOOLS = ("unshare", "setpriv", "chroot", "mount", "systemd-sysusers")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS), reason=f"needs root and {', '.join(TOOLS)}"
)


@dataclass
class Way:
    """How an agent is started: with which files, as whom, with which settings."""

    command: list[str]
    uid: int
    places: dict[str, Path]
    """Where the agent sees which folder or file of this machine."""
    settings: dict[str, str]
    node: Any
    started: Callable[..., subprocess.Popen[bytes]]
    root: Path
    writable: tuple[str, ...] = ("/var/lib/edgewright",)

    def start(self, *, offline: bool = False) -> subprocess.Popen[bytes]:
        """The agent; the process itself, without a shell or a parent in between."""
        dead = {"API_URL": "https://127.0.0.1:1", "GATEWAY_URL": "http://127.0.0.1:1"} if offline else {}
        settings = {f"{PREFIX}{name}": value for name, value in {**self.settings, **dead}.items()}
        settings |= {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
        return self.started({}, "unshare", "--mount", "--propagation", "private", "bash", "-ec", self._script(settings))

    def _script(self, settings: dict[str, str]) -> str:
        root, lines = shlex.quote(str(self.root)), ["umask 022"]
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {root}", f"mkdir -p {root}/{{proc,dev,etc,tmp,run,var/run}}"]
        for name in ("usr", "bin", "sbin", "lib", "lib64"):
            link = f"if [ -L /{name} ]; then cp -d /{name} {root}/"
            lines.append(f"{link}; elif [ -d /{name} ]; then {self._bind(name)}; fi")
        lines += [f"mount --rbind /proc {root}/proc", f"mount -t tmpfs -o mode=1777,size=64m tmpfs {root}/tmp"]
        for name in ("null", "zero", "full", "random", "urandom"):
            lines += [f"touch {root}/dev/{name}", f"mount --bind /dev/{name} {root}/dev/{name}"]
        own = [Path(sys.prefix), Path(sys.base_prefix), CHECKOUT]
        seen = {str(path): path for path in own if not path.is_relative_to("/usr")}
        for place, path in {**seen, **self.places}.items():
            made = f"mkdir -p {root}{place}" if path.is_dir() else f"install -D /dev/null {root}{place}"
            lines += [made, f"mount --bind {shlex.quote(str(path))} {root}{place}"]
            if place not in self.writable:
                lines.append(f"mount -o remount,bind,ro {root}{place}")
        lines.append(f"mount -o remount,ro {root}")
        drop = "--no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all --clear-groups"
        words = ["env", "-i", *(f"{name}={value}" for name, value in settings.items()), *self.command]
        lines.append(f"exec chroot {root} setpriv --reuid={self.uid} --regid={self.uid} {drop} {shlex.join(words)}")
        return "\n".join(lines)

    def _bind(self, name: str) -> str:
        target = f"{self.root}/{name}"
        return f"mkdir {target}; mount --bind /{name} {target}; mount -o remount,bind,ro {target}"

    def inside(self, running: subprocess.Popen[bytes], script: str) -> int:
        """Exit code of a shell script in the agent's root, as its user."""
        agent = ["nsenter", "-t", str(running.pid), "-m", "-r", "setpriv", f"--reuid={self.uid}", "--clear-groups"]
        return subprocess.run([*agent, "bash", "-c", script], check=False).returncode


def _state(folder: Path, uid: int) -> Path:
    """The folder that survives, made by the kubelet's init container or by systemd's StateDirectory."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)
    return folder


def _common(node: Any) -> dict[str, str]:
    """What the site sets either way, and what a test needs to be quick."""
    told = {"PORT": str(node.port), "NODE": node.name, "RETRY_SECONDS": "1", "PING_SECONDS": "0.4"}
    return told | {name: node.environment[PREFIX + name] for name in ("API_URL", "GATEWAY_URL")}


def _pod(node: Any, started: Any, folder: Path) -> Way:
    documents = yaml.safe_load_all((BASE / "agent.yaml").read_text())
    pod = next(item for item in documents if item["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    uid, secured = pod["securityContext"]["runAsUser"], container["securityContext"]
    assert secured == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    settings = {entry["name"].removeprefix(PREFIX): entry.get("value", "") for entry in container["env"]}
    settings |= {"HOST": "127.0.0.1", **_common(node)}
    del settings["GATEWAY_CA"]  # this gateway speaks HTTP
    identity, trust = folder / "identity", folder / "trust"
    identity.mkdir()
    trust.mkdir()
    for name, source in (("api-token", "api"), ("gateway-token", "gateway")):
        shutil.copy(node.folder / source, identity / name)
    shutil.copy(node.environment[f"{PREFIX}API_CA"], identity / "ca.crt")
    (trust / "root.pub").write_bytes(node.published.root)
    held = {"state": _state(folder / "state", uid), "identity": identity, "trust": trust}
    mounts = {mount["mountPath"]: held[mount["name"]] for mount in container["volumeMounts"] if mount["name"] in held}
    for path in identity.iterdir():
        path.chmod(0o444)
    command = [str(Path(sys.executable).with_name(container["command"][0])), *container["command"][1:]]
    places = {place.replace("/var/run/", "/run/"): path for place, path in mounts.items()}
    settings = {name: value.replace("/var/run/", "/run/") for name, value in settings.items()}
    return Way(command, uid, places, settings, node, started, folder / "root")


def _service(node: Any, started: Any, folder: Path) -> Way:
    machine, common = folder / "machine", _common(node)
    given = ["--node", node.name, "--api-url", common["API_URL"], "--gateway-url", common["GATEWAY_URL"]]
    given += ["--port", common["PORT"], "--api-ca", "/etc/edgewright/api-ca.pem", "--systemd", "--root", str(machine)]
    subprocess.run([sys.executable, "-m", "edgewright_agent.main", "install", *given], check=True)
    subprocess.run(["systemd-sysusers", f"--root={machine}"], check=True, capture_output=True)
    users = (line.split(":") for line in (machine / "etc/passwd").read_text().splitlines())
    uid = next(int(user[2]) for user in users if user[0] == "edgewright")
    lines = (machine / "etc/systemd/system" / UNIT).read_text().splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert (unit["User"], unit["StateDirectory"], unit["StateDirectoryMode"]) == ("edgewright", "edgewright", "0700")
    assert (unit["ProtectSystem"], unit["PrivateTmp"], unit["NoNewPrivileges"]) == ("strict", "yes", "yes")
    assert (unit["CapabilityBoundingSet"], unit["PrivateDevices"], unit["ProtectHome"]) == ("", "yes", "yes")
    configuration, state = machine / "etc/edgewright", machine / "var/lib/edgewright"
    (state / "tokens").mkdir(parents=True)
    for name in ("api", "gateway"):
        shutil.copy(node.folder / name, state / "tokens" / name)
    shutil.copy(node.environment[f"{PREFIX}API_CA"], configuration / "api-ca.pem")
    (configuration / "root.pub").write_bytes(node.published.root)
    for path in configuration.iterdir():
        path.chmod(0o644)
    written = dict(line.split("=", 1) for line in Path(machine / unit["EnvironmentFile"][1:]).read_text().splitlines())
    settings = {name.removeprefix(PREFIX): value for name, value in written.items()}
    settings |= {name: value for name, value in common.items() if name not in settings}
    places = {"/etc/edgewright": configuration, "/var/lib/edgewright": _state(state, uid)}
    places["/etc/passwd"] = machine / "etc/passwd"
    return Way(shlex.split(unit["ExecStart"]), uid, places, settings, node, started, folder / "root")


@pytest.fixture(params=[_pod, _service], ids=["pod", "systemd"])
def way(request: pytest.FixtureRequest, node: Any, started: Any, tmp_path: Path) -> Iterator[Way]:
    folder = tmp_path / "way"
    (folder / "root").mkdir(parents=True)
    return request.param(node, started, folder)


def test_it_runs_as_nobody_with_nothing_to_write_but_its_state(way: Way) -> None:
    agent = way.start()
    way.node.assign(way.node.published.release(1))
    way.node.until(lambda: way.node.serves() == "1")
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{agent.pid}/status").read_text().splitlines())
    assert status["Uid"].split() == [str(way.uid)] * 4
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    for path in ("/x", "/etc/edgewright/x", "/usr/x", f"{CHECKOUT}/x", "/run/x"):
        assert way.inside(agent, f"touch {path} 2>&-") != 0, path
    assert way.inside(agent, "touch /var/lib/edgewright/x /tmp/x") == 0
    assert not Path("/tmp/x").exists()  # its /tmp is its own


def test_install_swap_under_load_and_a_start_with_no_network_after_a_kill(way: Way) -> None:
    node = way.node
    first = way.start()
    node.assign(node.published.release(1))
    node.until(lambda: node.status(1) and node.serves() == "1")
    seen: list[str | None] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            seen.append(node.serves())
            time.sleep(0.005)

    asking = threading.Thread(target=ask)
    asking.start()
    node.assign(node.published.release(2))
    node.until(lambda: node.status(2))
    done.set()
    asking.join()
    assert set(seen) == {"1", "2"}, "no request failed"
    first.kill()
    first.wait(10)
    node.until(lambda: node.serves() is None)
    again = way.start(offline=True)
    node.until(lambda: node.serves() == "2")
    again.terminate()
    assert again.wait(20) == 0, node.log()


def test_a_release_that_answers_nan_is_reverted_alone(way: Way) -> None:
    node = way.node
    way.start()
    node.assign(node.published.release(1))
    node.until(lambda: node.status(1) and node.serves() == "1")
    node.assign(node.published.release(2, brittle=True))
    node.until(lambda: node.status(2))
    now = int(time.time()) - 400
    readings = [{"t": now + index, "watts": 6000.0} for index in range(400)]
    answer = httpx2.post(f"http://127.0.0.1:{node.port}/v1/readings", json={"readings": readings}, timeout=20)
    assert answer.status_code == 200, answer.text
    node.until(lambda: node.serves() == "1")
    entry = node.until(lambda: node.entry("Reverted"))
    assert (entry["reason"], entry["live"]["version"]) == ("InferenceErrors", 1)
