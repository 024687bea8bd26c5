"""Skill-It's weights: what must hold on paper, every switch against the published formula, and no overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring.methods.mixing.weights import (
    alike,
    by_size,
    first_weights,
    lone,
    relevant,
    skill_weights,
    tempered,
)

LEGO = torch.eye(5, dtype=torch.float64)
LEGO[1, [0, 2, 3]] = 0.5


def drawn(seed: int, *shape: int, low: float = 0.0) -> Tensor:
    return low + torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# by hand


def test_a_complete_graph_draws_all_alike() -> None:
    weights = skill_weights(torch.full((4, 4), 0.7), drawn(0, 3, 4), rate=2.0)
    assert torch.equal(weights, alike(4))


def test_without_a_rate_all_are_drawn_alike() -> None:
    assert torch.equal(skill_weights(drawn(0, 4, 4), drawn(1, 3, 4), rate=0.0), alike(4))


def test_by_the_identity_weights_follow_the_losses() -> None:
    weights = skill_weights(torch.eye(2), torch.tensor([math.log(3), 0.0], dtype=torch.float64), rate=0.1)
    assert weights[0].item() == pytest.approx(3**0.1 / (1 + 3**0.1), rel=1e-14)
    assert weights.dtype == torch.float64


def test_a_window_is_summed_or_averaged() -> None:
    window = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]], dtype=torch.float64)
    assert skill_weights(torch.eye(2), window, 1.0).tolist() == pytest.approx([0.9, 0.1])
    assert skill_weights(torch.eye(2), window, 1.0, mean=True).tolist() == pytest.approx([0.75, 0.25])


def test_the_first_weights_of_the_authors_lego_graph() -> None:
    """Rows sum to 1, 2.5, 1, 1, 1: e^0.75 = 2.117 of 6.117 in all. Their Fig. 20."""
    weights = first_weights(LEGO, rate=0.5)
    assert [round(weight, 3) for weight in weights.tolist()] == [0.163, 0.346, 0.163, 0.163, 0.163]


def test_the_first_weights_are_those_of_losses_of_one() -> None:
    graph = drawn(2, 3, 5)
    assert torch.equal(first_weights(graph, 0.7), skill_weights(graph, torch.ones(5), 0.7))


def test_a_target_or_other_skills_weigh_by_what_they_are_helped() -> None:
    graph = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    weights = skill_weights(graph, torch.tensor([math.log(2), math.log(2)]), 1.0)
    assert weights.tolist() == pytest.approx([2 / 7, 4 / 7, 1 / 7])


def test_a_lone_skill_keeps_its_share() -> None:
    graph = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    assert lone(graph).tolist() == [True, False, False]
    losses = torch.tensor([50.0, math.log(3), 0.0], dtype=torch.float64)
    weights = skill_weights(graph, losses, 1.0, ignore_lone_nodes=True)
    assert weights.tolist() == pytest.approx([1 / 3, 2 / 3 * 3 / 4, 2 / 3 / 4], rel=1e-14)


def test_who_has_edges_that_cancel_is_not_lone() -> None:
    graph = torch.eye(3)
    graph[0, 1], graph[0, 2], graph[1, 0], graph[2, 0] = 0.5, -0.5, 0.5, -0.5
    assert lone(graph).tolist() == [False, False, False]


def test_all_lone_are_drawn_alike() -> None:
    assert torch.equal(skill_weights(torch.eye(3), drawn(0, 3), 5.0, ignore_lone_nodes=True), alike(3))


def test_a_floor_is_taken_from_the_others_in_proportion() -> None:
    found = tempered(torch.tensor([0.7, 0.28, 0.02], dtype=torch.float64), 0.1)
    assert found.tolist() == pytest.approx([0.7 / 0.98 * 0.9, 0.28 / 0.98 * 0.9, 0.1])
    # what the first floor takes brings another below it
    found = tempered(torch.tensor([0.79, 0.205, 0.005], dtype=torch.float64), 0.2)
    assert found.tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert found[1:].tolist() == [0.2, 0.2]  # in float64 to the last bit
    assert tempered(torch.tensor([1.0, 0.0]), 0.5).tolist() == [0.5, 0.5]


def test_plain_twins() -> None:
    assert by_size([1, 1, 1, 3, 5]).tolist() == pytest.approx([1 / 11, 1 / 11, 1 / 11, 3 / 11, 5 / 11])
    assert alike(4).tolist() == [0.25] * 4
    graph = torch.tensor([[0.5, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.1, -1.0]])
    assert relevant(graph).tolist() == [0.5, 0.0, 0.0, 0.5]
    assert relevant(graph, evaluated=[2]).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    assert torch.equal(relevant(-graph.abs()), alike(4))


@pytest.mark.parametrize("rate", [100.0, 1e6, 1e300])
def test_no_rate_overflows(rate: float) -> None:
    weights = skill_weights(drawn(0, 20, 20), drawn(1, 3, 20, low=1), rate)
    assert bool(torch.isfinite(weights).all())
    assert weights.sum().item() == pytest.approx(1)
    assert weights.min() >= 0


def test_graphs_of_any_kind_are_taken_and_none_is_changed() -> None:
    graph, losses = torch.eye(2, requires_grad=True), torch.tensor([1, 2])
    weights = skill_weights(graph, losses, 1)
    assert not weights.requires_grad
    assert torch.equal(skill_weights(torch.eye(2, dtype=torch.int64), losses, 1), weights)
    assert losses.tolist() == [1, 2]


# against the published formula, written down once more


def published(
    graph: np.ndarray,
    losses: np.ndarray,
    eta: float,
    mean: bool,
    normalize: bool,
    schedule: bool,
    ignore: bool,
    prior: np.ndarray | None,
    first: np.ndarray,
) -> np.ndarray:
    """Multiplicative weights as the released trainer forms them: exponentials as they are, sub-graph and all."""
    k = len(graph)
    start = np.ones(k) if prior is None else prior
    eta = eta / (losses[-1].sum() / first.sum()) if schedule else eta
    seen = losses.mean(0) if mean else losses.sum(0)
    seen = seen / first if normalize else seen
    if not ignore:
        raw = start * np.exp(eta * graph @ seen)
        return raw / raw.sum()
    kept = [i for i in range(k) if not (graph[i, i] == 1 and graph[i].sum() == 1 and graph[:, i].sum() == 1)]
    raw = start[kept] * np.exp(eta * graph[np.ix_(kept, kept)] @ seen[kept])
    found = np.full(k, 1 / k)
    found[kept] = raw / raw.sum() * (len(kept) / k)
    return found


@given(
    seed=st.integers(0, 10**6),
    square=st.booleans(),
    switched=st.tuples(*[st.booleans()] * 5),
    rate=st.floats(0.01, 2),
)
def test_every_switch_is_the_published_formula(
    seed: int, square: bool, switched: tuple[bool, ...], rate: float
) -> None:
    mean, normalize, schedule, ignore, weighed = switched
    ignore = ignore and square
    chance = np.random.default_rng(seed)
    skills, window = int(chance.integers(2, 7)), int(chance.integers(1, 5))
    evaluated = skills if square else int(chance.integers(1, 7))
    graph = np.where(chance.random((skills, evaluated)) < 0.4, chance.random((skills, evaluated)), 0.0)
    if square:
        np.fill_diagonal(graph, 1.0)
    losses, first = chance.random((window, evaluated)) * 3 + 0.01, chance.random(evaluated) * 3 + 0.1
    prior = chance.random(skills) + 0.1 if weighed else None
    found = skill_weights(
        torch.tensor(graph),
        torch.tensor(losses),
        rate,
        mean=mean,
        normalize_loss=torch.tensor(first) if normalize else None,
        eta_schedule=torch.tensor(first) if schedule else None,
        ignore_lone_nodes=ignore,
        prior=None if prior is None else torch.tensor(prior),
    )
    expected = published(graph, losses, rate, mean, normalize, schedule, ignore, prior, first)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-15)


# property


@given(seed=st.integers(0, 10**6), constant=st.floats(-5, 5), rate=st.floats(0, 3))
def test_what_is_added_to_all_scores_changes_nothing(seed: int, constant: float, rate: float) -> None:
    graph, losses = drawn(seed, 4, 6), drawn(seed + 1, 2, 6)
    moved = graph + constant  # each row by the same, so each score by the same
    torch.testing.assert_close(skill_weights(moved, losses, rate), skill_weights(graph, losses, rate))


@given(seed=st.integers(0, 10**6))
def test_the_order_of_skills_does_not_matter(seed: int) -> None:
    graph, losses = drawn(seed, 5, 3), drawn(seed + 1, 2, 3)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(skill_weights(graph[order], losses, 1.0), skill_weights(graph, losses, 1.0)[order])


@given(raw=st.lists(st.floats(0, 1), min_size=1, max_size=12), share=st.floats(0, 1))
def test_tempered_weights_sum_to_one_and_keep_the_floor_and_the_order(raw: list[float], share: float) -> None:
    weights = torch.tensor(raw, dtype=torch.float64) + 1e-6
    weights = weights / weights.sum()
    floor = share / len(raw)
    found = tempered(weights, floor)
    assert found.sum().item() == pytest.approx(1, abs=1e-14)
    assert found.min().item() >= floor - 1e-12
    order = weights.argsort()
    assert (found[order].diff() >= -1e-12).all()
    above = found > floor + 1e-9
    if above.any():  # those that are not on the floor keep their proportions
        ratio = found[above] / weights[above]
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


# alone


def test_alone_in_a_bare_loop() -> None:
    """Two skills, two scalars: what is worse is drawn more, until both are alike."""
    model, targets = nn.Parameter(torch.zeros(2)), torch.tensor([1.0, 3.0])
    optimizer = torch.optim.SGD([model], lr=0.1)
    weights, first = first_weights(torch.eye(2), 1.0), None
    for _ in range(60):
        losses = (model - targets).square()
        optimizer.zero_grad()
        (weights * losses).sum().backward()
        optimizer.step()
        weights = skill_weights(torch.eye(2), losses, rate=1.0)
        first = weights if first is None else first
    assert first is not None
    assert first[1] > 0.99
    assert weights.tolist() == pytest.approx([0.5, 0.5], abs=0.05)


# what is refused


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_by_place(bad: float) -> None:
    graph, losses = drawn(0, 3, 3), drawn(1, 2, 3)
    with pytest.raises(ValueError, match=rf"the losses: {bad} at \[1, 2\]: expected finite numbers"):
        skill_weights(graph, losses.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(bad).double()), 1.0)
    broken = graph.clone()
    broken[2, 1] = bad
    for seen in (losses, torch.zeros(3)):  # a loss of zero hides no edge
        with pytest.raises(ValueError, match=rf"the graph: {bad} at \[2, 1\]"):
            skill_weights(broken, seen, 1.0)
    with pytest.raises(ValueError, match="the rate is"):
        skill_weights(graph, losses, bad)
    with pytest.raises(ValueError, match="normalize_loss: "):
        skill_weights(graph, losses, 1.0, normalize_loss=torch.tensor([1.0, bad, 1.0]))


def test_a_rate_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="the rate times what each skill gives: inf at"):
        skill_weights(torch.ones(2, 2), torch.tensor([10.0, 10.0]), 1e308)


@pytest.mark.parametrize(
    ("graph", "losses", "switches", "said"),
    [
        (torch.ones(3), torch.ones(3), {}, r"a graph of \(3,\) and losses of \(1, 3\)"),
        (torch.ones(2, 3), torch.ones(2), {}, r"a graph of \(2, 3\) and losses of \(1, 2\)"),
        (torch.ones(2, 3), torch.ones(0, 3), {}, r"losses of \(0, 3\)"),
        (torch.ones(2, 3), torch.ones(1, 1, 3), {}, r"losses of \(1, 1, 3\)"),
        (torch.ones(2, 3), torch.ones(3), {"ignore_lone_nodes": True}, r"\(2, 3\) has no lone nodes"),
        (torch.ones(2, 3), torch.ones(3), {"prior": torch.ones(1)}, r"prior of \(1,\): expected 2 numbers"),
        (torch.ones(2, 3), torch.ones(3), {"prior": torch.tensor([1.0, 0.0])}, r"prior: 0.0 at \[1\]: .* above zero"),
        (torch.ones(2, 3), torch.ones(3), {"normalize_loss": torch.ones(2)}, r"normalize_loss of \(2,\): expected 3"),
        (torch.ones(2, 3), torch.ones(3), {"normalize_loss": torch.zeros(3)}, "normalize_loss: 0.0 at"),
        (torch.ones(2, 3), torch.ones(3), {"eta_schedule": torch.ones(1)}, r"eta_schedule of \(1,\): expected 3"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(graph: Tensor, losses: Tensor, switches: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        skill_weights(graph, losses, 1.0, **switches)
    assert "\n" not in str(caught.value)


def test_a_large_graph_that_is_refused_is_not_written_out() -> None:
    graph = torch.ones(300, 300)
    graph[7, 8] = math.nan
    with pytest.raises(ValueError, match=r"the graph: nan at \[7, 8\]") as caught:
        skill_weights(graph, torch.ones(300), 1.0)
    assert len(str(caught.value)) < 100


def test_twins_refuse_what_they_cannot_weigh() -> None:
    with pytest.raises(ValueError, match=r"sizes: 0.0 at \[1\]"):
        by_size([1, 0])
    with pytest.raises(ValueError, match=r"a graph of \(3,\)"):
        first_weights(torch.ones(3), 1.0)
    for floor in (-0.1, 0.51, math.nan):
        with pytest.raises(ValueError, match=r"for 2 skills: expected from 0 to 0\.5"):
            tempered(alike(2), floor)
