"""NAS-Bench-Macro: eight layers in three stages, each of them one of three blocks.

B images, C channels, S pixels a side
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

BLOCKS = ("identity", "mb3-k3", "mb6-k5")  # what the digits 0, 1 and 2 stand for
_STAGES = (2, 3, 3)  # layers; the first of a stage halves the side and doubles the channels
_STEM, _HEAD = 32, 1280  # channels
LAYERS = sum(_STAGES)

Layers = tuple[int, ...]  # eight places in BLOCKS


@dataclass(frozen=True)
class Macro:
    """The space of NAS-Bench-Macro: 3^8 = 6,561 networks, written as eight digits of 0, 1 and 2.

    0 passes its input on, by a 1x1 convolution where the shape changes; 1 is an inverted bottleneck of three times the
    channels and a 3x3 depthwise convolution; 2 is one of six times the channels and 5x5.

    Su et al. 2021; the network is the one in the code that made their table, and has that table's parameters and
    multiply-adds.
    """

    classes: int = 10

    @property
    def name(self) -> str:
        return "nas-bench-macro"

    def draw(self, random: Random) -> Layers:
        return tuple(random.randrange(len(BLOCKS)) for _ in range(LAYERS))

    def mutate(self, architecture: Layers, random: Random) -> Layers:
        """One random layer, to a different block."""
        return random.choice(list(self.neighbours(architecture)))

    def neighbours(self, architecture: Layers) -> Iterator[Layers]:
        for layer, present in enumerate(architecture):
            for block in range(len(BLOCKS)):
                if block != present:
                    yield (*architecture[:layer], block, *architecture[layer + 1 :])

    def encode(self, architecture: Layers) -> str:
        return "".join(map(str, architecture))

    def decode(self, text: str) -> Layers:
        digits = text.strip()
        if len(digits) != LAYERS:
            raise ValueError(f"{text!r}: {len(digits)} layers: a NAS-Bench-Macro network is written as {LAYERS} digits")
        for layer, digit in enumerate(digits):
            if digit not in ("0", "1", "2"):
                meaning = ", ".join(f"{place} ({block})" for place, block in enumerate(BLOCKS))
                raise ValueError(f"{text!r}: layer {layer} is {digit!r}: expected one of {meaning}")
        return tuple(int(digit) for digit in digits)

    def build(self, architecture: Layers, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return Network(architecture, self.classes)


class Network(nn.Module):
    """Stem, three stages of blocks and a wide 1x1 convolution, pooled into one linear layer."""

    def __init__(self, layers: Layers, classes: int) -> None:
        super().__init__()
        body: list[nn.Module] = [_convolution(3, _STEM, 3), nn.ReLU()]
        channels, blocks = _STEM, iter(layers)
        for stage in _STAGES:
            for first in (layer == 0 for layer in range(stage)):
                body.append(_block(next(blocks), channels, 2 * channels if first else channels))
                channels *= 2 if first else 1
        body += [_convolution(channels, _HEAD, 1), nn.ReLU()]
        self.body = nn.Sequential(*body)
        self.classifier = nn.Linear(_HEAD, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, S, S)."""
        logits: Tensor = self.classifier(self.body(images).mean((2, 3)))
        return logits


def _block(block: int, inside: int, outside: int) -> nn.Module:
    """A layer; it halves the side where it changes the channels."""
    stride = 1 if inside == outside else 2
    if BLOCKS[block] == "identity":
        return nn.Identity() if stride == 1 else _convolution(inside, outside, 1, stride)
    expansion, side = (3, 3) if BLOCKS[block] == "mb3-k3" else (6, 5)
    return _Bottleneck(inside, outside, expansion, side, stride)


class _Bottleneck(nn.Module):
    """Wider by a 1x1 convolution, filtered channel by channel, narrower again; with a shortcut where shapes fit."""

    def __init__(self, inside: int, outside: int, expansion: int, side: int, stride: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.body = nn.Sequential(
            _convolution(inside, wide, 1),
            nn.ReLU(),
            _convolution(wide, wide, side, stride, groups=wide),
            nn.ReLU(),
            _convolution(wide, outside, 1),
        )
        self.shortcut = stride == 1

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.body(images)
        return found + images if self.shortcut else found


def _convolution(inside: int, outside: int, side: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, side, stride, padding=side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside))
