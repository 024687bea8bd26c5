"""Language models: GPT-NeoX decoders of chosen depth, width, heads and feed-forward width, under a parameter budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import product
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from shoestring.models import presets

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_FORM = "layers=4,width=128,heads=4,inner=512"
_LEAST_HEAD = 8  # a quarter of a head is rotated, in pairs


@dataclass(frozen=True)
class Decoder:
    """One architecture: layers, width of the residual stream, attention heads, width of the feed-forward part."""

    layers: int
    width: int
    heads: int
    inner: int


@dataclass(frozen=True)
class Decoders:
    """All decoders of the choices given whose heads fit their width and whose parameters are within the budget.

    vocabulary, length  of the model: tokens it knows, and tokens of its context
    ratios              feed-forward width as a multiple of the width
    max_parameters, min_parameters
                        all parameters, embedding and output layer included; the network is as of `configuration`
    A head is an even number of at least 8 wide; what does not divide so is left out. Raises ValueError where a choice
    is no positive number, or nothing is left: the message names the nearest sizes there are.
    """

    vocabulary: int
    length: int
    layers: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24)
    widths: tuple[int, ...] = (32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024)
    heads: tuple[int, ...] = (2, 4, 6, 8, 12, 16)
    ratios: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 6.0)
    max_parameters: int | None = None
    min_parameters: int | None = None

    def __post_init__(self) -> None:
        for name in ("layers", "widths", "heads", "ratios"):
            choices = getattr(self, name)
            if not choices or not all(0 < choice < float("inf") for choice in choices):
                raise ValueError(f"{name} to choose from are {choices}: expected one or more positive numbers")
        for name in ("vocabulary", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected one or more")
        least, most = self.min_parameters, self.max_parameters
        if least is not None and most is not None and least > most:
            raise ValueError(f"expected min_parameters={least} of at most max_parameters={most}")
        if not self.members:
            raise ValueError(_empty(self))

    @property
    def name(self) -> str:
        return "decoder"

    @property
    def members(self) -> tuple[Decoder, ...]:
        """All of them, in the order of the choices."""
        return _members(self).rows

    def draw(self, random: Random) -> Decoder:
        return random.choice(self.members)

    def mutate(self, architecture: Decoder, random: Random) -> Decoder:
        """One random choice, to a different one. Raises ValueError where the budget leaves no neighbour."""
        near = list(self.neighbours(architecture))
        if not near:
            text = self.encode(architecture)
            raise ValueError(f"{text} has no neighbour within the budget: widen the budget, or give more choices")
        return random.choice(near)

    def neighbours(self, architecture: Decoder) -> Iterator[Decoder]:
        """All of the space that differ in one choice; another width takes the feed-forward part along."""
        width, inner = architecture.width, architecture.inner
        own = [ratio for ratio in self.ratios if _inner(width, ratio) == inner]
        changed = [
            *(replace(architecture, layers=layers) for layers in self.layers),
            *(Decoder(architecture.layers, w, architecture.heads, _inner(w, r)) for w in self.widths for r in own),
            *(replace(architecture, heads=heads) for heads in self.heads),
            *(replace(architecture, inner=_inner(width, ratio)) for ratio in self.ratios),
        ]
        known = _members(self).known
        yield from (other for other in dict.fromkeys(changed) if other != architecture and other in known)

    def encode(self, architecture: Decoder) -> str:
        return ",".join(f"{field.name}={getattr(architecture, field.name)}" for field in fields(Decoder))

    def decode(self, text: str) -> Decoder:
        """The decoder of a text, be it one of this space's choices or not."""
        names = [field.name for field in fields(Decoder)]
        parts = [part.partition("=") for part in text.strip().split(",")]
        if [name.strip() for name, _, _ in parts] != names:
            raise ValueError(f"{text!r}: a decoder is written {_FORM}, with these four in this order")
        for name, _, value in parts:
            if not (value.strip().isascii() and value.strip().isdigit() and int(value) > 0):
                raise ValueError(f"{text!r}: {name.strip()} is {value.strip()!r}: expected a positive whole number")
        found = Decoder(*(int(value) for _, _, value in parts))
        if not _heads_fit(found.width, found.heads):
            raise ValueError(
                f"{text!r}: {found.heads} heads do not fit a width of {found.width}: expected a width that they divide "
                f"into heads of an even number of at least {_LEAST_HEAD}"
            )
        return found

    def configuration(self, architecture: Decoder) -> PretrainedConfig:
        """The Hugging Face configuration, GPT-NeoX as in Pythia: rotary, parallel, untied."""
        return presets.configuration(
            "neox-tiny",
            self.vocabulary,
            self.length,
            num_hidden_layers=architecture.layers,
            hidden_size=architecture.width,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.inner,
        )

    def parameters(self, architecture: Decoder) -> int:
        """All its parameters, counted without building it."""
        return presets.parameters(self.configuration(architecture))

    def build(self, architecture: Decoder, seed: int) -> nn.Module:
        model: nn.Module = presets.build(self.configuration(architecture), seed)
        return model


def _inner(width: int, ratio: float) -> int:
    return max(1, round(ratio * width))


def _heads_fit(width: int, heads: int) -> bool:
    head, rest = divmod(width, heads)
    return rest == 0 and head % 2 == 0 and head >= _LEAST_HEAD


@lru_cache(maxsize=32)
def _counted(space: Decoders) -> dict[Decoder, int]:
    """The parameters of all decoders of the choices, whatever the budget."""
    # made once, as making one takes a hundred times as long as counting, and heads change no count
    config = presets.configuration("neox-tiny", space.vocabulary, space.length)
    found: dict[Decoder, int] = {}
    for layers, width, ratio in product(space.layers, space.widths, space.ratios):
        inner = _inner(width, ratio)
        config.num_hidden_layers, config.hidden_size, config.intermediate_size = layers, width, inner
        count = presets.parameters(config)
        for heads in space.heads:
            if _heads_fit(width, heads):
                found[Decoder(layers, width, heads, inner)] = count
    return found


class _Members(NamedTuple):
    rows: tuple[Decoder, ...]
    known: frozenset[Decoder]


@lru_cache(maxsize=32)
def _members(space: Decoders) -> _Members:
    """The decoders within the budget, in the order of the choices. Kept here, so that a space is small to send."""
    least = 0 if space.min_parameters is None else space.min_parameters
    most = float("inf") if space.max_parameters is None else space.max_parameters
    rows = tuple(decoder for decoder, count in _counted(space).items() if least <= count <= most)
    return _Members(rows, frozenset(rows))


def _empty(space: Decoders) -> str:
    counts = sorted(set(_counted(space).values()))
    if not counts:
        return f"no heads of {space.heads} divide a width of {space.widths} into even heads of at least {_LEAST_HEAD}"
    least, most = space.min_parameters, space.max_parameters
    where = f"a vocabulary of {space.vocabulary:,} and these choices"
    if most is not None and most < counts[0]:
        return f"no decoder has at most {most:,} parameters: with {where}, the least possible is {counts[0]:,}"
    if least is not None and least > counts[-1]:
        return f"no decoder has at least {least:,} parameters: with {where}, the most possible is {counts[-1]:,}"
    below = max(count for count in counts if least is not None and count < least)
    above = min(count for count in counts if most is not None and count > most)
    return f"no decoder has {least:,} to {most:,} parameters: with {where}, the nearest are {below:,} and {above:,}"
