"""Our own score: how many independent directions an untrained network's activations span, its size, its steepness.

R rows (samples times places), C channels
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from shoestring.methods.search.codes import Watch
from shoestring.methods.search.inputs import Inputs, checked, dense, device_of, logits, moved, outputs
from shoestring.methods.search.score import Score
from shoestring.methods.search.untouched import passed, untouched

_ROWS = 8192  # of an activation, evenly spread, that correlations are taken over at the most


def span(model: nn.Module, inputs: Inputs) -> Score:
    """log W + (log P - log G) / 4: wide where it counts, large, and not steep. Higher is better.

    W  effective channels, summed over all activations that the output came from: of each, the `effective_rank` of what
       its rectifier is given, over samples and places, padding left out
    P  parameters that a gradient reached
    G  the largest norm of any parameter's gradient, of the sum of all logits with signs drawn once

    size_term is log(P) / 4, shape_term the rest; -inf where nothing varies or no gradient flows, as in a network that
    is cut off from its inputs. One pass forward and one back; no labels. Norms take the batch's statistics. Channels
    are the second axis of activations of four dimensions or more, as convolutions have them, and the last of others.
    Compare values of equal batches only.
    Raises ValueError on a batch that cannot be compared, a network without activations, and what is not finite.

    This score is ours. Its parts and the weight of a quarter were chosen on NAS-Bench-201 cells, on half of the
    topologies (`recipe_cells.aside` is the other half); the card tells how it fared on those kept aside.
    """
    inputs = dense(moved(checked(inputs), device_of(model)))
    widths: list[float] = []

    def see(activation: int, before: Tensor) -> None:
        widths.append(effective_rank(_rows(before, inputs)))

    weights = {
        name: parameter.detach().requires_grad_(parameter.requires_grad) for name, parameter in model.named_parameters()
    }
    with torch.enable_grad(), untouched(model):
        with Watch(see) as watch, watch.modules(model):
            returned = passed(model, inputs, weights)
        found = logits(returned)
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"{type(model).__name__} gives an output that is not finite on this batch: no score")
        gradients = _gradients(_signed(found, inputs), weights)
    if not widths:
        raise ValueError(f"{type(model).__name__} has no activation: ReLU and its kin, GELU, SiLU, gates are known")
    width = sum(widths[activation] for activation in watch.reached(outputs(returned)))
    steepest = float(torch.stack([gradient.norm() for gradient in gradients]).max()) if gradients else 0.0
    if not math.isfinite(steepest):
        raise ValueError(f"{type(model).__name__} has a gradient that is not finite on this batch: no score")
    if not width or not steepest:
        return Score(-math.inf)
    size = math.log(sum(gradient.numel() for gradient in gradients)) / 4
    shape = math.log(width) - math.log(steepest) / 4
    return Score(size + shape, size, shape)


def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the eigenvalues of the channels' correlations: 1 where all are alike, C where none are.

    rows  (R, C), floats; channels that do not vary count for nothing; 0 where none does

    Roy and Vetterli 2007 define it so of singular values.
    """
    centred = rows.double() - rows.double().mean(0)
    lengths = centred.norm(dim=0)
    varying = lengths > 1e-6 * math.sqrt(len(rows))
    if not bool(varying.any()):
        return 0.0
    scaled = centred[:, varying] / lengths[varying]
    products = scaled.T @ scaled if scaled.shape[1] <= len(scaled) else scaled @ scaled.T
    shares = torch.linalg.eigvalsh(products).clamp_min(0)
    shares = shares / shares.sum()
    return float(torch.special.entr(shares).sum().exp())


def _rows(before: Tensor, inputs: Inputs) -> Tensor:
    """An activation's pre-activations as (R, C): without padding, and at most _ROWS of them."""
    channels_last = before.movedim(1, -1) if before.dim() > 3 else before
    rows = channels_last.detach().reshape(-1, channels_last.shape[-1])
    if isinstance(inputs, dict) and "attention_mask" in inputs and len(rows) == inputs["attention_mask"].numel():
        rows = rows[inputs["attention_mask"].flatten() != 0]
    stride = math.ceil(len(rows) / _ROWS)
    while math.gcd(stride, len(rows)) > 1:  # else an image's columns were taken whole, and others never
        stride += 1
    return rows[::stride]


def _signed(found: Tensor, inputs: Inputs) -> Tensor:
    """The sum of all logits but those of padding, each with a sign, always the same for one shape."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, found.shape, generator=generator).to(found) * 2 - 1
    if (
        isinstance(inputs, dict)
        and "attention_mask" in inputs
        and found.dim() == 3
        and found.shape[:2] == inputs["attention_mask"].shape
    ):
        signs = signs * inputs["attention_mask"][..., None]
    return (found * signs).sum()


def _gradients(signed: Tensor, weights: dict[str, Tensor]) -> list[Tensor]:
    trained = [tensor for tensor in weights.values() if tensor.requires_grad]
    if not signed.requires_grad or not trained:
        return []
    found = torch.autograd.grad(signed, trained, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]
