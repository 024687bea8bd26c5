"""The experiment's models by name: presets, which are built here, and trained ones, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from shoestring import files
from shoestring.methods.rationale import corruption
from shoestring.methods.rationale.encode import Family
from shoestring.methods.rationale.recipe_schema import Recipe, is_preset
from shoestring.models import folders, packaged, presets, pretrained, seq2seq
from shoestring.models.folders import find

GEMMA = "gemma3-270m"  # which Python packages hold
PACKED = ".gguf"


def preset(recipe: Recipe, name: str, size: int, seed: int) -> PreTrainedModel:
    """A preset with first weights of its own. size: of the vocabulary."""
    changes = recipe.model.changes
    if name in seq2seq.names():
        # the end of text stands before the marks of a base
        end = size - 1 - (corruption.MARKS if recipe.base is not None else 0)
        tokens = seq2seq.configuration(name, size, end=end, **changes)
        # on a CPU plain attention is the faster in bf16, and as fast in fp32
        return seq2seq.build(tokens, seed, "sdpa" if torch.accelerator.is_available() else "eager")
    length = max(sum(recipe.lessons.tokens), recipe.base.length if recipe.base else 0)
    return presets.build(presets.configuration(name, size, length, **changes), seed)


def folder(name: str, out: Path) -> Path:
    """The folder of a trained model; what is packed in one file (.gguf) is unpacked into `out`, once.

    Raises ValueError or ModuleNotFoundError, with what to do about it, where there is none.
    """
    if name != GEMMA and not name.endswith(PACKED):
        return find(name)
    unpacked = out / f"unpacked-{slug(name.removesuffix(PACKED))}"
    if not unpacked.exists():
        packed = packaged.gemma3_270m() if name == GEMMA else name
        pretrained.save(*pretrained.load(packed), unpacked)
    return unpacked


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Of each model of a user's own that is gone on with."""
    names = (name for name in recipe.model.names if name != GEMMA and not is_preset(name))
    return {
        name: folders.fingerprint(Path(name).expanduser() if name.endswith(PACKED) else find(name)) for name in names
    }


def family(name: str, out: Path) -> Family:
    if is_preset(name):
        return "encoder-decoder" if name in seq2seq.names() else "decoder"
    config = files.read_json(folder(name, out) / "config.json", "copy it again")
    return "encoder-decoder" if config.get("is_encoder_decoder") or config.get("model_type") == "t5" else "decoder"


def slug(name: str) -> str:
    """A name as part of a file's."""
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in name).strip("-")
