"""A batch in parts: the same rows in the same part each time, of both directions in each."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data import tokenizers
from shoestring.data.tokens import Tokens
from shoestring.methods.permutation.configurations import build, configuration
from shoestring.methods.permutation.memory import Memory
from shoestring.methods.permutation.micro_batches import MicroBatches
from shoestring.methods.permutation.objectives import Pretraining
from shoestring.methods.permutation.stream import PermutationBatches
from shoestring.methods.permutation.vocabulary import Vocabulary, prepared
from shoestring.train.hooks import Every
from shoestring.train.loop import train
from shoestring.types import Batch, Run


class Counted:
    """Batches of so many rows, each number once."""

    def __init__(self, rows: int) -> None:
        self.rows, self.drawn = rows, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            first = self.rows * self.drawn
            self.drawn += 1
            yield {
                "input_ids": torch.arange(first, first + self.rows)[:, None] * 10 + torch.arange(3),
                "context": torch.arange(first, first + self.rows),
            }

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


def parts(rows: int, count: int, both: bool, batches: int = 1) -> list[list[int]]:
    found = islice(MicroBatches(Counted(rows), count, both), count * batches)
    return [one["context"].tolist() for one in found]


# by hand


def test_one_direction() -> None:
    assert parts(6, 3, both=False, batches=2) == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]


def test_both_directions() -> None:
    assert parts(8, 2, both=True, batches=2) == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_all_of_a_row_goes_together() -> None:
    for batch in islice(MicroBatches(Counted(8), 2, both=True), 4):
        assert torch.equal(batch["input_ids"], batch["context"][:, None] * 10 + torch.arange(3))


# property


@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(1, 3))
def test_each_row_once_and_always_in_the_same_part(each: int, count: int, both: bool, batches: int) -> None:
    rows = each * count * (2 if both else 1)
    found = parts(rows, count, both, batches)
    assert sorted(row for part in found for row in part) == list(range(rows * batches))
    for place, part in enumerate(found):
        assert [row % rows for row in part] == found[place % count]
        backward = [row % rows >= rows // 2 for row in part]
        if both:
            assert backward == [False] * each + [True] * each


def test_saved_after_a_step_it_goes_on_with_the_next_batch() -> None:
    stream = MicroBatches(Counted(4), 2, both=False)
    drawn = iter(stream)
    for _ in range(2):
        next(drawn)
    state = stream.state_dict()
    expected = [one["context"].tolist() for one in islice(drawn, 4)]
    again = MicroBatches(Counted(4), 2, both=False)
    again.load_state_dict(state)
    assert [one["context"].tolist() for one in islice(again, 4)] == expected


@pytest.mark.parametrize("both", [False, True])
def test_a_step_in_parts_is_the_step(both: bool, corpus: Tokens) -> None:
    """With a memory of each part: the losses and the weights are those of whole batches."""
    vocabulary = Vocabulary.of(prepared(tokenizers.byte_tokenizer())[0])
    config = configuration("xlnet-tiny", 260, mem_len=8, reuse_len=8)
    found: list[list[float]] = []
    weights = []
    for count in (1, 2):
        batches = PermutationBatches(corpus, vocabulary, 8, 16, 8, 5, 0, memory=8, bidirectional=both)
        model = build(config, 0)
        run = Run(model, torch.optim.SGD(model.parameters(), 0.1), MicroBatches(batches, count, both))
        learnt = Pretraining("permutation", Memory(config, count), 8, bidirectional=both)
        losses: list[float] = []
        hooks = [learnt.memory, Every(1, lambda run, losses=losses: losses.append(run.loss))]  # type: ignore[misc]
        train(run, learnt, until=4, hooks=hooks, accumulate=count)
        found.append(losses)
        weights.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert torch.allclose(weights[0], weights[1], atol=1e-5)
