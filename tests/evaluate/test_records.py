"""Records: the shape on paper, there and back, and each thing that can be wrong with one."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.cost import Cost
from shoestring.evaluate.records import as_record, cost, parse, row_record
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score

REPORT = Report(
    "averaging",
    "cpu",
    (Row("raw", True, {"dev loss": Score(2.0, 0.1, 3)}, Cost(flops=1e12, seconds=1.5), "g", "Raw"),),
    (Point("raw", 0, 10, 100, 1e9, 0.5, {"dev loss": 2.0}),),
    (Pair("raw", "raw"),),
    "dev loss",
    ("a note",),
    {"command": "shoestring run"},
    scatters=(Scatter("a title", "score", "accuracy", (("", 1.5, 92.0), ("cut", -3.0, 10.0)), "It rises."),),
)


def test_a_row_by_hand():
    assert row_record(REPORT.rows[0]) == {
        "name": "raw",
        "twin": True,
        "scores": {"dev loss": {"mean": 2.0, "sd": 0.1, "n": 3}},
        "cost": {
            "flops": 1_000_000_000_000,
            "tokens": 0,
            "labels": 0,
            "teacher_tokens": 0,
            "bytes_sent": 0,
            "seconds": 1.5,
            "peak_bytes": 0,
        },
    }


def test_there_and_back_through_json():
    assert parse(json.loads(json.dumps(as_record(REPORT))), "here") == REPORT


def test_a_scatter_by_hand():
    assert as_record(REPORT)["scatters"] == [
        {
            "title": "a title",
            "x": "score",
            "y": "accuracy",
            "points": [["", 1.5, 92], ["cut", -3, 10]],
            "says": "It rises.",
        }
    ]


def test_a_report_without_scatters_is_written_and_read_as_it_was_before_there_were_any():
    bare = dataclasses.replace(REPORT, scatters=())
    record = as_record(bare)
    assert "scatters" not in record
    assert parse(record, "here") == bare


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, st.floats(0, 1e300), st.text(), st.booleans())
def test_any_finite_report_comes_back(mean, sd, text, lower):
    rows = (Row(text, lower, {text: Score(mean, sd, 2)}, Cost(flops=sd), text, text),)
    report = Report(text, text, rows, (), (), text, (text,), {text: text}, lower)
    assert parse(json.loads(json.dumps(as_record(report), allow_nan=False)), "here") == report


BROKEN = [
    ((), "nothing", "expected an object with the keys room"),
    (("rooms",), "x", "unknown key 'rooms'"),
    (("metric", "name"), 3, "metric.name: expected a string, found 3"),
    (("metric", "lower_is_better"), "yes", 'metric.lower_is_better: expected true or false, found "yes"'),
    (("rows",), {}, "rows: expected a list"),
    (("rows", 0, "cost", "euros"), 3, r"rows\[0\].cost: unknown currency 'euros'"),
    (("rows", 0, "cost", "flops"), "many", r"rows\[0\].cost.flops: expected a finite number, found \"many\""),
    (("rows", 0, "scores"), [], r"rows\[0\].scores: expected an object"),
    (("rows", 0, "scores", "dev loss", "mean"), math.nan, "dev loss.mean: expected a finite number, found NaN"),
    (("rows", 0, "scores", "dev loss", "n"), 0, "here: rows.*dev loss: a score needs n of 1 or more"),
    (("rows", 0, "scores", "dev loss", "n"), True, "n: expected an integer, found true"),
    (("rows", 0, "twin"), None, r"rows\[0\].twin: expected true or false"),
    (("points", 0, "step"), 1.5, r"points\[0\].step: expected an integer"),
    (("points", 0, "scores"), 1, r"points\[0\].scores: expected an object"),
    (("points", 0, "row"), "ema", "here: the report has no row 'ema'"),
    (("notes", 0), 1, r"notes\[0\]: expected a string"),
    (("facts",), [], "facts: expected an object"),
    (("scatters",), {}, "scatters: expected a list"),
    (("scatters", 0, "x"), 1, r"scatters\[0\].x: expected a string"),
    (("scatters", 0, "points"), [], r"scatters\[0\]: the scatter 'a title' has no points"),
    (("scatters", 0, "points", 1), ["", 1], r"scatters\[0\]: points\[1\]: expected a list of label, x and y"),
    (("scatters", 0, "points", 1, 1), "x", r"points\[1\]: x: expected a finite number"),
    (("scatters", 0, "points", 1, 0), 1, r"points\[1\]: label: expected a string"),
]


@pytest.mark.parametrize(("path", "value", "told"), BROKEN)
def test_what_is_wrong_is_told_by_its_place(path, value, told):
    record = json.loads(json.dumps(as_record(REPORT)))
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    if path:
        holder[path[-1]] = value
    else:
        record = value
    with pytest.raises(ValueError, match=told) as caught:
        parse(record, "here")
    assert str(caught.value).startswith("here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["room", "recipe", "metric", "rows", "points", "pairs", "notes", "facts"])
def test_a_missing_key_is_named(key):
    record = as_record(REPORT)
    del record[key]
    with pytest.raises(ValueError, match=f"here: the key '{key}' is missing"):
        parse(record, "here")


def test_a_cost_is_an_object():
    assert cost({"flops": 3}, "here") == Cost(flops=3)
    with pytest.raises(ValueError, match="here: expected an object of currencies, found 3"):
        cost(3, "here")
