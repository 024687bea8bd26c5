"""Records: by hand, and what holds wherever they are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoestring.methods.permutation import packing
from shoestring.methods.permutation.packing import Record, Text
from shoestring.methods.permutation.vocabulary import Vocabulary

SEP, CLS, PAD, EOS, FIRST = 0, 1, 2, 3, 4
LETTERS = {"A": 4, "b": 5, ".": 6, "\n": 7, "E": EOS}


def vocabulary() -> Vocabulary:
    """A starts a word, b goes on in it, a full stop ends a sentence, a line break ends that and the word."""

    def marked(*ids: int) -> NDArray[np.bool_]:
        return np.isin(np.arange(10), ids)

    return Vocabulary(
        sep=SEP,
        cls=CLS,
        pad=PAD,
        eos=EOS,
        size=10,
        starts_word=marked(SEP, CLS, PAD, EOS, 4, 6),
        closes_word=marked(SEP, CLS, PAD, EOS, 7),
        ends_sentence=marked(EOS, 6, 7),
    )


def ids(line: str) -> NDArray[np.uint16]:
    return np.array([LETTERS[letter] for letter in line], dtype=np.uint16)


def where(flags: NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(flags).tolist()


def numbered(length: int, ends: NDArray[np.bool_]) -> Text:
    """Tokens 100, 101, ..."""
    return Text(np.arange(100, 100 + length), np.ones(length, dtype=bool), ends)


def elsewhere(count: int) -> Text:
    return Text(np.full(count, 50), np.zeros(count, dtype=bool), np.zeros(count, dtype=bool))


def packed(text: Text, reuse: int, seed: int) -> Record:
    return packing.pack(text, reuse, elsewhere, vocabulary(), np.random.default_rng(seed))


class Told:
    def __init__(self, split: float, follow: float) -> None:
        self.numbers = np.array([split, follow])

    def random(self, size: int) -> NDArray[np.float64]:
        assert size == 2
        return self.numbers


def told(split: float, follow: float) -> Any:
    """It passes for a generator."""
    return Told(split, follow)


def test_reading_forward() -> None:
    text = packing.read(ids("bAbb.b\nbE"), vocabulary())
    assert text.ids.tolist() == [5, 4, 5, 5, 6, 5, 7, 5, 3]
    assert text.ids.dtype == np.int64
    assert where(text.starts_word) == [1, 4, 7, 8]  # the b after the line break too
    assert where(text.ends_sentence) == [4, 6, 8]


def test_reading_backward_a_word_starts_with_its_last_token() -> None:
    text = packing.read(ids("bAbb.b\nbE"), vocabulary(), backward=True)
    assert text.ids.tolist() == [3, 5, 7, 5, 6, 5, 5, 4, 5]
    # E, b, then "b\n" with the full stop, "bbA", b: of the last, whose start is not there, the end is
    assert where(text.starts_word) == [0, 1, 2, 5, 8]
    # before E nothing is known; what follows a sentence's end in the text ends one as it is read
    assert where(text.ends_sentence) == [1, 3]


@given(line=st.text("Ab.\nE", max_size=40), left=st.text("Ab.\nE", max_size=5), right=st.text("Ab.\nE", max_size=5))
def test_both_ways_the_words_are_the_same(line: str, left: str, right: str) -> None:
    whole = ids(left + line + right)
    forward, backward = packing.read(whole, vocabulary()), packing.read(whole, vocabulary(), backward=True)

    def word_bounds(text: Text) -> list[int]:
        return [at for at in where(text.starts_word) if at > 0]

    count = len(whole)
    assert word_bounds(forward) == sorted(count - at for at in word_bounds(backward))
    sentences = [at + 1 for at in where(forward.ends_sentence) if at + 1 < count]
    assert sentences == sorted(count - at - 1 for at in where(backward.ends_sentence))


def test_a_record_by_hand() -> None:
    text = numbered(9, np.isin(np.arange(9), [1, 4, 6, 8]))  # sentences end within A and B after 104 and 106
    follows = packing.pack(text, 3, elsewhere, vocabulary(), told(0.4, 0.49))
    assert follows.ids.tolist() == [100, 101, 102, 103, 104, SEP, 105, 106, 107, 108, SEP, CLS]
    assert follows.segments.tolist() == [0] * 6 + [1] * 5 + [2]
    assert where(follows.functional) == [5, 10, 11]
    other = packing.pack(text, 3, elsewhere, vocabulary(), told(0.6, 0.5))
    assert other.ids.tolist() == [100, 101, 102, 103, 104, 105, 106, SEP, 50, 50, SEP, CLS]
    assert other.segments.tolist() == [0] * 8 + [1] * 3 + [2]
    assert where(other.functional) == [7, 10, 11]
    assert where(~other.starts_word) == [8, 9]


@given(length=st.integers(2, 60), data=st.data())
def test_a_record_is_full_and_cut_where_a_sentence_ends_if_one_does(length: int, data: st.DataObject) -> None:
    reuse = data.draw(st.integers(0, length - 2))
    ends = np.array(data.draw(st.lists(st.booleans(), min_size=length, max_size=length)))
    record = packed(numbered(length, ends), reuse, data.draw(st.integers(0, 1000)))
    assert len(record.ids) == len(record.segments) == len(record.functional) == len(record.starts_word) == length + 3
    first, second, last = where(record.functional)
    assert record.ids[[first, second, last]].tolist() == [SEP, SEP, CLS]
    assert (second, last) == (length + 1, length + 2)
    assert reuse < first < second - 1
    assert record.ids[:first].tolist() == list(range(100, 100 + first))
    expected = list(range(100 + first, 100 + length)) if 50 not in record.ids else [50] * (length - first)
    assert record.ids[first + 1 : second].tolist() == expected
    if ends[reuse:-1].any():
        assert ends[first - 1]


def test_b_follows_as_often_as_not_and_every_cut_is_used() -> None:
    records = [packed(numbered(8, np.zeros(8, dtype=bool)), 2, seed) for seed in range(2000)]
    assert sum(50 not in record.ids for record in records) == pytest.approx(1000, abs=100)
    cuts, counts = np.unique([where(record.functional)[0] for record in records], return_counts=True)
    assert cuts.tolist() == [3, 4, 5, 6, 7]
    assert counts.min() > 300


def test_one_segment() -> None:
    text = numbered(5, np.zeros(5, dtype=bool))
    record = packing.plain(text)
    assert record.ids.tolist() == [100, 101, 102, 103, 104]
    assert record.segments.tolist() == [0] * 5
    assert not record.functional.any()
    assert record.starts_word.all()
    assert (packing.needed(12, "two"), packing.needed(12, "one")) == (9, 12)


def test_misuse() -> None:
    with pytest.raises(ValueError, match="1 tokens after 4 reused ones: expected two or more"):
        packed(numbered(5, np.zeros(5, dtype=bool)), 4, 0)
    with pytest.raises(ValueError, match="token 11 in a vocabulary of 10: the text was packed by another tokenizer"):
        packing.read(np.array([4, 11]), vocabulary())
