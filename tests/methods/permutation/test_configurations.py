"""Named shapes: what they are, whose weights hang on a seed alone, and what is no shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import XLNetConfig, XLNetLMHeadModel

from shoestring.methods.permutation.backbone import TwoStream
from shoestring.methods.permutation.configurations import build, configuration, names, readied
from shoestring.methods.permutation.memory import Memory
from shoestring.methods.permutation.objectives import Kind, Pretraining
from shoestring.methods.permutation.orders import permuted


def size(config: XLNetConfig) -> int:
    with torch.device("meta"):
        model = XLNetLMHeadModel(config)
    return sum(weight.numel() for weight in model.parameters())


# by hand


def test_names_go_from_small_to_large() -> None:
    assert names() == ["xlnet-tiny", "xlnet-1m", "xlnet-4m", "xlnet-base", "xlnet-large"]
    sizes = [size(configuration(name, 512)) for name in names()]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "millions"),
    [("xlnet-base", 12, 768, 12, 117), ("xlnet-large", 24, 1024, 16, 361)],
)
def test_the_published_shapes(name: str, layers: int, width: int, heads: int, millions: int) -> None:
    config = configuration(name, 32000)
    assert (config.n_layer, config.d_model, config.n_head, config.d_head) == (layers, width, heads, 64)
    assert (config.d_inner, config.ff_activation, config.layer_norm_eps) == (4 * width, "gelu_new", 1e-12)
    assert (config.dropout, config.vocab_size, config.attn_type, config.bi_data) == (0.0, 32000, "bi", False)
    assert size(config) == pytest.approx(millions * 1e6, rel=0.01)


def test_the_small_ones_are_of_the_size_that_they_are_called() -> None:
    for name, millions in (("xlnet-1m", 1), ("xlnet-4m", 4)):
        body = size(configuration(name, 512)) - 512 * configuration(name, 512).d_model
        assert body == pytest.approx(millions * 1e6, rel=0.35), name


def test_changes_are_of_the_configurations_own_fields() -> None:
    config = configuration("xlnet-tiny", 99, mem_len=7, reuse_len=3, n_layer=1, attn_type="uni", dropout=0.1)
    assert (config.mem_len, config.reuse_len, config.n_layer, config.attn_type, config.dropout) == (7, 3, 1, "uni", 0.1)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (None, None, None)


def test_a_folder_gives_its_shape(tmp_path: Path) -> None:
    made = configuration("xlnet-tiny", 99, n_layer=3, dropout=0.2, mem_len=5)
    build(made, 0).save_pretrained(tmp_path)
    found = configuration(str(tmp_path), 77)
    assert (found.n_layer, found.dropout, found.mem_len, found.vocab_size) == (3, 0.2, 5, 77)
    assert configuration(str(tmp_path), 77, mem_len=None).mem_len is None
    assert build(found, 0).lm_loss.weight.shape == (77, 32)


def test_a_folder_says_what_its_model_was_taught(tmp_path: Path) -> None:
    readied(build(configuration("xlnet-tiny", 9), 0), "masked", True, checkpointing=False).save_pretrained(tmp_path)
    assert XLNetConfig.from_pretrained(tmp_path).pretraining_objective == "masked"
    assert "pretraining_objective" not in configuration(str(tmp_path), 9).to_dict(), "a new model was taught nothing"


# weights


def test_weights_are_of_the_seed_alone() -> None:
    config = configuration("xlnet-tiny", 50)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = build(config, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    other, third = build(config, 1), build(config, 2)
    assert all(torch.equal(mine, same) for mine, same in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.lm_loss.weight, third.lm_loss.weight)
    assert isinstance(one.transformer, TwoStream)
    assert one.training
    assert one.lm_loss.weight is one.transformer.word_embedding.weight


@settings(max_examples=10)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(5, 40))
def test_any_shape_computes(layers: int, heads: int, width: int, vocabulary: int) -> None:
    config = configuration("xlnet-tiny", vocabulary, n_layer=layers, n_head=heads, d_model=2 * heads * width)
    logits = build(config, 0)(torch.arange(5)[None]).logits
    assert logits.shape == (1, 5, vocabulary)
    assert logits.isfinite().all()


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_an_objective_never_reads_is_frozen(kind: Kind, segments: bool) -> None:
    """DDP would wait for its gradient."""
    config = configuration("xlnet-tiny", 9, mem_len=None)
    model = readied(build(config, 0), kind, segments, checkpointing=False)
    order = permuted(np.arange(8) % 3 == 0, np.zeros(8, dtype=np.bool_), 8, np.random.default_rng(0))
    batch = {
        "input_ids": torch.arange(8)[None],
        "rank": torch.from_numpy(order.rank)[None],
        "sees": torch.from_numpy(order.sees)[None],
        "targets": torch.tensor([[0, 3, 6]]),
        "labels": torch.tensor([[0, 3, 6]]),
    }
    if segments:
        batch["token_type_ids"] = torch.arange(8)[None] // 4
    Pretraining(kind, Memory(config), 8)(model, batch).total.backward()  # type: ignore[no-untyped-call]
    for name, weight in model.named_parameters():
        assert weight.requires_grad is (weight.grad is not None), name


def test_activations_that_are_computed_again() -> None:
    found = []
    for checkpointing in (False, True):
        model = readied(build(configuration("xlnet-tiny", 9), 0), "masked", True, checkpointing)
        assert all(layer.gradient_checkpointing is checkpointing for layer in model.transformer.layer)
        model(torch.arange(8)[None], token_type_ids=torch.arange(8)[None] // 4).logits.square().sum().backward()
        found.append(model.transformer.layer[0].rel_attn.seg_embed.grad)
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-8)


# what is refused


def test_no_such_shape(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"^no shape is called 'xlnet-bas' \(nearest: 'xlnet-base'\): expected one of xlnet-tiny, .*, or a",
    ):
        configuration("xlnet-bas", 9)
    with pytest.raises(ValueError, match=r"config\.json"):
        configuration(str(tmp_path / "nowhere"), 9)


def test_a_folder_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=r"config\.json: its model_type is 'bert': expected 'xlnet'$"):
        configuration(str(tmp_path), 9)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        configuration(str(tmp_path), 9)


def test_a_field_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"^XLNetConfig has no field 'n_layers' \(nearest: 'n_layer'\)"):
        configuration("xlnet-tiny", 9, n_layers=2)


def test_values_that_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match=r"d_model"):
        configuration("xlnet-tiny", 9, n_head=5)
