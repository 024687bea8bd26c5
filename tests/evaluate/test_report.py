"""The report on disk: its exact shape, there and back, what a broken or missing file says; and the light import."""

import dataclasses
import json
import subprocess
import sys

import pytest

from shoestring.cost import CURRENCIES, Cost
from shoestring.evaluate.report import Pair, Point, Report, Row, Scatter, Score, compare, read, table, write


@pytest.fixture
def report() -> Report:
    rows = (
        Row("raw", True, {"dev loss": Score.of([2.0, 2.2])}, Cost(flops=1e12, seconds=9.5), "high", "raw weights"),
        Row("lawa", False, {"dev loss": Score.of([1.9, 2.0])}, Cost(flops=1e12, seconds=9.0)),
    )
    points = tuple(
        Point(row, seed, step, 100 * step, 1e9 * step, 0.1 * step, {"dev loss": 3.0 - 0.1 * step + 0.01 * seed})
        for row in ("raw", "lawa")
        for seed in (0, 1)
        for step in (5, 10)
    )
    facts = {"command": "shoestring run averaging cpu", "commit": "abc"}
    return Report("averaging", "cpu", rows, points, (Pair("lawa", "raw"),), "dev loss", ("one \u2028 note",), facts)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Pictures cost seconds, and have tests of their own."""
    for name in ("quality", "curves"):
        monkeypatch.setattr(f"shoestring.evaluate.pictures.{name}", lambda *_: "<svg></svg>")


def test_report_json_has_these_keys_and_no_others(report, tmp_path):
    write(report, tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert list(found) == ["room", "recipe", "rows"]
    assert (found["room"], found["recipe"]) == ("averaging", "cpu")
    for row in found["rows"]:
        assert list(row) == ["name", "twin", "scores", "cost"]
        assert list(row["cost"]) == list(CURRENCIES)
        assert list(row["scores"]["dev loss"]) == ["mean", "sd", "n"]
    assert found["rows"][0]["twin"] is True
    assert found["rows"][0]["scores"]["dev loss"] == {"mean": 2.1, "sd": pytest.approx(0.1414213), "n": 2}
    assert found["rows"][0]["cost"]["seconds"] == 9.5


def test_there_and_back(report, tmp_path):
    write(report, tmp_path / "new" / "run")
    assert read(tmp_path / "new" / "run") == report


def test_scatters_go_there_and_back_as_lines_of_their_own(report, tmp_path, monkeypatch):
    monkeypatch.setattr("shoestring.evaluate.scatter.cloud", lambda *_: "<svg></svg>")
    panel = Scatter("naswot", "score", "accuracy", (("", 0.1, 92.5), ("cut", -3.0, 10.0)), "It rises.")
    found = dataclasses.replace(report, scatters=(panel, dataclasses.replace(panel, title="flops")))
    write(report, tmp_path)
    assert '"scatter"' not in (tmp_path / "log.jsonl").read_text()
    write(found, tmp_path)
    write(found, tmp_path)
    assert (tmp_path / "log.jsonl").read_text().count('"kind": "scatter"') == 2
    assert read(tmp_path) == found
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text().replace("92.5", "NaN"))
    with pytest.raises(ValueError, match=r"log.jsonl line 16: points\[0\]: y: expected a finite number"):
        read(tmp_path)


def test_the_log_keeps_what_others_wrote_and_is_written_twice_alike(report, tmp_path):
    log = tmp_path / "log.jsonl"
    foreign = [
        '{"kind": "train", "step": 1, "loss": NaN}',
        '{"step": 2}',
        '{"kind":"point","row":"of an older report"}',
    ]
    log.write_text("\n".join([*foreign, '{"kind": "train", "st']))
    write(report, tmp_path)
    once = log.read_text()
    write(report, tmp_path)
    assert log.read_text() == once
    assert once.splitlines()[:2] == foreign[:2]
    assert "older report" not in once
    assert read(tmp_path) == report


def test_nothing_is_left_beside_and_the_page_is_there(report, tmp_path):
    write(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "report.html", "report.json"]
    assert "raw weights" in (tmp_path / "report.html").read_text()


def test_a_write_that_fails_leaves_the_old_report(report, tmp_path, monkeypatch):
    write(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(report, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["report.json", "log.jsonl"])
def test_a_missing_file_is_named(report, tmp_path, name):
    write(report, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("report.json", '"room"', '"rum"', "report.json: the key 'room' is missing"),
        ("report.json", '"averaging"', "3", "report.json: room: expected a string, found 3"),
        (
            "report.json",
            '"flops": 1000000000000',
            '"flops": "x"',
            r"report.json: rows\[0\].cost.flops: expected a finite",
        ),
        ("report.json", '"twin": true', '"twin": 1', r"report.json: rows\[0\].twin: expected true or false"),
        ("report.json", '"twin": true', '"extra": 1, "twin": true', r"report.json: rows\[0\]: unknown key 'extra'"),
        ("report.json", '"name": "raw"', '"name": "war"', "log.jsonl: expected a line of kind 'row' for 'war'"),
        ("report.json", "}", "", "report.json: not JSON"),
        ("log.jsonl", '"kind": "metric"', '"kind": "other"', "log.jsonl: expected one line of kind 'metric', found 0"),
        (
            "log.jsonl",
            '"lower_is_better": true',
            '"lower": 1',
            "log.jsonl line 1: the key 'lower_is_better' is missing",
        ),
        ("log.jsonl", '"seed": 0', '"seed": "0"', r"log.jsonl line 8.seed: expected an integer"),
        ("log.jsonl", '"method": "lawa"', '"method": "ema"', "the report has no row 'ema'"),
        ("log.jsonl", '{"kind": "note"', '{"kind": "note', "log.jsonl line 7: not JSON"),
        (
            "log.jsonl",
            '"dev loss": 2.5',
            '"dev loss": NaN',
            r"log.jsonl line 8.scores.dev loss: expected a finite number",
        ),
    ],
)
def test_a_broken_file_is_told_by_file_and_key(report, tmp_path, name, old, new, told):
    write(report, tmp_path)
    path = tmp_path / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=told) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_compare_names_runs_by_folder_and_by_path_where_two_are_alike(report, tmp_path):
    for place in ("a/run", "b/run", "other"):
        write(report, tmp_path / place)
    assert str(compare([tmp_path / "a/run", tmp_path / "other"]).renderables[0].title) == "run | other"
    assert (
        str(compare([tmp_path / "a/run", tmp_path / "b/run"]).renderables[0].title)
        == f"{tmp_path / 'a/run'} | {tmp_path / 'b/run'}"
    )
    with pytest.raises(ValueError, match="nothing to compare"):
        compare([])


def test_the_table_is_the_reports(report):
    assert str(table(report).renderables[0].title) == "averaging · cpu"
    assert table(report).renderables[0].row_count == 3


def test_nothing_heavy_is_imported():
    heavy = (
        "print([name for name in ('torch', 'matplotlib', 'jinja2', 'transformers', 'numpy') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", f"import sys; import shoestring.evaluate.report; {heavy}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"
