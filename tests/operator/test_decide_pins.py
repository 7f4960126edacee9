"""A version keeps the bytes that it had first, whatever MLflow says later."""

from edgewright_contract.compressedmodel_status import CompressedModelStatus
from edgewright_contract.conditions import Reason
from edgewright_contract.release import Release
from edgewright_operator.facts import ReleaseFacts, SourceProblem
from edgewright_operator.pins import pinned


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def found(version: int, letter: str) -> ReleaseFacts:
    return ReleaseFacts(Release.model_construct(version=version), digest(letter))


def status() -> CompressedModelStatus:
    times = {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:00Z", "reason": "RolledOut"}
    history = [{"version": 1, "manifest": digest("a"), "outcome": "Promoted", **times}]
    return CompressedModelStatus.model_validate(
        {
            "release": {"version": 3, "sequence": 3, "manifest": digest("c")},
            "lastGood": {"version": 2, "sequence": 2, "manifest": digest("b")},
            "history": history,
        }
    )


def test_known_versions_keep_their_digest_and_new_ones_pass() -> None:
    for version, letter in ((1, "a"), (2, "b"), (3, "c"), (4, "d")):
        assert pinned(status(), found(version, letter)) == found(version, letter)


def test_other_bytes_under_a_known_version_are_refused_with_both_digests() -> None:
    for version, letter in ((1, "a"), (2, "b"), (3, "c")):
        refused = pinned(status(), found(version, "e"))
        assert isinstance(refused, SourceProblem)
        assert refused.reason is Reason.RELEASE_CHANGED
        assert digest(letter) in refused.message
        assert digest("e") in refused.message


def test_a_problem_stays_the_problem() -> None:
    away = SourceProblem(Reason.SOURCE_UNAVAILABLE, "away")
    assert pinned(status(), away) is away
