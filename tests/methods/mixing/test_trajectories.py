"""Losses of samples and their way: on paper, against Hugging Face's own loss, and resumed."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from shoestring.methods.mixing.clusters import cluster, recovery
from shoestring.methods.mixing.embeddings import token_counts
from shoestring.methods.mixing.trajectories import RaggedBatches, Trajectories, padded, sample_losses
from shoestring.models import presets
from shoestring.models.modes import evaluating
from shoestring.types import Run

LETTERS = 16


class Told(nn.Module):
    """A model whose logits say the next token is the one after this, with a certainty of its own."""

    def __init__(self, certainty: float, vocabulary: int = 4) -> None:
        super().__init__()
        self.certainty = nn.Parameter(torch.tensor(certainty))
        self.vocabulary = vocabulary

    def forward(self, input_ids: torch.Tensor, use_cache: bool = True) -> SimpleNamespace:
        after = nn.functional.one_hot((input_ids + 1) % self.vocabulary, self.vocabulary)
        return SimpleNamespace(logits=after * self.certainty)


def tiny(seed: int = 0, vocabulary: int = LETTERS, length: int = LETTERS) -> nn.Module:
    return presets.build(presets.configuration("neox-tiny", vocabulary, length), seed)


def a_run(model: nn.Module, samples: RaggedBatches, rate: float = 3e-3) -> Run:
    return Run(model, torch.optim.AdamW(model.parameters(), rate), samples)


def alike(count: int, seed: int = 0) -> tuple[list[np.ndarray], list[str]]:
    """Three skills of the same letters, each letter once: counting up, pairs of neighbours, and no order at all."""
    generator = np.random.default_rng(seed)
    rows, truth = [], []
    for place in range(count):
        skill = ("up", "pairs", "none")[place % 3]
        if skill == "up":
            row = (np.arange(LETTERS) + generator.integers(LETTERS)) % LETTERS
        elif skill == "pairs":
            row = (2 * generator.permutation(LETTERS // 2)[:, None] + np.arange(2)).reshape(-1)
        else:
            row = generator.permutation(LETTERS)
        rows.append(row)
        truth.append(skill)
    return rows, truth


def test_losses_by_hand():
    right, wrong = (math.log(math.e**2 + 3) - certain for certain in (2, 0))
    batch = {
        "input_ids": torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1], [0, 1, 1, 1]]),
        "labels": torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1], [-100, 1, -100, -100]]),
    }
    losses = sample_losses(Told(2.0), [batch])
    assert losses.dtype == torch.float64
    assert losses.tolist() == pytest.approx([right, (2 * right + wrong) / 3, right])
    without = sample_losses(Told(2.0), [{"input_ids": batch["input_ids"]}])
    assert without.tolist() == pytest.approx([right, (2 * right + wrong) / 3, (right + 2 * wrong) / 3])


def test_losses_are_those_of_hugging_face_one_by_one():
    """Padding, batches and the others beside it are nothing to a sample."""
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, LETTERS, size) for size in (2, 5, 16, 3, 9)]
    model = tiny().eval()
    with torch.no_grad():
        expected = [
            float(model(input_ids=torch.tensor(row)[None], labels=torch.tensor(row)[None]).loss) for row in rows
        ]
    for batch_size in (1, 2, 5, 8):
        losses = sample_losses(model, RaggedBatches(rows, batch_size, 0).in_order())
        assert losses.tolist() == pytest.approx(expected, rel=1e-5)


def test_losses_in_chunks_are_the_same(monkeypatch):
    batches = RaggedBatches(alike(6)[0], 3, 0).in_order()
    whole = sample_losses(tiny(), batches)
    monkeypatch.setattr("shoestring.methods.mixing.trajectories._CHUNK_ELEMENTS", 5 * LETTERS)
    assert torch.equal(sample_losses(tiny(), batches), whole)


def test_the_model_is_left_as_it_was():
    model = tiny().train()
    model.get_input_embeddings().eval()
    sample_losses(model, RaggedBatches(alike(3)[0], 3, 0).in_order())
    assert model.training
    assert not model.get_input_embeddings().training
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(KeyError), evaluating(model):
        raise KeyError
    assert model.training


def test_what_has_no_loss():
    with pytest.raises(ValueError, match="the loss of sample 1 is nan"):
        sample_losses(Spoilt(), [padded([np.array([0, 1])]), padded([np.array([2, 3])])])
    nothing = {"input_ids": torch.tensor([[0, 1]]), "labels": torch.tensor([[0, -100]])}
    with pytest.raises(ValueError, match="sample 1 has no target"):
        sample_losses(Told(1.0), [padded([np.array([0, 1])]), nothing])
    with pytest.raises(ValueError, match="there is no sample"):
        sample_losses(Told(1.0), [])


class Spoilt(Told):
    """Not a number where the sample begins with 2."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def forward(self, input_ids: torch.Tensor, use_cache: bool = True) -> SimpleNamespace:
        logits = super().forward(input_ids).logits
        return SimpleNamespace(logits=torch.where(input_ids[:, :1, None] == 2, math.nan, logits))


def test_the_recorder_stacks_what_it_took():
    batches = [padded([np.array([0, 1, 2]), np.array([2, 2])])]
    taken = Trajectories(batches)
    with pytest.raises(ValueError, match="no loss was taken"):
        _ = taken.losses
    for step, certainty in ((10, 1.0), (20, 2.0), (10, 0.5)):
        model = Told(certainty)
        taken(Run(model, torch.optim.SGD(model.parameters()), RaggedBatches([np.array([0, 1])], 1, 0), step))
    assert taken.steps == [10, 20, 10]
    assert taken.losses.shape == (2, 3)
    assert taken.losses[:, 1].tolist() == sample_losses(Told(2.0), batches).tolist()


def test_the_recorder_goes_on_where_it_was_stopped(tmp_path):
    """Through a checkpoint's own writing and reading."""
    from shoestring.train import state

    batches = [padded([np.array([0, 1, 2]), np.array([2, 2])])]

    def call(taken: Trajectories, certainty: float) -> None:
        model = Told(certainty)
        taken(Run(model, torch.optim.SGD(model.parameters()), RaggedBatches([np.array([0, 1])], 1, 0), 1))

    never, first, second = Trajectories(batches), Trajectories(batches), Trajectories(batches)
    for certainty in (1.0, 2.0, 3.0):
        call(never, certainty)
    call(first, 1.0)
    call(first, 2.0)
    state.write(first.state_dict(), tmp_path / "hook")
    second.load_state_dict(state.read(tmp_path / "hook"))
    call(second, 3.0)
    assert second.steps == never.steps
    assert np.array_equal(second.losses, never.losses)
    with pytest.raises(ValueError, match=r"of \{2\} samples, expected 1"):
        Trajectories([padded([np.array([0, 1])])]).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="torn"):
        second.load_state_dict({**first.state_dict(), "steps": [1]})


def test_the_recorder_names_the_step():
    taken = Trajectories([padded([np.array([2, 3])])])
    model = Spoilt()
    with pytest.raises(ValueError, match="step 7: the loss of sample 0 is nan"):
        taken(Run(model, torch.optim.SGD(model.parameters()), RaggedBatches([np.array([0, 1])], 1, 0), 7))


def test_samples_are_filled_up_at_the_right():
    batch = padded([np.array([5, 6, 7], dtype=np.uint8), np.array([8, 9], dtype=np.uint32)])
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["labels"].tolist() == [[5, 6, 7], [8, 9, -100]]


def test_every_epoch_draws_every_sample_once_in_another_order():
    rows = [np.array([number, number]) for number in range(10)]
    stream = iter(RaggedBatches(rows, 4, 0))
    drawn = [int(row[0]) for _ in range(5) for row in next(stream)["input_ids"]]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert drawn[:10] != drawn[10:]
    assert len(next(iter(RaggedBatches(rows, 25, 0)))["input_ids"]) == 25  # a batch of more than an epoch


def test_the_stream_goes_on_where_it_was_stopped():
    rows = [np.array([number, number]) for number in range(7)]
    stream = RaggedBatches(rows, 3, 1)
    pulled = iter(stream)
    for _ in range(4):
        next(pulled)
    other = RaggedBatches(rows, 3, 1)
    other.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    again = iter(other)
    assert all(torch.equal(next(pulled)["input_ids"], next(again)["input_ids"]) for _ in range(6))
    with pytest.raises(ValueError, match="the saved samples have seed 1, these 2"):
        RaggedBatches(rows, 3, 2).load_state_dict(stream.state_dict())


def test_what_is_no_set_of_samples():
    with pytest.raises(ValueError, match="there is no sample"):
        RaggedBatches([], 1, 0)
    with pytest.raises(ValueError, match="sample 1 has 1 tokens"):
        RaggedBatches([np.array([1, 2]), np.array([1])], 1, 0)
    with pytest.raises(ValueError, match="batch_size 0"):
        RaggedBatches([np.array([1, 2])], 0, 0)


def test_alone_skills_that_look_alike_are_told_apart_by_how_they_are_learned():
    """In a bare loop: the letters are the same in all, so that their counts say nothing; the losses say all."""
    rows, truth = alike(90)
    samples = RaggedBatches(rows, 30, 0)
    model = tiny()
    run = a_run(model, samples)
    taken = Trajectories(samples.in_order())
    for step, batch in zip(range(1, 121), samples, strict=False):
        model(**batch).loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.step = step
        if step % 12 == 0:
            taken(run)
    assert taken.losses.shape == (90, 10)
    assert recovery(cluster(taken.losses, 3, seed=0), truth) > 0.9
    with pytest.raises(ValueError, match="90 samples, 1 of them different"):
        cluster(token_counts(samples.in_order(), LETTERS).numpy(), 3, seed=0)
