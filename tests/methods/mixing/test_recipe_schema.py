"""The recipe: what it refuses, in a sentence that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoestring import config, rooms
from shoestring.methods.mixing.recipe_schema import SAMPLERS, Recipe

SMOKE = rooms.find("mixing").recipe("smoke")
CPU = rooms.find("mixing").recipe("cpu")


def test_smoke_holds_every_sampler_that_it_can() -> None:
    recipe = config.load(SMOKE, Recipe)
    assert recipe.addition is not None
    assert set(recipe.samplers) == set(SAMPLERS) - {"target only", "fixed share"}
    assert recipe.targets == ()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lego={clauses: 3, sizes: [1, 2, 3]}", "expected one of lego, addition and domains"),
        ("addition={digits: 2, sizes: [10]}", "expected one of sizes for each of 2 digits, got 1"),
        ("samplers=[random, skill-it]", "expected samplers with 'stratified', the twin, and a method beside it"),
        ("samplers=[random, stratified]", "and a method beside it"),
        ("samplers=[stratified, skil-it]", "got 'skil-it'; did you mean 'skill-it'?"),
        ("samplers=[stratified, aioli, aioli]", "expected each sampler and each seed once"),
        ("seeds=[100]", "expected seeds that neither tuning nor the graph has"),
        ("steps=13", "divide, got 13"),
        ("methods.skill_it.measurements=5", "divide, got 12"),
        ("warmup_steps=12", "expected warmup_steps below steps=12, got 12"),
        ("methods.aioli.measured=17", "expected methods with measured of at most the dev set, 16, got 17"),
        ("samplers=[stratified, aioli, target only]", "expected domains with a target that is trained on"),
        ("samplers=[stratified, aioli, fixed share]", "expected domains with a target that is trained on"),
        ("tuning.shares=[1.5]", "tuning.shares.0"),
        ("methods.graph.given={}", "expected methods.graph.given"),
        ("compute={processes: 3}", "expected batch that processes=3 divides, got 8"),
        ("compute={processes: 2, workers: 2}", "expected workers=1 with processes=2"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer.betas.1"),
        ("methods.skill_it.ratez=[1.0]", "unknown key 'methods.skill_it.ratez'; did you mean 'rates'?"),
    ],
)
def test_what_cannot_be_is_refused_by_name(override: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        config.load(SMOKE, Recipe, [override])
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("domains.files={a: b}", "expected either text or files"),
        ("domains.out_of_domain=true", "expected a target that is not trained on"),
        ("domains.only=[humor, humor]", "expected each skill once, got humor, humor"),
        ("base={steps: 5}", "expected either look_up or text"),
        ("base.text=text/brown_by_genre.jsonl.gz", "expected a base of other text than the skills'"),
    ],
)
def test_domains_that_cannot_be(override: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        config.load(CPU, Recipe, [override])
    assert said in str(refused.value)


def test_a_target_is_evaluated_and_trained_on_unless_it_is_out_of_domain(tmp_path: Path) -> None:
    told: dict[str, Any] = config.load(CPU, Recipe).model_dump(mode="json")
    told["domains"] |= {"target": ["humor"]}
    assert config.check(told, Recipe, "here").targets == ("humor",)
    told["domains"] |= {"out_of_domain": True}
    assert config.check(told, Recipe, "here").targets == ()
