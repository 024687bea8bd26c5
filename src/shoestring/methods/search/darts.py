"""Cells as DARTS and NDS write them: a normal and a reduction cell, four nodes each, two operations a node.

B images, C channels, S pixels a side
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NODES = 4  # a cell; 0 and 1 are the outputs of the two cells before, 2 to 5 the nodes
_FORM = "|op~0|op~1|+|op~0|op~2|+|op~1|op~3|+|op~0|op~4|;|op~0|op~1|+…, the normal cell and the reduction cell"

Edge = tuple[int, str]  # the source, and the operation on it
Cell = tuple[tuple[Edge, Edge], ...]  # of each node its two edges, in order


class Genotype(NamedTuple):
    """Both cells of a network."""

    normal: Cell
    reduction: Cell


@dataclass(frozen=True)
class Darts:
    """The cells of the DARTS space, as NDS holds them: each node adds two operations on two of the nodes before it.

    channels  of a node in the first third of the network; they double at one third and at two thirds, in the reduction
              cells, which halve the image
    cells     of the network, reduction cells among them

    Liu et al. 2019 (DARTS); the network is the one of their evaluation on CIFAR-10, whose channels and cells are the
    defaults, without drop path and without the auxiliary head. NDS is Radosavovic et al. 2019. As there, an operation
    may be `none`, which DARTS itself ends without. Ours: the two sources of a node are drawn apart and may be the same.
    """

    channels: int = 36
    cells: int = 20
    classes: int = 10

    @property
    def name(self) -> str:
        return "darts"

    def draw(self, random: Random) -> Genotype:
        """Uniform over what may be written, where the two operations of a node have an order."""

        def edge(node: int) -> Edge:
            return random.randrange(node + 2), random.choice(OPERATIONS)

        def cell() -> Cell:
            return tuple(_ordered(edge(node), edge(node)) for node in range(NODES))

        return Genotype(cell(), cell())

    def mutate(self, architecture: Genotype, random: Random) -> Genotype:
        """One operation or one source, to a different one."""
        return random.choice(list(self.neighbours(architecture)))

    def neighbours(self, architecture: Genotype) -> Iterator[Genotype]:
        seen = {architecture}
        for which, node, place in product(range(2), range(NODES), range(2)):
            cell = architecture[which]
            kept, (source, operation) = cell[node][1 - place], cell[node][place]
            changes = [(source, other) for other in OPERATIONS] + [(other, operation) for other in range(node + 2)]
            for change in changes:
                changed = (*cell[:node], _ordered(kept, change), *cell[node + 1 :])
                found = architecture._replace(reduction=changed) if which else architecture._replace(normal=changed)
                if found not in seen:
                    seen.add(found)
                    yield found

    def encode(self, architecture: Genotype) -> str:
        """Nodes joined by +, in each the operations with their sources, the cells by a semicolon: |op~0|op~1|+…;…"""
        nodes = ([f"{operation}~{source}" for source, operation in node] for cell in architecture for node in cell)
        written = [f"|{'|'.join(node)}|" for node in nodes]
        return f"{'+'.join(written[:NODES])};{'+'.join(written[NODES:])}"

    def decode(self, text: str) -> Genotype:
        """The cells; the two operations of a node may come in either order."""
        parts = text.strip().split(";")
        if len(parts) != 2:
            raise ValueError(f"{text!r}: a DARTS genotype is written {_FORM}")
        normal, reduction = (
            _decoded(text, which, part) for which, part in zip(("normal", "reduction"), parts, strict=True)
        )
        return Genotype(normal, reduction)

    def build(self, architecture: Genotype, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return Network(architecture, self.channels, self.cells, self.classes)


def _ordered(one: Edge, other: Edge) -> tuple[Edge, Edge]:
    return (one, other) if one <= other else (other, one)


def _decoded(text: str, which: str, written: str) -> Cell:
    nodes = written.split("+")
    if len(nodes) != NODES:
        raise ValueError(f"{text!r}: the {which} cell has {len(nodes)} nodes: expected {NODES}, as in {_FORM}")
    found = []
    for node, part in enumerate(nodes):
        edges = part[1:-1].split("|")
        if not (part.startswith("|") and part.endswith("|")) or len(edges) != 2:
            raise ValueError(f"{text!r}: node {node} of the {which} cell is {part!r}: expected |op~source|op~source|")
        found.append(_ordered(_edge(text, node, edges[0]), _edge(text, node, edges[1])))
    return tuple(found)


def _edge(text: str, node: int, written: str) -> Edge:
    operation, _, source = written.partition("~")
    if operation not in OPERATIONS:
        raise ValueError(f"{text!r}: no operation {operation!r}: expected one of {', '.join(OPERATIONS)}")
    if source not in [str(place) for place in range(node + 2)]:
        raise ValueError(f"{text!r}: {written!r} in node {node}: expected a source of ~0 to ~{node + 1}")
    return int(source), operation


class Network(nn.Module):
    """Stem and cells, each fed by the two before it, pooled into one linear layer."""

    def __init__(self, genotype: Genotype, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        before = last = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(3, last, 3, padding=1, bias=False), nn.BatchNorm2d(last))
        self.cells = nn.ModuleList()
        halved = False
        for cell in range(cells):
            halves = cell in (cells // 3, 2 * cells // 3)
            channels *= 2 if halves else 1
            self.cells.append(_Cell(genotype, before, last, channels, halves, halved))
            before, last, halved = last, NODES * channels, halves
        self.classifier = nn.Linear(last, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, S, S), S a multiple of four."""
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last)
        logits: Tensor = self.classifier(last.mean((2, 3)))
        return logits


class _Cell(nn.Module):
    """before, last  channels of the two cells before. halves: it is a reduction cell; halved: the one before it was."""

    def __init__(self, genotype: Genotype, before: int, last: int, channels: int, halves: bool, halved: bool) -> None:
        super().__init__()
        self.first = _Shrink(before, channels) if halved else _convolution(before, channels)
        self.second = _convolution(last, channels)
        nodes = genotype.reduction if halves else genotype.normal
        self.sources = [[source for source, _ in node] for node in nodes]
        self.operations = nn.ModuleList(
            nn.ModuleList(_operation(name, channels, 2 if halves and source < 2 else 1) for source, name in node)
            for node in nodes
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        nodes = [self.first(before), self.second(last)]
        for (one, other), operations in zip(self.sources, self.operations, strict=True):
            assert isinstance(operations, nn.ModuleList)
            nodes.append(operations[0](nodes[one]) + operations[1](nodes[other]))
        return torch.cat(nodes[2:], dim=1)


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    if name == "none":
        return _Nothing(stride)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else _Shrink(channels, channels)
    side = int(name[-1])
    if name.startswith("dil"):
        return _separable(channels, side, stride, dilation=2)
    return nn.Sequential(_separable(channels, side, stride), _separable(channels, side, 1))


def _separable(channels: int, side: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """ReLU, a convolution of each channel by itself, one of all channels at each pixel, and a norm."""
    padding = dilation * (side // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, side, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    )


def _convolution(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside))


class _Nothing(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros_like(images[:, :, :: self.stride, :: self.stride])


class _Shrink(nn.Module):
    """Half the side: one half of the channels from pixels at even places, the other from those at odd ones."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(inside, outside // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inside, outside - outside // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outside)

    def forward(self, images: Tensor) -> Tensor:
        positive = self.relu(images)
        found: Tensor = self.norm(torch.cat([self.even(positive), self.odd(positive[:, :, 1:, 1:])], dim=1))
        return found
