"""The most tokens a prompt may have: against tokenizers that count them."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.tokenizers import train_bpe
from shoestring.models.teacher.bounds import Bounds, _common, unseen
from shoestring.models.teacher.words import Question

TEXT = "the cat sat on the mat because internationalisation is a long word and so is immunoelectrophoresis"
WORDS = TEXT.split()


@cache
def tokenizer():
    return train_bpe([" ".join(WORDS * 20), "question: answer: because " * 50, "aaaa " * 100], 330)


def count(question: Question) -> int:
    """A server's own way: a template around the messages, a system prompt before them."""
    told = "".join(f"<|{role}|>\n{text}</s>\n" for role, text in question.messages)
    return len(tokenizer().encode(f"<|system|>\nYou are a helpful assistant.</s>\n{told}<|assistant|>\n"))


def ask(*texts: str) -> Question:
    return Question("q", tuple(("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(texts)))


SHOTS = " ".join(f"question: {word} {' '.join(WORDS[:number])} answer: because" for number, word in enumerate(WORDS))
texts = st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join), st.integers(0, 300).map("a".__mul__))


@given(texts, texts)
def test_no_prompt_has_more_tokens_than_its_bound(one, other):
    bounds = Bounds()
    first = ask(SHOTS + one)
    assert count(first) <= bounds.most(first)
    bounds.learn(first, count(first))
    for second in (
        ask(SHOTS + other),
        ask(SHOTS + one + other),
        ask(SHOTS[: len(one)] + other),
        ask(SHOTS, one, other),
    ):
        assert count(second) <= bounds.most(second)


def test_a_prompt_that_begins_like_a_known_one_is_bounded_tightly():
    bounds = Bounds()
    known, new = ask(SHOTS + "the cat?"), ask(SHOTS + "the mat?")
    assert bounds.most(new) == unseen(new) > 1000
    bounds.learn(known, 50)
    # fifty, what differs from "cat?" on with the end of the message, and the seam
    assert bounds.most(new) == 50 + len("mat?\n") + 16


def test_the_nearest_of_several_counts():
    bounds = Bounds()
    for number in range(20):
        bounds.learn(ask(f"{number % 10} " + "x" * 100 * (number % 10)), 7)
    assert bounds.most(ask("3 " + "x" * 300)) < 7 + 16 + 300


def test_other_messages_may_cost_more():
    bounds = Bounds()
    bounds.learn(ask("a"), 5)
    assert bounds.most(ask("a", "b", "c")) == 5 + len("assistant\nb\nuser\nc\n") + 2 * 16 + 16


@pytest.mark.parametrize(
    ("one", "other"), [("", ""), ("a", ""), ("abc", "abd"), ("abc", "abc"), ("abcd", "abc"), ("x", "y")]
)
def test_how_far_texts_are_alike(one, other):
    slow = next((n for n in range(min(len(one), len(other))) if one[n] != other[n]), min(len(one), len(other)))
    assert _common(one.encode(), other.encode()) == slow
