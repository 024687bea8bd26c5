"""Reasoning chains, and the program that teaches them: what it says, how often it slips, what prompts make of it."""

from __future__ import annotations

import re
from collections import Counter
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale import chains as module
from shoestring.methods.rationale import prompts, prompts_reading
from shoestring.methods.rationale.chains import DIGITS, Shape, asked, chains, solve, spelled, taught
from shoestring.methods.rationale.parse import Parsed

SHAPES = st.builds(Shape, st.integers(2, 6), st.integers(1, 8))

# by hand


@pytest.mark.parametrize(
    ("text", "reason", "label"),
    [
        ("a=3;b=5;c=b+a;?c", "5+3=8", "8"),
        ("a=2;b=9;c=a-b;?c", "2-9=3", "3"),
        ("a=7;b=6;c=a-b;d=b+c;?d", "7-6=1;6+1=7", "7"),
        ("a=9;b=9;c=a+b;?c", "9+9=8", "8"),
        ("a=4;b=0;?a", "", "4"),
    ],
)
def test_chains_are_solved_modulo_ten(text: str, reason: str, label: str) -> None:
    assert solve(text) == (reason, label)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?a",
        "a=3;b=5",
        "a=3;b=5;c=b*a;?c",
        "a=3;b=5;c=b+a;?c ",
        "Q: a=3;b=5;c=b+a;?c",
        "a=3;?b",
        "a=3;b=b+a;?b",
        "a=+;?a",
        "a=b;?a",
        "a=3;b=aaa;?b",
        "a=3;b=a+a+a;?b",
        "a=3;b=a+5;?b",
        "a=3;b=3a;?b",
    ],
)
def test_what_is_no_chain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no chain: expected a text such as 'a=3;b=5;c=b\+a;\?c'"):
        solve(text)


@pytest.mark.parametrize(("given", "derived"), [(1, 1), (2, 0), (-1, 3), (20, 7)])
def test_shapes_that_cannot_be(given: int, derived: int) -> None:
    with pytest.raises(ValueError, match=rf"chains of {given} given and {derived} derived letters: expected two given"):
        Shape(given, derived)
    assert Shape(20, 6).derived == 6


def test_steps_that_repeat_what_they_fill_in() -> None:
    text = "a=7;b=6;c=a-b;d=b+c;?d"
    assert spelled(text, solve(text)[0]) == "c=a-b=7-6=1;d=b+c=6+1=7"
    assert spelled(text, "7-6=1;6+1=3") == "c=a-b=7-6=1;d=b+c=6+1=3"


def test_the_last_chain_of_a_prompt_is_what_is_asked() -> None:
    prompt = "Q: a=3;b=5;c=b+a;?c\nA: 5+3=8 So the answer is 8.\n\nQ: a=1;b=2;c=a-b;?c\nA:"
    assert asked(prompt) == "a=1;b=2;c=a-b;?c"
    assert asked("a=3;b=5;c=b+a;?c") == "a=3;b=5;c=b+a;?c"
    with pytest.raises(ValueError, match=r"no chain stands in 'What is it\?'"):
        asked("What is it?")


def test_as_many_as_there_are_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LETTERS", "xyz")
    # six orders of the letters, ten digits twice, which of the two comes first in the sum, two signs
    every = chains(Shape(2, 1), 2400, 0)
    assert len({example.text for example in every}) == 2400
    with pytest.raises(ValueError, match=r"2401 different chains of 2 given and 1 derived letters were not found"):
        chains(Shape(2, 1), 2401, 0)
    assert chains(Shape(2, 1), 0, 0) == []


def test_any_letter_may_stand_anywhere() -> None:
    texts = [example.text for example in chains(Shape(2, 2), 2000, 0)]
    for place in ("^(.)=", ";(.)=[0-9];.=[a-z]", r"\?(.)$"):
        found = Counter(re.findall(place, "\n".join(texts), re.MULTILINE))
        assert len(found) == 26
        assert found.total() == len(texts)
        assert max(found.values()) < 2 * len(texts) / 26


def test_a_slip_is_in_the_last_step_alone() -> None:
    for example in chains(Shape(3, 2), 100, 0):
        reason, label = solve(example.text)
        said, wrong = taught(example.text, error_rate=1.0)
        assert wrong != label
        assert wrong in DIGITS
        assert said == reason[:-1] + wrong


# against a slow reference


def value(letter: str, terms: dict[str, str]) -> int:
    """By going back from what is asked."""
    term = terms[letter]
    if term.isdigit():
        return int(term)
    one, other = value(term[0], terms), value(term[2], terms)
    return one + other if term[1] == "+" else one - other


@given(SHAPES, st.integers(0, 2**63))
def test_every_chain_has_the_label_that_its_letters_come_to(shape: Shape, seed: int) -> None:
    for example in chains(shape, 5, seed):
        *assignments, end = example.text.split(";")
        terms = dict(assignment.split("=") for assignment in assignments)
        assert example.label == str(value(end[1], terms) % 10)
        assert example.options == DIGITS
        assert (example.rationale, example.teacher_label) == (None, None)


# property


@given(SHAPES, st.integers(0, 2**63))
def test_each_step_of_a_reason_is_right_and_needed(shape: Shape, seed: int) -> None:
    (example,) = chains(shape, 1, seed)
    reason, label = solve(example.text)
    steps = reason.split(";")
    assert len(steps) == shape.derived
    assert steps[-1].endswith(f"={label}")
    known = dict(re.findall(r"([a-z])=([0-9]);", example.text))
    assert len(known) == shape.given
    terms = re.findall(r"([a-z])=([a-z][+-][a-z]);", example.text)
    before = ""
    for step, (letter, term) in zip(steps, terms, strict=True):
        filled, found = step.split("=")
        assert filled == f"{known[term[0]]}{term[1]}{known[term[2]]}"
        one, other = int(filled[0]), int(filled[2])
        assert int(found) == (one + other if filled[1] == "+" else one - other) % 10
        assert term[0] != term[2]
        assert before in term, "no step can be left out"
        known[letter], before = found, letter
    assert example.text.endswith(f"?{letter}")


@given(SHAPES, st.integers(0, 2**63))
def test_the_same_seed_gives_the_same_and_another_part_has_none_of_it(shape: Shape, seed: int) -> None:
    held_out = chains(shape, 20, seed)
    assert held_out == chains(shape, 20, seed)
    assert held_out[:5] == chains(shape, 5, seed)
    assert held_out != chains(shape, 20, seed ^ 1)
    known = frozenset(example.text for example in held_out)
    assert not known & {example.text for example in chains(shape, 20, seed, known)}


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.3, 0.9, 1.0])
def test_a_teacher_slips_as_often_as_it_is_told(rate: float) -> None:
    texts = [example.text for example in chains(Shape(4, 2), 3000, 1)]
    wrong = [[taught(text, rate, seed) != solve(text) for text in texts] for seed in (0, 1)]
    error = 4 * sqrt(rate * (1 - rate) / len(texts))
    for slips in wrong:
        assert sum(slips) / len(texts) == pytest.approx(rate, abs=error + 1e-12)
    both = sum(one and other for one, other in zip(*wrong, strict=True)) / len(texts)
    assert both == pytest.approx(rate**2, abs=error + 1e-12), "another seed is another sample"
    assert wrong[0] == [taught(text, rate, 0) != solve(text) for text in texts]


@given(SHAPES, st.integers(0, 2**32), st.floats(0, 1), st.booleans())
def test_the_prompt_reads_what_its_own_teacher_says(shape: Shape, seed: int, rate: float, told: bool) -> None:
    prompt = prompts_reading.load("chains")
    (example,) = chains(shape, 1, seed)
    ((role, content),) = prompts.messages(prompt, example, told)
    assert role == "user"
    assert asked(content) == example.text
    reason, label = taught(asked(content), rate, seed)
    completion = f" {reason} So the answer is {label}."
    assert prompts.read(prompt, example, completion, "stop") == Parsed(reason, label)
    assert prompts.read(prompt, example, f"{completion}\n\nQ: a=1;b=1;c=a+b;?c") == Parsed(reason, label)
