"""What samples look like, to a model or by their tokens: the plain ways to group them, beside their losses.

B samples a batch, T length, D width
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from shoestring.data.batches import NOT_SCORED
from shoestring.models.modes import evaluating
from shoestring.types import Batch


def pooled(model: nn.Module, batches: Iterable[Batch], layer: int = -1) -> Tensor:
    """The mean hidden state of each sample.

    model    as Hugging Face's: called with output_hidden_states=True, it returns what has `hidden_states`
    batches  `input_ids` (B, T); which of them are of the text is said by `attention_mask`, else by labels that are not
             -100, else all are
    layer    whose output: 0 is the embedding, 1 the first block's, -1 the last one's after the final norm
    Returns (samples, D) in float32, on the CPU. Raises ValueError where there is no such layer, no sample, a sample
    without a token, or a state that is not finite.
    """
    device = next(model.parameters()).device
    found: list[Tensor] = []
    with evaluating(model):
        for batch in batches:
            here = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
            states = model(**here, output_hidden_states=True, use_cache=False).hidden_states
            if not -len(states) <= layer < len(states):
                raise ValueError(f"layer {layer}: expected one from 0, the embedding, to {len(states) - 1}, or -1")
            text = _text(batch).to(device, torch.float32)
            summed = torch.einsum("btd,bt->bd", states[layer].float(), text)
            found.append((summed / text.sum(1, keepdim=True)).cpu())
    return _whole(found)


def token_counts(batches: Iterable[Batch], buckets: int) -> Tensor:
    """How often each token stands in each sample: no model, no order.

    batches  as for `pooled`
    buckets  columns: the vocabulary's size, or fewer, where ids share one by their remainder (frequent tokens, which
             most vocabularies put first, then do not share with each other)
    Returns (samples, buckets) in float32: rows of length one, so that long samples are no further apart than short.
    Raises ValueError where there is no sample, or one without a token.
    """
    if buckets < 1:
        raise ValueError(f"buckets {buckets}: expected one or more")
    found: list[Tensor] = []
    for batch in batches:
        text = _text(batch)
        counts = torch.zeros(len(text), buckets)
        counts.scatter_add_(1, batch["input_ids"] % buckets, text.float())
        found.append(counts / counts.norm(dim=1, keepdim=True))
    return _whole(found)


def _text(batch: Batch) -> Tensor:
    """(B, T): true where a token is of the text."""
    if "attention_mask" in batch:
        return batch["attention_mask"].bool()
    return batch["labels"] != NOT_SCORED if "labels" in batch else torch.ones_like(batch["input_ids"], dtype=torch.bool)


def _whole(found: list[Tensor]) -> Tensor:
    if not found:
        raise ValueError("there is no sample to look at: the batches are empty")
    features = torch.cat(found)
    whole = features.isfinite().all(1)
    if not bool(whole.all()):
        raise ValueError(f"sample {int((~whole).nonzero()[0])} has no token, or its hidden states are not finite")
    return features
