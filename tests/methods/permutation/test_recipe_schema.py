"""The recipe: what it holds where nothing is said, and what it refuses, in a sentence that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shoestring import config, rooms
from shoestring.methods.permutation.recipe_schema import ARMS, PLAIN, Arm, Recipe, TaskSet, Text

LEAST = """
model: xlnet-tiny
text: {sources: [python], tokenizer: bytes, length: 32, reuse: 16, predicted: 6, batch: 8}
memory: 16
arms: [permutation, masked]
steps: 4
held: {dev: 3, test: 4}
seeds: [0]
tuning: {learning_rates: [0.001]}
"""
SET = "{name: A, train: a.jsonl, test: b.jsonl}"


def loaded(tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(LEAST)
    return config.load(path, Recipe, overrides)


# by hand


def test_where_nothing_is_said(tmp_path: Path) -> None:
    recipe = loaded(tmp_path)
    assert (recipe.changes, recipe.bidirectional, recipe.points, recipe.tuning.seeds) == ({}, True, 4, (1000,))
    assert (recipe.text.spans, recipe.text.segments, recipe.held.longest) == ("words", "two", 5)
    assert (recipe.fine_tuning.sets, recipe.fine_tuning.layer_decay) == ((), 1.0)
    assert (recipe.compute.precision, recipe.compute.accumulate, recipe.compute.workers) == ("auto", 1, None)
    (one,) = loaded(tmp_path, f"fine_tuning.sets=[{SET}]").fine_tuning.sets
    assert (one.columns, one.label, one.limit) == (("text",), "label", None)


def test_fifteen_percent_are_scattered() -> None:
    def scattered(length: int) -> int:
        cut = {"length": length, "reuse": 1, "predicted": 1, "batch": 1, "segments": "one"}
        return Text.model_validate({"sources": ["python"], "tokenizer": "bytes", **cut}).scattered

    assert [scattered(length) for length in (2, 10, 100, 128, 512)] == [1, 2, 15, 19, 77]


def test_every_arm_can_be_asked_for(tmp_path: Path) -> None:
    assert set(loaded(tmp_path, f"arms={list(ARMS)}").arms) == set(ARMS)


def test_what_each_arm_has() -> None:
    assert {name for name, arm in ARMS.items() if not arm.method} == {"masked", "masked, memory", "autoregressive"}
    assert {name for name, arm in ARMS.items() if not arm.memory} == {"masked", "permutation, no memory", PLAIN}
    assert {name for name, arm in ARMS.items() if not arm.spans} == {"masked", "permutation, no spans", PLAIN}
    assert {name for name, arm in ARMS.items() if not arm.bidirectional} == {
        "masked",
        "permutation, one direction",
        "autoregressive",
        PLAIN,
    }
    assert [name for name, arm in ARMS.items() if arm.bert] == ["masked"]


def test_an_arm_goes_without_what_the_recipe_goes_without(tmp_path: Path) -> None:
    assert loaded(tmp_path).arm("permutation") == Arm("permutation", True)
    assert loaded(tmp_path, "memory=0").arm("masked, memory") == Arm("masked", memory=False)
    assert loaded(tmp_path, "bidirectional=false").arm("permutation") == Arm("permutation", True, bidirectional=False)
    assert not loaded(tmp_path).arm("masked").memory


def test_an_odd_batch_with_one_direction(tmp_path: Path) -> None:
    assert loaded(tmp_path, "bidirectional=false", "text.batch=5").text.batch == 5


def test_a_set_can_be_told_from_others() -> None:
    """They are kept by what they say."""
    one, other = (TaskSet(name="A", train="a", test="b", columns=columns) for columns in (("x",), ("x", "y")))
    assert len({one, other, TaskSet(name="A", train="a", test="b", columns=("x",))}) == 2


@given(st.integers(1, 64), st.integers(1, 64))
def test_the_reused_part_is_shorter_than_the_whole(length: int, reuse: int) -> None:
    def made() -> Text:
        return Text(sources=("a",), tokenizer="bytes", length=length, reuse=reuse, predicted=1, batch=1, segments="one")

    if reuse < length:
        assert made().reuse == reuse
    else:
        with pytest.raises(ValueError, match=f"expected a reuse below the length, got {reuse} of {length}"):
            made()


# what cannot be


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arms=[permutation, maskd]", "got 'maskd'; did you mean 'masked'?"),
        ("arms=[permutation]", "expected the arms 'permutation' and 'masked', the twin"),
        ("arms=[masked]", "expected the arms 'permutation' and 'masked', the twin"),
        ('arms=["permutation, no memory", masked]', "expected the arms 'permutation' and 'masked', the twin"),
        ("arms=[permutation, masked, masked]", "expected each of arms once, got 'masked' more often"),
        ("seeds=[1, 1]", "expected each of seeds once, got 1"),
        ("seeds=[]", "seeds"),
        ("seeds=[-1]", "seeds.0"),
        ("seeds=[0, 1000]", "expected seeds that tuning does not have"),
        ("tuning.seeds=[7, 7]", "expected each of tuning.seeds once, got 7"),
        ("tuning.seeds=[]", "tuning.seeds"),
        ("tuning.learning_rates=[]", "tuning.learning_rates"),
        ("tuning.learning_rates=[0.0]", "tuning.learning_rates.0"),
        ("tuning.learning_rates=[0.1, 0.1]", "expected each of tuning.learning_rates once"),
        (f"fine_tuning.sets=[{SET}, {SET}]", "expected each of fine_tuning.sets once, got 'A'"),
        ("fine_tuning.sets=[{name: A, train: a}]", "fine_tuning.sets.0.test"),
        ("fine_tuning.sets=[{name: A, train: a, test: b, columns: []}]", "fine_tuning.sets.0.columns"),
        ("fine_tuning.sets=[{name: A, train: a, test: b, columns: [x, y, z]}]", "fine_tuning.sets.0.columns"),
        ("fine_tuning.sets=[{name: A, train: a, test: b, limit: 0}]", "fine_tuning.sets.0.limit"),
        ("fine_tuning.length=4", "fine_tuning.length"),
        ("fine_tuning.layer_decay=1.5", "fine_tuning.layer_decay"),
        ("text.sources=[]", "text.sources"),
        ("text.reuse=32", "expected a reuse below the length, got 32 of 32"),
        ("text.reuse=28", "28 of 32 tokens are reused, which leaves 4 for two segments"),
        ("text.predicted=32", "expected fewer predicted than the length, got 32 of 32"),
        ("text.spans=letters", "text.spans"),
        ("text.segments=three", "text.segments"),
        ("text.batch=7", "expected a batch that 2 divides, processes times micro-batches times directions, got 7"),
        ("compute.accumulate=3", "expected a batch that 6 divides"),
        ("compute={processes: 3}", "expected a batch that 6 divides"),
        ("compute={processes: 2, workers: 2}", "expected workers=1 with processes=2, got 2"),
        ("optimizer={warmup: 0.6, decay: 0.5}", "expected a warmup and a decay of 1 in all at most, got 0.6 and 0.5"),
        ("compute.precision=fp16", "compute.precision"),
        ("held.longest=16", "expected held.longest below length - reuse, got 16"),
        ("held.longest=1", "held.longest"),
        ("held.test=0", "held.test"),
        ("memory=-1", "memory"),
        ("steps=1", "steps"),
        ("points=0", "points"),
        ("optimizer.warmup=1.0", "optimizer.warmup"),
        ("optimizer.betas=[0.9, 1.5]", "optimizer.betas.1"),
        ("memry=3", "unknown key 'memry'; did you mean 'memory'?"),
        ("text.lenght=3", "unknown key 'text.lenght'; did you mean 'length'?"),
    ],
)
def test_what_cannot_be_is_refused_by_name(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as refused:
        loaded(tmp_path, override)
    assert said in str(refused.value)
    assert "recipe.yaml" in str(refused.value)


# those that come with the room


@pytest.mark.parametrize("name", rooms.find("permutation").recipes)
def test_every_recipe_is_what_it_says_when_written_out(name: str) -> None:
    recipe = config.load(rooms.find("permutation").recipe(name), Recipe)
    assert config.check(yaml.safe_load(config.dump(recipe)), Recipe, name) == recipe
