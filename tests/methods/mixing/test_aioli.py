"""Aioli: the law is found where there is one, each round is the published one, and it goes on in its midst."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring.methods.mixing.aioli import Aioli, mixing_law, nearly_one_hot, normalized
from shoestring.methods.mixing.mixture import Mixture
from shoestring.train import state
from shoestring.types import Run, memory

NAMES = ("a", "b", "c")
LAW = np.array([[0.03, 0.01, 0.0], [0.0, 0.02, 0.005], [-0.01, 0.0, 0.01]])  # (skills, evaluated), nats a step


class World:
    """Losses that fall, step by step, by a linear law of the weights that are in effect (and slow down where told)."""

    def __init__(self, law: np.ndarray = LAW, names: tuple[str, ...] = NAMES, slowing: float = 1.0) -> None:
        self.law, self.names, self.slowing = law, names, slowing
        self.losses = np.full(law.shape[1], 5.0)
        self.told: list[tuple[int, list[float]]] = []
        self.run = Run(nn.Linear(1, 1), None, None)  # type: ignore[arg-type]
        self.measured: list[int] = []

    def set_weights(self, weights: Mapping[str, float]) -> None:
        self.told.append((self.run.step, list(weights.values())))

    def train(self, weights: list[float]) -> None:
        self.losses = self.losses - self.slowing**self.run.step * (np.array(weights) @ self.law)
        self.run.step += 1

    def go(self, hook: Aioli, until: int) -> None:
        while self.run.step < until:
            self.train(self.told[-1][1])
            hook(self.run)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        self.measured.append(self.run.step)
        return dict(zip(self.names, self.losses.tolist(), strict=True))


def hooked(world: World, **changes: Any) -> Aioli:
    given: dict[str, Any] = {"rate": 0.8, "round_steps": 20, "until": 80, "slice_steps": 3} | changes
    skills = given.pop("skills", NAMES)
    return Aioli(world, skills, world, **given)


# by hand


def test_a_mixture_that_tries_one_skill() -> None:
    assert nearly_one_hot(3, 1, 0.5).tolist() == [0.25, 0.5, 0.25]
    assert nearly_one_hot(2, 0, 1.0).tolist() == [1.0, 0.0]


def test_the_law_of_two_skills_on_one_loss() -> None:
    """0.75 x + 0.25 y = 5 and 0.25 x + 0.75 y = 3 give x = 6, y = 2."""
    assert mixing_law(torch.tensor([[5.0], [3.0]]), 0.75).flatten().tolist() == pytest.approx([6, 2])


def test_a_law_is_moved_up_to_zero_and_scaled() -> None:
    assert normalized(torch.tensor([[3.0, 1.0], [0.0, 4.0]])).tolist() == [[0.375, 0.125], [0.0, 0.5]]
    assert normalized(torch.tensor([[3.0, -1.0], [0.0, 2.0]])).tolist() == [[0.5, 0.0], [0.125, 0.375]]
    assert normalized(torch.zeros(2, 2)).tolist() == normalized(torch.full((2, 2), -3.0)).tolist() == [[0.25] * 2] * 2


def test_a_round_tries_each_skill_then_draws_by_what_it_learned() -> None:
    world = World()
    hook = hooked(world)
    hook.begin(world.run)
    world.go(hook, 20)
    assert world.measured == [0, 3, 6, 9, 20]  # one more than there are tries; the last begins the next round
    tries = world.told[:3]
    assert [step for step, _ in tries] == [0, 3, 6]
    assert sorted(weights for _, weights in tries) == [
        [0.125, 0.125, 0.75],
        [0.125, 0.75, 0.125],
        [0.75, 0.125, 0.125],
    ]
    moved = LAW - LAW.min()
    raw = np.exp(0.8 * (moved / moved.sum()).sum(1))
    assert world.told[3] == (9, pytest.approx((raw / raw.sum()).tolist()))
    assert hook.history == [(9, dict(zip(NAMES, world.told[3][1], strict=True)))]
    assert hook.weights == dict(zip(NAMES, world.told[4][1], strict=True))  # those of the next try


def test_the_planted_law_is_found() -> None:
    world = World()
    hook = hooked(world, normalize=False, sweeps=2)
    hook.begin(world.run)
    world.go(hook, 60)
    assert len(hook.laws) == 3
    for law in hook.laws:
        np.testing.assert_allclose(law.numpy(), 3 * LAW, atol=1e-12)


class Late(World):
    """The same, where weights that are set take effect some steps later, as of batches that workers make ahead."""

    def __init__(self, delay: int, **changes: Any) -> None:
        super().__init__(**changes)
        self.delay = delay

    def go(self, hook: Aioli, until: int) -> None:
        while self.run.step < until:
            due = [weights for step, weights in self.told if step + self.delay <= self.run.step]
            self.train(due[-1] if due else [1 / len(self.names)] * len(self.names))
            hook(self.run)


@pytest.mark.parametrize("delay", [1, 2, 3, 4, 5])
def test_the_planted_law_is_found_where_weights_take_effect_late(delay: int) -> None:
    world = Late(delay)
    hook = hooked(world, normalize=False, delay=delay, round_steps=30, until=90)
    hook.begin(world.run)
    world.go(hook, 90)
    assert len(hook.laws) == 3
    for law in hook.laws:
        np.testing.assert_allclose(law.numpy(), 3 * LAW, atol=1e-12)


def test_each_sweep_tries_all_in_an_order_of_its_own_that_the_seed_gives() -> None:
    def orders(seed: int) -> list[list[int]]:
        world = World(np.eye(5) * 0.01, tuple("abcde"))
        hook = hooked(world, skills="abcde", sweeps=2, slice_steps=1, until=100, seed=seed)
        hook.begin(world.run)
        world.go(hook, 100)
        tried = [int(np.argmax(weights)) for _, weights in world.told if max(weights) == 0.75]
        return [tried[place : place + 5] for place in range(0, len(tried), 5)]

    found = orders(0)
    assert len(found) == 10
    assert all(sorted(order) == list(range(5)) for order in found)
    assert len({tuple(order) for order in found}) > 5
    assert orders(0) == found
    assert orders(1) != found


def test_one_hot_tries_that_are_whole() -> None:
    world = World()
    hook = hooked(world, one_hot=1.0, normalize=False)
    hook.begin(world.run)
    world.go(hook, 9)
    np.testing.assert_allclose(hook.laws[0].numpy(), 3 * LAW, atol=1e-12)


def test_some_skills_may_be_what_counts() -> None:
    world = World(LAW[:, [2, 0]], ("c", "a"))
    hook = hooked(world, evaluated=["c", "a"], normalize=False)
    hook.begin(world.run)
    world.go(hook, 9)
    raw = np.exp(0.8 * 3 * LAW[:, [2, 0]].sum(1))
    assert list(hook.weights.values()) == pytest.approx((raw / raw.sum()).tolist())


def test_nothing_is_tried_at_the_last_step() -> None:
    world = World()
    hook = hooked(world, until=40)
    hook.begin(world.run)
    world.go(hook, 40)
    assert [step for step, _ in world.told] == [0, 3, 6, 9, 20, 23, 26, 29]
    assert len(hook.history) == 2


@pytest.mark.parametrize(("until", "rounds"), [(41, 2), (49, 2), (50, 3)])
def test_no_round_begins_that_would_end_in_a_try(until: int, rounds: int) -> None:
    world = World()
    hook = hooked(world, until=until)
    hook.begin(world.run)
    world.go(hook, until)
    assert len(hook.history) == rounds
    assert hook.weights == hook.history[-1][1]
    late = World()
    late.run.step = 40
    hook = hooked(late, until=49)
    hook.begin(late.run)
    assert late.told == []


@pytest.mark.parametrize(("until", "stop"), [(45, 45), (45, 43), (80, 26)])
def test_a_run_that_is_made_longer_goes_on(until: int, stop: int) -> None:
    """Stopped within, or after, a round that was not begun, it learns nothing of it, and the next as ever."""
    world = World()
    hook = hooked(world, until=until)
    hook.begin(world.run)
    world.go(hook, stop)
    longer = hooked(world, until=100)
    longer.load_state_dict(hook.state_dict())
    world.go(longer, 100)
    rounds = [step for step, _ in longer.history]
    assert rounds == ([9, 29, 69, 89] if until == 45 else [9, 29, 49, 69, 89])
    for law in longer.laws:
        assert torch.equal(law, longer.laws[0]) or torch.allclose(law, longer.laws[0])


# against the published procedure, written down once more


def published(world: World, k: int, rounds: int, order: list[int], told: dict[str, Any]) -> list[list[float]]:
    """Loss drops into a (loss, skill) matrix, one system a loss, column sums into exponentials."""
    p, found, ema = np.ones(k), list[list[float]](), None
    for i in range(rounds):
        before, graph = world.losses, np.zeros((world.law.shape[1], k))
        for _ in range(told["sweeps"] * k):
            skill = order.pop(0)
            mix = np.where(np.arange(k) == skill, told["one_hot"], (1 - told["one_hot"]) / (k - 1))
            for _ in range(told["slice_steps"]):
                world.train(mix.tolist())
            graph[:, skill] += before - world.losses
            before = world.losses
        w = np.full((k, k), (1 - told["one_hot"]) / (k - 1))
        np.fill_diagonal(w, told["one_hot"])
        graph = np.stack([np.linalg.solve(w, row / told["sweeps"]) for row in graph])
        if told["normalize"]:
            graph = graph - min(graph.min(), 0)
            graph = graph / graph.sum()
        if told["ema"] is None:
            p = p * np.exp(told["rate"] * graph.sum(0))
        else:
            ema = graph if ema is None else (1 - told["ema"]) * graph + told["ema"] * ema
            p = np.exp(told["rate"] * ema.sum(0))
        found.append((p / p.sum()).tolist())
        while world.run.step < told["round_steps"] * (i + 1):
            world.train(found[-1])
    return found


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(2, 5),
    sweeps=st.integers(1, 2),
    slice_steps=st.integers(1, 3),
    one_hot=st.sampled_from([0.625, 0.75, 1.0]),
    normalize=st.booleans(),
    ema=st.sampled_from([None, 0.0, 0.1, 0.5]),
)
def test_every_round_is_the_published_one(
    seed: int, k: int, sweeps: int, slice_steps: int, one_hot: float, normalize: bool, ema: float | None
) -> None:
    law = np.random.default_rng(seed).normal(0.01, 0.02, (k, k))
    names = tuple("abcde"[:k])
    given: dict[str, Any] = {
        "rate": 1.5,
        "sweeps": sweeps,
        "slice_steps": slice_steps,
        "one_hot": one_hot,
        "normalize": normalize,
        "ema": ema,
        "round_steps": sweeps * k * slice_steps + 2,
    }
    world = World(law, names, slowing=0.98)
    rounds = 3
    hook = hooked(world, skills=names, until=rounds * given["round_steps"], seed=seed, **given)
    hook.begin(world.run)
    world.go(hook, rounds * given["round_steps"])
    ends = {step for step, _ in hook.history}
    order = [int(np.argmax(weights)) for step, weights in world.told if step not in ends]
    other = World(law, names, slowing=0.98)
    expected = published(other, k, rounds, order, given)
    for (_, weights), wanted in zip(hook.history, expected, strict=True):
        assert list(weights.values()) == pytest.approx(wanted, rel=1e-6)
    np.testing.assert_allclose(world.losses, other.losses, rtol=1e-9)


# property


@given(seed=st.integers(0, 10**6), skills=st.integers(2, 8), factor=st.floats(0.6, 1.0))
def test_any_linear_law_is_found_exactly(seed: int, skills: int, factor: float) -> None:
    law = torch.randn(skills, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    mixtures = torch.stack([nearly_one_hot(skills, skill, factor) for skill in range(skills)])
    torch.testing.assert_close(mixtures.sum(1), torch.ones(skills, dtype=torch.float64))
    torch.testing.assert_close(mixing_law(mixtures @ law, factor), law, rtol=1e-9, atol=1e-9)


@given(seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
def test_a_normalized_law_sums_to_one_at_any_scale(seed: int, scale: float) -> None:
    law = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = normalized(law * scale)
    assert found.sum().item() == pytest.approx(1)
    assert found.min() >= 0
    torch.testing.assert_close(found, normalized(law))


# going on


@settings(max_examples=30)
@given(stop=st.integers(0, 79), ema=st.sampled_from([None, 0.3]))
def test_stopped_and_resumed_anywhere_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, stop: int, ema: float | None
) -> None:
    def at(step: int) -> tuple[World, Aioli]:
        world = World(slowing=0.97)
        hook = hooked(world, ema=ema, sweeps=2)
        hook.begin(world.run)
        world.go(hook, step)
        return world, hook

    whole, expected = at(80)
    world, first = at(stop)
    stem = tmp_path_factory.mktemp("state") / "hook"
    state.write(first.state_dict(), stem)
    second = hooked(world, ema=ema, sweeps=2)
    second.load_state_dict(state.read(stem))
    assert second.weights == first.weights
    second.begin(world.run)  # nothing: it went on
    world.go(second, 80)
    assert world.told == whole.told
    assert second.history == expected.history
    assert second.losses.rows == expected.losses.rows
    assert all(map(torch.equal, second.laws, expected.laws))


def test_a_kept_state_does_not_move_with_the_hook() -> None:
    world = World()
    hook = hooked(world)
    assert memory(hook) is hook
    hook.begin(world.run)
    world.go(hook, 27)  # within the estimate of the second round
    kept = hook.state_dict()
    before = copy.deepcopy(kept)
    hook.load_state_dict(kept)
    world.go(hook, 60)
    assert str(kept) == str(before)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 0.1},
        {"round_steps": 40},
        {"sweeps": 2},
        {"slice_steps": 2},
        {"one_hot": 0.6},
        {"normalize": False},
        {"ema": 0.1},
        {"seed": 1},
        {"skills": ("a", "b", "d")},
        {"evaluated": ("a", "b")},
    ],
)
def test_the_state_of_another_is_refused(changes: dict[str, Any]) -> None:
    world = World()
    hook = hooked(world)
    hook.begin(world.run)
    with pytest.raises(ValueError, match=r"the saved sampler has .*, this one .*: resume with the same"):
        hooked(world, **changes).load_state_dict(hook.state_dict())


# what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"skills": ("a",)}, "1 skills: expected two or more"),
        ({"skills": ()}, "0 skills"),
        ({"sweeps": 0}, "sweeps=0"),
        ({"slice_steps": 0}, "slice_steps=0"),
        ({"until": 0}, "until=0"),
        ({"one_hot": 1 / 3}, "one_hot above 0.333 up to 1"),
        ({"one_hot": 1.1}, "one_hot=1.1"),
        ({"one_hot": math.nan}, "one_hot=nan"),
        ({"round_steps": 9}, "round_steps=9, until=80: expected more than the 9 steps that estimating takes"),
        ({"ema": 1.0}, "ema is 1.0: expected from 0 to below 1"),
        ({"ema": math.nan}, "ema is nan"),
        ({"rate": math.inf}, "rate=inf"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hooked(World(), **changes)


def test_a_mixture_of_a_single_skill_is_told_of_once() -> None:
    world = World()
    hook = hooked(world, rate=50.0)
    hook.begin(world.run)
    with pytest.warns(UserWarning, match=r"step 9: [01]\.\d{4} of what is drawn is 'a': lower the rate") as said:
        world.go(hook, 60)
    assert len(said) == 1


def test_it_begins_with_a_round_or_not_at_all() -> None:
    world = World()
    hook = hooked(world)
    with pytest.raises(ValueError, match="Aioli was not begun"):
        hook(world.run)
    world.run.step = 5
    with pytest.raises(ValueError, match="begins at step 5: expected a multiple of round_steps=20"):
        hook.begin(world.run)
    world.run.step = 20
    hook.begin(world.run)
    assert [step for step, _ in world.told] == [20]


@pytest.mark.parametrize(
    ("bad", "said"), [(math.nan, "step 6: the loss of 'b' is nan"), (None, "step 6: the skill 'b' was not evaluated")]
)
def test_a_measurement_that_is_none_leaves_the_weights_as_they_are(bad: float | None, said: str) -> None:
    world = World()

    def evaluate(model: nn.Module) -> dict[str, float]:
        found = world(model)
        if world.run.step == 6:
            del found["b"]
            found |= {} if bad is None else {"b": bad}
        return found

    hook = Aioli(world, NAMES, evaluate, rate=1.0, round_steps=20, until=80, slice_steps=3)
    hook.begin(world.run)
    with pytest.raises(ValueError, match=said):
        world.go(hook, 20)
    assert [step for step, _ in world.told] == [0, 3]
    assert len(hook.losses.rows) == 2


# alone


def test_alone_in_a_bare_loop() -> None:
    """Two skills on one line: what still falls is drawn more."""
    rows = torch.eye(2)
    mixture = Mixture({"learnt": [0], "open": [1]}, batch_size=8)
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.diag(torch.tensor([1.0, 0.0]))
    run = Run(model, torch.optim.SGD(model.parameters(), lr=0.05), mixture)

    @torch.no_grad()
    def losses(model: nn.Module) -> dict[str, float]:
        errors: Tensor = (model(rows) - rows).square().mean(1)
        return dict(zip(mixture.names, errors.tolist(), strict=True))

    hook = Aioli(mixture, mixture.names, losses, rate=2.0, round_steps=20, until=40, slice_steps=2)
    hook.begin(run)
    for batch in mixture:
        (model(rows[batch]) - rows[batch]).square().mean().backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.step += 1
        hook(run)
        if run.step == 40:
            break
    assert mixture.weights == hook.weights
    assert hook.weights["open"] > 0.7


def test_a_mixture_whose_weights_take_effect_late_is_to_be_told_of() -> None:
    mixture = Mixture({name: [torch.zeros(1)] for name in NAMES}, batch_size=1, delay=4)
    hook = Aioli(mixture, NAMES, lambda model: dict.fromkeys(NAMES, 1.0), rate=1.0, round_steps=20, until=40)
    with pytest.raises(ValueError, match=r"take effect after 4 batches: give Aioli delay=4"):
        hook.begin(Run(nn.Linear(1, 1), None, mixture))  # type: ignore[arg-type]
    whole = Mixture({name: [torch.zeros(1)] for name in NAMES}, batch_size=1)
    hook = Aioli(whole, NAMES, lambda model: dict.fromkeys(NAMES, 1.0), rate=1.0, round_steps=20, until=40)
    run = Run(nn.Linear(1, 1), None, whole)  # type: ignore[arg-type]
    hook.begin(run)
    whole.loader(2)
    run.step = 1
    with pytest.raises(ValueError, match=r"take effect after 4 batches: give Aioli delay=4"):
        hook(run)
