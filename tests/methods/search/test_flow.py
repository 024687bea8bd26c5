"""Synaptic flow in log space."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.flow import synflow
from shoestring.models import presets


def linear(weights: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights), bias=bias is not None)
    layer.weight = nn.Parameter(torch.tensor(weights))
    if bias is not None:
        layer.bias = nn.Parameter(torch.tensor(bias))
    return layer


def test_two_layers_by_hand():
    """|W1| 1 = (3, 7); |W2| of that is 1 * 3 + 2 * 7 = 17; each layer's flow is the output, so 34 in all."""
    model = nn.Sequential(linear([[1.0, -2.0], [-3.0, 4.0]]), nn.ReLU(), linear([[-1.0, 2.0]]))
    assert synflow(model, torch.randn(5, 2)).value == pytest.approx(math.log(34))


def test_biases_by_hand():
    """2 * 3 + 1 = 7 at the inner unit, 5 * 7 at the output: 35 from the outer weight, 30 and 5 from the inner layer."""
    model = nn.Sequential(linear([[3.0, -3.0]], [-1.0]), linear([[5.0]]))
    assert synflow(model, torch.zeros(2, 2)).value == pytest.approx(math.log(35 + 30 + 5))


def raw(model: nn.Module, ones: Tensor) -> float:
    """As written down: absolute weights, ones, one backward, the products summed."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    model(ones).sum().backward()
    gradients = [(parameter, parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    return sum(float((parameter.detach() * gradient).abs().sum()) for parameter, gradient in gradients)


def without_norms(model: nn.Module) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.BatchNorm2d, nn.LayerNorm)):
                setattr(parent, name, nn.Identity())
    return model


@pytest.mark.parametrize(
    "cell",
    [
        ("nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3", "skip_connect", "nor_conv_3x3", "none"),
        ("none", "none", "none", "skip_connect", "none", "none"),
    ],
)
def test_a_cell_against_the_procedure_as_written_down(cell):
    space = Cells201(channels=4, cells=2)
    expected = raw(without_norms(space.build(cell, 0)), torch.ones(1, 3, 16, 16, dtype=torch.float64))
    assert synflow(space.build(cell, 0), torch.randn(3, 3, 16, 16)).value == pytest.approx(math.log(expected))


class Linearised(nn.Module):
    """A GPT-NeoX without norms, GELUs and queries, for ones in the place of its embedded tokens."""

    def __init__(self, model: nn.Module, tokens: int) -> None:
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, ones: Tensor) -> Tensor:
        found = ones
        for layer in self.model.gpt_neox.layers:
            heads = layer.attention.query_key_value(found).unflatten(-1, (2, -1))  # heads, their q, k and v in a row
            values = heads.chunk(3, -1)[2].mean(1, keepdim=True).expand(-1, self.tokens, -1, -1)
            inner = layer.mlp.dense_4h_to_h(layer.mlp.dense_h_to_4h(found))
            found = found + layer.attention.dense(values.flatten(2)) + inner
        logits: Tensor = self.model.lm_head(found)
        return logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_language_model_against_its_linear_form(attention):
    model = presets.build(presets.configuration("neox-tiny", 19, 8), 0)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    expected = raw(Linearised(model, 6), torch.ones(1, 6, 64, dtype=torch.float64))
    ids = torch.randint(19, (2, 6), generator=torch.manual_seed(0))
    assert synflow(model, {"input_ids": ids}).value == pytest.approx(math.log(expected))
    assert synflow(model, ids).value == synflow(model, {"input_ids": ids.flip(1)}).value


@pytest.mark.parametrize(("size", "layers"), [(1e3, 150), (1e-3, 150), (1e5, 100), (1e-5, 100)])
def test_what_float64_cannot_hold(size, layers):
    """A chain of one unit: each of its layers has a flow of size ** layers."""
    model = nn.Sequential(*(linear([[size]]) for _ in range(layers)))
    expected = layers * math.log(size) + math.log(layers)
    assert abs(expected) > math.log(1e308)
    assert synflow(model, torch.ones(2, 1)).value == pytest.approx(expected, rel=1e-6)


def test_biases_are_scaled_with_what_they_are_added_to():
    layers = 120
    model = nn.Sequential(*(linear([[1e3]], [1e3]) for _ in range(layers)))
    # h = 1000 (h + 1), so that the output is the sum of 1000 ** k up to its layers, and once more the last
    assert synflow(model, torch.ones(2, 1)).value == pytest.approx(
        layers * math.log(1e3) + math.log(layers * (1 + 1e-3 + 1e-6 + 1) - 0.002), rel=1e-4
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100), st.integers(1, 60))
def test_a_scaled_layer_adds_its_log(seed, exponent):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False))
    before = synflow(model, torch.ones(2, 4)).value
    with torch.no_grad():
        model[0].weight *= 2.0**exponent
    assert synflow(model, torch.ones(2, 4)).value == pytest.approx(before + exponent * math.log(2))


class Functional(nn.Module):
    """Norms and activations as functions, and norms of another library."""

    class RMSNorm(nn.Module):
        def forward(self, found: Tensor) -> Tensor:
            return found / found.square().mean(-1, keepdim=True).sqrt()

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = linear([[1.0, -2.0], [-3.0, 4.0]]), self.RMSNorm(), linear([[-1.0, 2.0]])

    def forward(self, images: Tensor) -> Tensor:
        found = functional.gelu(functional.layer_norm(self.first(images), (2,)))
        found = functional.relu6(functional.silu(input=self.norm(found)))
        logits: Tensor = self.second(found)
        return logits


def test_what_is_passed_over():
    assert synflow(Functional(), torch.ones(2, 2)).value == pytest.approx(math.log(34))


def test_nothing_flows_through_a_network_that_is_cut():
    model = nn.Sequential(linear([[1.0, 2.0]]), linear([[0.0]]))
    assert synflow(model, torch.ones(2, 2)).value == -math.inf


def test_frozen_parameters_let_through_and_are_not_summed():
    model = nn.Sequential(linear([[1.0, -2.0], [-3.0, 4.0]]), nn.ReLU(), linear([[-1.0, 2.0]]))
    model[0].requires_grad_(False)
    assert synflow(model, torch.ones(2, 2)).value == pytest.approx(math.log(17))


def test_a_batch_of_one_and_half_precision():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).bfloat16()
    assert math.isfinite(synflow(model, torch.ones(1, 2, dtype=torch.bfloat16)).value)


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(12))

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.layers:
            images = layer(images) ** 2
        return images


def test_bad_input():
    with pytest.raises(ValueError, match="Squared has a synaptic flow that float64 cannot hold, scaled or not"):
        synflow(Squared(), torch.ones(2, 64))
    with pytest.raises(ValueError, match="Linear has no parameter that is trained"):
        synflow(nn.Linear(2, 2).requires_grad_(False), torch.ones(2, 2))
    with pytest.raises(ValueError, match="Linear has no embeddings of tokens"):
        synflow(nn.Linear(2, 2), torch.ones(2, 2, dtype=torch.int64))
