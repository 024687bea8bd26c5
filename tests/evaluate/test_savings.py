"""Savings on curves whose answer can be read off, against a slow search, and in plain words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.cost import Cost
from shoestring.evaluate.savings import saving, savings
from shoestring.evaluate.scores import Pair, Point, Report, Row, Score

PAIR = Pair("lawa", "raw")


def report(method, twin, *, second_cost: float = 2.0, lower_is_better: bool = True, groups=("", "")) -> Report:
    """Curves by seed: a value at each of the steps 10, 20, ...; a step of the method costs `second_cost` seconds."""
    points = []
    for name, curves, cost in (("lawa", method, second_cost), ("raw", twin, 2.0)):
        for seed, values in curves.items():
            for index, value in enumerate(values, start=1):
                step = 10 * index
                points.append(Point(name, seed, step, 100.0 * step, 1e9 * step, cost * step, {"dev loss": value}))
    score = {"dev loss": Score.of([1.0])}
    rows = (Row("lawa", False, score, Cost(), groups[0], "LAWA"), Row("raw", True, score, Cost(), groups[1]))
    return Report("averaging", "cpu", rows, tuple(points), (PAIR,), "dev loss", lower_is_better=lower_is_better)


def test_two_seeds_by_hand():
    found = saving(
        report({0: [3.0, 2.0, 1.5, 1.4], 1: [3.0, 2.5, 2.2, 1.9]}, {0: [4.0, 3.0, 2.5, 2.0], 1: [4.0, 3.0, 2.5, 2.2]}),
        PAIR,
    )
    assert found is not None
    assert (found.of, found.reached) == (2, 2)
    assert found.fractions["step"] == Score.of([0.5, 0.75])
    assert (
        found.fractions["flops"] == found.fractions["tokens"] == found.fractions["seconds"] == found.fractions["step"]
    )
    assert found.target == Score.of([2.0, 2.2])
    assert found.final == Score.of([1.4, 1.9])
    assert found.difference.mean == pytest.approx(-0.45)
    assert found.as_dict()["fractions"]["step"]["n"] == 2


def test_the_words_for_a_saving():
    found = report({0: [3.0, 2.0, 1.5, 1.4], 1: [3.0, 2.5, 2.2, 1.9]}, {0: [4, 3, 2.5, 2.0], 1: [4, 3, 2.5, 2.2]})
    assert savings(found) == [
        "LAWA reached raw's final dev loss (2.10 ± 0.14, 2 seeds) after 62 ± 18 % of its steps, 62 ± 18 % of its FLOPs "
        "and 62 ± 18 % of its seconds. "
        "It ended 0.5 ± 0.2 better: 1.6 ± 0.4 against 2.10 ± 0.14, paired over 2 seeds."
    ]


def test_a_target_that_was_not_reached_is_said():
    found = report({0: [2.5, 2.1], 1: [2.6, 2.2]}, {0: [2.4, 2.0], 1: [2.4, 2.0]})
    assert savings(found) == [
        "LAWA did not reach raw's final dev loss in 2 of 2 seeds: 2.15 ± 0.07 against 2.000 ± 0. "
        "It ended 0.15 ± 0.07 worse, paired over 2 seeds."
    ]


def test_a_target_reached_by_some_seeds_only_is_said():
    found = report({0: [1.9, 1.8], 1: [2.6, 2.2]}, {0: [2.4, 2.0], 1: [2.4, 2.0]})
    told = savings(found)[0]
    assert "in 1 of 2 seeds, after 50 % of its steps" in told
    assert "in 1 of 2 it did not" in told
    assert "a difference no larger than its spread" in told


def test_a_method_that_needed_more_is_not_called_a_saving():
    found = report({0: [3.0, 2.5, 2.0]}, {0: [2.4, 2.0]})
    assert "only after 150 % of its steps, 150 % of its FLOPs and 150 % of its seconds" in savings(found)[0]
    dearer = report({0: [3.0, 2.0]}, {0: [2.4, 2.0]}, second_cost=3.0)
    assert "only after 100 % of its steps, 100 % of its FLOPs and 150 % of its seconds" in savings(dearer)[0]
    assert "Both ended level on the mean, from 1 seed only." in savings(dearer)[0]


def test_where_higher_is_better_the_sides_change():
    found = report({0: [0.5, 0.7]}, {0: [0.4, 0.5]}, lower_is_better=False)
    assert "after 50 % of its steps" in savings(found)[0]
    assert "It ended 0.20 better: 0.7000 against 0.5000, from 1 seed only." in savings(found)[0]


def test_only_seeds_measured_on_both_are_paired():
    found = saving(report({0: [2.0, 1.0], 7: [9.0, 9.0]}, {0: [2.0, 2.0], 1: [0.0, 0.0]}), PAIR)
    assert found is not None
    assert (found.of, found.target.mean) == (1, 2.0)


def test_no_shared_seed_no_saving():
    found = report({0: [1.0]}, {1: [1.0]})
    assert saving(found, PAIR) is None
    assert savings(found) == ["LAWA and raw share no measured seed, so no saving can be stated."]


def test_groups_are_named():
    curves = {0: [2.0, 1.0]}
    assert savings(report(curves, curves, groups=("high rate", "high rate")))[0].startswith(
        "High rate: LAWA reached raw's"
    )
    assert savings(report(curves, curves, groups=("high", "low")))[0].startswith("LAWA (high) reached raw (low)'s")


def test_what_the_twin_had_for_nothing_has_no_fraction():
    free = report({0: [2.0, 1.0]}, {0: [2.0, 1.0]}, second_cost=0.0)
    points = tuple(Point(p.row, p.seed, p.step, p.tokens, 0.0, p.seconds, p.scores) for p in free.points)
    found = saving(Report("a", "b", free.rows, points, free.pairs, "dev loss"), PAIR)
    assert found is not None
    assert set(found.fractions) == {"step", "tokens", "seconds"}
    assert "FLOPs" not in savings(Report("a", "b", free.rows, points, free.pairs, "dev loss"))[0]


curve = st.lists(st.floats(0, 10), min_size=1, max_size=8)


@given(st.dictionaries(st.integers(0, 3), st.tuples(curve, curve), min_size=1))
def test_fractions_against_a_slow_search(curves):
    method = {seed: pair[0] for seed, pair in curves.items()}
    twin = {seed: pair[1] for seed, pair in curves.items()}
    slow = []
    for seed, values in method.items():
        for index in range(len(values)):
            if values[index] <= twin[seed][-1]:
                slow.append((index + 1) / len(twin[seed]))
                break
    found = saving(report(method, twin), PAIR)
    assert found is not None
    assert found.reached == len(slow)
    assert ("step" in found.fractions) == bool(slow)
    if slow:
        assert found.fractions["step"].mean == pytest.approx(sum(slow) / len(slow))
