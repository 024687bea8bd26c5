"""Heads of transformers around a pretrained two-stream body: classification, spans, choices."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
    XLNetConfig,
    XLNetForMultipleChoice,
    XLNetForQuestionAnsweringSimple,
    XLNetForSequenceClassification,
    XLNetModel,
)

from shoestring.methods.permutation.backbone import TwoStream
from shoestring.methods.permutation.convert import from_transformers

Kind = Literal["classification", "spans", "choices"]
_MODELS: dict[Kind, type[PreTrainedModel]] = {
    "classification": XLNetForSequenceClassification,
    "spans": XLNetForQuestionAnsweringSimple,
    "choices": XLNetForMultipleChoice,
}
# what the outputs are of a head that has no labels of the user's
_OUTPUTS: dict[Kind, tuple[str, ...]] = {"spans": ("start", "end"), "choices": ("score",)}


def with_head(
    model: PreTrainedModel,
    kind: Kind,
    labels: Sequence[str] | None = None,
    dropout: float | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """A model of transformers around a copy of a pretrained body; the model that the body is from stays as it was.

    model    an XLNet with a head of whichever kind, or with none; of transformers, or two-stream already
    kind     classification  of a text or a pair, by what the last token, CLS, has become
             spans           where an answer starts and ends
             choices         which of several texts is right, by a score of each
    labels   of a classification, in the order of its outputs; the others have none
    dropout  of all layers and of the head; as in the model where None
    The head is drawn from the seed alone, in the body's precision and place, and torch's generator is untouched. The
    memory and the reading of half the rows from right to left are off, as in the official code's fine-tuning; the
    vector of the query stream, which nothing reads here, is frozen. In the mode, training or not, of the model given.
    It is saved and loaded as any model of transformers; `from_transformers` gives a loaded one its two streams again.
    Raises ValueError where labels or dropout are not of such a head, or the model is no XLNet.
    """
    if kind not in _MODELS:
        raise ValueError(f"head {kind!r}: expected one of {', '.join(get_args(Kind))}")
    body = getattr(model, model.base_model_prefix, model)
    if not isinstance(body, TwoStream | XLNetModel):
        raise ValueError(f"a {type(model).__name__}: expected an XLNet, such as XLNetLMHeadModel")
    config = _config(body.config, kind, labels, dropout)
    with torch.device("meta"):
        headed = _MODELS[kind](config)
    weights = {name: weight.detach().clone() for name, weight in body.state_dict().items()}
    headed.transformer.load_state_dict(weights, assign=True)
    headed.transformer.mask_emb.requires_grad_(False)  # DDP would wait for its gradient
    _draw(headed, body.word_embedding.weight, seed)
    return from_transformers(headed).train(model.training)


def _config(old: XLNetConfig, kind: Kind, labels: Sequence[str] | None, dropout: float | None) -> XLNetConfig:
    if kind == "classification":
        if labels is None or len(labels) < 2 or len(set(labels)) < len(labels):
            given = "none" if labels is None else list(labels)
            raise ValueError(f"labels of a classification: {given}: expected two or more, all different")
        outputs, problem = tuple(labels), "single_label_classification"
    elif labels is not None:
        raise ValueError(f"labels of {kind}: {list(labels)}: expected none; they are of a classification")
    else:
        outputs, problem = _OUTPUTS[kind], None
    config = copy.deepcopy(old)
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout {dropout}: expected a share, from 0 to below 1")
        config.dropout = config.summary_last_dropout = dropout
    config.id2label = dict(enumerate(outputs))
    config.label2id = {name: place for place, name in enumerate(outputs)}
    config.problem_type, config.summary_type = problem, "last"
    config.use_mems_train = config.use_mems_eval = config.bi_data = False
    config.mem_len = config.reuse_len = None
    return config


def _draw(headed: PreTrainedModel, like: torch.Tensor, seed: int) -> None:
    """Give what is not of the body its first weights, as both the official code and transformers draw them."""
    generator = torch.Generator().manual_seed(seed)
    for name, part in headed.named_modules():
        if isinstance(part, nn.Linear) and not name.startswith("transformer."):
            drawn = torch.empty(part.weight.shape).normal_(0, headed.config.initializer_range, generator=generator)
            part.weight = nn.Parameter(drawn.to(like))
            part.bias = nn.Parameter(torch.zeros_like(part.bias, device=like.device, dtype=like.dtype))
