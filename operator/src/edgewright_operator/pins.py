"""A version means the bytes that it meant first: what the status remembers of earlier digests. Pure."""

from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_operator.facts import ReleaseFacts, SourceProblem


def pinned(status: CompressedModelStatus, found: ReleaseFacts | SourceProblem) -> ReleaseFacts | SourceProblem:
    """The release as found, or `ReleaseChanged` where its version had another manifest before.

    MLflow restarts numbers when a registered model is deleted and lets artifacts be overwritten.
    """
    if isinstance(found, SourceProblem):
        return found
    version = found.release.version
    known = [(ref.version, ref.manifest) for ref in (status.release, status.last_good) if ref is not None]
    known += [(entry.version, entry.manifest) for entry in reversed(status.history)]
    first = next((manifest for number, manifest in known if number == version), None)
    if first is None or first == found.manifest:
        return found
    message = f"version {version} was {first} and is {found.manifest} now: publish the new bytes as a new version"
    return SourceProblem(Reason.RELEASE_CHANGED, message)
