"""The memory: what it holds of each micro-batch, on disk and back, and a run that goes on with it bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shoestring.data import tokenizers
from shoestring.data.tokens import Tokens
from shoestring.methods.permutation.configurations import build, configuration
from shoestring.methods.permutation.memory import Memory
from shoestring.methods.permutation.objectives import Kind, Pretraining
from shoestring.methods.permutation.stream import PermutationBatches
from shoestring.methods.permutation.vocabulary import Vocabulary, prepared
from shoestring.train import checkpoint, optim, state
from shoestring.train.hooks import Every
from shoestring.train.loop import train
from shoestring.types import Run, Stateful

LENGTH, REUSE, M = 16, 8, 12


class Sized:
    n_layer, d_model, mem_len, reuse_len = 2, 3, 4, 2


class Nothing:
    n_layer, d_model, mem_len, reuse_len = 2, 3, None, None


def rows(count: int) -> Tensor:
    return torch.zeros(count, 5, dtype=torch.int64)


def states(value: float, count: int = 2) -> list[Tensor]:
    return [torch.full((4, count, 3), value + layer) for layer in range(2)]


# by hand


def test_it_begins_with_zeros_of_its_whole_length() -> None:
    memory = Memory(Sized())
    assert memory.length == 4
    found = memory.before(rows(2))
    assert [layer.shape for layer in found] == [(4, 2, 3)] * 2
    assert not any(layer.any() for layer in found)
    assert Memory(Nothing()).length == 0


def test_each_micro_batch_of_a_step_finds_its_own() -> None:
    memory = Memory(Sized(), parts=2)
    for step in range(3):
        for part in range(2):
            found = memory.before(rows(2))
            expected = states(10 * step - 10 + part) if step else [torch.zeros(4, 2, 3)] * 2
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)), (step, part)
            memory.keep(states(10 * step + part))
    assert len(memory.slots) == 2


def test_a_step_that_broke_off_is_forgotten() -> None:
    memory = Memory(Sized(), parts=2)
    memory.keep(states(1))
    memory(None)
    assert torch.equal(memory.before(rows(2))[0], states(1)[0])


def test_what_it_gives_is_not_used_up_by_looking() -> None:
    memory = Memory(Sized())
    memory.keep(states(1))
    memory(None)
    for _ in range(2):
        assert torch.equal(memory.before(rows(2))[0], states(1)[0])


@given(st.lists(st.floats(-5, 5, width=32), min_size=0, max_size=4))
def test_on_disk_and_back(values: list[float]) -> None:
    memory, again = Memory(Sized(), parts=9), Memory(Sized(), parts=9)
    for value in values:
        memory.keep(states(value))
    again.keep(states(99))
    again.load_state_dict(memory.state_dict())
    assert again.turn == 0
    assert len(again.slots) == len(values)
    for mine, other in zip(again.slots, memory.slots, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(mine, other, strict=True))
    again.keep(states(7))
    assert len(memory.slots) == len(values), "the copy is one's own"


def test_a_file_holds_it(tmp_path: Path) -> None:
    memory = Memory(Sized(), parts=2)
    assert isinstance(memory, Stateful)
    memory.keep(states(3))
    memory.keep(states(4))
    state.write(memory.state_dict(), tmp_path / "memory")
    again = Memory(Sized())
    again.load_state_dict(state.read(tmp_path / "memory"))
    assert torch.equal(again.slots[1][1], states(4)[1])


# in a run


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of(prepared(tokenizers.byte_tokenizer())[0])


@pytest.fixture
def begun(corpus: Tokens, vocabulary: Vocabulary) -> Callable[..., tuple[Run, Pretraining]]:
    """A run at its start: begun(kind, batch=4, memory=M, both=False, parts=1)."""

    def make(
        kind: Kind, batch: int = 4, memory: int = M, both: bool = False, parts: int = 1
    ) -> tuple[Run, Pretraining]:
        torch.manual_seed(0)
        config = configuration("xlnet-tiny", 260, n_layer=2, mem_len=memory or None, reuse_len=REUSE)
        model = build(config, 0)
        batches = PermutationBatches(corpus, vocabulary, batch, LENGTH, REUSE, 5, 0, memory=memory, bidirectional=both)
        return Run(model, optim.adamw(model, 1e-2), batches), Pretraining(kind, Memory(config, parts), REUSE, both)

    return make


KINDS: list[Kind] = ["permutation", "mpnet", "masked", "autoregressive"]


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_it_is_the_same_bit_for_bit(kind: Kind, begun: Any, tmp_path: Path) -> None:
    run, learnt = begun(kind, parts=2)
    losses: list[float] = []
    hooks = [learnt.memory, Every(1, lambda run: losses.append(run.loss))]
    train(run, learnt, until=6, hooks=hooks, accumulate=2)

    half, first = begun(kind, parts=2)
    train(half, first, until=3, hooks=[first.memory], accumulate=2)
    saved = checkpoint.save(tmp_path, half, hooks=[first.memory])
    again, second = begun(kind, parts=2)
    torch.manual_seed(5)  # as another process would be
    checkpoint.load(saved, again, hooks=[second.memory])
    assert len(second.memory.slots) == 2
    later: list[float] = []
    train(again, second, until=6, hooks=[second.memory, Every(1, lambda run: later.append(run.loss))], accumulate=2)
    assert later == losses[3:]
    for one, two in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
    for mine, other in zip(second.memory.slots, learnt.memory.slots, strict=True):
        assert all(torch.equal(one, two) for one, two in zip(mine, other, strict=True))


def test_a_memory_that_was_forgotten_is_missed(begun: Any, tmp_path: Path) -> None:
    """That the run above is the same is no wonder of weights alone."""
    run, learnt = begun("permutation")
    train(run, learnt, until=3, hooks=[learnt.memory])
    saved = checkpoint.save(tmp_path, run, hooks=[learnt.memory])
    losses = []
    for hooks in (True, False):
        again, second = begun("permutation")
        checkpoint.load(saved, again, hooks=[second.memory] if hooks else None)
        losses.append(train(again, second, until=4, hooks=[second.memory]).loss)
    assert losses[0] == train(run, learnt, until=4, hooks=[learnt.memory]).loss
    assert losses[0] != losses[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_other_rows_is_refused(kind: Kind, begun: Any) -> None:
    run, learnt = begun(kind)
    train(run, learnt, until=1, hooks=[learnt.memory])
    other, _ = begun(kind, batch=2)
    run.batches = other.batches
    said = r"^the memory is of 4 rows and the batch has 2: go on with as many rows, processes and micro-batches"
    with pytest.raises(ValueError, match=said):
        train(run, learnt, until=2, hooks=[learnt.memory])


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_learns_with_it(kind: Kind, both: bool, begun: Any) -> None:
    run, learnt = begun(kind, both=both)
    losses: list[float] = []
    train(run, learnt, until=30, hooks=[learnt.memory, Every(1, lambda run: losses.append(run.loss))])
    assert sum(losses[-5:]) / 5 < losses[0] - 1
    (slot,) = learnt.memory.slots
    assert [layer.shape for layer in slot] == [(M, 4, 32)] * 2


def test_a_gradient_does_not_reach_the_step_before(begun: Any) -> None:
    run, learnt = begun("permutation")
    batches = iter(run.batches)
    learnt(run.model, next(batches))
    assert not any(layer.requires_grad for layer in learnt.memory.slots[0])
    learnt(run.model, next(batches)).total.backward()  # else it would go through a graph that is freed
    learnt(run.model, next(batches)).total.backward()
