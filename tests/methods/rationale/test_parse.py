"""Completions read into reason and label, and what goes wrong with them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale.parse import PROBLEMS, Parsed, Rules, counts, parse

CHOICES = ("park", "coloring book", "math problem", "gravity")
CQA = Rules(("Q:",), ("So the answer is", "The answer is"), "option")
SVAMP = Rules(("Q:",), ("The answer is",), "expression")
NLI = Rules(("Premise:",), ("Answer:",), "option")
FREE = Rules((), ("The answer is",), "text")
RELATIONS = ("entailment", "neutral", "contradiction")

# by hand


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("It counts. So the answer is (c) math problem.\n\nQ: Next?\nA: x. So the answer is (a) park.", "math problem"),
        ("It counts. So the answer is (c).", "math problem"),
        ("It counts. So the answer is c.", "math problem"),
        ("It counts. So the answer is C", "math problem"),
        ("It counts. So the answer is c) math problem", "math problem"),
        ("It counts. So the answer is Math  Problem", "math problem"),
        ("It counts. So the answer is: (c)", "math problem"),
        ("It counts. Therefore, the answer is **(c) math problem**.", "math problem"),
        ("It counts. **So the answer is (c) math problem.**", "math problem"),
        ("It counts. So the\nanswer is\n(c) math problem.", "math problem"),
        ("It counts. So the answer is (c) math problem, because it counts.", "math problem"),
        ("It counts. So the answer is (c), because it counts.", "math problem"),
        ("It counts. So the answer is (c). It counts apples.", "math problem"),
        ("It counts. So the answer is math problem. It counts apples.", "math problem"),
        ("It counts. So the answer is (d) math problem.", "math problem"),  # the text counts more than the letter
        ("It counts. So the answer is \u200b(c)\u2060 math problem\ufeff.", "math problem"),
        ("It counts. SO THE ANSWER IS (C) MATH PROBLEM.", "math problem"),
        ("Q: again\nIt counts. So the answer is (c).", None),
    ],
)
def test_options(completion: str, expected: str | None) -> None:
    found = parse(completion, CQA, CHOICES)
    assert found.label == expected or expected is None
    assert found.problem is None
    assert found.rationale == ("It counts." if expected else "Q: again\nIt counts.")


@pytest.mark.parametrize(
    "label",
    [
        "(e) ocean",
        "(z)",
        "ocean",
        "park or (b) coloring book",
        "(a) park or gravity",
        "not gravity",
        "(a) and (b)",
        "parks",
    ],
)
def test_labels_outside_the_options(label: str) -> None:
    found = parse(f"So it is. So the answer is {label}.", CQA, CHOICES)
    assert found == Parsed("So it is.", label, "label outside the options")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("(84 / 2).", "(84 / 2)"),
        ("( 84.0 / 2.0 )", "(84 / 2)"),
        ("(16 * 17) * 4.", "((16 * 17) * 4)"),
        ("84 / 2 = 42.", "(84 / 2)"),
        ("(84 / 2) dollars", "(84 / 2)"),
        ("$1,000 - $50.", "(1000 - 50)"),
        ("3 × 4", "(3 * 4)"),
        ("3 x 4 apples", "(3 * 4)"),
        ("**42**.", "42"),
        ("-5", "-5"),
    ],
)
def test_expressions(label: str, expected: str) -> None:
    assert parse(f"Count. The answer is {label}", SVAMP) == Parsed("Count.", expected)


@pytest.mark.parametrize(
    "label",
    [
        "(some - 8)",
        "some - 8",
        "(2 * x)",
        "some bags + 4",
        "(34 + 40) and (62 - 17)",
        "(14, 21)",
        "((491 - 21",
        "50% of 20",
        "5%",
        "9**9**9",
        "2^9",
        "3a",
        "forty",
        "__import__('os').system('echo 1')",
        "().__class__.__bases__[0]",
    ],
)
def test_what_is_no_expression(label: str) -> None:
    assert parse(f"Count. The answer is {label}.", SVAMP) == Parsed("Count.", label, "no expression")


def test_two_sentences() -> None:
    assert parse("A dog moves.\nAnswer: entailment\n\nPremise: x", NLI, RELATIONS) == Parsed(
        "A dog moves.", "entailment"
    )
    assert parse("A dog moves. **Answer:** Neutral", NLI, RELATIONS) == Parsed("A dog moves.", "neutral")
    assert parse("Why.\n\n**Answer: neutral**", NLI, RELATIONS) == Parsed("Why.", "neutral")
    assert parse("My answer: none. Answer: neutral", NLI, RELATIONS) == Parsed("My answer: none.", "neutral")


def test_free_text() -> None:
    assert parse("It is in France. The answer is **Paris**.\nMore.", FREE) == Parsed("It is in France.", "Paris")
    code = "Call it:\n```python\nprint({'a': 1})\n```\nThe answer is `print(x)`."
    assert parse(code, FREE) == Parsed("Call it:\n```python\nprint({'a': 1})\n```", "print(x)")


# what decides among several


def test_the_last_marker_counts() -> None:
    text = "At first sight the answer is (a). So the answer is (a) park? No, it counts. So the answer is (c)."
    found = parse(text, CQA, CHOICES)
    assert found.label == "math problem"
    assert found.rationale == "At first sight the answer is (a). So the answer is (a) park? No, it counts."


def test_the_first_marker_that_occurs_counts() -> None:
    assert parse("x\nSo the answer is (c).\nThe answer is (a).", CQA, CHOICES) == Parsed("x", "math problem")


def test_a_marker_is_made_of_whole_words() -> None:
    assert parse("The answer isn't (a).", CQA, CHOICES).problem == "no marker"
    assert parse("Also the answer is (a).", Rules((), ("so the answer is",)), CHOICES).problem == "no marker"


def test_only_a_line_that_begins_so_is_another_question() -> None:
    found = parse("See the FAQ: it counts (Q: or A:). So the answer is (c).", CQA, CHOICES)
    assert found == Parsed("See the FAQ: it counts (Q: or A:).", "math problem")


# what a model thinks


def test_what_is_thought_is_the_reason_only_where_none_is_said() -> None:
    thought = "<think>\nMaybe (a). So the answer is (a).\n</think>\n"
    assert parse(thought + "It counts. So the answer is (c).", CQA, CHOICES) == Parsed("It counts.", "math problem")
    draft = "Maybe (a). So the answer is (a)."
    assert parse(thought + "So the answer is (c).", CQA, CHOICES) == Parsed(draft, "math problem")
    assert parse(draft + "</think>So the answer is (c).", CQA, CHOICES) == Parsed(draft, "math problem")
    assert parse(thought, CQA, CHOICES) == Parsed(draft, None, "no marker")
    assert parse("<THINK>a <think>b</think> c", CQA, CHOICES, "length") == Parsed("c", None, "cut off")
    assert parse("<think>So the answer is (a).", CQA, CHOICES, "length").problem == "cut off"
    assert parse("It counts. <think> hm </think> So the answer is (c).", CQA, CHOICES) == Parsed(
        "It counts.", "math problem"
    )


# what goes wrong


@pytest.mark.parametrize(
    ("completion", "finish", "expected"),
    [
        ("", None, Parsed(None, None, "empty completion")),
        (" \n\u200b", None, Parsed(None, None, "empty completion")),
        ("", "length", Parsed(None, None, "cut off")),
        ("It counts", None, Parsed("It counts", None, "no marker")),
        ("It counts", "length", Parsed("It counts", None, "cut off")),
        ("It counts. So the answer is", "stop", Parsed("It counts.", None, "empty label")),
        ("It counts. So the answer is .\n", None, Parsed("It counts.", None, "empty label")),
        ("It counts. So the answer is (a) park", "length", Parsed("It counts.", "park", "cut off")),
        ("It counts. So the answer is (a) park.", "length", Parsed("It counts.", "park")),
        ("It counts. So the answer is (a) park\nQ: Nex", "length", Parsed("It counts.", "park")),
        ("It counts. So the answer is (b) coloring", "length", Parsed("It counts.", "(b) coloring", "cut off")),
        ("So the answer is (a) park.", None, Parsed(None, "park", "empty reason")),
        ("So the answer is lake.", None, Parsed(None, "lake", "label outside the options")),
    ],
)
def test_problems(completion: str, finish: str | None, expected: Parsed) -> None:
    assert parse(completion, CQA, CHOICES, finish) == expected


def test_problems_are_counted() -> None:
    found = [parse(text, CQA, CHOICES) for text in ("", "x", "y", "z. So the answer is (a).")]
    assert counts(found) == {"empty completion": 1, "no marker": 2}
    assert counts([]) == {}


# any text


@given(st.text(max_size=200), st.sampled_from([CQA, SVAMP, NLI, FREE]), st.sampled_from([None, "stop", "length"]))
def test_any_completion_is_read(text: str, rules: Rules, finish: str | None) -> None:
    found = parse(text, rules, CHOICES, finish)
    assert found.problem is None or found.problem in PROBLEMS
    if found.problem is None:
        assert found.rationale
        assert found.label
        assert rules.label != "option" or found.label in CHOICES


WORDS = ["A", "dog", "(b)", "is", "<so>", "the", "*", "3", "{x}"]
REASONS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(lambda words: " ".join(words) + ".")


@given(REASONS, st.sampled_from(CHOICES))
def test_a_written_answer_is_read_back(reason: str, label: str) -> None:
    letter = "abcd"[CHOICES.index(label)]
    assert parse(f"{reason} So the answer is ({letter}) {label}.", CQA, CHOICES) == Parsed(reason, label)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 100_000,
        "So the answer is " * 6_000,
        "Q:\n" * 33_000,
        "<think>" * 14_000,
        "So" + " " * 100_000 + "the",
        "x. So the answer is " + "park " * 20_000,
        "x. So the answer is " + "(" * 100_000,
        "x. So the answer is " + "1 + " * 25_000,
        " \n" * 50_000 + "x",
        "*_" * 50_000,
    ],
    ids=lambda text: text[:24].strip(),
)
@pytest.mark.parametrize("rules", [CQA, SVAMP, FREE], ids=lambda rules: rules.label)
def test_long_completions_are_read_in_time(text: str, rules: Rules) -> None:
    start = time.process_time()
    parse(text, rules, CHOICES, "length")
    assert time.process_time() - start < 2
