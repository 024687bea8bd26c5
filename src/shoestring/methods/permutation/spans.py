"""Which tokens of a sequence are predicted: spans of words, spans of tokens, or single ones.

S tokens

Yang et al. 2019 (arXiv 1906.08237), section 2.4 and the official code, which differ: the paper says that span lengths
are uniform in 1 to 5, the code draws n with probability proportional to 1/n, as here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Spans = Literal["words", "tokens", "single"]


def draw(
    spans: Spans,
    starts_word: NDArray[np.bool_],
    eligible: NDArray[np.bool_],
    goal: int,
    generator: np.random.Generator,
    alpha: int,
    beta: int,
) -> NDArray[np.bool_]:
    """(S,): spans of whole "words", spans of "tokens", or "single" tokens; see `draw_spans` and `draw_tokens`."""
    if spans == "single":
        return draw_tokens(eligible, goal, generator)
    return draw_spans(starts_word, eligible, goal, generator, words=spans == "words", alpha=alpha, beta=beta)


def check_spans(spans: str) -> None:
    """Raises ValueError for a word that `draw` does not know."""
    if spans not in get_args(Spans):
        raise ValueError(f"spans {spans!r}: expected one of {', '.join(get_args(Spans))}")


def draw_spans(
    starts_word: NDArray[np.bool_],
    eligible: NDArray[np.bool_],
    goal: int,
    generator: np.random.Generator,
    words: bool = True,
    alpha: int = 6,
    beta: int = 1,
    longest: int = 5,
) -> NDArray[np.bool_]:
    """(S,): exactly min(goal, eligible tokens) of them, in spans as far as those go, then single ones at random.

    starts_word  (S,): the token is the first of a word
    eligible     (S,): the token may be predicted; a span ends before one that may not
    words        spans of n whole words; otherwise of n tokens, the first of which starts a word: what the official code
                 does, since it looks for the words' ends at the span's start
    alpha, beta  a span of n tokens comes with n * alpha // beta around it that no span takes, split at random; a span
                 of n words with as many more as the row's words are long, else long words would crowd at its start
    longest      n is drawn from 1 to this
    A span that would go beyond the goal is left out. Raises ValueError where shapes differ or a number is below what
    makes sense.
    """
    if starts_word.shape != eligible.shape or eligible.ndim != 1:
        raise ValueError(f"starts_word {starts_word.shape}, eligible {eligible.shape}: expected one row of each, alike")
    if goal < 0 or longest < 1 or beta < 1 or alpha < 0:
        raise ValueError(f"goal {goal}, longest {longest}, alpha {alpha}, beta {beta}: expected at least 0, 1, 0, 1")
    chosen = np.zeros(len(eligible), dtype=np.bool_)
    taken = 0
    starts = np.flatnonzero(starts_word & eligible).tolist()
    # a word ends where another starts, before what may not be predicted, and with the sequence
    ends = [*np.flatnonzero(starts_word | ~eligible).tolist(), len(eligible)]
    closed = [*np.flatnonzero(~eligible).tolist(), len(eligible)]
    lengths = _lengths(longest)
    if words:  # a word's tokens, on average, widen what is around it
        alpha, beta = alpha * int(eligible.sum()), beta * max(1, len(starts))
    position = 0
    for first, second in _pairs(generator):
        if taken >= goal:
            break
        n = min(bisect_left(lengths, first) + 1, longest, goal - taken)
        around = n * alpha // beta
        left = int(second * around)
        at = bisect_left(starts, position + left)
        if at == len(starts):
            break
        start = starts[at]
        limit = closed[bisect_left(closed, start)]
        if words:
            last = bisect_left(ends, start) + n
            end = min(ends[last] if last < len(ends) else limit, limit)
        else:
            end = min(start + n, limit)
        if end - start <= goal - taken:
            chosen[start:end] = True
            taken += end - start
        position = end + around - left
    return chosen | draw_tokens(eligible & ~chosen, goal - taken, generator)


def draw_tokens(eligible: NDArray[np.bool_], goal: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """(S,): min(goal, eligible tokens) of the eligible ones, each set of them as likely as any other."""
    chosen = np.zeros(len(eligible), dtype=np.bool_)
    places = np.flatnonzero(eligible)
    if goal > 0:
        chosen[places[np.argsort(generator.random(len(places)), kind="stable")[:goal]]] = True
    return chosen


def _pairs(generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Uniform numbers two by two, drawn many at once since a call costs more than a number."""
    while True:
        yield from generator.random((32, 2)).tolist()


@cache
def _lengths(longest: int) -> list[float]:
    """(longest,): how likely a span is of at most 1, 2, ..."""
    weights = [1 / n for n in range(1, longest + 1)]
    return [total / sum(weights) for total in accumulate(weights)]
