"""Rank statistics: on paper, against slow counts and scipy, and what orders nothing."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from shoestring.methods.search.ranks import (
    difference_interval,
    kendall,
    kendall_interval,
    top,
    within_groups,
)

SHARED = Path(__file__).parents[3] / ".." / "shared" / "data"
TABLE = Path(os.environ.get("SHOESTRING_DATA", SHARED)) / "search" / "nasbench201_dev12500.csv.gz"


def slow(scores, accuracies, groups=None) -> float:
    """Tau-b over the pairs of a group, one by one."""
    agreeing, first, second = 0, 0, 0
    for i in range(len(scores)):
        for j in range(i):
            if groups is None or groups[i] == groups[j]:
                one = (scores[i] > scores[j]) - (scores[i] < scores[j])
                two = (accuracies[i] > accuracies[j]) - (accuracies[i] < accuracies[j])
                agreeing += one * two
                first += one != 0
                second += two != 0
    return agreeing / math.sqrt(first * second) if first * second else math.nan


def test_tau_by_hand():
    assert kendall([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert kendall([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)  # 5 pairs agree, 1 does not
    assert kendall([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))


def test_singular_networks_tie_at_the_bottom():
    assert kendall([-math.inf, -math.inf, -1e9], [1, 2, 3]) == pytest.approx(2 / math.sqrt(2 * 3))


def test_top_by_hand():
    scores = [0.0, 0.0, 0.0, 3.0, 2.0, 1.0]
    accuracies = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert top(scores, accuracies, part=0.5) == pytest.approx(-1)
    assert top(scores, accuracies, part=1) == pytest.approx(kendall(scores, accuracies))
    tied = [1.0, 2.0, 4.0, 4.0, 5.0, 6.0]
    assert top(scores, tied, part=0.5) == pytest.approx(kendall(scores[2:], tied[2:]))
    with pytest.raises(ValueError, match="there are 1 rows"):
        top(scores, accuracies)


def test_within_groups_by_hand():
    """The groups are each ordered wrongly, and all together rightly."""
    scores, accuracies = [2, 1, 4, 3], [1, 2, 3, 4]
    found = within_groups(scores, accuracies, ["a", "a", "b", "b"], resamples=50)
    assert found.value == -1
    assert (found.low, found.high, found.n) == (-1, -1, 4)
    assert kendall(scores, accuracies) > 0
    assert within_groups([*scores, 9], [*accuracies, 0], ["a", "a", "b", "b", "alone"], resamples=50).n == 4


values = st.one_of(st.integers(-3, 3).map(float), st.just(-math.inf))
rows = st.lists(st.tuples(values, st.integers(0, 4), st.integers(0, 2)), min_size=3, max_size=30)


@given(rows)
def test_against_counting_pairs_one_by_one(rows):
    scores, accuracies, groups = map(list, zip(*rows, strict=True))
    if len(set(scores)) == 1 or len(set(accuracies)) == 1:
        with pytest.raises(ValueError, match="they order nothing"):
            kendall(scores, accuracies)
        return
    assert kendall(scores, accuracies) == pytest.approx(slow(scores, accuracies), abs=1e-12)
    assert kendall_interval(scores, accuracies, resamples=20).value == pytest.approx(slow(scores, accuracies))
    expected = slow(scores, accuracies, groups)
    if math.isnan(expected):
        with pytest.raises(ValueError, match=r"order nothing|share their group"):
            within_groups(scores, accuracies, groups, resamples=1)
    elif sum(groups.count(group) > 1 for group in groups) > 2:
        assert within_groups(scores, accuracies, groups, resamples=200).value == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_that_of_resampling_rows_with_scipy():
    """The same draws, their rows written out and given to scipy."""
    random = np.random.default_rng(3)
    scores = random.integers(0, 20, 40).astype(float)
    accuracies = scores + random.normal(0, 8, 40).round()
    again = np.random.default_rng(7)
    taus = []
    for _ in range(200):
        drawn = again.integers(40, size=40)
        taus.append(kendalltau(scores[drawn], accuracies[drawn]).statistic)
    found = kendall_interval(scores, accuracies, resamples=200, seed=7, level=0.9)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(taus, [0.05, 0.95])), abs=1e-9)
    assert found.value == pytest.approx(kendall(scores, accuracies))
    assert found.n == 40


def test_a_difference_is_paired():
    """Two scores that differ in one swap: their difference is far surer than either."""
    random = np.random.default_rng(0)
    accuracies = random.normal(size=60)
    first = accuracies + random.normal(size=60)
    second = first.copy()
    second[[0, 1]] = second[[1, 0]]
    found = difference_interval(first, second, accuracies, resamples=200)
    assert found.value == pytest.approx(kendall(first, accuracies) - kendall(second, accuracies))
    alone = kendall_interval(first, accuracies, resamples=200)
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    same = difference_interval(first, first, accuracies, resamples=20)
    assert same[:3] == (0, 0, 0)


def test_the_interval_covers_as_often_as_it_says():
    """Of a normal pair, whose tau is 2 / pi arcsin(r)."""
    random = np.random.default_rng(5)
    truth, covered = 2 / math.pi * math.asin(0.6), 0
    for seed in range(100):
        x = random.normal(size=80)
        y = 0.6 * x + 0.8 * random.normal(size=80)
        found = kendall_interval(x, y, resamples=200, seed=seed, level=0.9)
        covered += found.low <= truth <= found.high
    assert 80 <= covered <= 98


def test_the_seed_says_it_all():
    scores, accuracies = [3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0]
    assert kendall_interval(scores, accuracies, seed=1) == kendall_interval(scores, accuracies, seed=1)
    state = np.random.get_state()[1].copy()
    kendall_interval(scores, accuracies)
    assert (np.random.get_state()[1] == state).all()


def test_columns_of_pairs_are_counted_once():
    """More rows than are held at once."""
    random = np.random.default_rng(2)
    scores, accuracies = random.integers(0, 99, 1300), random.integers(0, 99, 1300)
    found = kendall_interval(scores, accuracies, resamples=3)
    assert found.value == pytest.approx(kendalltau(scores, accuracies).statistic, abs=1e-12)


def test_a_thousand_rows_take_seconds():
    random = np.random.default_rng(2)
    scores = random.normal(size=1000)
    since = time.process_time()
    kendall_interval(scores, scores + random.normal(size=1000))
    assert time.process_time() - since < 10


@pytest.mark.skipif(not TABLE.exists(), reason=f"{TABLE} is not there: set SHOESTRING_DATA")
def test_on_the_real_table():
    """Accuracy after 12 epochs foretells that after 200."""
    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        table = list(csv.DictReader(io.StringIO(file.read())))[::25]
    early, late = ([float(row[name]) for row in table] for name in ("c10_val_12ep", "c10_test_200ep"))
    found = kendall_interval(early, late, resamples=200)
    assert 0.45 < found.low < found.value < found.high < 0.7
    assert top(early, late) < found.value


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: kendall([1, math.nan, 3], [1, 2, 3]), "row 1 has the score nan"),
        (lambda: kendall([1, 2, 3], [1, 2, math.inf]), "row 2 has the accuracy inf"),
        (lambda: kendall([1, 2], [1, 2]), "there are 2 rows"),
        (lambda: kendall([1, 2, 3], [1, 2]), "3 scores for 2 accuracies"),
        (lambda: kendall([2, 2, 2], [1, 2, 3]), "all 3 scores are 2.0: they order nothing"),
        (lambda: kendall([1, 2, 3], [5, 5, 5]), "all 3 accuracies are 5.0"),
        (lambda: top([1, 2, 3], [1, 2, 3], part=0), "part is 0"),
        (lambda: within_groups([1, 2, 3], [1, 2, 3], [1, 2]), "2 groups for 3 rows"),
        (lambda: within_groups([1, 2, 3], [1, 2, 3], [1, 2, 3]), "0 rows share their group"),
        (lambda: within_groups([1, 1, 2, 2], [1, 2, 1, 2], [1, 1, 2, 2]), "they order nothing"),
        (lambda: kendall_interval([1, 2, 3], [1, 2, 3], resamples=0), "resamples is 0"),
        (lambda: kendall_interval([1, 2, 3], [1, 2, 3], level=95), "level is 95"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(call, told):
    with pytest.raises(ValueError, match=told) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_without_scipy_the_way_to_it_is_told():
    script = (
        "import sys; sys.modules['scipy'] = None; sys.modules['scipy.stats'] = None\n"
        "from shoestring.methods.search.ranks import kendall\nkendall([1, 2, 3], [1, 2, 3])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert told.stderr.strip().endswith("needs scipy: pip install 'shoestring[search]'")
