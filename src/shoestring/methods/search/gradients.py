"""How steep the loss of an untrained network is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from shoestring.methods.search.embeddings import real
from shoestring.methods.search.inputs import Inputs, dense, device_of, logits, moved
from shoestring.methods.search.score import Score
from shoestring.methods.search.untouched import passed, untouched

_IGNORED = -100


def grad_norm(model: nn.Module, inputs: Inputs) -> Score:
    """The Euclidean length of the gradient of the mean cross-entropy, over all trained parameters together.

    inputs  a dict with `labels`: classes (N,) of logits (N, C), or tokens (N, T), unshifted, -100 where there is no
            target. Text without labels is its own: the next token, padding left out
    Higher ranks higher. Norms take the batch's statistics: before any training there are no others.
    Raises ValueError where there are no labels, or the loss is not finite.
    """
    inputs = dense(moved(inputs, device_of(model)))
    weights = {
        name: parameter.detach().requires_grad_(parameter.requires_grad) for name, parameter in model.named_parameters()
    }
    trained = [tensor for tensor in weights.values() if tensor.requires_grad]
    if not trained:
        raise ValueError(f"{type(model).__name__} has no parameter that is trained: there is no gradient to measure")
    with torch.enable_grad(), untouched(model):
        loss = _loss(logits(passed(model, inputs, weights)), inputs)
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"{type(model).__name__} gives a loss of {loss.item()} on this batch: it is not scored")
        found = torch.autograd.grad(loss, trained, allow_unused=True)
    squares = [float(gradient.double().square().sum()) for gradient in found if gradient is not None]
    return Score(math.sqrt(math.fsum(squares)))


def _loss(scores: Tensor, inputs: Inputs) -> Tensor:
    """Mean cross-entropy, nats, of logits (N, C), or of the next token of logits (N, T, V)."""
    labels = inputs.get("labels") if isinstance(inputs, dict) else None
    if isinstance(inputs, dict) and "input_ids" in inputs and scores.dim() == 3:
        targets = _next(inputs) if labels is None else labels[:, 1:]
        scores = scores[:, :-1].flatten(0, 1)
        targets = targets.flatten()
    elif labels is None:
        raise ValueError(
            "the batch has no labels, and the gradient is that of a loss: give a dict of the network's arguments and "
            "'labels', one class a sample"
        )
    else:
        targets = labels
    classes = scores.shape[1]
    if targets.is_floating_point() or targets.shape != scores.shape[:1] + scores.shape[2:]:
        raise ValueError(
            f"the labels are {targets.dtype} of shape {tuple(targets.shape)} for logits of shape "
            f"{tuple(scores.shape)}: expected one class a sample, as a whole number"
        )
    counted = targets[targets != _IGNORED]
    if not len(counted) or not 0 <= int(counted.min()) <= int(counted.max()) < classes:
        span = f"{int(counted.min())} to {int(counted.max())}" if len(counted) else "all left out"
        raise ValueError(
            f"the labels are {span}: expected classes from 0 to {classes - 1}, as many as there are logits"
        )
    return nn.functional.cross_entropy(scores.float(), targets.long(), ignore_index=_IGNORED)


def _next(inputs: dict[str, Tensor]) -> Tensor:
    """The next token of each place (N, T - 1), -100 where it is padding."""
    targets, mask = inputs["input_ids"], real(inputs)
    return (targets if mask is None else targets.masked_fill(mask == 0, _IGNORED))[:, 1:]
