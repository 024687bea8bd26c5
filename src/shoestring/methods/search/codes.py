"""The activations of a forward pass: what each rectifier was given, and which of them the output came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_RECTIFIERS = (
    *(aten.relu, aten.relu_, aten.leaky_relu, aten.leaky_relu_, aten.hardtanh, aten.hardtanh_, aten._prelu_kernel),
    *(aten.rrelu_with_noise, aten.rrelu_with_noise_, aten.elu, aten.elu_, aten.gelu, aten.gelu_, aten.silu, aten.silu_),
    *(aten.celu, aten.celu_, aten.mish, aten.mish_, aten.hardswish, aten.hardswish_, aten.softplus),
    *(aten.threshold, aten.threshold_),
    *(aten.clamp_min, aten.clamp_min_, aten.clamp, aten.clamp_, aten.glu),
)
# of what they are given, only the shape is taken
_SHAPE_ALONE = (
    *(aten.zeros_like, aten.ones_like, aten.empty_like, aten.full_like, aten.rand_like, aten.randn_like),
    *(aten.randint_like, aten.new_zeros, aten.new_ones, aten.new_empty, aten.new_full),
)
# written out in elementary operations, so that only the module says what they are
_WRITTEN_OUT = ("NewGELUActivation", "FastGELUActivation", "QuickGELUActivation", "AccurateGELUActivation")


class _Node:
    """A result of the forward pass: what it was computed from, and which activation it is, if any."""

    __slots__ = ("activation", "parents")

    def __init__(self, parents: set[_Node], activation: int | None = None) -> None:
        self.parents, self.activation = parents, activation


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type its modes
    """Sees every operation of a forward pass: hands on pre-activations, and remembers what came from what.

    see  is given each activation's pre-activations, in order of the pass

    Where a value came from is kept by the memory it lies in: a result written into part of a buffer belongs to all of
    it. Values that leave PyTorch and come back (`item`, NumPy) are lost from sight.
    """

    def __init__(self, see: Callable[[int, Tensor], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see, self._seen, self._inside = see, 0, 0
        self._from: dict[int, _Node] = {}

    @property
    def seen(self) -> int:
        """Activations so far."""
        return self._seen

    def reached(self, found: list[Tensor]) -> set[int]:
        """The activations that the outputs were computed from."""
        todo = [node for tensor in found if (node := self._from.get(_memory(tensor))) is not None]
        known, reached = set(todo), set()
        while todo:
            node = todo.pop()
            if node.activation is not None:
                reached.add(node.activation)
            new = node.parents - known
            known |= new
            todo.extend(new)
        return reached

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        activation = None
        if not self._inside and func.overloadpacket in _RECTIFIERS:
            before = _pre_activation(func, args, kwargs)
            activation = None if before is None else self._handed_on(before)
        found = func(*args, **kwargs)
        self._remember(func, args, kwargs, found, activation)
        return found

    def _handed_on(self, before: Tensor) -> int:
        self._see(self._seen, before)
        self._seen += 1
        return self._seen - 1

    def _remember(self, func: Any, args: Any, kwargs: Any, found: Any, activation: int | None) -> None:
        inputs = [] if func.overloadpacket in _SHAPE_ALONE else _tensors((*args, *kwargs.values()))
        places = [_memory(tensor) for tensor in inputs]
        parents = {self._from[place] for place in places if place in self._from}
        node = _Node(parents, activation)
        if func._schema.is_mutable:
            given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
            for argument in func._schema.arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    for tensor in _tensors((given.get(argument.name),)):
                        self._from[_memory(tensor)] = node
        for tensor in _tensors((found,)):
            place = _memory(tensor)
            if func.overloadpacket is aten.lift_fresh:
                self._from.pop(place, None)  # from outside of torch, in memory that another tensor may have left
            elif place not in places:  # else a view, or written above
                self._from[place] = node

    @contextmanager
    def modules(self, model: nn.Module) -> Iterator[None]:
        """Also see the activations of a model that are modules written out in elementary operations."""

        def before(module: nn.Module, given: tuple[Any, ...]) -> None:
            self._inside += 1
            if self._inside == 1:
                self._handed_on(given[0])

        def after(module: nn.Module, given: tuple[Any, ...], found: Tensor) -> None:
            self._inside -= 1
            if not self._inside:
                parent = self._from.get(_memory(found))
                self._from[_memory(found)] = _Node(set() if parent is None else {parent}, self._seen - 1)

        with ExitStack() as stack:
            for module in model.modules():
                if type(module).__name__ in _WRITTEN_OUT and type(module).__module__ == "transformers.activations":
                    stack.callback(module.register_forward_pre_hook(before).remove)
                    stack.callback(module.register_forward_hook(after).remove)
            yield


def _pre_activation(func: Any, args: Any, kwargs: Any) -> Tensor | None:
    """What the sign is taken of; None for a clamp that does not rectify."""
    packet = func.overloadpacket
    before: Tensor = args[0]
    if packet in (aten.clamp, aten.clamp_, aten.clamp_min, aten.clamp_min_):
        least = args[1] if len(args) > 1 else kwargs.get("min")
        return before if isinstance(least, int | float) and least == 0 and before.is_floating_point() else None
    if packet in (aten.threshold, aten.threshold_):
        excess: Tensor = before - args[1]
        return excess
    if packet is aten.glu:
        return before.chunk(2, args[1] if len(args) > 1 else -1)[1]  # the half that gates
    return before


def _tensors(values: Any) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value))
    return found


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
