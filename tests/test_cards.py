"""The cards: on a tree made up for the purpose, and then on this repository: no figure there was typed by hand."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from shoestring.cost import Cost
from shoestring.evaluate.report import Pair, Point, Report, Row, Scatter, Score, write

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = {
    "command": "shoestring run averaging cpu",
    "date": "2026-11-20",
    "commit": "0123456789abcdef01",
    "machine": "2 cores",
}
CARD = """---
name: averaging
paper: LAWA
sentence: Average | them.
state: stands
---
# averaging
<!-- results averaging/cpu picture -->
<!-- end -->
before <!-- results averaging/cpu table --> inline
<!-- results averaging/cpu table -->
typed by hand
<!-- end -->
after
<!-- results averaging/cpu savings -->
<!-- end -->
"""


@pytest.fixture
def cards(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import cards

    return cards


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A small repository with one card that stands, a README with the table of rooms, and a run's folder."""
    monkeypatch.setattr("shoestring.evaluate.pictures.quality", lambda *_: "<svg></svg>")
    monkeypatch.setattr("shoestring.evaluate.pictures.curves", lambda *_: "<svg>#0072b2</svg>")
    room = tmp_path / "src" / "shoestring" / "methods" / "averaging"
    room.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "rooms.yaml").write_text(
        "- {name: averaging, paper: LAWA, sentence: to come}\n- {name: mixing, paper: Skill-It, sentence: Draw data.}\n"
    )
    (room / "README.md").write_text(CARD)
    (tmp_path / "README.md").write_text("# shoestring\n<!-- rooms -->\n<!-- end -->\n")
    write(report(), tmp_path / "out")
    return tmp_path


def report(**facts: str) -> Report:
    rows = [
        Row(name, name == "raw", {"dev loss": Score.of(losses)}, Cost(flops=2e12, seconds=30), label=name.upper())
        for name, losses in (("raw", [2.0, 2.02]), ("lawa", [1.9, 1.92]))
    ]
    points = [
        Point(row.name, seed, step, step, step, step, {"dev loss": 3 - step / 10 - 0.1 * (row.name == "lawa")})
        for row in rows
        for seed in (0, 1)
        for step in range(1, 11)
    ]
    found = ORIGIN | {"torch": "2.13"} | facts
    return Report(
        "averaging", "cpu", tuple(rows), tuple(points), (Pair("lawa", "raw"),), "dev loss", ("a note",), found
    )


def test_the_whole_way_by_hand(cards, root, capsys):
    assert cards.main(["check"], root) == 2
    assert "averaging/cpu.json: no such results" in capsys.readouterr().err.replace("\\", "/")
    assert cards.main(["keep", str(root / "out")], root) == 0
    assert cards.main(["check"], root) == 1
    assert "README.md: a block differs" in capsys.readouterr().err
    assert cards.main(["write"], root) == 0
    assert cards.main(["check"], root) == 0
    card = (root / "src/shoestring/methods/averaging/README.md").read_text()
    assert "| RAW (twin) | 2.010 ± 0.014 | 2.00 | 30.0 |" in card
    assert "| LAWA | 1.910 ± 0.014 | 2.00 | 30.0 |" in card
    assert "`shoestring run averaging cpu`, 2026-11-20, commit `0123456789ab`, on 2 cores." in card
    assert "- LAWA reached RAW's final dev loss (2.000 ± 0, 2 seeds) after 90 ± 0 % of its steps" in card
    assert "typed by hand" not in card
    assert "before <!-- results averaging/cpu table --> inline" in card
    assert 'src="../../../../docs/pictures/averaging-cpu-light.svg"' in card
    assert 'srcset="../../../../docs/pictures/averaging-cpu-dark.svg"' in card
    light, dark = ((root / f"docs/pictures/averaging-cpu-{ground}.svg").read_text() for ground in ("light", "dark"))
    assert "#0072b2" in light
    assert "#0072b2" not in dark


def test_the_table_of_rooms_takes_standing_rooms_from_their_cards(cards, root):
    cards.main(["keep", str(root / "out")], root)
    cards.main(["write"], root)
    text = (root / "README.md").read_text()
    assert "| [`averaging`](src/shoestring/methods/averaging/README.md) | LAWA | Average \\| them. | stands |" in text
    assert "| `mixing` | Skill-It | Draw data. | planned |" in text
    assert text.index("averaging") < text.index("mixing")


def test_what_is_kept_holds_the_whole_report(cards, root):
    path = cards.keep(root / "out", root)
    kept = json.loads(path.read_text())
    assert list(kept) == [
        *("room", "recipe", "command", "date", "commit", "machine"),
        *("metric", "rows", "points", "pairs", "notes", "facts", "savings"),
    ]
    assert kept["savings"][0]["fractions"]["step"] == {"mean": 0.9, "sd": 0.0, "n": 2}
    from blocks import load

    assert load(root, "averaging", "cpu")[0] == report()


def test_where_a_run_was_kept_is_left_out_of_its_command(cards, root):
    write(report(command="shoestring run averaging cpu --out /elsewhere/out steps=3"), root / "out")
    kept = json.loads(cards.keep(root / "out", root).read_text())
    assert kept["command"] == kept["facts"]["command"] == "shoestring run averaging cpu steps=3"


def test_writing_twice_changes_nothing(cards, root):
    cards.keep(root / "out", root)
    assert len(cards.write(root)) == 4
    assert cards.write(root) == []


def test_a_card_shows_the_scatters_one_picture_a_quantity(cards, root, capsys, monkeypatch):
    monkeypatch.setattr("shoestring.evaluate.scatter.cloud", lambda panels, *_: f"<svg>{panels[0].y} #0072b2</svg>")
    panels = tuple(
        Scatter(title, "score", y, (("", 1.0, 2.0),), f"<{title}> rises.") for y in ("C10", "C100") for title in "ab"
    )
    write(dataclasses.replace(report(), scatters=panels), root / "out")
    readme, pictures = root / "README.md", root / "docs/pictures"
    readme.write_text("<!-- results averaging/cpu scatter -->\n<!-- end -->\n")
    cards.keep(root / "out", root)
    cards.write(root)
    assert cards.check(root) == []
    text = readme.read_text()
    assert text.count("<picture>") == 2
    assert 'src="docs/pictures/averaging-cpu-scatter2-light.svg" alt="&lt;a&gt; rises. &lt;b&gt; rises."' in text
    assert "C10 #0072b2" in (pictures / "averaging-cpu-scatter1-light.svg").read_text()
    assert "C100 #56b4e9" in (pictures / "averaging-cpu-scatter2-dark.svg").read_text()
    assert cards.write(root) == []
    (pictures / "averaging-cpu-scatter2-dark.svg").unlink()
    assert cards.check(root) == [
        "docs/pictures/averaging-cpu-scatter2-dark.svg: not drawn from its results: run `make cards`"
    ]
    assert cards.write(root) == [pictures / "averaging-cpu-scatter2-dark.svg"]


@pytest.mark.parametrize(
    ("place", "old", "new", "told"),
    [
        ("src/shoestring/methods/averaging/README.md", "1.910", "1.810", "README.md: a block differs"),
        ("README.md", "planned", "stands", "README.md: a block differs"),
        ("results/averaging/cpu.json", "1.91", "1.81", "averaging-cpu-light.svg: not drawn from its results"),
        ("docs/pictures/averaging-cpu-dark.svg", "sha256 ", "sha256 0", "averaging-cpu-dark.svg: not drawn"),
    ],
)
def test_a_figure_changed_by_hand_is_found(cards, root, capsys, place, old, new, told):
    cards.keep(root / "out", root)
    cards.write(root)
    path = root / place
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert cards.main(["check"], root) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("fact", sorted(ORIGIN))
def test_a_run_that_does_not_say_where_it_comes_from_is_not_kept(cards, root, capsys, fact):
    write(report(**{fact: ""}), root / "out")
    assert cards.main(["keep", str(root / "out")], root) == 2
    assert f"no fact '{fact}'" in capsys.readouterr().err
    assert not (root / "results").exists()


def test_a_benchmark_has_a_table_of_its_own_columns(cards, root):
    rows = [{"size": "1 GB", "ours": 1.23456, "exact": True}, {"size": "3 GB", "ours": 12345, "peer": None}]
    (root / "results/benchmarks").mkdir(parents=True)
    (root / "results/benchmarks/merge.json").write_text(json.dumps({"benchmark": "merge", **ORIGIN, "rows": rows}))
    (root / "docs/speed.md").write_text("<!-- results benchmarks/merge table -->\n<!-- end -->\n")
    cards.keep(root / "out", root)
    cards.write(root)
    text = (root / "docs/speed.md").read_text()
    assert "| size | ours | exact | peer |\n| :-- | --: | --: | --: |\n| 1 GB | 1.235 | yes | – |" in text
    assert "| 3 GB | 12345 | – | – |" in text
    assert "commit `0123456789ab`" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<!-- rooms -->\n", "has no end"),
        ("<!-- rooms -->\n<!-- rooms -->\n<!-- end -->\n", "has no end"),
        ("<!-- results averaging/cpu chart -->\n<!-- end -->\n", "unknown block 'results averaging/cpu chart'"),
        ("<!-- results ../../etc/cpu table -->\n<!-- end -->\n", "unknown block"),
        ("<!-- results averaging/cpu scatter -->\n<!-- end -->\n", "the report has no scatters"),
        ("<!-- results benchmarks/x picture -->\n<!-- end -->\n", "a benchmark has a table only"),
        ("<!-- results mixing/cpu table -->\n<!-- end -->\n", "no such results"),
    ],
)
def test_a_wrong_block_is_named_with_its_file(cards, root, capsys, text, told):
    cards.keep(root / "out", root)
    (root / "README.md").write_text(text)
    assert cards.main(["write"], root) == 2
    assert told in capsys.readouterr().err
    assert (root / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("---\nname", "name", "expected front matter"),
        ("state: stands\n", "", "front matter: the key 'state' is missing"),
        ("name: averaging", "name: mixing", "expected the folder's name 'averaging'"),
    ],
)
def test_wrong_front_matter_is_named_with_its_file(cards, root, capsys, old, new, told):
    (root / "src/shoestring/methods/averaging/README.md").write_text(CARD.replace(old, new, 1))
    assert cards.main(["write"], root) == 2
    assert told in capsys.readouterr().err


def test_a_report_cannot_name_a_file_outside_results(cards, root):
    bad = report()
    write(Report("../../etc", bad.recipe, bad.rows, bad.points, bad.pairs, bad.metric, (), bad.facts), root / "out")
    with pytest.raises(ValueError, match="cannot name a file"):
        cards.keep(root / "out", root)


def test_this_repository_is_what_write_would_write(cards):
    assert cards.check(ROOT) == []


def test_all_ten_rooms_are_listed(cards):
    table = cards.block(ROOT / "README.md", "rooms", ROOT)
    assert table.count("\n| ") == 11
