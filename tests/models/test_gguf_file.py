"""GGUF files: written here by the package that defines them, from a tiny Qwen2, whose weights they hold unpermuted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from shoestring.models import gguf_file
from shoestring.models.pretrained import load, save

gguf = pytest.importorskip("gguf")
TOKENS = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "<|endoftext|>"]


@pytest.fixture(scope="module")
def model() -> Qwen2ForCausalLM:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = Qwen2Config(
        vocab_size=258, **shape, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Qwen2ForCausalLM(config).eval()


def write(path: Path, model: Qwen2ForCausalLM, packed: bool = False, merges: tuple[str, ...] = ("a b",)) -> Path:
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(258)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(list(merges))
    writer.add_eos_token_id(257)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 1)
    eight = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in model.state_dict().items():
        own, values = names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy()
        if packed and values.ndim == 2:
            writer.add_tensor(own, gguf.quantize(values, eight), raw_dtype=eight)
        else:
            writer.add_tensor(own, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def distance(one: torch.nn.Module, other: torch.nn.Module) -> float:
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


def test_the_weights_and_the_tokenizer_of_the_file(model: Qwen2ForCausalLM, tmp_path: Path) -> None:
    loaded, tokenizer = load(write(tmp_path / "a.gguf", model))
    assert distance(loaded, model) == 0
    assert not loaded.training
    assert tokenizer.encode("ab") == [256]
    assert tokenizer.decode(tokenizer.encode("naïve 💡 text")) == "naïve 💡 text"
    assert tokenizer.eos_token_id == 257


def test_packed_weights_are_unpacked_and_can_be_saved(model: Qwen2ForCausalLM, tmp_path: Path) -> None:
    loaded, tokenizer = load(str(write(tmp_path / "a.gguf", model, packed=True)))
    assert loaded.dtype == torch.float32
    # eight bits of blocks of 32: half a step of a hundred and twenty-seventh of the largest
    largest = max(tensor.abs().max().item() for tensor in model.parameters() if tensor.ndim == 2)
    assert 0 < distance(loaded, model) <= largest / 127 * 0.51
    again, same = load(save(loaded, tokenizer, tmp_path / "folder"))
    assert distance(again, loaded) == 0
    assert same.encode("ab") == [256]
    half, _ = load(tmp_path / "a.gguf", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_a_torn_file_is_refused_on_one_line(model: Qwen2ForCausalLM, tmp_path: Path) -> None:
    whole = write(tmp_path / "a.gguf", model).read_bytes()
    for kept in (0, 3, 10, 1000, len(whole) // 2, len(whole) - 40):
        (tmp_path / "torn.gguf").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"torn\.gguf is (torn or no GGUF|not a GGUF)") as refused:
            load(tmp_path / "torn.gguf")
        assert "\n" not in str(refused.value)


def test_a_file_that_lacks_weights_is_refused(model: Qwen2ForCausalLM, tmp_path: Path) -> None:
    class Less:
        @staticmethod
        def state_dict() -> dict[str, torch.Tensor]:
            return {name: tensor for name, tensor in model.state_dict().items() if "o_proj" not in name}

    with pytest.raises(ValueError, match=r"a\.gguf: the weights lack model\.layers\.0\.self_attn\.o_proj\.weight$"):
        load(write(tmp_path / "a.gguf", Less))


def test_a_damaged_vocabulary_is_refused(model: Qwen2ForCausalLM, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", model, merges=("c d",))
    with pytest.raises(ValueError, match=r"a\.gguf: the tokenizer cannot be read: .*`cd` out of vocabulary"):
        load(path)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.gguf: there is no such file"):
        load(tmp_path / "absent.gguf")
    (tmp_path / "text.gguf").write_text("GG text")
    with pytest.raises(ValueError, match=r"text\.gguf is not a GGUF file"):
        load(tmp_path / "text.gguf")
    with pytest.raises(ValueError, match=r"read as a causal language model: name the folder of an encoder-decoder"):
        load(tmp_path / "text.gguf", kind="seq2seq")


def test_the_package_is_asked_for_where_it_is_absent(
    model: Qwen2ForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.gguf", model)
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(gguf_file, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"needs gguf: pip install 'shoestring\[rationale\]'"):
        load(path)
