"""The experiment: samplers of skills from one common start at equal steps, the learned ones beside the plain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

from shoestring.cost import Ledger
from shoestring.evaluate.scores import Report
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.recipe_arm import Arm, Outcome, export, follow
from shoestring.methods.mixing.recipe_graph import GIVEN, IDENTITY, LEARNED, check, graphs
from shoestring.methods.mixing.recipe_ground import Ground, prepare
from shoestring.methods.mixing.recipe_notes import Settings, tuned
from shoestring.methods.mixing.recipe_report import report
from shoestring.methods.mixing.recipe_schema import METHODS, Recipe
from shoestring.train.side_by_side import Job, side_by_side

__all__ = ["Recipe", "run"]

GRAPH_OF = {
    "skill-stratified": LEARNED,
    "static": LEARNED,
    "skill-it": LEARNED,
    "skill-it given": GIVEN,
    "skill-it identity": IDENTITY,
}


def run(recipe: Recipe, ledger: Ledger, out: Path, name: str = "recipe") -> Report:
    """Run every sampler from every seed; what is finished in `out` is not redone.

    The learning rate is the twin's best on dev, and everyone's; a sampler's rate is its own best on dev; both at seeds
    that no row is of. Rows are of test, which no choice and no sampler sees. `out`/checkpoint becomes the last model of
    the first sampler that is a method, from the first seed; `out`/graph.json the graph.
    """
    with ledger.phase("prepare"):
        ground = prepare(recipe, len(recipe.samplers) * len(recipe.seeds), ledger, out)
    check(recipe, ground.task())
    settings = Settings()
    settings.learning_rate = _learning_rate(ground, settings, ledger, out)
    settings.graph_cost = graphs(ground, settings.learning_rate, ledger, out)
    settings.rates = _rates(ground, settings, ledger, out)
    first = next(name for name in recipe.samplers if name in METHODS)
    arms = [
        _arm(recipe, sampler, settings.learning_rate, seed, settings.rates.get(sampler), out, "")
        for sampler in recipe.samplers
        for seed in recipe.seeds
    ]
    arms = [replace(arm, kept=(arm.sampler, arm.seed) == (first, recipe.seeds[0])) for arm in arms]
    found = _outcomes(ground, arms, ledger, out)
    learned = Graph.load(out / LEARNED) if (out / LEARNED).exists() else None
    done = report(name, found, settings, learned, ground)
    kept = next(arm for arm in arms if arm.kept)
    if not found[kept.sampler][arms.index(kept) % len(recipe.seeds)].diverged:
        with ledger.phase("export"):
            export(ground, kept, out)
    return done


def _outcomes(ground: Ground, arms: Sequence[Arm], ledger: Ledger, out: Path) -> dict[str, list[Outcome]]:
    """By sampler, in the order of the arms."""
    jobs = [Job(f"{arm.sampler}, seed {arm.seed}", partial(follow, ground, arm, out)) for arm in arms]
    found: dict[str, list[Outcome]] = {}
    for arm, outcome in zip(arms, side_by_side(jobs, ground.workers), strict=True):
        ledger.absorb(outcome.ledger, arm.folder)
        found.setdefault(arm.sampler, []).append(outcome)
    return found


def _learning_rate(ground: Ground, settings: Settings, ledger: Ledger, out: Path) -> float:
    tuning = ground.recipe.tuning
    if len(tuning.learning_rates) == 1:
        return tuning.learning_rates[0]
    arms = [
        _arm(ground.recipe, "stratified", rate, seed, None, out, f"tuning/rate{rate:g}-")
        for rate in tuning.learning_rates
        for seed in tuning.seeds
    ]
    found = _outcomes(ground, arms, ledger, out)["stratified"]
    tried = _means(arms, found, lambda arm: arm.learning_rate)
    if not tried:
        raise ValueError("the twin diverged at every one of tuning.learning_rates: give lower ones")
    settings.tried["learning rate, by the stratified twin"] = tried
    return min(tried, key=tried.__getitem__)


def _rates(ground: Ground, settings: Settings, ledger: Ledger, out: Path) -> dict[str, float]:
    """The rate of each sampler that has one."""
    recipe = ground.recipe
    arms = [
        _arm(recipe, sampler, settings.learning_rate, seed, rate, out, f"tuning/eta{rate:g}-")
        for sampler, rates in recipe.rates.items()
        for rate in rates
        for seed in recipe.tuning.seeds
        if len(rates) > 1
    ]
    found = _outcomes(ground, arms, ledger, out)
    chosen = {sampler: rates[0] for sampler, rates in recipe.rates.items()}
    for sampler, outcomes in found.items():
        tried = _means([arm for arm in arms if arm.sampler == sampler], outcomes, lambda arm: arm.rate or 0.0)
        if tried:
            settings.tried[tuned(sampler)] = tried
            chosen[sampler] = min(tried, key=tried.__getitem__)
        else:
            raise ValueError(f"{sampler} diverged at every one of its rates: give lower ones, or leave it out")
    return chosen


def _means(arms: Sequence[Arm], found: Sequence[Outcome], by: Callable[[Arm], float]) -> dict[float, float]:
    """Mean dev loss by what was tried; what diverged at any seed is left out."""
    tried: dict[float, list[float]] = {}
    lost = {by(arm) for arm, outcome in zip(arms, found, strict=True) if outcome.diverged}
    for arm, outcome in zip(arms, found, strict=True):
        if by(arm) not in lost:
            tried.setdefault(by(arm), []).append(outcome.mean_dev)
    return {value: fmean(losses) for value, losses in tried.items()}


def _arm(
    recipe: Recipe, sampler: str, learning_rate: float, seed: int, rate: float | None, out: Path, before: str
) -> Arm:
    graph = GRAPH_OF.get(sampler)
    folder = f"{before}{sampler.replace(' ', '-')}-seed{seed}"
    return Arm(
        folder, sampler, learning_rate, seed, recipe.steps, rate, graph=None if graph is None else str(out / graph)
    )
