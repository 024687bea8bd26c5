"""The samplers by name: what each draws from its first batch on, and what it pays for knowing it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from shoestring import config, rooms, runtime
from shoestring.cost import Ledger, flops
from shoestring.data import tokenizers
from shoestring.methods.mixing.aioli import Aioli
from shoestring.methods.mixing.curriculum import Paced, Scheduled
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.mixture_loader import Loader
from shoestring.methods.mixing.recipe_graph import check
from shoestring.methods.mixing.recipe_samplers import Sampler, sampler
from shoestring.methods.mixing.recipe_schema import Recipe
from shoestring.methods.mixing.recipe_tasks import Task, task
from shoestring.methods.mixing.recipe_watch import MIX
from shoestring.methods.mixing.skillit import SkillIt
from shoestring.methods.mixing.trajectories import sample_losses
from shoestring.methods.mixing.weights import first_weights
from shoestring.models import presets
from shoestring.types import Run

RECIPE = config.load(rooms.find("mixing").recipe("smoke"), Recipe)
GRAPH = Graph.of([[1, 0.5], [0, 1]], ["digit 0", "digit 1"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("task") / "tokenizer"
    tokenizers.byte_tokenizer().save_pretrained(folder)
    return task(RECIPE, folder)


@pytest.fixture(scope="module")
def model(made: Task) -> nn.Module:
    runtime.start()
    return presets.build(presets.configuration("neox-tiny", 257, made.length), 0)


def begun(made: Task, model: nn.Module, name: str, recipe: Recipe = RECIPE, **given: object) -> tuple[Sampler, Ledger]:
    ledger = Ledger()
    with ledger.phase("train"):
        found = sampler(recipe, made, name, 0, ledger, model, GRAPH, 0.5, **given)  # type: ignore[arg-type]
        found.hook.begin(Run(model, torch.optim.SGD(model.parameters(), lr=0.1), found.batches))
    return found, ledger


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("random", [2 / 3, 1 / 3]),
        ("stratified", [0.5, 0.5]),
        ("skill-stratified", [0.5, 0.5]),
        ("static", first_weights(GRAPH.edges, 0.5).tolist()),
        ("skill-it", first_weights(GRAPH.edges, 0.5).tolist()),
    ],
)
def test_the_first_weights_of_each(name: str, expected: list[float], made: Task, model: nn.Module) -> None:
    found, ledger = begun(made, model, name)
    assert found.mixture is not None
    # pools of 400 and 200 less what is held out
    assert list(found.mixture.weights.values()) == pytest.approx(expected, abs=0.02 if name == "random" else 1e-12)
    assert found.hook.history[0][1] == pytest.approx(found.mixture.weights)
    assert ledger.total().flops == 0


def test_only_what_helps_is_stratified_over(made: Task, model: nn.Module) -> None:
    apart = replace(made, evaluated=("digit 0",))
    graph = Graph.of([[0.0], [0.0]], ["digit 0", "digit 1"], ["digit 0"])
    found = sampler(RECIPE, apart, "skill-stratified", 0, Ledger(), model, graph)
    assert found.mixture is not None
    assert found.mixture.weights == {"digit 0": 1.0, "digit 1": 0.0}
    target = sampler(RECIPE, apart, "target only", 0, Ledger(), model)
    assert target.mixture is not None
    assert target.mixture.weights == {"digit 0": 1.0, "digit 1": 0.0}
    fixed = sampler(RECIPE, apart, "fixed share", 0, Ledger(), model, None, 0.75)
    assert fixed.mixture is not None
    assert fixed.mixture.weights == {"digit 0": 0.75, "digit 1": 0.25}


def test_a_fixed_share_needs_others_to_draw_from(made: Task) -> None:
    recipe = RECIPE.model_copy(update={"samplers": ("stratified", "fixed share", "skill-it")})
    check(recipe, replace(made, evaluated=("digit 1",)))
    with pytest.raises(ValueError, match="'fixed share' has no others"):
        check(recipe, made)


def test_a_training_for_the_graph_draws_its_shares(made: Task, model: nn.Module) -> None:
    found, _ = begun(made, model, "stratified", shares={"digit 1": 1.0})
    assert found.mixture is not None
    assert found.mixture.weights == {"digit 0": 0.0, "digit 1": 1.0}
    assert found.hook.state_dict() == {}


def test_hooks_are_told_the_recipes_settings(made: Task, model: nn.Module) -> None:
    skill_it, _ = begun(made, model, "skill-it")
    assert isinstance(skill_it.hook, SkillIt)
    assert (skill_it.hook.rate, skill_it.hook.round_steps, skill_it.hook.every) == (0.5, 3, 3)
    aioli, ledger = begun(made, model, "aioli")
    assert isinstance(aioli.hook, Aioli)
    assert (aioli.hook.round_steps, aioli.hook.slice_steps, aioli.hook.delay) == (6, 2, 0)
    assert ledger.phases()[f"train/{MIX}"].flops > 0  # it measures before its first try
    behind = RECIPE.model_copy(update={"compute": RECIPE.compute.model_copy(update={"loaders": 1}), "steps": 24})
    late, _ = begun(made, model, "aioli", behind)
    assert isinstance(late.batches, Loader)
    assert isinstance(late.hook, Aioli)
    assert late.hook.delay == 2


def test_a_curriculum_over_skills_measures_those_that_are_not_evaluated_too(made: Task, model: nn.Module) -> None:
    apart = replace(made, evaluated=("digit 0",), held_out={"dev": {"digit 0": made.held_out["dev"]["digit 0"]}})
    found, ledger = begun(apart, model, "skill-curriculum")
    assert isinstance(found.hook, Scheduled)
    first = found.hook.history[0][1]
    assert sorted(first.values()) == [0.0, 1.0]
    forward = flops.formula(model.config, 8, made.length, backward=False)  # type: ignore[arg-type]
    assert ledger.phases()[f"train/{MIX}"].flops == 2 * forward


@pytest.mark.parametrize("name", ["curriculum", "anti-curriculum"])
def test_curricula_begin_with_what_the_model_finds_easiest_or_hardest(name: str, made: Task, model: nn.Module) -> None:
    found, ledger = begun(made, model, name)
    assert isinstance(found.batches, Paced)
    assert found.mixture is None
    first = next(iter(found.batches))
    every = found.batches.samples
    losses = sample_losses(
        model, [{key: torch.stack([every[place][key] for place in range(len(every))]) for key in first}]
    )
    easy, hard = losses.quantile(1 / 3), losses.quantile(2 / 3)
    drawn = sample_losses(model, [first])
    assert bool((drawn <= easy + 1e-4).all() if name == "curriculum" else (drawn >= hard - 1e-4).all())
    assert ledger.phases()[f"train/{MIX}"].flops > 0
