from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import XLNetConfig, XLNetModel

from shoestring.methods.permutation.attention import View
from shoestring.methods.permutation.layout import Layout, blockwise, distances, left_to_right
from shoestring.methods.permutation.orders import HIDDEN


def integers(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def seen(view: View) -> list[str]:
    """Of the first row of the batch, each row's keys: x where it is seen."""
    blocked = view.blocked(slice(None), slice(None))[0, 0]
    return ["".join(".x"[int(not key)] for key in row) for row in blocked.tolist()]


def away(view: View, memory: int, length: int) -> Tensor:
    """(B, rows, keys): how far each row is from each key."""
    batch, rows, keys = len(view.sees), view.sees.shape[1], view.rank.shape[1]
    found = torch.empty(batch, rows, keys, dtype=torch.int64)
    for row in range(view.ordered):
        found[:, row] = keys - view.ordered + row - torch.arange(keys)
    if rows > view.ordered:
        assert view.columns is not None
        found[:, view.ordered :] = memory + length - view.columns
    return found


# by hand: tokens a b c d; b and d are context, c is predicted first and a second
RANK, SEES = integers([1, -1, 0, -1]), integers([1, 0, 0, 0])


def test_what_two_streams_see() -> None:
    layout = Layout(RANK, SEES, targets=integers([0, 2]))
    assert layout.extra == 2
    assert seen(layout.view()) == ["xxxx", ".x.x", ".xxx", ".x.x", ".xxx", ".x.x"]
    assert away(layout.view(), 0, 4)[0].tolist() == [
        [0, -1, -2, -3],
        [1, 0, -1, -2],
        [2, 1, 0, -1],
        [3, 2, 1, 0],
        [0, -1, -2, -3],
        [2, 1, 0, -1],
    ]


def test_a_content_row_sees_itself_and_whatever_is_seen_at_its_place() -> None:
    rank, sees = integers([0, 1, 2, HIDDEN]), integers([3, 0, 1, 2])
    layout = Layout(rank, sees, targets=integers([0, 1, 2, 3]))
    assert seen(layout.view()) == ["xxx.", "xx..", "xxx.", "xx..", "xxx.", "....", "x...", "xx.."]


def test_the_last_layer_has_the_rows_that_predict_alone() -> None:
    layout = Layout(RANK, SEES, targets=integers([0, 2]))
    assert seen(layout.last(integers([0, 2]))) == [".xxx", ".x.x"]
    states = torch.arange(6.0)[None, :, None]
    assert layout.asking(states, integers([0, 2])).flatten().tolist() == [4, 5]
    content = Layout(RANK, SEES, targets=integers([0, 2]), stream="content")
    assert content.extra == 0
    assert seen(content.last(integers([0, 2]))) == ["xxxx", ".xxx"]
    assert content.asking(states[:, :4], integers([2, 0])).flatten().tolist() == [2, 0]


def test_the_latest_memory_is_seen_by_all() -> None:
    layout = Layout(RANK, SEES, targets=integers([2]), memory=3, context=torch.tensor([2]))
    assert seen(layout.view()) == [".xxxxxx", ".xx.x.x", ".xx.xxx", ".xx.x.x", ".xx.x.x"]
    assert away(layout.view(), 3, 4)[0, [0, 4]].tolist() == [[3, 2, 1, 0, -1, -2, -3], [5, 4, 3, 2, 1, 0, -1]]


@pytest.mark.parametrize(("context", "memory"), [(-1, ".."), (0, ".."), (1, ".x"), (2, "xx"), (9, "xx")])
def test_context_hides_memory_and_nothing_else(context: int, memory: str) -> None:
    layout = Layout(RANK, SEES, memory=2, context=torch.tensor([context]))
    assert seen(layout.view()) == [memory + own for own in ("xxxx", ".x.x", ".xxx", ".x.x")]


def test_without_context_all_memory_is_seen() -> None:
    assert seen(Layout(RANK, SEES, memory=2).view())[1] == "xx.x.x"


def test_position_compensation_shows_masks_of_what_is_to_come() -> None:
    """The tokens, then the masked positions of a and c; rows of the tokens, of those masks, and of the two queries."""
    layout = Layout(RANK, SEES, targets=integers([0, 2]), compensate=4)
    assert layout.extra == 4
    rows = {"a": "xxxx..", "b": ".x.xxx", "c": ".xxxx.", "d": ".x.xxx", "mask of a": ".x.xxx", "mask of c": ".x.xxx"}
    rows |= {"query of a": ".xxxx.", "query of c": ".x.xxx"}
    assert seen(layout.view()) == [*rows.values()]
    assert away(layout.view(), 0, 4)[0, 6].tolist() == [0, -1, -2, -3, 0, -2]
    assert seen(layout.last(integers([0, 2]))) == [".xxxx.", ".x.xxx"]


def test_segments_go_along_with_their_rows() -> None:
    layout = Layout(RANK, SEES, integers([0, 2]), segments=integers([5, 6, 7, 8]), memory=1, compensate=4)
    rows, keys = layout.view().segments or (None, None)
    assert rows is not None
    assert keys is not None
    assert rows.tolist() == [[5, 6, 7, 8, 5, 7, 5, 7]]
    assert keys.tolist() == [[0, 5, 6, 7, 8, 5, 7]]  # the memory is of the first


def test_from_left_to_right() -> None:
    for tokens in (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, 4)):
        rank, sees = left_to_right(tokens)
        assert rank.tolist() == sees.tolist() == [[0, 1, 2]] * 2
        assert rank.dtype == torch.int32


def test_blocks_see_themselves_and_those_before() -> None:
    rank, sees = blockwise(torch.zeros(2, 5, dtype=torch.int64), 2)
    assert (rank.dtype, rank.shape, sees.shape) == (torch.int32, (2, 5), (2, 5))
    assert (rank[0].tolist(), sees[1].tolist()) == ([-1, -1, 2, 2, 5], [0, 0, 3, 3, 6])
    assert seen(Layout(rank, sees).view()) == ["xx...", "xx...", "xxxx.", "xxxx.", "xxxxx"]
    assert seen(Layout(rank, sees, integers([1, 2], [1, 2])).last(integers([1, 2], [1, 2]))) == ["xx...", "xxxx."]


def test_distances_by_hand() -> None:
    """Of a width of two the only frequency is 1: sine and cosine of the distances 3, 2, 1, 0, -1."""
    (found,) = distances(2, 2, 1, False, -1, torch.device("cpu")).tolist()
    for (sine, cosine), distance in zip(found, (3, 2, 1, 0, -1), strict=True):
        assert sine == pytest.approx(math.sin(distance), abs=1e-6)
        assert cosine == pytest.approx(math.cos(distance), abs=1e-6)
    clamped = distances(2, 2, 1, False, 1, torch.device("cpu"))
    assert clamped[0, :, 0].tolist() == pytest.approx([math.sin(1)] * 3 + [0, -math.sin(1)], abs=1e-6)


# against references


@pytest.mark.parametrize("clamp", [-1, 0, 3])
@pytest.mark.parametrize("both", [False, True])
def test_distances_are_those_of_transformers(clamp: int, both: bool) -> None:
    sizes = {"vocab_size": 5, "n_layer": 1, "n_head": 2, "d_model": 12, "d_inner": 8}
    body = XLNetModel(XLNetConfig(**sizes, clamp_len=clamp, bi_data=both))
    theirs = body.relative_positional_encoding(5, 9, bsz=4)
    found = distances(12, 5, 4, both, clamp, torch.device("cpu"))
    assert torch.equal(theirs[:, 0], found[0])
    assert torch.equal(theirs[:, -1], found[-1])
    assert len(found) == 1 + both


def rules(
    layout: Layout, kinds: list[list[str]], block: int, row: int
) -> tuple[list[list[bool]], list[list[int]], list[int]]:
    """What each row sees of each key, how far it is, and the rows' segments, token by token as the words have it.

    A place in the order is (block, place), and context has the place -1 of its block.
    """
    length, memory = layout.length, layout.memory
    rank = layout.rank[row].tolist()
    targets = [] if layout.targets is None else [max(0, at) for at in layout.targets[row].tolist()]
    real = [] if layout.targets is None else [at >= 0 for at in layout.targets[row].tolist()]

    def place(at: int) -> tuple[int, int]:
        base = at // block
        return base, rank[at] - base * (block + 1)

    def before(key: int, limit: tuple[int, int]) -> bool:
        return kinds[row][key] != "padding" and place(key) < limit

    def limit(at: int) -> tuple[int, int]:
        """The first place that a prediction at a position does not see."""
        base, own = place(at)
        return {"context": (base, 0), "predicted": (base, own), "functional": (base, own + 1), "padding": (0, 0)}[
            kinds[row][at]
        ]

    asked = [] if layout.targets is None else targets
    rows: list[tuple[str, int]] = [("content", at) for at in range(length)]
    if layout.compensate is not None:
        rows += [("mask", at) for at in asked]
    if layout.stream == "query":
        rows += [("query", at) for at in asked]
    found, far = [], []
    for kind, at in rows:
        top = (at // block, 0) if kind == "mask" else limit(at)
        if kind == "content" and kinds[row][at] == "predicted":
            top = (top[0], top[1] + 1)
        line = [layout.context is None or memory - slot <= int(layout.context[row]) for slot in range(memory)]
        line += [before(key, top) for key in range(length)]
        if layout.compensate is not None:
            for key, exists in zip(targets, real, strict=True):
                begun = (key // block, 0) <= top
                line.append(exists and begun and not before(key, top))
        found.append(line)
        stands = [slot - memory for slot in range(memory)] + list(range(length))
        stands += targets if layout.compensate is not None else []
        far.append([at - key for key in stands])
    segments = [] if layout.segments is None else [int(layout.segments[row][at]) for _, at in rows]
    return found, far, segments


@settings(max_examples=120, derandomize=True)
@given(
    length=st.integers(1, 7),
    block=st.integers(1, 4),
    memory=st.integers(0, 3),
    stream=st.sampled_from(["query", "content"]),
    compensated=st.booleans(),
    segmented=st.booleans(),
    data=st.data(),
)
def test_views_are_what_the_words_say(
    length: int, block: int, memory: int, stream: Any, compensated: bool, segmented: bool, data: st.DataObject
) -> None:
    kinds, rank, sees, targets = [], [], [], []
    for _ in range(2):
        own = data.draw(
            st.lists(st.sampled_from(["context", "predicted", "functional"]), min_size=length, max_size=length)
        )
        padded = data.draw(st.integers(0, length)) if data.draw(st.booleans()) and not compensated else 0
        own = ["padding"] * padded + own[padded:]
        ranks, limits = [], []
        for start in range(0, length, block):
            size = min(block, length - start)
            base = start // block * (block + 1)
            for at, place in enumerate(data.draw(st.permutations(range(size)))):
                rank_and_sees = {
                    "context": (base - 1, base),
                    "predicted": (base + place, base + place),
                    "functional": (base + place, base + place + 1),
                    "padding": (HIDDEN, 0),
                }[own[start + at]]
                ranks.append(rank_and_sees[0])
                limits.append(rank_and_sees[1])
        predicted = [at for at in range(length) if own[at] == "predicted"]
        targets.append((predicted + [-1] * length)[: max(1, length - 1)])
        kinds.append(own)
        rank.append(ranks)
        sees.append(limits)
    compensate = block if compensated and stream == "query" else None
    layout = Layout(
        integers(*rank),
        integers(*sees),
        integers(*targets),
        stream,
        torch.randint(3, (2, length)) if segmented else None,
        memory,
        torch.tensor(data.draw(st.lists(st.integers(0, memory), min_size=2, max_size=2))),
        compensate,
    )
    view = layout.view()
    assert view.sees.shape[1] == length + layout.extra
    blocked, far = view.blocked(slice(None), slice(None))[:, 0], away(view, memory, length)
    last = layout.last(integers(*targets))
    for row in range(2):
        found, expected_far, segments = rules(layout, kinds, block, row)
        # a target that is none may see anything: nobody looks at what becomes of it
        void = [length + at for at in range(layout.extra) if targets[row][at % len(targets[row])] < 0]
        some = [at for at in range(length + layout.extra) if at not in void]
        assert (~blocked[row])[some].tolist() == [found[at] for at in some]
        assert far[row][some].tolist() == [expected_far[at] for at in some]
        if view.segments is not None:
            assert view.segments[0][row][some].tolist() == [segments[at] for at in some]
        # the last layer's rows are those of the view that predict
        whole = {at: length + layout.extra - len(targets[row]) + column for column, at in enumerate(targets[row])}
        whole = whole if stream == "query" else {at: at for at in targets[row]}
        for column, at in enumerate(targets[row]):
            if at >= 0:
                own_row = last.blocked(slice(None), slice(None))[row, 0, column]
                assert torch.equal(own_row, blocked[row, whole[at]])
                assert torch.equal(away(last, memory, length)[row, column], far[row, whole[at]])


@pytest.mark.parametrize("targets", [[3, 1, 0, 2], [1, 3, -1, -1]])
def test_as_many_targets_as_tokens_stand_where_they_stand(targets: list[int]) -> None:
    layout = Layout(RANK, SEES, integers(targets))
    last = layout.last(integers(targets))
    assert away(last, 0, 4)[0].tolist() == [[max(0, at) - key for key in range(4)] for at in targets]


# mistakes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": RANK.float()}, r"rank is of torch.float32: expected int32 or int64"),
        ({"sees": SEES[:, :3]}, r"rank is of shape \(1, 4\), sees of \(1, 3\): expected the same"),
        ({"targets": torch.tensor([0, 2])}, r"targets are torch.int64 \(2,\): expected integers \(1, P\)"),
        ({"targets": integers([0], [2])}, r"targets are torch.int64 \(2, 1\): expected integers \(1, P\)"),
        ({"targets": RANK > 0}, r"targets are torch.bool \(1, 4\): expected integers \(1, P\)"),
        ({"targets": torch.zeros(1, 2)}, r"targets are torch.float32 \(1, 2\): expected integers \(1, P\)"),
        ({"stream": "both"}, "stream is 'both': expected one of query, content"),
        ({"segments": integers([0, 0])}, r"token_type_ids are \(1, 2\): expected \(1, 4\), as the input"),
        ({"context": torch.tensor([1, 2])}, r"context is \(2,\): expected \(1,\), one a row"),
        ({"compensate": 4}, "compensate is 4: expected a block's length, 1 or more, and query targets"),
        ({"compensate": 0, "targets": integers([0])}, "compensate is 0: expected a block's length"),
        (
            {"compensate": 4, "targets": integers([0]), "stream": "content"},
            "compensate is 4: expected a block's length",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else "-".join(given),
)
def test_what_does_not_fit_together_is_said(changes: dict[str, Any], words: str) -> None:
    given = {"rank": RANK, "sees": SEES} | changes
    with pytest.raises(ValueError, match=words):
        Layout(**given)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_either_kind_of_integers(dtype: torch.dtype, ordered: Callable[..., Any]) -> None:
    rank, sees = ordered(2, 6)
    targets = integers([0, 1], [2, 3])
    plain = Layout(rank, sees, targets, memory=2, context=torch.tensor([1, 2]), compensate=6).view()
    given = [tensor.to(dtype) for tensor in (rank, sees, targets)]
    other = Layout(*given, memory=2, context=torch.tensor([1, 2], dtype=dtype), compensate=6).view()
    assert torch.equal(plain.blocked(slice(None), slice(None)), other.blocked(slice(None), slice(None)))
    assert torch.equal(away(plain, 2, 6), away(other, 2, 6))
