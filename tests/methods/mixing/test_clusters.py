"""Groups and how well they are the true skills: on paper, against slow counts, properties, and what is refused."""

from __future__ import annotations

import itertools
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.mixing import clusters
from shoestring.methods.mixing.clusters import (
    adjusted_rand,
    chance,
    cluster,
    falls,
    needed,
    recovered,
    recovery,
    standardised,
    typical,
)

labelled = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


def blobs(sizes: list[int], seed: int = 0, apart: float = 10.0) -> tuple[np.ndarray, list[int]]:
    """Points around corners that lie far apart."""
    generator = np.random.default_rng(seed)
    truth = [skill for skill, size in enumerate(sizes) for _ in range(size)]
    centres = apart * np.eye(len(sizes))
    return np.stack([centres[skill] + generator.normal(size=len(sizes)) for skill in truth]), truth


def slow(labels: list[int], truth: list[int]) -> float:
    """Every way to let each group stand for a skill of its own, or for none."""
    groups, skills = sorted(set(labels)), sorted(set(truth))
    names = [*skills, *(f"none {place}" for place in range(len(groups)))]
    ways = itertools.permutations(names, len(groups))
    return max(
        sum(dict(zip(groups, way, strict=True))[one] == other for one, other in zip(labels, truth, strict=True))
        for way in ways
    ) / len(labels)


def test_recovery_by_hand():
    assert recovery([0, 0, 1, 1], ["b", "b", "a", "a"]) == 1
    assert recovery([0, 0, 1, 1], ["a", "b", "a", "b"]) == 0.5
    assert recovery([0, 1, 2, 3], ["a", "a", "b", "b"]) == 0.5  # two groups stand for no skill
    assert recovery([0, 0, 0, 0], ["a", "b", "c", "d"]) == 0.25  # three skills have no group
    assert recovery(np.array([5, 5, 7]), np.array(["x", "y", "y"])) == pytest.approx(2 / 3)


def test_adjusted_rand_by_hand():
    assert adjusted_rand([0, 0, 1, 1], [1, 1, 0, 0]) == 1
    # 2 pairs of 6 are together in each, none in both: (0 - 2 * 2 / 6) / (2 - 2 * 2 / 6)
    assert adjusted_rand([0, 0, 1, 1], ["a", "b", "a", "b"]) == pytest.approx(-0.5)


def test_falls_and_standardised_by_hand():
    losses = np.array([[5.0, 3.0, 1.0], [9.0, 7.0, 5.0], [2.0, 2.0, 2.0]])
    assert falls(losses).tolist() == [[2, 0, -2], [2, 0, -2], [0, 0, 0]]
    assert standardised(np.array([[1.0, 4.0], [3.0, 4.0]])).tolist() == [[-1, 0], [1, 0]]


def test_typical_by_hand():
    features = np.array([[0.0], [1.0], [2.0], [100.0], [5.0]])  # the first four's mean is 25.75
    assert typical(features, np.array([0, 0, 0, 0, 1]), 2) == [[2, 1], [4]]


@given(labelled)
def test_recovery_is_the_best_of_all_ways(pairs):
    labels, truth = (list(side) for side in zip(*pairs, strict=True))
    assert recovery(labels, truth) == pytest.approx(slow(labels, truth))


@given(labelled, st.permutations(range(4)))
def test_names_of_groups_do_not_matter(pairs, names):
    labels, truth = (list(side) for side in zip(*pairs, strict=True))
    renamed = [names[label] for label in labels]
    assert recovery(renamed, truth) == recovery(labels, truth) == recovery(truth, labels)
    assert adjusted_rand(renamed, truth) == pytest.approx(adjusted_rand(labels, truth))
    assert recovery(truth, truth) == 1


def test_blobs_are_found_the_largest_first():
    features, truth = blobs([10, 40, 20])
    labels = cluster(features, 3, seed=0)
    assert np.bincount(labels).tolist() == [40, 20, 10]
    assert recovered(labels, truth, seed=0)[:2] == (1, 1)
    assert cluster(features, 3, seed=0).tolist() == labels.tolist()
    assert cluster(features, 3, seed=1).tolist() == labels.tolist()  # here every seed finds the same


def test_equal_groups_are_numbered_by_their_first_sample():
    labels = cluster(np.array([[9.0], [9.1], [0.0], [0.1], [5.0], [5.1]]), 3, seed=3)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_the_restarts_keep_the_tightest():
    """Against the best of all ways to cut a line of points in three."""
    points = np.sort(np.random.default_rng(4).normal(size=30))

    def spread(parts: list[np.ndarray]) -> float:
        return sum(float(((part - part.mean()) ** 2).sum()) for part in parts)

    best = min(spread(np.split(points, [i, j])) for i in range(1, 29) for j in range(i + 1, 30))
    labels = cluster(points[:, None], 3, seed=0, restarts=20)
    assert spread([points[labels == group] for group in range(3)]) == pytest.approx(best)


def test_chance_is_what_shuffled_groups_give():
    features, truth = blobs([30, 30])
    labels = cluster(features, 2, seed=0)
    mean, highest = chance(labels, truth, seed=0)
    assert 0.5 <= mean < 0.65 < highest < 0.9
    assert chance(labels, truth, seed=0) == (mean, highest)
    assert chance([0, 0, 0], ["a", "a", "b"], seed=0) == pytest.approx((2 / 3, 2 / 3))  # one group: nothing to shuffle


@pytest.mark.parametrize(
    ("features", "skills", "message"),
    [
        (np.zeros(4), 2, r"shape \(4,\)"),
        (np.zeros((4, 0)), 2, r"shape \(4, 0\)"),
        (np.eye(4), 1, "1 skills"),
        (np.eye(4), 5, "5 skills of 4 samples, 4 of them different"),
        (np.array([[1.0], [1.0], [2.0]]), 3, "3 skills of 3 samples, 2 of them different"),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), 2, "feature 1 of sample 1 is nan"),
        (np.array([[1.0, np.inf], [3.0, 1.0]]), 2, "feature 1 of sample 0 is inf"),
    ],
)
def test_what_cannot_be_grouped(features, skills, message):
    with pytest.raises(ValueError, match=message):
        cluster(features, skills, seed=0)


def test_other_refusals():
    with pytest.raises(ValueError, match="seed -1"):
        cluster(np.eye(4), 2, seed=-1)
    with pytest.raises(ValueError, match="0 restarts"):
        cluster(np.eye(4), 2, seed=0, restarts=0)
    with pytest.raises(ValueError, match="2 labels beside 3 true ones"):
        recovery([0, 1], [0, 1, 2])
    with pytest.raises(ValueError, match="0 labels"):
        adjusted_rand([], [])
    with pytest.raises(ValueError, match="shuffles 0"):
        chance([0], [0], seed=0, shuffles=0)


@pytest.mark.parametrize("missing", ["sklearn", "scipy"])
def test_the_libraries_are_said(monkeypatch, missing):
    monkeypatch.setattr(clusters, "find_spec", lambda name: None if name == missing else find_spec(name))
    for call in (needed, lambda: cluster(np.eye(3), 2, seed=0), lambda: recovery([0], [0])):
        with pytest.raises(ModuleNotFoundError, match=r"scikit-learn and scipy: pip install 'shoestring\[mixing\]'$"):
            call()
