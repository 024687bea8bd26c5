"""A picture of a graph of skills: how much each row helps each column."""

from __future__ import annotations

from pathlib import Path

from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.usefulness import usefulness

_WRITTEN = 400  # edges, up to which each is written out


def draw(graph: Graph, path: Path | str) -> None:
    """Draw the edges as a map of colours: blue helps, red hurts, white is no edge. The suffix chooses the format.

    Raises ValueError where the format is unknown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = graph.edges.shape
    figure = Figure(figsize=(2.5 + 0.5 * columns, 2 + 0.42 * rows), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    if Path(path).suffix.lstrip(".") not in canvas.get_supported_filetypes():
        known = ", ".join(sorted(canvas.get_supported_filetypes()))
        raise ValueError(f"{path}: unknown kind of picture: expected one of {known}")
    axes = figure.add_subplot()
    largest = float(graph.edges.abs().max()) or 1.0
    shown = axes.imshow(graph.edges.numpy(), cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    # a skill may be called $x$
    axes.set_xticks(range(columns), graph.evaluated, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(range(rows), graph.skills, fontsize=8, parse_math=False)
    axes.set_xlabel("loss that is lowered")
    axes.set_ylabel("skill trained on")
    axes.set_title(f"graph of skills: {usefulness(graph).verdict}", fontsize=9)
    if rows * columns <= _WRITTEN:
        for row in range(rows):
            for column in range(columns):
                value = float(graph.edges[row, column])
                colour = "white" if abs(value) > 0.6 * largest else "black"
                axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=6, color=colour)
    figure.colorbar(shown, ax=axes, shrink=0.8)
    figure.savefig(str(path))
