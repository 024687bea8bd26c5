"""Our own score: its parts by hand, against a plain version, and what it must not touch or take."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.span import effective_rank, span


def batch(count: int = 8, side: int = 8) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


# by hand


def test_effective_rank_by_hand() -> None:
    """Two channels that are one, two that are independent, one that does not vary."""
    first = torch.tensor([1.0, -1.0, 1.0, -1.0])
    second = torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert effective_rank(torch.stack([first, 3 * first + 5], dim=1)) == pytest.approx(1)
    assert effective_rank(torch.stack([first, 0.01 * second], dim=1)) == pytest.approx(2)
    assert effective_rank(torch.stack([first, torch.full((4,), 7.0)], dim=1)) == pytest.approx(1)
    assert effective_rank(torch.full((4, 3), 7.0)) == 0
    shares = np.array([2 / 3, 1 / 3])  # of channels a, a, b
    assert effective_rank(torch.stack([first, first, second], dim=1)) == pytest.approx(
        math.exp(-(shares * np.log(shares)).sum())
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 999))
def test_effective_rank_is_that_of_the_correlations(rows: int, channels: int, seed: int) -> None:
    """More channels than rows take another way, to the same number."""
    found = torch.randn(rows, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = np.linalg.eigvalsh(np.corrcoef(found.numpy().T).reshape(channels, channels)).clip(0)
    shares = values[values > 1e-12] / values.sum()
    assert effective_rank(found) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    assert 1 - 1e-9 <= effective_rank(found) <= min(channels, rows) + 1e-9


# against a plain version


def plain(model: nn.Module, images: Tensor) -> float:
    model = copy.deepcopy(model).train()
    given: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].detach()))
    found = model(images.contiguous(memory_format=torch.channels_last))
    signs = torch.randint(0, 2, found.shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    (found * signs).sum().backward()
    width = sum(effective_rank(before.permute(0, 2, 3, 1).flatten(0, 2)) for before in given)
    reached = [parameter for parameter in model.parameters() if parameter.grad is not None]
    size = sum(parameter.numel() for parameter in reached)
    steepest = max(float(parameter.grad.norm()) for parameter in reached if parameter.grad is not None)
    return math.log(width) + (math.log(size) - math.log(steepest)) / 4


def test_a_cell_scores_as_written_out_plainly() -> None:
    space = Cells201(channels=8, cells=1)
    model = space.build(("nor_conv_3x3", "skip_connect", "nor_conv_1x1", "avg_pool_3x3", "none", "nor_conv_3x3"), 0)
    found = span(model, batch())
    assert found.value == pytest.approx(plain(model, batch()), rel=1e-5)
    assert found.value == pytest.approx(found.size_term + found.shape_term)


def test_the_order_is_that_of_what_can_be_trained() -> None:
    """A cell of convolutions over one of poolings over one that is cut off."""
    space = Cells201(channels=8, cells=1)
    cells = [("nor_conv_3x3",) * 6, ("avg_pool_3x3",) * 6, ("none",) * 6]
    wide, narrow, cut = (span(space.build(cell, 0), batch()).value for cell in cells)
    assert wide > narrow > cut == -math.inf


def test_an_activation_that_does_not_reach_the_output_is_not_counted() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.dead, self.last = nn.Linear(4, 6), nn.Linear(4, 60), nn.Linear(6, 2)

        def forward(self, rows: Tensor) -> Tensor:
            F.relu(self.dead(rows))
            found: Tensor = self.last(F.relu(self.first(rows)))
            return found

    torch.manual_seed(0)
    forked, rows = Forked(), torch.randn(9, 4)
    alone = nn.Sequential(forked.first, nn.ReLU(), forked.last)
    assert span(forked, rows) == span(alone, rows)


# text


def decoder() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    return GPTNeoXForCausalLM(config).eval()


def test_padding_changes_nothing() -> None:
    ids = torch.randint(1, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    longer = torch.cat([ids, torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    mask = torch.cat([torch.ones_like(ids), torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    other = longer.clone()
    other[:, 9:] = 5
    one, two = ({"input_ids": found, "attention_mask": mask} for found in (longer, other))
    assert span(decoder(), one).value == pytest.approx(span(decoder(), two).value, abs=1e-6)


# the model after, and what is refused


def test_the_model_is_left_as_it_was() -> None:
    model = Cells201(channels=4, cells=1).build(("nor_conv_3x3",) * 6, 0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    span(model, batch())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


class Overflowing(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return F.relu(rows) * math.inf


@pytest.mark.parametrize(
    ("model", "rows", "says"),
    [
        (nn.Linear(4, 2), torch.randn(5, 4), "Linear has no activation"),
        (nn.Linear(4, 2), torch.randn(1, 4), "holds one sample"),
        (nn.Linear(4, 2), torch.full((3, 4), math.nan), "not finite, in row 0"),
        (Overflowing(), torch.randn(3, 4), "not finite on this batch"),
    ],
)
def test_what_cannot_be_scored_is_refused(model: nn.Module, rows: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        span(model, rows)
