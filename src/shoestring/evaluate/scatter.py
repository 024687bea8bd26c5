"""Pictures of a report's scatters as SVG, for light ground: a panel each, those of one y in one picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from shoestring.evaluate.canvas import WIDE, Look, svg
from shoestring.evaluate.scores import Report, Scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKS = re.compile(r'<g (clip-path="[^"]*")>((?:\s*<use [^>]*/>){2,})')
_STYLE = re.compile(r' style="[^"]*"')
_LINES = ("solid", "dashed", "dotted", "dashdot")  # where there are more labels than colours
_POINTS_DRAWN = 1500  # in one picture: keeps a page with a few of them below 1.5 MB


def pictured(report: Report) -> dict[str, list[Scatter]]:
    """The panels of each picture, by their y, in order of appearance."""
    found: dict[str, list[Scatter]] = {}
    for scatter in report.scatters:
        found.setdefault(scatter.y, []).append(scatter)
    return found


def cloud(panels: Sequence[Scatter], style: Look = WIDE) -> str:
    """One picture of panels that share their y. Panels of many points are thinned, evenly in the order given.

    Where the outermost twentieth of the points takes more room than all others, it is cut off and counted.
    """
    labels = list(dict.fromkeys(label for panel in panels for label in _labels(panel)))
    by_title = {panel.title: panel for panel in panels}
    low, high = frame(panels)

    def draw(axes: Axes, title: str) -> None:
        panel = by_title[title]
        inside = [point for point in panel.points if low <= point[2] <= high]
        points = thinned(inside, most(panels))
        for label in _labels(panel):
            turn, colour = divmod(labels.index(label), len(style.methods))
            course = sorted((x, y) for found, x, y in points if found == label)
            axes.plot(
                [x for x, _ in course],
                [y for _, y in course],
                linestyle=_LINES[turn % len(_LINES)] if panel.joined else "none",
                linewidth=1.2,
                marker="o",
                markersize=3 if panel.joined else 4,
                markeredgewidth=0,
                color=style.methods[colour],
                alpha=0.8 if panel.joined else 0.45,
                label=label or None,
            )
        axes.margins(0.06)
        axes.set_xlabel(panel.x)
        for place, edge, words in _outside(panel, low, high):
            axes.annotate(words, (1, place), xycoords="axes fraction", ha="right", va=edge, color=style.ink, fontsize=9)

    return _styled_once(svg(list(by_title), style, draw, panels[0].y))


def frame(panels: Sequence[Scatter]) -> tuple[float, float]:
    """The range of y that is drawn: without the outer twentieth of the points where it takes more than half of it."""
    values = sorted(y for panel in panels for _, _, y in panel.points)
    edge = len(values) // 20
    low, high = values[0], values[-1]
    lower, upper = values[edge], values[len(values) - 1 - edge]
    return (
        lower if lower - low > high - lower else low,
        upper if high - upper > upper - low else high,
    )


def _outside(panel: Scatter, low: float, high: float) -> list[tuple[float, Literal["bottom", "top"], str]]:
    """What to write at which edge of a panel whose points go on beyond it."""
    below, above = (sum(beyond) for beyond in zip(*((y < low, y > high) for _, _, y in panel.points), strict=True))
    found: list[tuple[float, Literal["bottom", "top"], str]] = []
    if below:
        found.append((0.02, "bottom", f"{below} more below"))
    if above:
        found.append((0.98, "top", f"{above} more above"))
    return found


def _styled_once(picture: str) -> str:
    """What a cloud's marks share is said of the cloud: the text is half as long."""

    def shared(marks: re.Match[str]) -> str:
        styles = set(_STYLE.findall(marks[2]))
        return f"<g {marks[1]}{styles.pop()}>{_STYLE.sub('', marks[2])}" if len(styles) == 1 else marks[0]

    return _MARKS.sub(shared, picture)


def most(panels: Sequence[Scatter]) -> int:
    """How many points of a panel are drawn at the most."""
    return max(1, _POINTS_DRAWN // len(panels))


def thinned(points: Sequence[tuple[str, float, float]], count: int) -> list[tuple[str, float, float]]:
    """So many of the points, evenly spread over the order they are in; all where there are no more."""
    if len(points) <= count:
        return list(points)
    return [points[index * len(points) // count] for index in range(count)]


def says(panels: Sequence[Scatter]) -> str:
    """The panels in words, and how many points are not drawn where some are left out."""
    low, high = frame(panels)
    held = sum(len(panel.points) for panel in panels)
    inside = [sum(low <= y <= high for _, _, y in panel.points) for panel in panels]
    drawn = sum(min(count, most(panels)) for count in inside)
    told = [panel.says for panel in panels]
    if sum(inside) < held:
        told.append(f"{held - sum(inside)} of {held} points lie outside the frame.")
    if drawn < sum(inside):
        told.append(
            f"Of the others {drawn} are drawn." if sum(inside) < held else f"Of {held} points {drawn} are drawn."
        )
    return " ".join(told)


def _labels(panel: Scatter) -> list[str]:
    return list(dict.fromkeys(label for label, _, _ in panel.points))
