"""Scores beside costs as a grid of text, and the grid in the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.table import Table
from rich.text import Text

from shoestring.cost import CURRENCIES, Cost
from shoestring.evaluate.quantities import Unit, number, plus_minus, unit
from shoestring.evaluate.scores import Report, Row

BLANK = "–"
_WIDTH, _NAME_WIDTH, _GAP = 100, 14, 3  # of the table at the most, of the names of rows at the least, between columns


@dataclass(frozen=True)
class Line:
    """One row as text: its scores, then its costs, a cell for each column of the grid."""

    title: str
    twin: bool
    group: str
    scores: tuple[str, ...]
    costs: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A report's rows as text: scores as mean ± sd, costs in units of a fitting size. What nobody spent is left out."""

    metrics: tuple[str, ...]
    currencies: tuple[str, ...]
    lines: tuple[Line, ...]


def grid(report: Report) -> Grid:
    """The rows of a report as text, group by group."""
    units = spent(row.cost for row in report.rows)
    metrics = report.metrics()
    rows = [row for group in report.groups() for row in report.rows if row.group == group]
    lines = [Line(row.title, row.twin, row.group, scores(row, metrics), costs(row.cost, units)) for row in rows]
    return Grid(tuple(metrics), tuple(found.name for found in units.values()), tuple(lines))


def grids(report: Report) -> list[Grid]:
    """The rows of a report as text, in one grid where groups share scores; those that share none stand apart."""
    parts: list[tuple[set[str], list[str]]] = []
    for group in report.groups():
        own = {metric for row in report.rows if row.group == group for metric in row.scores}
        fitting = next((part for part in parts if part[0] & own), None)
        if fitting is None:
            parts.append((own, [group]))
        else:
            fitting[0].update(own)
            fitting[1].append(group)
    return [grid(_part(report, groups)) for _, groups in parts]


def _part(report: Report, groups: Sequence[str]) -> Report:
    """A report of some groups alone, as far as a grid needs it."""
    rows = tuple(row for row in report.rows if row.group in groups)
    return replace(report, rows=rows, points=(), pairs=(), metric=next(iter(rows[0].scores)))


def spent(found: Iterable[Cost]) -> dict[str, Unit]:
    """The currencies that any of the costs holds, each with the unit that suits the largest."""
    amounts = [cost.as_dict() for cost in found]
    return {
        currency: unit(currency, (amount[currency] for amount in amounts))
        for currency in CURRENCIES
        if any(amount[currency] for amount in amounts)
    }


def costs(cost: Cost, units: Mapping[str, Unit]) -> tuple[str, ...]:
    """A cost as text, in the units given."""
    amounts = cost.as_dict()
    return tuple(number(amounts[currency] / found.size) for currency, found in units.items())


def scores(row: Row, metrics: Sequence[str]) -> tuple[str, ...]:
    """A row's scores as text, blank where it has none."""
    return tuple(plus_minus(row.scores[metric]) if metric in row.scores else BLANK for metric in metrics)


def terminal_width() -> int:
    """Columns of the terminal that tables are drawn for; as many as they take at most, where it is no terminal."""
    return shutil.get_terminal_size((_WIDTH, 24)).columns


def table(report: Report, group: str | None = None) -> Group:
    """The report for a terminal: one row a Row, the twins marked, scores before costs.

    group   whose rows are shown, with the scores that these have; all rows where None
    """
    title = f"{report.room} · {report.recipe}"
    if group is not None:
        rows = tuple(replace(row, group="") for row in report.rows if row.group == group)
        metric = next(metric for row in rows for metric in row.scores)
        report = replace(report, rows=rows, points=(), pairs=(), metric=metric)
        title += f" · {group}" if group else ""
    found = grid(report)
    lines: list[list[Text] | Text] = []
    for index, line in enumerate(found.lines):
        if line.group and (index == 0 or found.lines[index - 1].group != line.group):
            lines.append(Text(line.group, style="italic"))
        lines.append([_name(line.title, line.twin), *map(Text, line.scores), *map(Text, line.costs)])
    return _table(title, [*found.metrics, *found.currencies], lines)


def compare(reports: Mapping[str, Report]) -> Group:
    """Rows of several runs, by the run's name, side by side; below each cost stands its ratio to the first row's.

    Of several runs only the scores that two or more of them share are shown, blank where a row has none.
    """
    every = [row for report in reports.values() for row in report.rows]
    first, units = every[0].cost.as_dict(), spent(row.cost for row in every)
    metrics = _shared(list(reports.values()))
    lines: list[list[Text] | Text] = []
    for name, report in reports.items():
        lines.append(Text(f"{name} ({report.room})", style="italic"))
        for row in report.rows:
            title = f"{row.title}, {row.group}" if row.group else row.title
            amounts = row.cost.as_dict()
            cells = [score.replace(" ± ", "\n± ") for score in scores(row, metrics)]
            ratios = [_ratio(amounts[currency], first[currency]) for currency in units]
            cells += [f"{cost}\n{ratio}" for cost, ratio in zip(costs(row.cost, units), ratios, strict=True)]
            lines.append([_name(title, row.twin), *map(Text, cells)])
    return _table(" | ".join(reports), [*metrics, *(found.name for found in units.values())], lines)


def _shared(reports: list[Report]) -> list[str]:
    found = [metric for report in reports for metric in report.metrics()]
    needed = min(2, len(reports))
    return [metric for metric in dict.fromkeys(found) if found.count(metric) >= needed]


def _ratio(amount: float, first: float) -> str:
    return f"×{number(amount / first)}" if first else BLANK


def _name(title: str, twin: bool) -> Text:
    return Text(f"{title} †", style="dim") if twin else Text(title, style="bold")


def _table(title: str, columns: list[str], lines: list[list[Text] | Text]) -> Group:
    """Cells below their columns, and between them lines of one text that open a section.

    Where there is not room for all columns, each sd stands below its mean; where there still is not, further columns
    follow in tables below, so that no cell is broken.
    """
    room = min(_WIDTH, terminal_width())
    whole = _widths(columns, lines, room)
    if not whole:
        lines = [_stacked(line) for line in lines]
    parts = [range(len(columns))] if whole or _widths(columns, lines, room) else _parts(columns, lines, room)
    drawn = []
    for part in parts:
        some = [[line[0], *(line[1 + index] for index in part)] if isinstance(line, list) else line for line in lines]
        drawn.append(_drawn([columns[index] for index in part], some, room))
    drawn[0].title, drawn[0].title_justify = Text(title), "left"
    marked = any(str(line[0]).endswith("†") for line in lines if isinstance(line, list))
    return Group(*drawn, *([Text("† twin: the plain baseline", style="table.caption")] if marked else []))


def _drawn(columns: list[str], lines: list[list[Text] | Text], room: int) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    widths = _widths(columns, lines, room)
    rest = room - sum(width + _GAP for width in widths) if widths else None
    drawn.add_column("", overflow="fold", max_width=rest)
    for index, column in enumerate(columns):
        drawn.add_column(Text(column), justify="right", overflow="fold", width=widths[index] if widths else None)
    for line in lines:
        if isinstance(line, list):
            drawn.add_row(*line)
        else:
            drawn.add_section()
            drawn.add_row(line)
    return drawn


def _parts(columns: list[str], lines: list[list[Text] | Text], room: int) -> list[range]:
    """The columns in as few parts as have room, at least one in each."""
    parts = [range(min(1, len(columns)))]
    for index in range(1, len(columns)):
        part = range(parts[-1].start, index + 1)
        some = [[line[0], *line[1 + part.start : 1 + part.stop]] for line in lines if isinstance(line, list)]
        if _widths(columns[part.start : part.stop], some, room):
            parts[-1] = part
        else:
            parts.append(range(index, index + 1))
    return parts


def _stacked(line: list[Text] | Text) -> list[Text] | Text:
    """The cells of a line with each sd below its mean."""
    if isinstance(line, Text):
        return line
    return [line[0], *(Text(cell.plain.replace(" ± ", "\n± ")) for cell in line[1:])]


def _widths(columns: list[str], lines: Sequence[list[Text] | Text], room: int) -> list[int]:
    """Widths that break no cell, with titles on one line if there is room, else in words; none where there is none."""
    rows = [line for line in lines if isinstance(line, list)]
    cells = [max(cell_len(part) for row in rows for part in row[i].plain.split("\n")) for i in range(1, len(rows[0]))]
    for titles in (columns, [max(column.split(), key=cell_len) for column in columns]):
        widths = [max(cell, cell_len(title)) for cell, title in zip(cells, titles, strict=True)]
        if _NAME_WIDTH + sum(width + _GAP for width in widths) <= room:
            return widths
    return []
