"""Spans: by hand, against a slow way, and what holds whatever is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoestring.methods.permutation.spans import check_spans, draw, draw_spans, draw_tokens

Row = NDArray[np.bool_]


class Told:
    """A generator whose spans a test names, as pairs (how long, where), and whose single tokens come in order."""

    def __init__(self, *pairs: tuple[float, float]) -> None:
        self.pairs = np.array([*pairs, *[(0.0, 0.0)] * (32 - len(pairs))])

    def random(self, size: int | tuple[int, int]) -> NDArray[np.float64]:
        return self.pairs if isinstance(size, tuple) else np.arange(size, dtype=float)


def told(*pairs: tuple[float, float]) -> Any:
    """It passes for a generator."""
    return Told(*pairs)


def row(letters: str, ones: str) -> Row:
    return np.array([letter in ones for letter in letters], dtype=bool)


def spans(chosen: Row) -> list[tuple[int, int]]:
    """The runs of chosen tokens: where each starts and ends."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


LINE = "Aabb" * 30  # a word of four tokens, from each A
STARTS = row(LINE, "A")
ALL = np.ones(120, dtype=bool)


def test_whole_words_by_hand() -> None:
    # of 1/n, 0.5 is two: two words of four tokens, with 48 tokens around, a quarter of them before
    chosen = draw_spans(STARTS, ALL, 8, told((0.5, 0.25)))
    assert spans(chosen) == [(12, 20)]
    # with 36 after it the next place is 56; from 5 of the 24 tokens around a single word, the next word starts at 64
    chosen = draw_spans(STARTS, ALL, 12, told((0.5, 0.25), (0.0, 5 / 24)))
    assert spans(chosen) == [(12, 20), (64, 68)]


def test_the_official_code_takes_tokens_from_a_words_start() -> None:
    chosen = draw_spans(STARTS, ALL, 3, told((0.5, 0.5), (0.0, 0.5)), words=False)
    assert spans(chosen) == [(8, 10), (20, 21)]


def test_a_span_that_goes_beyond_the_goal_is_left_out_and_single_tokens_fill_up() -> None:
    chosen = draw_spans(STARTS, ALL, 7, told((0.5, 0.25), (0.0, 0.0)))
    # two words at 12 would be eight tokens, a word at 56 is four; then the first three
    assert np.flatnonzero(chosen).tolist() == [0, 1, 2, 56, 57, 58, 59]


def test_a_span_ends_before_what_may_not_be_predicted() -> None:
    eligible = ALL.copy()
    eligible[10] = False
    assert spans(draw_spans(STARTS, eligible, 2, told((0.0, 0.3)))) == [(8, 10)]
    assert spans(draw_spans(STARTS, eligible, 5, told((0.99, 0.2)), words=False))[0] == (8, 10)


def slow(starts: Row, eligible: Row, goal: int, pairs: list[tuple[float, float]], words: bool) -> Row:
    """The spans of the reference, token by token, without what is filled up."""
    total = sum(1 / n for n in range(1, 6))
    bounds = [sum(1 / n for n in range(1, longest + 1)) / total for longest in range(1, 6)]
    chosen, position, length = np.zeros(len(starts), dtype=bool), 0, len(starts)
    width, per = (int(eligible.sum()), max(1, int((starts & eligible).sum()))) if words else (1, 1)
    for first, second in pairs:
        if chosen.sum() >= goal:
            break
        n = min(1 + sum(first > bound for bound in bounds[:4]), goal - int(chosen.sum()))
        around = n * 6 * width // per
        left = int(second * around)
        start = position + left
        while start < length and not (starts[start] and eligible[start]):
            start += 1
        if start >= length:
            break
        end, whole = start + 1, 1
        while end < length and eligible[end]:
            whole += bool(starts[end]) if words else 1
            if whole > n:
                break
            end += 1
        if chosen.sum() + end - start <= goal:
            chosen[start:end] = True
        position = end + around - left
    return chosen


@st.composite
def rows(draw: st.DrawFn) -> tuple[Row, Row]:
    letters = draw(st.text("Aabbbn", max_size=120))
    return row(letters, "An"), row(letters, "Aab")


@given(rows=rows(), goal=st.integers(0, 130), seed=st.integers(0, 1000), words=st.booleans())
def test_against_the_slow_way_and_exactly_as_many_as_wanted(
    rows: tuple[Row, Row], goal: int, seed: int, words: bool
) -> None:
    starts, eligible = rows
    chosen = draw_spans(starts, eligible, goal, np.random.default_rng(seed), words=words)
    assert chosen.sum() == min(goal, eligible.sum())
    assert not (chosen & ~eligible).any()
    pairs = np.random.default_rng(seed).random((32, 2)).tolist()
    expected = slow(starts, eligible, goal, pairs, words)
    assert not (expected & ~chosen).any()
    left = int(chosen.sum() - expected.sum())
    assert left == min(goal, eligible.sum()) - expected.sum()
    if left == 0:
        assert chosen.tolist() == expected.tolist()


def test_spans_are_whole_words_where_nothing_is_filled_up() -> None:
    whole = 0
    for seed in range(200):
        starts = np.random.default_rng([seed, 1]).random(300) < 0.6
        eligible = np.ones(300, dtype=bool)
        pairs = np.random.default_rng(seed).random((32, 2)).tolist()
        chosen = slow(starts, eligible, 40, pairs, words=True)
        for start, end in spans(chosen):
            assert starts[start]
            assert end == 300 or starts[end]
            whole += 1
        assert not (chosen & ~draw_spans(starts, eligible, 40, np.random.default_rng(seed))).any()
    assert whole > 1000


def test_lengths_are_as_likely_as_one_by_their_number() -> None:
    """Words of one token, far apart: the spans' lengths are those drawn."""
    counts = np.zeros(6)
    one = np.ones(4000, dtype=bool)
    for seed in range(40):
        # a goal that is out of reach for the spans: what is filled up is taken away again
        chosen = slow(one, one, 4000, np.random.default_rng(seed).random((32, 2)).tolist(), words=True)
        assert not (chosen & ~draw_spans(one, one, 1200, np.random.default_rng(seed))).any()
        for start, end in spans(chosen):
            if end - start < 6:
                counts[end - start] += 1
    share = counts[1:] / counts.sum()
    assert share == pytest.approx(np.array([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]) / (137 / 60), abs=0.05)


@pytest.mark.parametrize("letters", [1, 6], ids=["short words", "long words"])
@pytest.mark.parametrize("words", [True, False], ids=["words", "tokens"])
def test_predictions_are_spread_over_the_whole_row(letters: int, words: bool) -> None:
    """Also where a word is many tokens, and the goal would be reached early in the row."""
    length = 240
    starts = np.arange(length) % letters == 0
    chosen = np.mean(
        [
            draw_spans(starts, np.ones(length, dtype=bool), 40, np.random.default_rng(seed), words)
            for seed in range(400)
        ],
        axis=0,
    )
    quarters = chosen.reshape(4, -1).mean(1)
    assert quarters.sum() == pytest.approx(4 / 6)
    assert quarters[1:] == pytest.approx(1 / 6, abs=0.045)


@given(eligible=st.lists(st.booleans(), max_size=50), goal=st.integers(-1, 60), seed=st.integers(0, 1000))
def test_single_tokens(eligible: list[bool], goal: int, seed: int) -> None:
    may = np.array(eligible, dtype=bool)
    chosen = draw_tokens(may, goal, np.random.default_rng(seed))
    assert chosen.sum() == max(0, min(goal, may.sum()))
    assert not (chosen & ~may).any()


def test_each_set_of_single_tokens_is_as_likely() -> None:
    drawn = [draw_tokens(np.ones(4, dtype=bool), 2, np.random.default_rng(seed)) for seed in range(3000)]
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 400


def test_a_word_says_which() -> None:
    whole = [draw("words", STARTS, ALL, 8, told((0.5, 0.5)), 6, 1), draw_spans(STARTS, ALL, 8, told((0.5, 0.5)))]
    assert whole[0].tolist() == whole[1].tolist()
    assert spans(draw("tokens", STARTS, ALL, 2, told((0.5, 0.5)), 6, 1)) == [(8, 10)]
    assert spans(draw("single", STARTS, ALL, 2, told(), 6, 1)) == [(0, 2)]
    check_spans("single")
    with pytest.raises(ValueError, match="spans 'phrases': expected one of words, tokens, single"):
        check_spans("phrases")


def test_misuse() -> None:
    with pytest.raises(ValueError, match=r"starts_word \(120,\), eligible \(119,\)"):
        draw_spans(STARTS, ALL[1:], 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="goal -1, longest 5, alpha 6, beta 1"):
        draw_spans(STARTS, ALL, -1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="beta 0"):
        draw_spans(STARTS, ALL, 1, np.random.default_rng(0), beta=0)
