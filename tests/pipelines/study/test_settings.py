from pathlib import Path

import pytest

import edgewright_pipelines
from edgewright_pipelines.recipe import RecipeError, SplitBy
from edgewright_pipelines.study import plan, settings, store
from edgewright_pipelines.study.published import PUBLISHED

SHIPPED = Path(edgewright_pipelines.__file__).parents[2] / "recipes" / "study.toml"


def test_the_shipped_study_holds_the_published_grid_and_each_line_of_its_table():
    loaded = settings.load(SHIPPED)
    cells = plan.cells(loaded)
    points = {cell.variant for cell in cells if cell.family == "published"}
    assert len(points) == 1 + 4 * 2 * 5  # importances, scopes, ratios, and the whole network
    assert {line.ours.split("/")[1].rsplit("-", 1)[0] for line in PUBLISHED} <= points
    assert len(loaded.study.seeds) >= 3
    assert loaded.recipe("published").data.top_classes == 32
    assert loaded.recipe("ours").data.top_classes is None


def test_the_first_seed_of_everything_comes_first_and_names_are_unique():
    cells = plan.cells(settings.load(SHIPPED))
    assert len({cell.name for cell in cells}) == len(cells)
    seeds = [cell.seed for cell in cells]
    assert seeds == sorted(seeds)
    assert {cell.family for cell in cells if cell.seed == seeds[0]} == {"ours", "published", "trees"}


def test_quick_is_a_handful_of_cells():
    assert len(plan.cells(settings.load(SHIPPED, quick=True))) <= 4


def test_a_cell_by_device_uses_its_fold_and_the_seed_of_the_split_stays():
    loaded = settings.load(SHIPPED)
    cell = next(cell for cell in plan.cells(loaded) if cell.fold == 2 and cell.seed == 3)
    recipe = plan.recipe_of(loaded, cell)
    assert (recipe.split.by, recipe.split.fold, recipe.seed) == (SplitBy.DEVICE, 2, loaded.recipe("ours").seed)


def test_cells_by_device_have_a_recipe_of_their_own_and_the_trees_cells_do_not_hang_on_it(study_file, tmp_path):
    text = (study_file.parent / "tiny.toml").read_text()
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "device.toml").write_text(text.replace("steps = 4", "steps = 9"))
    line = 'recipe = "tiny.toml"'
    study = study_file.read_text().replace("folds = 0", "folds = 3")
    (tmp_path / "one.toml").write_text(study)
    (tmp_path / "two.toml").write_text(study.replace(line, f'{line}\ndevice_recipe = "device.toml"'))
    one, two = (settings.load(tmp_path / name) for name in ("one.toml", "two.toml"))
    changed = {
        cell.name
        for cell in plan.cells(one)
        if store.digest(plan.decided_by(one, cell, "a")) != store.digest(plan.decided_by(two, cell, "a"))
    }
    assert changed == {f"tiny.device{fold}.1.base" for fold in range(3)}
    assert plan.recipe_of(two, next(cell for cell in plan.cells(two) if cell.name in changed)).training.steps == 9


def test_cells_by_device_learn_from_the_windows_of_all_others(study_file, tmp_path):
    text = (study_file.parent / "tiny.toml").read_text()
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "device.toml").write_text(text.replace("seconds = 1024", "seconds = 2048"))
    line = 'recipe = "tiny.toml"'
    (tmp_path / "two.toml").write_text(study_file.read_text().replace(line, f'{line}\ndevice_recipe = "device.toml"'))
    with pytest.raises(RecipeError, match=r"window of device\.toml is not that of tiny\.toml"):
        settings.load(tmp_path / "two.toml")


def test_what_decides_a_cell_decides_its_hash(small):
    one, other = [cell for cell in plan.cells(small) if cell.family == "tiny"]
    assert store.digest(plan.decided_by(small, one, "a")) != store.digest(plan.decided_by(small, one, "b"))
    assert store.digest(plan.decided_by(small, one, "a")) != store.digest(plan.decided_by(small, other, "a"))
    longer = small.recipes[0].training.model_copy(update={"steps": 5})
    changed = small.model_copy(update={"recipes": (small.recipes[0].model_copy(update={"training": longer}),)})
    assert store.digest(plan.decided_by(small, one, "a")) != store.digest(plan.decided_by(changed, one, "a"))
    trees = next(cell for cell in plan.cells(small) if cell.family == plan.TREES)
    assert plan.decided_by(small, trees, "a") == plan.decided_by(changed, trees, "a")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [1]", "seeds = [1, 1]", "seeds names one seed twice"),
        ("folds = 0", "folds = 9", "folds = 9, but the split has 5"),
        ("ratios = [0.5]", "ratios = [1.0]", r"ratios\[0\] is 1.0, which cannot be used. Accepted: a list"),
        ('recipe = "tiny.toml"', 'recipe = "tin.toml"', "Did you mean tiny.toml"),
        ("dynamic = true", 'by_device = ["l1-local-50"]', "no point l1-local-50; it has base, l2-local-50"),
        ("dynamic = true", "dynamik = true", "Did you mean dynamic"),
    ],
)
def test_mistakes_are_sentences(study_file, tmp_path, old, new, said):
    (tmp_path / "tiny.toml").write_text((study_file.parent / "tiny.toml").read_text())
    text = study_file.read_text()
    assert old in text
    (tmp_path / "small.toml").write_text(text.replace(old, new))
    with pytest.raises(RecipeError, match=said):
        settings.load(tmp_path / "small.toml")
