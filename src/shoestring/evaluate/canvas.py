"""What pictures are drawn on: colours for light and dark ground, panels, a legend, and lean SVG text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_LONG = re.compile(r"(\d\.\d\d)\d+")


@dataclass(frozen=True)
class Look:
    """How wide a picture is and how many panels stand side by side on it, and its colours on light ground."""

    inches: float
    across: int
    ink: str = "#4a515e"
    grid: str = "#e7e9ed"
    methods: tuple[str, ...] = ("#0072b2", "#d55e00", "#009e73", "#b0568f")
    twins: tuple[str, ...] = ("#5d6675", "#b08000", "#8b93a1", "#8a6d6d")


WIDE = Look(inches=9.2, across=2)
NARROW = Look(inches=3.9, across=1)

# Colours after Okabe and Ito, which the colour-blind tell apart; lighter on dark ground.
_DARK = {
    "#4a515e": "#b9bec8",
    "#e7e9ed": "#2d323b",
    "#0072b2": "#56b4e9",
    "#d55e00": "#f0894a",
    "#009e73": "#2cc197",
    "#b0568f": "#dd93c0",
    "#5d6675": "#b4bac4",
    "#b08000": "#e0b341",
    "#8b93a1": "#8d95a5",
    "#8a6d6d": "#c9a6a6",
}


def darkened(text: str) -> str:
    """The same picture for dark ground."""
    return re.sub(r"#[0-9a-f]{6}", lambda colour: _DARK.get(colour[0], colour[0]), text)


def svg(groups: Sequence[str], style: Look, draw: Callable[[Axes, str], None], quantity: str) -> str:
    """A panel for each group, drawn by `draw` on its axes, with one legend: the same data give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    across = min(style.across, len(groups))
    down = -(-len(groups) // across)
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The reader's own fonts draw the text: that the font it is measured by lacks a glyph does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_settings(style))
        figure = Figure(figsize=(style.inches, 0.5 + 3.3 * down), layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes, group in zip(panels, groups, strict=False):
            axes.set_title(group, loc="left", fontsize=10, weight="bold")
            draw(axes, group)
        for axes in panels[len(groups) :]:
            axes.remove()
        figure.supylabel(quantity, fontsize=10, color=style.ink)
        _legend(figure, 2 * style.across)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return _lean(text.getvalue())


def _settings(style: Look) -> dict[Any, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "shoestring",
        "text.parse_math": False,
        "figure.constrained_layout.h_pad": 0.1,
        "font.size": 10,
        "text.color": style.ink,
        "axes.edgecolor": style.grid,
        "axes.labelcolor": style.ink,
        "axes.titlecolor": style.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "grid.color": style.grid,
        "grid.linewidth": 0.8,
        "xtick.color": style.ink,
        "ytick.color": style.ink,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.major.pad": 7,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.frameon": False,
    }


def _legend(figure: Figure, columns: int) -> None:
    """One legend for all panels, each title once."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, title in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(title, handle)
    if handles:
        found, titles = list(handles.values()), list(handles)
        figure.legend(found, titles, loc="outside upper left", ncols=columns, handlelength=2.4, borderaxespad=0)


def _lean(text: str) -> str:
    """The picture alone, with the reader's own fonts and places to a hundredth of a point."""
    text = re.sub(r"font-family: [^;\"]*", f"font-family: {_FONTS}", text[text.index("<svg") :])
    return re.sub(r' (?:d|x|y|points|transform)="[^"]*"', lambda places: _LONG.sub(r"\1", places[0]), text)
