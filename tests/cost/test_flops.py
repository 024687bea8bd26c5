import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig, Qwen3MoeConfig, Qwen3MoeForCausalLM

from shoestring.cost import flops
from shoestring.models import presets, seq2seq
from shoestring.models.surgery import replace

FAMILIES = ["neox-tiny", "gpt2-small"]


def small(name: str, **changes):
    if name == "gpt2-small":
        changes = {"n_embd": 64, "n_layer": 2, "n_head": 4} | changes
    return presets.build(presets.configuration(name, 97, 48, **changes), seed=0)


def step(model: nn.Module, batch: dict[str, torch.Tensor]) -> None:
    model(**batch, use_cache=False).logits.logsumexp(-1).sum().backward()


def ids(rows: int, length: int) -> torch.Tensor:
    return torch.arange(rows * length).reshape(rows, length) % 97


# by hand


def test_count_of_a_product():
    left, right = torch.zeros(3, 4), torch.zeros(4, 5)
    assert flops.count(lambda: left @ right) == 2 * 3 * 4 * 5
    assert flops.count(lambda: None) == 0


def test_counting_sees_fused_attention_on_the_cpu():
    query, key, value = (torch.zeros(2, 4, 8, 16, requires_grad=True) for _ in range(3))

    def attend() -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    product = 2 * (2 * 4) * 8 * 8 * 16
    assert flops.count(attend) == 2 * product
    assert flops.count(lambda: attend().sum().backward()) == 7 * product


def test_heads_that_share_keys_are_counted_each():
    query, key, value = torch.zeros(2, 4, 8, 16), torch.zeros(2, 2, 6, 16), torch.zeros(2, 2, 6, 16)
    attend = nn.functional.scaled_dot_product_attention
    assert flops.count(lambda: attend(query, key, value, enable_gqa=True)) == 2 * 2 * (2 * 4) * 8 * 6 * 16


def test_experts_are_counted_for_the_tokens_that_they_are_given():
    config = Qwen3MoeConfig(
        vocab_size=97,
        hidden_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
    )
    model = Qwen3MoeForCausalLM(config)
    given = []
    for experts in (1, 2):
        for layer in model.model.layers:
            layer.mlp.gate.top_k = experts
        given.append(flops.count(lambda: step(model, {"input_ids": ids(2, 8)})))
    one_more = 6 * (2 * 8) * (3 * 32 * 16)
    assert given[1] - given[0] == one_more


# against a reference: torch's counter


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_formula_equals_the_counter(name, precision):
    model = small(name)
    batch = {"input_ids": ids(2, 33)}
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        assert flops.formula(model.config, 2, 33) == flops.count(lambda: step(model, batch))
        with torch.no_grad():
            forward = flops.count(lambda: model(**batch, use_cache=False))
    assert flops.formula(model.config, 2, 33, backward=False) == forward


@pytest.mark.parametrize("name", presets.names())
def test_formula_equals_the_counter_on_every_preset(name):
    """On fake tensors, which have shapes and no numbers: the twelve billion too."""
    config = presets.configuration(name, 50304, 1024)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = presets.build(config, seed=0)
        batch = {"input_ids": torch.zeros(2, 256, dtype=torch.long)}
        counted = flops.count(lambda: step(model, batch))
        assert flops.StepFlops(model)(batch) == counted
    assert flops.formula(config, 2, 256) == counted


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=8, deadline=None)
@given(rows=st.integers(1, 3), length=st.integers(2, 48), layers=st.integers(1, 3), inner=st.integers(1, 90))
def test_formula_equals_the_counter_at_any_shape(name, rows, length, layers, inner):
    gpt2 = name == "gpt2-small"
    changes = (
        {"n_layer": layers, "n_inner": inner} if gpt2 else {"num_hidden_layers": layers, "intermediate_size": inner}
    )
    model = small(name, **changes)
    batch = {"input_ids": ids(rows, length)}
    assert flops.formula(model.config, rows, length) == flops.count(lambda: step(model, batch))


# property


def test_counting_leaves_the_step_as_it_is():
    plain, counted = small("neox-tiny"), small("neox-tiny")
    step(plain, {"input_ids": ids(2, 16)})
    with flops.counting():
        step(counted, {"input_ids": ids(2, 16)})
    for one, other in zip(plain.parameters(), counted.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def fails() -> None:
    raise ValueError("enough")


def test_counting_works_after_work_that_failed():
    model = small("neox-tiny")
    with pytest.raises(ValueError, match="enough"):
        flops.count(fails)
    assert flops.count(lambda: step(model, {"input_ids": ids(1, 4)})) > 0


# a step's FLOPs


@pytest.mark.parametrize("name", FAMILIES)
def test_step_flops_come_by_formula_where_it_fits(name):
    model = small(name)
    batch = {"input_ids": ids(2, 20)}
    assert flops.StepFlops(model)(batch) == flops.count(lambda: step(model, batch))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_that_is_not_fused_is_known_too(name, dropout):
    model = small(name, **{"attn_pdrop" if name == "gpt2-small" else "attention_dropout": dropout})
    fused = flops.formula(model.config, 2, 20)
    model.set_attn_implementation("eager")
    batch = {"input_ids": ids(2, 20)}
    assert flops.StepFlops(model)(batch) == flops.count(lambda: step(model, batch)) < fused


@pytest.mark.parametrize("name", FAMILIES)
def test_what_changes_no_product_needs_no_counting(name):
    model = small(name)
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[1, 12:] = 0
    batch = {"input_ids": ids(2, 20), "attention_mask": mask}
    counted = flops.count(lambda: step(model, batch))
    assert flops.StepFlops(model)(batch | {"labels": ids(2, 20), "scale": torch.tensor(2.0)}) == counted


def test_step_flops_of_an_encoder_decoder_come_by_formula():
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 97), seed=0)
    batch = {"input_ids": ids(2, 20), "attention_mask": torch.ones(2, 20, dtype=torch.long), "labels": ids(2, 7)}
    counted = flops.count(lambda: step(model, batch))
    assert flops.StepFlops(model)(batch | {"scale": torch.tensor(2.0)}) == counted
    with pytest.raises(KeyError):
        flops.StepFlops(model)({"input_ids": ids(2, 20)})


@pytest.mark.parametrize("changes", [{"dropout_rate": 0.1}, {}])
def test_an_altered_encoder_decoder_is_counted(changes):
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 97, **changes), seed=0)
    if not changes:
        replace(model, "*.wi_0", lambda _, old: nn.Sequential(nn.Linear(96, 8), nn.Linear(8, 256)))
    batch, step_flops = {"input_ids": ids(2, 20), "labels": ids(2, 7)}, flops.StepFlops(model)
    with pytest.raises(KeyError):
        step_flops(batch)
    with step_flops.counting(batch):
        step(model, batch)
    assert step_flops(batch) > 0


def altered(name: str) -> nn.Module:
    model = small("neox-tiny")
    if name == "frozen":
        model.gpt_neox.embed_in.requires_grad_(False)
        model.gpt_neox.layers[0].requires_grad_(False)
    if name == "surgery":
        replace(model, "*.dense_h_to_4h", lambda _, old: nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 256)))
    if name == "surgery of the same size":
        replace(model, "*.attention.dense", lambda _, old: nn.Linear(64, 64))
        model.gpt_neox.layers[1].mlp = Twice(model.gpt_neox.layers[1].mlp)
    if name == "checkpointing":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if name == "dropout":
        model = small("neox-tiny", attention_dropout=0.1)
    return model


class Twice(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(self.inner(x))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["frozen", "surgery", "surgery of the same size", "checkpointing", "dropout"])
def test_step_flops_are_counted_where_no_formula_fits(name):
    model, batch = altered(name), {"input_ids": ids(2, 20)}
    step_flops = flops.StepFlops(model)
    with pytest.raises(KeyError):
        step_flops(batch)
    with step_flops.counting(batch):
        step(model, batch)
    expected = flops.count(lambda: step(model, batch))
    assert step_flops(batch) == expected != flops.formula(model.config, 2, 20)


def test_step_flops_count_each_set_of_shapes_once(monkeypatch):
    model = small("neox-tiny")
    step_flops = flops.StepFlops(model)
    times = []
    real = flops.counting
    monkeypatch.setattr(flops, "counting", lambda: times.append(1) or real())
    for length in (8, 12, 8, 12):
        batch = {"input_ids": ids(2, length), "position_ids": torch.arange(length)[None]}
        with step_flops.counting(batch):
            step(model, batch)
        assert step_flops(batch) == flops.formula(model.config, 2, length)
    assert len(times) == 2
    with step_flops.counting({"input_ids": ids(2, 8)}):
        assert len(times) == 2


def test_step_flops_see_a_parameter_frozen_later():
    model, batch = small("neox-tiny"), {"input_ids": ids(2, 8)}
    step_flops = flops.StepFlops(model)
    whole = step_flops(batch)
    model.gpt_neox.embed_in.requires_grad_(False)
    model.gpt_neox.layers[0].requires_grad_(False)
    with step_flops.counting(batch):
        step(model, batch)
    assert step_flops(batch) < whole


def test_step_flops_see_through_a_wrapper():
    model, batch = small("neox-tiny"), {"input_ids": ids(2, 8)}
    assert flops.StepFlops(torch.compile(model, backend="eager"))(batch) == flops.StepFlops(model)(batch)


def test_a_compiled_model_is_counted_too():
    linear = nn.Linear(4, 5, bias=False)
    compiled = torch.compile(linear, backend="eager")
    assert flops.count(lambda: compiled(torch.zeros(3, 4))) == 2 * 3 * 4 * 5


def test_an_unknown_architecture_is_refused_by_formula_and_counted():
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ValueError, match=r"not 'llama': use flops\.count"):
        flops.formula(config, 1, 8)
    model = presets.build(config, seed=0)
    step_flops, batch = flops.StepFlops(model), {"input_ids": ids(1, 8)}
    with step_flops.counting(batch):
        step(model, batch)
    weights = 4 * 32 * 32 + 3 * 32 * 64 + 32 * 97
    assert step_flops(batch) == 6 * 8 * weights + 7 * 2 * 8 * 8 * 32
