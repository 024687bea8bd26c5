"""What is computed at once, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from shoestring.methods.rationale import together
from shoestring.methods.rationale.together import Ids, Size, batches, scored

SIZES = [Size(3, 2), Size(9, 1), Size(5, 2), Size(2, 1), Size(5, 2)]


def test_rows_go_together_by_options_and_length() -> None:
    assert [*batches(SIZES)] == [[1, 3], [2, 4, 0]]
    assert [*batches([])] == []


@pytest.mark.parametrize(("most", "expected"), [(20, [[1, 3], [2, 4], [0]]), (9, [[1], [3], [2], [4], [0]])])
def test_no_more_is_read_at_once_than_fits(
    most: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "_TOKENS", most)
    assert [*batches(SIZES)] == expected


def test_no_more_logits_are_made_at_once_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three tokens: rows of two options, of which the longest has 1, 4, 1 and 2 tokens, and 24 logits."""
    monkeypatch.setattr(together, "_LOGITS", 24)
    sizes = [Size(9, 2, 1), Size(8, 2, 4), Size(7, 2, 1), Size(6, 2, 2)]
    assert [*batches(sizes, 3)] == [[0], [1], [2, 3]]


def test_options_of_one_row_are_parted_and_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two options of two tokens each, of a vocabulary of ten."""
    monkeypatch.setattr(together, "_LOGITS", 40)
    calls = []

    def score(sources: list[Ids], options: list[Sequence[Ids]]) -> list[list[float]]:
        calls.append([len(some) for some in options])
        return [
            [float(source[0] + option[0]) for option in some] for source, some in zip(sources, options, strict=True)
        ]

    options = [[[1, 0], [2, 0], [3, 0], [4, 0], [5, 0]], [[7]], []]
    found = scored([[100], [200, 0], [300]], options, 10, score)
    assert found == [[101.0, 102.0, 103.0, 104.0, 105.0], [207.0], []]
    assert calls == [[1, 1], [2], [2]] or calls == [[1], [1], [2], [2]]
