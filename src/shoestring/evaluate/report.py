"""The report of a run: on disk, in the terminal, beside other runs. What it holds is offered from here too."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.evaluate import records, tables
from shoestring.evaluate.page import page
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score
from shoestring.evaluate.tables import table, terminal_width

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["Pair", "Point", "Report", "Row", "Scatter", "Score", "compare", "read", "table", "terminal_width", "write"]

_KINDS = ("metric", "fact", "row", "pair", "note", "point", "scatter")


def write(report: Report, out: Path) -> None:
    """Write log.jsonl, report.html and, last, report.json into `out`; each is written beside and renamed.

    Lines of other kinds in log.jsonl are kept as they are; a line that a kill has torn is dropped. The page takes
    ledger.json and recipe.yaml in, where `out` has them.
    """
    out.mkdir(parents=True, exist_ok=True)
    record = records.as_record(report)
    log = out / "log.jsonl"
    kept = [line for line in _lines(log) if _kind(line) not in (None, *_KINDS)] if log.exists() else []
    _replace(log, "".join(f"{line}\n" for line in [*kept, *map(_json, _log_records(record))]))
    _replace(out / "report.html", page(report, out))
    rows = [records.row_record(row) for row in report.rows]
    _replace(out / "report.json", _json({"room": report.room, "recipe": report.recipe, "rows": rows}, indent=1) + "\n")


def read(out: Path) -> Report:
    """The report in `out`, from report.json and log.jsonl. Raises ValueError, naming file and key, if one is broken."""
    source, log = out / "report.json", out / "log.jsonl"
    for path in (source, log):
        if not path.is_file():
            raise ValueError(f"{path}: no such file, expected in the --out folder of a finished run")
    short = records.keys(_object(source.read_text(), f"{source}"), ("room", "recipe", "rows"), f"{source}")
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {kind: [] for kind in _KINDS}
    for index, line in enumerate(_lines(log), start=1):
        where = f"{log} line {index}"
        entry = _object(line, where)
        kind = entry.pop("kind", None)
        if kind in _KINDS:
            found[kind].append((where, entry))
    if len(found["metric"]) != 1:
        raise ValueError(f"{log}: expected one line of kind 'metric', found {len(found['metric'])}")
    return _assemble(short, found, source)


def compare(outs: Sequence[Path]) -> Group:
    """Rows of several runs side by side, each cost beside its ratio to the first row's; runs of different rooms too."""
    if not outs:
        raise ValueError("nothing to compare: name at least one --out folder of a finished run")
    names = [out.resolve().name for out in outs]
    named = [name if names.count(name) == 1 else str(out) for name, out in zip(names, outs, strict=True)]
    return tables.compare({name: read(out) for name, out in zip(named, outs, strict=True)})


def _log_records(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"kind": "metric", **record["metric"]},
        *({"kind": "fact", "name": name, "value": value} for name, value in record["facts"].items()),
        *({"kind": "row", "name": row["name"], "group": row["group"], "label": row["label"]} for row in record["rows"]),
        *({"kind": "pair", **pair} for pair in record["pairs"]),
        *({"kind": "note", "text": note} for note in record["notes"]),
        *({"kind": "point", **point} for point in record["points"]),
        *({"kind": "scatter", **scatter} for scatter in record.get("scatters", ())),
    ]


def _assemble(short: Any, found: dict[str, list[tuple[str, dict[str, Any]]]], source: Path) -> Report:
    where, metric = found["metric"][0]
    records.keys(metric, ("name", "lower_is_better"), where)
    shown = {records.keys(entry, ("name", "group", "label"), at)["name"]: entry for at, entry in found["row"]}
    rows = []
    for at, row in records.items(short, "rows", f"{source}"):
        records.keys(row, ("name", "twin", "scores", "cost"), at)
        if row["name"] not in shown:
            log = source.with_name("log.jsonl")
            raise ValueError(f"{log}: expected a line of kind 'row' for {row['name']!r}, found none")
        rows.append(records.parse_row({**row, **shown[row["name"]]}, at))
    facts = [(at, records.keys(entry, ("name", "value"), at)) for at, entry in found["fact"]]
    notes = [(at, records.keys(entry, ("text",), at)) for at, entry in found["note"]]
    parts = {
        "room": records.typed(short["room"], str, f"{source}: room"),
        "recipe": records.typed(short["recipe"], str, f"{source}: recipe"),
        "rows": tuple(rows),
        "points": tuple(records.parse_point(entry, at) for at, entry in found["point"]),
        "pairs": tuple(records.parse_pair(entry, at) for at, entry in found["pair"]),
        "notes": tuple(records.typed(entry["text"], str, f"{at}.text") for at, entry in notes),
        "facts": {entry["name"]: records.typed(entry["value"], str, f"{at}.value") for at, entry in facts},
        "metric": records.typed(metric["name"], str, f"{where}.name"),
        "lower_is_better": records.typed(metric["lower_is_better"], bool, f"{where}.lower_is_better"),
        "scatters": tuple(records.parse_scatter(entry, at) for at, entry in found["scatter"]),
    }
    return records.whole(parts, f"{source.parent}")


def _lines(log: Path) -> list[str]:
    return [line for line in log.read_text().split("\n") if line.strip()]


def _kind(line: str) -> str | None:
    """The kind of a line of the log, '' where it names none, None where it is torn."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return str(entry.get("kind", "")) if isinstance(entry, dict) else None


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error.msg} at character {error.pos}): expected an object") from None
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected a JSON object, found {records.shown(entry)}")
    return entry


def _json(record: Any, indent: int | None = None) -> str:
    return json.dumps(record, allow_nan=False, ensure_ascii=False, indent=indent)


def _replace(path: Path, text: str) -> None:
    """Write beside and rename, so that the file under its own name is always whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
