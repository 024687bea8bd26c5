"""Scores, rows, points: the sums on paper, and what is refused."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.cost import Cost
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score


def row(name: str = "raw", twin: bool = True, group: str = "") -> Row:
    return Row(name, twin, {"dev loss": Score.of([2.0])}, Cost(), group=group)


def point(name: str = "raw", seed: int = 0, step: int = 1, loss: float = 2.0) -> Point:
    return Point(name, seed, step, 1.0, 1.0, 1.0, {"dev loss": loss})


def scatter(*places: float) -> Scatter:
    return Scatter("naswot", "score", "accuracy", (("", *(places or (1.0, 2.0))),), "Of no use.")


def report(**changes: object) -> Report:
    parts = {"room": "averaging", "recipe": "cpu", "rows": (row(),), "points": (), "pairs": (), "metric": "dev loss"}
    return Report(**(parts | changes))


def test_a_score_by_hand():
    assert Score.of([1.0, 2.0, 3.0]) == Score(2.0, 1.0, 3)
    assert Score.of([5]) == Score(5.0, 0.0, 1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_a_score_has_the_sample_standard_deviation(values):
    score = Score.of(values)
    middle = sum(values) / len(values)
    slow = math.sqrt(sum((value - middle) ** 2 for value in values) / (len(values) - 1))
    assert score.n == len(values)
    assert score.mean == pytest.approx(statistics.fmean(values))
    assert score.sd == pytest.approx(slow, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("values", [[math.nan], [1.0, math.inf], []])
def test_a_score_of_nothing_or_of_no_number_is_refused(values):
    with pytest.raises(ValueError, match="score"):
        Score.of(values)


def test_a_score_cannot_be_made_of_nonsense():
    for mean, sd, n in ((math.nan, 0.0, 1), (1.0, -0.1, 2), (1.0, 0.0, 0)):
        with pytest.raises(ValueError, match="score"):
            Score(mean, sd, n)


def test_a_point_that_diverged_is_refused_by_row_step_and_score():
    with pytest.raises(ValueError, match=r"'raw' at step 7, seed 2 has dev loss nan"):
        point(seed=2, step=7, loss=math.nan)


def test_points_come_by_seed_in_order_of_steps_and_only_where_they_hold_the_metric():
    other = Point("raw", 0, 3, 1.0, 1.0, 1.0, {"train loss": 1.0})
    found = report(points=(point(seed=1, step=2), point(seed=0, step=2), point(seed=0, step=1), other)).measured("raw")
    assert list(found) == [0, 1]
    assert [measured.step for measured in found[0]] == [1, 2]


def test_groups_and_metrics_keep_their_order():
    found = report(rows=(row("a", group="z"), row("b", group="y"), row("c", group="z")))
    assert found.groups() == ["z", "y"]
    assert found.metrics() == ["dev loss"]
    assert found.row("b").group == "y"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows": (row(), row())}, "two rows of the report are named 'raw'"),
        ({"metric": "accuracy"}, "no row of the report has the score 'accuracy'"),
        ({"points": (point("lawa"),)}, "the report has no row 'lawa'"),
        ({"pairs": (Pair("lawa", "raw"),)}, "the report has no row 'lawa'"),
        ({"scatters": (scatter(), scatter())}, "two scatters of 'accuracy' are titled 'naswot'"),
    ],
)
def test_a_report_that_does_not_hang_together_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        report(**changes)


@pytest.mark.parametrize("places", [(-math.inf, 1.0), (1.0, math.nan)])
def test_a_point_that_no_picture_can_show_is_refused(places):
    with pytest.raises(ValueError, match=r"point 0 \(''\) of the scatter 'naswot' is at .*: expected finite"):
        scatter(*places)
    with pytest.raises(ValueError, match="'naswot' has no points"):
        Scatter("naswot", "score", "accuracy", (), "")
