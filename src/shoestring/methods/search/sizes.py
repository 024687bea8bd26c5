"""The size space of NATS-Bench: one cell, and the channels of five layers to choose.

B images, C channels, S pixels a side
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

CHANNELS = (8, 16, 24, 32, 40, 48, 56, 64)
LAYERS = 5  # cell, reduction, cell, reduction, cell

Widths = tuple[int, ...]  # five of CHANNELS, of what each layer puts out


@dataclass(frozen=True)
class Sizes:
    """The size space of NATS-Bench: 8^5 = 32,768 networks, written as 8:16:24:32:40.

    classes  10 or 100 for CIFAR, 120 for ImageNet16-120: the stem is the same, only the images are smaller

    Dong et al. 2021; the network is the one their table was trained with. Its cell has 3x3 convolutions on all edges
    but the one from input to output, which passes on: as NAS-Bench-201 writes it,
    |nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|.
    """

    classes: int = 10

    @property
    def name(self) -> str:
        return "sizes"

    def draw(self, random: Random) -> Widths:
        return tuple(random.choice(CHANNELS) for _ in range(LAYERS))

    def mutate(self, architecture: Widths, random: Random) -> Widths:
        """One random layer, to a different width."""
        return random.choice(list(self.neighbours(architecture)))

    def neighbours(self, architecture: Widths) -> Iterator[Widths]:
        for layer, present in enumerate(architecture):
            for width in CHANNELS:
                if width != present:
                    yield (*architecture[:layer], width, *architecture[layer + 1 :])

    def encode(self, architecture: Widths) -> str:
        return ":".join(map(str, architecture))

    def decode(self, text: str) -> Widths:
        parts = text.strip().split(":")
        if len(parts) != LAYERS:
            raise ValueError(f"{text!r}: {len(parts)} widths: expected {LAYERS}, as in 8:16:24:32:40")
        widths = {str(width): width for width in CHANNELS}
        for layer, part in enumerate(parts):
            if part not in widths:
                raise ValueError(f"{text!r}: layer {layer} has {part!r} channels: expected one of {', '.join(widths)}")
        return tuple(widths[part] for part in parts)

    def build(self, architecture: Widths, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return Network(architecture, self.classes)


class Network(nn.Module):
    """Stem, three cells with a residual reduction between two, pooled into one linear layer."""

    def __init__(self, widths: Widths, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]))
        insides = (widths[0], *widths)
        self.body = nn.Sequential(
            *((_Reduction if layer % 2 else _Cell)(insides[layer], widths[layer]) for layer in range(LAYERS))
        )
        self.last = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU())
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, S, S)."""
        found: Tensor = self.last(self.body(self.stem(images)))  # (B, C of the last layer, S/4, S/4)
        logits: Tensor = self.classifier(found.mean((2, 3)))
        return logits


class _Cell(nn.Module):
    """Nodes 0 to 3, an operation from each to each later one; those that leave the input change the channels."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.edge01 = _convolution(inside, outside)
        self.edge02 = _convolution(inside, outside)
        self.edge12 = _convolution(outside, outside)
        self.edge13 = _convolution(outside, outside)
        self.edge23 = _convolution(outside, outside)
        # the table's code has no ReLU before this convolution
        change = nn.Sequential(nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))
        self.edge03 = nn.Identity() if inside == outside else change

    def forward(self, images: Tensor) -> Tensor:
        first = self.edge01(images)
        second = self.edge02(images) + self.edge12(first)
        third: Tensor = self.edge03(images) + self.edge13(first) + self.edge23(second)
        return third


class _Reduction(nn.Module):
    """Half the side, with a shortcut."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.long = nn.Sequential(_convolution(inside, outside, stride=2), _convolution(outside, outside))
        self.short = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inside, outside, 1, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.long(images) + self.short(images)
        return total


def _convolution(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outside))
