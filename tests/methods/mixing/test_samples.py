"""Questions and answers as ids: what is scored, and how rows are filled."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.tokenizers import byte_tokenizer, train_bpe
from shoestring.methods.mixing.samples import Pieces, Samples

BYTES = byte_tokenizer()
END, NOT = 256, -100
A, B, C = (ord(letter) for letter in "abc")
TWO: list[Pieces] = [[("ab", False), ("c", True)], [("a", False), ("b", True)]]


def test_answers_are_scored_and_short_rows_filled_at_the_right() -> None:
    samples = Samples(TWO, BYTES)
    assert samples.input_ids.tolist() == [[A, B, C], [A, B, END]]
    assert samples.labels.tolist() == [[NOT, NOT, C], [NOT, B, NOT]]
    assert samples.input_ids.dtype == samples.labels.dtype == torch.int64
    assert (len(samples), samples.length) == (2, 3)
    assert {name: row.tolist() for name, row in samples[1].items()} == {
        "input_ids": [A, B, END],
        "labels": [NOT, B, NOT],
    }


def test_all_is_scored_where_one_asks_for_it() -> None:
    assert Samples(TWO, BYTES, whole=True).labels.tolist() == [[A, B, C], [A, B, NOT]]


def test_rows_may_be_longer() -> None:
    samples = Samples(TWO, BYTES, length=5)
    assert samples.input_ids.shape == (2, 5)
    assert samples.labels[:, 3:].tolist() == [[NOT, NOT]] * 2


def test_several_answers_in_a_row_and_pieces_of_no_text() -> None:
    samples = Samples([[("a", False), ("b", True), ("", False), ("c", False), ("é", True)]], BYTES)
    assert samples.input_ids.tolist() == [[A, B, C, 195, 169]]
    assert samples.labels.tolist() == [[NOT, B, NOT, 195, 169]]


def test_all_of_them_in_batches() -> None:
    samples = Samples([[("a", False), (str(place), True)] for place in range(5)], BYTES)
    batches = samples.batches(2)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 2, 1]
    for name in ("input_ids", "labels"):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), getattr(samples, name))


BPE = train_bpe(["the cat sat on the mat\n"] * 20, 265)


@given(
    pieces=st.lists(
        st.lists(st.tuples(st.text(min_size=1, max_size=8), st.just(False)), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    ),
    answers=st.lists(st.text(min_size=1, max_size=5), min_size=4, max_size=4),
)
def test_each_piece_is_encoded_by_itself(pieces: list[list[tuple[str, bool]]], answers: list[str]) -> None:
    rows = [[*row, (answer, True)] for row, answer in zip(pieces, answers, strict=False)]
    samples = Samples(rows, BPE)
    for row, ids, labels in zip(rows, samples.input_ids.tolist(), samples.labels.tolist(), strict=True):
        expected = [(token, scored) for text, scored in row for token in BPE.encode(text)]
        fill = samples.length - len(expected)
        assert ids == [token for token, _ in expected] + [BPE.eos_token_id] * fill
        assert labels == [token if scored else NOT for token, scored in expected] + [NOT] * fill


@pytest.mark.parametrize(
    ("pieces", "keywords", "said"),
    [
        ([], {}, "no samples: expected one or more"),
        (TWO, {"length": 2}, "a sample of 3 tokens does not fit into 2"),
        ([[("ab", False)]], {}, "nothing is scored of the sample 'ab'"),
        ([[("a", True), ("b", False)]], {}, "nothing is scored of the sample 'ab'"),  # nothing tells the first token
        ([[("a", False)]], {"whole": True}, "nothing is scored of the sample 'a'"),
        ([[("a", False), ("", True)]], {}, "nothing is scored of the sample 'a'"),
    ],
)
def test_what_cannot_be_trained_on(pieces: list[Pieces], keywords: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Samples(pieces, BYTES, **keywords)  # type: ignore[arg-type]


def test_samples_are_known_by_what_is_asked_and_what_is_scored() -> None:
    ways = ((TWO, False), (TWO, True), (TWO[:1], False))
    marks = [Samples(pieces, BYTES, whole).fingerprint for pieces, whole in ways]
    assert len(set(marks)) == 3
    assert marks[0] == Samples(TWO, BYTES).fingerprint
