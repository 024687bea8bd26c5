"""Orders by difficulty: when each skill is drawn, and samples whose pool grows round by round."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.mixing.curriculum import Paced, Scheduled, skill_curriculum
from shoestring.methods.mixing.mixture import Mixture
from shoestring.train import state
from shoestring.types import Run

# skills one after the other, by hand


def test_one_skill_after_the_other_then_all() -> None:
    """Shares of 1, 1.5, 2 and 3, 7.5 in all: of 150 steps 20, 30, 40 and 60."""
    schedule = skill_curriculum({"hard": 3.0, "easy": 1.0, "fair": 2.0}, 150, mixing=0.5)
    assert [step for step, _ in schedule] == [0, 20, 50, 90]
    assert [weights for _, weights in schedule] == [
        {"hard": 0.0, "easy": 1.0, "fair": 0.0},
        {"hard": 0.0, "easy": pytest.approx(1 / 3), "fair": pytest.approx(2 / 3)},
        {"hard": 0.5, "easy": 0.25, "fair": 0.25},
        {"hard": pytest.approx(1 / 3), "easy": pytest.approx(1 / 3), "fair": pytest.approx(1 / 3)},
    ]


@given(
    losses=st.dictionaries(st.text(max_size=3), st.floats(0, 10), min_size=1, max_size=6),
    steps=st.integers(0, 10**5),
    mixing=st.floats(0, 1),
)
def test_each_skill_has_its_share_of_all_steps(losses: dict[str, float], steps: int, mixing: float) -> None:
    """Over the run a skill has its own share twice, and `mixing` of it in each phase after its own."""
    schedule = skill_curriculum(losses, steps, mixing)
    starts = [step for step, _ in schedule]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[-1] <= steps
    drawn: Counter[str] = Counter()
    for (step, weights), end in zip(schedule, [*starts[1:], steps], strict=True):
        assert sum(weights.values()) == pytest.approx(1)
        for name, weight in weights.items():
            drawn[name] += weight * (end - step)  # type: ignore[assignment]
    order = sorted(losses, key=lambda name: losses[name])
    shares = [2 + mixing * (len(order) - 1 - place) for place in range(len(order))]
    for name, share in zip(order, shares, strict=True):
        assert drawn[name] == pytest.approx(steps * share / sum(shares), abs=len(order) + 1)


@pytest.mark.parametrize(
    ("losses", "mixing", "said"),
    [
        ({}, 0.4, "expected finite losses"),
        ({"a": math.nan, "b": 1.0}, 0.4, "expected finite losses"),
        ({"a": 1.0}, -0.1, "mixing=-0.1"),
    ],
)
def test_losses_that_are_none(losses: dict[str, float], mixing: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        skill_curriculum(losses, 10, mixing)


# the hook that keeps a schedule


class Noted:
    def __init__(self) -> None:
        self.told: list[Mapping[str, float]] = []

    def set_weights(self, weights: Mapping[str, float]) -> None:
        self.told.append(weights)


SCHEDULE = [(0, {"a": 1.0, "b": 0.0}), (3, {"a": 0.5, "b": 0.5}), (5, {"a": 0.0, "b": 1.0})]


def at_start(step: int = 0) -> Run:
    return Run(nn.Linear(1, 1), None, None, step)  # type: ignore[arg-type]


def go(hook: Scheduled, run: Run, until: int) -> None:
    while run.step < until:
        run.step += 1
        hook(run)


def test_weights_are_set_at_their_steps() -> None:
    run, mixture = at_start(), Noted()
    hook = Scheduled(mixture, SCHEDULE)
    hook.begin(run)
    assert mixture.told == [SCHEDULE[0][1]]
    go(hook, run, 9)
    assert hook.history == SCHEDULE
    assert mixture.told == [weights for _, weights in SCHEDULE]


def test_a_run_that_begins_late_has_the_weights_of_its_step() -> None:
    run = at_start(step=4)
    hook = Scheduled(Noted(), SCHEDULE)
    hook.begin(run)
    assert hook.history == [(4, SCHEDULE[1][1])]


@pytest.mark.parametrize("stop", range(7))
def test_a_schedule_is_resumed(tmp_path: Path, stop: int) -> None:
    run = at_start()
    first = Scheduled(Noted(), SCHEDULE)
    first.begin(run)
    go(first, run, stop)
    state.write(first.state_dict(), tmp_path / "hook")
    mixture = Noted()
    second = Scheduled(mixture, SCHEDULE)
    second.load_state_dict(state.read(tmp_path / "hook"))
    second.begin(run)
    assert mixture.told == []
    go(second, run, 7)
    assert second.history == SCHEDULE


def test_another_schedule_is_not_gone_on_with() -> None:
    first, second = Scheduled(Noted(), SCHEDULE), Scheduled(Noted(), SCHEDULE[:2])
    first.begin(at_start())
    with pytest.raises(ValueError, match="the saved sampler has schedule"):
        second.load_state_dict(first.state_dict())


@pytest.mark.parametrize("schedule", [[], SCHEDULE[1:], [SCHEDULE[0], SCHEDULE[2], SCHEDULE[1]]])
def test_a_schedule_begins_at_0_and_rises(schedule: Any) -> None:
    with pytest.raises(ValueError, match="expected rising steps, from 0 on"):
        Scheduled(Noted(), schedule)


def test_alone_in_a_bare_loop() -> None:
    mixture = Mixture({"easy": [0.0], "hard": [1.0]}, batch_size=2)
    run = at_start()
    hook = Scheduled(mixture, skill_curriculum({"easy": 0.1, "hard": 0.9}, 17, mixing=0.5))
    hook.begin(run)
    seen = []
    for batch in islice(mixture, 17):
        seen.append(batch.sum().item())
        run.step += 1
        hook(run)
    assert [step for step, _ in hook.history] == [0, 4, 9]
    assert seen[:4] == [0] * 4
    assert sum(seen[9:]) == pytest.approx(8, abs=1)


# samples whose pool grows


def paced(count: int = 12, batch: int = 4, steps: int = 9, rounds: int = 3, seed: int = 0, **place: int) -> Paced:
    order = np.random.default_rng(5).permutation(count)
    return Paced(
        [{"row": torch.tensor(row)} for row in range(count)], order.tolist(), batch, steps, rounds, seed, **place
    )


def rows(stream: Paced, batches: int) -> Iterator[list[int]]:
    return (batch["row"].tolist() for batch in islice(stream, batches))


def test_in_each_round_only_the_front_of_the_order_is_drawn() -> None:
    order = np.random.default_rng(5).permutation(12).tolist()
    drawn = list(rows(paced(), 12))
    first, second, third = ([row for batch in drawn[at : at + 3] for row in batch] for at in (0, 3, 6))
    assert Counter(first) == dict.fromkeys(order[:4], 3)
    assert set(second) == set(order[:8])
    assert Counter(third) == dict.fromkeys(range(12), 1)
    assert len({row for batch in drawn[9:] for row in batch}) == 12  # after the last step all are drawn on


@given(
    count=st.integers(1, 30),
    batch=st.integers(1, 7),
    steps=st.integers(1, 20),
    rounds=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_none_is_drawn_twice_more_than_another(count: int, batch: int, steps: int, rounds: int, seed: int) -> None:
    rounds = min(rounds, steps)
    order = np.random.default_rng(5).permutation(count).tolist()
    drawn = list(rows(paced(count, batch, steps, rounds, seed), steps + 3))
    starts = [round(steps * place / rounds) for place in range(rounds)]
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], steps + 3], strict=True)):
        pool = order[: max(1, count * (number + 1) // rounds)]
        counts = Counter(row for one in drawn[start:end] for row in one)
        assert set(counts) <= set(pool)
        assert max(counts.values()) - min(counts[row] for row in pool) <= 1


def test_rounds_and_epochs_have_orders_of_their_own_and_the_seed_gives_them() -> None:
    whole = list(rows(paced(30, 30, 6, 1), 6))
    assert len({tuple(batch) for batch in whole}) == 6
    assert list(rows(paced(30, 30, 6, 1), 6)) == whole
    assert list(rows(paced(30, 30, 6, 1, seed=1), 6)) != whole


@pytest.mark.parametrize("stop", [0, 1, 4, 9, 11])
def test_a_paced_stream_is_resumed(tmp_path: Path, stop: int) -> None:
    whole = list(rows(paced(count=10), 14))
    first = paced(count=10)
    assert list(rows(first, stop)) == whole[:stop]
    state.write(first.state_dict(), tmp_path / "stream")
    second = paced(count=10)
    second.load_state_dict(state.read(tmp_path / "stream"))
    assert list(rows(second, 14 - stop)) == whole[stop:]


def test_processes_share_each_batch() -> None:
    """As one process would have it, whatever each had drawn ahead; places may go through to a resumed run of more."""
    whole = list(rows(paced(count=10), 14))
    first, second = (list(rows(paced(count=10, rank=rank, world=2), 14)) for rank in (0, 1))
    assert [one + other for one, other in zip(first, second, strict=True)] == whole
    resumed = paced(count=10, rank=3, world=4)
    alone = paced(count=10)
    list(rows(alone, 5))
    resumed.load_state_dict(alone.state_dict())
    assert list(rows(resumed, 2)) == [batch[3:] for batch in whole[5:7]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, "0 places for 0 samples"),
        ({"rounds": 0}, "rounds=0"),
        ({"rounds": 10}, "rounds=10, steps=9"),
        ({"batch": 0}, "batch_size=0"),
        ({"world": 3}, "world=3: .* divides among the processes"),
        ({"world": 0}, "world=0"),
        ({"rank": 2, "world": 2}, "rank=2, world=2"),
    ],
)
def test_streams_that_cannot_be(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        paced(**changes)


def test_an_order_names_each_place_once() -> None:
    for order in ([0, 1], [0, 1, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match="places for 3 samples: expected each place once"):
            Paced([1, 2, 3], order, 1, 1, 1, 0)


def test_the_place_of_another_stream_is_refused() -> None:
    kept = paced().state_dict()
    turned = Paced(paced().samples, paced().order[::-1].tolist(), 4, 9, 3, 0)
    with pytest.raises(ValueError, match="the saved sampler has order"):
        turned.load_state_dict(kept)
    for changes in ({"batch": 8}, {"steps": 12}, {"rounds": 2}, {"seed": 1}, {"count": 13}):
        with pytest.raises(ValueError, match=r"the saved sampler has .*, this one .*: resume with the same"):
            paced(**changes).load_state_dict(kept)
