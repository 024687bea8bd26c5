"""Scatters: which points are drawn where, read back from the SVG."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.cost import Cost
from shoestring.evaluate import scatter
from shoestring.evaluate.canvas import NARROW, WIDE, darkened
from shoestring.evaluate.scores import Report, Row, Scatter, Score

SVG = "{http://www.w3.org/2000/svg}"


def panel(
    title: str = "naswot", points=((("", 0.0, 0.0), ("", 5.0, 5.0), ("", 10.0, 10.0))), y: str = "C10"
) -> Scatter:
    return Scatter(title, f"{title}, nats", y, tuple(points), f"{title} rises.")


def line(count: int, label: str = "") -> list[tuple[str, float, float]]:
    return [(label, float(place), float(place)) for place in range(count)]


def marks(picture: str) -> list[tuple[float, float]]:
    """The places of all marks of clouds, not of ticks."""
    clouds = re.findall(r'<g clip-path="[^"]*" style="fill: [^"]*">(.*?)</g>', picture, re.DOTALL)
    found = [re.findall(r'<use xlink:href="[^"]*" x="([^"]*)" y="([^"]*)"/>', cloud) for cloud in clouds]
    return [(float(x), float(y)) for cloud in found for x, y in cloud]


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_three_points_by_hand():
    """On a line, the middle one half way."""
    (left, bottom), middle, (right, top) = marks(scatter.cloud([panel()]))
    assert left < right
    assert bottom > top  # in SVG, y grows downwards
    assert middle == pytest.approx(((left + right) / 2, (bottom + top) / 2), abs=0.02)


@pytest.mark.parametrize("style", [WIDE, NARROW])
def test_a_panel_each_with_its_title_its_axis_and_one_legend(style):
    found = texts(
        scatter.cloud(
            [panel("naswot", [*line(3, "cut"), *line(4, "whole")]), panel("flops", line(3, "cut")), panel("area")],
            style,
        )
    )
    for said in ("naswot", "flops", "area", "naswot, nats", "flops, nats", "C10", "cut", "whole"):
        assert found.count(said) == 1, said


def test_a_label_has_one_colour_in_all_panels():
    picture = scatter.cloud([panel("a", [*line(3, "x"), *line(3, "y")]), panel("b", line(3, "y"))])
    colours = re.findall(r'<g clip-path="[^"]*" style="fill: (#[0-9a-f]{6})', picture)
    assert colours == [WIDE.methods[0], WIDE.methods[1], WIDE.methods[1]]
    assert WIDE.methods[0] not in darkened(picture)


def test_many_points_are_thinned_evenly_and_it_is_said():
    one = [panel(points=line(4000))]
    assert len(marks(scatter.cloud(one))) == 1500
    assert scatter.says(one) == "naswot rises. Of 4000 points 1500 are drawn."
    three = [panel(title, line(4000)) for title in "abc"]
    assert len(marks(scatter.cloud(three))) == 1500
    assert scatter.says(three).endswith("c rises. Of 12000 points 1500 are drawn.")
    assert scatter.says([panel()]) == "naswot rises."


@given(st.integers(1, 60), st.integers(1, 40))
def test_thinning_keeps_the_order_and_the_spread(points, count):
    kept = [int(x) for _, x, _ in scatter.thinned(line(points), count)]
    assert len(kept) == min(points, count)
    assert kept == sorted(set(kept))
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_few_points_far_below_do_not_press_all_others_together():
    points = [*((("", float(place), 90 + place / 100)) for place in range(100)), *((("", 0.0, 10.0),) * 4)]
    found = [panel(points=points)]
    assert scatter.frame(found) == pytest.approx((90.01, 90.99))
    picture = scatter.cloud(found)
    assert len(marks(picture)) == 99
    assert "5 more below" in texts(picture)
    assert scatter.says(found) == "naswot rises. 5 of 104 points lie outside the frame."
    above = [panel(points=[(label, x, -y) for label, x, y in points])]
    assert scatter.frame(above) == pytest.approx((-90.99, -90.01))
    assert "5 more above" in texts(scatter.cloud(above))


def test_what_is_cut_and_what_is_thinned_are_both_said():
    points = [*((("", float(place), 90 + place / 1e4)) for place in range(2000)), *((("", 0.0, 10.0),) * 50)]
    found = [panel(points=points)]
    assert (
        scatter.says(found) == "naswot rises. 102 of 2050 points lie outside the frame. Of the others 1500 are drawn."
    )
    assert len(marks(scatter.cloud(found))) == 1500


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80))
def test_a_frame_holds_nine_tenths_of_the_points(values):
    low, high = scatter.frame([panel(points=[("", 0.0, value) for value in values])])
    assert min(values) <= low <= high <= max(values)
    assert sum(low <= value <= high for value in values) >= 0.9 * len(values)


def test_one_point_is_drawn_too():
    assert len(texts(scatter.cloud([panel(points=[("", 3.0, 3.0)])]))) > 2


def test_pictures_are_by_their_y_in_order():
    rows = (Row("a", False, {"tau": Score.of([0.5])}, Cost()),)
    panels = (panel("a", y="C10"), panel("a", y="C100"), panel("b", y="C10"))
    found = scatter.pictured(Report("search", "rank", rows, (), (), "tau", scatters=panels))
    assert {y: [one.title for one in shown] for y, shown in found.items()} == {"C10": ["a", "b"], "C100": ["a"]}


def test_the_same_scatter_gives_the_same_bytes_and_few_of_them():
    many = [panel(title, line(2000)) for title in "abcdef"]
    assert scatter.cloud(many) == scatter.cloud(many)
    assert len(scatter.cloud(many)) < 160_000
