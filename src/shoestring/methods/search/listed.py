"""A space cut down to the architectures of a table."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Generic, TypeVar

from torch import nn

from shoestring.methods.search.space import Space
from shoestring.methods.search.table import Table

A = TypeVar("A")
_TRIES = 100


class Listed(Generic[A]):
    """Those architectures of a space that a table holds, for searches that look their trainings up.

    A table may hold part of its space: draws are uniform over its rows, and a mutation that falls outside is drawn
    again. A search then walks a graph with holes, which is not the whole space's: say so beside its figures.
    Raises ValueError where the table holds what is none of the space.
    """

    def __init__(self, space: Space[A], table: Table) -> None:
        self.space, self.table = space, table
        self._all = [space.decode(text) for text, _ in table]
        self._listed = set(self._all)

    @property
    def name(self) -> str:
        return self.space.name

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[A]:
        return iter(self._all)

    def __contains__(self, architecture: object) -> bool:
        return architecture in self._listed

    def draw(self, random: Random) -> A:
        return random.choice(self._all)

    def mutate(self, architecture: A, random: Random) -> A:
        """Raises ValueError where the table holds none of the neighbours."""
        for _ in range(_TRIES):
            found = self.space.mutate(architecture, random)
            if found in self._listed:
                return found
        left = list(self.neighbours(architecture))
        if not left:
            text = self.encode(architecture)
            raise ValueError(f"{self.table.source}: holds no neighbour of {text}: a search cannot go on from there")
        return random.choice(left)

    def neighbours(self, architecture: A) -> Iterator[A]:
        return (found for found in self.space.neighbours(architecture) if found in self._listed)

    def encode(self, architecture: A) -> str:
        return self.space.encode(architecture)

    def decode(self, text: str) -> A:
        found = self.space.decode(text)
        if found not in self._listed:
            raise ValueError(f"{text!r}: is not in {self.table.source}: expected one of its {len(self)} architectures")
        return found

    def build(self, architecture: A, seed: int) -> nn.Module:
        return self.space.build(architecture, seed)
