"""Features to fine-tune on: each once an epoch, in an order of the epoch's own, and the loss of a head."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import XLNetForSequenceClassification

from shoestring.methods.permutation.feature_stream import FeatureBatches, headed
from shoestring.methods.permutation.features import CLASS, FIRST, Choices, Feature, collate
from shoestring.types import Batch

PAD = 0


def features(count: int) -> list[Feature]:
    """Feature n holds the token n + 1, and so many more that lengths differ."""
    return [
        Feature([place + 1] * (1 + place % 3) + [99], [FIRST] * (1 + place % 3) + [CLASS], place)
        for place in range(count)
    ]


def labels(batches: FeatureBatches, count: int) -> list[list[int]]:
    return [batch["labels"].tolist() for batch in islice(batches, count)]


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# by hand


def test_a_batch_is_what_collate_makes_of_its_features() -> None:
    made = features(7)
    for batch in islice(FeatureBatches(made, PAD, 3, 0), 5):
        assert same(batch, collate([made[place] for place in batch["labels"].tolist()], PAD))


def test_a_batch_may_end_one_epoch_and_begin_the_next() -> None:
    drawn = [place for batch in labels(FeatureBatches(features(5), PAD, 3, 0), 10) for place in batch]
    epochs = [drawn[at : at + 5] for at in range(0, 30, 5)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3, "an order of its own"


def test_choices() -> None:
    asked = [Choices((features(3)[place], features(3)[2]), 1) for place in range(3)]
    (batch,) = islice(FeatureBatches(asked, PAD, 2, 0), 1)
    assert batch["input_ids"].shape == (2, 2, 8)
    assert batch["labels"].tolist() == [1, 1]


# property


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**40))
def test_an_epoch_has_each_once(count: int, batch: int, seed: int) -> None:
    batch = min(count, batch)
    drawn = [place for some in labels(FeatureBatches(features(count), PAD, batch, seed), count) for place in some]
    for at in range(0, count * batch, count):
        assert sorted(drawn[at : at + count]) == list(range(count))


@given(st.integers(0, 9), st.integers(0, 2**40))
def test_it_goes_on_where_it_stopped(read: int, seed: int) -> None:
    batches = FeatureBatches(features(7), PAD, 3, seed)
    labels(batches, read)
    state, expected = batches.state_dict(), labels(batches, 6)
    again = FeatureBatches(features(7), PAD, 3, seed)
    again.load_state_dict(state)
    assert labels(again, 6) == expected


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_processes_share_a_batch_in_order(world: int) -> None:
    whole = labels(FeatureBatches(features(8), PAD, 6, 3), 9)
    shares = [labels(FeatureBatches(features(8), PAD, 6, 3, rank, world), 9) for rank in range(world)]
    assert [[place for share in shares for place in share[step]] for step in range(9)] == whole


def test_other_seeds_give_other_orders() -> None:
    assert labels(FeatureBatches(features(20), PAD, 20, 0), 1) != labels(FeatureBatches(features(20), PAD, 20, 1), 1)


# what is refused


@pytest.mark.parametrize(
    ("count", "batch", "world", "said"),
    [
        (3, 4, 1, r"^3 examples in batches of 4 over 1 processes: expected as many examples, and a batch that"),
        (3, 0, 1, r"^3 examples in batches of 0"),
        (9, 4, 3, r"^9 examples in batches of 4 over 3 processes: .* the processes divide$"),
    ],
)
def test_numbers_that_do_not_fit(count: int, batch: int, world: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureBatches(features(count), PAD, batch, 0, 0, world)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch": 2}, {"count": 8}, {"drawn": None}])
def test_a_state_of_others_is_refused(change: dict[str, Any]) -> None:
    others = {"count": 7, "batch": 3, "seed": 0} | change
    state = FeatureBatches(features(others["count"]), PAD, others["batch"], others["seed"]).state_dict()
    if "drawn" in change:
        del state["drawn"]
    with pytest.raises(ValueError, match=r"^the saved batches are of .*, these of .*: resume with the same$"):
        FeatureBatches(features(7), PAD, 3, 0).load_state_dict(state)


# the loss


def test_the_loss_is_the_sum_over_rows(pair: Callable[..., Any]) -> None:
    _, model = pair(XLNetForSequenceClassification, dtype=torch.float32, vocab_size=100, num_labels=8)
    batch = collate(features(8), PAD)
    loss = headed(model, batch)
    expected = 0.0
    for place in range(8):
        row = {name: tensor[place : place + 1] for name, tensor in batch.items() if name != "labels"}
        scores = model(**row).logits[0]
        expected += (scores.logsumexp(0) - scores[batch["labels"][place]]).item()
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert (loss.count, loss.tokens) == (8, 64)
    loss.total.backward()  # type: ignore[no-untyped-call]
    assert model.transformer.word_embedding.weight.grad.abs().sum() > 0
