"""Which errors are told as one sentence, by kind of work; any other is a bug and keeps its traceback.

remote: MLflow is asked too. Its import takes seconds, so only commands that talk to it name its errors.
"""

Errors = tuple[type[Exception], ...]


def of_releases(*, remote: bool) -> Errors:
    """Finding, reading, verifying and publishing a release."""
    from edgewright_pipelines import release_folder, resolve, scoring, signing_keys

    known: Errors = (
        resolve.ResolveError,
        release_folder.FolderError,
        signing_keys.KeysError,
        scoring.ScoringError,
        OSError,
    )
    if remote:
        from edgewright_pipelines import publish, registry

        known += (registry.RegistryError, publish.PublishError)
    return known


def of_data() -> Errors:
    """Reading traces and cutting windows from them."""
    from edgewright_pipelines import windows
    from edgewright_pipelines.data import location, traces

    return (traces.DataError, location.LocationError, windows.WindowError)


def of_training(*, remote: bool) -> Errors:
    """From a recipe to measured variants and their release."""
    from edgewright_pipelines import handover, prune, quantize, recipe, release, sampling, splits, train

    own = (
        recipe.RecipeError,
        splits.SplitError,
        sampling.SamplingError,
        train.TrainingError,
        prune.PruningError,
        quantize.QuantizationError,
        release.ReleaseError,
        handover.HandoverError,
    )
    return (*own, *of_data(), *of_releases(remote=remote))
