"""Span corruption: nothing is lost, nothing is twice, and a stream goes on with the same cuts."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoestring.data import tokenizers
from shoestring.data.batches import TokenBatches
from shoestring.data.tokens import Tokens
from shoestring.methods.rationale import corruption
from shoestring.methods.rationale.corruption import MARKS, Corrupted, corrupted, marks
from shoestring.models import seq2seq
from shoestring.train import optim
from shoestring.train.objectives import sequence_to_sequence
from shoestring.types import Batch

END = 256
IDS = list(range(1000, 1000 + MARKS))


def cut(length: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Of the window 0, 1, 2 …"""
    window: NDArray[np.int64] = np.arange(length)
    source, target = corrupted(window, IDS, 5000, np.random.default_rng(seed))
    return source.tolist(), target.tolist()


def parts(line: list[int]) -> list[list[int]]:
    """What stands between marks, the end left out."""
    assert line[-1] == 5000
    found: list[list[int]] = [[]]
    for token in line[:-1]:
        if token in IDS:
            found.append([])
        else:
            found[-1].append(token)
    return found


# by hand


def test_the_marks_have_t5s_names() -> None:
    assert marks()[0] == "<extra_id_0>"
    assert marks()[-1] == "<extra_id_31>"
    assert len(marks()) == MARKS


def test_spans_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 tokens 10 are cut out, in 3 spans."""
    sizes = iter([[4, 45, 5], [2, 1, 7]])
    monkeypatch.setattr(corruption, "_parts", lambda *_: next(sizes))
    source, target = cut(64)
    assert source == [0, 1, 2, 3, 1000, *range(6, 51), 1001, *range(52, 57), 1002, 5000]
    assert target == [1000, 4, 5, 1001, 51, 1002, *range(57, 64), 5000]


@pytest.mark.parametrize(
    ("length", "noise", "spans"),
    [(4, 1, 1), (10, 2, 1), (20, 3, 1), (30, 4, 1), (64, 10, 3), (128, 19, 6), (512, 77, 26)],
)
def test_how_much_is_cut(length: int, noise: int, spans: int) -> None:
    for seed in range(5):
        source, target = cut(length, seed)
        assert len(source) == length - noise + spans + 1
        assert len(target) == noise + spans + 1


@pytest.mark.parametrize(
    ("length", "marked", "said"),
    [
        (0, 32, r"a window of 0 tokens does not hold 1 spans with 32 marks for them"),
        (3, 32, r"a window of 3 tokens does not hold 1 spans with 32 marks for them"),
        (128, 5, r"a window of 128 tokens does not hold 6 spans with 5 marks for them"),
        (1024, 32, r"a window of 1024 tokens does not hold 51 spans with 32 marks for them"),
    ],
)
def test_windows_that_do_not_fit_are_refused(length: int, marked: int, said: str) -> None:
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match=said):
        corrupted(np.arange(length), IDS[:marked], 5000, random)


# property


@given(st.integers(4, 600), st.integers(0, 2**63))
def test_source_and_target_hold_every_token_once_and_in_order(length: int, seed: int) -> None:
    source, target = cut(length, seed)
    spans = sum(token in IDS for token in source)
    assert [token for token in source if token in IDS] == IDS[:spans] == [token for token in target if token in IDS]
    kept, taken = parts(source), parts(target)
    assert taken[0] == [], "a target begins with a mark"
    assert kept[-1] == [], "a window ends with a span"
    assert all(kept[:-1])
    assert all(taken[1:])
    whole = [token for one, other in zip(kept, taken[1:], strict=False) for token in (*one, *other)]
    assert whole == list(range(length))


@given(st.integers(1, 200), st.data())
def test_parts_make_the_whole(whole: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, whole))
    found = corruption._parts(whole, count, np.random.default_rng(data.draw(st.integers(0, 2**32))))
    assert len(found) == count
    assert sum(found) == whole
    assert min(found) >= 1


def test_every_cut_is_alike_likely() -> None:
    random = np.random.default_rng(0)
    found = [tuple(corruption._parts(5, 3, random)) for _ in range(6000)]
    counts = {one: found.count(one) for one in set(found)}
    assert counts.keys() == {(1, 1, 3), (1, 3, 1), (3, 1, 1), (1, 2, 2), (2, 1, 2), (2, 2, 1)}
    assert all(abs(count - 1000) < 4 * (1000 * 5 / 6) ** 0.5 for count in counts.values())


# as a stream


def stream(corpus: Tokens, seed: int = 0, rows: int = 4) -> Corrupted:
    return Corrupted(TokenBatches(corpus, rows, 32, 0), IDS, END, seed)


def same(one: list[Batch], other: list[Batch]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(all(torch.equal(first[name], second[name]) for name in first) for first, second in pairs)


def test_a_stream_has_one_shape(corpus: Tokens) -> None:
    for made in islice(stream(corpus), 5):
        # 32 tokens, 5 of them noise, in two spans
        assert made["input_ids"].shape == made["attention_mask"].shape == (4, 30)
        assert made["labels"].shape == (4, 8)
        assert made["attention_mask"].min() == 1
        assert (made["input_ids"][:, -1] == END).all()
        assert (made["labels"][:, -1] == END).all()


def test_its_windows_are_those_it_was_given(corpus: Tokens) -> None:
    for made, plain in zip(islice(stream(corpus), 5), TokenBatches(corpus, 4, 32, 0), strict=False):
        for source, target, window in zip(made["input_ids"], made["labels"], plain["input_ids"], strict=True):
            kept, taken = (parts([*line.tolist()[:-1], 5000]) for line in (source, target))
            pairs = zip(kept, taken[1:], strict=False)
            assert [token for one, other in pairs for token in (*one, *other)] == window.tolist()


def test_the_same_seed_gives_the_same_bits(corpus: Tokens) -> None:
    first = list(islice(stream(corpus), 6))
    assert same(first, list(islice(stream(corpus), 6)))
    assert not same(first, list(islice(stream(corpus, seed=1), 6)))
    assert not torch.equal(first[0]["labels"] >= 1000, first[1]["labels"] >= 1000), "each batch is cut anew"


@given(done=st.integers(0, 40))
def test_it_goes_on_bit_for_bit_from_any_step(done: int, corpus: Tokens) -> None:
    whole, again = stream(corpus), stream(corpus)
    walking = iter(whole)
    for _ in range(done):
        next(walking)
    state = whole.state_dict()
    list(islice(again, 3))  # wherever it was
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert same(list(islice(walking, 4)), list(islice(again, 4)))


def test_other_windows_are_refused(corpus: Tokens) -> None:
    state: Any = stream(corpus, rows=2).state_dict()
    found = stream(corpus)
    with pytest.raises(ValueError, match="the saved batches have batch_size 2, these 4"):
        found.load_state_dict(state)


# alone


def test_in_a_bare_loop(corpus: Tokens) -> None:
    tokenizer = tokenizers.byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": marks()})
    ids = [int(tokenizer.convert_tokens_to_ids(mark)) for mark in marks()]
    assert ids == [*range(257, 257 + MARKS)]
    shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
    model = seq2seq.build(seq2seq.configuration("t5-tiny", len(tokenizer), end=END, **shape), 0)
    optimizer, losses = optim.adamw(model, 1e-2), []
    for made in islice(Corrupted(TokenBatches(corpus, 8, 32, 0), ids, END, 0), 40):
        found = sequence_to_sequence(model, made)
        (found.total / found.count).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(found.total.item() / found.count)
    assert losses[-1] < 0.6 * losses[0]
