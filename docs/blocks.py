"""What stands in a document's blocks: tables, sentences and pictures of kept results, and the table of the rooms."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from shoestring.evaluate import pictures, records, scatter, tables
from shoestring.evaluate.quantities import number
from shoestring.evaluate.report import Report
from shoestring.evaluate.savings import savings

ORIGIN = ("command", "date", "commit", "machine")
NAME = r"[a-z0-9]+(?:[_.-][a-z0-9]+)*"
RESULTS = re.compile(rf"results ({NAME})/({NAME}) (table|savings|notes|picture|scatter)")
_RECORD = ("room", "recipe", "metric", "rows", "points", "pairs", "notes", "facts")
PICTURES = ("picture", "scatter")


def block(path: Path, what: str, root: Path) -> str:
    """The Markdown of the block that a document at `path` asks for. Raises ValueError where there is no such block."""
    if what == "rooms":
        return _rooms(path, root)
    asked = RESULTS.fullmatch(what)
    if asked is None:
        raise ValueError(
            f"{path}: unknown block {what!r}: expected 'results ROOM/RECIPE table', 'savings', 'notes', 'picture' "
            "or 'scatter'"
        )
    room, recipe, kind = asked.groups()
    if room == "benchmarks":
        if kind != "table":
            raise ValueError(f"{path}: the block {what!r}: a benchmark has a table only")
        return _benchmark(root, recipe)
    report, origin = load(root, room, recipe)
    if kind in PICTURES:
        return "".join(_picture(path, drawing) for drawing in drawings(root, room, recipe, kind))
    if kind == "savings":
        return "".join(f"- {_escaped(sentence)}\n" for sentence in savings(report))
    if kind == "notes":
        return "".join(f"- {_escaped(note)}\n" for note in report.notes)
    return _rows(report) + origin


def _rows(report: Report) -> str:
    return "\n".join(_grid(found) for found in tables.grids(report))


def _grid(found: tables.Grid) -> str:
    grouped = any(line.group for line in found.lines)
    head = [*([""] if grouped else []), "", *found.metrics, *found.currencies]
    rows = []
    for line in found.lines:
        title = f"{line.title} (twin)" if line.twin else line.title
        rows.append([*([line.group] if grouped else []), title, *line.scores, *line.costs])
    return _table(head, rows, left=1 + grouped)


def load(root: Path, room: str, recipe: str) -> tuple[Report, str]:
    """The report that is kept, and the line that says where it comes from."""
    path = _results(root, room, recipe)
    expected = ("room", "recipe", *ORIGIN, *_RECORD[2:], "savings")
    result = records.keys(_json(path), expected, f"{path}", optional=("scatters",))
    record = {key: result[key] for key in (*_RECORD, "scatters") if key in result}
    return records.parse(record, f"{path}"), _origin(result)


def _benchmark(root: Path, name: str) -> str:
    path = _results(root, "benchmarks", name)
    result = _json(path)
    for key in ("benchmark", *ORIGIN, "rows"):
        if key not in result:
            raise ValueError(f"{path}: the key {key!r} is missing: run the benchmark again with --json")
    rows = [row for _, row in records.items(result, "rows", f"{path}")]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    return _table(columns, cells, left=1) + _origin(result)


def _cell(value: Any) -> str:
    if value is None:
        return tables.BLANK
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value, 4) if isinstance(value, int | float) else str(value)


def _rooms(path: Path, root: Path) -> str:
    """The table of the rooms: those that stand as their cards have it, the others as planned."""
    standing = {card.parent.name: _front_matter(card) for card in cards(root)}
    source = root / "docs" / "rooms.yaml"
    entries = {}
    for entry in yaml.safe_load(source.read_text(encoding="utf-8")):
        records.keys(entry, ("name", "paper", "sentence"), f"{source}")
        entries[entry["name"]] = {**entry, "state": "planned"}
    rows = []
    for name, entry in (entries | standing).items():
        address = os.path.relpath(root / "src" / "shoestring" / "methods" / name / "README.md", path.parent)
        title = f"[`{name}`]({address})" if name in standing else f"`{name}`"
        rows.append([title, *(str(entry[key]) for key in ("paper", "sentence", "state"))])
    return _table(["room", "from", "in one sentence", "state"], rows, left=4)


def _front_matter(card: Path) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)^---$", card.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"{card}: expected front matter between two lines of ---")
    entry = dict(
        records.keys(yaml.safe_load(found[1]), ("name", "paper", "sentence", "state"), f"{card}: front matter")
    )
    if entry["name"] != card.parent.name:
        raise ValueError(f"{card}: front matter: name: expected the folder's name {card.parent.name!r}")
    return entry


def cards(root: Path) -> list[Path]:
    return sorted((root / "src" / "shoestring" / "methods").glob("*/README.md"))


@dataclass(frozen=True)
class Drawing:
    """A picture of kept results: its files for light and dark ground, what to say where it is not seen, and its SVG."""

    light: Path
    dark: Path
    says: str
    draw: Callable[[], str]


def drawings(root: Path, room: str, recipe: str, kind: str) -> list[Drawing]:
    """The pictures that a block shows: of kind 'picture' one, of kind 'scatter' one for each y."""
    report, _ = load(root, room, recipe)
    if kind == "picture":
        says = " ".join([f"{report.room}, {report.recipe}: {report.metric} against steps.", *savings(report)[:1]])
        return [_drawing(root, f"{room}-{recipe}", says, partial(pictures.curves, report, "step"))]
    clouds = scatter.pictured(report)
    if not clouds:
        raise ValueError(f"{_results(root, room, recipe)}: the report has no scatters that a block could show")
    return [
        _drawing(root, f"{room}-{recipe}-scatter{number}", scatter.says(panels), partial(scatter.cloud, panels))
        for number, panels in enumerate(clouds.values(), start=1)
    ]


def _drawing(root: Path, name: str, says: str, draw: Callable[[], str]) -> Drawing:
    light, dark = (root / "docs" / "pictures" / f"{name}-{ground}.svg" for ground in ("light", "dark"))
    return Drawing(light, dark, says, draw)


def _picture(path: Path, drawing: Drawing) -> str:
    light, dark = (os.path.relpath(file, path.parent) for file in (drawing.light, drawing.dark))
    return (
        f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
        f'<img src="{light}" alt="{html.escape(drawing.says)}" width="100%">\n</picture>\n'
    )


def seal(root: Path, room: str, recipe: str) -> str:
    """What a picture begins with. Its bytes depend on matplotlib's version, so a check asks for its source alone."""
    digest = hashlib.sha256(_results(root, room, recipe).read_bytes()).hexdigest()
    return f"<!-- drawn from results of sha256 {digest} -->\n"


def _results(root: Path, room: str, name: str) -> Path:
    path = root / "results" / room / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such results: run the recipe, then `python docs/cards.py keep OUT`")
    return path


def _origin(result: Any) -> str:
    commit = re.sub(r"^([0-9a-f]{12})[0-9a-f]+", r"\1", str(result["commit"]))
    return f"\n`{result['command']}`, {result['date']}, commit `{commit}`, on {_escaped(result['machine'])}.\n"


def _table(head: list[str], rows: list[list[str]], left: int) -> str:
    """A Markdown table, its first `left` columns set to the left."""
    rule = [":--" if index < left else "--:" for index in range(len(head))]
    lines = [[_escaped(cell) for cell in head], rule, *([_escaped(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error.msg} at character {error.pos})") from None
