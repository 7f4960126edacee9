"""The alert rules and what carries them: judged by promtool on written series, wrapped alike, bound to the pods."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright_local.binaries import Binary

_ROOT = Path(__file__).parents[3]
_MONITORING = _ROOT / "deploy" / "k8s" / "monitoring"
_CASES = _MONITORING / "rules_test.yaml"


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((_MONITORING / "rules.yaml").read_text())["groups"]
    return list(group["rules"])


def _promtool(binaries: dict[Binary, Path], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binaries[Binary.PROMTOOL], *arguments], capture_output=True, text=True, timeout=120)


def test_promtool_finds_no_fault(every_binary: dict[Binary, Path]) -> None:
    answer = _promtool(every_binary, "check", "rules", "--lint=all", "--lint-fatal", _MONITORING / "rules.yaml")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_each_alert_fires_and_keeps_silent_as_written(every_binary: dict[Binary, Path]) -> None:
    answer = _promtool(every_binary, "test", "rules", _CASES)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_a_wrong_expectation_would_be_noticed(every_binary: dict[Binary, Path], tmp_path: Path) -> None:
    text = _CASES.read_text()
    assert "severity: critical" in text
    wrong = tmp_path / "rules_test.yaml"
    wrong.write_text(
        text.replace("severity: critical", "severity: info").replace("rules.yaml", str(_MONITORING / "rules.yaml"))
    )
    assert _promtool(every_binary, "test", "rules", wrong).returncode != 0


@pytest.mark.parametrize("name", [rule["alert"] for rule in _rules()])
def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    expected = [
        bool(case.get("exp_alerts"))
        for test in yaml.safe_load(_CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert set(expected) == {True, False}


def test_the_wrapped_rules_are_the_plain_ones() -> None:
    wrapped = yaml.safe_load((_MONITORING / "prometheusrule.yaml").read_text())
    assert wrapped["kind"] == "PrometheusRule"
    assert wrapped["spec"] == yaml.safe_load((_MONITORING / "rules.yaml").read_text())


def test_kustomize_carries_rules_monitors_and_dashboards(
    kustomized: Callable[[Path], list[dict[str, Any]]],
) -> None:
    found = {document["kind"]: document for document in kustomized(_MONITORING)}
    assert set(found) == {"PrometheusRule", "PodMonitor", "ConfigMap"}
    assert set(found["ConfigMap"]["data"]) == {path.name for path in (_MONITORING / "dashboards").iterdir()}


def test_each_pod_monitor_finds_its_pods_and_their_port() -> None:
    monitors = list(yaml.safe_load_all((_MONITORING / "podmonitors.yaml").read_text()))
    assert len(monitors) == 3
    for monitor in monitors:
        part = monitor["metadata"]["name"].removeprefix("edgewright-")
        documents = yaml.safe_load_all((_ROOT / "deploy" / "k8s" / "base" / f"{part}.yaml").read_text())
        template = next(found for found in documents if found["kind"] != "Service")["spec"]["template"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}
