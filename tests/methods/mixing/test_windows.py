"""Windows of packed text: side by side, and cut so that what is held out is never trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.tokens import Tokens
from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.windows import Windows


def counted(count: int) -> Tokens:
    """Ids 0, 1, 2 and on: each token tells its place."""
    ids = np.arange(count, dtype=np.uint16)
    return Tokens(Path("made"), ids, count, count, 1, "tokenizer", "", "0" * 64)


def rows(windows: Windows) -> list[list[int]]:
    return [windows[place]["input_ids"].tolist() for place in range(len(windows))]


def test_windows_lie_side_by_side_and_the_rest_is_dropped() -> None:
    windows = Windows(counted(11), 3)
    assert rows(windows) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert windows[0]["input_ids"].dtype == torch.int64
    assert [row["input_ids"].tolist() for row in windows.__getitems__([2, 0])] == [[6, 7, 8], [0, 1, 2]]


def test_of_ten_stretches_of_four_one_is_for_dev_and_one_for_test() -> None:
    whole = rows(Windows(counted(160), 2))
    assert rows(Windows(counted(160), 2, "train")) == whole[:32] + whole[40:72]
    assert rows(Windows(counted(160), 2, "dev")) == whole[32:36] + whole[72:76]
    assert rows(Windows(counted(160), 2, "test")) == whole[36:40] + whole[76:80]


@given(count=st.integers(37, 500), length=st.integers(1, 9))
def test_parts_share_no_token_and_together_are_all(count: int, length: int) -> None:
    tokens = counted(max(count, 37 * length))
    parts = [rows(Windows(tokens, length, part)) for part in ("train", "dev", "test")]  # type: ignore[arg-type]
    seen = [token for part in parts for row in part for token in row]
    assert sorted(seen) == list(range(len(tokens) // length * length))
    for part in parts[1:]:
        assert abs(len(part) - len(tokens) // length / 10) <= 4


def test_a_place_in_other_windows_is_not_taken() -> None:
    other = replace(counted(64), sha256="1" * 64)
    state = Mixture({"a": Windows(counted(64), 2)}, batch_size=2).state_dict()
    Mixture({"a": Windows(counted(64), 2)}, batch_size=2).load_state_dict(state)
    with pytest.raises(ValueError, match="the saved mixture has fingerprints"):
        Mixture({"a": Windows(other, 2)}, batch_size=2).load_state_dict(state)
    parts = [Windows(counted(640), *how).fingerprint for how in ((2,), (4,), (2, "dev"), (2, "test"))]  # type: ignore[arg-type]
    assert len(set(parts)) == 4


def test_batches_are_spread_over_all_and_score_all_but_the_first_token() -> None:
    batches = Windows(counted(20), 2).batches(4, 3)
    ids = torch.cat([batch["input_ids"] for batch in batches])
    labels = torch.cat([batch["labels"] for batch in batches])
    assert [len(batch["labels"]) for batch in batches] == [3, 1]
    assert ids.tolist() == [[0, 1], [4, 5], [10, 11], [14, 15]]
    assert labels.tolist() == [[-100, 1], [-100, 5], [-100, 11], [-100, 15]]


def test_no_window_comes_twice_where_more_are_asked_for() -> None:
    batches = Windows(counted(7), 2).batches(100, 2)
    assert torch.cat([batch["input_ids"] for batch in batches]).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_packed_text_is_read_as_it_was_packed(corpus: Tokens) -> None:
    windows = Windows(corpus, 64, "dev")
    assert windows[0]["input_ids"].tolist() == corpus.ids[64 * 32 : 64 * 33].tolist()


def test_a_mixture_draws_from_them() -> None:
    mixture = Mixture({"one": Windows(counted(40), 4), "other": Windows(counted(12), 4)}, batch_size=2)
    batch = next(iter(mixture))["input_ids"]
    assert batch.shape == (2, 4)
    assert (batch[:, 0] % 4 == 0).all()


def test_text_that_is_too_short_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="made: 3 tokens do not fill a window of 4: it takes 4"):
        Windows(counted(3), 4)
    with pytest.raises(ValueError, match="made: 140 tokens do not fill windows for test of 4"):
        Windows(counted(140), 4, "test")
