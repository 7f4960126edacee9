"""The Dockerfiles: what they copy exists, what they install is locked, and they run what a manifest runs, as nobody."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parents[2]
_BASE = _ROOT / "deploy" / "k8s" / "base"
_FILES = sorted((_ROOT / "deploy" / "images").glob("*.Dockerfile"))
each = pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)


def _instructions(file: Path) -> list[tuple[str, str]]:
    lines = file.read_text().replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word.isupper()]


def _copied(file: Path) -> list[str]:
    return [rest.split()[0] for word, rest in _instructions(file) if word == "COPY" and not rest.startswith("--from")]


@each
def test_what_is_copied_exists_and_is_sent_to_the_builder(file: Path) -> None:
    sent = [line[1:] for line in file.with_suffix(".Dockerfile.dockerignore").read_text().split() if line[0] == "!"]
    copied = _copied(file)
    assert "requirements.lock" in copied
    assert set(copied) == set(sent)
    for source in copied:
        assert (_ROOT / source).exists(), f"{file.name} copies {source}, which is not there"


@each
def test_what_is_installed_is_what_was_copied_and_locked(file: Path) -> None:
    (install,) = [rest for word, rest in _instructions(file) if word == "RUN" and "--constraint" in rest]
    local = [part.removeprefix("./") for part in install.split() if part.startswith("./")]
    assert sorted(local) == sorted(set(_copied(file)) - {"requirements.lock"})
    text = (_ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==", text, re.MULTILINE))
    for member in local:
        wanted = tomllib.loads((_ROOT / member / "pyproject.toml").read_text())["project"]["dependencies"]
        named = {re.split(r"[^\w.-]", requirement)[0] for requirement in wanted}
        assert {name for name in named if not name.startswith("edgewright-")} <= locked


@each
def test_it_runs_as_nobody_what_a_manifest_runs(file: Path) -> None:
    last = dict(_instructions(file))
    assert last["USER"] == "65532:65532"
    image = f"edgewright-{file.stem}"
    commands = [
        container["command"]
        for manifest in ("operator", "gateway", "agent")
        for document in yaml.safe_load_all((_BASE / f"{manifest}.yaml").read_text())
        if document["kind"] != "Service"
        for container in document["spec"]["template"]["spec"]["containers"]
        if container["image"].partition(":")[0] == image
    ]
    assert yaml.safe_load(last["CMD"]) in commands


def test_every_image_of_the_manifests_has_its_file() -> None:
    named = {
        line.partition("image: ")[2].partition(":")[0]
        for path in _BASE.glob("*.yaml")
        for line in path.read_text().splitlines()
        if line.strip().startswith("image: ")
    }
    assert named == {f"edgewright-{file.stem}" for file in _FILES}
