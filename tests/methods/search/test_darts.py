"""DARTS and NDS cells: genotypes, their neighbours, and the network of the paper's evaluation."""

from __future__ import annotations

from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring.methods.search.darts import OPERATIONS, Cell, Darts, Genotype

SPACE = Darts()
SMALL = Darts(channels=4, cells=4)
FOUND_BY_DARTS = (
    "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|"
    "+|skip_connect~0|sep_conv_3x3~1|+|skip_connect~0|dil_conv_3x3~2|"
    ";|max_pool_3x3~0|max_pool_3x3~1|+|max_pool_3x3~1|skip_connect~2|"
    "+|max_pool_3x3~0|skip_connect~2|+|max_pool_3x3~1|skip_connect~2|"
)
NODE = "|none~0|none~1|"
NOTHING = f"{'+'.join([NODE] * 4)};{'+'.join([NODE] * 4)}"


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def both(operation: str) -> Genotype:
    """All nodes add this operation on both cells before."""
    cell: Cell = (((0, operation), (1, operation)),) * 4
    return Genotype(cell, cell)


# by hand


def test_the_text_of_a_genotype() -> None:
    genotype = SPACE.decode(FOUND_BY_DARTS)
    assert genotype.normal[3] == ((0, "skip_connect"), (2, "dil_conv_3x3"))
    assert genotype.reduction[1] == ((1, "max_pool_3x3"), (2, "skip_connect"))
    assert SPACE.encode(genotype) == FOUND_BY_DARTS
    turned = FOUND_BY_DARTS.replace("|skip_connect~0|dil_conv_3x3~2|", "|dil_conv_3x3~2|skip_connect~0|")
    assert turned != FOUND_BY_DARTS
    assert SPACE.decode(f" {turned}\n") == genotype


def test_the_parameters_of_the_cell_that_darts_found() -> None:
    """3.3 million, as the README of https://github.com/quark0/darts says; all of them counted by hand."""
    c, total = 36, 3 * 9 * 3 * 36 + 2 * 3 * 36
    before = last = 3 * c
    for cell in range(20):
        reduction = cell in (6, 13)
        c *= 2 if reduction else 1
        total += before * c + 2 * c + last * c + 2 * c  # both ways into the cell
        separable = 9 * c + c * c + 2 * c
        if not reduction:  # the reduction cell pools, and its skips start at a node that is halved already
            total += 5 * 2 * separable + separable
        before, last = last, 4 * c
    total += last * 10 + 10
    assert parameters(SPACE.build(SPACE.decode(FOUND_BY_DARTS), 0)) == total
    assert round(total / 1e6, 1) == 3.3


@pytest.mark.parametrize(
    ("operation", "normal", "reduction"),
    [
        ("none", 0, 0),
        ("max_pool_3x3", 0, 0),
        ("avg_pool_3x3", 0, 0),
        ("skip_connect", 0, 8 * 8 + 2 * 8),
        ("sep_conv_3x3", 2 * (9 * 4 + 4 * 4 + 2 * 4), 2 * (9 * 8 + 8 * 8 + 2 * 8)),
        ("sep_conv_5x5", 2 * (25 * 4 + 4 * 4 + 2 * 4), 2 * (25 * 8 + 8 * 8 + 2 * 8)),
        ("dil_conv_3x3", 9 * 4 + 4 * 4 + 2 * 4, 9 * 8 + 8 * 8 + 2 * 8),
        ("dil_conv_5x5", 25 * 4 + 4 * 4 + 2 * 4, 25 * 8 + 8 * 8 + 2 * 8),
    ],
)
def test_the_parameters_of_an_operation(operation: str, normal: int, reduction: int) -> None:
    """The first cell of four is a normal one of 4 channels, the second a reduction of 8."""
    cells = SMALL.build(both(operation), 0).cells
    assert parameters(cells[0].operations) == 8 * normal
    assert parameters(cells[1].operations) == 8 * reduction


def test_shapes() -> None:
    model = SMALL.build(SPACE.decode(FOUND_BY_DARTS), 0)
    before = last = model.stem(torch.randn(2, 3, 32, 32))
    shapes = [tuple(last.shape)]
    for cell in model.cells:
        before, last = last, cell(before, last)
        shapes.append(tuple(last.shape))
    assert shapes == [(2, 12, 32, 32), (2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8), (2, 64, 8, 8)]


def test_cells_of_nothing_put_out_nothing() -> None:
    model = SMALL.build(SPACE.decode(NOTHING), 0)
    logits = model(torch.randn(2, 3, 32, 32))
    assert torch.equal(logits, model.classifier.bias.expand(2, -1))


# against a slow obvious reference


@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_pooling_leaves_the_border_out(name: str) -> None:
    [[one, _], *_] = SMALL.build(both(name), 0).cells[0].operations
    images = -1 - torch.rand(1, 1, 5, 5)  # below nought, which is what a border filled with it would show
    found: Tensor = one(images)
    for row in range(5):
        for column in range(5):
            window = images[0, 0, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            expected = window.max() if name == "max_pool_3x3" else window.mean()
            torch.testing.assert_close(found[0, 0, row, column], expected)


def test_a_shrinking_skip_sees_even_and_odd_pixels() -> None:
    [[skip, _], *_] = SMALL.build(both("skip_connect"), 0).cells[1].operations
    skip.eval()
    with torch.no_grad():
        skip.even.weight.fill_(1.0)
        skip.odd.weight.fill_(1.0)
        images = torch.randn(1, 8, 6, 6)
        total = images.relu().sum(1) / (1 + skip.norm.eps) ** 0.5  # fresh norms have mean 0 and variance 1
        found = skip(images)[0]
    torch.testing.assert_close(found[:4], total[:, ::2, ::2].expand(4, -1, -1))
    torch.testing.assert_close(found[4:], total[:, 1::2, 1::2].expand(4, -1, -1))


# properties


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_texts_and_neighbours(seed: int) -> None:
    random = Random(seed)
    genotype = SPACE.draw(random)
    assert SPACE.decode(SPACE.encode(genotype)) == genotype
    around = list(SPACE.neighbours(genotype))
    assert len(around) == len(set(around))
    assert genotype not in around
    for other in around:
        assert SPACE.decode(SPACE.encode(other)) == other
        pairs = [
            (one, two)
            for ours, theirs in zip(genotype, other, strict=True)
            for one, two in zip(ours, theirs, strict=True)
            if one != two
        ]
        assert len(pairs) == 1
        [(old, new)] = pairs
        kept = [edge for edge in old if edge in new]
        assert kept  # of two edges one is as it was
        changed = [list(node) for node in (old, new)]
        for node in changed:
            node.remove(kept[0])
        [[one], [two]] = changed
        assert (one[0] == two[0]) != (one[1] == two[1])  # the other has its source or its operation
    assert SPACE.mutate(genotype, random) in around


def test_the_number_of_neighbours() -> None:
    """Sixteen edges with seven other operations each, and 1 + 2 + 3 + 4 other sources for two edges of two cells."""
    assert len(list(SPACE.neighbours(SPACE.decode(FOUND_BY_DARTS)))) == 16 * 7 + 2 * 2 * 10
    assert len(list(SPACE.neighbours(both("skip_connect")))) == 16 * 7 + 2 * 2 * 10


def test_all_operations_and_sources_are_drawn_alike() -> None:
    random = Random(0)
    edges = [SPACE.draw(random).reduction[3][place] for _ in range(1500) for place in range(2)]
    for operation in OPERATIONS:
        assert sum(name == operation for _, name in edges) / 3000 == pytest.approx(1 / 8, abs=0.03)
    for place in range(5):
        assert sum(source == place for source, _ in edges) / 3000 == pytest.approx(1 / 5, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
def test_networks_run(seed: int) -> None:
    logits = SMALL.build(SMALL.draw(Random(seed)), seed)(torch.randn(4, 3, 32, 32))
    assert logits.shape == (4, 10)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_few_cells(cells: int) -> None:
    space = Darts(channels=3, cells=cells, classes=5)
    assert space.build(SPACE.decode(FOUND_BY_DARTS), 0)(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_same_seed_same_weights() -> None:
    genotype = SPACE.decode(FOUND_BY_DARTS)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two, other = (SMALL.build(genotype, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])


# bad input


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a DARTS genotype is written |op~0|op~1|+"),
        (f"{NOTHING};", "a DARTS genotype is written"),
        (NOTHING.replace(";", f"+{NODE};"), "the normal cell has 5 nodes: expected 4"),
        (NOTHING[: -len(NODE) - 1], "the reduction cell has 3 nodes: expected 4"),
        (NOTHING[:-1], "node 3 of the reduction cell is '|none~0|none~1': expected |op~source|op~source|"),
        (NOTHING.replace(";|none~0|none~1|", ";|none~0|"), "node 0 of the reduction cell is '|none~0|'"),
        (NOTHING.replace(";|none~0|", ";|conv~0|"), "no operation 'conv': expected one of none, max_pool_3x3"),
        (NOTHING.replace(";|none~0|", ";|none~2|"), "'none~2' in node 0: expected a source of ~0 to ~1"),
        (NOTHING.replace(";|none~0|", ";|none~x|"), "'none~x' in node 0"),
    ],
)
def test_bad_texts_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        SPACE.decode(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
