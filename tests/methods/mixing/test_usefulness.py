"""Whether a graph tells a sampler anything: where the lines are, and that it is said."""

from __future__ import annotations

import pytest
import torch

from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.usefulness import usefulness

NAMES = tuple("abcde")


def test_the_authors_lego_graph_is_useful() -> None:
    edges = torch.eye(5)
    edges[1, [0, 2, 3]] = 0.5
    found = usefulness(Graph.of(edges, NAMES))
    assert found.useful
    assert found.density == pytest.approx(3 / 20)
    assert found.spread == pytest.approx(0.6 / 1.3)  # sums 1, 2.5, 1, 1, 1: a mean of 1.3, a deviation of 0.6
    assert "15% of the edges between skills" in found.sentence
    assert "stratified" not in found.sentence


def test_each_for_itself_is_nearly_empty() -> None:
    found = usefulness(Graph.identity(NAMES))
    assert (found.verdict, found.useful, found.density) == ("nearly empty", False, 0)
    assert found.sentence.startswith("the graph is nearly empty: 0% of the edges")
    assert "falls back to stratified" in found.sentence


def test_all_help_all_alike_is_nearly_complete() -> None:
    found = usefulness(Graph.of(torch.full((5, 5), 0.3), NAMES))
    assert (found.verdict, found.density, found.spread) == ("nearly complete", 1, pytest.approx(0))


def test_all_help_all_but_one_helps_more_is_useful() -> None:
    edges = torch.full((5, 5), 0.3)
    edges[2] = 0.9
    assert usefulness(Graph.of(edges, NAMES)).useful


def test_a_twentieth_is_still_nearly_empty() -> None:
    edges = torch.eye(5)
    edges[0, 1] = 1  # one of twenty
    assert usefulness(Graph.of(edges, NAMES)).verdict == "nearly empty"
    edges[0, 2] = 1
    assert usefulness(Graph.of(edges, NAMES)).useful


def test_edges_below_zero_are_none_but_count_in_the_spread() -> None:
    edges = torch.full((3, 3), -1.0)
    assert usefulness(Graph.of(edges, NAMES[:3])).verdict == "nearly empty"


def test_a_skill_is_known_by_its_name_where_only_some_are_evaluated() -> None:
    target = Graph.of([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]], ["a", "b", "c"], ["c", "a"])
    assert usefulness(target).verdict == "nearly empty"  # both edges are a skill's own
    elsewhere = Graph.of([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]], ["a", "b", "c"], ["x", "y"])
    assert usefulness(elsewhere).density == pytest.approx(1 / 3)


def test_one_skill_alone_and_nothing_at_all() -> None:
    assert usefulness(Graph.identity(["a"])).verdict == "nearly empty"
    assert usefulness(Graph.of([[0.0, 0.0], [0.0, 0.0]], ["a", "b"])).spread == float("inf")


def test_what_the_seeds_agreed_on_is_said() -> None:
    graph = Graph(("a", "b"), ("a", "b"), torch.ones(2, 2), agreement=0.5)
    assert "seeds agreed on the sign of 50% of the edges" in usefulness(graph).sentence
