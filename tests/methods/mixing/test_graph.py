"""Graphs of skills: kept whole, by name, and refused where they are torn or of something else."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.mixing.graph import Graph


def made(**changes: Any) -> Graph:
    edges = torch.tensor([[1.0, 0.1], [1 / 3, -2.5e-17], [0.0, 7.0]], dtype=torch.float64)
    given: dict[str, Any] = {"agreement": 0.75, "tokenizer": "abc", "data": "def", "learned": {"how": "brute"}}
    return Graph(("read", "follow", "appél"), ("follow", "far away"), edges, **(given | changes))


def test_a_matrix_of_any_kind_becomes_a_graph() -> None:
    for edges in ([[1, 0], [2, 3]], np.array([[1, 0], [2, 3]]), torch.tensor([[1, 0], [2, 3]])):
        graph = Graph.of(edges, ["a", "b"])
        assert graph.edges.tolist() == [[1, 0], [2, 3]]
        assert graph.edges.dtype == torch.float64
        assert graph.skills == graph.evaluated == ("a", "b")
    assert Graph.of([[1, 0, 2]], ["a"], ["x", "y", "z"]).evaluated == ("x", "y", "z")
    assert torch.equal(Graph.identity(["a", "b"]).edges, torch.eye(2, dtype=torch.float64))
    assert Graph.identity(["a", "b"], ["c", "b"]).edges.tolist() == [[0, 0], [0, 1]]


def test_a_graph_is_not_changed_by_what_it_was_made_of() -> None:
    array = np.eye(2)
    graph = Graph.of(array, ["a", "b"])
    array[0, 1] = 9
    assert graph.edges[0, 1] == 0


def test_edges_between_different_skills_are_told_by_name() -> None:
    graph = Graph.of(torch.zeros(3, 2), ["a", "b", "c"], ["c", "a"])
    assert graph.between.tolist() == [[True, False], [True, True], [False, True]]


# to disk and back


def test_what_is_saved_is_read_exactly(tmp_path: Path) -> None:
    graph = made()
    graph.save(tmp_path / "new" / "graph.json")
    again = Graph.load(tmp_path / "new" / "graph.json")
    assert torch.equal(again.edges, graph.edges)
    assert (again.skills, again.evaluated) == (graph.skills, graph.evaluated)
    assert (again.agreement, again.tokenizer, again.data) == (0.75, "abc", "def")
    assert again.learned == {"how": "brute"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["graph.json"]
    told = json.loads((tmp_path / "new" / "graph.json").read_text(encoding="utf-8"))
    assert told["edges"]["read"] == {"follow": 1.0, "far away": 0.1}


@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=width, max_size=width),
            min_size=1,
            max_size=4,
        )
    ),
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=8, max_size=8, unique=True),
)
def test_any_graph_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]], names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("graph") / "graph.json"
    graph = Graph.of(rows, names[: len(rows)], names[4 : 4 + len(rows[0])])
    graph.save(path)
    again = Graph.load(path)
    assert again.edges.numpy().tobytes() == graph.edges.numpy().tobytes()
    assert (again.skills, again.evaluated, again.agreement) == (graph.skills, graph.evaluated, None)


def test_rows_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    made().save(path)
    told = json.loads(path.read_text())
    told["edges"] = {name: dict(reversed(row.items())) for name, row in reversed(told["edges"].items())}
    path.write_text(json.dumps(told))
    again = Graph.load(path)
    assert again.skills == ("appél", "follow", "read")
    rows, columns = (
        [names.index(name) for name in was]
        for names, was in ((again.skills, made().skills), (again.evaluated, made().evaluated))
    )
    assert torch.equal(again.edges[rows][:, columns], made().edges)


def test_what_was_learned_with_other_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    made().save(path)
    assert Graph.load(path, tokenizer="abc", data="def").tokenizer == "abc"
    with pytest.raises(ValueError, match=r"graph.json: learned with the tokenizer abc, not xyz: .*learn it again"):
        Graph.load(path, tokenizer="xyz")
    with pytest.raises(ValueError, match=r"graph.json: learned with the data def, not xyz"):
        Graph.load(path, data="xyz")
    made(tokenizer="", data="").save(path)
    assert Graph.load(path, tokenizer="xyz", data="xyz").data == ""


# what is refused


@pytest.mark.parametrize(
    ("skills", "evaluated", "edges", "said"),
    [
        ((), ("a",), torch.zeros(0, 1), "a graph without skills"),
        (("a",), (), torch.zeros(1, 0), "a graph without evaluated skills"),
        (("a", "b", "a"), ("a",), torch.zeros(3, 1), "names skills 'a' more than once"),
        (("a",), ("b", "b"), torch.zeros(1, 2), "names evaluated skills 'b' more than once"),
        (("a", "b"), ("a",), torch.zeros(1, 2), r"edges of \(1, 2\): .* which is \(2, 1\)"),
        (("a", "b"), ("c",), torch.tensor([[1.0], [math.nan]]), "the edge from 'b' to 'c' is nan: not finite"),
        (("a", "b"), ("c",), torch.tensor([[-math.inf], [1.0]]), "the edge from 'a' to 'c' is -inf"),
    ],
)
def test_what_is_no_graph(skills: Any, evaluated: Any, edges: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Graph(skills, evaluated, edges)


def edited(**changes: Any) -> Any:
    def edit(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), r"cannot be read \(No such file"),
        (lambda path: path.write_text(path.read_text()[:-20]), "not JSON .*: expected a graph of skills"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "not JSON"),
        (lambda path: path.write_text("[]"), "not a graph of skills"),
        (edited(format="shoestring tokens 1"), "not a graph of skills"),
        (edited(edges=[[1]]), "expected edges by skill"),
        (edited(evaluated=None), "expected edges by skill"),
        (edited(evaluated=[["follow"]]), "expected edges by skill"),
        (edited(edges={}), "a graph without skills"),
        (edited(edges={"a": {}}, evaluated=[]), "a graph without evaluated skills"),
        (edited(edges={"a": {"x": 1}}, evaluated=["x", "x"]), "'x' more than once"),
        (edited(edges={"a": {"x": 1}, "b": 3}, evaluated=["x"]), "the edge from 'b' to 'x' is None"),
        (edited(edges={"a": {"x": 1, "y": 2}}, evaluated=["x"]), "from 'a' to 'y', which is not evaluated"),
        (edited(edges={"a": {"x": "1"}}, evaluated=["x"]), "the edge from 'a' to 'x' is '1': expected a number"),
        (edited(edges={"a": {"x": True}}, evaluated=["x"]), "is True: expected a number"),
        (edited(edges={"a": {"x": math.nan}}, evaluated=["x"]), "is nan: expected a number"),
        (edited(agreement="all"), "agreement 'all' or learned"),
        (edited(learned=[1]), r"or learned \[1\] is not what it should be"),
    ],
)
def test_a_torn_or_foreign_file_is_refused_by_name(tmp_path: Path, damage: Any, said: str) -> None:
    path = tmp_path / "graph.json"
    made().save(path)
    damage(path)
    with pytest.raises(ValueError, match=rf"graph.json: .*{said}|graph.json: {said}") as caught:
        Graph.load(path)
    assert "\n" not in str(caught.value)
