"""Pictures of a report as SVG, for light ground: quality against cost, the metric against steps, FLOPs, seconds."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from shoestring.evaluate.canvas import WIDE, Look, svg
from shoestring.evaluate.quantities import percent, unit
from shoestring.evaluate.savings import saving
from shoestring.evaluate.scores import Point, Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TIMES = {"s": "seconds", "min": "minutes", "h": "hours"}
_DASHES = ((4, 2), (1, 1.4), (6, 1.6, 1, 1.6), (2, 2))
_LEAST_SPAN = 0.25  # of the largest cost, on the axis of costs
_FEW = 20  # points, of which a steep start hides nothing
_POINTS_DRAWN = 640  # in one picture: keeps a page with all its pictures below 1.5 MB


def quality(report: Report, style: Look = WIDE) -> str:
    """Each row's metric, mean ± sd, against the FLOPs of one run (its seconds where no FLOPs were charged)."""
    currency = "flops" if any(row.cost.flops for row in report.rows) else "seconds"
    size = unit(currency, (row.cost.as_dict()[currency] for row in report.rows))

    def draw(axes: Axes, group: str) -> None:
        rows = [row for row in report.rows if row.group == group and report.metric in row.scores]
        places = [row.cost.as_dict()[currency] / size.size for row in rows]
        for row, place in zip(rows, places, strict=True):
            score, colour = row.scores[report.metric], _colour(report, row, style)
            order, face = _place(report, row), "none" if row.twin else colour
            bars = axes.errorbar(place, score.mean, score.sd or None, fmt="o", ms=8, mfc=face, color=colour, mew=1.8)
            for part in bars.get_children():
                part.set_zorder(3 - 0.1 * order)
        axes.margins(x=0.4, y=0.2)
        left, right = axes.get_xlim()
        least = _LEAST_SPAN * max(places)  # costs that are alike are to look alike
        if right - left < least:
            middle = (left + right) / 2
            axes.set_xlim(middle - least / 2, middle + least / 2)
        axes.set_xlabel(_TIMES.get(size.name, size.name))
        _label(axes, report, rows, places, style)

    scored = {row.group for row in report.rows if report.metric in row.scores}
    return svg([group for group in report.groups() if group in scored], style, draw, f"final {report.metric}")


def _label(axes: Axes, report: Report, rows: list[Row], places: list[float], style: Look) -> None:
    """Each row's title to the right of its mark, lifted where it would cover that of a mark nearby."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    placed: list[tuple[float, float]] = []
    for row, place in sorted(zip(rows, places, strict=True), key=lambda found: found[0].scores[report.metric].mean):
        height = row.scores[report.metric].mean
        near = [top for other, top in placed if abs(other - place) < 0.3 * (right - left)]
        height = max([height, *(top + 0.075 * (high - low) for top in near)])
        placed.append((place, height))
        axes.annotate(
            row.title,
            (place, height),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=_colour(report, row, style),
            weight="normal" if row.twin else "bold",
        )


def curves(report: Report, axis: str, style: Look = WIDE) -> str:
    """The metric along each row's runs against 'step', 'flops' or 'seconds': the mean over seeds, a band of ± 1 sd.

    Twins are dashed. The first steep part is cut off, so that the differences can be seen. A bar marks the saving of
    a group's first pair. Steps that some seed did not measure are left out.
    """
    size = unit(axis, (float(getattr(point, axis)) for point in report.points))

    def draw(axes: Axes, group: str) -> None:
        drawn = []
        for row in [row for row in report.rows if row.group == group]:
            line = _line(report, row.name, axis, size.size)
            if not line:
                continue
            drawn.append(line)
            places, means, spreads = (list(column) for column in zip(*line, strict=True))
            colour = _colour(report, row, style)
            dashes = (0, _DASHES[_place(report, row) % len(_DASHES)]) if row.twin else "solid"
            order = _place(report, row)  # methods that agree stay visible: the later lies below, and wider
            width = 1.5 if row.twin else 2.0 + 1.4 * order
            axes.plot(
                places, means, color=colour, linewidth=width, linestyle=dashes, label=row.title, zorder=3 - 0.1 * order
            )
            low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
            high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
            axes.fill_between(places, low, high, color=colour, alpha=0.16, linewidth=0)
        axes.set_xlabel(_TIMES.get(size.name, size.name))
        if drawn:
            axes.set_xlim(0, 1.02 * max(line[-1][0] for line in drawn) or 1)
            axes.set_ylim(*_window(drawn, report.lower_is_better))
            _mark(axes, report, group, axis, size.size, style)

    measured = {row.group for row in report.rows if report.measured(row.name)}
    shown = [group for group in report.groups() if group in measured]
    return svg(shown or report.groups(), style, draw, report.metric)


def _line(report: Report, row: str, axis: str, size: float) -> list[tuple[float, float, float]]:
    """Place, mean and sd over seeds at each step that every seed measured, thinned to what a picture can show."""
    runs = [{point.step: point for point in points} for points in report.measured(row).values()]
    steps = [step for step in runs[0] if all(step in run for run in runs)] if runs else []
    stride = 1 + len(steps) * len(report.rows) // _POINTS_DRAWN
    kept = sorted({*steps[::stride], *steps[-1:]})
    line = []
    for step in kept:
        points: list[Point] = [run[step] for run in runs]
        values = [point.scores[report.metric] for point in points]
        place = statistics.fmean(getattr(point, axis) for point in points) / size
        line.append((place, statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0))
    return line


def _window(lines: list[list[tuple[float, float, float]]], lower_is_better: bool) -> tuple[float, float]:
    """The range of the metric to show: all ends, and nine tenths of what followed the first three tenths of the way; of
    a line by itself that has few points, all."""
    if len(lines) == 1 and len(lines[0]) <= _FEW:
        values = [value for _, mean, spread in lines[0] for value in (mean - spread, mean + spread)]
        room = 0.06 * (max(values) - min(values)) or 0.01 * abs(max(values)) or 1.0
        return min(values) - room, max(values) + room
    start = 0.3 * max(line[-1][0] for line in lines)
    sign = 1 if lower_is_better else -1
    late = sorted(sign * mean for line in lines for place, mean, _ in line if place >= start)
    best = min(sign * mean - spread for line in lines for _, mean, spread in line)
    ends = max(sign * line[-1][1] + line[-1][2] for line in lines)
    worst = max(late[int(0.9 * (len(late) - 1))], ends)
    room = 0.06 * (worst - best) or 0.01 * abs(best) or 1.0
    low, high = sorted((sign * (best - room), sign * (worst + room)))
    return low, high


def _mark(axes: Axes, report: Report, group: str, axis: str, size: float, style: Look) -> None:
    """The saving of the group's first pair, where every seed came to its twin's end before the end."""
    pairs = [pair for pair in report.pairs if report.row(pair.method).group == report.row(pair.twin).group == group]
    found = saving(report, pairs[0]) if pairs else None
    if found is None or found.reached < found.of or axis not in found.fractions or found.fractions[axis].mean >= 1:
        return
    colour = _colour(report, report.row(found.method), style)
    end = statistics.fmean(getattr(points[-1], axis) for points in report.measured(found.twin).values()) / size
    start, level = found.fractions[axis].mean * end, found.target.mean
    axes.plot([start, end], [level, level], color=style.ink, linewidth=1.2, marker="|", markersize=7, zorder=4)
    below = report.lower_is_better
    axes.annotate(
        percent(found.fractions[axis]),
        (start, level),
        xytext=(-4, -5 if below else 5),
        textcoords="offset points",
        ha="right",
        va="top" if below else "bottom",
        color=colour,
        weight="bold",
    )


def _place(report: Report, row: Row) -> int:
    """Which of the titles of its kind (methods, twins) a row's is: a title looks alike in all groups."""
    return list(dict.fromkeys(other.title for other in report.rows if other.twin == row.twin)).index(row.title)


def _colour(report: Report, row: Row, style: Look) -> str:
    palette = style.twins if row.twin else style.methods
    return palette[_place(report, row) % len(palette)]
