"""The counts, and what holds for every proxy."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BatchEncoding

from shoestring.cost import flops as counted
from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.proxies import PROXIES, decoder_parameters, flops, parameters, reached_parameters
from shoestring.models import presets

CELL = ("nor_conv_3x3", "none", "nor_conv_1x1", "skip_connect", "avg_pool_3x3", "nor_conv_3x3")


def images(count: int = 4) -> dict[str, Tensor]:
    return {"images": torch.randn(count, 3, 8, 8, generator=torch.manual_seed(0)), "labels": torch.arange(count)}


def text() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(19, (4, 8), generator=torch.manual_seed(0))}


def gpt2() -> nn.Module:
    return presets.build(presets.configuration("gpt2-small", 19, 8, n_layer=2, n_embd=16, n_head=2, n_inner=24), 0)


# by hand


def test_parameters_are_those_trained_shared_ones_once():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    assert parameters(model, torch.ones(2, 3)).value == 9 + 6 + 2
    model[2].bias.requires_grad_(False)
    assert parameters(model, torch.ones(2, 3)).value == 9 + 6


def test_reached_parameters_are_those_that_a_gradient_reaches():
    """By hand: of two branches one is thrown away, and of an embedding that is frozen nothing counts."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle, self.last = nn.Linear(3, 4), nn.Linear(3, 5), nn.Linear(4, 2)
            self.last.bias.requires_grad_(False)

        def forward(self, rows: Tensor) -> Tensor:
            self.idle(rows)
            found: Tensor = self.last(self.used(rows).relu())
            return found

    model = Two()
    assert reached_parameters(model, torch.randn(4, 3)).value == (3 * 4 + 4) + 4 * 2
    assert parameters(model, torch.randn(4, 3)).value == (3 * 4 + 4) + (3 * 5 + 5) + 4 * 2
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert reached_parameters(model, torch.randn(4, 3)).value == 0


def test_decoder_parameters_of_a_gpt_neox():
    model = presets.build(presets.configuration("neox-tiny", 19, 8), 0)
    width, inner = 64, 256
    layer = 4 * width**2 + 4 * width + 2 * width * inner + inner + width + 4 * width
    assert decoder_parameters(model, text()).value == 2 * layer + 2 * width


def test_decoder_parameters_of_a_gpt2_leave_out_the_tied_head_and_the_places():
    width, inner = 16, 24
    layer = 4 * width**2 + 4 * width + 2 * width * inner + inner + width + 4 * width
    assert decoder_parameters(gpt2(), text()).value == 2 * layer + 2 * width


def test_decoder_parameters_refuse_a_network_without_tokens():
    with pytest.raises(ValueError, match="Network has no embeddings of tokens"):
        decoder_parameters(Cells201(channels=2, cells=1).build(CELL, 0), images())


def test_flops_of_two_layers_a_sample():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    assert flops(model, torch.ones(7, 3)).value == 2 * 3 * 5 + 2 * 5 * 2
    assert flops(model, torch.ones(1, 3)).value == 2 * 3 * 5 + 2 * 5 * 2


def test_flops_of_a_convolution():
    model = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    assert flops(model, torch.ones(2, 3, 6, 6)).value == 2 * 9 * 3 * 4 * 36


# against a reference


@pytest.mark.parametrize("preset", ["neox-tiny", "gpt2-small"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_flops_of_text_against_the_formula(preset, attention):
    changes = {"n_layer": 2, "n_embd": 16, "n_head": 2} if preset == "gpt2-small" else {}
    config = presets.configuration(preset, 19, 8, **changes)
    model = presets.build(config, 0)
    model.set_attn_implementation(attention)
    assert flops(model, text()).value == counted.formula(config, 1, 8, backward=False)


# of all of them


class Crowded(nn.Module):
    """A frozen layer, dropout, in-place rectifiers, norms of two kinds, a shared layer, hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm, self.other = nn.BatchNorm2d(4), nn.GroupNorm(2, 4)
        self.shared = nn.Conv2d(4, 4, 1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4, 10)
        self.first.bias.requires_grad_(False)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        found = nn.functional.relu(self.norm(self.first(images)), inplace=True)
        found = self.shared(nn.functional.gelu(self.other(self.shared(found)))).relu_()
        logits: Tensor = self.last(self.drop(found).mean((2, 3)))
        return logits


def state(model: nn.Module) -> dict[str, object]:
    """All that a proxy might leave behind, but the tensors' values."""
    kept: dict[str, object] = {"modes": [module.training for module in model.modules()]}
    kept["trained"] = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    kept["places"] = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    kept["hooks"] = [
        (list(module._forward_hooks), list(module._forward_pre_hooks), list(module._backward_hooks))
        for module in model.modules()
    ]
    kept["random"] = (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    kept["modules"] = [id(module) for module in model.modules()]
    kept["versions"] = {name: parameter._version for name, parameter in model.named_parameters()}
    return kept


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in PROXIES
        for kind in ("crowded", "gpt2")
        if (name, kind) != ("decoder_parameters", "crowded")
    ],
)
def test_the_model_and_the_batch_are_left_as_they_were(name, kind, grad):
    model, inputs = (gpt2(), text()) if kind == "gpt2" else (Crowded(), images())
    calls: list[int] = []
    next(model.children()).register_forward_hook(lambda *_: None)
    next(model.children()).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, 0.5)
            parameter.register_hook(calls.append)
    tensors, batch, before = copy.deepcopy(model.state_dict()), copy.deepcopy(inputs), state(model)
    with torch.set_grad_enabled(grad):
        first = PROXIES[name](model, inputs)
        assert torch.is_grad_enabled() == grad
    assert state(model) == before
    assert calls == []
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, batch[key]) and not tensor.requires_grad for key, tensor in inputs.items())
    assert all(
        bool((parameter.grad == 0.5).all()) if parameter.requires_grad else parameter.grad is None
        for parameter in model.parameters()
    )
    assert PROXIES[name](model, inputs).value == first.value


@pytest.mark.parametrize("name", PROXIES)
def test_what_a_tokenizer_returns_is_a_batch(name):
    """Hugging Face's batches are mappings, but no dicts."""
    model = presets.build(presets.configuration("neox-tiny", 19, 8), 0)
    inputs = text() | {"attention_mask": torch.ones(4, 8, dtype=torch.long)}
    assert PROXIES[name](model, BatchEncoding(inputs)) == PROXIES[name](model, inputs)


@pytest.mark.parametrize("name", PROXIES)
def test_an_embedding_that_renormalises_itself_is_left_as_it_was(name):
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.last = nn.Embedding(19, 8, max_norm=0.5), nn.Linear(8, 19)

        def get_input_embeddings(self) -> nn.Module:
            return self.embedding

        def forward(self, input_ids: Tensor) -> Tensor:
            found: Tensor = self.last(self.embedding(input_ids).relu())
            return found

    model = Bag()
    before = copy.deepcopy(model.state_dict())
    PROXIES[name](model, text())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["flops", "synflow", "grad_norm", "jacob_cov"])
def test_the_model_is_left_as_it_was_where_its_pass_fails(name):
    model = Crowded()
    wrong = {"images": torch.randn(4, 5, 8, 8), "labels": torch.arange(4)}
    before = state(model)
    with pytest.raises(RuntimeError):
        PROXIES[name](model, wrong)
    assert state(model) == before


@pytest.mark.parametrize("name", ["parameters", "flops", "synflow"])
def test_a_larger_network_of_one_shape_ranks_higher(name):
    """The documented direction, where it is plain; correlations and gradients say nothing of size."""
    small, large = (Cells201(channels=width, cells=1).build(CELL, 0) for width in (4, 8))
    assert PROXIES[name](small, images()).value < PROXIES[name](large, images()).value


def test_none_is_nan_on_real_networks_of_all_kinds():
    space = Cells201(channels=2, cells=1)
    draws = random.Random(0)
    for _ in range(6):
        model = space.build(space.draw(draws), 0)
        for name, proxy in PROXIES.items():
            if name != "decoder_parameters":
                assert not np.isnan(proxy(model, images()).value), name


def test_compiled_models_count_the_same():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    batch = {"input": torch.randn(4, 3, generator=torch.manual_seed(0)), "labels": torch.tensor([0, 1, 0, 1])}
    compiled = torch.compile(model, backend="eager")
    for name in ("parameters", "flops", "synflow", "grad_norm", "jacob_cov"):
        assert PROXIES[name](compiled, batch).value == PROXIES[name](model, batch).value, name


def test_the_names_are_those_of_the_tables():
    assert list(PROXIES) == [
        "naswot",
        "span",
        "parameters",
        "reached_parameters",
        "flops",
        "synflow",
        "grad_norm",
        "jacob_cov",
        "decoder_parameters",
    ]
