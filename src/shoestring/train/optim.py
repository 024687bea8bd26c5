"""AdamW with decay groups, and the schedules of its learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

Schedule = Callable[[int], float]
Shape = Literal["linear", "cosine", "1-sqrt"]


def adamw(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.AdamW:
    """AdamW that decays matrices and embeddings but no vector: biases and norms keep their scale.

    A parameter shared under two names is optimised once. Raises ValueError where nothing is to be trained.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the model has no trainable parameter: every requires_grad is False")
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def constant(warmup_steps: int = 0) -> Schedule:
    """Linear warm-up, then the peak for ever."""
    return lambda step: _warmup(step, warmup_steps)


def cosine(steps: int, warmup_steps: int = 0, floor: float = 0.0) -> Schedule:
    """Linear warm-up, then half a cosine down to `floor` (a fraction of the peak) at `steps`."""
    _check(steps, warmup_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmup(step, warmup_steps)
        done = min(1.0, (step - warmup_steps) / (steps - warmup_steps))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

    return factor


def warmup_stable_decay(
    steps: int, decay_steps: int, warmup_steps: int = 0, shape: Shape = "linear", floor: float = 0.0
) -> Schedule:
    """Linear warm-up, the peak, then a cool-down to `floor` over the last `decay_steps` before `steps`."""
    _check(steps, warmup_steps + decay_steps)

    def factor(step: int) -> float:
        if step < steps - decay_steps:
            return _warmup(step, warmup_steps)
        done = min(1.0, (step - (steps - decay_steps)) / decay_steps) if decay_steps else 0.0
        return floor + (1 - floor) * cooled(done, shape)

    return factor


def cooled(done: float, shape: Shape) -> float:
    """What is left of the peak when a fraction `done` of a cool-down is over: 1 at 0, 0 at 1."""
    if shape == "linear":
        return 1 - done
    if shape == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if shape == "1-sqrt":
        return 1 - math.sqrt(done)
    raise ValueError(f"cool-down shape {shape!r}: expected 'linear', 'cosine' or '1-sqrt'")


def _warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def _check(steps: int, needed: int) -> None:
    if steps <= needed:
        raise ValueError(f"a schedule of {steps} steps is too short for {needed} of warm-up and cool-down")
