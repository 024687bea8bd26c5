"""The experiment's samplers: by name, the stream a run is drawn from and the hook that re-weighs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.methods.mixing.aioli import Aioli
from shoestring.methods.mixing.curriculum import Paced, Scheduled, skill_curriculum
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.recipe_schema import Recipe
from shoestring.methods.mixing.recipe_tasks import Task
from shoestring.methods.mixing.recipe_watch import MIX, Controls, forward_flops
from shoestring.methods.mixing.rounds import Evaluate, Weighed, by_name
from shoestring.methods.mixing.skillit import SkillIt, Switches
from shoestring.methods.mixing.trajectories import sample_losses
from shoestring.methods.mixing.weights import by_size, first_weights, relevant
from shoestring.types import Batch, Batches, Run

PREFETCH = 2  # batches that each loader makes ahead


class Reweigh(Protocol):
    """A hook that sets weights, and tells which it set when."""

    history: list[tuple[int, dict[str, float]]]

    def begin(self, run: Run) -> None: ...

    def __call__(self, run: Run) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Sampler:
    """What a run is drawn from. mixture: the stream where it is one of named sources, whose counts are told."""

    batches: Batches
    hook: Reweigh
    mixture: Mixture | None


class Still:
    """Weights that never change, told as the others'."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.history: list[tuple[int, dict[str, float]]] = [(0, dict(weights))]

    def begin(self, run: Run) -> None: ...

    def __call__(self, run: Run) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def sampler(
    recipe: Recipe,
    task: Task,
    name: str,
    seed: int,
    ledger: Ledger,
    model: torch.nn.Module,
    graph: Graph | None = None,
    rate: float | None = None,
    shares: Mapping[str, float] | None = None,
) -> Sampler:
    """The stream and the hook of a sampler's name.

    model   before its first step: what curricula sort by
    graph   of the samplers that follow one; rate: eta, or the share, of those that have one
    shares  fixed weights instead, for the trainings that a graph is learned from
    """
    if name in ("curriculum", "anti-curriculum"):
        return _paced(recipe, task, name, seed, ledger, model)
    still = _still(task, name, graph, rate, shares)
    mixture = _mixture(recipe, task, seed, still)
    batches = mixture.loader(recipe.compute.loaders, PREFETCH) if recipe.compute.loaders else mixture
    hook = Still(still) if still is not None else _moving(recipe, task, name, seed, ledger, model, mixture, graph, rate)
    return Sampler(batches, hook, mixture)


def _still(
    task: Task, name: str, graph: Graph | None, rate: float | None, shares: Mapping[str, float] | None
) -> dict[str, float] | None:
    """Weights that stand; None for samplers that move them."""
    if shares:
        return {skill: shares.get(skill, 0.0) for skill in task.skills}
    if name == "random":
        return by_name(task.skills, by_size([task.sizes[skill] for skill in task.skills]))
    if name == "stratified":
        return {skill: 1 / len(task.skills) for skill in task.skills}
    if name == "target only":
        return {skill: (skill in task.evaluated) / len(task.evaluated) for skill in task.skills}
    if name == "fixed share":
        assert rate is not None
        target, other = rate / len(task.evaluated), (1 - rate) / (len(task.skills) - len(task.evaluated))
        return {skill: target if skill in task.evaluated else other for skill in task.skills}
    if name == "skill-stratified":
        assert graph is not None
        evaluated = [place for place, skill in enumerate(task.skills) if skill in task.evaluated]
        return by_name(task.skills, relevant(graph.edges, evaluated))
    if name == "static":
        assert graph is not None
        assert rate is not None
        return by_name(task.skills, first_weights(graph.edges, rate))
    return None


def _moving(
    recipe: Recipe,
    task: Task,
    name: str,
    seed: int,
    ledger: Ledger,
    model: torch.nn.Module,
    mixture: Mixture,
    graph: Graph | None,
    rate: float | None,
) -> Reweigh:
    methods = recipe.methods
    measured = methods.aioli.measured if name == "aioli" else methods.skill_it.measured
    evaluate = Controls.of_dev(task, measured, ledger)
    if name == "skill-curriculum":
        unseen = Controls.of_pools(task, measured, ledger)  # of skills that are trained on but not evaluated
        losses = evaluate(model) | (unseen(model) if unseen.held_out else {})
        order = {skill: losses[skill] for skill in task.skills}
        return Scheduled(mixture, skill_curriculum(order, recipe.steps, methods.curriculum.mixing))
    assert rate is not None
    if name == "aioli":
        return aioli_of(recipe, task, mixture, evaluate, rate, seed, mixture.delay)
    assert graph is not None
    settings = methods.skill_it
    round_steps = recipe.steps // settings.rounds
    return SkillIt(
        mixture,
        graph,
        evaluate,
        rate=rate,
        round_steps=round_steps,
        until=recipe.steps,
        window=settings.window,
        measured_every=round_steps // settings.measurements,
        fall_back=False,  # what the method does is measured; the report says what the graph is good for
        switches=Switches(normalize_loss=settings.normalize_loss),
    )


def aioli_of(
    recipe: Recipe, task: Task, mixture: Weighed, evaluate: Evaluate, rate: float, seed: int, delay: int
) -> Aioli:
    """The Aioli of a recipe. Raises ValueError where its settings do not fit the task."""
    chosen = recipe.methods.aioli
    return Aioli(
        mixture,
        task.skills,
        evaluate,
        evaluated=task.evaluated,
        rate=rate,
        round_steps=recipe.steps // chosen.rounds,
        until=recipe.steps,
        sweeps=chosen.sweeps,
        slice_steps=chosen.slice_steps,
        one_hot=chosen.one_hot,
        ema=chosen.ema,
        seed=seed,
        delay=delay,
    )


def _mixture(recipe: Recipe, task: Task, seed: int, weights: Mapping[str, float] | None) -> Mixture:
    here = runtime.current()
    return Mixture(task.pools, weights, batch_size=recipe.batch, seed=seed, rank=here.rank, world=here.processes)


def _paced(recipe: Recipe, task: Task, name: str, seed: int, ledger: Ledger, model: torch.nn.Module) -> Sampler:
    """As many samples as the run takes, drawn by size, in the order of what the untrained model loses on them."""
    random = by_name(task.skills, by_size([task.sizes[skill] for skill in task.skills]))
    drawn = iter(Mixture(task.pools, random, batch_size=recipe.batch, seed=seed))
    blocks: list[Batch] = [next(drawn) for _ in range(recipe.steps)]
    with ledger.phase(MIX), runtime.current().autocast():
        here = runtime.current()
        ledger.charge(flops=here.processes * sum(forward_flops(model, block) for block in blocks))
        difficulty = sample_losses(model, blocks)
    if here.processes > 1:  # the order is the first process's, to the last bit
        difficulty = torch.tensor(here.sum(*(difficulty * (here.rank == 0)).tolist()), dtype=torch.float64)
    places = torch.argsort(difficulty, descending=name == "anti-curriculum", stable=True).tolist()
    samples = _Rows({key: torch.cat([block[key] for block in blocks]) for key in blocks[0]})
    rounds = recipe.methods.curriculum.rounds
    paced = Paced(samples, places, recipe.batch, recipe.steps, rounds, seed, here.rank, here.processes)
    return Sampler(paced, Still(random), None)


class _Rows:
    """The rows of a batch, by place."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["input_ids"])

    def __getitem__(self, place: int) -> Batch:
        return {name: tensor[place] for name, tensor in self.batch.items()}
