"""`edgewright-agent install --systemd`: the agent as a service of the machine, for sites that must serve after a reboot
with no network. `planned` says what would be written, `apply` writes it and calls systemd.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_agent.joining import Joined, JoinError, parse
from edgewright_agent.joining import joined as turned
from edgewright_agent.starting import PREFIX

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

_SECRET: Final = 0o600
_NEEDED: Final = ("node", "api_url", "gateway_url")
_GIVEN: Final = (*_NEEDED, "api_ca", "gateway_ca", "host", "port")
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


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    try:
        joined = _joined(arguments.join)
        given = {name.upper(): value for name in _GIVEN if (value := getattr(arguments, name)) is not None}
        settings = {**joined.settings, **given}
        checked(settings)
        files = [*planned(settings, own_command()), *_of(joined)]
        if arguments.dry_run:
            for file in files:
                print(f"# {file.path} ({file.mode:o})\n{'(secret)' if file.mode == _SECRET else file.text}")
            return 0
        for sentence in apply(files, arguments.root or Path("/"), start=arguments.root is None):
            print(sentence)
    except (InstallError, JoinError) as error:
        print(f"edgewright-agent: {error}", file=sys.stderr)
        return 1
    if arguments.join is None:
        print(f"next: put the root key to {CONFIG}/root.pub and the tokens to {STATE}/tokens/")
    else:
        print(f"next: delete {arguments.join}; it holds the node's tokens")
    return 0


def _joined(path: Path | None) -> Joined:
    if path is None:
        return Joined({}, {}, {})
    try:
        return turned(parse(path.read_bytes()), str(CONFIG))
    except OSError as error:
        raise InstallError(f"{path}: {error.strerror}") from None


def _of(joined: Joined) -> list[File]:
    kept = [File(CONFIG / name, text, 0o644) for name, text in joined.configuration.items()]
    return kept + [File(STATE / "tokens" / name, text, _SECRET) for name, text in joined.tokens.items()]


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
    """Refuse what is missing, and values that an environment file would not give back as they are.

    Raises:
        InstallError: with the name of the setting.
    """
    missing = [f"--{name.replace('_', '-')}" for name in _NEEDED if name.upper() not in settings]
    if missing:
        raise InstallError(f"{' '.join(missing)}: needed, unless --join FILE says it")
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
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if file.mode == _SECRET else 0o755)
            target.touch(mode=file.mode)  # a secret is born narrow
            target.chmod(file.mode)
            target.write_text(file.text)
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
