"""The stream of lessons: what a step holds, what an epoch holds, and that it goes on where it was."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale.encode import Pair
from shoestring.methods.rationale.lessons import LABEL, RATIONALE
from shoestring.methods.rationale.stream import Lessons, Mode
from shoestring.types import Batch

END = 9999
BOTH = {LABEL: 1.0, RATIONALE: 0.5}


def numbered(count: int, first: int = 0, longest: int = 1) -> list[Pair]:
    """The source says which it is; targets are of 1 to `longest` tokens and the end."""
    return [Pair([first + place, 1], [7] * (1 + place % longest) + [END]) for place in range(count)]


def stream(labels: int = 10, reasons: int = 10, size: int = 4, **changes: Any) -> Lessons:
    pairs = {LABEL: numbered(labels), RATIONALE: numbered(reasons, 1000, 5)}
    told = {"weights": BOTH, "family": "encoder-decoder", "pad": END, "seed": 0, **changes}
    return Lessons(pairs, told.pop("weights"), size, **told)


def rows(made: Batch) -> list[int]:
    """Which lessons a micro-batch holds."""
    return made["input_ids"][:, 0].tolist()


def steps(found: Lessons, count: int) -> list[list[list[int]]]:
    """Of each step, what its micro-batches hold."""
    return [[rows(made) for made in islice(found, found.micro_batches)] for _ in range(count)]


def same(one: Batch, other: Batch) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# by hand


def test_a_step_has_a_batch_of_each_task() -> None:
    found = stream(labels=4, reasons=4)
    label, reason = islice(found, 2)
    assert sorted(rows(label)) == [0, 1, 2, 3]
    assert sorted(rows(reason)) == [1000, 1001, 1002, 1003]
    assert label.keys() == {"input_ids", "attention_mask", "labels", "scale"}
    assert found.micro_batches == 2
    assert stream(family="decoder").__iter__().__next__().keys() == {"input_ids", "labels", "scored", "scale"}


def test_scales_by_hand() -> None:
    # 4 labels of 2 tokens; reasons of 2, 3, 4 and 5
    label, reason = islice(stream(labels=4, reasons=4), 2)
    assert label["scale"].tolist() == [1 / 8, 0]
    assert reason["scale"].tolist() == [0.5 / 14, 1]
    for rank in (0, 1):
        four = list(islice(stream(labels=4, reasons=4, parts=2, rank=rank, world=2), 4))
        assert [made["scale"].tolist() for made in four] == [
            [2 / 8, 0],
            [2 / 8, 0],
            [1 / 14, 0],
            [1 / 14, 1],
        ]
    alternating = list(islice(stream(labels=4, reasons=4, mode="alternating"), 2))
    assert [made["scale"].tolist() for made in alternating] == [[1 / 8, 1], [0.5 / 14, 1]]


def test_one_task_alone() -> None:
    found = Lessons({LABEL: numbered(6)}, {LABEL: 1.0}, 3, family="decoder", pad=END, seed=0)
    assert found.micro_batches == 1
    assert sorted(row for step in steps(found, 2) for some in step for row in some) == list(range(6))


def test_tasks_without_a_weight_are_not_taught() -> None:
    found = stream(weights={LABEL: 1.0})
    assert found.micro_batches == 1
    assert all(row < 1000 for step in steps(found, 5) for some in step for row in some)


def test_tasks_of_equal_size_walk_together() -> None:
    for label, reason in steps(stream(), 20):
        assert [row + 1000 for row in label] == reason


def test_fewer_reasons_than_labels_go_through_epochs_of_their_own() -> None:
    found = steps(stream(labels=12, reasons=4), 9)
    labels = [row for step in found for row in step[0]]
    reasons = [row for step in found for row in step[1]]
    for epoch in range(3):
        assert sorted(labels[12 * epoch : 12 * (epoch + 1)]) == list(range(12))
    for epoch in range(9):
        assert sorted(reasons[4 * epoch : 4 * (epoch + 1)]) == [1000, 1001, 1002, 1003]


def test_a_batch_larger_than_the_data_holds_it_several_times() -> None:
    ((label, reason),) = steps(stream(labels=3, reasons=5, size=7), 1)
    assert sorted(Counter(label).values()) == [2, 2, 3]
    assert sorted(label[:3]) == sorted(label[3:6]) == [0, 1, 2]
    assert sorted(Counter(reason).values()) == [1, 1, 1, 2, 2]


def test_alternating_steps_take_the_tasks_in_turn() -> None:
    found = stream(mode="alternating")
    assert found.micro_batches == 1
    drawn = steps(found, 10)
    labels = [row for (some,) in drawn[0::2] for row in some]
    reasons = [row for (some,) in drawn[1::2] for row in some]
    assert max(labels) < 1000 <= min(reasons)
    assert sorted(labels) == sorted([*range(10)] * 2)
    assert [row + 1000 for row in labels] == reasons
    mixed = [row for step in steps(stream(), 5) for row in step[0]]
    assert labels == mixed, "the same epochs"


def test_epochs_are_those_of_the_label() -> None:
    found = stream(labels=8, reasons=4)
    assert found.epochs == 0
    steps(found, 3)
    assert found.epochs == 1.5
    found = stream(labels=8, reasons=4, mode="alternating")
    steps(found, 4)
    assert found.epochs == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": 0}, r"a batch of 0 cannot be cut into 1 parts for 1 processes"),
        ({"size": 6, "parts": 4}, r"a batch of 6 cannot be cut into 4 parts for 1 processes"),
        ({"size": 4, "parts": 2, "world": 4}, r"a batch of 4 cannot be cut into 2 parts for 4 processes"),
        ({"parts": 0}, r"a batch of 4 cannot be cut into 0 parts for 1 processes"),
        ({"labels": 0}, r"the task 'label' has no lesson"),
        ({"weights": {LABEL: 1.0, "third": 1.0}}, r"the task 'third' has no lesson"),
        ({"weights": {LABEL: 1.0, RATIONALE: -0.1}}, r"the weight of rationale is -0\.1: expected zero or more"),
        ({"weights": {LABEL: 1.0, RATIONALE: float("nan")}}, r"the weight of rationale is nan"),
        ({"weights": {LABEL: float("inf"), RATIONALE: 1.0}}, r"the weight of label is inf"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stream(**changes)


# against a slow reference


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**63), st.integers(1, 6))
def test_it_is_the_epochs_one_after_the_other(count: int, size: int, seed: int, several: int) -> None:
    found = Lessons({LABEL: numbered(count)}, {LABEL: 1.0}, size, family="decoder", pad=END, seed=seed)
    drawn = [row for step in steps(found, several) for row in step[0]]
    line: list[int] = []
    for epoch in range(len(drawn) // count + 1):
        raw = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(count)
        line += sorted(range(count), key=lambda place, raw=raw: int(raw[place]))
    assert drawn == line[: len(drawn)]


# property

SIZES = {"labels": st.integers(1, 20), "reasons": st.integers(1, 20), "seed": st.integers(0, 2**63)}


@given(**SIZES, size=st.integers(1, 7))
def test_each_epoch_has_each_lesson_once_per_task(labels: int, reasons: int, seed: int, size: int) -> None:
    found = steps(stream(labels, reasons, size, seed=seed), 12)
    for task, count, first in ((0, labels, 0), (1, reasons, 1000)):
        drawn = [row for step in found for row in step[task]]
        for start in range(0, len(drawn) - count + 1, count):
            assert sorted(drawn[start : start + count]) == list(range(first, first + count))


@given(
    **SIZES,
    done=st.integers(0, 30),
    mode=st.sampled_from(["mixed", "alternating"]),
    parts=st.sampled_from([1, 2]),
    kind=st.sampled_from(["encoder-decoder", "decoder"]),
)
def test_it_goes_on_bit_for_bit_from_any_step(
    labels: int, reasons: int, seed: int, done: int, mode: Mode, parts: int, kind: str
) -> None:
    told = {"labels": labels, "reasons": reasons, "seed": seed, "mode": mode, "parts": parts, "family": kind}
    whole, again = stream(**told), stream(**told)
    walking = iter(whole)
    for _ in range(done * whole.micro_batches):
        next(walking)
    state = whole.state_dict()
    steps(again, 3)  # wherever it was
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert again.epochs == whole.epochs
    following = iter(again)
    for _ in range(4 * whole.micro_batches):
        assert same(next(walking), next(following))


def test_it_goes_on_in_other_parts_and_processes() -> None:
    whole = stream(size=8)
    steps(whole, 3)
    others = [stream(size=8, parts=2, rank=rank, world=2) for rank in (0, 1)]
    for other in others:
        other.load_state_dict(whole.state_dict())
    for _ in range(5):
        label, reason = steps(whole, 1)[0]
        cut = [steps(other, 1)[0] for other in others]
        assert [row for one in cut for part in one[:2] for row in part] == label
        assert [row for one in cut for part in one[2:] for row in part] == reason


@given(
    **SIZES,
    parts=st.sampled_from([1, 2, 4]),
    world=st.sampled_from([1, 2, 4]),
    mode=st.sampled_from(["mixed", "alternating"]),
)
def test_parts_and_processes_partition_the_batch(
    labels: int, reasons: int, seed: int, parts: int, world: int, mode: Mode
) -> None:
    told = {"labels": labels, "reasons": reasons, "size": 16, "seed": seed, "mode": mode}
    whole = steps(stream(**told), 4)
    ranks = [steps(stream(**told, parts=parts, rank=rank, world=world), 4) for rank in range(world)]
    for step, some in enumerate(whole):
        for task, expected in enumerate(some):
            cut = [ranks[rank][step][task * parts + part] for rank in range(world) for part in range(parts)]
            assert {len(part) for part in cut} == {16 // (parts * world)}
            assert [row for part in cut for row in part] == expected


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labels": 11}, "fingerprint"),
        ({"reasons": 9}, "fingerprint"),
        ({"weights": {LABEL: 1.0, RATIONALE: 0.6}}, "fingerprint"),
        ({"weights": {RATIONALE: 0.5, LABEL: 1.0}}, "fingerprint"),
        ({"size": 5}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"mode": "alternating"}, "mode"),
    ],
)
def test_other_lessons_are_refused(changes: dict[str, Any], named: str) -> None:
    state = stream(**changes).state_dict()
    with pytest.raises(ValueError, match=rf"the saved lessons have {named} .*, these "):
        stream().load_state_dict(state)


def test_one_token_more_or_less_is_another_lesson() -> None:
    def of(*pairs: Pair) -> Lessons:
        return Lessons({LABEL: pairs}, {LABEL: 1.0}, 1, family="decoder", pad=END, seed=0)

    known = of(Pair([1, 2], [3, 4]))
    for other in (of(Pair([1, 2, 3], [4])), of(Pair([1, 2], [3, 5])), of(Pair([1], [2, 3, 4]))):
        with pytest.raises(ValueError, match="fingerprint"):
            known.load_state_dict(other.state_dict())


@pytest.mark.parametrize("step", [None, -1, 1.5, "2", True])
def test_a_state_without_a_count_is_refused(step: Any) -> None:
    found = stream()
    state = {**found.state_dict(), "step": step}
    with pytest.raises(ValueError, match=r"the saved lessons are at step .*: expected a count"):
        found.load_state_dict(state)
    with pytest.raises(ValueError, match=r"the saved lessons have fingerprint None"):
        found.load_state_dict({})


def test_orders_of_epochs_that_are_over_are_let_go() -> None:
    found = stream(labels=3, reasons=20, size=4)
    steps(found, 200)
    assert len(found._orders) <= 6
