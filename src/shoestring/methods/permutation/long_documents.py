"""Documents longer than a window, read through the memory."""
# B rows, T tokens of the longest document, W of a window, M of memory

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from shoestring.methods.permutation.backbone import TwoStream

READ = "long_documents"  # the field of a configuration that says how a model was fine-tuned to read them


def reach(layers: int, window: int, memory: int) -> int:
    """How many tokens of a document, counted from its end, `remembered` can see: what stands before changes nothing.

    A layer looks back on `memory` states, each of which stands in a window that it could see, and so on below. Without
    a memory it is the window.
    """
    back = -(-memory // window) * window  # to the start of the window that the oldest state stands in
    return window + memory + (layers - 1) * back


def remembered(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    window: int | None = None,
    memory: int | None = None,
) -> Any:
    """What a head makes of the last window of each document, which sees the memory of what stands before it.

        remembered(model, **collate(features, pad), window=512, memory=512).loss

    model           with a two-stream body and a head that reads the last token: of classification or choices
    input_ids       (B, T), padded at the left, or (B, options, T); token_type_ids alike. More than `reach` is not seen
    attention_mask  of the same shape: 0 where a token is padding
    window, memory  W and M, in tokens; as the configuration says that it was fine-tuned unless given. Windows are
                    counted from a document's end, so that the first may be shorter
    Gives the output of the model's own forward; where T is at most W it is that call and no other. A row's memory is of
    its own document alone, and rows of any lengths give what each gives by itself.

    Gradients are of the last window alone: all weights learn how to read it, and the keys and values of each layer how
    to read what the memory holds. Nothing flows on into the memory: earlier windows are not taught what to leave there,
    tokens that stand only in them move no embedding, and backward keeps nothing of them. In training mode they drop out
    as the last one does. Raises ValueError where shapes or numbers do not fit, or padding is not at the left.

    Dai et al. 2019 (Transformer-XL), section 3.2; the official code of XLNet fine-tunes on one window, cut.
    """
    body = getattr(model, model.base_model_prefix, None)
    if not isinstance(body, TwoStream):
        raise ValueError(f"the body of a {type(model).__name__} is not two-stream: pass it to from_transformers first")
    told = getattr(model.config, READ, None) or {}
    if not told and None in (window, memory):
        raise ValueError("the configuration does not say how long documents are read: give window and memory")
    window = told.get("window") if window is None else window
    memory = told.get("memory") if memory is None else memory
    if window is None or memory is None or window < 1 or memory < 1:
        raise ValueError(f"windows of {window} tokens, {memory} of memory: expected one or more of each")
    if input_ids.dim() not in (2, 3):
        raise ValueError(f"input_ids are {tuple(input_ids.shape)}: expected (rows, tokens) or (rows, options, tokens)")
    given = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
    rows = {name: tensor for name, tensor in given.items() if tensor is not None}
    for name, tensor in rows.items():
        if tensor.shape != input_ids.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}: expected {tuple(input_ids.shape)}, as the input")
    length = input_ids.shape[-1]
    if length <= window:
        return model(**rows, labels=labels)
    flat = {name: tensor.flatten(0, -2) for name, tensor in rows.items()}
    padding = _padding(flat.get("attention_mask"), flat["input_ids"])
    first = length % window or window
    mems, start = None, 0
    for end in range(first, length, window):
        part = {name: tensor[:, start:end] for name, tensor in flat.items()}
        mems, start = _after(body, part, mems, _seen(mems, start, padding), memory), end
    last = {name: tensor[..., start:] for name, tensor in rows.items()}
    return model(**last, labels=labels, mems=mems, context=_seen(mems, start, padding))


def _after(
    body: TwoStream, part: dict[str, Tensor], mems: list[Tensor] | None, context: Tensor | None, memory: int
) -> list[Tensor]:
    """Of each layer (M, B, width): the latest states that go into it, whatever the configuration remembers."""
    with torch.no_grad():
        found = body(**part, mems=mems, context=context, use_mems=False, output_hidden_states=True)
    assert found.hidden_states is not None
    states = [layer.transpose(0, 1) for layer in found.hidden_states[:-1]]
    if mems is not None:
        states = [torch.cat([past, layer]) for past, layer in zip(mems, states, strict=True)]
    return [layer[-memory:] for layer in states]


def _seen(mems: list[Tensor] | None, start: int, padding: Tensor) -> Tensor | None:
    """(B,): how much of the memory is of the document and not of the padding before it."""
    return None if mems is None else (start - padding).clamp(0, len(mems[0]))


def _padding(mask: Tensor | None, input_ids: Tensor) -> Tensor:
    """(B,): how many tokens of padding stand before each document."""
    if mask is None:
        return input_ids.new_zeros(len(input_ids))
    there = mask != 0
    if not bool((there[:, 1:] >= there[:, :-1]).all()) or not bool(there[:, -1].all()):
        raise ValueError("attention_mask: expected padding at the left alone, and a token in every row")
    return (~there).sum(1)
