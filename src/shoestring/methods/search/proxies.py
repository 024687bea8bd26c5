"""All proxies by name: the paper's score, ours, and what stands beside them in every table.

Those that compare samples (`naswot`, `span`, `jacob_cov`) refuse a batch that cannot be compared; the others take any.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from shoestring.methods.search.embeddings import tables
from shoestring.methods.search.flow import synflow
from shoestring.methods.search.gradients import grad_norm
from shoestring.methods.search.inputs import Inputs, dense, device_of, logits, moved, samples, trained_parameters
from shoestring.methods.search.jacobian import jacob_cov
from shoestring.methods.search.parallel import Proxy
from shoestring.methods.search.score import Score, score
from shoestring.methods.search.span import span
from shoestring.methods.search.untouched import passed, untouched


def parameters(model: nn.Module, inputs: Inputs) -> Score:
    """How many parameters are trained, shared ones once; the batch plays no part. More ranks higher."""
    return Score(float(_count(trained_parameters(model))))


def reached_parameters(model: nn.Module, inputs: Inputs) -> Score:
    """How many trained parameters a gradient reaches from the outputs: those of idle branches do not count.

    Two samples are passed forward and back. More ranks higher.
    """
    inputs = dense(moved(_first(inputs), device_of(model)))
    samples(inputs)
    weights = {
        name: parameter.detach().requires_grad_(parameter.requires_grad) for name, parameter in model.named_parameters()
    }
    trained = [tensor for tensor in weights.values() if tensor.requires_grad]
    with torch.enable_grad(), untouched(model):
        found = logits(passed(model, inputs, weights)).sum()
        gradients = torch.autograd.grad(found, trained, allow_unused=True) if found.requires_grad and trained else ()
    return Score(float(_count([gradient for gradient in gradients if gradient is not None])))


def decoder_parameters(model: nn.Module, inputs: Inputs) -> Score:
    """How many trained parameters of a language model only compute: those outside `embeddings.tables`.

    Left out are the embeddings of tokens and of places, and the head, tied or not. The batch plays no part. More ranks
    higher. Raises ValueError on a model that embeds no tokens.

    Javaheripi et al. 2022 (LTS), whose proxy for a decoder's perplexity this is.
    """
    outside = {id(parameter) for module in tables(model) for parameter in module.parameters()}
    return Score(float(_count([one for one in trained_parameters(model) if id(one) not in outside])))


def flops(model: nn.Module, inputs: Inputs) -> Score:
    """FLOPs of the forward pass, a sample; a multiply-add counts two. More ranks higher.

    Matrix products, convolutions and attention are counted, on the first two samples as given, padding too; norms are
    not, so whose statistics they take plays no part. They take the batch's, as elsewhere here.
    """
    inputs = moved(_first(inputs), device_of(model))
    count = samples(inputs)
    counter = FlopCounterMode(display=False, custom_mapping=_cpu_attention())
    with torch.no_grad(), untouched(model), warnings.catch_warnings(), counter:
        # the counter's own hooks only follow module names, so that they fire twice does no harm
        warnings.filterwarnings("ignore", message=r"Using `torch.compile\(module\)` when there are global hooks")
        passed(model, inputs)
    return Score(counter.get_total_flops() / count)


def _first(inputs: Inputs) -> Inputs:
    """Two samples, or what there is of them: all cost the same."""
    return inputs[:2] if isinstance(inputs, Tensor) else {name: value[:2] for name, value in inputs.items()}


def _cpu_attention() -> dict[Any, Callable[..., int]]:
    """A rule for fused attention on the CPU, which torch's counter (2.13) passes over as if it cost nothing."""

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    return {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward}


def _count(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


PROXIES: dict[str, Proxy] = {
    "naswot": score,
    "span": span,
    "parameters": parameters,
    "reached_parameters": reached_parameters,
    "flops": flops,
    "synflow": synflow,
    "grad_norm": grad_norm,
    "jacob_cov": jacob_cov,
    "decoder_parameters": decoder_parameters,
}
