"""What speaks against averaging a window, and silence about healthy ones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring.methods.averaging.window import sample, suspicious, suspicious_sample


def walk(count: int, elements: int = 400, seed: int = 0) -> Tensor:
    """A random walk: what a healthy run looks like, in each row the weights at one step."""
    moves = torch.randn(count, elements, generator=torch.Generator().manual_seed(seed))
    return 5 + 0.1 * moves.cumsum(dim=0)


def trajectory(
    steps: int, every: int, rate: float, seed: int = 0, spike: int = 0, back: int = 0
) -> list[dict[str, Tensor]]:
    """Weights of a real run, AdamW after a short warm-up.

    spike  a step from which the rate is thirty times as high for three steps
    back   a step after which the weights are again those of four snapshots before
    """
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    optimizer, teacher = torch.optim.AdamW(model.parameters(), rate), torch.randn(16, 4)
    kept: list[dict[str, Tensor]] = []
    for step in range(1, steps + 1):
        x = torch.randn(32, 16)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), (x @ teacher).argmax(dim=1)).backward()
        optimizer.param_groups[0]["lr"] = rate * min(1, step / 20) * (30 if spike <= step < spike + 3 and spike else 1)
        optimizer.step()
        if step == back:
            model.load_state_dict(kept[-4])
        if step % every == 0:
            kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    return kept


# by hand


def test_steps_that_go_back_and_steps_unevenly_spaced() -> None:
    rows = walk(4)
    assert suspicious_sample(rows, torch.float32, [10, 20, 30, 40]) == []
    assert suspicious_sample(rows, torch.float32, [10, 20, 20, 30])[0].startswith("The steps go from 20 to 20")
    assert suspicious_sample(rows, torch.float32, [10, 40, 30, 50])[0].startswith("The steps go from 40 to 30")
    assert suspicious_sample(rows, torch.float32, [10, 20, 30, 50])[0].startswith(
        "The steps are unevenly spaced, 10 to 20"
    )


def test_an_outlier_is_named() -> None:
    rows = walk(6)
    rows[3] += 4
    said = suspicious_sample(rows, torch.float32, [1, 2, 3, 4, 5, 6])
    assert said[0].startswith("An outlier at step 4")


def test_a_jump_is_placed() -> None:
    rows = walk(6)
    rows[3:] += 4
    assert suspicious_sample(rows, torch.float32)[-1].startswith("A jump between state 2 and state 3")


def test_a_growing_pace_is_told() -> None:
    moves = 3.0 ** torch.arange(6)
    said = suspicious_sample((moves[:, None] * torch.randn(6, 100)).cumsum(dim=0), torch.float32)
    assert any("The moves within the window differ" in sentence or "A jump" in sentence for sentence in said)


def test_a_return_is_told_and_an_oscillation_is_not() -> None:
    rows = walk(6)
    rows[4] = rows[0] + 0.01 * torch.randn(400)
    rows[5] = rows[4] + 0.1 * torch.randn(400)
    assert suspicious_sample(rows, torch.float32) == [
        "At state 4 the weights are back near state 0: the run restarted from there."
    ]
    swings = torch.tensor([0.0, 1, 0, 1, 0, 1])[:, None] + 0.05 * torch.randn(6, 400)
    assert suspicious_sample(swings, torch.float32) == []


def test_the_same_weights_twice() -> None:
    rows = walk(3)
    rows[2] = rows[0]
    assert suspicious_sample(rows, torch.float32, [1, 2, 3])[0].startswith("The same weights twice: step 1 and step 3")


@pytest.mark.parametrize(("dtype", "spread"), [(torch.bfloat16, 0.005), (torch.float16, 0.000625)])
def test_flat_is_closer_than_the_dtype_can_tell(dtype: torch.dtype, spread: float) -> None:
    signs = torch.tensor([[1.0], [-1.0]])
    assert suspicious_sample(1 + 0.9 * spread * signs.expand(2, 50), dtype)[0].startswith("A flat window")
    assert suspicious_sample(1 + 1.1 * spread * signs.expand(2, 50), dtype) == []
    assert suspicious_sample(1 + 0.9 * spread * signs.expand(2, 50), torch.float32) == []


def test_nan_is_placed() -> None:
    rows = walk(4)
    rows[1, 7] = math.nan
    assert suspicious_sample(rows, torch.float32) == ["NaN or infinities at state 1: leave these out."]


def test_a_sample_is_spread_evenly() -> None:
    state = {"b": torch.arange(10.0), "a": torch.arange(3.0), "ids": torch.arange(4)}
    assert sample(state, 4).tolist() == [0, 1, 2, 0, 3, 6, 9]


# on real runs


@pytest.mark.parametrize(("rate", "every"), [(1e-3, 5), (6e-3, 5), (6e-3, 20), (2e-2, 5)])
def test_no_alarm_at_a_constant_learning_rate(rate: float, every: int) -> None:
    kept = trajectory(60 + 12 * every, every, rate)
    first = 40 // every  # after the warm-up of 20 steps
    for count in (4, 5, 8):
        for start in range(first, len(kept) - count + 1):
            steps = [every * (start + i + 1) for i in range(count)]
            assert suspicious(kept[start : start + count], steps) == []


@pytest.mark.parametrize("rate", [1e-3, 6e-3])
def test_an_injected_spike_is_seen(rate: float) -> None:
    kept = trajectory(110, 5, rate, spike=91)
    assert suspicious(kept[:18][-5:]) == []
    for start in range(14, 18):  # the windows that span steps 90 to 95
        assert any("jump" in sentence for sentence in suspicious(kept[start : start + 5]))


def test_a_restart_is_seen() -> None:
    kept = trajectory(120, 5, 6e-3, back=101)
    assert suspicious(kept[14:19]) == []
    assert any("back near state" in sentence for sentence in suspicious(kept[15:21]))


def test_a_pure_bfloat16_run_that_hardly_moves_is_flat() -> None:
    kept = [{name: tensor.bfloat16() for name, tensor in state.items()} for state in trajectory(60, 1, 1e-5)[-5:]]
    assert "flat" in suspicious(kept)[0] or "same weights" in suspicious(kept)[0]


# property


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_no_alarm_on_a_walk_at_any_scale(count: int, seed: int, scale: float) -> None:
    assert suspicious_sample(scale * walk(count, seed=seed), torch.float32, list(range(count))) == []


# alone and misused


def test_too_few_to_judge() -> None:
    assert suspicious([]) == suspicious([{"w": torch.ones(3)}]) == []
    assert suspicious([{"ids": torch.ones(3, dtype=torch.int64)}] * 2) == []


def test_misuse_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match="3 steps for 2 states"):
        suspicious_sample(walk(2), torch.float32, [1, 2, 3])
