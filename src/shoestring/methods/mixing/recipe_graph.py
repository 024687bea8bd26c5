"""The experiment's graph: learned from short trainings that are runs like all others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn

from shoestring import runtime
from shoestring.cost import Cost, Ledger
from shoestring.data import tokenizers
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.learn import Plan, learn_graph
from shoestring.methods.mixing.picture import draw
from shoestring.methods.mixing.recipe_arm import Arm, Outcome, follow
from shoestring.methods.mixing.recipe_ground import Ground
from shoestring.methods.mixing.recipe_samplers import PREFETCH, aioli_of
from shoestring.methods.mixing.recipe_schema import FOLLOWERS, Recipe
from shoestring.methods.mixing.recipe_tasks import Task
from shoestring.methods.mixing.trainings import key_of
from shoestring.train.side_by_side import Job, side_by_side

LEARNED, GIVEN, IDENTITY = "graph.json", "graph-given.json", "graph-identity.json"


def graphs(ground: Ground, learning_rate: float, ledger: Ledger, out: Path) -> Cost:
    """Leave the graphs that the samplers follow in `out`; returns what learning one took.

    The learned one is `graph.json`, with a picture beside it.
    """
    recipe, task = ground.recipe, ground.task()
    chosen, tokenizer = recipe.methods.graph, tokenizers.fingerprint(ground.opened_tokenizer())
    data = json.dumps(ground.data, sort_keys=True) if ground.data else ""
    if "skill-it identity" in recipe.samplers:
        _keep(Graph.identity(task.skills, task.evaluated), out / IDENTITY)
    if "skill-it given" in recipe.samplers:
        _keep(_given(task.skills, task.evaluated, chosen.given), out / GIVEN)
    if not {*FOLLOWERS} & set(recipe.samplers):
        return Cost()
    plan = Plan(task.skills, task.evaluated, chosen.how)
    arms = [
        Arm(
            f"graph/{number}-seed{seed}", "stratified", learning_rate, seed, chosen.steps if shares else 0, None, shares
        )
        for seed in chosen.seeds
        for number, shares in enumerate(plan.mixtures())
    ]
    jobs = [Job(f"graph {arm.folder.removeprefix('graph/')}", partial(follow, ground, arm, out)) for arm in arms]
    outcomes: list[Outcome] = side_by_side(jobs, ground.workers)
    found = {(key_of(arm.shares or {}), arm.seed): outcome for arm, outcome in zip(arms, outcomes, strict=True)}
    cost = Cost()
    for arm, outcome in zip(arms, outcomes, strict=True):
        if outcome.diverged:
            raise ValueError(f"a training for the graph diverged ({outcome.diverged}): lower tuning.learning_rates")
        ledger.absorb(outcome.ledger, arm.folder)
        cost = cost + sum((Cost(**amounts) for amounts in outcome.ledger.values()), Cost())

    def measure(shares: Mapping[str, float], seed: int) -> Mapping[str, float]:
        return found[key_of(shares), seed].dev

    graph = learn_graph(
        measure,
        task.skills,
        task.evaluated,
        how=chosen.how,
        seeds=chosen.seeds,
        value=chosen.value,
        identity=f"{recipe.model.name}, {chosen.steps} steps of {recipe.batch} samples at {learning_rate:g}",
        tokenizer=tokenizer,
        data=data,
    )
    _keep(graph, out / LEARNED, out / "graph.svg")
    return cost


def check(recipe: Recipe, task: Task) -> None:
    """Refuse what would fail after others have been paid for: a graph that cannot be learned, edges that are not there,
    an Aioli that cannot be."""
    Plan(task.skills, task.evaluated, recipe.methods.graph.how)
    _given(task.skills, task.evaluated, recipe.methods.graph.given)
    if "fixed share" in recipe.samplers and len(task.skills) == len(task.evaluated):
        raise ValueError("domains.target names every skill: the sampler 'fixed share' has no others to draw from")
    if "aioli" in recipe.samplers:
        late = PREFETCH * recipe.compute.loaders
        try:
            aioli_of(recipe, task, _Unread(), _nothing, recipe.methods.aioli.rates[0], 0, late)
        except ValueError as error:
            raise ValueError(f"methods.aioli: {error}") from None


def _nothing(model: nn.Module) -> Mapping[str, float]:
    return {}


class _Unread:
    def set_weights(self, weights: Mapping[str, float]) -> None: ...


def _keep(graph: Graph, path: Path, picture: Path | None = None) -> None:
    """Write a graph from the first process; the others wait until it is there."""
    here = runtime.current()
    if here.rank == 0:
        graph.save(path)
        if picture is not None:
            draw(graph, picture)
    here.accelerator.wait_for_everyone()


def _given(skills: tuple[str, ...], evaluated: tuple[str, ...], edges: Mapping[str, Mapping[str, float]]) -> Graph:
    graph = Graph.identity(skills, evaluated)
    matrix = torch.clone(graph.edges)
    for skill, row in edges.items():
        for name, value in row.items():
            if skill not in skills or name not in evaluated:
                raise ValueError(
                    f"methods.graph.given: no edge from {skill!r} to {name!r}: expected {', '.join(skills)}"
                )
            matrix[skills.index(skill), evaluated.index(name)] = value
    return Graph.of(matrix, skills, evaluated)
