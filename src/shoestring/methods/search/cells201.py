"""NAS-Bench-201: cells of four nodes, each of six edges one of five operations, in a network of fifteen cells.

B images, C channels, S pixels a side
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
_INCOMING = ((0,), (1, 2), (3, 4, 5))  # edges of EDGES into node 1, 2, 3

Cell = tuple[str, ...]  # six operations, in the order of EDGES


@dataclass(frozen=True)
class Cells201:
    """The topology space of NAS-Bench-201 and NATS-Bench: 5^6 = 15,625 cells.

    channels  of the first stage; they double twice
    cells     a stage
    classes   10 or 100 for CIFAR, 120 for ImageNet16-120: the stem is the same, only the images are smaller

    Dong and Yang 2020, section 2; the network is the one their tables were trained with, but that edges on no way from
    a cell's input to its output are not computed: there, those fed nothing but zeros could learn to add a constant.
    """

    channels: int = 16
    cells: int = 5
    classes: int = 10

    @property
    def name(self) -> str:
        return "nas-bench-201"

    def draw(self, random: Random) -> Cell:
        return tuple(random.choice(OPERATIONS) for _ in EDGES)

    def mutate(self, architecture: Cell, random: Random) -> Cell:
        """One random edge, to a different operation."""
        edge = random.randrange(len(EDGES))
        others = [operation for operation in OPERATIONS if operation != architecture[edge]]
        return (*architecture[:edge], random.choice(others), *architecture[edge + 1 :])

    def neighbours(self, architecture: Cell) -> Iterator[Cell]:
        for edge, present in enumerate(architecture):
            for operation in OPERATIONS:
                if operation != present:
                    yield (*architecture[:edge], operation, *architecture[edge + 1 :])

    def encode(self, architecture: Cell) -> str:
        parts = ("|".join(f"{architecture[edge]}~{EDGES[edge][0]}" for edge in edges) for edges in _INCOMING)
        return "+".join(f"|{part}|" for part in parts)

    def decode(self, text: str) -> Cell:
        form = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
        nodes = text.strip().split("+")
        if len(nodes) != len(_INCOMING):
            raise ValueError(f"{text!r}: a NAS-Bench-201 cell is written {form}, with 3 nodes, not {len(nodes)}")
        found: list[str] = []
        for node, (written, edges) in enumerate(zip(nodes, _INCOMING, strict=True), start=1):
            parts = written[1:-1].split("|")
            if not (written.startswith("|") and written.endswith("|")) or len(parts) != len(edges):
                raise ValueError(f"{text!r}: node {node} is {written!r}: expected {len(edges)} edges, as in {form}")
            for part, edge in zip(parts, edges, strict=True):
                operation, _, source = part.partition("~")
                if operation not in OPERATIONS:
                    raise ValueError(f"{text!r}: no operation {operation!r}: expected one of {', '.join(OPERATIONS)}")
                if source != str(EDGES[edge][0]):
                    raise ValueError(f"{text!r}: {part!r} in node {node}: expected the source ~{EDGES[edge][0]}")
                found.append(operation)
        return tuple(found)

    def build(self, architecture: Cell, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return Network(architecture, self.channels, self.cells, self.classes)


def stripped(architecture: Cell) -> Cell:
    """The cell with `none` on each edge that is not computed: its network computes the same, without idle weights."""
    computed = _computed(architecture)
    return tuple(operation if edge in computed else "none" for edge, operation in enumerate(architecture))


def canonical(architecture: Cell, linear: bool = False) -> str:
    """A text that cells share whose networks can compute the same functions, up to the order of a sum, or nearly so.

    Dropped are edges that carry nothing and nodes that reach no output; a node that only passes another on is that one;
    one convolution used twice is written as two are, so that cells of equal texts may differ in size.

    linear  also takes apart the pooling of a sum, which changes rounding alone
    """
    nodes = ["x"]
    for edges in _INCOMING:
        terms: list[str] = []
        for edge in edges:
            source, operation = nodes[EDGES[edge][0]], architecture[edge]
            if operation == "none" or not source:
                continue
            if operation == "skip_connect":
                terms += _terms(source)
            elif linear and operation == "avg_pool_3x3":
                terms += [f"{operation}({term})" for term in _terms(source)]
            else:
                terms.append(f"{operation}({source})")
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def _terms(text: str) -> list[str]:
    """The terms of a sum, those in brackets left whole."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and depth == 0:
            found.append(text[start:place])
            start = place + 1
    return [*found, text[start:]]


class Network(nn.Module):
    """Stem, three stages of cells with a residual reduction between them, pooled into one linear layer."""

    def __init__(self, cell: Cell, channels: int, cells: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        body: list[nn.Module] = []
        for stage in range(3):
            wide = channels * 2**stage
            if stage:
                body.append(_Reduction(wide // 2, wide))
            body.extend(_Cell(cell, wide) for _ in range(cells))
        self.body = nn.Sequential(*body)
        self.last = nn.Sequential(nn.BatchNorm2d(wide), nn.ReLU())
        self.classifier = nn.Linear(wide, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, S, S)."""
        found: Tensor = self.last(self.body(self.stem(images)))  # (B, 4C, S/4, S/4)
        logits: Tensor = self.classifier(found.mean((2, 3)))
        return logits


class _Cell(nn.Module):
    def __init__(self, cell: Cell, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(_operation(name, channels) for name in cell)
        self.computed = _computed(cell)

    def forward(self, images: Tensor) -> Tensor:
        nodes = {0: images}
        for node, edges in enumerate(_INCOMING, start=1):
            for edge in edges:
                if edge in self.computed:
                    term = self.edges[edge](nodes[EDGES[edge][0]])
                    nodes[node] = nodes[node] + term if node in nodes else term
        return nodes[3] if 3 in nodes else torch.zeros_like(images)


def _computed(cell: Cell) -> set[int]:
    """The edges on a way from the input to the output; the others have weights, but are not computed."""
    carrying = [edge for edge, name in enumerate(cell) if name != "none"]
    fed, needed = {0}, {3}
    for edge in carrying:  # in the order of the nodes they lead into
        if EDGES[edge][0] in fed:
            fed.add(EDGES[edge][1])
    for edge in reversed(carrying):
        if EDGES[edge][1] in needed:
            needed.add(EDGES[edge][0])
    return {edge for edge in carrying if EDGES[edge][0] in fed and EDGES[edge][1] in needed}


def _operation(name: str, channels: int) -> nn.Module:
    if name == "nor_conv_1x1":
        return _convolution(channels, channels, 1)
    if name == "nor_conv_3x3":
        return _convolution(channels, channels, 3)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Identity()


def _convolution(inside: int, outside: int, side: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, side, stride, padding=side // 2, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(outside))


class _Reduction(nn.Module):
    """Half the side, twice the channels, with a shortcut."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.long = nn.Sequential(_convolution(inside, outside, 3, stride=2), _convolution(outside, outside, 3))
        self.short = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(inside, outside, 1, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.long(images) + self.short(images)
        return total
