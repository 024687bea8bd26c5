"""Named shapes of XLNet, the two published ones and smaller ones for a CPU, and new models of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import XLNetConfig, XLNetLMHeadModel

from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.objectives import OBJECTIVE, Kind
from shoestring.models import presets
from shoestring.models.folders import read_json


class _Shape(NamedTuple):
    layers: int
    width: int
    heads: int


# base and large: Yang et al. 2019, section 3.1 and appendix A.4; d_inner is four widths in all
_SHAPES = {
    "xlnet-tiny": _Shape(2, 32, 2),
    "xlnet-1m": _Shape(4, 128, 4),
    "xlnet-4m": _Shape(5, 256, 4),
    "xlnet-base": _Shape(12, 768, 12),
    "xlnet-large": _Shape(24, 1024, 16),
}


def names() -> list[str]:
    """All names that `configuration` knows, small to large."""
    return [*_SHAPES]


def configuration(name: str, vocab_size: int, **changes: Any) -> XLNetConfig:
    """The configuration of a named shape, or of a folder's config.json, for a vocabulary.

    changes  values of the configuration's own fields, by their own names, such as mem_len=384
    A preset's dropout is off and its GELU the tanh one of the official code. Raises ValueError on an unknown name or
    field, naming the nearest, and on values that do not fit together.
    """
    if name in _SHAPES:
        layers, width, heads = _SHAPES[name]
        values: dict[str, Any] = {"n_layer": layers, "d_model": width, "n_head": heads, "d_inner": 4 * width}
        values |= {"dropout": 0.0, "ff_activation": "gelu_new"}
    else:
        path = Path(name).expanduser() / "config.json"
        if not path.is_file() and "/" not in name:
            known = ", ".join(names())
            near = presets.nearest(name, names())
            raise ValueError(f"no shape is called {name!r}{near}: expected one of {known}, or a folder")
        values = read_json(path, "the configuration of an XLNet")
        if values.get("model_type") != "xlnet":
            raise ValueError(f"{path}: its model_type is {values.get('model_type')!r}: expected 'xlnet'")
        for key in ("architectures", "dtype", "transformers_version", "model_type", OBJECTIVE):
            values.pop(key, None)
    values |= {"vocab_size": vocab_size, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    config: XLNetConfig = presets.made(XLNetConfig, name, values, changes)
    return config


def build(config: XLNetConfig, seed: int) -> XLNetLMHeadModel:
    """A new two-stream model: same seed, same weights; torch's generator is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = XLNetLMHeadModel(config)
    return from_transformers(model).train()


def readied(model: XLNetLMHeadModel, kind: Kind, segments: bool, checkpointing: bool) -> XLNetLMHeadModel:
    """The model, made ready to be pretrained for an objective, which its configuration says from now on.

    segments       whether batches have more than one
    checkpointing  whether the activations of a layer are computed again in backward, and not kept
    Weights that the objective never reads are frozen: DDP would wait for their gradients.
    """
    body = model.base_model
    setattr(model.config, OBJECTIVE, kind)
    if kind == "autoregressive":
        body.mask_emb.requires_grad_(False)
    if not segments:
        for layer in body.layer:
            layer.rel_attn.seg_embed.requires_grad_(False)
            layer.rel_attn.r_s_bias.requires_grad_(False)
    if checkpointing:
        with warnings.catch_warnings():  # its new name is not in all versions of transformers 5
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable({"use_reentrant": False})
    return model
