"""Whether checkpoints are of one model: names, shapes, kinds, and tied tensors under either name."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from shoestring.methods.averaging.agreement import agree, plain_names
from shoestring.methods.averaging.checkpoints import open_checkpoint

EMBEDDING = torch.arange(12.0).reshape(4, 3)


def checkpoint(folder, config=None, **tensors):
    folder.mkdir()
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return open_checkpoint(folder)


def refused(checkpoints, *words, dtype=None):
    with pytest.raises(ValueError) as error:
        agree(checkpoints, dtype)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_by_hand_wrappers_are_left_out_of_names():
    assert plain_names(["module._orig_mod.a", "module._orig_mod.b.c"]) == ["a", "b.c"]
    assert plain_names(["_orig_mod.module.a"]) == ["a"]
    assert plain_names(["blocks.0._orig_mod.a"]) == ["blocks.0.a"]
    assert plain_names(["module.a", "head.b"]) == ["module.a", "head.b"]
    assert plain_names(["my_orig_mod.a"]) == ["my_orig_mod.a"]


@given(st.lists(st.text("abmodule._", min_size=1), max_size=5, unique=True))
def test_plain_names_are_a_fixed_point(names):
    assert plain_names(plain_names(names)) == plain_names(names)


def test_wrapped_and_plain_sources_agree_under_plain_names(tmp_path):
    old = checkpoint(tmp_path / "old", module__a=torch.zeros(2), module__b=torch.ones(2))
    new = checkpoint(tmp_path / "new", a=torch.zeros(2), b=torch.ones(2))
    for sources in ([old, new], [new, old]):
        assert [sorted(source) for source in agree(sources, None)] == [["a", "b"]] * 2


def test_a_missing_an_extra_and_another_tensor_are_named_with_their_file(tmp_path):
    new = checkpoint(tmp_path / "new", a=torch.zeros(2), b=torch.ones(2, 3))
    refused([checkpoint(tmp_path / "1", a=torch.zeros(2)), new], str(tmp_path / "1"), "'b' is missing")
    extra = checkpoint(tmp_path / "2", a=torch.zeros(2), b=torch.ones(2, 3), c=torch.ones(1))
    refused([extra, new], str(tmp_path / "2"), "'c' is extra")
    other = checkpoint(tmp_path / "3", a=torch.zeros(2), b=torch.ones(3, 2))
    refused([other, new], str(tmp_path / "3"), "'b'", "[3, 2]", "[2, 3]")
    renamed = checkpoint(tmp_path / "4", a=torch.zeros(2), c=torch.ones(2, 3))
    refused([renamed, new], "'b' is missing")
    refused([checkpoint(tmp_path / "5")], "no tensors")


def test_floats_of_different_kinds_need_a_dtype_and_integers_never_mix_with_them(tmp_path):
    half = checkpoint(tmp_path / "half", a=torch.zeros(2, dtype=torch.bfloat16))
    full = checkpoint(tmp_path / "full", a=torch.zeros(2))
    whole = checkpoint(tmp_path / "whole", a=torch.zeros(2, dtype=torch.int32))
    refused([half, full], str(tmp_path / "half"), "'a' is bfloat16, but float32", "say which dtype")
    assert len(agree([half, full], torch.float32)) == 2
    refused([whole, full], "'a' is int32", dtype=torch.float32)


def test_tied_tensors_may_go_by_either_name_or_both(tmp_path):
    config = {"tie_word_embeddings": True, "vocab_size": 4}
    first = checkpoint(tmp_path / "first", config, embed__weight=EMBEDDING, b=torch.ones(4, 3))
    second = checkpoint(tmp_path / "second", config, head__weight=EMBEDDING, b=torch.ones(4, 3))
    both = checkpoint(
        tmp_path / "both", config, embed__weight=EMBEDDING, head__weight=EMBEDDING.clone(), b=torch.ones(4, 3)
    )
    for sources in ([first, second], [second, first], [both, first], [first, both], [second, both]):
        aligned = agree(sources, None)
        assert set(aligned[0]) == set(aligned[1]) == set(aligned[-1])
    assert agree([second, first], None)[0]["embed.weight"].name == "head.weight"


def test_tensors_that_are_not_tied_are_not_taken_for_each_other(tmp_path):
    untied = {"tie_word_embeddings": False, "vocab_size": 4}
    first = checkpoint(tmp_path / "first", untied, embed=EMBEDDING)
    second = checkpoint(tmp_path / "second", untied, head=EMBEDDING)
    refused([first, second], "'head' is missing")
    tied = {"tie_word_embeddings": True, "vocab_size": 4}
    third = checkpoint(tmp_path / "third", tied, embed=EMBEDDING, head=EMBEDDING + 1)
    refused([third, checkpoint(tmp_path / "fourth", tied, embed=EMBEDDING)], "'head' is extra")
    fifth = checkpoint(tmp_path / "fifth", {**tied, "vocab_size": 9}, embed=EMBEDDING)
    refused([second, fifth], "'embed' is missing")


def test_quantised_weights_are_refused(tmp_path):
    config = {"quantization_config": {"bits": 4}}
    refused([checkpoint(tmp_path / "q", config, a=torch.zeros(1))], str(tmp_path / "q"), "quantised")
