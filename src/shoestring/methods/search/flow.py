"""Synaptic flow: how much of a signal of ones an untrained network's absolute weights carry to its output."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from shoestring.methods.search.embeddings import are_tokens, of_tokens
from shoestring.methods.search.inputs import Inputs, device_of, logits, moved, samples
from shoestring.methods.search.score import Score
from shoestring.methods.search.untouched import passed, untouched

# powers of two, so that scaling rounds nothing; an output beyond the least is no longer sure to be exact
_EXPONENTS, _LEAST = (0, -500, 500, -1000, 1000), 2.0**-960
_PASSED_ON = (
    *(functional.batch_norm, functional.layer_norm, functional.group_norm, functional.instance_norm),
    *(functional.rms_norm, functional.gelu, functional.silu, functional.mish, functional.hardswish),
    *(functional.hardtanh, functional.relu6),
)
_SOFTMAX = (torch.softmax, functional.softmax, Tensor.softmax)
# of other libraries, written out in elementary operations
_NORM, _GELU = re.compile(r"Norm(\dd)?$"), re.compile(r"GELUActivation$")


@torch.inference_mode(False)
def synflow(model: nn.Module, inputs: Inputs) -> Score:
    """The log of the synaptic flow: log sum |w dR/dw| over trained parameters, R the summed output for ones.

    inputs  only its shape is taken, and of one sample; for text the ones stand in for the embedded tokens
    Weights are absolute, in float64. Norms are passed over, so batch statistics play no part: of one constant sample
    they would leave nothing. So are GELU, SiLU, Mish and clipped rectifiers, which let a large positive value through
    as it is, and attention is the mean over all places, so that queries and keys carry nothing.
    Where raw values leave float64's range, inputs, biases and the loss are scaled by powers of two and the log is
    corrected. Higher ranks higher; -inf where nothing flows. Compare at equal input shapes.
    Raises ValueError where no scale is enough: above about 1e580, which many products of activations, as in gated
    units, can reach.

    Tanaka et al. 2020 (SynFlow), of which this is the logarithm; passing norms over, and all of text, are ours.
    """
    samples(inputs)
    inputs = _one(moved(inputs, device_of(model)))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameter that is trained: nothing's flow could be summed")
    embedding = of_tokens(model) if are_tokens(inputs) else None
    flows = {}
    for exponent in _EXPONENTS:
        scale = 2.0**exponent
        flows[exponent] = flow = _flow(model, inputs, embedding, scale)
        if _LEAST < flow / scale < 1 / _LEAST:
            return Score(math.log(flow) - 2 * exponent * math.log(2))
    if flows[0] == flows[500] == 0:
        return Score(-math.inf)
    raise ValueError(
        f"{type(model).__name__} has a synaptic flow that float64 cannot hold, scaled or not: take another proxy for "
        "networks that deep, or that multiply activations with each other"
    )


def _flow(model: nn.Module, inputs: Inputs, embedding: nn.Module | None, scale: float) -> float:
    """The flow times the square of a scale; inf or nan where something overflowed."""
    weights = _absolute(model, embedding, scale)
    trained = [weights[name] for name, parameter in model.named_parameters() if parameter.requires_grad]
    buffers = {
        name: buffer.double() if buffer.is_floating_point() else buffer.clone()
        for name, buffer in model.named_buffers()
    }
    with torch.enable_grad(), untouched(model), _passing_on(model, embedding, scale), _Linear():
        found = logits(passed(model, _scaled(inputs, scale), buffers | weights)).sum() * scale
        if not found.requires_grad or not bool(torch.isfinite(found)):
            return 0.0 if bool(torch.isfinite(found)) else math.inf
        gradients = torch.autograd.grad(found, trained, allow_unused=True)
    with torch.no_grad():
        flows = [
            float((weight * gradient).abs().sum())
            for weight, gradient in zip(trained, gradients, strict=True)
            if gradient is not None
        ]
    return sum(flows)


def _absolute(model: nn.Module, embedding: nn.Module | None, scale: float) -> dict[str, Tensor]:
    """Absolute weights in float64; what is added to a signal is scaled as the signal is."""
    added = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding) and module is not embedding
    }
    weights = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().abs().double()
        if id(parameter) in added or name.rpartition(".")[2].endswith("bias"):
            weight = weight * scale
        weights[name] = weight.requires_grad_(parameter.requires_grad)
    return weights


def _one(inputs: Inputs) -> Inputs:
    """Ones in the shape of one sample; whole numbers as they are."""
    if isinstance(inputs, Tensor):
        return torch.ones_like(inputs[:1], dtype=torch.float64) if inputs.is_floating_point() else inputs[:1]
    return {
        name: torch.ones_like(value[:1], dtype=torch.float64) if value.is_floating_point() else value[:1]
        for name, value in inputs.items()
    }


def _scaled(inputs: Inputs, scale: float) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs * scale if inputs.is_floating_point() else inputs
    return {name: value * scale if value.is_floating_point() else value for name, value in inputs.items()}


class _Linear(TorchFunctionMode):
    """Norms and smooth activations return what they are given, and attention the mean of its values."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PASSED_ON:
            return args[0] if args else kwargs["input"]
        if func is functional.scaled_dot_product_attention:
            return _mean(*args[:3], **{name: kwargs[name] for name in ("query", "key", "value") if name in kwargs})
        if func in _SOFTMAX:
            return _even(*args, **kwargs)
        return func(*args, **kwargs)


def _mean(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The mean of the values (..., H, T, D) over places; heads that share values are each given them."""
    found = value.mean(-2, keepdim=True)
    if found.dim() > 3 and found.shape[-3] != query.shape[-3]:
        found = found.repeat_interleave(query.shape[-3] // found.shape[-3], dim=-3)
    return found.expand(*query.shape[:-1], found.shape[-1])


def _even(input: Tensor, dim: int, *_: Any, **__: Any) -> Tensor:
    """Equal weights in the place of a softmax's."""
    return torch.full_like(input, 1 / input.shape[dim], dtype=torch.float64)


@contextmanager
def _passing_on(model: nn.Module, embedding: nn.Module | None, scale: float) -> Iterator[None]:
    """Ones in the place of embedded tokens, and what norms and GELUs written out were given in that of their result."""

    def ones(module: nn.Module, given: tuple[Any, ...], found: Tensor) -> Tensor:
        return torch.full_like(found, scale, dtype=torch.float64)

    def same(module: nn.Module, given: tuple[Any, ...], found: Any) -> Any:
        return given[0]

    with ExitStack() as stack:
        for module in model.modules():
            if module is embedding:
                stack.callback(module.register_forward_hook(ones).remove)
            elif not type(module).__module__.startswith("torch.nn.") and (
                _NORM.search(type(module).__name__) or _GELU.search(type(module).__name__)
            ):
                stack.callback(module.register_forward_hook(same).remove)
        yield
