"""Named configurations: GPT-NeoX as in Pythia, smaller ones for a CPU, and GPT-2; or one of these from a folder."""

from __future__ import annotations

import copy
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shoestring.models.folders import one_line, read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class _Shape(NamedTuple):
    layers: int
    width: int
    heads: int


# Biderman et al. 2023 (Pythia), Table 1, and the configurations published with its 14m and 31m
_NEOX = {
    "neox-tiny": _Shape(2, 64, 2),
    "neox-1m": _Shape(4, 128, 4),
    "neox-4m": _Shape(5, 256, 4),
    "neox-12m": _Shape(6, 384, 6),
    "pythia-14m": _Shape(6, 128, 4),
    "pythia-31m": _Shape(6, 256, 8),
    "pythia-70m": _Shape(6, 512, 8),
    "pythia-160m": _Shape(12, 768, 12),
    "pythia-410m": _Shape(24, 1024, 16),
    "pythia-1b": _Shape(16, 2048, 8),
    "pythia-1.4b": _Shape(24, 2048, 16),
    "pythia-2.8b": _Shape(32, 2560, 32),
    "pythia-6.9b": _Shape(32, 4096, 32),
    "pythia-12b": _Shape(36, 5120, 40),
}
_GPT2 = {
    "gpt2-small": _Shape(12, 768, 12),
    "gpt2-medium": _Shape(24, 1024, 16),
    "gpt2-large": _Shape(36, 1280, 20),
}


def names() -> list[str]:
    """All names that `configuration` knows, small to large within a family."""
    return [*_NEOX, *_GPT2]


def configuration(name: str, vocab_size: int, length: int, **changes: Any) -> PretrainedConfig:
    """The Hugging Face configuration of a named shape, for a vocabulary and a context of `length` tokens.

    A preset's dropout is off, as is usual in pretraining. Special tokens are unset until `pretrained.save` takes those
    of the tokenizer.
    name        a preset's, or a folder whose config.json is of GPT-NeoX or GPT-2: all but the vocabulary, the context
                and special tokens is then as it says there
    changes     values of the configuration's own fields, by their own names, such as attention_dropout=0.1
    Raises ValueError on an unknown name or field, naming the nearest, and on values that do not fit together.
    """
    for key, value in (("vocab_size", vocab_size), ("length", length)):
        if value < 1:
            raise ValueError(f"{key} of {name} is {value}: expected one or more")
    family, values = _described(name)
    values |= {"vocab_size": vocab_size, "max_position_embeddings": length}
    values |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None, "attn_implementation": "sdpa"}
    return made(family, name, values, changes)


def made(
    family: type[PretrainedConfig], name: str, values: dict[str, Any], changes: dict[str, Any]
) -> PretrainedConfig:
    """The configuration of a family from a preset's values and a caller's changes.

    Raises ValueError where a change is of no field, naming the nearest, or where values do not fit together.
    """
    from huggingface_hub.errors import StrictDataclassError

    fields = sorted(family().to_dict())
    for key in changes:
        if key not in fields:
            raise ValueError(f"{family.__name__} has no field {key!r}{nearest(key, fields)}: see its documentation")
    try:
        return family(**values | changes)
    except StrictDataclassError as error:
        raise ValueError(f"preset {name} cannot be built so: {' '.join(str(error).split())}") from error


def _described(name: str) -> tuple[type[PretrainedConfig], dict[str, Any]]:
    """The family of a preset or folder, and the values that make its shape."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import GPT2Config, GPTNeoXConfig

    if name in _NEOX:
        return GPTNeoXConfig, _neox(_NEOX[name])
    if name in _GPT2:
        return GPT2Config, _gpt2(_GPT2[name])
    path = Path(name).expanduser() / "config.json"
    if not path.is_file() and "/" not in name:
        raise ValueError(
            f"no preset is called {name!r}{nearest(name, names())}: expected one of {', '.join(names())}, or a folder "
            "with a config.json"
        )
    found = read_json(path, "the configuration of a GPT-NeoX or GPT-2")
    families: dict[Any, type[PretrainedConfig]] = {"gpt_neox": GPTNeoXConfig, "gpt2": GPT2Config}
    family = families.get(found.get("model_type"))
    if family is None:
        raise ValueError(f"{path}: its model_type is {found.get('model_type')!r}: expected {' or '.join(families)}")
    try:
        values = family.from_pretrained(path.parent, local_files_only=True).to_dict()
    except (StrictDataclassError, OSError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    for key in ("n_positions", "dtype"):  # the context by GPT-2's own name, and the type of weights that are not there
        values.pop(key, None)
    return family, values


def _neox(shape: _Shape) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": 4 * shape.width,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    }


def _gpt2(shape: _Shape) -> dict[str, Any]:
    return {
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def nearest(name: str, known: list[str]) -> str:
    """What to add to an error about an unknown name: the known one most like it, or nothing."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (nearest: {found[0]!r})" if found else ""


def parameters(config: PretrainedConfig) -> int:
    """How many parameters a GPT-NeoX or GPT-2 configuration gives, tied ones once, without building the model."""
    width = config.hidden_size
    embeddings = config.vocab_size * width * (1 if config.tie_word_embeddings else 2)
    if config.model_type == "gpt2":
        inner = 4 * width if config.n_inner is None else config.n_inner
        embeddings += config.n_positions * width
        attention_bias = 4 * width
    else:
        inner = config.intermediate_size
        attention_bias = 4 * width if config.attention_bias else 0
    norms = 4 * width
    layer = 4 * width**2 + attention_bias + 2 * width * inner + inner + width + norms
    return int(embeddings + config.num_hidden_layers * layer + 2 * width)


def build(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A new model with the architecture's own initialisation: same seed, same weights; torch's generator is untouched.

    The weights are drawn on the CPU, in fp32; the model is in training mode, with torch's fused attention.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="sdpa")
    return model.train()
