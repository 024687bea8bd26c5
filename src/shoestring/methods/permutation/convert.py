"""From transformers' XLNet to two streams and back: the same weights under the same names, nothing copied."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, XLNetModel

from shoestring.methods.permutation.backbone import TwoStream
from shoestring.models.surgery import replace

Model = TypeVar("Model", bound=PreTrainedModel)


def from_transformers(model: Model) -> Model:
    """Give an XLNet of transformers, with whichever head, a two-stream body in the place of its own; returns the model.

    The model stays what it was to transformers: it is saved and loaded as before, and `Trainer` trains it. Gradient
    checkpointing can be turned on. Raises ValueError where it has no body of XLNet's, or one of a kind that is not
    computed here (`same_length`, attention other than "bi" and "uni").
    """
    body = getattr(model, model.base_model_prefix, None)
    if isinstance(body, TwoStream):
        return model
    if not isinstance(body, XLNetModel):
        bare = " alone: give it a head, or take `TwoStream` itself" if isinstance(model, XLNetModel) else ""
        raise ValueError(f"{type(model).__name__}{bare}: expected an XLNet of transformers, such as XLNetLMHeadModel")
    if body.config.same_length or body.config.attn_type not in ("bi", "uni"):
        what = f"attn_type {body.config.attn_type!r} with same_length {body.config.same_length}"
        raise ValueError(f"{what}: expected 'bi' or 'uni', without same_length")
    replace(model, model.base_model_prefix, lambda _, old: TwoStream(_body(old)))
    model.supports_gradient_checkpointing = True
    model.accepts_loss_kwargs = False  # its losses are means, whatever `Trainer` counts and would hand to the body
    return model


def to_transformers(model: Model) -> Model:
    """Give a model back the body of transformers, around the same weights; returns the model."""
    body = getattr(model, model.base_model_prefix, None)
    if not isinstance(body, TwoStream):
        raise ValueError(f"{type(model).__name__}: its body is no two-stream one: there is nothing to turn back")
    replace(model, model.base_model_prefix, lambda _, old: _transformers_body(old))
    del model.supports_gradient_checkpointing, model.accepts_loss_kwargs
    return model


def _body(old: nn.Module) -> XLNetModel:
    assert isinstance(old, XLNetModel)
    return old


def _transformers_body(old: Any) -> XLNetModel:
    with torch.device("meta"):
        body = XLNetModel(old.config)
    body.word_embedding, body.mask_emb, body.dropout = old.word_embedding, old.mask_emb, old.dropout
    for new, layer in zip(body.layer, old.layer, strict=True):
        new.rel_attn, new.ff = layer.rel_attn, layer.ff
    return body
