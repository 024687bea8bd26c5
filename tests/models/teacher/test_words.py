"""The words of asking: what makes two answers the same one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.models.teacher.words import Parameters, Question, key

QUESTION = Question("a", (("system", "be brief"), ("user", "what is {x}?")))
PARAMETERS = Parameters(max_tokens=10, temperature=0.5, top_p=0.9, stop=("\n",), seed=3)


def test_a_key_is_known_for_good():
    """Else every answer that is kept anywhere would be asked for again."""
    known = "f4717a99c4419147"
    assert key(Question("a", (("user", "b"),)), "m", Parameters())[:16] == known


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 11},
        {"temperature": 0.6},
        {"top_p": 1.0},
        {"stop": ()},
        {"stop": ("\n", "a")},
        {"stop": ("\n ",)},
        {"seed": 4},
        {"seed": None},
    ],
)
def test_another_parameter_is_another_answer(change):
    assert key(QUESTION, "m", PARAMETERS) != key(QUESTION, "m", replace(PARAMETERS, **change))


def test_another_prompt_model_or_sample_is_another_answer_and_a_name_is_not():
    same = key(QUESTION, "m", PARAMETERS)
    assert same == key(replace(QUESTION, name="b"), "m", PARAMETERS)
    others = [
        key(QUESTION, "n", PARAMETERS),
        key(replace(QUESTION, sample=1), "m", PARAMETERS),
        key(replace(QUESTION, messages=QUESTION.messages[::-1]), "m", PARAMETERS),
        key(replace(QUESTION, messages=QUESTION.messages[:1]), "m", PARAMETERS),
        key(replace(QUESTION, messages=(("system", "be briefwhat"), ("user", " is {x}?"))), "m", PARAMETERS),
    ]
    assert len({same, *others}) == 6


def test_a_whole_number_is_the_same_temperature():
    assert key(QUESTION, "m", Parameters(temperature=1, top_p=1)) == key(QUESTION, "m", Parameters(temperature=1.0))


@given(st.text(), st.text())
def test_texts_of_any_letters_have_keys_of_their_own(one, other):
    keys = {key(Question("a", (("user", text),)), "m", PARAMETERS) for text in (one, other)}
    assert len(keys) == len({one, other})


def test_half_a_character_has_a_key():
    assert len(key(Question("a", (("user", "\ud800"),)), "m", PARAMETERS)) == 64


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_tokens": 0}, r"max_tokens is 0: expected one or more"),
        ({"temperature": -1}, r"temperature is -1: expected zero or more"),
        ({"temperature": float("nan")}, r"temperature is nan"),
        ({"top_p": 0}, r"top_p is 0: expected more than 0 and at most 1"),
        ({"stop": "\n"}, r"stop is '\\n': expected a tuple of texts"),
        ({"stop": ("",)}, r"stop is \(''"),
    ],
)
def test_parameters_out_of_range_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Parameters(**values)
