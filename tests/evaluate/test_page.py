"""The page: whole in one file, safe with any name, and what it shows."""

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from shoestring.cost import Cost, Ledger
from shoestring.evaluate.page import page, phases
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score

EVIL = "<script>alert('x')</script>\"&"


class Found(HTMLParser):
    """The tags, attributes and text of a page, and whether each tag is closed."""

    EMPTY = frozenset({"meta", "source", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def report(
    name: str = "raw", *, curves: bool = True, notes: tuple[str, ...] = (), groups: int = 1, steps: int = 5
) -> Report:
    rows, points, pairs = [], [], []
    for group in range(groups):
        names = [f"{title}{group}" for title in (name, "LAWA", "EMA", "cool-down")]
        for index, row in enumerate(names):
            score, title = {"dev loss": Score.of([2.0 - index, 2.1 - index])}, row[:-1]
            rows.append(Row(row, index in (0, 3), score, Cost(flops=1e12, seconds=9), f"group {group}", title))
            points += [
                Point(
                    row,
                    seed,
                    step,
                    step,
                    1e9 * step,
                    0.123 * step + seed,
                    {"dev loss": 2 + 9 / step + (0.07, 0, 0.05, -0.01)[index]},
                )
                for seed in (0, 1)
                for step in range(1, steps + 1)
            ]
        pairs.append(Pair(names[1], names[0]))
    facts = {"command": "shoestring run averaging cpu", "machine": EVIL}
    return Report(
        "averaging", "cpu", tuple(rows), tuple(points) if curves else (), tuple(pairs), "dev loss", notes, facts
    )


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures cost seconds: tests that do not look at them do without."""
    for name in ("quality", "curves"):
        monkeypatch.setattr(f"shoestring.evaluate.pictures.{name}", lambda *_: "<svg></svg>")


@pytest.mark.usefixtures("undrawn")
def test_what_it_shows_in_which_order(tmp_path):
    ledger = Ledger()
    with ledger.phase("trunk"):
        ledger.charge(flops=3e12)
    (tmp_path / "ledger.json").write_text(json.dumps(ledger.state_dict()))
    (tmp_path / "recipe.yaml").write_text("steps: 1200  # <b>")
    found = Found(page(report(notes=("LAWA lost once.",)), tmp_path))
    assert found.open == []
    text = " ".join(found.text)
    shown = ["averaging · cpu", "reached raw's final dev loss", "Quality against cost", "Scores and what", "TFLOP"]
    shown += ["Along the way", "Against steps", "Against FLOPs", "Against seconds", "LAWA lost once.", "Cost by phase"]
    shown += ["trunk", "3.00", "steps: 1200  # <b>", "shoestring run averaging cpu"]
    places = [text.index(part) for part in shown]
    assert places == sorted(places)


def test_it_needs_nothing_beside_it(tmp_path):
    found = Found(page(report(), tmp_path))
    addresses = [value for name, value in found.attributes if name in ("src", "srcset", "href")]
    assert len(addresses) == 4 * 4
    assert all(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    for address in addresses:
        assert base64.b64decode(address.partition(",")[2]).startswith(b"<svg")
    assert not {"script", "link", "iframe", "style src"} & set(found.tags)
    policy = dict(found.attributes)["content"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_names_notes_and_facts_are_text(tmp_path):
    (tmp_path / "recipe.yaml").write_text(EVIL)
    text = page(report(EVIL, notes=(EVIL,)), tmp_path)
    assert "<script" not in text
    found = Found(text)
    assert "script" not in found.tags
    assert "".join(found.text).count("<script>alert('x')</script>") >= 4


@pytest.mark.usefixtures("undrawn")
def test_light_and_dark_wide_and_narrow_each_have_a_picture(tmp_path):
    text = page(report(), tmp_path)
    media = re.findall(r'<source media="([^"]*)"', text)
    assert media[:3] == [
        "screen and (prefers-color-scheme: dark) and (max-width: 600px)",
        "(max-width: 600px)",
        "screen and (prefers-color-scheme: dark)",
    ]
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert all(value for name, value in Found(text).attributes if name == "alt")


@pytest.mark.usefixtures("undrawn")
def test_what_is_not_there_is_not_shown(tmp_path):
    text = page(report(curves=False), tmp_path)
    for heading in ("Along the way", "Point by point", "Cost by phase", "Recipe", "Notes"):
        assert f"<h2>{heading}" not in text
    assert "no saving can be stated" in text


def test_scatters_stand_by_their_y_each_with_its_words(tmp_path):
    panels = [
        Scatter(f"{proxy}: τ 0.5", proxy, y, (("", 1.0, 2.0), ("", 2.0, 3.0)), f"{proxy} and {y} rise.")
        for y in ("C10", "C100")
        for proxy in ("naswot", EVIL)
    ]
    text = page(dataclasses.replace(report(curves=False), scatters=tuple(panels)), tmp_path)
    found = Found(text)
    said = " ".join(found.text)
    assert said.index("Scores and what") < said.index("Point by point") < said.index("C10") < said.index("C100")
    assert f"naswot and C100 rise. {EVIL} and C100 rise." in said
    assert "script" not in found.tags
    assert len([value for name, value in found.attributes if name in ("src", "srcset")]) == 3 * 4


@pytest.mark.usefixtures("undrawn")
def test_which_way_is_better_is_said(tmp_path):
    assert "Lower is better." in page(report(curves=False), tmp_path)
    turned = page(dataclasses.replace(report(), lower_is_better=False), tmp_path)
    assert "Higher is better." in turned
    assert "Lower" not in turned


@pytest.mark.usefixtures("undrawn")
def test_of_one_seed_no_spread_is_told(tmp_path):
    several = report()
    assert "mean ± standard deviation over seeds" in page(several, tmp_path)
    rows = tuple(dataclasses.replace(row, scores={"dev loss": Score.of([2.0])}) for row in several.rows)
    points = tuple(point for point in several.points if point.seed == 0)
    one = page(dataclasses.replace(several, rows=rows, points=points), tmp_path)
    assert "standard deviation" not in one
    assert "of each row, of one seed" in one


def test_a_large_report_stays_small(tmp_path):
    assert len(page(report(groups=4, steps=300), tmp_path)) < 1_500_000


@pytest.mark.usefixtures("undrawn")
def test_figures_are_not_parted_from_their_spread(tmp_path):
    text = page(report(), tmp_path)
    sentence = text[text.index("reached raw") :].partition("<")[0]
    assert " ±" not in sentence
    assert "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}" in sentence


def test_phases_by_hand(tmp_path):
    path = tmp_path / "ledger.json"
    path.write_text(json.dumps({"": {"labels": 2}, "a": {"seconds": 1, "peak_bytes": 5e6}, "a/b": {"peak_bytes": 3e6}}))
    found = phases(path)
    assert found.currencies == ("labels", "s", "MB peak")
    assert found.lines == (
        ("outside any phase", ("2.00", "0", "0")),
        ("a", ("0", "1.00", "5.00")),
        ("a/b", ("0", "0", "3.00")),
    )
    assert found.total == ("2.00", "1.00", "5.00")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "ledger.json: not JSON"),
        ("[]", "ledger.json: expected an object of costs by phase"),
        ('{"a": {"euros": 1}}', "ledger.json: a: unknown currency 'euros'"),
        ('{"a": {"flops": NaN}}', "ledger.json: a.flops: expected a finite number"),
    ],
)
def test_a_broken_ledger_is_named(tmp_path, text, told):
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(ValueError, match=told):
        page(report(), tmp_path)
