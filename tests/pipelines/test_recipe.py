import textwrap
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgewright_pipelines.recipe import Importance, NetworkKind, Precision, RecipeError, Scope, SplitBy, Subset, load

IDENTIFY = Path(__file__).parents[2] / "pipelines" / "recipes" / "identify.toml"


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return _write


def refusal(path: Path, quick: bool = False) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, quick=quick)
    return str(caught.value)


def test_identify_is_the_headline_model():
    recipe = load(IDENTIFY)
    assert recipe.name == "nilm-identify"
    assert recipe.split.by is SplitBy.DAY
    assert recipe.data.subsets == (Subset.COMPLETE, Subset.INCOMPLETE, Subset.SYNTHETIC)
    assert (recipe.window.seconds, recipe.window.hop_seconds) == (4096, 512)
    assert recipe.network.kind is NetworkKind.THERMOMETER_CNN
    assert recipe.network.steps(recipe.window.seconds) == 64
    assert Precision.FP32 in recipe.compression.precisions
    compression = recipe.compression
    ways = [compression.ways, *(point.ways or compression.ways for point in compression.pruning)]
    assert sum(1 + len(each) for each in ways) >= 6  # variants: FP32 and each way to INT8 of the base and each point


def test_every_recipe_in_the_package_loads_in_both_forms():
    recipes = set(IDENTIFY.parent.glob("*.toml")) - {IDENTIFY.with_name("study.toml")}  # which names recipes
    for path in recipes:
        assert load(path).name == load(path, quick=True).name


def test_quick_overrides_only_what_it_names():
    full, quick = load(IDENTIFY), load(IDENTIFY, quick=True)
    assert quick.training.steps < full.training.steps
    assert quick.training.learning_rate == full.training.learning_rate or quick.training.steps < full.training.steps
    assert quick.window == full.window
    assert quick.digest() != full.digest()


def test_a_recipe_is_frozen():
    with pytest.raises(ValidationError):
        load(IDENTIFY).seed = 5  # type: ignore[misc]


def test_only_the_name_is_needed(write):
    recipe = load(write('name = "m"'))
    assert recipe.training.steps > 0
    assert recipe.compression.pruning == ()


def test_variant_names(write):
    recipe = load(write('name="m"\ncompression.pruning=[{importance="l2", scope="global", ratio=0.25}]'))
    (point,) = recipe.compression.pruning
    assert (point.importance, point.scope) == (Importance.L2, Scope.GLOBAL)
    assert point.name == "l2-global-25"


def test_a_prior_shift_of_zero_leaves_the_key_of_what_was_decided_without_it(write):
    plain = load(write('name = "m"'))
    named, shifted = (load(write(f'name = "m"\ntraining.prior_shift = {shift}')) for shift in (0.0, 0.5))
    assert "prior_shift" not in plain.model_dump(mode="json")["training"]
    assert plain.digest() == named.digest() != shifted.digest()


def test_a_point_says_only_what_is_set_so_that_older_points_keep_their_hash(write):
    plain = '{importance="l2", scope="global", ratio=0.25}'
    full = '{importance="l2", scope="global", ratio=0.25, ramps=0.8, rounds=2, finetune_steps=9, ways=["qat4"]}'
    points = load(write(f'name="m"\ncompression.pruning=[{plain}, {full}]')).compression.pruning
    assert points[0].model_dump(mode="json") == {"importance": "l2", "scope": "global", "ratio": 0.25}
    assert points[1].model_dump(mode="json") == {
        "importance": "l2",
        "scope": "global",
        "ratio": 0.25,
        "ramps": 0.8,
        "rounds": 2,
        "finetune_steps": 9,
        "ways": ["qat4"],
    }
    assert [point.name for point in points] == ["l2-global-25", "l2-global-25-ramps-80"]


def test_ramps_are_refused_where_the_network_has_none(write):
    point = '{importance="l2", scope="global", ratio=0.25, ramps=0.8}'
    message = refusal(write(f'name="m"\nnetwork.kind="study-cnn"\ncompression.pruning=[{point}]'))
    assert "has no ramps" in message


def test_digest_depends_on_values_and_not_on_how_they_are_written(write):
    first = load(write('name = "m"\nseed = 3\n[window]\nseconds = 4096\nhop_seconds = 512'))
    second = load(write('seed = 3\nname = "m"  # other order, defaults left out'))
    assert first.digest() == second.digest()
    assert first.digest().startswith("sha256:")
    assert load(write('name = "m"\nseed = 4')).digest() != first.digest()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed = 1", ["name is missing", "nilm-identify"]),
        ('name = "m"\n[training]\nstepz = 3', ["no key training.stepz", "Did you mean steps?", "learning_rate"]),
        ('name = "m"\n[trainig]\nsteps = 3', ["no key trainig", "Did you mean training?"]),
        ('name = "m"\n[training.augmentation]\nwrap = 0.1', ["training.augmentation.wrap", "Did you mean warp?"]),
        ('name = "Big Name"', ["name is 'Big Name'", "lower-case"]),
        ('name = "m"\n[split]\nby = "week"', ["split.by is 'week'", '"day" or "device"']),
        ('name = "m"\n[split]\nby = "day"\nfold = 2', ["split: fold = 2", "by = "]),
        ('name = "m"\n[split]\nby = "device"\nfold = 5', ["fold = 5 does not exist", "0 to 4"]),
        ('name = "m"\n[training]\nsteps = "many"', ["training.steps is 'many'", "whole number"]),
        ('name = "m"\n[training]\nsteps = true', ["training.steps is True"]),
        ('name = "m"\n[training]\nsteps = 3.5', ["training.steps is 3.5"]),
        ('name = "m"\n[training]\nlearning_rate = nan', ["training.learning_rate is nan"]),
        ('name = "m"\n[training]\nema = 1', ["training.ema is 1", "less than 1"]),
        ('name = "m"\ntraining = 3', ["training is 3", "[training]"]),
        ('name = "m"\nwhen = 2024-01-01', ["no key when"]),
        ('name = "m"\n[data]\nsubsets = []', ["data.subsets is []", "at least one"]),
        ('name = "m"\n[data]\nsubsets = ["whole"]', ["data.subsets[0] is 'whole'", "complete, incomplete"]),
        ('name = "m"\n[network]\nchannels = [8, 8]\nkernels = [3]', ["network: channels has 2", "kernels has 1"]),
        ('name = "m"\n[network]\nkernels = [1, 4, 5, 5, 3]', ["kernels holds 4", "use 5"]),
        ('name = "m"\n[network]\nchannels = [8, 8, 8, 8, 0]', ["network.channels[4] is 0", "1 to 4096"]),
        ('name = "m"\n[window]\nseconds = 100\nhop_seconds = 100', ["window.seconds = 100 is not a multiple", "16"]),
        ('name = "m"\n[window]\nseconds = 512\nhop_seconds = 9999', ["window: hop_seconds = 9999", "1 to 512"]),
        ('name = "m"\n[window]\nseconds = 256\nhop_seconds = 64', ["longer than the window", "convolution 3"]),
        (
            'name = "m"\n[window]\nseconds = 512\n[network]\nkind = "study-cnn"\npool = 4\nkernels = [1, 1, 1, 1, 1]',
            ["longer than the window", "after 5 poolings by 4"],
        ),
        ('name = "m"\n[network]\npool = 4', ["network: pool = 4 has no meaning"]),
        ('name = "m"\n[network]\nhidden = 100\nheads = 8', ["hidden = 100 cannot be shared by heads = 8"]),
        ('name = "m"\n[network]\nsubspace = 0.5', ["subspace = 0.5 has no meaning without heads"]),
        ('name = "m"\n[network]\nkind = "study-cnn"\nheads = 2', ["heads and changes have no meaning"]),
        ('name = "m"\n[compression]\nprecisions = ["int8"]', ['lacks "fp32"']),
        ('name = "m"\n[compression]\nprecisions = ["fp32", "fp32"]', ["twice"]),
        ('name = "m"\n[compression]\nround_to = 64', ["round_to = 64", "48"]),
        ('name = "m"\n[release]\ngolden_windows = 33', ["release.golden_windows is 33", "1 to 32"]),
        ("[data\nmin_days = 8", ["not valid TOML", "line 1"]),
        ('name = "m"\nquick = 3', ["quick is 3"]),
        ('name = "m"\n[quick.training]\nstepz = 3', ["no key quick.training.stepz", "Did you mean steps?"]),
    ],
)
def test_every_mistake_is_a_sentence(write, text, parts):
    if "round_to" in text:
        text += '\npruning = [{importance="l1", scope="local", ratio=0.5}]'
    path = write(text)
    message = refusal(path)
    assert message.startswith(str(path))
    assert message.endswith(".")
    for part in parts:
        assert part in message


@pytest.mark.parametrize("ratio", ["0", "1", "1.0", "-0.1", '"half"', "inf"])
def test_ratio_is_between_zero_and_one(write, ratio):
    message = refusal(write(f'name="m"\ncompression.pruning=[{{importance="l2", scope="global", ratio={ratio}}}]'))
    assert "compression.pruning[0].ratio is" in message
    assert "more than 0 and less than 1" in message


def test_ratios_that_would_share_a_name_are_refused(write):
    entries = ", ".join(f'{{importance="l2", scope="global", ratio={ratio}}}' for ratio in (0.251, 0.254))
    assert "l2-global-25" in refusal(write(f'name="m"\ncompression.pruning=[{entries}]'))
    assert "rounds to 0" in refusal(
        write('name="m"\ncompression.pruning=[{importance="l2", scope="global", ratio=0.001}]')
    )


def test_several_mistakes_are_told_at_once(write):
    message = refusal(write('name = "m"\n[training]\nbatch = 0\nsteps = 0\n[window]\nsecond = 5'))
    assert len(message.splitlines()) == 3


def test_missing_binary_and_unreadable_files(tmp_path):
    (tmp_path / "identify.toml").write_text('name = "m"')
    assert "Did you mean identify.toml?" in refusal(tmp_path / "identity.toml")
    assert "no recipe" in refusal(tmp_path / "nowhere" / "x.toml")
    (tmp_path / "binary.toml").write_bytes(b"name = \xff\xfe")
    assert "not UTF-8" in refusal(tmp_path / "binary.toml")
    assert "cannot be read" in refusal(tmp_path)
