"""Features: by hand, against what is said of truncation taken literally, and padded together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data import tokenizers
from shoestring.methods.permutation.features import Choices, Feature, choices, classification, collate
from shoestring.methods.permutation.vocabulary import Vocabulary, prepared

TOKENIZER = prepared(tokenizers.byte_tokenizer())[0]
VOCABULARY = Vocabulary.of(TOKENIZER)
ENCODE = tokenizers.encoder(TOKENIZER)
SEP, CLS, PAD = VOCABULARY.sep, VOCABULARY.cls, VOCABULARY.pad

words = st.text("abc ", min_size=1, max_size=30).filter(lambda text: bool(text.strip()))


def said(feature: Feature) -> str:
    """The tokens as letters, / for the separator and ! for CLS."""
    return "".join({SEP: "/", CLS: "!"}.get(one, chr(one)) for one in feature.ids)


def segments(feature: Feature) -> str:
    return "".join(map(str, feature.segments))


def test_a_text_and_a_pair_by_hand() -> None:
    one = classification(VOCABULARY, ENCODE, "good", length=8)
    assert (said(one), segments(one), one.label) == ("good/!", "000002", None)
    two = classification(VOCABULARY, ENCODE, "it is", "so", 12, "yes", ["no", "yes"])
    assert (said(two), segments(two), two.label) == ("it is/so/!", "0000001112", 1)


def test_what_is_too_long_by_hand() -> None:
    assert said(classification(VOCABULARY, ENCODE, "abcdefgh", length=6)) == "abcd/!"
    assert said(classification(VOCABULARY, ENCODE, "abcdefgh", "xy", 9)) == "abcd/xy/!"
    assert said(classification(VOCABULARY, ENCODE, "ab", "uvwxyz", 9)) == "ab/uvwx/!"
    assert said(classification(VOCABULARY, ENCODE, "abcdef", "uvwxyz", 10)) == "abcd/uvw/!"


def test_letters_of_special_tokens_stay_letters() -> None:
    feature = classification(VOCABULARY, ENCODE, "a <sep> b <cls>", length=40)
    assert feature.ids.count(SEP) == feature.ids.count(CLS) == 1


def test_choices_by_hand() -> None:
    asked = choices(VOCABULARY, ENCODE, "a cat sat", "who?", ["cat", "dog"], 40, right=0)
    assert [said(option) for option in asked.options] == ["a cat sat/who? cat/!", "a cat sat/who? dog/!"]
    assert segments(asked.options[0]) == "0000000000" + "111111111" + "2"
    assert asked.label == 0
    blank = choices(VOCABULARY, ENCODE, "a cat sat", "the _ sat", ["cat", "dog"], 40)
    assert [said(option) for option in blank.options] == ["a cat sat/the cat sat/!", "a cat sat/the dog sat/!"]
    assert blank.label is None
    longer = choices(VOCABULARY, ENCODE, "a", "____, he sat in my_car. ___.", ["x", "y"], 60)
    assert [said(option) for option in longer.options] == ["a/x, he sat in my_car. x./!", "a/y, he sat in my_car. y./!"]
    inside = choices(VOCABULARY, ENCODE, "a", "in my_car", ["x", "y"], 60)
    assert [said(option) for option in inside.options] == ["a/in my_car x/!", "a/in my_car y/!"]


def test_of_choices_the_context_is_cut() -> None:
    asked = choices(VOCABULARY, ENCODE, "0123456789", "q", ["uv", "uvwxy"], 17)
    assert [said(option) for option in asked.options] == ["0123456789/q uv/!", "0123456/q uvwxy/!"]
    long = choices(VOCABULARY, ENCODE, "0123456789", "abcdefghi", ["u", "v"], 13)
    assert [said(option) for option in long.options] == ["01234/ghi u/!", "01234/ghi v/!"]
    short = choices(VOCABULARY, ENCODE, "01", "abcdefghi", ["u", "v"], 13)
    assert said(short.options[0]) == "01/defghi u/!"


def literally(first: str, second: str, room: int) -> tuple[str, str]:
    while len(first) + len(second) > room:
        if len(first) > len(second):
            first = first[:-1]
        else:
            second = second[:-1]
    return first, second


@given(words, words, st.integers(5, 70))
def test_the_longer_text_is_cut_first(first: str, second: str, length: int) -> None:
    feature = classification(VOCABULARY, ENCODE, first, second, length)
    kept = literally(first, second, length - 3)
    assert said(feature) == f"{kept[0]}/{kept[1]}/!"
    assert segments(feature) == "0" * (len(kept[0]) + 1) + "1" * (len(kept[1]) + 1) + "2"
    assert all(kept)


@given(words, words, st.lists(words, min_size=2, max_size=5), st.integers(5, 70))
def test_choices_always_fit(context: str, question: str, options: list[str], length: int) -> None:
    asked = choices(VOCABULARY, ENCODE, context, question, options, length)
    for option, feature in zip(options, asked.options, strict=True):
        first, second, end = said(feature).split("/")
        assert end == "!"
        assert len(feature.ids) == len(feature.segments) <= length
        assert first
        assert context.startswith(first)
        assert f"{question} {option}".endswith(second)
        assert second
        if len(context) + len(question) + len(option) + 4 <= length:
            assert (first, second) == (context, f"{question} {option}")


def test_a_batch_by_hand() -> None:
    rows = [Feature([1, 2, SEP, CLS], [0, 0, 0, 2], 1), Feature(list(range(9)), [0] * 9, 0)]
    batch = collate(rows, PAD)
    assert batch["input_ids"].tolist()[0] == [PAD] * 12 + [1, 2, SEP, CLS]
    assert batch["token_type_ids"].tolist()[0] == [4] * 12 + [0, 0, 0, 2]
    assert batch["attention_mask"].tolist() == [[0] * 12 + [1] * 4, [0] * 7 + [1] * 9]
    assert batch["labels"].tolist() == [1, 0]
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "labels"}
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_spans_move_with_the_padding() -> None:
    rows = [Feature([1, 2, 3, SEP, CLS], [0] * 5, span=(1, 2)), Feature([1, SEP, CLS], [0] * 3, span=(2, 2))]
    batch = collate(rows, PAD)
    assert batch["start_positions"].tolist() == [4, 7]
    assert batch["end_positions"].tolist() == [5, 7]
    assert batch["input_ids"].gather(1, batch["start_positions"][:, None]).flatten().tolist() == [2, CLS]
    assert "labels" not in batch


def test_choices_stand_beside_each_other() -> None:
    asked = [
        choices(VOCABULARY, ENCODE, "a", "b", ["c", "de"], 20, 1),
        choices(VOCABULARY, ENCODE, "fghijk", "l", ["m", "n"], 20, 0),
    ]
    batch = collate(asked, PAD)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2, 16)
    assert batch["labels"].tolist() == [1, 0]
    there = batch["attention_mask"].bool()
    for row, question in enumerate(asked):
        for column, option in enumerate(question.options):
            assert batch["input_ids"][row, column][there[row, column]].tolist() == option.ids


@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=40), min_size=1, max_size=5))
def test_padding_is_at_the_left_and_loses_nothing(rows: list[list[int]]) -> None:
    batch = collate([Feature(row, [0] * len(row)) for row in rows], PAD)
    width = batch["input_ids"].shape[1]
    assert width % 8 == 0
    assert 0 <= width - max(map(len, rows)) < 8
    for row, ids, mask in zip(rows, batch["input_ids"], batch["attention_mask"], strict=True):
        assert ids[width - len(row) :].tolist() == row
        assert mask.tolist() == [0] * (width - len(row)) + [1] * len(row)
    assert "labels" not in batch


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("",), "the text is '': expected words"),
        (("  \n",), "the text is .* expected words"),
        (("a", " "), "the second text is ' ': expected words"),
        (("a", None, 2), "a length of 2 tokens, 2 of them special: expected 3 or more"),
        (("a", "b", 4), "a length of 4 tokens, 3 of them special: expected 5 or more"),
        (("a", "b", 9, "maybe", ["no", "yes"]), "label 'maybe': expected one of 'no', 'yes'"),
        (("a", "b", 9, "maybe"), "label 'maybe': expected the head's labels beside it"),
    ],
)
def test_classifications_that_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification(VOCABULARY, ENCODE, *given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", "q", ["a", "b"]), "the context is '': expected words"),
        (("c", " ", ["a", "b"]), "question ' ', option 'a': expected words in both"),
        (("c", "q", ["a", ""]), "question 'q', option '': expected words in both"),
        (("c", "q", ["a"]), "1 options: expected two or more"),
        (("c", "q", ["a", "b"], 4), "a length of 4 tokens"),
        (("c", "q", ["a", "b"], 9, 2), "the right option is 2 of 2: expected 0 to 1"),
    ],
)
def test_choices_that_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choices(VOCABULARY, ENCODE, *given)


ONE, TWO = Feature([1], [0]), Feature([1], [0], 1)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "no features: expected one or more"),
        ([ONE, TWO], "1 of 2 features are labelled: expected all or none"),
        ([ONE, Feature([1], [0], span=(0, 0))], "1 of 2 features are labelled"),
        ([ONE, Choices((ONE, ONE))], "choices and others in one batch"),
        ([Choices((ONE, ONE)), Choices((ONE, ONE, ONE))], r"questions with \[2, 3\] options in one batch"),
    ],
)
def test_batches_that_are_refused(features: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collate(features, PAD)
