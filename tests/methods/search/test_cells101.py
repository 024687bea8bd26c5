"""Graphs of NAS-Bench-101: texts, pruning, the split of channels, what is the same graph, and the network."""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring.methods.search import cells101
from shoestring.methods.search.cells101 import OPERATIONS, Cells101, Graph, Matrix, canonical, widths

SPACE = Cells101()
SMALL = Cells101(channels=8, stacks=2, modules=1)
C3, C1, POOL = OPERATIONS
INCEPTION = f"111010.00001.0001.100.01.1;input,{C1},{C3},{C3},{C3},{POOL},output"
INCEPTION_AS_STORED = f"111100.00001.0001.001.10.1;input,{C3},{C1},{POOL},{C3},{C3},output"


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def matrix(*rows: str) -> Matrix:
    return tuple(tuple(int(bit) for bit in row) for row in rows)


def reordered(graph: Graph, order: tuple[int, ...]) -> Graph:
    """The graph with its inner nodes in another order, which may put edges below the diagonal."""
    places = (0, *order, len(graph.matrix) - 1)
    rows = tuple(tuple(graph.matrix[source][target] for target in places) for source in places)
    return Graph(rows, tuple(graph.operations[place - 1] for place in order))


def is_upper(graph: Graph) -> bool:
    return not any(graph.matrix[source][target] for source in range(len(graph.matrix)) for target in range(source + 1))


# by hand


def test_the_text_of_a_graph() -> None:
    graph = Graph(matrix("0110", "0001", "0001", "0000"), (C3, POOL))
    assert SPACE.encode(graph) == f"110.01.1;input,{C3},{POOL},output"
    assert SPACE.decode(f" 110.01.1;input,{C3},{POOL},output\n") == graph
    assert SPACE.decode("1;input,output") == Graph(matrix("01", "00"), ())


def test_nodes_on_no_way_from_input_to_output_are_cut() -> None:
    """Node 1 gets nothing, node 2 goes nowhere, node 3 is between."""
    graph = SPACE.decode(f"0110.011.00.1;input,{C1},{C1},{C3},output")
    assert graph == Graph(matrix("010", "001", "000"), (C3,))


def test_parameters_as_the_tables_own_notebook_prints_them() -> None:
    """2,694,282: NASBench.ipynb of https://github.com/google-research/nasbench, as asked for and as stored there."""
    for text in (INCEPTION, INCEPTION_AS_STORED):
        assert parameters(SPACE.build(SPACE.decode(text), 0)) == 2_694_282
    assert canonical(SPACE.decode(INCEPTION)) == canonical(SPACE.decode(INCEPTION_AS_STORED))


@pytest.mark.parametrize(
    ("rows", "channels", "expected"),
    [
        (("0100", "0010", "0001", "0000"), 16, (16, 16)),
        (("0110", "0001", "0001", "0000"), 8, (4, 4)),
        (("0110", "0001", "0001", "0000"), 15, (8, 7)),
        (("01110", "00001", "00001", "00001", "00000"), 8, (3, 3, 2)),
        (("01000", "00110", "00001", "00001", "00000"), 9, (5, 5, 4)),  # the first has the most of those it feeds
        (("01010", "00101", "00010", "00001", "00000"), 8, (4, 4, 4)),
        (("0101", "0011", "0001", "0000"), 8, (4, 4)),  # an edge from input to output is added, and takes no share
        (("01", "00"), 5, ()),
    ],
)
def test_the_split_of_channels(rows: tuple[str, ...], channels: int, expected: tuple[int, ...]) -> None:
    """Cases of model_builder_test.py of https://github.com/google-research/nasbench, and the last but one by hand."""
    assert widths(matrix(*rows), channels) == expected


def test_the_parameters_of_a_small_network() -> None:
    """Input to a 3x3 convolution to output, and by a projection straight to the output."""
    model = Cells101(channels=8, stacks=1, modules=1, classes=3).build(SPACE.decode(f"11.1;input,{C3},output"), 0)
    stem, projections, convolution, last = 3 * 9 * 8 + 16, 2 * (8 * 8 + 16), 9 * 8 * 8 + 16, 8 * 3 + 3
    assert parameters(model) == stem + projections + convolution + last


def test_the_smallest_graph_has_no_neighbours() -> None:
    bare = SPACE.decode("1;input,output")
    assert list(SPACE.neighbours(bare)) == []
    with pytest.raises(ValueError, match="'1;input,output' has no neighbours: expected a cell with an inner node"):
        SPACE.mutate(bare, Random(0))
    assert SMALL.build(bare, 0)(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_the_neighbours_of_a_chain() -> None:
    """Of its six edges, those of the chain are its only way, and the three others may come to it."""
    chain = SPACE.decode(f"100.10.1;input,{C3},{C1},output")
    found = {SPACE.encode(other) for other in SPACE.neighbours(chain)}
    assert found == {f"{rows};input,{C3},{C1},output" for rows in ("110.10.1", "101.10.1", "100.11.1")}


def test_what_an_edge_leaves_behind_is_cut() -> None:
    graph = SPACE.decode(f"110.01.1;input,{C3},{C1},output")
    found = {SPACE.encode(other) for other in SPACE.neighbours(graph)}
    assert {f"10.1;input,{C1},output", f"10.1;input,{C3},output"} <= found


def test_what_is_equal_but_for_the_order_of_nodes_is_a_neighbour_once() -> None:
    twins = SPACE.decode(f"110.01.1;input,{C3},{C3},output")
    found = list(SPACE.neighbours(twins))
    # one of the twins goes, or stays without its input or output: the same; they are joined; the input goes through
    assert len(found) == len({canonical(other) for other in found}) == 3


# against a slow obvious reference


def slow(graph: Graph, cell: nn.Module, images: Tensor) -> Tensor:
    """A cell node by node, as the paper says it."""
    square, last = graph.matrix, len(graph.matrix) - 1
    nodes = {0: images}
    for node in range(1, last):
        width = cell.widths[node]
        total = torch.zeros(len(images), width, *images.shape[2:])
        if square[0][node]:
            total = total + cell.projections[str(node)](images)
        for source in range(1, node):
            if square[source][node]:
                total = total + nodes[source][:, :width]
        nodes[node] = cell.operations[node - 1](total)
    parts = [nodes[source] for source in range(1, last) if square[source][last]]
    found = torch.cat(parts, dim=1) if parts else torch.zeros(len(images), cell.widths[-1], *images.shape[2:])
    return found + cell.projections[str(last)](images) if square[0][last] else found


@pytest.mark.parametrize("seed", range(8))
def test_a_cell_node_by_node(seed: int) -> None:
    graph = SPACE.draw(Random(seed))
    cell = SMALL.build(graph, seed).body[1]
    images = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(cell(images), slow(graph, cell, images))


def test_the_canonical_text_against_all_graphs_of_four_nodes() -> None:
    """Equal exactly where some order of the nodes turns one graph into the other."""
    graphs = []
    for bits in product("01", repeat=6):
        for operations in product(OPERATIONS, repeat=2):
            rows = f"{''.join(bits[:3])}.{''.join(bits[3:5])}.{bits[5]}"
            names = ",".join(("input", *operations, "output"))
            try:
                graph = SPACE.decode(f"{rows};{names}")
            except ValueError:
                continue
            if len(graph.matrix) == 4:
                graphs.append(graph)
    assert len(graphs) == 90
    for one in graphs:
        same = {reordered(one, order) for order in permutations((1, 2))}
        for other in graphs:
            assert (canonical(one) == canonical(other)) == (other in same)


def test_every_text_is_drawn_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells101, "NODES", 4)
    random = Random(0)
    drawn = Counter(SPACE.encode(SPACE.draw(random)) for _ in range(4000))
    # three nodes: a chain, with the edge past it or without, of three operations. Four nodes: the 90 of the test above
    assert len(drawn) == 2 * 3 + 90
    expected = 4000 / len(drawn)
    assert sum((count - expected) ** 2 / expected for count in drawn.values()) < 2 * len(drawn)


# properties


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_texts_and_neighbours(seed: int) -> None:
    random = Random(seed)
    graph = SPACE.draw(random)
    assert SPACE.decode(SPACE.encode(graph)) == graph
    assert 3 <= len(graph.matrix) <= 7
    assert sum(map(sum, graph.matrix)) <= 9
    around = list(SPACE.neighbours(graph))
    texts = {canonical(other) for other in around}
    assert len(texts) == len(around) > 0
    assert canonical(graph) not in texts
    for other in around:
        assert SPACE.decode(SPACE.encode(other)) == other
        assert not Counter(other.operations) - Counter(graph.operations)  # none changes, none comes
        assert sum(map(sum, other.matrix)) <= min(9, sum(map(sum, graph.matrix)) + 1)
    assert SPACE.mutate(graph, random) in around


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_the_order_of_nodes_does_not_change_the_canonical_text(seed: int) -> None:
    graph = SPACE.draw(Random(seed))
    orders = permutations(range(1, len(graph.matrix) - 1))
    others = [other for order in orders if is_upper(other := reordered(graph, order))]
    assert {canonical(other) for other in others} == {canonical(graph)}
    assert canonical(SPACE.decode(canonical(graph))) == canonical(graph)


@pytest.mark.parametrize("seed", range(4))
def test_networks_run(seed: int) -> None:
    logits = SMALL.build(SMALL.draw(Random(seed)), seed)(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    assert bool(torch.isfinite(logits).all())


def test_same_seed_same_weights() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (SMALL.build(SPACE.decode(INCEPTION), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


# bad input


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a NAS-Bench-101 cell is written 110.01.1;input,op,op,output"),
        (";output", "1 nodes: expected 2 to 7"),
        (f"1;input,{','.join([C3] * 6)},output", "8 nodes: expected 2 to 7"),
        (f"10.1;output,{C3},input", f"the nodes are 'output,{C3},input': expected input first and output last"),
        ("10.1;input,conv5x5,output", f"no operation 'conv5x5': expected one of {C3}, {C1}, {POOL}"),
        (f"101;input,{C3},output", "1 rows of edges for 3 nodes: expected 2"),
        (f"101.1;input,{C3},output", "row 0 is '101': expected 2 of 0 and 1, one a later node"),
        (f"12.1;input,{C3},output", "row 0 is '12'"),
        (f"10.0;input,{C3},output", "no way leads from input to output: expected one at least"),
        (f"1111.111.11.1;input,{C3},{C3},{C3},output", "10 edges: expected 9 at most"),
    ],
)
def test_bad_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        SPACE.decode(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_too_narrow_for_its_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="channels is 4: expected 5 or more, one for each inner node"):
        Cells101(channels=4)
