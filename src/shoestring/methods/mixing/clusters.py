"""Skills found, not given: groups of samples by k-means, and how well they are the skills that somebody named."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Given = Sequence[Hashable] | NDArray[Any]
_NEEDED = "finding skills needs scikit-learn and scipy: pip install 'shoestring[mixing]'"


class Chance(NamedTuple):
    """What shuffled groups recover: the mean over shuffles, and the highest of them."""

    mean: float
    highest: float


class Recovered(NamedTuple):
    """What groups recover of true skills: see `recovery`, `adjusted_rand` and `chance`."""

    share: float
    adjusted_rand: float
    chance: Chance


def needed() -> None:
    """Raise ModuleNotFoundError, saying what to install, where the libraries are not there: before the long way."""
    if find_spec("sklearn") is None or find_spec("scipy") is None:
        raise ModuleNotFoundError(_NEEDED)


def cluster(features: Features, skills: int, seed: int, restarts: int = 10) -> Labels:
    """Group samples that are near each other, by k-means.

    features  (samples, d): losses at checkpoints, or embeddings
    skills    how many groups
    restarts  starts from other centres (k-means++), the tightest is kept
    Returns (samples,): groups from 0, the largest, on. Raises ValueError where a feature is not finite, or there are
    fewer different samples than groups.

    Chen et al. 2023 (Skill-It), on skills recovered from loss trajectories.
    """
    needed()
    from sklearn.cluster import KMeans

    _checked(features, skills, restarts)
    if not 0 <= seed < 1 << 32:
        raise ValueError(f"seed {seed}: expected 0 to 2**32 - 1")
    found = KMeans(skills, n_init=restarts, random_state=seed).fit_predict(features)
    sizes = np.bincount(found, minlength=skills)
    first = np.array([np.argmax(found == group) for group in range(skills)])
    place = np.empty(skills, dtype=np.int64)
    place[np.lexsort((first, -sizes))] = np.arange(skills)
    return np.asarray(place[found], dtype=np.int64)


def falls(losses: Features) -> Features:
    """Each sample's losses less their own mean: when and how far they fall, not how high they are.

    Not in the paper, which takes the losses as they are.
    """
    return np.asarray(losses - losses.mean(axis=1, keepdims=True))


def standardised(features: Features) -> Features:
    """Each column less its mean, over its spread: no checkpoint or dimension outweighs another. A constant one is 0."""
    spread = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def typical(features: Features, labels: Labels, count: int) -> list[list[int]]:
    """The samples of each group that are nearest to its mean, nearest first; at most `count` a group."""
    found = []
    for group in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == group)
        away = np.linalg.norm(features[members] - features[members].mean(axis=0), axis=1)
        found.append([int(members[place]) for place in np.argsort(away, kind="stable")[:count]])
    return found


def recovery(labels: Given, truth: Given) -> float:
    """The share of samples in the right group, when each group stands for at most one skill, in the best such way.

    labels, truth  (samples,): any values; groups beyond the number of skills (or skills beyond that of groups) are
                   matched with none, and their samples are wrong
    """
    needed()
    from scipy.optimize import linear_sum_assignment

    table = _table(labels, truth)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def adjusted_rand(labels: Given, truth: Given) -> float:
    """How far pairs of samples are together and apart alike: 1 the same groups, 0 in the mean by chance.

    Hubert and Arabie 1985.
    """
    needed()
    from sklearn.metrics import adjusted_rand_score

    one, other = _numbered(labels, truth)
    return float(adjusted_rand_score(other, one))


def chance(labels: Given, truth: Given, seed: int, shuffles: int = 100) -> Chance:
    """What `recovery` gives where the same groups, of the same sizes, are dealt out to the samples at random."""
    if shuffles < 1:
        raise ValueError(f"shuffles {shuffles}: expected one or more")
    one, other = _numbered(labels, truth)
    generator = np.random.default_rng(seed)
    found = [recovery(generator.permutation(one), other) for _ in range(shuffles)]
    return Chance(float(np.mean(found)), max(found))


def recovered(labels: Given, truth: Given, seed: int) -> Recovered:
    """How well groups are the true skills, by all three measures."""
    return Recovered(recovery(labels, truth), adjusted_rand(labels, truth), chance(labels, truth, seed))


def _checked(features: Features, skills: int, restarts: int) -> None:
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(f"the features have shape {features.shape}: expected (samples, one or more)")
    if skills < 2 or restarts < 1:
        raise ValueError(f"{skills} skills, {restarts} restarts: expected two skills or more, one restart or more")
    if not np.isfinite(features).all():
        sample, column = np.argwhere(~np.isfinite(features))[0]
        value = features[sample, column]
        raise ValueError(f"feature {column} of sample {sample} is {value}: expected finite numbers")
    different = len(np.unique(features, axis=0))
    if different < skills:
        raise ValueError(
            f"{skills} skills of {len(features)} samples, {different} of them different: expected as many different "
            "samples as skills, or more: ask for fewer skills or give more samples"
        )


def _table(labels: Given, truth: Given) -> NDArray[np.int64]:
    """(groups, skills): how many samples are of both."""
    one, other = _numbered(labels, truth)
    table = np.zeros((one.max() + 1, other.max() + 1), dtype=np.int64)
    np.add.at(table, (one, other), 1)
    return table


def _numbered(labels: Given, truth: Given) -> tuple[Labels, Labels]:
    if len(labels) != len(truth) or not len(labels):
        raise ValueError(f"{len(labels)} labels beside {len(truth)} true ones: expected as many, one or more")
    return _numbers(labels), _numbers(truth)


def _numbers(values: Given) -> Labels:
    places: dict[Hashable, int] = {}
    return np.array([places.setdefault(value, len(places)) for value in values], dtype=np.int64)
