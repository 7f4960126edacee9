"""The committed manifests: generated ones up to date, the sample valid, every pod confined."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from edgewright_contract import crd, names
from edgewright_contract.compressedmodel import CompressedModelSpec

_ROOT = Path(__file__).parents[2]
_DEPLOY = _ROOT / "deploy"
_BASE = _DEPLOY / "k8s" / "base"


def _documents(name: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((_BASE / name).read_text()) if document]


def _workloads() -> list[dict[str, Any]]:
    files = ("operator.yaml", "gateway.yaml", "agent.yaml")
    return [document for file in files for document in _documents(file) if document["kind"] != "Service"]


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(_DEPLOY))
    return importlib.import_module("generate")


def test_what_is_generated_is_up_to_date(generate: ModuleType) -> None:
    assert generate.outdated(_ROOT, generate.expected(_ROOT)) == []


def test_nothing_lies_beside_what_is_generated(generate: ModuleType) -> None:
    """A file whose generator went away would live on unseen."""
    by_hand = {"checks.yaml", "NOTES.txt", "rules_test.yaml"}
    made = set(generate.expected(_ROOT))
    for folder in {path.parent for path in made if path.suffix not in (".py", ".pyi")}:  # those lie among other code
        beside = {path for path in (_ROOT / folder).iterdir() if path.is_file()} - {_ROOT / path for path in made}
        assert {path.name for path in beside} <= by_hand | {"kustomization.yml"}


def test_a_changed_file_is_noticed_and_written_again(generate: ModuleType, tmp_path: Path) -> None:
    files = generate.expected(_ROOT)
    generate.write(tmp_path, files, lambda line: None)
    changed = next(iter(files))
    (tmp_path / changed).write_text("other")
    assert generate.outdated(tmp_path, files) == [changed]
    generate.write(tmp_path, files, lambda line: None)
    assert generate.outdated(tmp_path, files) == []


def test_the_chart_does_not_drift_silently_when_the_base_changes(generate: ModuleType, tmp_path: Path) -> None:
    base = tmp_path / generate.chart.BASE
    shutil.copytree(_BASE, base)
    assert generate.chart.files(tmp_path)
    changed = base / "operator.yaml"
    changed.write_text(changed.read_text().replace("replicas: 2", "replicas: 3"))
    with pytest.raises(generate.chart.BaseChanged, match=r"operator\.yaml no longer holds 'replicas: 2"):
        generate.chart.files(tmp_path)


def test_every_array_of_a_definition_is_bounded() -> None:
    unbounded: list[str] = []

    def walk(node: Any, place: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "array" and "maxItems" not in node:
                unbounded.append(place)
            for key, value in node.items():
                walk(value, f"{place}.{key}")

    for definition in crd.crds():
        walk(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], definition["metadata"]["name"])
    assert unbounded == []


@pytest.mark.parametrize("file", sorted((_DEPLOY / "k8s" / "samples").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_sample_is_valid(file: Path) -> None:
    for sample in yaml.safe_load_all(file.read_text()):
        assert (sample["apiVersion"], sample["kind"]) == (names.API_VERSION, "CompressedModel")
        spec = CompressedModelSpec.model_validate(sample["spec"], extra="forbid")
        assert spec.rollout.waves[-1].percent == 100


def test_kustomization_names_every_file() -> None:
    listed = set(yaml.safe_load((_BASE / "kustomization.yaml").read_text())["resources"])
    assert {path.name for path in _BASE.glob("*.yaml")} - {"kustomization.yaml"} == {n for n in listed if "/" not in n}
    assert {name for name in listed if "/" in name} == {"../crd"}
    definitions = yaml.safe_load((_DEPLOY / "k8s" / "crd" / "kustomization.yml").read_text())["resources"]
    assert set(definitions) == {path.name for path in (_DEPLOY / "k8s" / "crd").glob("*.yaml")}


def test_every_container_is_confined() -> None:
    for workload in _workloads():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_no_role_uses_a_wildcard_or_reads_secrets() -> None:
    roles = [document for document in _documents("rbac.yaml") if document["kind"] in ("Role", "ClusterRole")]
    for rule in (rule for role in roles for rule in role["rules"]):
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        assert not {"secrets", "serviceaccounts/token", "pods/exec"} & set(rule["resources"])
        assert not {"impersonate", "escalate", "bind"} & set(rule["verbs"])
