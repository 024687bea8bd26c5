"""Orders: by hand, against the masks written out, and what must never be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoestring.methods.permutation import orders
from shoestring.methods.permutation.orders import HIDDEN, Order


class Told:
    """Numbers that a test names, as a generator's."""

    def __init__(self, numbers: list[float]) -> None:
        self.numbers = np.array(numbers)

    def random(self, size: int) -> NDArray[np.float64]:
        assert size == len(self.numbers)
        return self.numbers


def told(numbers: list[float]) -> Any:
    """It passes for a generator."""
    return Told(numbers)


def marked(letters: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """p predicted, f functional, c context."""
    return np.array([one == "p" for one in letters], dtype=bool), np.array([one == "f" for one in letters], dtype=bool)


def seen(order: Order) -> list[str]:
    """Of each row of the query stream the tokens it sees."""
    return ["".join("x" if rank < sees else "." for rank in order.rank) for sees in order.sees]


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, int, int]:
    return draw(st.text("pfc", max_size=24)), draw(st.integers(1, 30)), draw(st.integers(0, 2**32 - 1))


def test_one_block_by_hand() -> None:
    predicted, functional = marked("cppcf")
    order = orders.permuted(predicted, functional, 5, told([0.9, 0.3, 0.1, 0.5, 0.2]))  # places 4, 2, 0, 3, 1
    assert order.rank.tolist() == [-1, 2, 0, -1, 1]
    assert order.sees.tolist() == [0, 2, 0, 0, 2]
    assert order.rank.dtype == order.sees.dtype == np.int32
    assert seen(order) == ["x..x.", "x.xxx", "x..x.", "x..x.", "x.xxx"]


def test_a_later_block_sees_all_of_the_earlier_ones_and_they_nothing_of_it() -> None:
    predicted, functional = marked("cpfpc")
    order = orders.permuted(predicted, functional, 2, told([0.1, 0.2, 0.2, 0.1, 0.0]))
    assert order.rank.tolist() == [-1, 1, 4, 3, 5]
    assert order.sees.tolist() == [0, 1, 5, 3, 6]
    assert seen(order) == ["x....", "x....", "xxxx.", "xx...", "xxxxx"]


@given(cases())
def test_against_the_masks_of_the_official_layout(case: tuple[str, int, int]) -> None:
    """Position by position, from what the method says of each kind of token."""
    letters, block, seed = case
    order = orders.permuted(*marked(letters), block, np.random.default_rng(seed))
    for i, own in enumerate(letters):
        for j, other in enumerate(letters):
            sees = order.rank[j] < order.sees[i]
            if i // block != j // block:
                expected = j // block < i // block
            elif other == "c":
                expected = True
            elif own == "c":
                expected = False
            elif i == j:
                expected = own == "f"
            else:
                expected = order.rank[j] < order.rank[i]
            assert sees == expected, (i, j)


@given(cases())
def test_nothing_predicted_is_seen_too_early_and_ranks_are_unique(case: tuple[str, int, int]) -> None:
    letters, block, seed = case
    order = orders.permuted(*marked(letters), block, np.random.default_rng(seed))
    content = np.maximum(order.sees, order.rank + 1)
    hidden = [at for at, one in enumerate(letters) if one != "c"]
    assert len({int(order.rank[at]) for at in hidden}) == len(hidden)
    for at in hidden:
        if letters[at] == "p":
            assert not order.rank[at] < order.sees[at]
            # no content row that a prediction sees sees what the prediction may not
            for row in np.flatnonzero(order.rank < order.sees[at]):
                assert content[row] <= order.sees[at]


def test_all_orders_of_a_block_are_as_likely() -> None:
    predicted, functional = marked("ppp")
    drawn = [orders.permuted(predicted, functional, 3, np.random.default_rng(seed)) for seed in range(3000)]
    _, counts = np.unique([order.rank for order in drawn], axis=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 400


def test_blocks_have_permutations_of_their_own() -> None:
    predicted, functional = marked("p" * 64)
    order = orders.permuted(predicted, functional, 32, np.random.default_rng(0))
    assert order.rank[:32].tolist() != (order.rank[32:] - 33).tolist()


def test_the_mask_of_transformers_is_one_where_it_is_blocked() -> None:
    rank, sees = torch.tensor([[-1, 0, HIDDEN]]), torch.tensor([[0, 0, 0]])
    mask = orders.perm_mask(rank, sees)
    assert mask.dtype == torch.float32
    assert mask.tolist() == [[[0, 1, 1]] * 3]


def test_order_vectors_that_fit_pass() -> None:
    rank = torch.zeros(2, 3, dtype=torch.int32)
    orders.check(rank, rank.long(), (2, 3))
    orders.check(rank, rank)


@pytest.mark.parametrize(
    ("rank", "sees", "shape", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3), None, "rank is of torch.float32: expected int32 or int64"),
        (torch.zeros(3, dtype=torch.int32), torch.zeros(3, dtype=torch.int32), None, r"rank is of shape \(3,\): exp"),
        (torch.ones(2, 3).long(), torch.ones(2, 4).long(), (2, 3), r"sees is of shape \(2, 4\): expected \(2, 3\)"),
        (torch.ones(2, 3).long(), torch.ones(2, 4).long(), None, r"rank is of shape \(2, 3\), sees of \(2, 4\)"),
    ],
    ids=["floats", "no rows", "another length", "two lengths"],
)
def test_order_vectors_that_do_not_fit(
    rank: torch.Tensor, sees: torch.Tensor, shape: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        orders.check(rank, sees, shape)


def test_misuse_of_permuted() -> None:
    predicted, functional = marked("cpf")
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"predicted \(3,\), functional \(2,\)"):
        orders.permuted(predicted, functional[:2], 3, generator)
    with pytest.raises(ValueError, match="blocks of 0 positions"):
        orders.permuted(predicted, functional, 0, generator)
    with pytest.raises(ValueError, match="a functional token is marked as predicted"):
        orders.permuted(predicted, predicted, 3, generator)
