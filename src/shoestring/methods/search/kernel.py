"""Hamming kernels of activation codes: exact to the integer, one batch of codes at a time.

N rows compared, U units
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor, nn

from shoestring.methods.search.codes import Watch
from shoestring.methods.search.inputs import Inputs, checked, compared, dense, device_of, moved, outputs
from shoestring.methods.search.untouched import passed, untouched

_EXACT = 2**24  # the largest count that fp32 sums hold exactly


class Kernel(NamedTuple):
    """How many of the U units agree on each two rows.

    agreements  (N, N) int64, symmetric, U on the diagonal
    units       U, over all activations that the output came from
    """

    agreements: Tensor
    units: int


def together(codes: Tensor) -> Tensor:
    """How many units are active in both of each two rows: (N, N) int64, of codes (N, U), bool.

    Exact: int8 products with int32 sums on the CPU, elsewhere fp32 sums of at most 2^24 units.
    """
    if codes.device.type == "cpu" and codes.shape[1] > 1:  # of a single column, torch 2.13's product is wrong
        bytes_ = codes.view(torch.int8)
        return torch._int_mm(bytes_, bytes_.T).long()
    found = torch.zeros(len(codes), len(codes), dtype=torch.int64, device=codes.device)
    for part in torch.split(codes, _EXACT, dim=1):
        with torch.autocast(codes.device.type, enabled=False):  # half precision would round the counts
            floats = part.float()
            found += (floats @ floats.T).long()
    return found


def agreements(both: Tensor, units: int) -> Tensor:
    """Units that are active in both or in neither: (N, N), from how many are in both."""
    active = both.diagonal()
    return units - active[:, None] - active[None, :] + 2 * both


def kernel(model: nn.Module, inputs: Inputs) -> Kernel:
    """The kernel of all activations that the output came from, in one forward pass.

    model   any network with rectifiers, or with GELU, SiLU and their kin, whose pre-activation's sign is the code; a
            gated unit's code is that of its gate. Modules or functions of torch, or modules of transformers; what is
            written out by hand, such as x * sigmoid(x), is not seen. On the device of its parameters. Samples come
            first in all activations, and after them, in text, the tokens
    inputs  a tensor (N, ...), or a dict of the network's arguments. Of text (`input_ids`), up to 128 tokens that are
            no padding are compared instead of whole rows
    Memory beyond the forward pass is O(N^2). Where some activation does not reach the output, the pass is done again
    without it. The model and all generators are left as they were.
    Raises ValueError on a batch that cannot be compared (one row, equal rows, not finite), a network that has no
    activation on the way to its output, and an output that is not finite.

    Mellor et al. 2021 (NASWOT), section 3; exact integers for its floats, batch statistics without its training mode.
    """
    inputs = dense(moved(checked(inputs), device_of(model)))
    rows = compared(inputs)
    with torch.no_grad(), untouched(model):
        first = _pass(model, inputs, rows, frozenset())
        found = first if not first.lost else _pass(model, inputs, rows, frozenset(first.lost))
    if not found.units:
        raise ValueError(
            f"{type(model).__name__} has no activation on the way to its output whose sign could be a code: ReLU and "
            "its kin, GELU, SiLU and gated units are known"
        )
    return Kernel(agreements(found.both, found.units), found.units)


class _Sum(NamedTuple):
    both: Tensor
    units: int
    lost: set[int]  # activations that the output did not come from


def _pass(model: nn.Module, inputs: Inputs, rows: tuple[Tensor, Tensor | None], without: frozenset[int]) -> _Sum:
    """One forward pass; the sums are over all activations but those to leave out."""
    count = len(rows[0])
    both = torch.zeros(count, count, dtype=torch.int64, device=_device(inputs))
    units = 0
    known = _Known()

    def see(activation: int, before: Tensor) -> None:
        nonlocal units
        if activation in without:
            return
        added, width = known.get(before) or known.put(before, _compare(before, rows, inputs))
        both.add_(added)
        units += width

    with Watch(see) as watch, watch.modules(model):
        results = outputs(passed(model, inputs))
    if any(result.is_floating_point() and not bool(torch.isfinite(result).all()) for result in results):
        raise ValueError(f"{type(model).__name__} gives an output that is not finite on this batch: it is not scored")
    return _Sum(both, units, set(range(watch.seen)) - watch.reached(results) - without)


def _device(inputs: Inputs) -> torch.device:
    return inputs.device if isinstance(inputs, Tensor) else next(iter(inputs.values())).device


class _Known:
    """Kernels of tensors that are still alive: several rectifiers are often given the same one."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Tensor], int, tuple[Tensor, int]]] = {}

    def get(self, before: Tensor) -> tuple[Tensor, int] | None:
        reference, version, value = self._found.get(id(before), (None, 0, None))
        return value if reference is not None and reference() is before and before._version == version else None

    def put(self, before: Tensor, value: tuple[Tensor, int]) -> tuple[Tensor, int]:
        place = id(before)
        reference = weakref.ref(before, lambda _: self._found.pop(place, None))
        self._found[place] = (reference, before._version, value)
        return value


def _compare(before: Tensor, rows: tuple[Tensor, Tensor | None], inputs: Inputs) -> tuple[Tensor, int]:
    codes = _codes(before, rows, inputs)
    return together(codes), codes.shape[1]


def _codes(before: Tensor, rows: tuple[Tensor, Tensor | None], inputs: Inputs) -> Tensor:
    """The codes of the rows that are compared, (N, units), contiguous; the order of the units is the memory's own."""
    samples, places = rows
    active = before > 0
    if places is None:
        images = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
        return _flat(active, len(samples), windows=images.dim() == 4)
    assert not isinstance(inputs, Tensor)
    count, length = inputs["input_ids"].shape
    samples, places = samples.to(before.device), places.to(before.device)
    if active.dim() > 2 and active.shape[:2] == (count, length):
        return active[samples, places].flatten(1)
    if active.shape[0] == count * length:
        return active[samples * length + places].flatten(1)
    if active.shape[0] == count and length not in active.shape[1:]:
        return active[samples].flatten(1)  # one value a text, the same for all its tokens
    raise ValueError(
        f"an activation has the shape {tuple(before.shape)}, in which {count} texts of {length} tokens cannot be told "
        "apart: expected those first (experts that are given some tokens only cannot be scored)"
    )


def _flat(active: Tensor, count: int, windows: bool) -> Tensor:
    if active.shape[0] == count:
        strides: tuple[int, ...] = active.stride()
        order = sorted(range(1, active.dim()), key=lambda axis: -strides[axis])
        return active.permute(0, *order).reshape(count, -1)
    if windows and active.shape[0] % count == 0:
        return active.reshape(count, -1)  # parts of images, in the order of the images
    raise ValueError(
        f"an activation has the shape {tuple(active.shape)}, in which {count} samples cannot be told apart: "
        "expected them first"
    )
