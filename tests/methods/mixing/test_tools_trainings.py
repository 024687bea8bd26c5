"""A training and its base: the same bits in any process, what they cost, and a base that goes on when stopped."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from shoestring.cost import Cost
from shoestring.data import tokenizers
from shoestring.methods.mixing import tools_trainings
from shoestring.methods.mixing.tools_skills import Texts, skills
from shoestring.methods.mixing.tools_trainings import Start, Training, base_cost, cost, cost_file

LENGTH = 16


@pytest.fixture
def texts(tmp_path) -> Texts:
    for name, letters in (("a", "abc "), ("b", "xyz ")):
        (tmp_path / f"{name}.txt").write_text("".join(Random(0).choices(letters, k=1600)))
    tokenizers.byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    named = [str(tmp_path / f"{name}.txt") for name in "ab"]
    return Texts(skills(named, "text"), LENGTH, tmp_path / "tokenizer", "text", "stretches")


def based(texts: Texts, out: Path, steps: int = 6) -> Path:
    return Start.of("neox-tiny", steps, 2, None).folder(texts, ("a", "b"), out, lambda what, done, total: None)


def test_a_training_is_the_same_wherever_it_runs(texts, tmp_path):
    training = Training(texts, ("a", "b"), based(texts, tmp_path / "kept"), 4, 2, 1e-2, 8, tmp_path / "kept")
    sent = pickle.loads(pickle.dumps(training))  # noqa: S301
    assert sent == training
    before, after = training({}, 0), training({"a": 1.0}, 0)
    assert sent({"a": 1.0}, 0) == after
    assert training({"a": 1.0}, 1) != after
    assert after["a"] < before["a"]
    assert set(training({"a": 0.5, "b": 0.5}, 0)) == {"a", "b"}


def test_what_it_cost_is_kept(texts, tmp_path):
    training = Training(texts, ("a",), based(texts, tmp_path), 4, 2, 1e-3, 8, tmp_path)
    training({"b": 1.0}, 3)
    spent = cost(cost_file(tmp_path, {"b": 1.0}, 3))
    assert set(spent) == {"train", "evaluate"}
    assert spent["train"].tokens == 4 * 2 * LENGTH
    assert spent["evaluate"].tokens == 0
    assert spent["evaluate"].flops > 0
    assert base_cost(tmp_path)["train"].tokens == 6 * 2 * LENGTH
    assert cost(tmp_path / "none.json") == {}
    assert sum(spent.values(), Cost()).seconds > 0


def test_the_base_goes_on_where_it_was_stopped(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(tools_trainings, "_SAVED", 2)
    monkeypatch.setattr(tools_trainings, "_SAVE_SECONDS", 0.0)
    whole = based(texts, tmp_path / "whole", 9)

    def stop(what: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    base = Start.of("neox-tiny", 9, 2, None)
    with pytest.raises(KeyboardInterrupt):
        base.folder(texts, ("a", "b"), tmp_path / "stopped", stop)
    assert not (tmp_path / "stopped" / "base").exists()
    seen = []
    resumed = base.folder(texts, ("a", "b"), tmp_path / "stopped", lambda what, done, total: seen.append(done))
    assert seen == [5, 6, 7, 8, 9]
    weights = [load_file(folder / "model.safetensors") for folder in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert base_cost(tmp_path / "stopped")["train"].tokens == base_cost(tmp_path / "whole")["train"].tokens
    assert not (resumed.parent / "base-checkpoint").exists()
    assert base.folder(texts, ("a", "b"), tmp_path / "stopped", stop) == resumed  # made once


def test_a_base_of_no_steps_is_as_it_was_drawn(texts, tmp_path):
    drawn = based(texts, tmp_path, 0)
    assert (drawn / "config.json").exists()
    assert base_cost(tmp_path) == {}


def test_rates():
    assert Start.of("neox-tiny", 1, 1, None).learning_rate == 1e-3
    assert Start.of("./model", 1, 1, None).learning_rate == 5e-5
    assert Start.of("./model", 1, 1, 0.1) == replace(Start.of("./model", 1, 1, None), learning_rate=0.1)
