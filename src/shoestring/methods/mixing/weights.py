"""How often to draw from each skill: Skill-It's weights from a graph and losses, and those of its plain twins."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def skill_weights(
    graph: Tensor,
    losses: Tensor,
    rate: float,
    *,
    mean: bool = False,
    normalize_loss: Tensor | None = None,
    eta_schedule: Tensor | None = None,
    ignore_lone_nodes: bool = False,
    prior: Tensor | None = None,
) -> Tensor:
    """How often to draw from each skill next, given how it helps the others and how they fare.

    graph   (skills, evaluated): graph[i, j] is how much training on i lowers the loss on j
    losses  (window, evaluated) or (evaluated,): held-out loss at the latest measurements, nats per token; what has no
            loss yet, before the first step, is said to have one of 1: `first_weights`
    rate    how sharply to prefer; 0 draws all alike
    Returns (skills,), float64: weights that sum to one, at any rate. Raises ValueError where a loss, an edge, the rate
    or the product of the three is not finite, the rate below zero, or shapes do not fit.

    Chen et al. 2023 (Skill-It), Algorithm 2: p_i ∝ exp(rate * sum over window and j of graph[i, j] * losses[., j]).
    The rest are switches of the code released with it, all off here:
    mean               average over the window instead of summing, as their fine-tuning does
    normalize_loss     (evaluated,): losses before training; each loss is divided by its own
    eta_schedule       (evaluated,): losses before training; the rate is divided by latest sum / first sum, so that it
                       grows as losses fall
    ignore_lone_nodes  a skill whose only edge is its own keeps 1 / skills; the others share the rest
    prior              (skills,): p_i is multiplied by it before all are made to sum to one
    """
    graph = _plain(graph)
    losses = _finite("the losses", losses)
    losses = losses[None] if losses.ndim == 1 else losses
    if graph.ndim != 2 or losses.ndim != 2 or not losses.shape[0] or losses.shape[1] != graph.shape[1]:
        raise ValueError(
            f"a graph of {tuple(graph.shape)} and losses of {tuple(losses.shape)} do not fit: "
            "expected (skills, evaluated) and (window, evaluated)"
        )
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"the rate is {rate}: expected a finite number, 0 or more")
    if eta_schedule is not None:
        first = _positive("eta_schedule", eta_schedule, graph.shape[1])
        rate = rate * float(first.sum() / losses[-1].sum().clamp_min(1e-12))
    gathered = losses.mean(0) if mean else losses.sum(0)
    if normalize_loss is not None:
        gathered = gathered / _positive("normalize_loss", normalize_loss, graph.shape[1])
    # by numpy, which reads a large graph faster than torch's own product on the CPU; what is not finite is told below
    with np.errstate(invalid="ignore", over="ignore"):
        scores = rate * torch.from_numpy(graph.numpy() @ gathered.numpy())
    if not bool(torch.isfinite(scores).all()):  # only then are the edges looked through: there may be a million
        _finite("the graph", graph)
        _finite("the rate times what each skill gives", scores)
    if prior is not None:
        scores = scores + _positive("prior", prior, graph.shape[0]).log()
    if not ignore_lone_nodes:
        return torch.softmax(scores, 0)  # subtracts the largest first, so that no rate overflows
    return _around(lone(graph), scores)


def first_weights(
    graph: Tensor, rate: float, *, ignore_lone_nodes: bool = False, prior: Tensor | None = None
) -> Tensor:
    """The weights of the first round, and of all where the graph is static (T = 1): every loss is said to be 1.

    Chen et al. 2023, Algorithm 2, p_1. graph (skills, evaluated); returns (skills,). The released code takes a prior
    for the losses too; here those stay 1.
    """
    if graph.ndim != 2:
        raise ValueError(f"a graph of {tuple(graph.shape)}: expected (skills, evaluated)")
    ones = torch.ones(graph.shape[1], dtype=torch.float64)
    return skill_weights(graph, ones, rate, ignore_lone_nodes=ignore_lone_nodes, prior=prior)


def lone(graph: Tensor) -> Tensor:
    """(skills,) of bool: whose only edge, out or in, is one of 1 to themselves. graph (skills, skills).

    The released code looks at sums of rows and columns, in which signed edges may cancel; here each edge is looked at.
    """
    if graph.ndim != 2 or graph.shape[0] != graph.shape[1]:
        raise ValueError(f"a graph of {tuple(graph.shape)} has no lone nodes: expected as many skills as evaluated")
    others = graph != torch.eye(len(graph), dtype=graph.dtype, device=graph.device)
    return ~others.any(0) & ~others.any(1)


def tempered(weights: Tensor, floor: float) -> Tensor:
    """The weights with none below `floor`: what is lacking is taken from the others, in proportion.

    weights (skills,), summing to one. Raises ValueError where the floor leaves nothing to share.
    """
    if not 0 <= floor * len(weights) <= 1:
        raise ValueError(f"a floor of {floor} for {len(weights)} skills: expected from 0 to {1 / len(weights):.3g}")
    low = torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(len(weights)):
        left = 1 - floor * int(low.sum())
        scaled = torch.where(low, floor, weights * left / weights[~low].sum().clamp_min(1e-300))
        below = (scaled < floor) & ~low
        if not below.any():
            return scaled
        low |= below
    return torch.full_like(weights, 1 / len(weights))


def by_size(sizes: Sequence[float]) -> Tensor:
    """(skills,): a random draw from the pool, in which each skill stands by its size."""
    found = _positive("sizes", torch.tensor(list(sizes), dtype=torch.float64), len(sizes))
    return found / found.sum()


def alike(skills: int) -> Tensor:
    """(skills,): stratified, each skill as often as any other."""
    return torch.full((skills,), 1 / skills, dtype=torch.float64)


def relevant(graph: Tensor, evaluated: Sequence[int] = ()) -> Tensor:
    """(skills,): stratified over those skills that help an evaluated one, or are one.

    graph      (skills, evaluated)
    evaluated  the rows that are evaluated skills themselves
    Chen et al. 2023, "skill-stratified". All alike where none helps.
    """
    chosen = (graph > 0).any(1)
    chosen[list(evaluated)] = True
    if not chosen.any():
        return alike(len(graph))
    return chosen.double() / chosen.sum()


def _around(pinned: Tensor, scores: Tensor) -> Tensor:
    weights = alike(len(scores))
    if not pinned.all():
        weights[~pinned] = torch.softmax(scores[~pinned], 0) * (int((~pinned).sum()) / len(scores))
    return weights


def _plain(values: Tensor) -> Tensor:
    return torch.as_tensor(values).detach().double().cpu()


def _finite(what: str, values: Tensor) -> Tensor:
    found = _plain(values)
    _refuse(what, found, ~torch.isfinite(found), "finite numbers")
    return found


def _positive(what: str, values: Tensor, count: int) -> Tensor:
    found = _finite(what, values)
    if tuple(found.shape) != (count,):
        raise ValueError(f"{what} of {tuple(found.shape)}: expected {count} numbers")
    _refuse(what, found, found <= 0, "numbers above zero")
    return found


def _refuse(what: str, found: Tensor, wrong: Tensor, expected: str) -> None:
    """Name the first of the wrong values: there may be many."""
    if bool(wrong.any()):
        place = wrong.nonzero()[0].tolist()
        raise ValueError(f"{what}: {float(found[wrong][0])} at {place}: expected {expected}")
