"""The length of the loss's gradient, and passes with other weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from shoestring.methods.search.gradients import grad_norm
from shoestring.methods.search.untouched import passed
from shoestring.models import presets


def linear(weights: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weights[0]), len(weights), bias=False)
    layer.weight = nn.Parameter(torch.tensor(weights))
    return layer


def test_by_hand():
    """Logits of zero: the gradient is (1/2 - 1, 1/2) times the input (3, 4), so its length is 5 / sqrt 2."""
    layer = linear([[0.0, 0.0], [0.0, 0.0]])
    found = grad_norm(layer, {"input": torch.tensor([[3.0, 4.0]]), "labels": torch.tensor([0])})
    assert found.value == pytest.approx(5 / math.sqrt(2))
    assert math.isnan(found.size_term)


def test_against_backward_in_a_bare_loop():
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(inplace=True), nn.Linear(7, 3))
    images, labels = torch.randn(6, 5, generator=torch.manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    found = grad_norm(model, {"input": images, "labels": labels}).value
    cross_entropy(model.train()(images), labels).backward()
    expected = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in model.parameters()))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("preset", ["neox-tiny", "gpt2-small"])
def test_of_text_against_the_loss_of_hugging_face(preset):
    changes = {"n_layer": 1, "n_embd": 16, "n_head": 2} if preset == "gpt2-small" else {}
    model = presets.build(presets.configuration(preset, 19, 8, **changes), 0)
    ids = torch.randint(19, (3, 8), generator=torch.manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    found = grad_norm(model, {"input_ids": ids, "attention_mask": mask}).value
    said = grad_norm(model, {"input_ids": ids, "attention_mask": mask, "labels": labels}).value
    model.eval()(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
    expected = math.sqrt(sum(float(parameter.grad.square().sum()) for parameter in model.parameters()))
    assert found == pytest.approx(expected, rel=1e-4)
    assert said == found


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 5))
def test_a_sample_given_twice_changes_nothing_and_a_frozen_layer_is_left_out(size, seed):
    torch_random = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    images, labels = size * torch.randn(2, 3, generator=torch_random), torch.tensor([0, 1])
    once = grad_norm(model, {"input": images, "labels": labels}).value
    twice = grad_norm(model, {"input": images.repeat(2, 1), "labels": labels.repeat(2)}).value
    assert twice == pytest.approx(once, rel=1e-4)
    model[2].requires_grad_(False)
    assert grad_norm(model, {"input": images, "labels": labels}).value <= once


def test_other_weights_go_to_tied_places_and_buffers_are_not_written_to():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Linear(2, 2, bias=False))
    model[2].weight = model[0].weight
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zeros = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    assert not passed(model, torch.randn(4, 2), zeros).any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(2, 2), "the batch has no labels, .* give a dict of the network's arguments and 'labels'"),
        ({"input": torch.ones(2, 2)}, "the batch has no labels"),
        ({"input": torch.ones(2, 2), "labels": torch.tensor([0, 7])}, "the labels are 0 to 7: expected .* 0 to 2"),
        ({"input": torch.ones(2, 2), "labels": torch.tensor([-1, 1])}, "the labels are -1 to 1"),
        ({"input": torch.ones(2, 2), "labels": torch.tensor([-100, -100])}, "the labels are all left out"),
        (
            {"input": torch.ones(2, 2), "labels": torch.tensor([0, 1, 2])},
            r"of shape \(3,\) for logits of shape \(2, 3\)",
        ),
        ({"input": torch.ones(2, 2), "labels": torch.ones(2)}, r"the labels are torch\.float32"),
        ({"input": torch.full((2, 2), math.nan), "labels": torch.tensor([0, 1])}, "Linear gives a loss of nan"),
    ],
)
def test_bad_input(inputs, message):
    with pytest.raises(ValueError, match=message):
        grad_norm(nn.Linear(2, 3), inputs)


def test_a_network_that_is_all_frozen_is_refused():
    with pytest.raises(ValueError, match="Linear has no parameter that is trained"):
        grad_norm(nn.Linear(2, 3).requires_grad_(False), {"input": torch.ones(2, 2), "labels": torch.tensor([0, 1])})
