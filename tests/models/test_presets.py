import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.models import presets

# by hand


def test_parameters_of_a_tiny_shape():
    config = presets.configuration("neox-tiny", 300, 32, num_hidden_layers=1)
    attention = 64 * 192 + 192 + 64 * 64 + 64
    inner = 64 * 256 + 256 + 256 * 64 + 64
    norms = 3 * 2 * 64
    assert presets.parameters(config) == 2 * 300 * 64 + attention + inner + norms


# against a reference: the counts published with the models


@pytest.mark.parametrize(
    ("name", "vocabulary", "published"),
    [
        ("pythia-14m", 50304, 14_067_712),
        ("pythia-31m", 50304, 30_494_720),
        ("pythia-70m", 50304, 70_426_624),
        ("pythia-160m", 50304, 162_322_944),
        ("pythia-410m", 50304, 405_334_016),
        ("pythia-1b", 50304, 1_011_781_632),
        ("pythia-1.4b", 50304, 1_414_647_808),
        ("pythia-2.8b", 50304, 2_775_208_960),
        ("pythia-6.9b", 50432, 6_857_302_016),
        ("pythia-12b", 50688, 11_846_072_320),
        ("gpt2-small", 50257, 124_439_808),
        ("gpt2-medium", 50257, 354_823_168),
        ("gpt2-large", 50257, 774_030_080),
    ],
)
def test_parameters_are_those_published(name, vocabulary, published):
    config = presets.configuration(name, vocabulary, 1024 if name.startswith("gpt2") else 2048)
    assert presets.parameters(config) == published
    with torch.device("meta"):
        model = presets.build(config, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize(
    ("name", "millions"), [("neox-tiny", 0.1), ("neox-1m", 0.8), ("neox-4m", 4.0), ("neox-12m", 10.7)]
)
def test_small_shapes_are_as_large_as_their_names_say(name, millions):
    config = presets.configuration(name, 257, 128)
    assert presets.parameters(config) == presets.build(config, seed=0).num_parameters()
    without_embeddings = presets.parameters(config) - 2 * 257 * config.hidden_size
    assert without_embeddings == pytest.approx(millions * 1e6, rel=0.05)


def test_the_default_decoder_is_pythias():
    config = presets.configuration("pythia-70m", 50304, 2048)
    assert config.model_type == "gpt_neox"
    assert config.rope_parameters["partial_rotary_factor"] == 0.25
    assert config.use_parallel_residual
    assert not config.tie_word_embeddings
    assert config.max_position_embeddings == 2048


@pytest.mark.parametrize("name", ["neox-tiny", "gpt2-small"])
def test_a_folder_gives_what_was_saved_in_it(name, tmp_path):
    kept = presets.configuration(name, 300, 32, tie_word_embeddings=True, initializer_range=0.5)
    kept.save_pretrained(tmp_path)
    assert presets.configuration(str(tmp_path), 300, 32).to_dict() == kept.to_dict()
    other = presets.configuration(str(tmp_path), 50, 16, initializer_range=0.1)
    assert (other.vocab_size, other.max_position_embeddings, other.initializer_range) == (50, 16, 0.1)
    assert presets.build(other, seed=0).num_parameters() == presets.parameters(other)


def test_a_folder_in_the_form_of_published_ones(tmp_path):
    """With the older names of the rotary fields, weights in half precision, and special tokens."""
    rotary = {"rotary_pct": 0.25, "rotary_emb_base": 10000}
    shape = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "intermediate_size": 512}
    rest = {"torch_dtype": "float16", "bos_token_id": 0, "eos_token_id": 0, "vocab_size": 50304}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt_neox", **rotary, **shape, **rest}))
    found = presets.configuration(str(tmp_path), 300, 64)
    assert found.to_dict() == presets.configuration("pythia-14m", 300, 64).to_dict()
    assert presets.build(found, seed=0).dtype == torch.float32


# property


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(["neox-tiny", "gpt2-small"]),
    layers=st.integers(1, 3),
    tied=st.booleans(),
    inner=st.integers(1, 40),
    vocabulary=st.integers(1, 50),
)
def test_parameters_agree_with_the_built_model(name, layers, tied, inner, vocabulary):
    gpt2 = {"n_layer": layers, "n_inner": inner, "n_embd": 48}
    neox = {"num_hidden_layers": layers, "intermediate_size": inner}
    changes = gpt2 if name == "gpt2-small" else neox
    config = presets.configuration(name, vocabulary, 8, tie_word_embeddings=tied, **changes)
    assert presets.parameters(config) == presets.build(config, seed=0).num_parameters()


def test_same_seed_same_weights_and_the_global_generator_is_untouched():
    config = presets.configuration("neox-tiny", 300, 32)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = presets.build(config, seed=7)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    other, third = presets.build(config, seed=7), presets.build(config, seed=8)
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(one.lm_head.weight, third.lm_head.weight)
    assert one.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("name", ["neox-tiny", "gpt2-small"])
def test_dropout_is_off_and_attention_fused(name):
    config = presets.configuration(name, 300, 32)
    model = presets.build(config, seed=0)
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert model.config is not config


def test_changes_reach_the_configuration():
    config = presets.configuration("neox-tiny", 300, 32, attention_dropout=0.1, initializer_range=0.5)
    assert config.attention_dropout == 0.1
    assert presets.build(config, seed=0).lm_head.weight.std().item() == pytest.approx(0.5, rel=0.05)


# misuse


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"no preset is called 'pythia-70' \(nearest: 'pythia-70m'\)"):
        presets.configuration("pythia-70", 300, 32)


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"GPTNeoXConfig has no field 'hidden_sise' \(nearest: 'hidden_size'\)"):
        presets.configuration("neox-tiny", 300, 32, hidden_sise=3)


@pytest.mark.parametrize(("vocabulary", "length", "name"), [(0, 8, "vocab_size"), (8, -1, "length")])
def test_a_size_below_one_is_refused(vocabulary, length, name):
    with pytest.raises(ValueError, match=f"{name} of neox-tiny is"):
        presets.configuration("neox-tiny", vocabulary, length)


def test_values_that_do_not_fit_are_refused_on_one_line():
    with pytest.raises(ValueError, match="neox-tiny cannot be built so") as refused:
        presets.configuration("neox-tiny", 300, 32, hidden_size=65)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "llama"}', "its model_type is 'llama': expected gpt_neox or gpt2"),
        ("{}", "its model_type is None: expected gpt_neox or gpt2"),
        ("[]", "holds a JSON list: expected an object"),
        ("{", "is not JSON"),
        ('{"model_type": "gpt_neox", "hidden_size": "x"}', "Field 'hidden_size' expected int, got str"),
        ('{"model_type": "gpt_neox", "hidden_size": 65}', "hidden size is not divisible"),
    ],
)
def test_a_folder_whose_configuration_cannot_be_taken(content, message, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message) as refused:
        presets.configuration(str(tmp_path), 300, 32)
    assert str(tmp_path / "config.json") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json is absent: expected the configuration of a GPT-NeoX or GPT-2"):
        presets.configuration(str(tmp_path), 300, 32)
