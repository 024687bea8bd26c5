"""What runs stand on: the tokenizer and the packed text, kept; and a run of each arm at its first step."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring import config, runtime
from shoestring.data import tokenizers
from shoestring.data.tokens import Tokens
from shoestring.methods.permutation import recipe_ground
from shoestring.methods.permutation.micro_batches import MicroBatches
from shoestring.methods.permutation.recipe_ground import Ground, configuration, documents, prepare
from shoestring.methods.permutation.recipe_schema import ARMS, Recipe
from shoestring.methods.permutation.vocabulary import Vocabulary
from shoestring.train.loop import train

SMALL = {"n_layer": 1, "d_model": 16, "d_inner": 16}


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cores", lambda: 1)


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """A source of three files."""
    for place, (split, count) in enumerate((("train", 300), ("dev", 60), ("test", 60))):
        lines = (f"{split} {number} is {number % 7}, of {number % (11 + place)}." for number in range(count))
        (tmp_path / f"text_{split}.txt").write_text(" ".join(lines))
    return str(tmp_path / "text_{split}.txt")


@pytest.fixture
def recipe(texts: str) -> Callable[..., Recipe]:
    def make(**changes: Any) -> Recipe:
        text = {"sources": [texts], "tokenizer": "bytes", "length": 24, "reuse": 10, "predicted": 5, "batch": 4}
        told: dict[str, Any] = {
            "model": "xlnet-tiny",
            "changes": SMALL,
            "text": text | changes.pop("text", {}),
            "memory": 8,
            "arms": list(ARMS),
            "steps": 4,
            "held": {"dev": 2, "test": 2, "longest": 2},
            "seeds": [0],
            "tuning": {"learning_rates": [1e-2]},
            "compute": {"precision": "fp32", "workers": 1},
        }
        return config.check({**told, **changes}, Recipe, "here")

    return make


@pytest.fixture
def ground(recipe: Callable[..., Recipe], tmp_path: Path) -> Callable[..., Ground]:
    return lambda **changes: prepare(recipe(**changes), 1, tmp_path / "out")


# by hand


def test_what_is_prepared(ground: Any, recipe: Any, texts: str) -> None:
    found: Ground = ground()
    tokenizer = found.opened_tokenizer()
    assert len(tokenizer) == 257 + 3, "bytes, the end of text, and three special tokens"
    assert (found.workers, found.settled.precision, found.settled.compiled) == (1, "fp32", False)
    assert list(found.data) == [texts]
    for split, path in found.tokens.items():
        tokens = Tokens.load(path, expect=tokenizers.fingerprint(tokenizer))
        text = next(iter(documents(recipe(), split))).text  # type: ignore[arg-type]
        assert text.startswith(f"{split} 0 is 0, of 0.")
        assert bytes(tokens.ids[: len(text)].astype("uint8")).decode() == text
        assert tokens.ids[len(text)] == Vocabulary.of(tokenizer).eos


def test_sources_stand_end_to_end(ground: Any, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n\n".join(f"other {number}" + " text" * 900 for number in range(60)))
    one, other = str(tmp_path / "text_{split}.txt"), str(tmp_path / "more.txt")
    found = ground(text={"sources": [one, other]})
    assert list(found.data) == [one, other]
    ids = bytes(Tokens.load(found.tokens["dev"]).ids.clip(0, 255).astype("uint8"))
    assert ids.startswith(b"dev 0")
    assert b"other" in ids


# again


def test_what_is_there_is_not_made_again(ground: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ground()
    (tmp_path / "out" / "runs").mkdir()

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it is done already")

    monkeypatch.setattr(recipe_ground.tokens, "pack", never)
    monkeypatch.setattr(recipe_ground.vocabulary, "opened", never)
    assert ground() == first


def test_data_that_has_changed_is_refused(ground: Any, tmp_path: Path) -> None:
    ground()
    (tmp_path / "out" / "runs").mkdir()
    (tmp_path / "text_test.txt").write_text("other " * 100)
    with pytest.raises(ValueError, match=r"begun on .*text_\{split\}\.txt .*: give another --out"):
        ground()


def test_before_anything_has_run_another_text_and_tokenizer_may_be_asked_for(ground: Any, tmp_path: Path) -> None:
    """Nothing stale is taken: what was made before is made anew."""
    ground()
    (tmp_path / "text_dev.txt").write_text("quite another text " * 20)
    found = ground(text={"tokenizer": "bpe:270"})
    tokenizer = found.opened_tokenizer()
    assert len(tokenizer) == 270 + 3
    assert tokenizer.decode(Tokens.load(found.tokens["dev"]).ids[:20].tolist()).startswith("quite another")


def test_a_tokenizer_that_was_half_written(ground: Any, tmp_path: Path) -> None:
    (tmp_path / "out" / "tokenizer").mkdir(parents=True)
    (tmp_path / "out" / "tokenizer" / "tokenizer.json").write_text("{")
    assert len(ground().opened_tokenizer()) == 260


def test_tasks_are_read_before_anything_is_computed(ground: Any, tmp_path: Path) -> None:
    rows = [{"text": f"text {place}", "label": "ab"[place % 2]} for place in range(40)]
    paths = [tmp_path / name for name in ("train.jsonl", "test.jsonl")]
    for path in paths:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = {"name": "A", "train": str(paths[0]), "test": str(paths[1])}
    found = ground(fine_tuning={"sets": [one], "batch": 8})
    assert {*map(str, paths)} < set(found.data)
    with paths[1].open("a") as file:
        file.write('{"text": 3.5, "label": "a"}\n')
    with pytest.raises(ValueError, match=r"test\.jsonl:41: text: expected text, got 3\.5"):
        ground(fine_tuning={"sets": [{**one, "limit": 99}], "batch": 8})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": {"length": 5000, "reuse": 100}}, "tokens do not fill 4 rows of 5000"),
        ({"text": {"reuse": 21}}, "which leaves 3 for two segments"),
        ({"text": {"predicted": 23}}, "23 predicted of 24 tokens"),
        ({"text": {"tokenizer": "bpe:99999"}}, "the text yields a BPE vocabulary of"),
        ({"model": "xlnet-smal"}, "no shape is called 'xlnet-smal'"),
        ({"changes": {"layers": 3}}, "XLNetConfig has no field 'layers'"),
    ],
)
def test_what_does_not_fit_the_text_is_told_at_once(changes: dict[str, Any], said: str, ground: Any) -> None:
    with pytest.raises(ValueError) as refused:
        ground(**changes)
    assert said in str(refused.value)


# runs


def test_arms_differ_in_what_they_say_alone(ground: Any, recipe: Any) -> None:
    for name in ARMS:
        arm = recipe().arm(name)
        made = configuration(recipe(), arm, 260)
        assert made.mem_len == (8 if arm.memory else None), name
        assert (made.reuse_len, made.attn_type) == ((None, "uni") if name == "autoregressive" else (10, "bi"))
        assert (made.n_layer, made.d_model, made.vocab_size) == (1, 16, 260)


def test_batches_of_each_arm(ground: Any) -> None:
    found: Ground = ground()
    for name in ARMS:
        arm = found.recipe.arm(name)
        batches = list(islice(found.batches(arm, 0), 3))
        assert batches[0]["input_ids"].shape == (4, 24), name
        assert batches[0]["targets"].shape[1] == (4 if name == "masked" else 5), name
        assert ("token_type_ids" in batches[0]) is (name != "autoregressive")
        context = [batch["context"].max().item() for batch in batches]
        assert context == ([0, 8, 8] if arm.memory else [0, 0, 0]), name
        cut = found.batches(arm, 0).state_dict()
        assert cut["reuse"] == (24 if name == "autoregressive" else 10), "all of a sequence is remembered"
        assert (cut["spans"], cut["bidirectional"]) == ("words" if arm.spans else "single", arm.bidirectional), name
    one, other, third = (
        next(iter(found.batches(found.recipe.arm("permutation"), seed)))["targets"] for seed in (0, 0, 1)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("changes", [{}, {"memory": 0, "bidirectional": False}, {"text": {"segments": "one"}}])
def test_every_arm_takes_its_first_steps(name: str, changes: dict[str, Any], ground: Any) -> None:
    found: Ground = ground(**changes)
    run, learnt = found.run(found.recipe.arm(name), 1e-2, 0)
    weights = {key: weight.detach().clone() for key, weight in run.model.named_parameters()}
    train(run, learnt, until=3, hooks=[learnt.memory])
    assert run.loss == run.loss
    assert len(learnt.memory.slots) == (1 if found.recipe.arm(name).memory else 0)
    for key, weight in run.model.named_parameters():
        # DDP would wait for the gradient of what is not read, so that it must be frozen
        assert weight.requires_grad is not torch.equal(weight, weights[key]), key


def test_a_step_in_parts(ground: Any) -> None:
    found: Ground = ground(compute={"precision": "fp32", "workers": 1, "accumulate": 2})
    run, learnt = found.run(found.recipe.arm("permutation"), 1e-2, 0)
    assert isinstance(run.batches, MicroBatches)
    train(run, learnt, until=2, hooks=[learnt.memory], accumulate=2)
    assert [slot[0].shape for slot in learnt.memory.slots] == [(8, 2, 16)] * 2


def test_runs_of_a_seed_begin_alike(ground: Any) -> None:
    found: Ground = ground()
    arm = found.recipe.arm("permutation")
    one, other, third = (found.run(arm, 1e-2, seed)[0].model.lm_loss.weight for seed in (0, 0, 1))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_checkpointing(ground: Any) -> None:
    found: Ground = ground(compute={"precision": "fp32", "workers": 1, "checkpointing": True})
    plain = replace(found, recipe=found.recipe.model_copy(update={"compute": ground().recipe.compute}))
    losses = []
    for one in (found, plain):
        run, learnt = one.run(one.recipe.arm("permutation"), 1e-2, 0)
        losses.append(train(run, learnt, until=3, hooks=[learnt.memory]).loss)
        assert run.model.transformer.layer[0].gradient_checkpointing is (one is found)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
