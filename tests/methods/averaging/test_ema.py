"""Exponential moving averages of the weights."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.averaging.ema import Ema


def fill(model: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


# by hand


def test_two_decays_in_one_pass() -> None:
    model, ema = nn.Linear(1, 1), Ema([0.5, 0.75], every=2, start=3)
    for step in range(1, 9):
        ema(SimpleNamespace(model=fill(model, step), step=step))  # type: ignore[arg-type]
    # moves at 4, 6, 8: 4 -> 5 -> 6.5, and 4 -> 4.5 -> 5.375
    assert ema.average(0.5)["weight"].item() == 6.5
    assert ema.average(0.75)["weight"].item() == 5.375
    assert ema.steps == [4, 8]


def test_it_is_float32_under_half_precision() -> None:
    model, ema = nn.Linear(1, 1).bfloat16(), Ema(0.999)
    ema.take(fill(model, 1), 1)
    ema.take(fill(model, 2), 2)
    assert ema.average()["weight"].item() == pytest.approx(1.001)  # in bfloat16 it would never leave 1


# against a reference


def test_it_is_the_average_that_torch_keeps() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    theirs, ours = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)), Ema(0.9)
    for step in range(6):
        with torch.no_grad():
            model.weight.add_(torch.randn(3, 4))
        theirs.update_parameters(model)
        ours.take(model, step)
    for name, tensor in theirs.module.named_parameters():
        torch.testing.assert_close(ours.average()[name], tensor.detach())


# property


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 3))
def test_stopped_and_resumed_is_never_stopped(stop: int, more: int, every: int) -> None:
    model = nn.Linear(3, 2)
    whole, first, second = (Ema([0.9, 0.99], every=every) for _ in range(3))
    for step in range(1, stop + more + 1):
        torch.manual_seed(step)
        model.reset_parameters()
        run = SimpleNamespace(model=model, step=step)
        if step == stop + 1:
            second.load_state_dict(first.state_dict())
        for hook in (whole, first if step <= stop else second):
            hook(run)  # type: ignore[arg-type]
    if more and whole.steps:
        assert second.steps == whole.steps
        for decay in (0.9, 0.99):
            one, other = whole.average(decay), second.average(decay)
            assert all(torch.equal(one[name], other[name]) for name in one)


# alone and misused


def test_alone_in_a_bare_loop() -> None:
    torch.manual_seed(0)
    model, ema = nn.Linear(2, 1), Ema([0.5, 0.9])
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(1, 11):
        optimizer.zero_grad()
        model(torch.randn(4, 2)).square().mean().backward()
        optimizer.step()
        ema.take(model, step)
    live = model.weight.detach().clone()
    with ema.swapped(model, 0.9):
        assert torch.equal(model.weight, ema.average(0.9)["weight"])
    assert torch.equal(model.weight, live)


def test_a_copy_is_given_and_a_copy_is_kept() -> None:
    model, ema = nn.Linear(1, 1), Ema(0.5)
    ema.take(fill(model, 1), 1)
    fill(model, 5)
    ema.average()["weight"].fill_(7)
    assert ema.average()["weight"].item() == 1


def test_misuse_is_refused_in_a_line() -> None:
    for decays in (1.0, -0.1, [0.9, 0.9], []):
        with pytest.raises(ValueError, match="expected"):
            Ema(decays)
    with pytest.raises(ValueError, match="every is 0"):
        Ema(0.9, every=0)
    ema = Ema([0.5, 0.9])
    with pytest.raises(ValueError, match="no weights are averaged yet"):
        ema.average(0.5)
    ema.take(nn.Linear(2, 2), 1)
    with pytest.raises(ValueError, match=r"decay is None: expected one of 0\.5, 0\.9"):
        ema.average()
    with pytest.raises(ValueError, match="shape"):
        ema.take(nn.Linear(3, 3), 2)
    with pytest.raises(ValueError, match="give decays="):
        Ema(0.5).load_state_dict(ema.state_dict())
