"""A study of three cells on made-up days: trees, one network, and the same pruned to half."""

import pytest

from edgewright_pipelines.data import synthetic
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.study import settings

NETWORK = """
name = "tiny"
seed = 1
data = {min_days = 6}
window = {seconds = 1024, hop_seconds = 1024}
network = {kind = "study-cnn", channels = [8, 8], kernels = [3, 3], pool = 4, hidden = 16}
training = {steps = 4, batch = 8}
compression = {round_to = 4, finetune_steps = 2}
"""

STUDY = """
name = "small"
seeds = [1]
folds = 0
most_frequent = 2
resamples = 20
trees = {trees = 5, hop_seconds = 4096}

[[families]]
name = "tiny"
recipe = "tiny.toml"
dynamic = true
grid = {importances = ["l2"], scopes = ["local"], ratios = [0.5]}
"""


@pytest.fixture(scope="session")
def study_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tiny.toml").write_text(NETWORK)
    (folder / "small.toml").write_text(STUDY)
    return folder / "small.toml"


@pytest.fixture(scope="session")
def small(study_file) -> settings.Loaded:
    return settings.load(study_file)


@pytest.fixture(scope="session")
def made_up() -> Source:
    return Source(synthetic.generate(seed=1, devices=3, days=4), synthetic=True)
