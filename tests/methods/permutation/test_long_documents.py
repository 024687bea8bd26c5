"""Long documents: against one call, against transformers' memory, row by row, and what gradients reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel, XLNetConfig, XLNetLMHeadModel, XLNetModel

from shoestring.methods.permutation.convert import from_transformers, to_transformers
from shoestring.methods.permutation.features import PADDING
from shoestring.methods.permutation.heads import with_head
from shoestring.methods.permutation.long_documents import reach, remembered

CONFIG = {"vocab_size": 19, "d_model": 16, "n_layer": 3, "n_head": 2, "d_inner": 32, "initializer_range": 0.3}


def classifier(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    body = from_transformers(XLNetLMHeadModel(XLNetConfig(**CONFIG | changes))).double().eval()
    return with_head(body, "classification", ["a", "b", "c"], seed=1)


MODEL = classifier()


def documents(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Random tokens, the second half of them of the second segment, padded at the left."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    batch = {
        "input_ids": torch.randint(19, (len(lengths), width), generator=generator),
        "attention_mask": torch.ones(len(lengths), width, dtype=torch.int64),
        "token_type_ids": torch.zeros(len(lengths), width, dtype=torch.int64),
    }
    for row, length in enumerate(lengths):
        batch["attention_mask"][row, : width - length] = 0
        batch["token_type_ids"][row, width - length // 2 :] = 1
        batch["token_type_ids"][row, : width - length] = PADDING
    return batch


def alone(batch: dict[str, Tensor], row: int) -> dict[str, Tensor]:
    there = batch["attention_mask"][row].bool()
    return {name: tensor[row : row + 1, there] for name, tensor in batch.items()}


@pytest.mark.parametrize("window", [12, 13, 99])
def test_a_document_that_fits_is_one_call(window: int) -> None:
    batch = documents([12, 7])
    labels = torch.tensor([2, 0])
    found = remembered(MODEL, **batch, labels=labels, window=window, memory=4)
    wanted = MODEL(**batch, labels=labels)
    assert torch.equal(found.logits, wanted.logits)
    assert torch.equal(found.loss, wanted.loss)


@pytest.mark.parametrize(("length", "window", "memory"), [(12, 4, 4), (13, 4, 6), (11, 8, 3), (20, 5, 100), (9, 8, 8)])
def test_against_the_memory_of_transformers(length: int, window: int, memory: int) -> None:
    batch = documents([length, length])
    labels = torch.tensor([1, 2])
    found = remembered(MODEL, **batch, labels=labels, window=window, memory=memory)
    config = type(MODEL.config).from_dict({**MODEL.config.to_dict(), "mem_len": memory})
    reference = type(MODEL)(config).double().eval()
    reference.load_state_dict(MODEL.state_dict())
    assert isinstance(reference.transformer, XLNetModel)
    mems, at = None, 0
    for end in [length % window or window, *range((length % window or window) + window, length + 1, window)]:
        part = {name: tensor[:, at:end] for name, tensor in batch.items()}
        wanted = reference(**part, labels=labels, mems=mems, use_mems=True)
        mems, at = wanted.mems, end
    assert at == length
    torch.testing.assert_close(found.logits, wanted.logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.loss, wanted.loss, rtol=0, atol=1e-10)


@given(
    st.lists(st.integers(1, 17), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40)
def test_rows_of_any_lengths_give_what_each_gives_alone(
    lengths: list[int], window: int, memory: int, seed: int
) -> None:
    batch = documents(lengths, seed)
    found = remembered(MODEL, **batch, window=window, memory=memory).logits
    rows = [remembered(MODEL, **alone(batch, row), window=window, memory=memory).logits for row in range(len(lengths))]
    torch.testing.assert_close(found, torch.cat(rows), rtol=0, atol=1e-10)


def test_without_a_mask_nothing_is_padding() -> None:
    batch = documents([11, 11])
    whole = remembered(MODEL, **batch, window=4, memory=4).logits
    del batch["attention_mask"]
    assert torch.equal(remembered(MODEL, **batch, window=4, memory=4).logits, whole)


@pytest.mark.parametrize("own", [{"mem_len": 2, "reuse_len": 1}, {"mem_len": 0}, {"use_mems_train": True}])
def test_what_the_configuration_remembers_does_not_matter(own: dict[str, Any]) -> None:
    model = classifier()
    for name, value in own.items():
        setattr(model.config, name, value)
    batch = documents([14, 9])
    found = remembered(model, **batch, window=4, memory=6).logits
    torch.testing.assert_close(found, remembered(MODEL, **batch, window=4, memory=6).logits, rtol=0, atol=1e-12)


def test_choices_are_read_as_rows() -> None:
    model = with_head(MODEL, "choices", seed=2)
    batch = documents([13, 6, 10, 9])
    rows = {name: tensor.view(2, 2, -1) for name, tensor in batch.items()}
    labels = torch.tensor([0, 1])
    found = remembered(model, **rows, labels=labels, window=4, memory=4)
    each = [
        remembered(model, **{n: t[None] for n, t in alone(batch, row).items()}, window=4, memory=4) for row in range(4)
    ]
    scores = torch.cat([one.logits for one in each]).view(2, 2)
    torch.testing.assert_close(found.logits, scores, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(scores, labels), rtol=0, atol=1e-10)


def test_earlier_windows_are_read_but_get_no_gradient() -> None:
    model = classifier()
    ids = torch.cat([torch.arange(1, 9), torch.arange(10, 14)])[None]  # windows of 4: nothing stands twice
    found = remembered(model, ids, labels=torch.tensor([1]), window=4, memory=8)
    found.loss.backward()
    reached = model.transformer.word_embedding.weight.grad.abs().sum(1) > 0
    assert reached.nonzero().flatten().tolist() == [10, 11, 12, 13]
    changed = ids.clone()
    changed[0, 2] = 17
    other = remembered(model, changed, window=4, memory=8)
    assert (other.logits - found.logits).abs().max() > 1e-6


def test_training_mode_stays_training_mode() -> None:
    model = with_head(MODEL, "classification", ["a", "b"], dropout=0.5).train()
    batch = documents([12])
    torch.manual_seed(0)
    first = remembered(model, **batch, window=4, memory=4).logits
    assert not torch.equal(first, remembered(model, **batch, window=4, memory=4).logits)
    assert model.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "windows of 0 tokens, 4 of memory"),
        ({"memory": 0}, "windows of 4 tokens, 0 of memory"),
        ({"input_ids": torch.arange(9)}, r"input_ids are \(9,\): expected \(rows, tokens\)"),
        ({"token_type_ids": torch.zeros(2, 3, dtype=torch.int64)}, r"token_type_ids is \(2, 3\): expected \(2, 9\)"),
        ({"attention_mask": torch.tensor([[1] * 9, [1] * 8 + [0]])}, "expected padding at the left alone"),
        ({"attention_mask": torch.tensor([[1] * 9, [0] * 9])}, "expected padding at the left alone"),
    ],
)
def test_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    given = {**documents([9, 9]), "window": 4, "memory": 4, **change}
    with pytest.raises(ValueError, match=message):
        remembered(MODEL, **given)


def test_windows_as_the_configuration_says() -> None:
    model, batch = classifier(), documents([9, 7])
    with pytest.raises(ValueError, match="the configuration does not say how long documents are read: give window"):
        remembered(model, **batch)
    model.config.long_documents = {"window": 4, "memory": 6}
    with torch.no_grad():
        found = [remembered(model, **batch).logits, remembered(model, **batch, window=4, memory=6).logits]
        other = remembered(model, **batch, window=3).logits
    assert torch.equal(*found)
    assert not torch.equal(found[0], other)


def test_a_body_of_transformers_is_refused() -> None:
    model = to_transformers(classifier())
    with pytest.raises(ValueError, match="the body of a XLNetForSequenceClassification is not two-stream"):
        remembered(model, **documents([9]), window=4, memory=4)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("window", "memory"), [(4, 4), (4, 2), (4, 6), (3, 7)])
def test_what_lies_beyond_reach_changes_nothing_and_what_lies_within_does(
    layers: int, window: int, memory: int
) -> None:
    model, seen = classifier(n_layer=layers), reach(layers, window, memory)
    assert reach(layers, window, 0) == window
    batch = documents([seen + 5])
    told = remembered(model, **batch, window=window, memory=memory).logits
    for place, reached in ((4, False), (5, True)):
        ids = batch["input_ids"].clone()
        ids[0, place] = (ids[0, place] + 1) % 19
        found = remembered(model, **{**batch, "input_ids": ids}, window=window, memory=memory).logits
        assert torch.equal(found, told) != reached
