"""The recipe: what it holds where nothing is said, and what it refuses, in a sentence that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shoestring import config, rooms
from shoestring.methods.rationale.recipe_schema import ARMS, Columns, DataSet, Recipe

CHAINS = """
chains: {given: 2, derived: 1, train: 9}
model: {names: [t5-tiny]}
arms: [standard, two-task]
steps: 4
batch: 8
evaluate_every: 2
patience: 1
held_out: [3, 4]
seeds: [0]
tuning: {seeds: [100], learning_rates: [0.001]}
"""
SETS = CHAINS.replace("chains: {given: 2, derived: 1, train: 9}", "sets: [{form: cqa, train: a.jsonl}]")


def loaded(text: str, tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return config.load(path, Recipe, overrides)


# by hand


def test_where_nothing_is_said(tmp_path: Path) -> None:
    recipe = loaded(CHAINS, tmp_path)
    assert (recipe.fractions, recipe.base, recipe.lessons.weight, recipe.lessons.mode) == ((1.0,), None, 1.0, "mixed")
    assert (recipe.model.tokenizer, recipe.model.lora, recipe.compute.processes, recipe.sets) == ("bytes", None, 1, ())
    assert recipe.chains is not None
    assert (recipe.chains.error_rate, recipe.chains.samples) == (0.0, 1)
    recipe = loaded(CHAINS, tmp_path, "tuning={learning_rates: [0.001]}")
    assert recipe.tuning.seeds == (1000,)
    recipe = loaded(SETS, tmp_path, "arms=[standard, two-task, informed, 'two-task, human reasons']")
    assert recipe.chains is None
    assert (recipe.sets[0].test, recipe.sets[0].steps) == (None, None)


def test_lambda_is_given_once(tmp_path: Path) -> None:
    assert loaded(CHAINS, tmp_path, "tuning.weights=[0.1, 1.0]").tuning.weights == (0.1, 1.0)
    loaded(CHAINS, tmp_path, "tuning.weights=[0.1, 0.5]", "lessons.weight=0.5")
    with pytest.raises(ValueError, match=r"expected either tuning\.weights or lessons\.weight, which is 0\.5"):
        loaded(CHAINS, tmp_path, "tuning.weights=[0.1]", "lessons.weight=0.5")


def test_every_arm_can_be_asked_for(tmp_path: Path) -> None:
    assert loaded(SETS, tmp_path, f"arms={list(ARMS)}").arms == ARMS


def test_sets_are_called_by_their_form_or_their_file() -> None:
    assert DataSet(form="cqa", train="a.jsonl").name == "cqa"
    assert DataSet(form=Columns(), train="folder/a.jsonl").name == "a.jsonl"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sets=[{form: cqa, train: a}]", "expected either chains or sets"),
        ("chains=null", "expected either chains or sets"),
        ("arms=[standard, two-tasks]", "got 'two-tasks'; did you mean 'two-task'?"),
        ("arms=[standard, distilled]", "expected the arms 'standard', the twin, and 'two-task'"),
        ("arms=[distilled, two-task]", "expected the arms 'standard', the twin, and 'two-task'"),
        ("arms=[standard]", "expected the arms 'standard', the twin, and 'two-task'"),
        ("arms=[standard, two-task, two-task]", "expected each of arms once, got 'two-task' more often"),
        ("seeds=[1, 1]", "expected each of seeds once, got 1"),
        ("seeds=[]", "seeds"),
        ("seeds=[-1]", "seeds.0"),
        ("fractions=[0.5, 0.5]", "expected each of fractions once"),
        ("fractions=[0.0]", "fractions.0"),
        ("fractions=[1.5]", "fractions.0"),
        ("model.names=[t5-tiny, t5-tiny]", "expected each of model.names once"),
        ("model.names=[]", "model.names"),
        ("seeds=[100]", "expected seeds that tuning does not have"),
        ("arms=[standard, two-task, informed]", "got 'informed'"),
        ('arms=[standard, two-task, "two-task, human reasons"]', "got 'two-task, human reasons'"),
        ("chains.given=1", "chains of 1 given and 1 derived letters: expected two given"),
        ("chains.derived=25", "chains of 2 given and 25 derived letters"),
        ("chains.error_rate=1.0", "chains.error_rate"),
        ("chains.samples=0", "chains.samples"),
        ("steps=0", "steps"),
        ("patience=0", "patience"),
        ("held_out=[0, 5]", "held_out.0"),
        ("held_out=[5]", "held_out"),
        ("tuning.learning_rates=[]", "tuning.learning_rates"),
        ("tuning.learning_rates=[0.0]", "tuning.learning_rates.0"),
        ("tuning.learning_rates=[0.1, 0.1]", "expected each of tuning.learning_rates once"),
        ("tuning.weights=[0.5, 0.5]", "expected each of tuning.weights once, got 0.5"),
        ("tuning.weights=[0.0]", "tuning.weights.0"),
        ("lessons.weight=-1.0", "lessons.weight"),
        ("lessons.mode=both", "lessons.mode"),
        ("lessons.tokens=[4, 8]", "lessons.tokens.0"),
        ("lessons.tokens=[64, 1]", "lessons.tokens.1"),
        ("lessons.parts=3", "expected a batch that 1 processes times 3 parts divide, got 8"),
        ("compute={processes: 3}", "expected a batch that 3 processes times 1 parts divide, got 8"),
        ("compute={processes: 2, workers: 2}", "expected workers=1 with processes=2, got 2"),
        ("compute.precision=fp16", "compute.precision"),
        ("model.lora={rank: 0}", "model.lora.rank"),
        ("optimizer.betas=[0.9, 1.5]", "optimizer.betas.1"),
        ("base={text: python, steps: 4}", "base.learning_rate"),
        ("lesons={}", "unknown key 'lesons'; did you mean 'lessons'?"),
        ("lessons.wait=1.0", "unknown key 'lessons.wait'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refused:
        loaded(CHAINS, tmp_path, override)
    assert said in str(refused.value)
    assert "recipe.yaml" in str(refused.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "sets=[{form: cqa, train: a}, {form: cqa, train: b}]",
            "expected each of sets once",
        ),
        ("sets=[{form: cqa}]", "sets.0.train"),
        ("sets=[{form: cqa, train: a, test: b, unlabelled: true}]", "expected dev and test, with gold labels, beside"),
        ("sets=[{form: {columns: []}, train: a}]", "columns"),
        ("sets=[{form: {column: [a]}, train: a}]", "column"),
        ("sets=[{form: cqa, train: a, steps: 0}]", "sets.0.steps"),
        ('sets=[{form: cqa, train: ""}]', "sets.0.train"),
    ],
)
def test_sets_that_cannot_be(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refused:
        loaded(SETS, tmp_path, override)
    assert said in str(refused.value)


# those that come with the room


@pytest.mark.parametrize("name", rooms.find("rationale").recipes)
def test_every_recipe_is_what_it_says_when_written_out(name: str) -> None:
    recipe = config.load(rooms.find("rationale").recipe(name), Recipe)
    assert config.check(yaml.safe_load(config.dump(recipe)), Recipe, name) == recipe
