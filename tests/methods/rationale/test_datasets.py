"""From rows to examples: the paper's four data sets, and one's own."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale import arithmetic, datasets, labels
from shoestring.methods.rationale.datasets import FORMS, Form
from shoestring.methods.rationale.examples import Example

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data")) / "rationale"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there: set SHOESTRING_DATA")
CQA = {
    "question": "Where do trolls live?",
    "choices": ["bridge", "Mount Dovre", "bridge", "sea"],
    "answer": "mount dovre",
    "llm_rationale": " They live in mountains. ",
    "llm_label": "Bridge.",
    "human_rationale": "as told",
}

# by hand


def test_a_question_with_choices() -> None:
    (found,) = datasets.read([CQA], FORMS["cqa"])
    assert found.text == "Where do trolls live?\nAnswer Choices:\n(a) bridge\n(b) Mount Dovre\n(c) sea"
    assert found == Example(
        found.text, "Mount Dovre", ("bridge", "Mount Dovre", "sea"), "They live in mountains.", "bridge"
    )
    assert found.record == CQA
    assert not found.expression


def test_people_gave_reasons_for_the_label_they_were_told() -> None:
    (found,) = datasets.read([CQA], FORMS["cqa"], reasons="human")
    assert (found.rationale, found.teacher_label, found.told) == ("as told", "Mount Dovre", True)
    (found,) = datasets.read([CQA], FORMS["cqa"], reasons="none")
    assert (found.rationale, found.teacher_label, found.told) == (None, None, False)


def test_an_equation() -> None:
    row = {
        "question": "How many?",
        "equation": "( ( 1.0 + 2.0 ) * 3.5 )",
        "llm_rationale": "x",
        "llm_equation": "(5 + x)",
    }
    (found,) = datasets.read([row], FORMS["svamp"])
    assert (found.text, found.label, found.options, found.teacher_label) == (
        "How many?",
        "((1 + 2) * 3.5)",
        (),
        "(5 + x)",
    )
    assert found.expression
    (found,) = datasets.read([{**row, "llm_equation": " "}], FORMS["svamp"])
    assert found.teacher_label is None


def test_premise_and_hypothesis() -> None:
    row = {
        "premise": "A dog runs.",
        "hypothesis": "It moves.",
        "label": "entailment",
        "llm_rationale": "",
        "llm_label": "",
    }
    (found,) = datasets.read([row], FORMS["esnli"])
    assert found.text == "Premise: A dog runs.\nHypothesis: It moves."
    assert (found.options, found.rationale, found.teacher_label) == (
        ("entailment", "neutral", "contradiction"),
        None,
        None,
    )


def test_a_form_of_ones_own() -> None:
    form = Form(("title", "body_text"), "class", ("spam", "ham"))
    (found,) = datasets.read([{"title": "Hi", "body_text": "Buy {{now}}", "class": "SPAM"}], form)
    assert found == Example("Title: Hi\nBody text: Buy {{now}}", "spam", ("spam", "ham"))
    (found,) = datasets.read([{"text": "x", "label": None}], Form())
    assert found == Example("x")
    (found,) = datasets.read([{"text": 5, "label": 0}], Form(options=("0", "1")))
    assert found == Example("5", "0", ("0", "1"))
    (found,) = datasets.read([{"text": "y"}], Form(label=None))
    assert found.label is None


def test_a_long_text_is_a_text(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"text": "word " * 20_000, "label": "a"}))
    assert len(datasets.read(file, Form())[0].text) == 100_000


def test_letters() -> None:
    assert [datasets.letter(place) for place in (0, 25, 26)] == ["a", "z", "27"]
    assert datasets.lettered(("x", "y")) == "(a) x\n(b) y"


# written and read again


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])).map(str.strip).filter(bool),
    st.none() | st.floats(0, 1),
    st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, text: str, rationale: str | None, agreement: float | None, told: bool
) -> None:
    form = Form(options=("spam", "ham"))
    record = {"text": text, "label": "ham", "other": [1, {"a": None}]}
    example = Example(text, "ham", ("spam", "ham"), rationale, "spam", agreement, told, record=record)
    file = tmp_path_factory.mktemp("w") / "out.jsonl"
    datasets.write(file, [example, example])
    again = datasets.read(file, datasets.kept(form))
    assert again == [example, example]
    assert again[0].record.items() >= record.items()


@given(
    st.tuples(st.integers(0, 99), st.sampled_from("+-*/"), st.integers(0, 99)),
    st.none() | st.sampled_from(["(5 + x)", "7", "(84 / 2)", "no idea"]),
    st.booleans(),
)
def test_what_is_written_of_expressions_is_read(
    tmp_path_factory: pytest.TempPathFactory, sum_: tuple[int, str, int], answer: str | None, told: bool
) -> None:
    label = arithmetic.normalised("({} {} {})".format(*sum_))
    form = Form(expression=True)
    example = Example("How many?", label, (), "so", answer, None, told, True)
    file = tmp_path_factory.mktemp("w") / "out.jsonl"
    datasets.write(file, [example])
    assert datasets.read(file, datasets.kept(form)) == [example]


def test_writing_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "new" / "out.jsonl"
    datasets.write(file, [Example("é", "b", ("a", "b"), "r"), Example("x", record={"half": "\ud800"})])
    first, second = file.read_text(encoding="utf-8").splitlines()
    assert first == (
        '{"text": "é", "label": "b", "options": ["a", "b"], "rationale": "r", "teacher_label": null, '
        '"agreement": null, "told": false}'
    )
    assert json.loads(second)["half"] == "\ud800"
    assert list(file.parent.iterdir()) == [file]
    with pytest.raises(ValueError, match=r"out\.csv: expected a name that ends in \.jsonl"):
        datasets.write(tmp_path / "out.csv", [])
    with pytest.raises(ValueError, match=r"example 1 has a record that JSON cannot hold"):
        datasets.write(file, [Example("x", record={"set": {1}})])


# what is refused


@pytest.mark.parametrize(
    ("change", "form", "message"),
    [
        (
            {"answer": "lake"},
            FORMS["cqa"],
            r"^row 1: column 'answer' holds 'lake', expected one of \['bridge', ",
        ),
        ({"answer": ""}, FORMS["cqa"], r"^row 1: column 'answer' is blank"),
        ({"question": " "}, FORMS["cqa"], r"^row 1: column 'question' is blank"),
        ({"choices": "a, b"}, FORMS["cqa"], r"column 'choices' holds 'a, b', expected a list of options"),
        ({}, replace(FORMS["cqa"], label="anser"), r"no column 'anser'; it has 'question'.*did you mean 'answer'\?"),
        ({}, Form(("question",), "question", expression=True), r"column 'question': 'Where do.*'W' is not of numbers"),
    ],
)
def test_rows_that_are_refused(change: dict[str, Any], form: Form, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        datasets.read([{**CQA, **change}], form)


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x", "label": "a"}\n{"text": "x", "label": "c"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:2: column 'label' holds 'c', expected one of \['a', 'b'\]$"):
        datasets.read(file, Form(options=("a", "b")))
    file.write_text("\n \n")
    with pytest.raises(ValueError, match=r"a\.jsonl: nothing in it, expected at least one row"):
        datasets.read(file, Form())
    with pytest.raises(ValueError, match=r"^the rows: nothing in it"):
        datasets.read([], Form())


def test_forms_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^'esnly': expected one of cqa, svamp, esnli, anli; did you mean 'esnli'\?"):
        datasets.form("esnly")
    assert datasets.form("anli") is FORMS["anli"]
    with pytest.raises(ValueError, match=r"^columns: none"):
        Form(())
    with pytest.raises(ValueError, match=r"of labels that are expressions"):
        Form(options=("1", "2"), expression=True)
    with pytest.raises(ValueError, match=r"two differ by no more than case"):
        Form(options=("yes", "Yes."))
    with pytest.raises(ValueError, match=r"^reasons: 'human', but the form names no column"):
        datasets.read([CQA], FORMS["svamp"], reasons="human")
    with pytest.raises(ValueError, match=r"^reasons: 'persons', expected"):
        datasets.read([CQA], FORMS["cqa"], reasons="persons")  # type: ignore[arg-type]


# the real data


@needs_data
@pytest.mark.parametrize(
    ("name", "file", "count", "accuracy"),
    [
        ("cqa", "cqa_train", 9741, 0.7529),
        ("svamp", "svamp_train", 800, 0.7412),
        ("esnli", "esnli_train", 9842, 0.7317),
        ("anli", "anli1_train", 833, 0.6639),
    ],
)
def test_what_the_teacher_of_the_paper_got_right(name: str, file: str, count: int, accuracy: float) -> None:
    found = datasets.read(DATA / f"{file}.jsonl.gz", FORMS[name])
    assert len(found) == count
    assert all(one.label and one.rationale for one in found)
    right = sum(labels.same(one.label or "", one.teacher_label or "", one.options, one.expression) for one in found)
    assert right / count == pytest.approx(accuracy, abs=5e-5)


@needs_data
def test_equations_are_more_often_right_by_value_than_by_writing() -> None:
    found = datasets.read(DATA / "svamp_train.jsonl.gz", FORMS["svamp"])

    def plain(text: str) -> str:
        return text.replace(".0 ", " ").replace(" ", "")

    assert sum(plain(one.record["equation"]) == plain(one.record["llm_equation"]) for one in found) == 462  # .58
    assert sum(one.label == one.teacher_label for one in found) == 481  # .60, once both are `normalised`
    assert sum(arithmetic.same(one.label or "", one.teacher_label or "") for one in found) == 593  # .74


@needs_data
def test_choices_that_are_listed_twice() -> None:
    found = datasets.read(DATA / "cqa_train.jsonl.gz", FORMS["cqa"])
    assert sum(len(one.options) < 5 for one in found) == 122
