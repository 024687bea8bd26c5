"""How differently an untrained network answers to changes of its inputs: the first version of NASWOT."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.methods.search.embeddings import are_tokens, of_tokens, real
from shoestring.methods.search.inputs import Inputs, checked, dense, device_of, different, logits, moved
from shoestring.methods.search.score import Score
from shoestring.methods.search.untouched import passed, untouched

_SMALL = 1e-5


def jacob_cov(model: nn.Module, inputs: Inputs) -> Score:
    """How little the samples' Jacobians are correlated: - sum (log(v + k) + 1 / (v + k)) over eigenvalues v.

    v are those of the matrix of the rows' correlations, k is 1e-5.
    inputs  a tensor (N, ...) or a dict of the network's arguments; a row of the Jacobian is the gradient of a sample's
            summed logits by its inputs, or, for text, by its embedded tokens, padding left out
    Higher ranks higher; -inf where a row is constant, as that of a network cut off from its inputs is. Norms take the
    batch's statistics, so that a row holds what a sample does to the others through them.
    Raises ValueError on a batch that cannot be compared (one sample, equal rows, not finite) and where a Jacobian is
    not finite.

    Mellor et al. 2020, the first version of the paper and its code, which it later replaced by the kernel of codes.
    """
    inputs = dense(moved(checked(inputs), device_of(model)))
    different(inputs)
    rows = _jacobians(model, inputs)
    if not bool(torch.isfinite(rows).all()):
        raise ValueError(f"{type(model).__name__} has gradients that are not finite on this batch: it is not scored")
    centred = rows - rows.mean(1, keepdim=True)
    lengths = centred.norm(dim=1, keepdim=True)
    if bool((lengths <= torch.finfo(torch.float32).eps * rows.norm(dim=1, keepdim=True)).any()):
        return Score(-math.inf)
    centred /= lengths
    values = torch.linalg.eigvalsh(centred @ centred.T).clamp_min(0) + _SMALL
    return Score(-float((values.log() + 1 / values).sum()))


def _jacobians(model: nn.Module, inputs: Inputs) -> Tensor:
    """The gradient of the summed logits by each sample's inputs (N, D), float64."""
    frozen = {name: parameter.detach() for name, parameter in model.named_parameters()}
    with torch.enable_grad(), untouched(model):
        if are_tokens(inputs):
            found, leaves = _from_tokens(model, inputs, frozen)
        else:
            leaves, given = _leaves(inputs)
            found = logits(passed(model, given, frozen))
        mask = real(inputs)
        if mask is not None and found.dim() == 3 and found.shape[:2] == mask.shape:
            found = found * mask[..., None]
        if found.requires_grad:
            gradients = torch.autograd.grad(found.sum(), leaves, allow_unused=True, materialize_grads=True)
        else:
            gradients = tuple(torch.zeros_like(leaf) for leaf in leaves)
    if mask is not None:
        gradients = tuple(
            gradient * mask[..., None] if gradient.shape[:2] == mask.shape else gradient for gradient in gradients
        )
    return torch.cat([gradient.reshape(len(gradient), -1).double() for gradient in gradients], dim=1)


def _leaves(inputs: Inputs) -> tuple[list[Tensor], Inputs]:
    """The inputs to differentiate by, and the batch made of them: copies, which a network may write to."""
    if isinstance(inputs, Tensor):
        leaf = inputs.detach().requires_grad_()
        return [leaf], leaf.clone()
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in inputs.items()
        if name != "labels" and value.is_floating_point()
    }
    if not leaves:
        raise ValueError(f"the batch holds {', '.join(inputs)}: expected input_ids, or a tensor of floats")
    return list(leaves.values()), inputs | {name: leaf.clone() for name, leaf in leaves.items()}


def _from_tokens(model: nn.Module, inputs: Inputs, frozen: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The logits, and what the embedding of the tokens returned, to differentiate by."""
    leaves: list[Tensor] = []

    def embedded(module: nn.Module, given: tuple[Any, ...], found: Tensor) -> Tensor:
        leaves.append(found.detach().requires_grad_())
        return leaves[-1].clone()

    hook = of_tokens(model).register_forward_hook(embedded)
    try:
        found = logits(passed(model, inputs, frozen))
    finally:
        hook.remove()
    if not leaves:
        raise ValueError(f"{type(model).__name__} did not call its embedding of the tokens: it is not scored")
    return found, leaves
