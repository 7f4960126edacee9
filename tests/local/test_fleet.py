"""A node's line of the demo's table: what the node says, joined with what its own release says of the variant."""

from typing import Any

from edgewright_local import fleet

DIGEST = f"sha256:{7:064x}"


def _node(**live: Any) -> dict[str, Any]:
    model = {"name": fleet.KEY, "state": "Live", "live": live, "figures": {"p95Microseconds": 90.0}}
    return {"status": {"hardware": {"class": "x86_64-avx2-2c"}, "models": [model]}}


def test_the_line_joins_the_node_with_the_release_that_it_names() -> None:
    asked: list[tuple[str, str]] = []

    def published(manifest: str, variant: str) -> dict[str, Any]:
        asked.append((manifest, variant))
        return {"bytes": 123, "accuracy": {"macroF1": 0.5}}

    row = fleet.row("edge-1", _node(manifest=DIGEST, version=2, variant="base-int8"), published)
    assert asked == [(DIGEST, "base-int8")]
    assert row == {
        "name": "edge-1",
        "hardwareClass": "x86_64-avx2-2c",
        "release": 2,
        "variant": "base-int8",
        "bytes": 123,
        "macroF1": 0.5,
        "state": "Live",
        "p95Milliseconds": 0.09,
    }


def test_a_node_that_serves_nothing_has_no_figures_of_a_release() -> None:
    def published(_: str, __: str) -> dict[str, Any]:
        raise AssertionError("nothing is served")

    row = fleet.row("edge-1", {}, published)
    assert (row["variant"], row["bytes"], row["macroF1"], row["state"]) == (None, None, None, None)


def test_made_up_data_has_no_score() -> None:
    row = fleet.row("edge-1", _node(manifest=DIGEST, variant="a"), lambda *_: {"bytes": 5, "accuracy": None})
    assert (row["bytes"], row["macroF1"]) == (5, None)
