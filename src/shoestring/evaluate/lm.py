"""The loss of a language model on held-out text, and its bits per byte, which no tokenizer can flatter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from shoestring.models.modes import evaluating
from shoestring.train.objectives import IGNORED

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shoestring.types import Batch

_CHUNK_ELEMENTS = 2**22  # of fp32 logits at a time: 16 MB, and as much again for their softmax


class LmScore(NamedTuple):
    """What held-out text cost a model.

    loss            nats per token
    bits_per_byte   summed loss over the bytes of text; None where those were not given
    tokens          how many were scored
    """

    loss: float
    bits_per_byte: float | None
    tokens: int


def loss(
    model: nn.Module,
    batches: Iterable[Batch],
    text_bytes: int | None = None,
    autocast: AbstractContextManager[Any] | None = None,
) -> LmScore:
    """The mean loss of a causal language model over all targets of a pass.

    batches     `input_ids` (B, T); `labels` (B, T), unshifted, -100 where not scored; `attention_mask` where padded
    text_bytes  bytes of the text that the targets cover
    autocast    a context to compute in, such as `runtime.current().autocast()`
    Sums in float64. The model is evaluated in evaluation mode and left in the mode it was in. Every process that calls
    scores all batches it is given. Raises ValueError, naming the batch, where a loss is not finite.
    """
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    with evaluating(model), autocast or nullcontext():
        for index, batch in enumerate(batches):
            if "labels" not in batch:
                raise ValueError(f"batch {index} has no 'labels': expected input_ids and labels, -100 where not scored")
            here = {name: tensor.to(device) for name, tensor in batch.items()}
            targets = here.pop("labels")
            nats = _summed_nats(model(**here, use_cache=False).logits, targets)
            if not math.isfinite(nats):
                raise ValueError(f"the loss of batch {index} is {nats}: the model's weights or activations overflowed")
            total += nats
            tokens += int((targets[:, 1:] != IGNORED).sum())
    if tokens == 0:
        raise ValueError("no token was scored: the batches are empty, or every label is -100")
    bits = None if text_bytes is None else total / math.log(2) / text_bytes
    return LmScore(total / tokens, bits, tokens)


def _summed_nats(logits: Tensor, labels: Tensor) -> float:
    """Cross-entropy summed over a batch. logits (B, T, V), labels (B, T) unshifted.

    In chunks, so that the fp32 copy is never that of the whole batch; the targets move, not the logits, which would
    have to be copied.
    """
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED).reshape(-1)
    flat = logits.reshape(-1, logits.shape[-1])
    rows = max(1, _CHUNK_ELEMENTS // flat.shape[-1])
    nats = [
        torch.nn.functional.cross_entropy(some.float(), wanted, ignore_index=IGNORED, reduction="none")
        for some, wanted in zip(torch.split(flat, rows), torch.split(targets, rows), strict=True)
    ]
    return float(torch.cat(nats).cpu().double().sum())
