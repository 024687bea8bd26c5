"""Kernels against brute force, by hand, and what they refuse; the model is left as it was."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, GPT2Config, GPTNeoXConfig, LlamaConfig

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.inputs import compared
from shoestring.methods.search.kernel import agreements, kernel, together
from shoestring.methods.search.proxies import PROXIES
from shoestring.models import presets


def hamming(codes: Tensor) -> Tensor:
    """Agreements of each two rows, one pair at a time."""
    rows = codes.tolist()
    return torch.tensor([[sum(a == b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows])


def rectified(model: nn.Module, batch: Tensor) -> Tensor:
    """All codes of a network whose rectifiers are ReLU modules, in training mode, by hooks: (rows, units)."""
    codes: list[Tensor] = []
    watched = copy.deepcopy(model).train()
    for module in watched.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _, given, __: codes.append((given[0] > 0).flatten(1)))
    with torch.no_grad():
        watched(batch)
    return torch.cat(codes, dim=1)


def images(count: int, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


# by hand


def test_two_units_by_hand() -> None:
    """Rows (1, -1), (2, 3), (-1, -2) through a ReLU: codes 10, 11, 00."""
    rows = torch.tensor([[1.0, -1.0], [2.0, 3.0], [-1.0, -2.0]])
    found = kernel(nn.ReLU(), rows)
    assert found.units == 2
    assert found.agreements.tolist() == [[2, 1, 1], [1, 2, 0], [1, 0, 2]]


# against brute force


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_random_codes_agree_with_brute_force(count: int, units: int, seed: int) -> None:
    codes = torch.rand(count, units, generator=torch.Generator().manual_seed(seed)) > 0.5
    assert torch.equal(agreements(together(codes), units), hamming(codes))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.randoms(use_true_random=False), st.integers(0, 99))
def test_layers_in_any_order_give_the_same_kernel(widths: list[int], shuffler: random.Random, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand(7, width, generator=generator) > 0.5 for width in widths]
    whole = hamming(torch.cat(layers, dim=1))
    shuffler.shuffle(layers)
    both = sum((together(layer) for layer in layers), torch.zeros(7, 7, dtype=torch.int64))
    assert torch.equal(agreements(both, sum(widths)), whole)


def test_many_units_are_counted_to_the_integer() -> None:
    """2^25 + 1 units active in both rows: more than fp32 sums could hold."""
    units = 2**25 + 1
    codes = torch.ones(2, units, dtype=torch.bool)
    codes[1, 0] = False
    assert agreements(together(codes), units).tolist() == [[units, units - 1], [units - 1, units]]


def test_a_network_agrees_with_brute_force_on_its_own_activations() -> None:
    space = Cells201(channels=4, cells=1)
    rng, batch = random.Random(3), images(6)
    for _ in range(5):
        model = space.build(space.draw(rng), seed=0)
        whole = rectified(model, batch.contiguous(memory_format=torch.channels_last))
        found = kernel(model, batch)
        if found.units == whole.shape[1]:  # no activation that the output did not come from
            assert torch.equal(found.agreements, hamming(whole))
            break
    else:
        pytest.fail("none of the networks was compared")


# which activations there are


class Through(nn.Module):
    """One activation as a function, between two matrices."""

    def __init__(self, activation: Any) -> None:
        super().__init__()
        self.first, self.last, self.activation = nn.Linear(4, 6), nn.Linear(6, 2), activation

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.last(self.activation(self.first(rows)))
        return found


@pytest.mark.parametrize(
    "activation",
    [
        F.relu,
        torch.relu,
        F.relu_,
        F.relu6,
        F.leaky_relu,
        F.gelu,
        F.silu,
        F.mish,
        F.elu,
        F.selu,
        F.celu,
        F.hardswish,
        F.softplus,
        F.hardtanh,
        lambda rows: rows.clamp(min=0),
        lambda rows: rows.clamp_min(0.0),
        lambda rows: F.threshold(rows, 0.0, 0.0),
        lambda rows: F.relu(rows).square(),
        nn.PReLU(),
        nn.ReLU(inplace=True),
        nn.GELU(approximate="tanh"),
    ],
)
def test_rectifiers_as_modules_and_functions_give_the_sign_of_what_they_are_given(activation: Any) -> None:
    torch.manual_seed(0)
    model, rows = Through(activation), torch.randn(5, 4)
    found = kernel(model, rows)
    assert found.units == 6
    assert torch.equal(found.agreements, hamming(model.first(rows) > 0))


def test_a_gated_units_code_is_its_gates() -> None:
    torch.manual_seed(0)
    rows = torch.randn(5, 8)
    found = kernel(nn.Sequential(nn.GLU(), nn.Linear(4, 1)), rows)
    assert torch.equal(found.agreements, hamming(rows[:, 4:] > 0))


def test_what_does_not_rectify_is_no_activation() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh())
    assert kernel(model, torch.randn(5, 4)).units == 6
    model.append(Through(lambda rows: rows.clamp(min=-1.0)))
    model[-1].first = nn.Linear(6, 6)
    assert kernel(model, torch.randn(5, 4)).units == 6


# which activations the output came from


class Forked(nn.Module):
    """One branch reaches the output, one does not; a third is written into part of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.dead, self.part = nn.Linear(4, 3), nn.Linear(4, 50), nn.Linear(4, 2)

    def forward(self, rows: Tensor) -> Tensor:
        F.relu(self.dead(rows)).sum()
        found = torch.zeros(len(rows), 5)
        found[:, :3] = F.relu(self.live(rows))
        found[:, 3:] = F.relu(self.part(rows))
        return found * 2


def test_an_activation_that_does_not_reach_the_output_is_left_out() -> None:
    torch.manual_seed(0)
    model, rows = Forked(), torch.randn(6, 4)
    found = kernel(model, rows)
    assert found.units == 5
    codes = torch.cat([model.live(rows) > 0, model.part(rows) > 0], dim=1)
    assert torch.equal(found.agreements, hamming(codes))


def test_an_input_given_to_several_rectifiers_counts_as_often() -> None:
    torch.manual_seed(0)
    first = nn.Linear(4, 6)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = first

        def forward(self, rows: Tensor) -> Tensor:
            middle = self.first(rows)
            found = F.relu(middle) + F.gelu(middle)
            middle.add_(1.0)
            return found + F.relu(middle)

    rows = torch.randn(5, 4)
    middle = first(rows)
    found = kernel(Twice(), rows)
    assert torch.equal(found.agreements, hamming(torch.cat([middle > 0, middle > 0, middle + 1 > 0], dim=1)))


# text


def small(kind: str) -> nn.Module:
    sizes: dict[str, Any] = {"vocab_size": 50}
    if kind == "gpt_neox":
        config: Any = GPTNeoXConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    elif kind == "gpt2":
        config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_inner=24)
    else:
        config = LlamaConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    config.update(sizes)
    torch.manual_seed(0)
    return AutoModel.from_config(config).eval()


@pytest.mark.parametrize("kind", ["gpt_neox", "gpt2", "llama"])
def test_each_feed_forward_unit_of_a_decoder_is_counted_once(kind: str) -> None:
    """GELU, GPT-2's GELU written out in products and a tanh, and LLaMA's gate."""
    ids = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    found = kernel(small(kind), {"input_ids": ids})
    assert found.units == 2 * 24
    assert len(found.agreements) == len(set(ids.flatten().tolist()))


def test_padding_changes_nothing() -> None:
    model = small("gpt_neox")
    ids = torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    bare = kernel(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    padded = torch.cat([ids, torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    mask = torch.cat([torch.ones_like(ids), torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    assert torch.equal(kernel(model, {"input_ids": padded, "attention_mask": mask}).agreements, bare.agreements)


def test_equal_tokens_are_compared_once() -> None:
    """Else every untrained decoder's kernel were as good as singular."""
    ids = torch.tensor([[7, 8, 1], [7, 8, 2]])
    assert len(kernel(small("gpt_neox"), {"input_ids": ids}).agreements) == 4
    samples, places = compared({"input_ids": ids})
    assert places is not None
    assert list(zip(samples.tolist(), places.tolist(), strict=True)) == [(0, 2), (1, 0), (1, 1), (1, 2)]


# the model after


def state(model: nn.Module) -> dict[str, Any]:
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    modules = list(model.modules())
    modes = [module.training for module in modules]
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)) for module in modules
    ]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    return {"tensors": tensors, "gradients": gradients, "modes": modes, "hooks": hooks, "needs": needs}


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_all_generators_are_left_as_they_were(training: bool) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.ReLU(),
    ).train(training)
    model[3].train(not training)
    before, batch = state(model), images(4)
    kept, torch_state = batch.clone(), torch.get_rng_state()
    python, numpy = random.getstate(), np.random.get_state()
    kernel(model, batch)
    after = state(model)
    assert before.keys() == after.keys()
    for name, value in before.pop("tensors").items():
        assert torch.equal(value, after["tensors"][name]), name
    after.pop("tensors")
    assert before == after
    assert torch.equal(kept, batch)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python
    assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), numpy, strict=True))


def test_the_hooks_of_a_language_model_are_left_as_they_were_also_when_it_fails() -> None:
    model = small("gpt2").train()
    before = state(model)
    with pytest.raises(IndexError):
        kernel(model, {"input_ids": torch.tensor([[1, 2], [3, 99]])})
    assert state(model)["hooks"] == before["hooks"]
    assert state(model)["modes"] == before["modes"]


def test_norms_take_the_statistics_of_the_batch_whatever_the_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    batch = images(5) + 100
    found = kernel(model.eval(), batch)
    assert torch.equal(found.agreements, kernel(model.train(), batch).agreements)
    model.train()
    codes = model[1](model[0](batch)) > 0
    assert torch.equal(found.agreements, hamming(codes.flatten(1)))


def test_memory_does_not_grow_with_the_depth() -> None:
    """What is kept of a layer is one kernel of the whole network, not one each: counted in live tensors."""
    import gc

    def live(depth: int) -> int:
        model = nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(8, 8), nn.ReLU())))
        most = 0

        class Count(nn.Module):
            def forward(self, rows: Tensor) -> Tensor:
                nonlocal most
                gc.collect()
                held = [found for found in gc.get_objects() if type(found) is Tensor and found.shape == (16, 16)]
                most = max(most, len(held))
                return rows

        model.append(Count())
        kernel(model, torch.randn(16, 8, generator=torch.Generator().manual_seed(0)))
        return most

    assert live(40) <= live(4)


# what is refused


class Bare(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows * 2


@pytest.mark.parametrize(
    ("model", "batch", "says"),
    [
        (nn.ReLU(), torch.randn(1, 4), "holds one sample"),
        (nn.ReLU(), torch.zeros(0, 4), "holds nothing"),
        (nn.ReLU(), {}, "batch is empty"),
        (nn.ReLU(), torch.tensor([[1.0], [math.nan], [2.0]]), "not finite, in row 1"),
        (nn.ReLU(), torch.tensor([[1.0], [2.0], [math.inf]]), "not finite, in row 2"),
        (nn.ReLU(), torch.tensor([[1.0], [2.0], [1.0]]), "rows 0 and 2 of the batch are equal"),
        (Bare(), torch.randn(3, 4), "Bare has no activation on the way to its output"),
        (Through(lambda rows: F.relu(rows) * math.inf), torch.randn(3, 4), "not finite on this batch"),
        (nn.ReLU(), {"input": torch.randn(3, 4), "other": torch.randn(2, 4)}, "differ in their length"),
        (
            nn.ReLU(),
            {"input_ids": torch.ones(2, 3), "attention_mask": torch.tensor([[1, 0, 0], [0, 0, 0]])},
            "1 tokens",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(model: nn.Module, batch: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        kernel(model, batch)
    assert "\n" not in str(caught.value)


def test_a_network_cut_from_its_input_has_no_activation() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 6)

        def forward(self, rows: Tensor) -> Tensor:
            F.relu(self.first(rows))
            return torch.zeros(len(rows), 2)

    with pytest.raises(ValueError, match="no activation on the way to its output"):
        kernel(Cut(), torch.randn(4, 4))


def test_a_preset_is_scored_as_it_is_built() -> None:
    model = presets.build(presets.configuration("neox-tiny", 64, 16), seed=0)
    ids = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(0))
    found = kernel(model, {"input_ids": ids, "labels": ids})
    assert found.units == model.config.num_hidden_layers * model.config.intermediate_size


# what a first review found


def test_fused_encoder_layers_are_seen() -> None:
    """In evaluation mode torch computes a whole encoder layer in one operation, where no activation can be seen."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 24, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(40, 2))
    fused = torch.backends.mha.get_fastpath_enabled()
    assert kernel(model.eval(), torch.randn(4, 5, 8)).units == 2 * 5 * 24
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_weights_that_renormalise_themselves_and_a_batch_that_is_written_to_are_left_as_they_were() -> None:
    model = nn.Sequential(nn.Embedding(9, 4, max_norm=0.1), nn.Flatten(), nn.Linear(12, 5), nn.ReLU())
    before = model[0].weight.detach().clone()
    kernel(model, torch.arange(9).reshape(3, 3))
    assert torch.equal(model[0].weight, before)
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    kept = rows.clone()
    kernel(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), rows)
    assert torch.equal(rows, kept)


def test_what_only_takes_the_shape_of_an_activation_does_not_come_from_it() -> None:
    class Shaped(Through):
        def forward(self, rows: Tensor) -> Tensor:
            dead = F.relu(self.first(rows) * 2)
            found: Tensor = self.last(torch.zeros_like(dead) + F.relu(self.first(rows)))
            return found

    assert kernel(Shaped(None), torch.randn(5, 4)).units == 6


def test_memory_that_is_used_again_does_not_bring_back_what_lay_there() -> None:
    class Reusing(Through):
        def forward(self, rows: Tensor) -> Tensor:
            found: Tensor = self.last(F.relu(self.first(rows)))
            for _ in range(50):
                dead = F.relu(self.first(rows) * 2)
                size = dead.shape
                del dead
                found = found + torch.tensor([[1.0] * size[1]] * size[0]).sum()
            return found

    assert kernel(Reusing(None), torch.randn(5, 4)).units == 6


def test_a_result_that_is_written_to_a_given_place_is_followed() -> None:
    class Written(Through):
        def forward(self, rows: Tensor) -> Tensor:
            place = torch.empty(len(rows), 2)
            torch.mm(F.relu(self.first(rows)), self.last.weight.T, out=place)
            return place

    assert kernel(Written(None), torch.randn(5, 4)).units == 6


def test_a_pass_keeps_no_gradients() -> None:
    class Asked(Through):
        def forward(self, rows: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return super().forward(rows)

    kernel(Asked(F.relu), torch.randn(5, 4))


def test_inference_mode_changes_nothing() -> None:
    torch.manual_seed(0)
    model, rows = Through(F.relu), torch.randn(5, 4)
    plain = kernel(model, rows)
    with torch.inference_mode():
        assert torch.equal(kernel(model, rows).agreements, plain.agreements)
        assert torch.equal(kernel(model, rows.clone()).agreements, plain.agreements)


def test_noise_in_a_network_is_the_same_each_time() -> None:
    model = Through(lambda rows: F.relu(rows + torch.randn_like(rows)))
    rows = torch.randn(5, 4)
    assert torch.equal(kernel(model, rows).agreements, kernel(model, rows).agreements)


def test_text_whose_tokens_do_not_come_first_is_refused() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.over = nn.Embedding(50, 6), nn.Conv1d(6, 16, 3, padding=1)

        def forward(self, input_ids: Tensor) -> Tensor:
            return F.relu(self.over(self.table(input_ids).transpose(1, 2)))

    with pytest.raises(ValueError, match="3 texts of 9 tokens cannot be told apart"):
        kernel(Turned(), {"input_ids": torch.randint(0, 50, (3, 9))})


@pytest.mark.parametrize("name", [name for name in PROXIES if name not in ("grad_norm", "decoder_parameters")])
def test_all_proxies_leave_the_batch_and_say_the_same_in_inference_mode(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    rows = torch.randn(5, 4)
    kept = rows.clone()
    plain = PROXIES[name](model, rows)
    assert torch.equal(rows, kept)
    with torch.inference_mode():
        assert PROXIES[name](model, rows).value == plain.value


@pytest.mark.parametrize("name", ["naswot", "span", "flops", "synflow", "jacob_cov"])
def test_an_empty_batch_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"nothing|empty"):
        PROXIES[name](Through(F.relu), torch.zeros(0, 4))
