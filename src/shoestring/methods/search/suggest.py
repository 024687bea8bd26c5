"""Spaces as Optuna sees them: named parameters of a trial, there and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, cast, runtime_checkable

from shoestring.methods.search import macro, sizes
from shoestring.methods.search.cells201 import EDGES, OPERATIONS, Cell, Cells201
from shoestring.methods.search.decoders import Decoder, Decoders, _members
from shoestring.methods.search.latency import Within
from shoestring.methods.search.listed import Listed
from shoestring.methods.search.macro import Macro
from shoestring.methods.search.sizes import Sizes
from shoestring.methods.search.space import Space

if TYPE_CHECKING:
    from optuna import Trial

A = TypeVar("A")
Parameters = dict[str, str | int | float]


@runtime_checkable
class Suggests(Protocol[A]):
    """How Optuna draws an architecture. A space of your own may have these two itself."""

    def suggest(self, trial: Trial) -> A:
        """The architecture that the trial's parameters name. May raise TrialPruned, saying why."""

    def parameters(self, architecture: A) -> Parameters:
        """Those that `suggest` would make it from."""


def suggests(space: Space[A]) -> Suggests[A]:
    """How Optuna draws from a space. Raises ValueError where it is none that is known, and has no way of its own."""
    known: object = space
    found: object = None
    if isinstance(known, Suggests):
        found = known
    elif isinstance(known, Cells201):
        found = Edges()
    elif isinstance(known, Macro):
        found = Layered(tuple(range(len(macro.BLOCKS))), macro.LAYERS)
    elif isinstance(known, Sizes):
        found = Layered(sizes.CHANNELS, sizes.LAYERS)
    elif isinstance(known, Decoders):
        found = Shapes(known)
    elif isinstance(known, Listed):
        found = Only(suggests(known.space), known.__contains__, f"is not in {known.table.source}")
    elif isinstance(known, Within):
        found = Only(suggests(known.space), partial(_fast, known), f"takes more than {1000 * known.limit:g} ms")
    if found is None:
        raise ValueError(
            f"Optuna cannot draw from the space {space.name}: expected nas-bench-201, "
            "nas-bench-macro, sizes, decoder, or a space with the methods of `Suggests`"
        )
    return cast("Suggests[A]", found)


def _fast(space: Within[A], architecture: A) -> bool:
    return space.seconds(architecture) <= space.limit


class Edges:
    """NAS-Bench-201: an operation for each of six edges."""

    def suggest(self, trial: Trial) -> Cell:
        return tuple(trial.suggest_categorical(name, OPERATIONS) for name in _EDGES)

    def parameters(self, architecture: Cell) -> Parameters:
        return dict(zip(_EDGES, architecture, strict=True))


_EDGES = tuple(f"edge {source} to {target}" for source, target in EDGES)


@dataclass(frozen=True)
class Layered:
    """A choice for each of some layers: the blocks of NAS-Bench-Macro, the channels of the size space."""

    choices: tuple[int, ...]
    layers: int

    def suggest(self, trial: Trial) -> tuple[int, ...]:
        return tuple(trial.suggest_categorical(f"layer {layer}", self.choices) for layer in range(self.layers))

    def parameters(self, architecture: tuple[int, ...]) -> Parameters:
        return {f"layer {layer}": choice for layer, choice in enumerate(architecture)}


@dataclass(frozen=True)
class Shapes:
    """Decoders: layers, width, heads and feed-forward ratio as numbers, so that Optuna knows which are near.

    What is no member of the space, or beyond its budget, is moved to the nearest member, by the ratios of the four.
    """

    space: Decoders

    def suggest(self, trial: Trial) -> Decoder:
        space = self.space
        wanted = (
            trial.suggest_int("layers", min(space.layers), max(space.layers), log=True),
            trial.suggest_int("width", min(space.widths), max(space.widths), log=True),
            trial.suggest_int("heads", min(space.heads), max(space.heads), log=True),
            trial.suggest_float("ratio", min(space.ratios), max(space.ratios), log=True),
        )
        return min(_members(space).rows, key=lambda decoder: _distance(_numbers(decoder), wanted))

    def parameters(self, architecture: Decoder) -> Parameters:
        layers, width, heads, ratio = _numbers(architecture)
        ratio = min(max(ratio, min(self.space.ratios)), max(self.space.ratios))  # a rounded one may be just outside
        return {"layers": layers, "width": width, "heads": heads, "ratio": ratio}


def _numbers(decoder: Decoder) -> tuple[int, int, int, float]:
    return decoder.layers, decoder.width, decoder.heads, decoder.inner / decoder.width


def _distance(one: tuple[int, int, int, float], other: tuple[int, int, int, float]) -> float:
    return sum(math.log(mine / yours) ** 2 for mine, yours in zip(one, other, strict=True))


@dataclass(frozen=True)
class Only(Generic[A]):
    """Of what is suggested, that which is allowed: all else is pruned before anything is paid for it."""

    inner: Suggests[A]
    allowed: Callable[[A], bool]
    reason: str

    def suggest(self, trial: Trial) -> A:
        from optuna import TrialPruned

        found = self.inner.suggest(trial)
        if not self.allowed(found):
            raise TrialPruned(self.reason)
        return found

    def parameters(self, architecture: A) -> Parameters:
        return self.inner.parameters(architecture)
