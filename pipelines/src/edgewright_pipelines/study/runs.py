"""The study's work: computes the cells that are missing, one after another, and keeps each as soon as it is done."""

import hashlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgewright_pipelines import base, evaluate, graph_costs, latency, machine, sides, splits, windows
from edgewright_pipelines.compress import Compressor, Kept, Made
from edgewright_pipelines.data.source import Source
from edgewright_pipelines.recipe import Recipe
from edgewright_pipelines.session import probabilities
from edgewright_pipelines.sides import Sides
from edgewright_pipelines.stages import Stages
from edgewright_pipelines.study import baseline, dynamic, plan, tally
from edgewright_pipelines.study.eager import eager_p50
from edgewright_pipelines.study.plan import BASE, TREES, Cell
from edgewright_pipelines.study.settings import Loaded
from edgewright_pipelines.study.store import Store, digest
from edgewright_pipelines.windows import WindowSet

Report = Callable[[str, float], None]
"""What runs, and which fraction of it is done."""

EFFORT = latency.Effort(warmup=30, rounds=20, runs=25)


@dataclass(frozen=True, slots=True)
class Progress:
    """Cells so far: found finished, computed now, and all that there are."""

    found: int
    computed: int
    total: int


def run(
    loaded: Loaded,
    source: Source,
    store: Store,
    stages: Stages,
    report: Report,
    *,
    recompute: bool = False,
    most: int | None = None,
    families: Collection[str] = (),
    effort: latency.Effort = EFFORT,
) -> Progress:
    """Compute every cell that is missing or stale, at most `most`; what was finished before stays if one fails.

    families: names whose cells are computed (`trees` is the baseline's); none for all.

    Raises:
        RecipeError: the study has no family of one of these names.
        SplitError, WindowError, TrainingError, PruningError, QuantizationError, OSError: with a sentence.
    """
    data = source.digest()
    cells = plan.of_families(plan.cells(loaded), families)
    wanted = {cell.name: digest(plan.decided_by(loaded, cell, data)) for cell in cells}
    missing = [cell for cell in cells if recompute or store.read(cell.name, wanted[cell.name]) is None]
    bench = _Bench(loaded, source, data, stages, report, effort)
    for number, cell in enumerate(missing[:most]):
        report(f"cell {cell.name}, {number + 1} of {len(missing)}", number / len(missing))
        store.write(cell.name, wanted[cell.name], bench.computed(cell))
    return Progress(len(cells) - len(missing), len(missing[:most]), len(cells))


@dataclass(slots=True)
class _Bench:
    """Computes cells; keeps the windows of the latest split, because neighbors in the plan share it."""

    loaded: Loaded
    source: Source
    data: str
    stages: Stages
    report: Report
    effort: latency.Effort
    latest: tuple[str, Sides] | None = None

    def computed(self, cell: Cell) -> dict[str, Any]:
        started = time.process_time()  # of one thread: a busy machine does not lengthen it
        recipe = plan.recipe_of(self.loaded, cell)
        cut = self._sides(recipe)
        found = self._trees(cell, cut) if cell.family == TREES else self._network(cell, recipe, cut)
        return {
            "cell": {"family": cell.family, "split": cell.split, "seed": cell.seed, "variant": cell.variant},
            "splitName": cut.split.name,
            "classes": list(cut.split.classes),
            "mostFrequent": list(self._most_frequent(cut)),
            "strong": list(self._strong(cell)),
            "machine": machine.described(),
            "cpuSeconds": round(time.process_time() - started, 1),
            **found,
        }

    def _sides(self, recipe: Recipe) -> Sides:
        key = repr(recipe.model_dump(include={"seed", "data", "split", "window"}))
        if self.latest is None or self.latest[0] != key:
            self.latest = (key, sides.of(recipe, self.source.traces))
        return self.latest[1]

    def _most_frequent(self, cut: Sides) -> tuple[str, ...]:
        days = dict.fromkeys(cut.split.classes, 0)
        for trace in (*cut.split.train, *cut.split.validation, *cut.split.test):
            days[trace.appliance] += 1
        ranked = sorted(days, key=lambda name: (-days[name], name))
        return tuple(sorted(ranked[: self.loaded.study.most_frequent]))

    def _strong(self, cell: Cell) -> tuple[str, ...]:
        return () if cell.fold is None else splits.strong_classes(self.source.traces)

    def _trees(self, cell: Cell, cut: Sides) -> dict[str, Any]:
        settings = self.loaded.study.trees
        length = cut.train.watts.shape[1]
        training = windows.cut(cut.split.train, cut.split.classes, window=length, hop=settings.hop_seconds)
        forest = baseline.fit(training, trees=settings.trees, seed=cell.seed)
        entry = self._scored(cell, cut, forest.probabilities)
        return {"files": {"trees": entry}}

    def _network(self, cell: Cell, recipe: Recipe, cut: Sides) -> dict[str, Any]:
        seeded = recipe.model_copy(update={"seed": cell.seed})
        decided = {"split": recipe.model_dump(mode="json", include={"seed", "split"}), "data": self.data}
        decided |= seeded.model_dump(mode="json", include={"seed", "data", "window", "network", "training"})
        network, _ = base.trained(seeded, cut.split, decided, self.stages, self.report)
        whole = Kept(BASE, network)
        line = Compressor(seeded, cut.split, cut.train, cut.validation, decided, self.stages, self.report)
        kept = whole if cell.point is None else line.pruned(whole, cell.point)
        files = {made.name.removeprefix(f"{kept.name}-"): made for made in line.precisions(kept, whole)}
        onnx = {name: made.onnx for name, made in files.items()}
        if self._family(cell).dynamic:
            onnx["int8-dynamic"] = dynamic.to_int8(onnx["fp32"])
        example = evaluate.example(cut.test)
        timed = latency.measure({"parent": line.fp32(whole).onnx, **onnx}, example, effort=self.effort)
        entries = {name: self._file(cell, cut, model, timed[name], files.get(name)) for name, model in onnx.items()}
        return {
            "files": entries,
            "baseP50Microseconds": round(timed["parent"].p50, 1),
            "baseEagerP50Microseconds": round(eager_p50(network, example), 1),
            "eagerP50Microseconds": round(eager_p50(kept.network, example), 1),
        }

    def _family(self, cell: Cell) -> Any:
        return next(entry for entry in self.loaded.study.families if entry.name == cell.family)

    def _file(self, cell: Cell, cut: Sides, model: bytes, timed: latency.Latency, made: Made | None) -> dict[str, Any]:
        costs = graph_costs.costs(model)
        return {
            "bytes": len(model),
            "sha256": hashlib.sha256(model).hexdigest(),
            "parameters": costs.parameters,
            "macs": costs.macs,
            "p50Microseconds": round(timed.p50, 1),
            "p95Microseconds": round(timed.p95, 1),
            "cpuMicroseconds": None if timed.cpu is None else round(timed.cpu, 1),
            "audit": _audited(made),
            **self._scored(cell, cut, lambda watts: probabilities(model, watts)),
        }

    def _scored(self, cell: Cell, cut: Sides, answer: Callable[[Any], Any]) -> dict[str, Any]:
        """Validation figures, by which variants are chosen, and the one place where a study reads the test side."""
        found: dict[str, Any] = {"validation": _validation(answer(cut.validation.watts), cut.validation)}
        answers = answer(cut.test.watts)
        found["test"] = tally.tally(answers, cut.test).as_json()
        if cell.fold is None:
            among = self._most_frequent(cut)
            found["testMostFrequent"] = tally.tally(answers, cut.test, among=among).as_json()
        else:
            mask = windows.strong(cut.test, self._strong(cell))
            found["testStrong"] = tally.tally(answers, cut.test, mask=mask).as_json()
        return found


def _validation(answers: Any, held: WindowSet) -> Mapping[str, float]:
    from edgewright_pipelines.scores import score

    found = asdict(score(answers, held))
    return {name: round(found[name], 5) for name in ("macro_f1", "macro_f1_by_day", "accuracy", "bce")}


def _audited(made: Made | None) -> dict[str, Any] | None:
    return None if made is None else made.facts.as_json()
