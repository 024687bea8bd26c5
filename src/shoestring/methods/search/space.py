"""What a search space offers, whatever its architectures are."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Protocol, TypeVar

from torch import nn

A = TypeVar("A")


class Space(Protocol[A]):
    """A set of architectures to draw from, walk in, and build. Architectures are hashable and say what is equal."""

    @property
    def name(self) -> str:
        """How the tools call it."""

    def draw(self, random: Random) -> A:
        """One architecture, uniformly as far as the space allows."""

    def mutate(self, architecture: A, random: Random) -> A:
        """One drawn from the neighbours, never the architecture itself."""

    def neighbours(self, architecture: A) -> Iterator[A]:
        """All that are one change away, each once."""

    def encode(self, architecture: A) -> str:
        """Its text: what tables and files hold."""

    def decode(self, text: str) -> A:
        """The architecture of a text. Raises ValueError saying what is wrong with it and what was expected."""

    def build(self, architecture: A, seed: int) -> nn.Module:
        """The untrained network: same seed, same weights; torch's own generator is left as it was."""
