"""Layer-wise decay: by hand, each weight once, and under a schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import XLNetConfig, XLNetLMHeadModel, XLNetModel

from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.heads import with_head
from shoestring.methods.permutation.layer_decay import parameter_groups


def language_model(layers: int = 3) -> XLNetLMHeadModel:
    config = XLNetConfig(vocab_size=11, d_model=8, n_layer=layers, n_head=2, d_inner=16)
    model: XLNetLMHeadModel = from_transformers(XLNetLMHeadModel(config))
    return model


def rates(model: Any, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = [(names[one], (group["lr"], group["weight_decay"])) for group in groups for one in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found)


def test_by_hand() -> None:
    model = with_head(language_model(), "classification", ["a", "b"])
    found = rates(model, parameter_groups(model, 0.08, 0.5, 0.01))
    assert found["logits_proj.weight"] == found["sequence_summary.summary.weight"] == (0.08, 0.01)
    assert found["logits_proj.bias"] == (0.08, 0.0)
    assert found["transformer.layer.2.rel_attn.q"] == (0.08, 0.01)
    assert found["transformer.layer.1.ff.layer_1.weight"] == (0.04, 0.01)
    assert found["transformer.layer.1.rel_attn.layer_norm.weight"] == (0.04, 0.0)
    assert found["transformer.layer.0.rel_attn.r_w_bias"] == (0.02, 0.01)
    assert found["transformer.layer.0.ff.layer_1.bias"] == (0.02, 0.0)
    assert found["transformer.word_embedding.weight"] == (0.02, 0.01)
    assert set(found) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_groups_are_named() -> None:
    names = [group["name"] for group in parameter_groups(with_head(language_model(2), "spans"), 1e-3, 0.75)]
    assert sorted(set(names)) == ["head", "layer 0", "layer 1"]


def test_a_shared_weight_is_trained_once() -> None:
    model = language_model()
    assert model.lm_loss.weight is model.transformer.word_embedding.weight
    found = rates(model, parameter_groups(model, 0.08, 0.5))
    assert found["transformer.word_embedding.weight"] == found["transformer.mask_emb"] == (0.02, 0.0)
    assert found["lm_loss.bias"] == (0.08, 0.0)
    assert set(found) == set(dict(model.named_parameters()))


def test_a_bare_body_and_one_of_transformers() -> None:
    body = XLNetModel(XLNetConfig(vocab_size=11, d_model=8, n_layer=3, n_head=2, d_inner=16))
    found = rates(body, parameter_groups(body, 0.08, 0.5))
    assert found["layer.2.rel_attn.o"] == (0.08, 0.0)
    assert found["word_embedding.weight"] == (0.02, 0.0)


def test_what_is_frozen_is_left_out() -> None:
    model = with_head(language_model(), "choices")
    model.transformer.layer[1].requires_grad_(False)
    names = {group["name"] for group in parameter_groups(model, 1e-3, 0.5)}
    assert names == {"layer 0", "layer 2", "head"}


def test_a_schedule_multiplies_each_groups_own_rate() -> None:
    model = with_head(language_model(), "choices")
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.08, 0.5))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 2)
    optimizer.step()
    schedule.step()
    halved = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert halved == pytest.approx({"layer 0": 0.01, "layer 1": 0.02, "layer 2": 0.04, "head": 0.04})


@given(st.floats(0.01, 1.0), st.integers(1, 4))
def test_rates_fall_by_the_same_factor(decay: float, layers: int) -> None:
    model = with_head(language_model(layers), "spans")
    by_name = {group["name"]: group["lr"] for group in parameter_groups(model, 1.0, decay)}
    found = [by_name[f"layer {layer}"] for layer in range(layers)] + [by_name["head"]]
    assert found[-2:] == [1.0, 1.0]
    assert found[:-2] == pytest.approx([after * decay for after in found[1:-1]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1e-3, 0.0), "decay 0.0 a layer: expected above 0 and at most 1"),
        ((1e-3, 1.5), "decay 1.5 a layer"),
        ((0.0, 0.75), "learning_rate 0.0"),
        ((1e-3, 0.75, -0.1), "weight_decay -0.1"),
        ((float("nan"), 0.75), "learning_rate nan"),
    ],
)
def test_numbers_out_of_range(given: tuple[float, ...], message: str) -> None:
    model = language_model(1)
    with pytest.raises(ValueError, match=message):
        parameter_groups(model, *given)


def test_what_cannot_be_trained() -> None:
    frozen = language_model(1).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(frozen, 1e-3, 0.75)
    from transformers import BertConfig, BertModel

    other = BertModel(BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    with pytest.raises(ValueError, match="a BertModel: expected an XLNet"):
        parameter_groups(other, 1e-3, 0.75)
