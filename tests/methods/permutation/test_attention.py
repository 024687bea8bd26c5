from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoestring.methods.permutation import attention
from shoestring.methods.permutation.attention import View, attend

HIDDEN = 1 << 30
NAMES = ("content", "position", "segment", "keys", "values", "distances")


def integers(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


def one(values: list[float]) -> Tensor:
    """(1, 1, rows, 1)."""
    return torch.tensor(values, dtype=torch.float64)[None, None, :, None]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.float64)


def logs(values: list[float]) -> Tensor:
    return one([math.log(value) for value in values])


# by hand


def test_a_row_reads_by_content_what_it_sees() -> None:
    view = View(sees=integers([2, 1, 3]), rank=integers([0, 1, 2]), ordered=3)
    read = attend(one([1, 1, 1]), zeros(1, 1, 3, 1), None, logs([1, 2, 5]), one([8, 4, 16]), zeros(1, 1, 6, 1), view)
    torch.testing.assert_close(read, one([(8 + 2 * 4) / 3, 8, (8 + 2 * 4 + 5 * 16) / 8]))


def test_what_is_not_seen_counts_for_nothing_however_low_the_rest_scores() -> None:
    view = View(sees=integers([1]), rank=integers([0, 0, 1]), ordered=1)
    read = attend(one([1]), zeros(1, 1, 1, 1), None, one([-1e30, -1e30, 0]), one([2, 4, 100]), zeros(1, 1, 4, 1), view)
    torch.testing.assert_close(read, one([3]))


def test_a_row_reads_by_distance() -> None:
    """Of two tokens and a memory of one: distances 3, 2, 1, 0, -1, of weights 1 to 5."""
    view = View(sees=integers([9, 9]), rank=integers([0, 0, 0]), ordered=2)
    away = logs([1, 2, 3, 4, 5])
    read = attend(zeros(1, 1, 2, 1), one([1, 1]), None, zeros(1, 1, 3, 1), one([1, 10, 100]), away, view)
    # token 0 stands at 1: from the memory by 1, from itself by 0, from token 1 by -1
    torch.testing.assert_close(read, one([(3 + 4 * 10 + 5 * 100) / 12, (2 + 3 * 10 + 4 * 100) / 9]))


def test_a_row_beside_the_sequence_reads_by_the_columns_it_is_given() -> None:
    view = View(sees=integers([9]), rank=integers([0, 0, 0]), ordered=0, columns=torch.tensor([[[4, 0, 4]]]))
    read = attend(zeros(1, 1, 1, 1), one([1]), None, zeros(1, 1, 3, 1), one([1, 10, 100]), logs([1, 2, 3, 4, 5]), view)
    torch.testing.assert_close(read, one([(5 + 10 + 5 * 100) / 11]))


def test_the_second_half_reads_distances_of_its_own() -> None:
    view = View(sees=integers([9], [9]), rank=integers([0, 0], [0, 0]), ordered=1)
    away = torch.cat([logs([1, 1, 3]), logs([1, 5, 1])])
    values = one([0, 1]).expand(2, 1, 2, 1)
    read = attend(zeros(2, 1, 1, 1), torch.cat([one([1])] * 2), None, zeros(2, 1, 2, 1), values, away, view)
    torch.testing.assert_close(read.flatten(), torch.tensor([3 / 4, 1 / 6], dtype=torch.float64))


def test_keys_of_another_segment_score_by_the_rows_own_bias() -> None:
    segments = (integers([0, 1]), integers([0, 1, 1]))
    view = View(sees=integers([9, 9]), rank=integers([0, 0, 0]), ordered=2, segments=segments)
    bias = torch.tensor([math.log(2), math.log(4)], dtype=torch.float64)[None, None]
    none = zeros(1, 1, 2, 1)
    read = attend(none, none, bias, zeros(1, 1, 3, 1), one([1, 10, 100]), zeros(1, 1, 5, 1), view)
    torch.testing.assert_close(read, one([(1 + 2 * 10 + 2 * 100) / 5, (4 * 1 + 10 + 100) / 6]))


def test_a_key_is_seen_until_its_bound() -> None:
    view = View(
        sees=integers([1, 2, 3]),
        rank=integers([0, 0, 0, 5]),
        until=integers([1, 2, 0, 9]),
        ordered=0,
        columns=torch.zeros(1, 3, 4, dtype=torch.int64),
    )
    none = zeros(1, 1, 3, 1)
    read = attend(none, none, None, zeros(1, 1, 4, 1), one([1, 2, 3, 4]), zeros(1, 1, 1, 1), view)
    torch.testing.assert_close(read, one([1.5, 2, 0]))  # the last row is above all bounds
    assert view.blind.tolist() == [[False, False, True]]


# against a slow, obvious reference


def slow(
    content: Tensor,
    position: Tensor,
    segment: Tensor | None,
    keys: Tensor,
    values: Tensor,
    distances: Tensor,
    view: View,
    dropout: float = 0.0,
) -> Tensor:
    """Row by row over the keys that it sees, each looked up by itself."""
    assert not dropout
    batch, heads, rows, _ = content.shape
    whole, groups = keys.shape[2], len(distances)
    given = (content, position, segment, keys, values, distances)
    read = 0 * content + 0 * sum(tensor.sum() for tensor in given if tensor is not None)  # all have a gradient
    for b in range(batch):
        for i in range(rows):
            sees = int(view.sees[b, i])
            seen = [j for j in range(whole) if int(view.rank[b, j]) < sees]
            if view.until is not None:
                seen = [j for j in seen if int(view.until[b, j]) >= sees]
            if not seen:
                continue
            if i < view.ordered:
                distance = {j: whole - view.ordered + i - j for j in seen}
                column = {j: whole - distance[j] for j in seen}
            else:
                assert view.columns is not None
                column = {j: int(view.columns[b, i - view.ordered, j]) for j in seen}
            for n in range(heads):
                away = distances[b * groups // batch, n]
                scores = []
                for j in seen:
                    score = (content[b, n, i] * keys[b, n, j]).sum() + (position[b, n, i] * away[column[j]]).sum()
                    if segment is not None and view.segments is not None:
                        score = score + segment[b, n, i] * float(view.segments[0][b, i] != view.segments[1][b, j])
                    scores.append(score)
                likely = torch.stack(scores).exp()
                likely = likely / likely.sum()
                read[b, n, i] = sum((p * values[b, n, j] for p, j in zip(likely, seen, strict=True)), zeros(1))
    return read


def drawn(
    batch: int = 2,
    heads: int = 2,
    width: int = 3,
    length: int = 5,
    memory: int = 3,
    beside: int = 2,
    groups: int = 1,
    segments: bool = True,
    until: bool = False,
    blind: bool = False,
    ordered: bool = True,
    seed: int = 0,
) -> tuple[list[Tensor | None], View]:
    """Random inputs of `attend`, and a view of a sequence's own rows (unless not `ordered`) and of some beside them."""
    generator = torch.Generator().manual_seed(seed)
    randint, randn = partial(torch.randint, generator=generator), partial(torch.randn, generator=generator)
    own = length if ordered else 0
    rows, whole, reach = own + beside, memory + length, memory + 2 * length
    sees = randint(1, length + 2, (batch, rows), dtype=torch.int32)
    rank = randint(-1, length + 1, (batch, whole), dtype=torch.int32)
    if blind:
        sees[:, ::2] = -1
    else:
        rank[:, 0] = -1
    segment = randn(batch, heads, rows, dtype=torch.float64) if segments else None
    view = View(
        sees=sees,
        rank=rank,
        ordered=own,
        columns=randint(reach, (batch, beside, whole)) if beside else None,
        until=randint(-1, length + 2, (batch, whole), dtype=torch.int32) if until else None,
        segments=(randint(2, (batch, rows)), randint(2, (batch, whole))) if segments else None,
    )
    shapes = {"content": rows, "position": rows, "keys": whole, "values": whole}
    tensors = {name: randn(batch, heads, size, width, dtype=torch.float64) for name, size in shapes.items()}
    tensors["distances"] = randn(groups, heads, reach, width, dtype=torch.float64)
    return [segment if name == "segment" else tensors[name] for name in NAMES], view


def leaves(tensors: list[Tensor | None], change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> list[Any]:
    return [None if tensor is None else change(tensor.detach().clone()).requires_grad_() for tensor in tensors]


def both_ways(read: Tensor, upstream: Tensor, given: list[Any]) -> list[Tensor]:
    """What was read, and its gradients."""
    return [read.detach(), *torch.autograd.grad(read, [tensor for tensor in given if tensor is not None], upstream)]


def same(tensors: list[Tensor | None], view: View) -> None:
    ours, theirs = leaves(tensors), leaves(tensors)
    read, expected = attend(*ours, view), slow(*theirs, view)
    upstream = torch.randn_like(expected)
    for found, wanted in zip(both_ways(read, upstream, ours), both_ways(expected, upstream, theirs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.fixture
def chunks() -> Iterator[Callable[[int, int], None]]:
    with pytest.MonkeyPatch.context() as patch:

        def set_to(rows: int, keys: int) -> None:
            patch.setattr(attention, "_ROWS", rows)
            patch.setattr(attention, "_KEYS", keys)

        yield set_to


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("until", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_reads_and_gradients_are_the_references(groups: int, segments: bool, until: bool, ordered: bool) -> None:
    same(*drawn(groups=groups, segments=segments, until=until, ordered=ordered))


@pytest.mark.parametrize("rows", [1, 2, 3, 64])
@pytest.mark.parametrize("keys", [1, 3, 64])
def test_whatever_the_number_of_rows_and_keys_at_a_time(
    rows: int, keys: int, chunks: Callable[[int, int], None]
) -> None:
    chunks(rows, keys)
    same(*drawn(batch=2, heads=1, length=5, groups=2, until=True, seed=3))


def test_keys_that_no_row_sees_are_left_out(chunks: Callable[[int, int], None]) -> None:
    chunks(2, 2)
    view = View(sees=integers([0, 3, 4, 9]), rank=integers([3, 2, 1, 8, 7, 9]), ordered=4)
    assert view.parts == [(slice(0, 2), slice(0, 4)), (slice(2, 4), slice(0, 6))]
    given, _ = drawn(batch=1, length=4, memory=2, beside=0, segments=False)
    same(given, view)


def test_rows_of_both_kinds_are_never_taken_together(chunks: Callable[[int, int], None]) -> None:
    chunks(4, 16)
    _, view = drawn(length=5, beside=3)
    assert [rows for rows, _ in view.parts] == [slice(0, 4), slice(4, 5), slice(5, 8)]


def test_inputs_need_not_be_contiguous() -> None:
    given, view = drawn(groups=2)
    ours = leaves(given, lambda tensor: tensor.transpose(-1, -2).contiguous().transpose(-1, -2))
    spread = [tensor.repeat_interleave(2, 0)[::2] for tensor in ours]
    assert not any(tensor.is_contiguous() for tensor in ours)
    theirs = leaves(given)
    read, expected = attend(*spread, view), slow(*theirs, view)
    upstream = torch.randn(2, *expected.shape, dtype=torch.float64).transpose(0, 1)[:, 0]
    for found, wanted in zip(both_ways(read, upstream, ours), both_ways(expected, upstream, theirs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


def test_gradients_pass_gradcheck() -> None:
    given, view = drawn(batch=2, heads=1, width=2, length=3, memory=1, beside=2, groups=2, until=True)
    assert torch.autograd.gradcheck(lambda *tensors: attend(*tensors, view), tuple(leaves(given)))


# rows that see nothing


@pytest.mark.parametrize("until", [False, True])
def test_rows_that_see_nothing_read_zeros_and_give_zero_gradients(until: bool) -> None:
    given, view = drawn(blind=True, until=until)
    same(given, view)
    ours = leaves(given)
    read = attend(*ours, view)
    assert view.blind.any()
    assert not view.blind.all()
    assert (read.transpose(1, 2)[view.blind] == 0).all()
    upstream = torch.zeros_like(read).masked_fill(view.blind[:, None, :, None], 1e6)
    for gradient in both_ways(read, upstream, ours)[1:]:
        assert (gradient == 0).all()


def test_a_batch_of_no_rows() -> None:
    same(*drawn(batch=0, groups=2))


def test_where_all_is_hidden_all_is_zero() -> None:
    given, view = drawn()
    hidden = View(view.sees, torch.full_like(view.rank, HIDDEN), view.ordered, view.columns, None, view.segments)
    assert (attend(*leaves(given), hidden) == 0).all()


# properties


@settings(max_examples=150, derandomize=True)
@example(2, 1, 1, 1, 0, 0, 1, False, False, False, True, 1, 1, 0)
@example(2, 1, 1, 1, 0, 1, 2, True, True, True, False, 1, 1, 0)
@given(
    pairs=st.integers(1, 2),
    heads=st.integers(1, 2),
    width=st.integers(1, 3),
    length=st.integers(1, 6),
    memory=st.integers(0, 4),
    beside=st.integers(0, 3),
    groups=st.sampled_from([1, 2]),
    segments=st.booleans(),
    until=st.booleans(),
    blind=st.booleans(),
    ordered=st.booleans(),
    rows=st.integers(1, 5),
    keys=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_any_sizes(
    pairs: int,
    heads: int,
    width: int,
    length: int,
    memory: int,
    beside: int,
    groups: int,
    segments: bool,
    until: bool,
    blind: bool,
    ordered: bool,
    rows: int,
    keys: int,
    seed: int,
) -> None:
    sizes = (pairs * groups, heads, width, length, memory, beside, groups, segments, until, blind, ordered, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_ROWS", rows)
        patch.setattr(attention, "_KEYS", keys)
        same(*drawn(*sizes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_and_never_nan(dtype: torch.dtype) -> None:
    given, view = drawn(width=8, length=20, memory=9, beside=4, groups=2, blind=True)
    halves = leaves(given, lambda tensor: tensor.to(dtype))
    exact = leaves([None if half is None else half.double() for half in halves])
    read, expected = attend(*halves, view), attend(*exact, view)
    assert read.dtype == dtype
    upstream = torch.randn_like(expected)
    near = 4 * torch.finfo(dtype).eps
    found, wanted = both_ways(read, upstream.to(dtype), halves), both_ways(expected, upstream, exact)
    for half, full in zip(found, wanted, strict=True):
        assert half.isfinite().all()
        assert (half.double() - full).norm() < near * full.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_scores_are_finite_in_half_precision(dtype: torch.dtype) -> None:
    """Scores of up to some 10,000, where one key takes all."""
    given, view = drawn(length=20, memory=9, beside=4, blind=True)
    halves = leaves([None if tensor is None else tensor * 50 for tensor in given], lambda tensor: tensor.to(dtype))
    read = attend(*halves, view)
    assert all(found.isfinite().all() for found in both_ways(read, torch.ones_like(read), halves))


def test_what_is_kept_for_backward_grows_with_rows_not_with_rows_times_keys() -> None:
    given, view = drawn(batch=1, heads=1, width=2, length=100, memory=50, beside=20)
    kept: list[int] = []
    ours = leaves(given)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):  # type: ignore[func-returns-value]
        attend(*ours, view)
    assert len(kept) > 6
    assert sum(kept) < 2 * sum(tensor.numel() for tensor in ours)
    assert sum(kept) < 120 * 150


# dropout


def probabilities(dropout: float, rows: int = 40, batch: int = 2) -> Tensor:
    """(B, N, rows, T) probabilities that are left: the values are the unit vectors of the keys."""
    keys = zeros(batch, 2, rows, rows)
    given, view = drawn(batch=batch, width=rows, length=rows, memory=0, beside=0, segments=False)
    whole = View(torch.ones_like(view.sees), torch.zeros_like(view.rank), view.ordered)
    content, position, _, _, _, distances = given
    unit = torch.eye(rows, dtype=torch.float64).expand(batch, 2, rows, rows)
    assert content is not None
    assert position is not None
    assert distances is not None
    return attend(content, zeros(*position.shape), None, keys, unit, distances, whole, dropout)


def test_dropout_leaves_its_share_scaled_up(chunks: Callable[[int, int], None]) -> None:
    chunks(8, 16)
    torch.manual_seed(0)
    left = probabilities(0.25, rows=120) * 120
    kept = left != 0
    torch.testing.assert_close(left[kept], torch.full_like(left[kept], 1 / 0.75))
    assert abs(float(kept.double().mean()) - 0.75) < 4 * math.sqrt(0.25 * 0.75 / kept.numel())
    # no two rows, heads or sequences lose the same keys, and rows that are computed apart neither
    assert len({tuple(row) for row in kept.flatten(0, 2).int().tolist()}) == 2 * 2 * 120


def test_dropout_draws_anew_at_each_call_and_follows_torchs_seed() -> None:
    torch.manual_seed(5)
    first, second = probabilities(0.5, rows=10), probabilities(0.5, rows=10)
    torch.manual_seed(5)
    again = probabilities(0.5, rows=10)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_dropout_is_right_in_the_mean() -> None:
    given, view = drawn(batch=1, heads=1, width=2, length=3, memory=1, beside=1)
    wanted = attend(*given, view)
    torch.manual_seed(0)
    reads = torch.stack([attend(*given, view, dropout=0.3) for _ in range(3000)])
    error = reads.std(0) / math.sqrt(len(reads))
    assert ((reads.mean(0) - wanted).abs() <= 4.5 * error + 1e-12).all()
    assert (reads.std(0) > 0).any()


def test_backward_drops_what_forward_dropped(chunks: Callable[[int, int], None]) -> None:
    chunks(2, 2)
    given, view = drawn(batch=2, heads=1, width=2, length=3, memory=1, beside=2, groups=2)

    def seeded(*tensors: Tensor) -> Tensor:
        torch.manual_seed(7)
        return attend(*tensors, view, dropout=0.4)

    assert torch.autograd.gradcheck(seeded, tuple(leaves(given)))
