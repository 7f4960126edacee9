"""What the published releases say of their variants: read from the registry and verified, as anybody else would."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgewright_local.commands import Commands
from edgewright_local.errors import LocalPlatformError

REGISTERED_MODEL: Final = "nilm-identify"


@dataclass(slots=True)
class Shelf:
    """The registry at `mlflow` (a URL), asked once for each manifest."""

    commands: Commands
    mlflow: str
    keys: Path
    found: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def variant(self, manifest: str, name: str) -> Mapping[str, Any]:
        """The variant's entry in release.json of the release with this manifest (`sha256:…`).

        Raises:
            LocalPlatformError: no published release has this manifest, or it has no such variant.
        """
        if manifest not in self.found:
            self.found[manifest] = self._release(manifest)
        for variant in self.found[manifest]["variants"]:
            if variant["name"] == name:
                return dict(variant)
        raise LocalPlatformError(f"a node serves {name}, which is no variant of its release {manifest}")

    def _release(self, manifest: str) -> Mapping[str, Any]:
        where = ("--mlflow", self.mlflow)
        for listed in self.commands.answer("release", "list", REGISTERED_MODEL, *where, "--json")["releases"]:
            if listed["manifest"] == manifest:
                reference = f"{listed['name']}/{listed['version']}"
                here = ("--keys", str(self.keys), "--workspace", str(self.commands.directory.parent))
                shown = self.commands.answer("release", "show", reference, *where, *here, "--json")
                if shown["manifest"] == manifest:
                    return dict(shown["release"])
        raise LocalPlatformError(f"a node serves a release that the registry does not have: {manifest}")
