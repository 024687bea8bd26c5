"""Pictures: what is drawn where, read back from the axes and from the SVG."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from shoestring.cost import Cost
from shoestring.evaluate import pictures
from shoestring.evaluate.canvas import NARROW, WIDE
from shoestring.evaluate.scores import Pair, Point, Report, Row, Score


def report(*, groups=("",), steps=range(1, 41), seeds=(0, 1), lower_is_better=True, twin_offset=0.1) -> Report:
    """Straight lines: the twin ends at 1 + offset, the method runs that much better all along."""
    rows, points, pairs = [], [], []
    for group in groups:
        for title, twin in (("raw", True), ("LAWA", False)):
            sign = 1 if lower_is_better else -1
            finals = []
            for seed in seeds:
                for step in steps:
                    loss = sign * (5 - 4 * step / max(steps) + (twin_offset if twin else 0)) + 0.01 * seed
                    points.append(Point(title + group, seed, step, step, 1e9 * step, 0.5 * step, {"dev loss": loss}))
                finals.append(loss)
            rows.append(Row(title + group, twin, {"dev loss": Score.of(finals)}, Cost(flops=4e10), group, title))
        pairs.append(Pair("LAWA" + group, "raw" + group))
    return Report(
        "averaging", "cpu", tuple(rows), tuple(points), tuple(pairs), "dev loss", lower_is_better=lower_is_better
    )


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def test_the_saving_is_marked_by_hand():
    """A slope of 0.1 a step and an offset of 0.1 make the method one step of forty sooner."""
    assert "98 ± 0 %" in texts(pictures.curves(report(), "step"))


def test_a_line_by_hand():
    line = pictures._line(report(steps=(10, 20)), "raw", "flops", 1e9)
    assert [place for place, _, _ in line] == [10, 20]
    assert [mean for _, mean, _ in line] == pytest.approx([3.105, 1.105])
    assert [sd for _, _, sd in line] == pytest.approx([0.01 / 2**0.5] * 2)


def test_a_step_that_one_seed_lacks_is_left_out():
    full = report(steps=(10, 20, 30))
    points = tuple(point for point in full.points if (point.row, point.seed, point.step) != ("raw", 1, 20))
    thinned = Report("a", "b", full.rows, points, full.pairs, "dev loss")
    assert [place for place, _, _ in pictures._line(thinned, "raw", "step", 1)] == [10, 30]


def test_long_runs_are_thinned_but_keep_their_end():
    line = pictures._line(report(steps=range(1, 3001)), "raw", "step", 1)
    assert len(line) <= 482
    assert line[-1][0] == 3000


def test_the_window_cuts_the_steep_start_and_keeps_every_end():
    falling = [(float(step), 10.0 / step, 0.0) for step in range(1, 101)]
    low, high = pictures._window([falling], lower_is_better=True)
    assert low < 0.1 < high < 1
    rising = [(place, -mean, spread) for place, mean, spread in falling]
    assert pictures._window([rising], lower_is_better=False) == pytest.approx((-high, -low))
    late = [(100.0, 5.0, 0.5)]
    assert pictures._window([falling, late], lower_is_better=True)[1] > 5.5


def test_of_a_line_by_itself_with_few_points_all_is_shown():
    falling = [(float(step), 10.0 / step, 0.0) for step in range(1, 12)]
    for lower_is_better in (True, False):
        low, high = pictures._window([falling], lower_is_better)
        assert low < 10 / 11
        assert high > 10
    assert pictures._window([falling, falling], lower_is_better=True)[1] < 10


@pytest.mark.parametrize("axis", ["step", "flops", "seconds"])
@pytest.mark.parametrize("style", [WIDE, NARROW])
def test_every_picture_has_a_panel_a_group_and_each_row_in_the_legend(axis, style):
    found = texts(pictures.curves(report(groups=("low", "high")), axis, style))
    assert found.count("low") == found.count("high") == 1
    assert found.count("raw") == found.count("LAWA") == 1
    assert {"step": "steps", "flops": "GFLOP", "seconds": "seconds"}[axis] in found


def test_twins_are_dashed_and_methods_are_not():
    picture = pictures.curves(report(), "step")
    dashed = set(re.findall(r"stroke-dasharray: [^;]*; [^\"]*?stroke: (#[0-9a-f]{6})", picture))
    assert dashed == {"#5d6675"}
    assert "stroke: #0072b2" in picture


def test_quality_names_each_row_and_its_currency():
    found = texts(pictures.quality(report()))
    assert {"raw", "LAWA", "GFLOP", "final dev loss"} <= set(found)
    free = report()
    rows = tuple(Row(row.name, row.twin, row.scores, Cost(seconds=900), "", row.title) for row in free.rows)
    assert "minutes" in texts(pictures.quality(Report("a", "b", rows, (), (), "dev loss")))


def test_pictures_of_little_are_drawn_too():
    """One seed, one point, no spread, no pair, nothing along the way."""
    one = report(steps=(1,), seeds=(0,))
    assert pictures.curves(one, "step").startswith("<svg")
    bare = Report("a", "b", one.rows, (), (), "dev loss")
    assert pictures.curves(bare, "step").startswith("<svg")
    assert pictures.quality(bare).startswith("<svg")


def test_where_higher_is_better_the_picture_is_drawn_too():
    assert "98 ± 0 %" in texts(pictures.curves(report(lower_is_better=False), "step"))


def test_a_group_that_was_not_scored_by_the_metric_has_no_panel():
    whole = report(groups=("low", "high"))
    other = Row("alone", False, {"seconds": Score.of([1.0])}, Cost(), "other")
    found = Report("a", "b", (*whole.rows, other), whole.points, whole.pairs, "dev loss")
    for picture in (pictures.quality(found), pictures.curves(found, "step")):
        assert {"low", "high"} <= set(texts(picture))
        assert "other" not in texts(picture)


def test_the_same_report_gives_the_same_bytes():
    assert pictures.curves(report(), "flops") == pictures.curves(report(), "flops")
