"""What is sent to a teacher."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale import datasets, prompts, prompts_reading
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.parse import Parsed, Rules
from shoestring.methods.rationale.prompts import Demonstration, Prompt

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data")) / "rationale"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there: set SHOESTRING_DATA")
ASKED = Prompt(
    "p",
    "Q: {{text}}\nA:",
    "{{rationale}} So the answer is {{option}}.",
    Rules(("Q:",), ("So the answer is",), "option"),
    (Demonstration("Is ice cold?", "It is frozen.", "yes", ("yes", "no")),),
    "Say why.",
    "Q: {{text}}\nIt is {{label}}.\nA:",
    ("yes", "no"),
)
FIRE = Example("Is fire cold?", "no", ("yes", "no"))

# by hand


def test_one_message() -> None:
    assert prompts.messages(ASKED, FIRE) == (
        (
            "user",
            "Say why.\n\nQ: Is ice cold?\nA: It is frozen. So the answer is (a) yes.\n\nQ: Is fire cold?\nA:",
        ),
    )


def test_the_gold_label_is_told_in_its_own_form_alone() -> None:
    ((_, told),) = prompts.messages(ASKED, FIRE, told=True)
    assert told.endswith("Q: Is ice cold?\nIt is yes.\nA: It is frozen. So the answer is (a) yes.\n\n"
                         "Q: Is fire cold?\nIt is no.\nA:")  # fmt: skip
    assert "no" not in prompts.messages(replace(ASKED, options=()), replace(FIRE, text="x"))[0][1].split("\n\n")[-1]


def test_columns_and_options() -> None:
    asked = replace(ASKED, question="{{ premise }}|{{list}}|{{options}}", demonstrations=(), instruction="")
    example = replace(FIRE, record={"premise": "P", "list": ["x", "x", "y"]})
    assert prompts.messages(asked, example) == (("user", "P|(a) x\n(b) y|(a) yes\n(b) no"),)


def test_what_is_filled_in_is_text() -> None:
    text = "{{label}} {{text}} {{ {} }} {0} %s ${x} \\1 \\g<0>"
    ((_, sent),) = prompts.messages(ASKED, replace(FIRE, text=text))
    assert sent.endswith(f"\n\nQ: {text}\nA:")


@given(st.text(max_size=60) | st.text("{} textlabel", max_size=60))
def test_any_text_is_sent_as_it_is(text: str) -> None:
    ((_, sent),) = prompts.messages(ASKED, replace(FIRE, text=text))
    assert sent.endswith(f"yes.\n\nQ: {text}\nA:")


def test_the_answer_is_read_by_the_prompts_rules() -> None:
    assert prompts.read(ASKED, FIRE, "Fire burns. So the answer is (b) no.") == Parsed("Fire burns.", "no")
    assert prompts.read(ASKED, Example("x"), "Fire burns. So the answer is (b) no.") == Parsed("Fire burns.", "no")
    assert prompts.read(ASKED, FIRE, "Fire burns", "length").problem == "cut off"


@pytest.mark.parametrize(
    ("prompt", "example", "told", "message"),
    [
        (replace(ASKED, told=None), FIRE, True, r"^prompt p: has no form 'told'"),
        (ASKED, replace(FIRE, label=None), True, r"^prompt p: no gold label to tell of 'Is fire cold\?'"),
        (ASKED, replace(FIRE, options=("a", "b")), False, r"^prompt p: asks for one of yes, no, and .* are a, b: take"),
        (replace(ASKED, question="{{premise}}"), replace(FIRE, record={"x": 1}), False, r"column 'premise'.* has 'x'"),
        (replace(ASKED, question="{{premise}}"), FIRE, False, r"column 'premise', and the example has no columns"),
    ],
)
def test_what_is_refused(prompt: Prompt, example: Example, told: bool, message: str) -> None:
    prompt = replace(prompt, demonstrations=())
    with pytest.raises(ValueError, match=message):
        prompts.messages(prompt, example, told)


# the shipped prompts on the real data


@needs_data
@pytest.mark.parametrize(("name", "file"), [("cqa", "cqa"), ("svamp", "svamp"), ("esnli", "esnli"), ("anli", "anli1")])
def test_the_rules_read_what_the_papers_teacher_wrote(name: str, file: str) -> None:
    """Its outputs, put together again in their layout: reason and label are those that were published."""
    prompt = prompts_reading.load(name)
    following = "\n\n" + prompts.messages(replace(prompt, demonstrations=(), instruction=""), Example("x"))[0][1]
    for one in datasets.read(DATA / f"{file}_train.jsonl.gz", datasets.FORMS[name]):
        if one.teacher_label is None or "\n" in one.teacher_label:
            continue
        if one.options and one.teacher_label not in one.options:
            continue
        held = {"rationale": one.rationale or "", "label": one.teacher_label, "option": f"(a) {one.teacher_label}"}
        found = prompts.read(prompt, one, prompts.fill(prompt.answer, held) + following)
        assert (found.rationale, found.label) == (one.rationale, one.teacher_label)
