"""The picture of a graph: drawn in any format, of any size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.picture import draw


def test_edges_are_written_out_with_their_names(tmp_path: Path) -> None:
    graph = Graph.of([[1.0, -0.25], [0.5, 0.0], [0.125, 2.0]], ["read", "follow", "apply"], ["near", "far"])
    draw(graph, tmp_path / "graph.svg")
    text = (tmp_path / "graph.svg").read_text()
    assert text.startswith("<?xml")
    written = [line.strip() for line in text.splitlines() if line.strip().startswith("<!--")]
    for word in ("read", "follow", "apply", "near", "far", "0.25", "0.12", "graph of skills: useful"):
        assert any(word in line for line in written), word


@pytest.mark.parametrize("edges", [torch.zeros(1, 1), torch.zeros(3, 2), torch.rand(30, 30) - 0.5])
def test_any_graph_is_drawn(tmp_path: Path, edges: torch.Tensor) -> None:
    skills, evaluated = (
        [f"${kind}_{place * '$'}" for place in range(count)] for kind, count in zip("st", edges.shape, strict=True)
    )
    draw(Graph.of(edges, skills, evaluated), str(tmp_path / "graph.png"))
    assert (tmp_path / "graph.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["graph.docx", "graph"])
def test_an_unknown_kind_of_picture_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: unknown kind of picture: expected one of .*png.*svg"):
        draw(Graph.identity(["a"]), tmp_path / name)
    assert not list(tmp_path.iterdir())
