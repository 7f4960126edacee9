"""Builds the pinned servers with Go into a cache outside the checkout; every run after the first takes them from there.

First step of the local platform: `ensure` → paths → `control_plane`, `prometheus_server`.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgewright_local.errors import BuildError

_KUBERNETES_VERSION = "v1.37.2"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_HELM_VERSION = "v4.3.1"
_HELM_PACKAGE = "helm.sh/helm/v4/internal/version"


class Binary(StrEnum):
    """The programs that can be built; the value is the file's name."""

    KUBE_APISERVER = "kube-apiserver"
    KUBE_CONTROLLER_MANAGER = "kube-controller-manager"
    KUBECTL = "kubectl"
    ETCD = "etcd"
    PROMETHEUS = "prometheus"
    PROMTOOL = "promtool"
    HELM = "helm"


class Phase(StrEnum):
    """Where the building of one binary stands."""

    CACHED = "cached"
    WAITING = "waiting for another build"
    BUILDING = "building"
    BUILT = "built"


@dataclass(frozen=True)
class Progress:
    """One line for the person who waits."""

    binary: Binary
    phase: Phase
    seconds: float
    packages: int = 0

    def __str__(self) -> str:
        """The line as it is shown."""
        if self.phase is Phase.CACHED:
            return f"{self.binary}: in the cache"
        compiled = f", {self.packages} packages" if self.packages else ""
        return f"{self.binary}: {self.phase} ({self.seconds:.0f} s{compiled})"


@dataclass(frozen=True)
class Recipe:
    """How one binary is built: the folder with go.mod and go.sum, the package, and flags of `go build`."""

    module: Path
    package: str
    flags: tuple[str, ...]

    def digest(self) -> str:
        """Names the build: another version, flag or processor gives another digest."""
        total = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            total.update((self.module / name).read_bytes())
        total.update(repr((self.package, self.flags, platform.system(), platform.machine())).encode())
        return total.hexdigest()[:16]


def recipes() -> dict[Binary, Recipe]:
    """Every binary's recipe; versions stand in the go.mod beside this file."""
    modules = Path(__file__).parent / "gomodules"
    kubernetes, prometheus, helm = (modules / name for name in ("kubernetes", "prometheus", "helm"))
    major, minor, _ = _KUBERNETES_VERSION.removeprefix("v").split(".")
    stamp = {"gitVersion": _KUBERNETES_VERSION, "gitMajor": major, "gitMinor": minor}
    versioned = _flags(*(f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in stamp.items()))
    # Without this tag Prometheus compiles the discovery of two dozen clouds; static targets work without.
    slim = ("-tags", "remove_all_sd", *_flags())
    return {
        Binary.KUBE_APISERVER: Recipe(kubernetes, "k8s.io/kubernetes/cmd/kube-apiserver", versioned),
        Binary.KUBE_CONTROLLER_MANAGER: Recipe(kubernetes, "k8s.io/kubernetes/cmd/kube-controller-manager", versioned),
        Binary.KUBECTL: Recipe(kubernetes, "k8s.io/kubernetes/cmd/kubectl", versioned),
        Binary.ETCD: Recipe(kubernetes, "go.etcd.io/etcd/server/v3", _flags()),
        Binary.PROMETHEUS: Recipe(prometheus, "github.com/prometheus/prometheus/cmd/prometheus", slim),
        Binary.PROMTOOL: Recipe(prometheus, "github.com/prometheus/prometheus/cmd/promtool", slim),
        Binary.HELM: Recipe(helm, "helm.sh/helm/v4/cmd/helm", _flags(f"-X {_HELM_PACKAGE}.version={_HELM_VERSION}")),
    }


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """`$EDGEWRIGHT_CACHE`, else `~/.cache/edgewright` (under `$XDG_CACHE_HOME` when that is set)."""
    env = os.environ if environment is None else environment
    if chosen := env.get("EDGEWRIGHT_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgewright"


def cached_path(binary: Binary, recipe: Recipe, cache: Path) -> Path:
    """Where `binary` lies, or will lie, in `cache`."""
    return cache / "bin" / f"{binary}-{recipe.digest()}" / binary


def missing(names: Sequence[Binary], cache: Path | None = None) -> list[Binary]:
    """Those of `names` that `ensure` would have to build."""
    folder, known = cache or cache_directory(), recipes()
    return [name for name in names if not cached_path(name, known[name], folder).exists()]


def ensure(
    names: Sequence[Binary], report: Callable[[Progress], None], cache: Path | None = None
) -> dict[Binary, Path]:
    """Give back the path of each of `names`, after building those that are missing.

    `report` is called about every five seconds while something is built. Two processes that need the same binary at
    the same time build it once.

    Raises:
        BuildError: Go is missing or too old, modules cannot be downloaded, or a build fails (it is not tried again).
    """
    from edgewright_local.go_build import build  # imported here: most runs find all in the cache

    folder, known = cache or cache_directory(), recipes()
    paths: dict[Binary, Path] = {}
    for name in dict.fromkeys(names):
        path = cached_path(name, known[name], folder)
        if path.exists():
            report(Progress(name, Phase.CACHED, 0.0))
        else:
            build(name, known[name], path, report)
        paths[name] = path
    return paths


def require(paths: Mapping[Binary, Path], name: Binary) -> Path:
    """The path of `name`.

    Raises:
        BuildError: `ensure` was not asked for it.
    """
    if name not in paths:
        raise BuildError(
            f"{name} is needed here but was not among the binaries given; add it to the names for ensure()"
        )
    return paths[name]


def _flags(*linker: str) -> tuple[str, ...]:
    return ("-trimpath", "-buildvcs=false", "-ldflags", " ".join(("-s -w", *linker)))
