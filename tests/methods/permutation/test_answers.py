"""Answers: windows and spans by hand, against every span tried, and for tokenizers of several kinds."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast, XLNetTokenizerFast

from shoestring.data import tokenizers
from shoestring.methods.permutation.answers import Answer, Found, Window, answer_scores, best_spans, spans
from shoestring.methods.permutation.vocabulary import Vocabulary, prepared

BYTES = prepared(tokenizers.byte_tokenizer())[0]
MERGED = prepared(tokenizers.train_bpe(["the cat sat on the mat and the dog lay by the log " * 20], 280))[0]
PIECES = ["<unk>", "<s>", "</s>", "<sep>", "<cls>", "<pad>", "▁", "▁the", "▁c", "at", "fi", "e", "a", "d", "o", "g"]
SENTENCE = XLNetTokenizerFast(vocab=[(piece, -float(place)) for place, piece in enumerate(PIECES)])
VOCABULARIES = {id(one): Vocabulary.of(one) for one in (BYTES, MERGED, SENTENCE)}
VOCABULARY = VOCABULARIES[id(BYTES)]
CLS = VOCABULARY.cls


def windows_of(tokenizer: PreTrainedTokenizerFast, *given: Any, **named: Any) -> list[Window]:
    return spans(VOCABULARIES[id(tokenizer)], tokenizer, *given, **named)


def piece(window: Window, first: int, last: int) -> str:
    return window.context[window.offsets[first][0] : window.offsets[last][1]].strip()


def test_windows_by_hand() -> None:
    windows = windows_of(BYTES, "q?", "abcdefghij", 10, 3, [(6, "gh")])
    assert [window.ids for window in windows] == [
        [*(ord(letter) for letter in part), VOCABULARY.sep, ord("q"), ord("?"), VOCABULARY.sep, CLS]
        for part in ("abcde", "defgh", "ghij")
    ]
    assert [window.span for window in windows] == [(9, 9), (3, 4), (0, 1)]
    assert windows[0].segments == [0] * 6 + [1] * 3 + [2]
    assert windows[1].offsets == ((3, 4), (4, 5), (5, 6), (6, 7), (7, 8))


def test_answers_that_are_not_there_or_not_known() -> None:
    assert windows_of(BYTES, "q?", "abcd", 10, 3, [])[0].span == (8, 8)
    assert windows_of(BYTES, "q?", "abcd", 10, 3)[0].span is None
    assert windows_of(BYTES, "q?", "abcd", 10, 3, [(1, "bc"), (0, "a")])[0].span == (1, 2)


def test_an_answer_that_a_window_cuts_is_not_in_it() -> None:
    assert [window.span for window in windows_of(BYTES, "q", "abcdefgh", 8, 4, [(3, "de")])] == [(7, 7), (7, 7)]


def test_a_question_takes_half_and_a_stride_leaves_nothing_out() -> None:
    windows = windows_of(BYTES, "0123456789", "abcdefghij", 11, 100)
    assert [len(window.offsets) for window in windows] == [4, 4, 2]
    assert windows[0].ids[5:9] == [ord(digit) for digit in "0123"]
    assert "".join(piece(window, 0, len(window.offsets) - 1) for window in windows) == "abcdefghij"


def test_white_space_around_an_answer_is_not_of_it() -> None:
    window = windows_of(MERGED, "who?", "the cat sat", 30, 8, [(3, " cat ")])[0]
    assert window.span is not None
    assert piece(window, *window.span) == "cat"


def test_letters_of_special_tokens_stay_letters() -> None:
    window = windows_of(BYTES, "<cls>?", "a <sep> b", 40, 8, [(2, "<sep>")])[0]
    assert window.span == (2, 6)
    assert window.ids.count(CLS) == 1


@given(st.text(min_size=1, max_size=30), st.integers(0, 29), st.integers(1, 30), st.integers(7, 40), st.integers(1, 20))
def test_a_span_of_bytes_is_the_answer(context: str, start: int, size: int, length: int, stride: int) -> None:
    answer = context[start : start + size]
    assume(answer.strip())
    windows = windows_of(BYTES, "q?", context, length, stride, [(start, answer)])
    told = [piece(window, *window.span) for window in windows if window.span and window.span[0] < len(window.offsets)]
    assert set(told) <= {answer.strip()}
    bytes_before, bytes_of = len(context[:start].encode()), len(answer.encode())
    if bytes_before + bytes_of <= length - 5:
        assert told
    read = {place for window in windows for first, end in window.offsets for place in range(first, end)}
    assert read == set(range(len(context)))
    assert all(len(window.ids) <= length for window in windows)


@pytest.mark.parametrize("tokenizer", [MERGED, SENTENCE], ids=["bpe", "pieces"])
@given(
    parts=st.lists(st.sampled_from(["the", "cat", "dog", "café", "ﬁn", "½", "a", "x"]), min_size=1, max_size=12),
    between=st.sampled_from([" ", "  ", "\n"]),
    first=st.integers(0, 11),
    count=st.integers(1, 12),
)
def test_a_span_of_words_is_the_answer(
    tokenizer: PreTrainedTokenizerFast, parts: list[str], between: str, first: int, count: int
) -> None:
    chosen = parts[first : first + count]
    assume(chosen)
    context = between.join(parts)
    start = len(between.join([*parts[:first], ""]))
    answer = between.join(chosen)
    window = windows_of(tokenizer, "a cat", context, 120, 8, [(start, answer)])[0]
    assert window.span is not None
    assert piece(window, *window.span) == answer


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", "c"), "the question is '': expected words"),
        (("q", "\n "), "the context is .* expected words"),
        (("q", "abc", 4), "a length of 4 tokens, 3 of them special: expected 5 or more"),
        (("q", "abc", 9, 0), "a stride of 0 tokens: expected one or more"),
        (("q", "abc", 9, 1, [(1, "ab")]), "the answer 'ab' does not stand at character 1 of its context, but 'bc'"),
        (("q", "abc", 9, 1, [(-1, "c")]), "the answer 'c' does not stand at character -1"),
        (("q", "abc", 9, 1, [(3, "d")]), "does not stand at character 3 of its context, but ''"),
        (("q", "a bc", 9, 1, [(1, " ")]), "the answer is ' ': expected words"),
    ],
)
def test_questions_that_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windows_of(BYTES, *given)


def test_tokenizers_that_do_not_tell_where() -> None:
    slow: Any = SimpleNamespace(is_fast=False)
    with pytest.raises(ValueError, match="a SimpleNamespace tells no offsets: expected a fast tokenizer"):
        spans(VOCABULARY, slow, "q", "abc")
    combining = "a \u0301"  # accents are stripped: nothing is left of the second word
    with pytest.raises(ValueError, match="has no token: the tokenizer leaves these characters out"):
        windows_of(SENTENCE, "a", f"{combining} cat", 20, 4, [(2, "\u0301")])


def test_the_best_span_by_hand() -> None:
    windows = windows_of(BYTES, "q", "abcd", 9, 4)
    assert len(windows[0].ids) == 8
    low = -20.0
    starts = torch.tensor([[9.0, 3.0, 1.0, low, 2.0, 9.0, 9.0, 9.0, 0.0]])  # padding, a to d, [SEP q SEP], CLS
    ends = torch.tensor([[9.0, low, low, 3.0, low, 9.0, 9.0, 9.0, 0.0]])
    found = best_spans(windows, starts, ends, count=2)
    total = math.log(math.exp(3) + math.exp(1) + math.exp(2) + 1) + math.log(math.exp(3) + 1)
    assert found.answers[0][:3] == ("abc", 0, 3)
    assert found.answers[0].score == pytest.approx(6 - total, abs=1e-5)
    assert found.none == pytest.approx(-total, abs=1e-5)
    assert found.best() == "abc"
    short = best_spans(windows, starts, ends, longest=2)
    assert short.answers[0][:3] == ("bc", 1, 3)


def test_no_answer_needs_a_margin() -> None:
    found = Found([Answer("abc", 0, 3, -2.0)], -1.0)
    assert [found.best(), found.best(2.0), found.best(1.0), found.best(0.5)] == ["abc", "abc", "abc", ""]
    assert Found([], -1.0).best() == ""


def test_windows_are_compared_by_their_own_sums() -> None:
    windows = windows_of(BYTES, "q", "abcdef", 8, 4)
    sizes = [len(window.ids) for window in windows]
    assert sizes == [8, 6]
    starts = [torch.full((size,), shift) for size, shift in zip(sizes, (50.0, 0.0), strict=True)]
    ends = [row.clone() for row in starts]
    starts[1][1] = ends[1][1] = 2.0
    assert best_spans(windows, starts, ends).best() == "f"


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9), st.integers(1, 7))
def test_against_every_span_tried(seed: int, count: int, longest: int, stride: int) -> None:
    context = "ab  cdé fg"
    windows = windows_of(BYTES, "q?", context, 12, stride)
    generator = torch.Generator().manual_seed(seed)
    starts, ends = torch.randn(2, len(windows), 16, generator=generator, dtype=torch.float64).unbind()
    found = best_spans(windows, starts, ends, count, longest)
    every: dict[tuple[int, int], float] = {}
    nones = []
    for window, start, end in zip(windows, starts, ends, strict=True):
        size = len(window.offsets)
        own = slice(16 - len(window.ids), 16 - len(window.ids) + size)
        start, end = (torch.cat([row[own], row[-1:]]).log_softmax(0) for row in (start, end))
        nones.append(float(start[-1] + end[-1]))
        for first in range(size):
            for last in range(first, min(size, first + longest)):
                left, right = window.offsets[first][0], window.offsets[last][1]
                if context[left] != " " and context[right - 1] != " ":
                    every[left, right] = max(every.get((left, right), -math.inf), float(start[first] + end[last]))
    assert found.none == pytest.approx(min(nones), abs=1e-4)
    assert found.answers[0].score == pytest.approx(max(every.values()), abs=1e-4)
    for answer in found.answers:
        assert answer.text == context[answer.start : answer.end]
        assert answer.score <= every[answer.start, answer.end] + 1e-4
    assert len(found.answers) <= count
    assert [answer.score for answer in found.answers] == sorted(
        (answer.score for answer in found.answers), reverse=True
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], []), "1 windows, logits of 0 and 0: one row each"),
        ((torch.zeros(1, 7), torch.zeros(1, 8)), r"logits \(7,\) of a window of 8 tokens: expected one a token"),
        ((torch.zeros(1, 8), torch.full((1, 8), math.nan)), "not all finite"),
        ((torch.zeros(1, 8), torch.zeros(1, 8), 0), "0 answers of 64 tokens"),
    ],
)
def test_rows_that_are_refused(given: tuple[Any, ...], message: str) -> None:
    windows = windows_of(BYTES, "q", "abcd", 9, 4)
    with pytest.raises(ValueError, match=message):
        best_spans(windows, *given)


def test_windows_of_several_contexts() -> None:
    windows = windows_of(BYTES, "q", "abcd", 9, 4) + windows_of(BYTES, "q", "abce", 9, 4)
    with pytest.raises(ValueError, match="windows of 2 contexts: expected all of one question"):
        best_spans(windows, torch.zeros(2, 8), torch.zeros(2, 8))


@pytest.mark.parametrize(
    ("said", "golds", "exact", "f1"),
    [
        ("The Cat.", ["cat"], 1.0, 1.0),
        ("the black cat", ["a cat", "dog"], 0.0, 2 / 3),
        ("cat cat", ["cat"], 0.0, 2 / 3),
        ("dog", ["cat"], 0.0, 0.0),
        ("dog", ["cat", "big dog", "Dog!"], 1.0, 1.0),
        ("", [], 1.0, 1.0),
        ("cat", [], 0.0, 0.0),
        ("", ["cat"], 0.0, 0.0),
        ("The", ["an"], 1.0, 1.0),
        ("1,000", ["1000"], 1.0, 1.0),
    ],
)
def test_scores_by_hand(said: str, golds: list[str], exact: float, f1: float) -> None:
    assert answer_scores(said, golds) == pytest.approx((exact, f1))


@given(st.text("abthe .,", max_size=12), st.lists(st.text("abthe .,", max_size=12), max_size=3))
def test_scores_are_shares(said: str, golds: list[str]) -> None:
    exact, f1 = answer_scores(said, golds)
    assert exact in (0.0, 1.0)
    assert exact <= f1 <= 1.0
    assert answer_scores(said, [*golds, said]) == (1.0, 1.0)
