import numpy as np
import pytest

from edgewright_pipelines import flow, latency
from edgewright_pipelines.data import synthetic
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.recipe import Importance, Pruning, Recipe, Scope
from edgewright_pipelines.stages import Stages


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"min_days": 6},
            "window": {"seconds": 256, "hop_seconds": 256},
            "network": {"channels": (16, 16), "kernels": (1, 3), "hidden": 16, "bin_seconds": 16},
            "training": {"steps": 6, "batch": 8},
            "compression": {
                "pruning": (Pruning(importance=Importance.L2, scope=Scope.LOCAL, ratio=0.5),),
                "finetune_steps": 3,
            },
        }
    )


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(synthetic.generate(seed=1, devices=2, days=4), synthetic=True)


def _quiet(_what, _fraction):
    pass


@pytest.fixture(scope="module")
def first(recipe, source, tmp_path_factory):
    workspace = tmp_path_factory.mktemp("stages")
    return workspace, flow.run(recipe, source, Stages(workspace), _quiet)


def test_the_line_makes_every_variant_and_measures_the_file(first):
    _, result = first
    names = [variant.name for variant in result.variants]
    assert names == ["base-fp32", "base-int8", "l2-local-50-fp32", "l2-local-50-int8"]
    assert [variant.parent for variant in result.variants] == [None, "base-fp32", None, "l2-local-50-fp32"]
    assert all(variant.measured.bytes == len(variant.onnx) for variant in result.variants)
    assert result.synthetic


def test_a_rerun_trains_and_times_nothing_and_tells_the_same(first, recipe, source, monkeypatch):
    workspace, result = first
    monkeypatch.setattr(latency, "measure", lambda *_: pytest.fail("timed again"))
    told = []
    again = flow.run(recipe, source, Stages(workspace), lambda what, _: told.append(what))
    assert [variant.measured for variant in again.variants] == [variant.measured for variant in result.variants]
    assert [variant.onnx for variant in again.variants] == [variant.onnx for variant in result.variants]
    assert not any(what.startswith(("training", "pruning", "measuring")) for what in told)


def test_the_same_seed_gives_the_same_bytes_elsewhere(first, recipe, source, tmp_path):
    _, result = first
    again = flow.run(recipe, source, Stages(tmp_path), _quiet)
    assert [variant.onnx for variant in again.variants] == [variant.onnx for variant in result.variants]


def test_a_damaged_stage_is_made_anew(first, recipe, source):
    workspace, result = first
    damaged = next(workspace.glob("base-fp32-*"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    again = flow.run(recipe, source, Stages(workspace), _quiet)
    assert again.variants[0].onnx == result.variants[0].onnx


def test_no_training_saw_the_windows_that_are_held_out(first, recipe, source):
    _, result = first
    held = flow.test_windows(recipe, source.traces)
    assert np.array_equal(held.watts, result.test.watts)
