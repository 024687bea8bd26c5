"""Columns by options: what is named, what is taken where it is there, and what contradicts."""

from __future__ import annotations

import pytest

from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.tools_form import Said, check_gold, first_row

ASKED = {"rationale": "a", "teacher_label": "b", "agreement": None, "told": False}


def test_nothing_said():
    assert Said().fitting({"text": "a"}) == Form(label=None)
    assert Said().fitting({"text": "a", "label": "b"}) == Form(label="label")
    found = Said().fitting({"text": "a", **ASKED})
    assert (found.rationale, found.teacher_label, found.agreement, found.told) == tuple(ASKED)


def test_a_known_set_before_and_after_it_was_asked_about():
    row = {"premise": "a", "hypothesis": "b", "label": "neutral", "llm_rationale": "c", "human_rationale": "d"}
    before = Said(form="esnli").fitting(row)
    assert (before.rationale, before.teacher_label, before.human) == ("llm_rationale", None, "human_rationale")
    assert Said(form="esnli").fitting({**row, **ASKED}).rationale == "rationale"


def test_what_is_named_is_meant_whether_it_is_there_or_not():
    found = Said(label="gold", rationale="why", teacher_label="says", column=["a", "b"]).fitting({"text": "a"})
    assert (found.columns, found.label, found.rationale, found.teacher_label) == (("a", "b"), "gold", "why", "says")


def test_labels():
    assert Said(option=[" yes ", "no"]).fitting({}).options == ("yes", "no")
    assert Said(options="choices").fitting({}).options == "choices"
    assert Said(expression=True).fitting({}).expression
    assert Said(form="svamp", option=["1", "2"]).fitting({}).options == ("1", "2")
    with pytest.raises(ValueError, match=r"--option yes and --options choices: give one or the other"):
        Said(option=["yes"], options="choices").fitting({})
    with pytest.raises(ValueError, match=r"labels that are expressions"):
        Said(option=["yes"], expression=True).fitting({})
    with pytest.raises(ValueError, match=r"of which two differ by no more than case"):
        Said(option=["yes", "Yes."]).fitting({})


def test_what_was_known_before_stands_where_nothing_is_said():
    known = Form(("question",), options=("yes", "no"))
    assert Said().fitting({}, known).columns == ("question",)
    assert Said(column=["text"]).fitting({}, known).options == ("yes", "no")


def test_the_first_row(rows_file, tmp_path):
    assert first_row(rows_file([{"a": 1}, {"b": 2}])) == {"a": 1}
    with pytest.raises(ValueError, match=r"nothing in it"):
        first_row(rows_file([]))
    with pytest.raises(ValueError, match=r"no such file"):
        first_row(tmp_path / "none.jsonl")


def test_no_gold_labels_are_missed_by_their_own_name(tmp_path):
    check_gold(Form(), tmp_path / "data.jsonl")
    with pytest.raises(ValueError, match=r"data\.jsonl: no column of gold labels: name it by --label; train --unlab"):
        check_gold(Form(label=None), tmp_path / "data.jsonl")


def test_parts_without_labels(rows_file):
    data, dev = rows_file([{"text": "a"}]), rows_file([{"text": "b", "label": "c"}], "dev.jsonl")
    assert Said().of_parts(data, dev, unlabelled=True).label == "label"
    assert Said().of_parts(data, dev, unlabelled=False).label is None
