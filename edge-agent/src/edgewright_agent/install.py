"""`edgewright-agent install --systemd`: the agent as a service of the machine, for sites that must serve after a reboot
with no network. `planned` says what would be written, `apply` writes it and calls systemd.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_agent.settings import PREFIX

UNIT: Final = "edgewright-agent.service"
CONFIG: Final = Path("/etc/edgewright")
ENVIRONMENT: Final = CONFIG / "agent.env"
STATE: Final = Path("/var/lib/edgewright")
USER: Final = "edgewright"

_UNIT_TEXT: Final = """\
[Unit]
Description=Edgewright agent: verifies, tests, swaps and serves models on this node
Documentation=file://{config}/agent.env
# Not network-online.target: the last known good is served with no network at all.
After=network.target
StartLimitIntervalSec=0

[Service]
ExecStart={command} run
EnvironmentFile={config}/agent.env
User={user}
Group={user}
StateDirectory=edgewright
StateDirectoryMode=0700
UMask=0077
Restart=always
RestartSec=2
# SIGTERM to the supervisor only: it ends the server, and the kernel does if the supervisor cannot.
KillMode=mixed
TimeoutStopSec=20
MemoryMax=512M
TasksMax=64
LimitCORE=0
OOMPolicy=continue

CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
PrivateDevices=yes
PrivateTmp=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=setrlimit prlimit64
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

_USER_TEXT: Final = f'u {USER} - "Edgewright agent" {STATE}\n'


class InstallError(Exception):
    """Nothing was installed; the sentence says why."""


@dataclass(frozen=True)
class File:
    """One file to write."""

    path: Path
    text: str
    mode: int
    keep: bool = False
    """Not written where there is one already."""


def planned(settings: Mapping[str, str], command: Path) -> list[File]:
    """The files of the service. `settings` are names of AgentSettings without the prefix, in capitals."""
    fixed = {"STATE_DIR": str(STATE), "API_TOKEN_FILE": str(STATE / "tokens/api")}
    fixed |= {"GATEWAY_TOKEN_FILE": str(STATE / "tokens/gateway"), "ROOT_KEY_FILE": str(CONFIG / "root.pub")}
    lines = [f"{PREFIX}{name}={value}" for name, value in sorted({**fixed, **settings}.items())]
    return [
        File(Path("/etc/systemd/system") / UNIT, _UNIT_TEXT.format(command=command, config=CONFIG, user=USER), 0o644),
        File(Path("/etc/sysusers.d/edgewright-agent.conf"), _USER_TEXT, 0o644),
        File(ENVIRONMENT, "\n".join(lines) + "\n", 0o644, keep=True),
    ]


def checked(settings: Mapping[str, str]) -> None:
    """Refuse values that an environment file would not give back as they are.

    Raises:
        InstallError: with the name of the setting.
    """
    for name, value in settings.items():
        if not value or any(sign in value for sign in "\n\r\0\"'\\$ "):
            raise InstallError(f"--{name.lower().replace('_', '-')}: {value!r} is empty or holds a space, quote or $")


def apply(files: list[File], root: Path, *, start: bool) -> list[str]:
    """Write the files below `root`; with `start` make the user and start the service too. What was done, in sentences.

    Raises:
        InstallError: a folder may not be written, or systemd refuses.
    """
    done = []
    for file in files:
        target = root / file.path.relative_to("/")
        if file.keep and target.exists():
            done.append(f"kept {target}")
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file.text)
            target.chmod(file.mode)
        except OSError as error:
            raise InstallError(f"{target}: {error.strerror}; run it as root, or with --root FOLDER") from None
        done.append(f"wrote {target}")
    calls = [["systemd-sysusers"], ["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", UNIT]]
    for call in calls if start else []:
        _call(call)
        done.append("ran " + " ".join(call))
    return done


def own_command() -> Path:
    """Where `edgewright-agent` of this environment lies.

    Raises:
        InstallError: it is not installed.
    """
    beside = Path(sys.executable).parent / "edgewright-agent"
    found = beside if beside.exists() else shutil.which("edgewright-agent")
    if found is None:
        raise InstallError("there is no edgewright-agent command; install the package first")
    return Path(found)


def _call(command: list[str]) -> None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InstallError(f"{command[0]} is not there; is this a machine with systemd?") from None
    if ended.returncode:
        raise InstallError(f"{' '.join(command)}: {ended.stderr.strip() or ended.returncode}")
