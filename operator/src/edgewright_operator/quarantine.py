"""Manifests that failed and are not rolled out again until they are freed. Pure."""

from datetime import datetime

from edgewright_contract import names
from edgewright_contract.compressedmodel_status import CompressedModelStatus, Quarantined
from edgewright_contract.timestamps import rfc3339
from edgewright_operator.facts import ModelFacts

LENGTH = 20
"""Newest that are kept: fewer than the schema allows, so that the whole status stays below 16 KB."""


def freed(model: ModelFacts) -> CompressedModelStatus:
    """The status without the entry that the annotation names; the entry's time is part of it, so it frees once."""
    free = model.annotations.get(names.ANNOTATION_UNQUARANTINE)
    kept = [entry for entry in model.status.quarantined if f"{entry.manifest}/{entry.since}" != free]
    if len(kept) == len(model.status.quarantined):
        return model.status
    changes: dict[str, object] = {"quarantined": kept}
    if model.status.release and all(entry.manifest != model.status.release.manifest for entry in kept):
        changes |= {"release": None, "wave": None, "gate": None}  # it begins anew
    return model.status.model_copy(update=changes)


def condemned(status: CompressedModelStatus, manifest: str, reason: str, now: datetime) -> CompressedModelStatus:
    """The status with the manifest in quarantine."""
    entry = Quarantined(manifest=manifest, reason=reason[:64], since=rfc3339(now))
    return status.model_copy(update={"quarantined": [*status.quarantined, entry][-LENGTH:]})


def holds(status: CompressedModelStatus, manifest: str) -> Quarantined | None:
    """The manifest's entry, if it is in quarantine."""
    return next((entry for entry in status.quarantined if entry.manifest == manifest), None)
