"""What a network is scored on: a batch, checked; how the network is called with it; which rows are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from shoestring.types import Batch

Inputs: TypeAlias = "Tensor | Batch"
TOKENS = 128  # of a batch of text, compared with each other at the most


def arguments(inputs: Inputs) -> tuple[tuple[Tensor, ...], Batch]:
    """Positional and named arguments of the network: a tensor is the only one; of a dict, all but its labels.

    Copies, which a network may write to.
    """
    if isinstance(inputs, Tensor):
        return (inputs.clone(),), {}
    return (), {name: value.clone() for name, value in inputs.items() if name != "labels"}


def moved(inputs: Inputs, device: torch.device) -> Inputs:
    """The batch on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return {name: value.to(device) for name, value in inputs.items()}


def device_of(model: nn.Module) -> torch.device:
    """Where its parameters are; the CPU where it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def dense(inputs: Inputs) -> Inputs:
    """Images with their channels last in memory, where the kernels of torch are fastest; all else as it is."""
    if isinstance(inputs, Tensor):
        return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in inputs.items()
    }


def outputs(found: Any) -> list[Tensor]:
    """All tensors of what a network returned: a tensor, a tuple, a dict, a Hugging Face output."""
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, dict):
        return [tensor for value in found.values() for tensor in outputs(value)]
    if isinstance(found, (tuple, list)):
        return [tensor for value in found for tensor in outputs(value)]
    return []


def logits(found: Any) -> Tensor:
    """The first tensor of floats that a network returned, or its `logits`. Raises ValueError where there is none."""
    if isinstance(found, dict) and isinstance(found.get("logits"), Tensor):
        chosen: Tensor = found["logits"]
        return chosen
    for tensor in outputs(found):
        if tensor.is_floating_point():
            return tensor
    raise ValueError(f"the network returned {type(found).__name__} without a tensor of floats")


def checked(inputs: Inputs) -> Inputs:
    """The batch itself. Raises ValueError on an empty batch, one sample, values that are not finite, equal samples."""
    if not isinstance(inputs, Tensor | Mapping):
        raise ValueError(
            f"the batch is {type(inputs).__name__}: expected a tensor, or a dict of the network's arguments"
        )
    tensors = {"the batch": inputs} if isinstance(inputs, Tensor) else dict(inputs)
    tensors.pop("labels", None)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is {type(tensor).__name__}: expected a tensor; leave out what is not given")
    if not tensors:
        raise ValueError("the batch is empty: expected a tensor, or a dict with the network's arguments")
    for name, tensor in tensors.items():
        if tensor.dim() == 0 or len(tensor) == 0:
            raise ValueError(f"{name} holds nothing, its shape is {tuple(tensor.shape)}: expected two samples or more")
        if len(tensor) == 1 and "input_ids" not in tensors:
            raise ValueError(f"{name} holds one sample: codes are compared with each other, so give two or more")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            row = int((~torch.isfinite(tensor)).reshape(len(tensor), -1).any(1).nonzero()[0])
            raise ValueError(f"{name} has a value that is not finite, in row {row}")
    lengths = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the batch's tensors differ in their length: {lengths}")
    if "input_ids" not in tensors:  # of text, tokens are compared, and equal ones once
        different(inputs)
    return inputs


def different(inputs: Inputs) -> None:
    """Raises ValueError where there are fewer than two samples, or two are equal, labels left out."""
    tensors = [inputs] if isinstance(inputs, Tensor) else [inputs[name] for name in inputs if name != "labels"]
    if len(tensors[0]) < 2:
        raise ValueError("the batch holds one sample: samples are compared with each other, so give two or more")
    rows = torch.cat([tensor.reshape(len(tensor), -1).double() for tensor in tensors], dim=1)
    _, groups = torch.unique(rows, dim=0, return_inverse=True)
    first: dict[int, int] = {}
    for row, group in enumerate(groups.tolist()):
        if group in first:
            raise ValueError(
                f"rows {first[group]} and {row} of the batch are equal, so their codes are too, and every kernel "
                "would be singular: give each sample once"
            )
        first[group] = row


def samples(inputs: Inputs) -> int:
    """How many samples there are. Raises ValueError where there is none."""
    count = len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()), ()))
    if not count:
        raise ValueError("the batch is empty: expected a tensor, or a dict with the network's arguments")
    return count


def compared(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Which rows of an activation are told apart: (samples,) and, for text, (tokens,) of a (samples, tokens) batch.

    Images: every one, as (N,) and None. Text (a dict with `input_ids`): at most TOKENS tokens that are no padding, each
    another of the vocabulary, where it stands last. An untrained decoder hardly mixes tokens, so that the codes of
    equal ones are equal wherever they stand, and one pair of them would make every kernel singular.
    Raises ValueError where fewer than two are left.
    """
    if isinstance(inputs, Tensor) or "input_ids" not in inputs:
        first = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
        return torch.arange(len(first)), None
    ids = inputs["input_ids"]
    mask = inputs["attention_mask"] if "attention_mask" in inputs else torch.ones_like(ids)
    last: dict[int, tuple[int, int]] = {}  # where each token stands last
    for row, (tokens, kept) in enumerate(zip(ids.tolist(), mask.tolist(), strict=True)):
        last.update((token, (row, place)) for place, (token, real) in enumerate(zip(tokens, kept, strict=True)) if real)
    places = sorted(last.values())
    if len(places) < 2:
        raise ValueError(f"the batch holds {len(places)} tokens that differ and are no padding: expected two or more")
    count = min(TOKENS, len(places))
    chosen = [places[index * len(places) // count] for index in range(count)]
    return torch.tensor([row for row, _ in chosen]), torch.tensor([place for _, place in chosen])


def trained_parameters(model: nn.Module) -> list[Tensor]:
    """Those that a gradient may change, shared ones once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
