"""NAS-Bench-101: cells that are graphs of up to seven nodes and nine edges, in a network of nine cells.

B images, C channels, S pixels a side, V nodes of a graph: node 0 is the cell's input, node V - 1 its output
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, permutations
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, nn

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
NODES, EDGES = 7, 9  # at most, input and output among the nodes
_FORM = (
    "110.01.1;input,op,op,output: of each node but the last, 1 where it feeds a later one; then the nodes' operations"
)

Matrix = tuple[tuple[int, ...], ...]


class Graph(NamedTuple):
    """A cell, all of whose nodes lie between its input and its output.

    matrix      (V, V): 1 where the row's node feeds the column's; only above the diagonal
    operations  (V - 2): those of the nodes between input and output
    """

    matrix: Matrix
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Cells101:
    """The space of NAS-Bench-101: graphs with a 3x3 convolution, a 1x1 convolution or a 3x3 maximum at each inner node.

    channels  of the stem and the first stack; they double with each stack after it. 5 or more
    stacks    with a halving of the image between two
    modules   cells a stack
    Graphs that differ in the order of their nodes alone are different here, since the first of the nodes that feed the
    output get the channels left over in the split; `canonical` tells whether two are the same but for that. The graph
    of input and output alone is decoded and built, but not drawn or walked to: no edge of it can be flipped.

    Ying et al. 2019; what the paper leaves open is as in the code that made its table.
    """

    channels: int = 128
    stacks: int = 3
    modules: int = 3
    classes: int = 10

    def __post_init__(self) -> None:
        if self.channels < NODES - 2:
            raise ValueError(f"channels is {self.channels}: expected {NODES - 2} or more, one for each inner node")

    @property
    def name(self) -> str:
        return "nas-bench-101"

    def draw(self, random: Random) -> Graph:
        """Uniform over the texts: a graph comes up as often as its nodes have orders."""
        sizes = range(3, NODES + 1)
        spaces = [sum(_counts(nodes)) * len(OPERATIONS) ** (nodes - 2) for nodes in sizes]
        while True:  # until nothing is pruned, which leaves the rest as likely as each other
            [nodes] = random.choices(sizes, spaces)
            [edges] = random.choices(range(EDGES + 1), _counts(nodes))
            chosen = set(random.sample(list(combinations(range(nodes), 2)), edges))
            rows = ([int((node, other) in chosen) for other in range(node + 1, nodes)] for node in range(nodes))
            operations = tuple(random.choice(OPERATIONS) for _ in range(nodes - 2))
            graph = _pruned(_square(rows), operations)
            if graph is not None and len(graph.matrix) == nodes:
                return graph

    def mutate(self, architecture: Graph, random: Random) -> Graph:
        """One edge there or not there, as in NASWOT's own search: no operation changes and no node comes to it.

        Uniform over the neighbours, where theirs is uniform over the edges that may be flipped. Raises ValueError for
        the graph of input and output alone.
        """
        found = list(self.neighbours(architecture))
        if not found:
            raise ValueError(f"{self.encode(architecture)!r} has no neighbours: expected a cell with an inner node")
        return random.choice(found)

    def neighbours(self, architecture: Graph) -> Iterator[Graph]:
        """One edge flipped, then pruned; those equal but for the order of their nodes once."""
        seen: set[str] = set()
        matrix, operations = architecture
        for source in range(len(matrix)):
            for target in range(source + 1, len(matrix)):
                row = list(matrix[source])
                row[target] = 1 - row[target]
                graph = _pruned((*matrix[:source], tuple(row), *matrix[source + 1 :]), operations)
                if graph is None or not _walked(graph):
                    continue
                text = canonical(graph)
                if text not in seen:
                    seen.add(text)
                    yield graph

    def encode(self, architecture: Graph) -> str:
        """One row a node without the zeros up to the diagonal, then the operations: 110.01.1;input,op,op,output."""
        rows = (row[source + 1 :] for source, row in enumerate(architecture.matrix[:-1]))
        written = ".".join("".join(map(str, row)) for row in rows)
        return f"{written};{','.join(('input', *architecture.operations, 'output'))}"

    def decode(self, text: str) -> Graph:
        """The graph, without the nodes that are on no way from input to output."""
        written, semicolon, names = text.strip().partition(";")
        operations = names.split(",")
        if not semicolon:
            raise ValueError(f"{text!r}: a NAS-Bench-101 cell is written {_FORM}")
        if not 2 <= len(operations) <= NODES:
            raise ValueError(f"{text!r}: {len(operations)} nodes: expected 2 to {NODES}, input and output among them")
        if (operations[0], operations[-1]) != ("input", "output"):
            raise ValueError(f"{text!r}: the nodes are {names!r}: expected input first and output last")
        for operation in operations[1:-1]:
            if operation not in OPERATIONS:
                raise ValueError(f"{text!r}: no operation {operation!r}: expected one of {', '.join(OPERATIONS)}")
        graph = _pruned(_square(_rows(text, written, len(operations))), tuple(operations[1:-1]))
        if graph is None:
            raise ValueError(f"{text!r}: no way leads from input to output: expected one at least")
        if _edges(graph) > EDGES:
            raise ValueError(f"{text!r}: {_edges(graph)} edges: expected {EDGES} at most")
        return graph

    def build(self, architecture: Graph, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return Network(architecture, self.channels, self.stacks, self.modules, self.classes)


def canonical(architecture: Graph) -> str:
    """A text that is equal for graphs that differ in the order of their nodes alone, and for no others."""
    matrix, operations = architecture
    last = len(matrix) - 1
    found = []
    for order in permutations(range(1, last)):
        places = (0, *order, last)  # places[node] of the old graph is at node of the new one
        rows = [[matrix[source][target] for target in places] for source in places]
        if not any(rows[source][target] for source in range(last + 1) for target in range(source)):
            found.append(Cells101().encode(Graph(tuple(map(tuple, rows)), tuple(operations[old - 1] for old in order))))
    return min(found)


def widths(matrix: Matrix, channels: int) -> tuple[int, ...]:
    """Channels of each inner node (V - 2) of a cell with `channels` at its output.

    Nodes that feed the output share them, the first taking one more each where they do not divide; others have the most
    of those they feed.
    """
    last = len(matrix) - 1
    feeding = [node for node in range(1, last) if matrix[node][last]]
    found: dict[int, int] = {}
    for node in range(last - 1, 0, -1):
        if node in feeding:
            share, left = divmod(channels, len(feeding))
            found[node] = share + (feeding.index(node) < left)
        else:
            found[node] = max(found[target] for target in range(node + 1, last) if matrix[node][target])
    return tuple(found[node] for node in range(1, last))


def _counts(nodes: int) -> list[int]:
    """How many sets of 0, 1, ... EDGES edges there are."""
    return [math.comb(math.comb(nodes, 2), edges) for edges in range(EDGES + 1)]


def _square(rows: Iterator[list[int]]) -> Matrix:
    return tuple((*[0] * (source + 1), *row) for source, row in enumerate(rows))


def _rows(text: str, written: str, nodes: int) -> Iterator[list[int]]:
    rows = written.split(".")
    if len(rows) != nodes - 1:
        raise ValueError(f"{text!r}: {len(rows)} rows of edges for {nodes} nodes: expected {nodes - 1}")
    for source, row in enumerate(rows):
        later = nodes - 1 - source
        if len(row) != later or not set(row) <= {"0", "1"}:
            raise ValueError(f"{text!r}: row {source} is {row!r}: expected {later} of 0 and 1, one a later node")
        yield [int(bit) for bit in row]
    yield []


def _pruned(matrix: Matrix, operations: tuple[str, ...]) -> Graph | None:
    """The graph without nodes on no way from input to output, None where there is no way."""
    last = len(matrix) - 1
    reached, reaching = {0}, {last}
    for node in range(1, last + 1):
        if any(matrix[source][node] for source in reached):
            reached.add(node)
    for node in range(last - 1, -1, -1):
        if any(matrix[node][target] for target in reaching):
            reaching.add(node)
    if last not in reached:
        return None
    kept = sorted(reached & reaching)
    rows = tuple(tuple(matrix[source][target] for target in kept) for source in kept)
    return Graph(rows, tuple(operations[node - 1] for node in kept[1:-1]))


def _edges(graph: Graph) -> int:
    return sum(map(sum, graph.matrix))


def _walked(graph: Graph) -> bool:
    return len(graph.operations) > 0 and _edges(graph) <= EDGES


class Network(nn.Module):
    """Stem and stacks of cells with a maximum over 2x2 between two stacks, pooled into one linear layer."""

    def __init__(self, graph: Graph, channels: int, stacks: int, modules: int, classes: int) -> None:
        super().__init__()
        body: list[nn.Module] = [_convolution(3, channels, 3)]
        inside = channels
        for stack in range(stacks):
            if stack:
                body.append(nn.MaxPool2d(2, 2))
            for _ in range(modules):
                body.append(_Cell(graph, inside, channels * 2**stack))
                inside = channels * 2**stack
        self.body = nn.Sequential(*body)
        self.classifier = nn.Linear(inside, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, S, S)."""
        logits: Tensor = self.classifier(self.body(images).mean((2, 3)))
        return logits


class _Cell(nn.Module):
    def __init__(self, graph: Graph, inside: int, outside: int) -> None:
        super().__init__()
        matrix, last = graph.matrix, len(graph.matrix) - 1
        self.widths = (inside, *widths(matrix, outside), outside)
        self.sources = [[source for source in range(1, node) if matrix[source][node]] for node in range(last + 1)]
        self.projections = nn.ModuleDict(
            {str(node): _convolution(inside, self.widths[node], 1) for node in range(1, last + 1) if matrix[0][node]}
        )
        self.operations = nn.ModuleList(
            _operation(name, width) for name, width in zip(graph.operations, self.widths[1:-1], strict=True)
        )

    def forward(self, images: Tensor) -> Tensor:
        nodes = [images]
        for node, operation in enumerate(self.operations, start=1):
            # a node may be one channel wider than one it feeds, which leaves the last one out
            terms = [nodes[source][:, : self.widths[node]] for source in self.sources[node]]
            nodes.append(operation(_sum([*terms, *self._projected(images, node)])))
        joined = [torch.cat([nodes[source] for source in self.sources[-1]], dim=1)] if self.sources[-1] else []
        return _sum([*joined, *self._projected(images, len(nodes))])

    def _projected(self, images: Tensor, node: int) -> list[Tensor]:
        return [self.projections[str(node)](images)] if str(node) in self.projections else []


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _operation(name: str, channels: int) -> nn.Module:
    if name == "maxpool3x3":
        return nn.MaxPool2d(3, stride=1, padding=1)
    return _convolution(channels, channels, 3 if name == "conv3x3-bn-relu" else 1)


def _convolution(inside: int, outside: int, side: int) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, side, padding=side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside, momentum=0.003), nn.ReLU())
