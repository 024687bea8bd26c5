"""The spans that every arm is scored on: where they lie, that they are the same for all, and what a score is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shoestring import config
from shoestring.data.tokens import Tokens
from shoestring.methods.permutation import scoring
from shoestring.methods.permutation.configurations import build, configuration
from shoestring.methods.permutation.recipe_held import APART, CLOZE, JOINT, REMEMBERED, Held, held, scores
from shoestring.methods.permutation.recipe_schema import ARMS, Recipe


def recipe(length: int = 16, reuse: int = 6, longest: int = 3, **changes: Any) -> Recipe:
    told: dict[str, Any] = {
        "model": "xlnet-tiny",
        "text": {"sources": ["a"], "tokenizer": "bytes", "length": length, "reuse": reuse, "predicted": 4, "batch": 2},
        "memory": 4,
        "arms": ["permutation", "masked"],
        "steps": 2,
        "held": {"dev": 3, "test": 4, "longest": longest},
        "seeds": [0],
        "tuning": {"learning_rates": [1e-3]},
    }
    return config.check({**told, **changes}, Recipe, "here")


def counted(count: int) -> Tokens:
    """Tokens whose ids are their own places."""
    ids = np.arange(count, dtype=np.uint32)
    return Tokens(Path("here"), ids, count, text_bytes=count, documents=1, tokenizer="", source="", sha256="0" * 64)


END = 10**6  # the id of the end of a document, where there is none


# by hand


def test_what_stands_before_a_window_is_of_its_document_or_not() -> None:
    found = held(recipe(longest=2), counted(119), 5, 1, end=22)  # the window from 24 has one token of its own before it
    assert found.context[1].tolist() == [4, 1, 4, 4, 4]
    assert held(recipe(longest=2), counted(119), 5, 1, end=23).context[1].tolist() == [4, 0, 4, 4, 4]
    assert held(recipe(longest=2), counted(119), 5, 1, end=24).context[1].tolist() == [4] * 5


def test_windows_are_spread_over_the_text() -> None:
    found = held(recipe(longest=2), counted(119), 5, 1, END)  # ten windows of 16, from 100 places
    assert sorted(found.windows) == sorted(found.places) == [1, 2]
    starts = torch.stack([found.windows[size][:, 0] for size in (1, 2)], 1)
    assert starts.tolist() == [[4, 14], [24, 34], [44, 54], [64, 74], [84, 94]]
    for size in (1, 2):
        assert torch.equal(found.windows[size], starts[:, [size - 1]] + torch.arange(16))
        assert found.places[size].shape == (5, size)
        assert torch.equal(found.before[size], starts[:, [size - 1]] + torch.arange(-4, 0))


def test_places_are_those_of_the_second_part_up_to_its_end() -> None:
    found = held(recipe(), counted(5000), 400, 1, END)
    for size in (1, 2, 3):
        first = found.places[size][:, 0]
        assert set(first.tolist()) == set(range(6, 16 - size + 1)), "from the first to the last that it can be"


def test_a_text_too_short() -> None:
    assert len(held(recipe(longest=2), counted(29), 5, 1, END).windows[1]) == 5
    with pytest.raises(ValueError, match=r"^here: 28 tokens hold no 10 windows: give more text, or score fewer$"):
        held(recipe(longest=2), counted(28), 5, 1, END)
    with pytest.raises(ValueError, match=r"^here: 3 tokens hold no 10 windows"):
        held(recipe(longest=2), counted(3), 5, 1, END)


# property


@given(st.integers(2, 5), st.integers(1, 8), st.integers(0, 300), st.integers(0, 2**32))
def test_held_spans_lie_in_the_second_part_and_no_window_is_taken_twice(
    longest: int, count: int, more: int, seed: int
) -> None:
    text = counted(19 + count * longest + more)
    found = held(recipe(longest=longest), text, count, seed, END)
    starts = [start for size in found.windows for start in found.windows[size][:, 0].tolist()]
    assert len(starts) == len(set(starts)) == count * longest
    for size, places in found.places.items():
        assert torch.equal(places, places[:, :1] + torch.arange(size))
        assert places.min() >= 6
        assert places.max() < 16
        assert found.windows[size].max() < len(text)


def test_all_arms_are_scored_on_the_same_spans() -> None:
    """They hang on the text, the count, the seed and the memory's length, on nothing of an arm."""
    one = held(recipe(), counted(900), 7, 1, END)
    other = held(recipe(bidirectional=False, arms=list(ARMS)), counted(900), 7, 1, END)
    third = held(recipe(), counted(900), 7, 2, END)
    for size in (1, 2, 3):
        assert torch.equal(one.windows[size], other.windows[size])
        assert torch.equal(one.places[size], other.places[size])
    assert not all(torch.equal(one.places[size], third.places[size]) for size in (1, 2, 3))


# scores


@pytest.fixture
def model() -> Any:
    return build(configuration("xlnet-tiny", 120, initializer_range=0.3), 0)


@pytest.fixture
def on() -> Held:
    return held(recipe(), counted(120), 9, 1, END)


@pytest.mark.parametrize(
    ("name", "joint", "apart", "block"),
    [
        ("permutation", scoring.permuted, scoring.independent, 6),
        ("permutation, no memory", scoring.permuted, scoring.independent, None),
        ("permutation, position compensation", scoring.compensated, None, 6),
        ("masked", scoring.masked_in_turn, scoring.masked, None),
        ("masked, memory", scoring.masked_in_turn, scoring.masked, 6),
        ("autoregressive", scoring.causal, None, None),
    ],
)
def test_each_arm_against_a_loop(
    name: str,
    joint: Callable[..., Tensor],
    apart: Callable[..., Tensor] | None,
    block: int | None,
    model: Any,
    on: Held,
) -> None:
    found = scores(model, ARMS[name], recipe(), on)

    def mean(score: Callable[..., Tensor], sizes: tuple[int, ...], remembers: bool = False) -> float:
        told = []
        for size in sizes:
            every = zip(on.windows[size], on.places[size], on.before[size], on.context[size], strict=True)
            for row, at, before, context in every:
                past = None
                if remembers:
                    mems = scoring.memories(model, before[None], 6, score is scoring.causal)
                    past = {"mems": mems, "context": context[None]}
                told.append(-score(model, row[None], at[None], block, past).sum().item())
        return sum(told) / len(told)

    with torch.no_grad():
        assert found[JOINT] == pytest.approx(mean(joint, (2, 3)), rel=1e-5)
        assert found[CLOZE] == pytest.approx(mean(joint, (1,)), rel=1e-5)
        if ARMS[name].memory:
            assert found[REMEMBERED] == pytest.approx(mean(joint, (2, 3), True), rel=1e-5)
            assert abs(found[REMEMBERED] - found[JOINT]) > 1e-4
        else:
            assert REMEMBERED not in found
        if apart is None:
            assert APART not in found
        else:
            assert found[APART] == pytest.approx(mean(apart, (2, 3)), rel=1e-5)
    assert model.training


def test_rows_are_taken_a_few_at_a_time(model: Any) -> None:
    many = held(recipe(), counted(900), 150, 1, END)
    many = Held(
        *({size: rows % 120 for size, rows in some.items()} for some in (many.windows, many.places, many.before)),
        many.context,
    )
    thirds = [
        Held(
            {size: rows[start : start + 50] for size, rows in many.windows.items()},
            {size: places[start : start + 50] for size, places in many.places.items()},
            {size: before[start : start + 50] for size, before in many.before.items()},
            {size: context[start : start + 50] for size, context in many.context.items()},
        )
        for start in (0, 50, 100)
    ]
    found = scores(model, ARMS["permutation"], recipe(), many)
    parts = [scores(model, ARMS["permutation"], recipe(), third) for third in thirds]
    for name, value in found.items():
        assert value == pytest.approx(sum(part[name] for part in parts) / 3, rel=1e-6)


def test_a_model_that_knows_nothing(model: Any, on: Held) -> None:
    torch.nn.init.zeros_(model.lm_loss.weight)
    torch.nn.init.zeros_(model.lm_loss.bias)
    for arm in ARMS.values():
        found = scores(model, arm, recipe(), on)
        assert found[CLOZE] == pytest.approx(np.log(120), rel=1e-6)
        assert found[JOINT] == pytest.approx(2.5 * np.log(120), rel=1e-6)
