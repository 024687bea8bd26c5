"""Filtering from the command line: what is left, what is shown, and what is refused."""

from __future__ import annotations

import json

import pytest

from shoestring.methods.rationale import datasets
from shoestring.methods.rationale.tools_form import Said

TOLD = {"agreement": None, "told": False}
ROWS = [
    {"text": "2+2", "label": "4", "rationale": "Two and two are four.", "teacher_label": "4", **TOLD},
    {"text": "2+3", "label": "5", "rationale": "Two and three are [/six].", "teacher_label": "6", **TOLD},
    {"text": "1+1", "label": "2", "rationale": "So the answer is 2.", "teacher_label": "2", **TOLD},
    {"text": "0+1", "label": "1", "rationale": None, "teacher_label": None, **TOLD, "problem": "no marker"},
    {"text": "3+1", "label": "4", "rationale": "Hm.", "teacher_label": "4", "agreement": 0.4, "told": True},
]


@pytest.fixture
def filtered(call, rows_file, tmp_path):
    rows_file(ROWS)
    return lambda *words: call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", *words)


def test_each_filter_by_its_option(filtered, tmp_path, read_rows):
    done = filtered("--agrees", "--consistent", "0.6", "--leak", "--length", "2:256", "--duplicates")
    assert done.code == 0, done.err
    left = read_rows(tmp_path / "f.jsonl")
    assert [row["rationale"] for row in left] == ["Two and two are four.", None, None, None, None]
    through = {"filtered_by": ["agrees", "consistent", "leak", "length", "duplicates"]}
    assert left[1] == {**ROWS[1], "rationale": None, **through}
    words = [line.split()[:3] for line in done.out.splitlines() if line.split()[0] in ("agrees", "consistent", "leak")]
    assert words == [["agrees", "4", "1"], ["consistent", "1", "1"], ["leak", "2", "1"]]
    assert "gold '5', teacher '6': Two and three are [/six]." in done.out
    assert "5 of 5 rows, 1 with a reason" in done.out


def test_whole_examples_are_dropped(filtered, tmp_path, read_rows):
    assert filtered("--agrees", "--drop", "example").code == 0
    assert [row["text"] for row in read_rows(tmp_path / "f.jsonl")] == ["2+2", "1+1", "0+1", "3+1"]


def test_reasons_that_name_the_label(filtered, tmp_path, read_rows):
    assert filtered("--leak-remove").code == 0
    assert read_rows(tmp_path / "f.jsonl")[2]["rationale"] is None


def test_what_was_filtered_is_filtered_again(filtered, call, tmp_path, read_rows):
    filtered("--agrees")
    again = call("filter", tmp_path / "f.jsonl", "--out", tmp_path / "g.jsonl", "--length", "2:9")
    assert again.code == 0
    assert read_rows(tmp_path / "g.jsonl")[4] == {**ROWS[4], "rationale": None, "filtered_by": ["agrees", "length"]}


def test_reasons_in_a_column_of_ones_own(call, rows_file, tmp_path, read_rows):
    rows_file([{"text": "2+3", "label": "5", "why": "Two and three are six.", "says": "6"}])
    words = ("--rationale", "why", "--teacher-label", "says", "--agrees")
    done = call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", *words)
    assert done.code == 0, done.err
    assert read_rows(tmp_path / "f.jsonl")[0]["rationale"] is None
    assert "warning: no reason is left" in done.err
    # who names the column again, as the card says, reads what is left of it
    form = Said(rationale="why", teacher_label="says").form_of(tmp_path / "f.jsonl")
    assert datasets.read(tmp_path / "f.jsonl", form)[0].rationale is None


def test_the_papers_own_files(call, rows_file, tmp_path, read_rows):
    row = {
        "premise": "a",
        "hypothesis": "b",
        "label": "neutral",
        "llm_rationale": "It is open.",
        "llm_label": "neutral",
    }
    rows_file([row])
    words = ("--form", "esnli", "--agrees")
    assert call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", *words).code == 0
    left = read_rows(tmp_path / "f.jsonl")[0]
    assert (left["rationale"], left["llm_rationale"]) == ("It is open.", "It is open.")
    words = ("--form", "esnli", "--length", "4:9")
    assert call("filter", tmp_path / "f.jsonl", "--out", tmp_path / "g.jsonl", *words).code == 0
    left = read_rows(tmp_path / "g.jsonl")[0]
    assert (left["rationale"], left["llm_rationale"]) == (None, "It is open."), "as it came with the data"


@pytest.mark.parametrize("name", ["rationale", "teacher_label"])
def test_what_another_teacher_gave_is_not_written_over(call, rows_file, tmp_path, name):
    """Where a column is named, and the one that is written holds something else."""
    row = {"text": "a", "label": "b", "why": "It is.", "says": "b"}
    words = ("--rationale", "why", "--teacher-label", "says", "--length", "1:9")
    rows_file([{**row, name: "x"}])
    found = call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", *words)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert f"data.jsonl, row 1: its {name!r} is not what " in found.err
    assert not (tmp_path / "f.jsonl").exists()
    rows_file([row])
    assert call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", *words).code == 0
    again = ("filter", tmp_path / "f.jsonl", "--out", tmp_path / "g.jsonl", *words)
    assert call(*again).code == 0, "what it wrote itself is no other teacher's"


def test_one_teachers_reasons_stand_beside_no_other_teachers_labels(call, rows_file, tmp_path, read_rows):
    came = {"premise": "a", "hypothesis": "b", "label": "neutral", "llm_rationale": "No.", "llm_label": "contradiction"}
    rows_file([{**came, "rationale": "It is open.", "teacher_label": "neutral", **TOLD}])
    words = ("--form", "esnli", "--agrees")
    assert call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", *words).code == 0
    left = read_rows(tmp_path / "f.jsonl")[0]
    assert {name: left[name] for name in came} == came
    assert (left["rationale"], left["teacher_label"]) == ("It is open.", "neutral")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no filter: give one or more of --agrees"),
        (("--length", "3"), "--length '3': expected two numbers of words"),
        (("--length", "9:3"), "least 9 and most 3"),
        (("--agrees", "--out", "{tmp}/data.jsonl"), "it is what is read"),
        (("--agrees", "--rationale", "rational"), "no column 'rational'; it has"),
        (("--consistent", "2"), "2.0 is not in the range"),
        (("--agrees", "--drop", "all"), "'all' is not one of"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(filtered, tmp_path, words, message):
    found = filtered(*(word.replace("{tmp}", str(tmp_path)) for word in words))
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert message in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_rows_that_nobody_labelled_but_gold(call, rows_file, tmp_path):
    """A reason that somebody wrote is not one for another label."""
    rows_file([{"text": "2+3", "label": "5", "why": "Two and three are five."}])
    words = ("--rationale", "why", "--agrees")
    found = call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", *words)
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "no row has a teacher's label, which --agrees compares: name it by --teacher-label" in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"]


def test_rows_without_a_gold_label(call, rows_file, tmp_path):
    """Whose column was not named, say."""
    rows_file([{"text": "2+3", "topic": "5", "rationale": "Two and three are six.", "teacher_label": "6", **TOLD}])
    found = call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", "--agrees")
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    assert "no row has a gold label, which --agrees compares: name its column by --label" in found.err


def test_data_without_reasons(call, rows_file, tmp_path):
    rows_file([{"text": "a", "label": "b"}])
    found = call("filter", tmp_path / "data.jsonl", "--out", tmp_path / "f.jsonl", "--agrees")
    assert found.code == 2
    assert "no column of reasons" in found.err


def test_a_file_that_no_filter_wrote_is_not_written_over(filtered, tmp_path):
    (tmp_path / "f.jsonl").write_text('{"mine": 1}\n')
    done = filtered("--agrees")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "it holds what no filter wrote: give another name, or delete it" in done.err
    assert (tmp_path / "f.jsonl").read_text() == '{"mine": 1}\n'
    asked = "".join(json.dumps({**row, "teacher": "m"}) + "\n" for row in ROWS)
    (tmp_path / "f.jsonl").write_text(asked)
    assert "it holds what no filter wrote" in filtered("--agrees").err
    (tmp_path / "f.jsonl").unlink()
    assert filtered("--agrees").code == filtered("--leak").code == 0
