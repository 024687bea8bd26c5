"""The command that shows a graph: its edges, its verdict, its first weights, and what it cannot read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.tools import app
from shoestring.methods.mixing.weights import first_weights

EDGES = [[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 2.0]]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    Graph.of(EDGES, ["a", "[b]", "c"]).save("graph.json")
    return tmp_path


def shown(*words: str) -> str:
    found: Result = CliRunner().invoke(app, ["show", *words])
    assert found.exit_code == 0, found.exception
    return found.output


def refused(*words: str) -> str:
    found = CliRunner().invoke(app, ["show", *words])
    assert isinstance(found.exception, ValueError), found.output
    assert "\n" not in str(found.exception)
    return str(found.exception)


def rows(said: str) -> list[list[str]]:
    return [line.split() for line in said.splitlines()]


def test_edges_verdict_and_first_weights(here):
    said = shown("graph.json", "--rate", "0.7")
    assert ["a", "1", "0.5", "·"] in rows(said)
    assert ["c", "·", "0.25", "2"] in rows(said)
    assert "first round at --rate 0.7\n" in said
    first = first_weights(torch.tensor(EDGES), 0.7).tolist()
    table = [["c", f"{first[2]:.4f}", "2.25"], ["a", f"{first[0]:.4f}", "1.5"], ["[b]", f"{first[1]:.4f}", "1"]]
    assert [row for row in rows(said) if row in table] == table  # the heaviest first
    assert "the graph is useful: 33% of the edges" in said
    assert list(here.iterdir()) == [here / "graph.json"]


def test_a_graph_that_tells_nothing_says_so():
    Graph.identity(["a", "b"]).save("graph.json")
    said = shown("graph.json")
    assert "first round at --rate 0.5, were it followed" in said
    assert "the graph is nearly empty" in said


def test_of_a_large_graph_the_largest_edges_come_first():
    edges = torch.zeros(30, 30)
    edges[3, 4], edges[5, 6] = -9.0, 7.0
    edges[range(25), range(25)] = 1.0
    Graph.of(edges, [f"s{number}" for number in range(30)]).save("graph.json")
    said = shown("graph.json")
    assert "the largest 20 of 27 edges" in said
    table = rows(said)[3:5]
    assert table == [["s3", "s4", "-9"], ["s5", "s6", "7"]]


def test_how_it_was_learned_is_said():
    found = Graph.of(EDGES, ["a", "b", "c"])
    Graph(found.skills, found.evaluated, found.edges, learned={"how": "brute", "flops": 2e12}).save("graph.json")
    said = shown("graph.json")
    assert "how: brute\n" in said
    assert "flops: 2.00 TFLOP\n" in said


@pytest.mark.parametrize("name", ["g.svg", "g.png"])
def test_a_picture(here, name):
    assert f"{name}: the picture" in shown("graph.json", "--picture", name)
    assert (here / name).stat().st_size > 1000
    assert "unknown kind of picture" in refused("graph.json", "--picture", "g.doc")


def test_bare_matrices_are_numbered(here):
    np.save("square.npy", np.array(EDGES, dtype=np.float32))
    assert ["3", "·", "0.25", "2"] in rows(shown("square.npy"))
    (here / "many.json.gz").write_bytes(gzip.compress(json.dumps({"wide": [[1, 2, 3], [4, 5, 6]]}).encode()))
    said = shown("many.json.gz", "--matrix", "wide")
    assert ["trained", "on", "target", "1", "target", "2", "target", "3"] in rows(said)
    assert ["2", "4", "5", "6"] in rows(said)
    assert refused("many.json.gz", "--matrix", "narrow") == "many.json.gz: no matrix 'narrow': it holds wide"


def test_what_cannot_be_read(here):
    (here / "torn.json").write_text((here / "graph.json").read_text()[:-40])
    assert "torn.json: not JSON" in refused("torn.json")
    assert "none.json: cannot be read" in refused("none.json")
    (here / "other.json").write_text('{"a": 1}')
    assert "other.json: not a graph of skills" in refused("other.json")
    (here / "torn.json.gz").write_bytes(gzip.compress(b'{"a": [[1]]}')[:-9])
    assert "torn.json.gz: torn" in refused("torn.json.gz", "--matrix", "a")
    (here / "plain.json.gz").write_text("{}")
    assert "plain.json.gz: cannot be read" in refused("plain.json.gz", "--matrix", "a")
    assert "none.npy: cannot be read" in refused("none.npy")
    (here / "no.npy").write_text("no array")
    assert "no.npy: torn" in refused("no.npy")
    (here / "ragged.json").write_text('{"a": [[1, 2], [3]], "b": 3, "c": [["x"]], "d": [], "e": [[NaN]]}')
    for name in "abcde":
        assert "ragged.json: no matrix of numbers" in refused("ragged.json", "--matrix", name)
