"""The loss: a label and a reason as two tasks of one model.

B rows, S source tokens, T target tokens, V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.methods.rationale.encode import IGNORED, family, language_model
from shoestring.types import Batch, Loss


def two_task_loss(model: nn.Module, batches: Mapping[str, Batch], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum over tasks of each task's mean cross-entropy, nats per target token.

    batches  by task, as `encode.batch` makes them; `weights` by task: 1 for the label, lambda for the reason
    A label of one token weighs as much as a reason of sixty. Hsieh et al. 2023, equation 4.
    """
    means = []
    for task, batch in batches.items():
        found = written(model, batch)
        means.append(weights[task] * found.total / max(1, found.count))
    return torch.stack(means).sum()


def written(model: nn.Module, batch: Batch) -> Loss:
    """Cross-entropy of what is to be written, summed over its tokens, in fp32."""
    if family(model) == "encoder-decoder":
        return _after_encoding(model, batch)
    return _going_on(model, batch)


def scaled(model: nn.Module, batch: Batch) -> Loss:
    """The loss of a micro-batch of `Lessons`.

    `scale` (2,) holds what its sum is multiplied by, so that the micro-batches of a step add up to the weighted sum of
    the tasks' means, and how many targets it counts as: one in each step, since what is added up are means already.
    """
    found = written(model, batch)
    scale, count = batch["scale"].tolist()
    return Loss(found.total * scale, int(count), found.tokens)


def _after_encoding(model: nn.Module, batch: Batch) -> Loss:
    labels = batch["labels"]
    inner = language_model(model)
    output: Any = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=inner.prepare_decoder_input_ids_from_labels(labels=labels),
        use_cache=False,
    )
    tokens = batch["input_ids"].numel() + labels.numel()
    return Loss(_summed(output.logits, labels), int((labels != IGNORED).sum()), tokens)


def _going_on(model: nn.Module, batch: Batch) -> Loss:
    """Only positions that are `scored` go through the head: with a large vocabulary it costs more than all the rest."""
    inputs, scored = batch["input_ids"], batch["scored"]
    with _taking(language_model(model).get_output_embeddings(), scored):
        output: Any = model(input_ids=inputs, use_cache=False)
    targets = batch["labels"].flatten()[scored + 1]
    return Loss(_summed(output.logits, targets), len(scored), inputs.numel())


@contextmanager
def _taking(head: nn.Module, places: Tensor) -> Iterator[None]:
    """The head is given these places of all rows, flattened, as the places of one row."""

    def take(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *others = given
        return (hidden.flatten(0, 1).index_select(0, places)[None], *others)

    hook = head.register_forward_pre_hook(take)
    try:
        yield
    finally:
        hook.remove()


def _summed(logits: Tensor, targets: Tensor) -> Tensor:
    flat = logits.reshape(-1, logits.shape[-1]).float()
    return nn.functional.cross_entropy(flat, targets.reshape(-1), ignore_index=IGNORED, reduction="sum")
