import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    PreTrainedTokenizerFast,
)

from shoestring.data.tokenizers import byte_tokenizer
from shoestring.models import presets, seq2seq
from shoestring.models.pretrained import load, save


def tokenizer_of(extra: int = 0) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"<{number}>" for number in range(extra))]
    inner = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_of()


@pytest.fixture(scope="module")
def model():
    return presets.build(presets.configuration("neox-tiny", 260, 32), seed=0)


@pytest.fixture(scope="module")
def saved(model, tokenizer, tmp_path_factory):
    return save(model, tokenizer, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def edit(path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(folder, kind="causal") -> str:
    with pytest.raises(ValueError) as refused:
        load(folder, kind=kind)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# there and back


def test_what_is_saved_is_what_is_loaded(model, saved):
    loaded, tokenizer = load(saved)
    assert same(loaded, model)
    assert not loaded.training
    assert tokenizer.decode(tokenizer.encode("naïve 💡 text")) == "naïve 💡 text"


def test_transformers_itself_loads_it(model, saved):
    loaded = AutoModelForCausalLM.from_pretrained(saved)
    assert same(loaded, model)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    inputs = tokenizer("to be", return_tensors="pt")
    generated = loaded.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert generated.shape == (1, 8)


def test_generation_ends_at_the_tokenizers_end(saved, tokenizer):
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((saved / name).read_text())
        assert settings["eos_token_id"] == settings["pad_token_id"] == tokenizer.eos_token_id == 256


def test_saving_leaves_the_model_as_it_is(model, saved):
    assert model.config.eos_token_id is None
    assert model.training


def test_only_safetensors_are_written(saved):
    assert {path.suffix for path in saved.iterdir()} == {".json", ".safetensors"}
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize("name", ["neox-tiny", "gpt2-small"])
def test_a_tied_head_stays_tied(name, tokenizer, tmp_path):
    changes = {"n_embd": 48, "n_layer": 1} if name == "gpt2-small" else {}
    model = presets.build(presets.configuration(name, 257, 16, tie_word_embeddings=True, **changes), seed=0)
    loaded, _ = load(save(model, tokenizer, tmp_path / "tied"))
    assert same(loaded, model)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


def test_a_wrapped_model_is_saved_under_plain_names(model, saved, tokenizer, tmp_path):
    folder = save(torch.compile(model, backend="eager"), tokenizer, tmp_path / "compiled")
    assert (folder / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


def test_precision_is_as_stored_or_as_asked(model, tokenizer, tmp_path):
    half = presets.build(presets.configuration("neox-tiny", 260, 32), seed=0).bfloat16()
    folder = save(half, tokenizer, tmp_path / "half")
    assert load(folder)[0].lm_head.weight.dtype == torch.bfloat16
    wide = load(folder, dtype=torch.float32)[0].lm_head.weight
    assert wide.dtype == torch.float32
    assert torch.equal(wide, half.lm_head.weight.float())


def test_several_ends_of_sequence_are_kept(model, tokenizer, tmp_path):
    other = presets.build(presets.configuration("neox-tiny", 260, 32), seed=0)
    other.generation_config.eos_token_id = [3, tokenizer.eos_token_id]
    settings = json.loads((save(other, tokenizer, tmp_path / "two") / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [3, 256]


# encoder-decoders


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied"])
def t5(request):
    return seq2seq.build(seq2seq.configuration("t5-tiny", 260, end=256, tie_word_embeddings=request.param), seed=0)


@pytest.fixture
def t5_folder(t5, tokenizer, tmp_path):
    return save(t5, tokenizer, tmp_path / "t5")


def answer(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(6)[None]
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).logits


@pytest.fixture
def advice():
    """What transformers says of heads; it keeps its records from pytest's own handler."""
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("transformers.modeling_utils").addHandler(handler)
    yield said
    logging.getLogger("transformers.modeling_utils").removeHandler(handler)


def test_an_encoder_decoder_comes_back_as_it_was_saved(t5, t5_folder, advice):
    for kind in ("seq2seq", "any"):
        loaded, _ = load(t5_folder, kind=kind)
        assert same(loaded, t5)
        assert torch.equal(answer(loaded), answer(t5))
        tied = t5.config.scale_decoder_outputs
        assert (loaded.lm_head.weight is loaded.shared.weight) is tied is loaded.config.tie_word_embeddings
        assert loaded.encoder.embed_tokens.weight is loaded.shared.weight is loaded.decoder.embed_tokens.weight
    assert advice == []


def test_transformers_itself_loads_an_encoder_decoder_and_its_copy(t5, t5_folder, tokenizer, tmp_path):
    loaded = AutoModelForSeq2SeqLM.from_pretrained(t5_folder)
    assert torch.equal(answer(loaded), answer(t5))
    again = save(loaded, tokenizer, tmp_path / "again")
    assert torch.equal(answer(load(again, kind="seq2seq")[0]), answer(t5))
    for folder in (t5_folder, again):
        told = json.loads((folder / "config.json").read_text())
        assert told["tie_word_embeddings"] is told["scale_decoder_outputs"] is t5.config.scale_decoder_outputs


def test_what_starts_the_decoder_is_kept(t5_folder, tmp_path):
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((t5_folder / name).read_text())
        assert settings["decoder_start_token_id"] == settings["eos_token_id"] == settings["pad_token_id"] == 256
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257), seed=0)
    loaded, tokenizer = load(save(model, byte_tokenizer(), tmp_path / "bytes"), kind="seq2seq")
    shifted = loaded.prepare_decoder_input_ids_from_labels(torch.tensor([[5, tokenizer.eos_token_id, -100]]))
    assert shifted.tolist() == [[256, 5, 256]]
    generated = loaded.generate(**tokenizer("to be", return_tensors="pt"), max_new_tokens=3, do_sample=False)
    assert generated[0, 0] == 256


def test_a_model_of_the_other_kind_is_refused(folder, t5_folder):
    assert "'t5' is an encoder-decoder: expected a causal language model" in refusal(t5_folder)
    assert "'gpt_neox' is a causal language model: expected an encoder-decoder" in refusal(folder, "seq2seq")
    edit(folder / "config.json", model_type="vit")
    assert "'vit' is not an encoder-decoder" in refusal(folder, "seq2seq")
    assert "'vit' is not a language model" in refusal(folder, "any")


def test_what_may_be_either_is_what_its_configuration_says(folder):
    shape = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    BartConfig(vocab_size=260, **shape, **heads).save_pretrained(folder)
    assert "'bart' is an encoder-decoder: expected" in refusal(folder)
    assert "the weights lack" in refusal(folder, "any")


def test_missing_weights_of_an_encoder_decoder_are_named(t5, t5_folder):
    edit(t5_folder / "config.json", num_decoder_layers=3)
    assert "the weights lack decoder.block.2." in refusal(t5_folder, "seq2seq")
    edit(t5_folder / "config.json", num_decoder_layers=2)
    with safe_open(t5_folder / "model.safetensors", framework="pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys() if name != "lm_head.weight"}  # noqa: SIM118
    save_file(kept, t5_folder / "model.safetensors", {"format": "pt"})
    if t5.config.scale_decoder_outputs:
        assert same(load(t5_folder, kind="seq2seq")[0], t5)
    else:
        assert "its head is the embedding, though by config.json it is not" in refusal(t5_folder, "seq2seq")


def test_torn_weights_of_an_encoder_decoder_are_named(t5_folder):
    path = t5_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert "model.safetensors is torn or not safetensors" in refusal(t5_folder, "seq2seq")


# in the place of another


def test_a_model_takes_the_place_of_a_model(folder, tokenizer):
    for shard in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (folder / shard).write_text("{}")
    other = presets.build(presets.configuration("neox-tiny", 260, 32), seed=5)
    save(other, tokenizer, folder)
    assert same(load(folder)[0], other)
    assert not (folder / "model.safetensors.index.json").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_with_other_files_is_not_replaced(folder, model, tokenizer):
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"also holds notes\.txt, which saving would remove"):
        save(model, tokenizer, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_small_files_of_its_own_are_there_with_it(folder, model, tokenizer):
    save(model, tokenizer, folder, {"told.json": "one", "gone.json": "two"})
    assert ((folder / "told.json").read_text(), (folder / "gone.json").read_text()) == ("one", "two")
    save(model, tokenizer, folder, {"told.json": "three", "gone.json": None})
    assert (folder / "told.json").read_text() == "three"
    assert not (folder / "gone.json").exists()
    with pytest.raises(ValueError, match=r"also holds told\.json, which saving would remove"):
        save(model, tokenizer, folder)


def test_what_is_interrupted_between_two_names_leaves_what_was_there(folder, model, tokenizer, monkeypatch):
    rename = Path.rename

    def interrupted(path, target):
        if ".partial-" in path.name:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(presets.build(presets.configuration("neox-tiny", 260, 32), seed=5), tokenizer, folder)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert same(load(folder)[0], model)


def test_what_fails_midway_leaves_nothing_under_the_name(model, tokenizer, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", full)
    with pytest.raises(ValueError, match=r"cannot be written: .*No space left"):
        save(model, tokenizer, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(model, tokenizer, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match="taken is a file"):
        save(model, tokenizer, tmp_path / "taken")


# misuse


def test_a_tokenizer_without_an_end_is_refused(model, tmp_path):
    tokenizer = tokenizer_of()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"set tokenizer\.eos_token before saving"):
        save(model, tokenizer, tmp_path / "new")


def test_a_tokenizer_larger_than_the_embedding_is_refused(model, folder, tmp_path):
    large = tokenizer_of(extra=10)
    with pytest.raises(ValueError, match="267 tokens but the model's embedding only 260 rows"):
        save(model, large, tmp_path / "new")
    large.save_pretrained(folder)
    assert "267 tokens but the model's embedding only 260 rows" in refusal(folder)


def test_an_unknown_architecture_is_named(folder):
    edit(folder / "config.json", model_type="zork")
    assert "config.json: transformers knows no architecture 'zork'" in refusal(folder)


def test_code_in_the_folder_is_refused_and_not_run(folder, tmp_path):
    edit(folder / "config.json", model_type="zork", auto_map={"AutoConfig": "mine.Config"})
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "wants Python code of its own to run, which is refused" in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_known_architecture_is_not_run(folder, model, tmp_path):
    edit(folder / "config.json", auto_map={"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"})
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert same(load(folder)[0], model)
    assert not (tmp_path / "ran").exists()


def test_a_model_of_another_kind_is_refused(folder):
    edit(folder / "config.json", model_type="vit")
    assert "'vit' is not a causal language model" in refusal(folder)


def test_a_bad_value_in_the_configuration_is_named(folder):
    edit(folder / "config.json", hidden_size="wide")
    assert "config.json: " in (said := refusal(folder))
    assert "hidden_size" in said


def test_weights_of_another_shape_are_named(folder):
    edit(folder / "config.json", vocab_size=300)
    said = refusal(folder)
    assert "has shape (260, 64) in the file, (300, 64) by config.json" in said


def test_missing_weights_are_named_and_never_drawn_at_random(folder):
    edit(folder / "config.json", num_hidden_layers=3)
    said = refusal(folder)
    assert "the weights lack gpt_neox.layers.2.attention.dense.bias and 11 more" in said


def test_a_folder_without_a_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "holds no tokenizer" in refusal(folder)


def test_a_broken_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text("{")
    assert "the tokenizer cannot be read" in refusal(folder)


def test_a_pickle_that_would_run_code_is_refused(folder, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Payload()}, folder / "pytorch_model.bin")
    assert str(folder) in refusal(folder)
    assert not (tmp_path / "ran").exists()


def test_bert_as_a_decoder_is_no_surprise(folder):
    BertConfig(
        vocab_size=260, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    ).save_pretrained(folder)
    assert "the weights lack" in refusal(folder)
