"""What each manifest gives its process fits the process: command, variables, mounted files, ports and probes."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from pydantic import BaseModel
from pydantic_settings import BaseSettings

from edgewright_agent.serving.settings import ServingSettings
from edgewright_agent.settings import AgentSettings, from_environment
from edgewright_agent.starting import PREFIX
from edgewright_contract import names
from edgewright_operator.gateway.settings import Settings as GatewaySettings
from edgewright_operator.settings import Settings as OperatorSettings

_ROOT = Path(__file__).parents[2]
_BASE = _ROOT / "deploy" / "k8s" / "base"


@dataclass(frozen=True)
class Process:
    """A process as its manifest starts it."""

    name: str
    settings: type[BaseModel]
    read: Callable[[], BaseModel]
    prefix: str
    written: frozenset[str] = field(default_factory=frozenset)
    """Settings that hold a path which the process itself creates."""
    inherited: type[msgspec.Struct] | None = None
    """Settings of a child process that inherits the variables."""

    @property
    def pod(self) -> dict[str, Any]:
        documents = yaml.safe_load_all((_BASE / f"{self.name}.yaml").read_text())
        return next(document for document in documents if document["kind"] != "Service")["spec"]["template"]["spec"]

    @property
    def container(self) -> dict[str, Any]:
        (only,) = self.pod["containers"]
        return dict(only)

    def environment(self) -> dict[str, str]:
        """Every variable, those of the ConfigMap that it draws from included."""
        found: dict[str, str] = {}
        for source in self.container["envFrom"]:
            found |= _config_map(source["configMapRef"]["name"])
        for entry in self.container["env"]:
            assert entry["name"] not in found, f"{entry['name']} is given twice"
            found[entry["name"]] = entry.get("value", "from-the-pod")
        return found


def _config_map(name: str) -> dict[str, str]:
    documents = yaml.safe_load_all((_BASE / "config.yaml").read_text())
    return next(document["data"] for document in documents if document["metadata"]["name"] == name)


def _prefix(settings: type[BaseSettings]) -> str:
    return str(settings.model_config["env_prefix"])


def _agent() -> AgentSettings:
    return from_environment(os.environ)


PROCESSES = [
    Process("operator", OperatorSettings, OperatorSettings, _prefix(OperatorSettings)),
    Process("gateway", GatewaySettings, GatewaySettings, _prefix(GatewaySettings), frozenset({"cache"})),
    Process("agent", AgentSettings, _agent, PREFIX, frozenset({"state_dir"}), ServingSettings),
]
each = pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.name)


def _built(process: Process, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> BaseModel:
    """The settings from exactly this environment; a variable that the process does not know is an error."""
    fields = {*process.settings.model_fields, *(process.inherited.__struct_fields__ if process.inherited else ())}
    known = {process.prefix + name.upper() for name in fields}
    unknown = set(environment) - known
    if unknown:
        raise KeyError(f"{process.name} knows no {', '.join(sorted(unknown))}")
    for name in known:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return process.read()


@each
def test_the_process_accepts_exactly_what_it_is_given(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    given = process.environment()
    built = _built(process, given, monkeypatch)
    for name, value in given.items():
        read = getattr(built, name.removeprefix(process.prefix).lower())
        assert (str(read).lower() if isinstance(read, bool) else str(read)) == value


@each
def test_a_missing_or_misspelled_variable_does_not_pass_unseen(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = process.environment()
    required = next(name for name, known in process.settings.model_fields.items() if known.is_required())
    less = {name: value for name, value in given.items() if name != process.prefix + required.upper()}
    with pytest.raises(ValueError, match=required):
        _built(process, less, monkeypatch)
    with pytest.raises(KeyError, match="GATEWAY_URI"):
        _built(process, {**given, f"{process.prefix}GATEWAY_URI": "https://x"}, monkeypatch)


@each
def test_every_file_that_a_setting_names_is_mounted(process: Process) -> None:
    pod, container = process.pod, process.container
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    for name, value in process.environment().items():
        short = name.removeprefix(process.prefix).lower()
        if not value.startswith("/"):
            continue
        path = Path(value)
        (volume,) = [volumes[held] for held, mount in mounts.items() if path.is_relative_to(mount)]
        if short in process.written:
            assert {"emptyDir", "hostPath"} & volume.keys()
        else:
            assert path.name in _files(volume), f"{value} is not among the files of volume {volume['name']}"


def _files(volume: dict[str, Any]) -> set[str]:
    """Names of the files that a volume shows; whole ConfigMaps and Secrets as docs/operations.md makes them."""
    if "projected" in volume:
        return {path for source in volume["projected"]["sources"] for path in _projected(source)}
    source = volume.get("configMap") or volume["secret"]
    if "items" in source:
        return {item["path"] for item in source["items"]}
    return _made_by_hand(source.get("name") or source["secretName"])


def _projected(source: dict[str, Any]) -> set[str]:
    (kind,) = source
    return {source[kind]["path"]} if kind == "serviceAccountToken" else {item["path"] for item in source[kind]["items"]}


def _made_by_hand(name: str) -> set[str]:
    """The files of an object that the operations page tells how to make."""
    page = (_ROOT / "docs" / "operations.md").read_text().replace("\\\n", " ")
    (command,) = [line for line in page.splitlines() if re.search(rf"kubectl .*create \S.* {name} ", line)]
    if "create secret tls" in command:
        return {"tls.crt", "tls.key"}
    return {part.partition("=")[0] for part in re.findall(r"--from-file=(\S+)", command)}


@each
def test_the_objects_that_are_made_by_hand_hold_every_item(process: Process) -> None:
    for volume in process.pod["volumes"]:
        for kind, key in (("configMap", "name"), ("secret", "secretName")):
            if kind in volume and "items" in volume[kind]:
                assert {item["key"] for item in volume[kind]["items"]} <= _made_by_hand(volume[kind][key])


@each
def test_the_probes_and_the_address_fit_the_settings(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    built = _built(process, process.environment(), monkeypatch)
    kind = "metrics_" if process.name == "operator" else ""
    assert getattr(built, f"{kind}host") == "0.0.0.0"
    (port,) = process.container["ports"]
    assert port["containerPort"] == getattr(built, f"{kind}port")
    for probe in (key for key in process.container if key.endswith("Probe")):
        asked = process.container[probe].get("httpGet") or process.container[probe]["tcpSocket"]
        assert asked["port"] == port["name"]
        assert (asked.get("scheme") == "HTTPS") == (process.name == "gateway")


@each
def test_the_command_exists_and_understands_its_arguments(process: Process) -> None:
    program, *arguments = process.container["command"]
    path = Path(sysconfig.get_path("scripts")) / program
    answer = subprocess.run([path, *arguments, "--help"], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert all(argument in answer.stdout for argument in arguments)


def test_each_token_has_the_audience_of_who_reads_it() -> None:
    for process, wanted in zip(PROCESSES, (["edgewright-gateway"], [], [None, "edgewright-gateway"]), strict=True):
        assert [token.get("audience") for token in _tokens(process.pod)] == wanted
    assert names.GATEWAY_AUDIENCE == "edgewright-gateway"


def _tokens(pod: dict[str, Any]) -> list[dict[str, Any]]:
    sources = [source for volume in pod["volumes"] for source in volume.get("projected", {}).get("sources", [])]
    return [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]


def test_the_service_leads_to_the_gateway_under_the_name_that_is_asked() -> None:
    (service,) = [d for d in yaml.safe_load_all((_BASE / "gateway.yaml").read_text()) if d["kind"] == "Service"]
    (port,) = service["spec"]["ports"]
    assert port["port"] == 443
    assert port["targetPort"] == PROCESSES[1].container["ports"][0]["name"]
    host = f"https://{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert PROCESSES[0].environment()["EDGEWRIGHT_OPERATOR_GATEWAY_URL"] == host
    assert PROCESSES[2].environment()["EDGEWRIGHT_AGENT_GATEWAY_URL"] == host
