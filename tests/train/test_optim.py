"""AdamW's groups, and schedules at steps computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.train import optim

SHAPES = ("linear", "cosine", "1-sqrt")


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 5)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor(1.0))


# by hand


def test_matrices_decay_and_vectors_do_not_and_a_tied_one_is_there_once() -> None:
    model = Small()
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = optim.adamw(model, 0.01, weight_decay=0.3, betas=(0.8, 0.7))
    groups = [({names[p] for p in group["params"]}, group["weight_decay"]) for group in optimizer.param_groups]
    assert groups == [({"embedding.weight"}, 0.3), ({"norm.weight", "norm.bias", "head.bias", "scale"}, 0.0)]
    assert all(group["lr"] == 0.01 and group["betas"] == (0.8, 0.7) for group in optimizer.param_groups)


def test_a_group_without_a_member_is_left_out() -> None:
    assert len(optim.adamw(nn.Linear(2, 2, bias=False), 0.1).param_groups) == 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (optim.constant(), {0: 1, 10**6: 1}),
        (optim.constant(4), {0: 0.25, 1: 0.5, 3: 1, 4: 1, 99: 1}),
        (optim.cosine(10), {0: 1, 5: 0.5, 10: 0, 11: 0}),
        (optim.cosine(12, 2), {0: 0.5, 1: 1, 2: 1, 7: 0.5, 12: 0}),
        (optim.cosine(10, floor=0.2), {0: 1, 5: 0.6, 10: 0.2, 20: 0.2}),
        (optim.warmup_stable_decay(10, 4), {0: 1, 5: 1, 6: 1, 7: 0.75, 9: 0.25, 10: 0, 20: 0}),
        (optim.warmup_stable_decay(10, 4, 2), {0: 0.5, 1: 1, 6: 1, 8: 0.5}),
        (optim.warmup_stable_decay(10, 4, shape="cosine"), {6: 1, 8: 0.5, 10: 0}),
        (optim.warmup_stable_decay(10, 4, shape="1-sqrt"), {6: 1, 7: 0.5, 10: 0}),
        (optim.warmup_stable_decay(10, 4, floor=0.5), {5: 1, 8: 0.75, 10: 0.5}),
        (optim.warmup_stable_decay(10, 0, 2), {0: 0.5, 9: 1, 10: 1}),
    ],
)
def test_schedules(schedule: optim.Schedule, expected: dict[int, float]) -> None:
    for step, factor in expected.items():
        assert schedule(step) == pytest.approx(factor, abs=1e-12), step


# against a reference


def test_the_cosine_is_the_one_of_torch() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=17, eta_min=0.1)
    ours = optim.cosine(17, floor=0.1)
    for step in range(18):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        theirs.step()


# property


@given(
    st.integers(2, 400).flatmap(
        lambda steps: st.tuples(
            st.just(steps),
            st.integers(0, steps - 1).flatmap(lambda w: st.tuples(st.just(w), st.integers(0, steps - 1 - w))),
        )
    ),
    st.sampled_from(SHAPES),
    st.floats(0, 1),
)
def test_factors_rise_then_hold_then_fall_between_floor_and_one(
    lengths: tuple[int, tuple[int, int]], shape: optim.Shape, floor: float
) -> None:
    steps, (warmup, decay) = lengths
    wsd = optim.warmup_stable_decay(steps, decay, warmup, shape, floor)
    cosine = optim.cosine(steps, warmup, floor)
    for schedule, falls in ((wsd, steps - decay), (cosine, warmup)):
        factors = [schedule(step) for step in range(steps + 2)]
        assert all(0 < factor <= 1 for factor in factors[: max(1, falls)])
        assert factors[:warmup] == sorted(factors[:warmup])
        assert all(
            later <= earlier + 1e-12 for earlier, later in zip(factors[falls:], factors[falls + 1 :], strict=False)
        )
        assert min(factors[falls:]) >= floor - 1e-12
        assert all(math.isclose(factor, 1) for factor in factors[warmup : max(warmup, falls)])


# misuse


def test_misuse() -> None:
    with pytest.raises(ValueError, match="no trainable parameter: every requires_grad is False"):
        optim.adamw(nn.Linear(2, 2).requires_grad_(False), 0.1)
    with pytest.raises(ValueError, match="a schedule of 10 steps is too short for 10 of warm-up and cool-down"):
        optim.cosine(10, 10)
    with pytest.raises(ValueError, match="a schedule of 10 steps is too short for 12 of"):
        optim.warmup_stable_decay(10, 6, 6)
    with pytest.raises(ValueError, match="cool-down shape 'steep': expected 'linear', 'cosine' or '1-sqrt'"):
        optim.cooled(0.5, "steep")  # type: ignore[arg-type]
