"""How well scores order what was trained: Kendall's tau, and how sure it is.

n rows, R resamples
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = Sequence[float] | NDArray[Any]
_COLUMNS = 512  # of a matrix of pairs held at once: n x 512 signs


class Tau(NamedTuple):
    """A rank correlation (or a difference of two) and its bootstrap interval; n: the rows it was counted on."""

    value: float
    low: float
    high: float
    n: int


def kendall(scores: Numbers, accuracies: Numbers) -> float:
    """Kendall's tau-b of scores and accuracies; scores of -inf are equal to each other and below all else.

    Raises ValueError where there are fewer than three rows, one is nan, or all are equal, which orders nothing.
    """
    try:
        from scipy.stats import kendalltau
    except ModuleNotFoundError:
        raise ModuleNotFoundError("Kendall's tau needs scipy: pip install 'shoestring[search]'") from None
    first, second = _ordered(scores, accuracies)
    return float(kendalltau(first, second, method="asymptotic").statistic)


def kendall_interval(
    scores: Numbers, accuracies: Numbers, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Tau:
    """Kendall's tau-b with its percentile bootstrap interval: architectures are drawn anew, with replacement.

    A pair of one row with itself is tied in both and counts for nothing. Resamples that order nothing are left out.
    """
    return within_groups(scores, accuracies, np.zeros(len(scores), dtype=int), resamples, seed, level)


def difference_interval(
    first: Numbers,
    second: Numbers,
    accuracies: Numbers,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Tau:
    """The tau of the first scores less that of the second, with its interval: both on the same resamples."""
    (one, truth), (other, _) = _ordered(first, accuracies), _ordered(second, accuracies)
    counts = _counts(len(truth), resamples, seed)
    every = [np.arange(len(truth))]
    drawn = _taus(one, truth, every, counts) - _taus(other, truth, every, counts)
    return _interval(drawn, len(truth), level)


def top(scores: Numbers, accuracies: Numbers, part: float = 0.1) -> float:
    """Kendall's tau-b within the best part of the rows by accuracy; rows as good as the last of them are in it too.

    Raises ValueError as `kendall`, where the part holds too few rows too.
    """
    if not 0 < part <= 1:
        raise ValueError(f"part is {part}: expected a fraction above 0, up to 1")
    found, truth = np.asarray(scores, dtype=float), np.asarray(accuracies, dtype=float)
    _checked(found, truth)
    least = np.sort(truth)[::-1][max(0, int(np.ceil(part * len(truth))) - 1)]
    return kendall(found[truth >= least], truth[truth >= least])


def within_groups(
    scores: Numbers,
    accuracies: Numbers,
    groups: Sequence[Hashable] | NDArray[Any],
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Tau:
    """Kendall's tau-b over the pairs of rows that are of one group, all groups' pairs together.

    groups  what rows must share to be compared: an equal parameter count, say
    Raises ValueError where fewer than three rows have another of their group, or no such pair differs in its scores,
    or none in its accuracies.
    """
    first, second = _ordered(scores, accuracies)
    if len(groups) != len(first):
        raise ValueError(f"there are {len(groups)} groups for {len(first)} rows: expected one a row")
    places: dict[Hashable, list[int]] = {}
    for row, group in enumerate(groups.tolist() if isinstance(groups, np.ndarray) else groups):
        places.setdefault(group, []).append(row)
    members = [np.array(rows) for rows in places.values() if len(rows) > 1]
    compared = sum(map(len, members))
    if compared < 3:
        raise ValueError(f"{compared} rows share their group with another: an order is compared over three or more")
    return _interval(_taus(first, second, members, _counts(len(first), resamples, seed)), compared, level)


def _checked(scores: NDArray[Any], accuracies: NDArray[Any]) -> None:
    if scores.shape != accuracies.shape or scores.ndim != 1:
        raise ValueError(f"there are {len(scores)} scores for {len(accuracies)} accuracies: expected one a row of each")
    if len(scores) < 3:
        raise ValueError(f"there are {len(scores)} rows: an order is compared over three or more")
    for name, values, wrong in (
        ("score", scores, np.isnan(scores)),
        ("accuracy", accuracies, ~np.isfinite(accuracies)),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"row {row} has the {name} {values[row]}: expected a number; leave the row out")


def _ordered(scores: Numbers, accuracies: Numbers) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both as ranks, so that -inf is a place like any other."""
    found = np.asarray(scores, dtype=float), np.asarray(accuracies, dtype=float)
    _checked(*found)
    ranks = [np.unique(values, return_inverse=True)[1].astype(np.int32) for values in found]
    for name, values, order in zip(("scores", "accuracies"), found, ranks, strict=True):
        if order.max() == 0:
            raise ValueError(f"all {len(values)} {name} are {values[0]}: they order nothing")
    return ranks[0], ranks[1]


def _counts(rows: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """How often each row is in each resample (1 + R, n); the first holds every row once."""
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}: expected one or more")
    random = np.random.default_rng(seed)
    counts = np.ones((1 + resamples, rows), dtype=np.float32)
    for row in range(1, 1 + resamples):
        counts[row] = np.bincount(random.integers(rows, size=rows), minlength=rows)
    return counts


def _taus(
    first: NDArray[Any], second: NDArray[Any], groups: Sequence[NDArray[Any]], counts: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Tau-b of each resample (1 + R,), nan where it orders nothing, over the pairs within groups.

    Integers below 2^24 as float32, which are exact, so that a matrix product counts all pairs of all resamples.
    """
    agreeing, untied_first, untied_second = np.zeros((3, len(counts)))
    for rows in groups:
        drawn = counts[:, rows]
        for signs, columns in _signs(first[rows], second[rows]):
            agreeing += ((drawn @ signs) * drawn[:, columns]).sum(1, dtype=np.float64)
        every = drawn.sum(1, dtype=np.float64) ** 2
        untied_first += every - _tied(first[rows], drawn)
        untied_second += every - _tied(second[rows], drawn)
    untied = np.sqrt(untied_first * untied_second)
    taus = np.full(len(counts), np.nan)
    np.divide(agreeing, untied, out=taus, where=untied > 0)
    return taus


def _signs(first: NDArray[Any], second: NDArray[Any]) -> Iterator[tuple[NDArray[np.float32], slice]]:
    """Whether pairs are ordered alike (1), otherwise (-1) or tied (0), some columns of the square at a time."""
    for start in range(0, len(first), _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        one = np.sign(first[:, None] - first[columns]).astype(np.float32)
        yield one * np.sign(second[:, None] - second[columns]), columns


def _tied(values: NDArray[Any], drawn: NDArray[np.float32]) -> NDArray[np.float64]:
    """Ordered pairs that are equal, a row and itself among them, in each resample."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-1))
    sums = np.add.reduceat(drawn[:, order].astype(np.float64), starts, axis=1)
    return np.asarray((sums**2).sum(1))


def _interval(drawn: NDArray[np.float64], rows: int, level: float) -> Tau:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected a fraction between 0 and 1, such as 0.95")
    value, resampled = float(drawn[0]), drawn[1:][np.isfinite(drawn[1:])]
    if not np.isfinite(value) or not len(resampled):
        raise ValueError("no two rows that may be compared differ in both: they order nothing")
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Tau(value, float(low), float(high), rows)
