"""The canvas: the same bytes for the same data, colours that can be told apart, lean and legal SVG."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from shoestring.evaluate.canvas import NARROW, WIDE, darkened, svg


def diagonal(axes, group):
    axes.plot([0, 1], [0, 1.23456789], label=f"line {group}")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("shade", "ground"), [(str, "#ffffff"), (darkened, "#14161a")])
def test_colours_stand_out_from_their_ground_and_from_each_other(shade, ground):
    colours = [shade(colour) for colour in (*WIDE.methods, *WIDE.twins)]
    assert contrast(shade(WIDE.ink), ground) > 4.5
    assert all(contrast(colour, ground) > 3 for colour in colours)
    assert len(set(colours)) == len(colours)


def test_every_colour_has_one_for_dark_ground_and_nothing_else_changes():
    colours = (WIDE.ink, WIDE.grid, *WIDE.methods, *WIDE.twins)
    assert all(darkened(colour) != colour for colour in colours)
    light = svg(["a"], WIDE, diagonal, "loss")
    dark = darkened(light)
    assert dark != light
    assert re.sub(r"#[0-9a-f]{6}", "", light) == re.sub(r"#[0-9a-f]{6}", "", dark)


def test_the_same_data_give_the_same_bytes_whatever_the_user_has_set():
    import matplotlib

    style = WIDE
    first = svg(["a", "b"], style, diagonal, "loss")
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 31, "axes.grid": False}):
        again = svg(["a", "b"], style, diagonal, "loss")
    assert first == again
    assert dict(matplotlib.rcParams) == before


def test_the_text_is_text_in_the_readers_font_and_nothing_is_dated():
    found = svg(["a"], WIDE, diagonal, "loss of 1.675 nats")
    assert found.startswith("<svg")
    assert ">loss of 1.675 nats</text>" in found
    assert "system-ui" in found
    assert "DejaVu" not in found
    assert "dc:date" not in found
    assert "http" not in found.replace("http://www.w3.org/", "")
    assert "1.23456" not in found


def test_a_narrow_picture_stacks_its_panels():
    def size(narrow: bool) -> tuple[float, float]:
        root = ElementTree.fromstring(svg(["a", "b"], NARROW if narrow else WIDE, diagonal, "loss"))
        return float(root.attrib["width"].removesuffix("pt")), float(root.attrib["height"].removesuffix("pt"))

    (wide, low), (narrow, high) = size(False), size(True)
    assert narrow < 0.5 * wide
    assert high > 1.5 * low


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_no_panel_is_left_empty(count):
    found = svg([f"group {index}" for index in range(count)], WIDE, diagonal, "loss")
    assert len(re.findall(r'<g id="axes_\d+">', found)) == count


def test_names_are_text_and_neither_markup_nor_formula():
    def draw(axes, group):
        axes.plot([0, 1], [0, 1], label="<script>alert('$x$ & $y$')</script> 学")

    root = ElementTree.fromstring(svg(["$a$ <b>"], WIDE, draw, "loss"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<script>alert('$x$ & $y$')</script> 学" in texts
    assert "$a$ <b>" in texts
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))


def test_each_title_stands_in_the_legend_once():
    def draw(axes, group):
        axes.plot([0, 1], [0, 1], label="LAWA")

    assert svg(["a", "b", "c"], WIDE, draw, "loss").count(">LAWA</text>") == 1
