"""What a model is trained to do, as a loss over a batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from shoestring.runtime import unwrap
from shoestring.types import Batch, Loss

IGNORED = -100


def next_token(model: nn.Module, batch: Batch) -> Loss:
    """Cross-entropy of each next token, summed.

    batch   `input_ids` (B, T); `labels` (B, T) where not every token is a target: unshifted, -100 is none;
            `attention_mask` (B, T) where some are padding
    Returns the sum in nats over the targets, their number, and the number of input tokens.
    """
    inputs = batch["input_ids"]
    arguments = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
    logits = model(input_ids=inputs, use_cache=False, **arguments).logits
    targets = batch.get("labels", inputs)[:, 1:]
    count = targets.numel() if "labels" not in batch else int((targets != IGNORED).sum())
    # the targets move, not the logits: cutting the last position off would copy (B, T, V)
    total = summed_cross_entropy(logits, nn.functional.pad(targets, (0, 1), value=IGNORED))
    return Loss(total, count, inputs.numel())


def sequence_to_sequence(model: nn.Module, batch: Batch) -> Loss:
    """Cross-entropy of each token of an encoder-decoder's answer, summed.

    batch   `input_ids` (B, S) and, where some are padding, `attention_mask` (B, S) of the encoder; `labels` (B, T) of
            the decoder: -100 is none, and the model itself makes its inputs of them, one place to the right
    Returns the sum in nats over the targets, their number, and the number of the encoder's and decoder's input tokens
    together, padding included. Raises ValueError where the model does not say which token starts its decoder.
    """
    inputs, labels = batch["input_ids"], batch["labels"]
    arguments = {"attention_mask": batch["attention_mask"]} if "attention_mask" in batch else {}
    inner: Any = unwrap(model)
    shifted = inner.prepare_decoder_input_ids_from_labels(labels=labels)
    logits = model(input_ids=inputs, decoder_input_ids=shifted, use_cache=False, **arguments).logits
    total = summed_cross_entropy(logits, labels)
    return Loss(total, int((labels != IGNORED).sum()), inputs.numel() + labels.numel())


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy summed over the targets, in fp32. logits (..., V), targets (...) with -100 for none; returns ()."""
    flat = logits.reshape(-1, logits.shape[-1]).float()
    return nn.functional.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED, reduction="sum")
