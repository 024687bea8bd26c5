"""Reports as JSON and back: what a report's records look like, and the check that they do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from shoestring.cost import CURRENCIES, Cost
from shoestring.evaluate.scores import Pair, Point, Report, Row, Scatter, Score

Kind = TypeVar("Kind", bound="str | int")


def as_record(report: Report) -> dict[str, Any]:
    """A report as one JSON object; `parse` is its inverse."""
    record: dict[str, Any] = {
        "room": report.room,
        "recipe": report.recipe,
        "metric": {"name": report.metric, "lower_is_better": report.lower_is_better},
        "rows": [{**row_record(row), "group": row.group, "label": row.label} for row in report.rows],
        "points": [_point_record(point) for point in report.points],
        "pairs": [{"method": pair.method, "twin": pair.twin} for pair in report.pairs],
        "notes": list(report.notes),
        "facts": dict(report.facts),
    }
    if report.scatters:
        record["scatters"] = [_scatter_record(scatter) for scatter in report.scatters]
    return record


def row_record(row: Row) -> dict[str, Any]:
    """A row as report.json holds it: without its group and its label."""
    scores = {
        metric: {"mean": float(score.mean), "sd": float(score.sd), "n": score.n} for metric, score in row.scores.items()
    }
    cost = {currency: _plain(amount) for currency, amount in row.cost.as_dict().items()}
    return {"name": row.name, "twin": row.twin, "scores": scores, "cost": cost}


def parse(record: Mapping[str, Any], where: str) -> Report:
    """The report of a record. Raises ValueError, naming `where` and the key, if one is missing or wrong."""
    fields = ("room", "recipe", "metric", "rows", "points", "pairs", "notes", "facts")
    keys(record, fields, where, optional=("scatters",))
    metric = keys(record["metric"], ("name", "lower_is_better"), f"{where}: metric")
    facts = record["facts"]
    if not isinstance(facts, dict):
        raise ValueError(f"{where}: facts: expected an object, found {shown(facts)}")
    parts = {
        "room": typed(record["room"], str, f"{where}: room"),
        "recipe": typed(record["recipe"], str, f"{where}: recipe"),
        "rows": tuple(parse_row(row, at) for at, row in items(record, "rows", where)),
        "points": tuple(parse_point(point, at) for at, point in items(record, "points", where)),
        "pairs": tuple(parse_pair(pair, at) for at, pair in items(record, "pairs", where)),
        "notes": tuple(typed(note, str, at) for at, note in items(record, "notes", where)),
        "facts": {name: typed(value, str, f"{where}: facts.{name}") for name, value in facts.items()},
        "metric": typed(metric["name"], str, f"{where}: metric.name"),
        "lower_is_better": typed(metric["lower_is_better"], bool, f"{where}: metric.lower_is_better"),
        "scatters": tuple(
            parse_scatter(scatter, at)
            for at, scatter in (items(record, "scatters", where) if "scatters" in record else ())
        ),
    }
    return whole(parts, where)


def whole(parts: Mapping[str, Any], where: str) -> Report:
    """The report of checked parts; what is wrong between them is told with `where` it was found."""
    try:
        return Report(**parts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def cost(amounts: Any, where: str) -> Cost:
    """A cost from its record: any of the seven currencies, each a finite number."""
    if not isinstance(amounts, dict):
        raise ValueError(f"{where}: expected an object of currencies, found {shown(amounts)}")
    for currency in amounts:
        if currency not in CURRENCIES:
            raise ValueError(f"{where}: unknown currency {currency!r}, expected one of {', '.join(CURRENCIES)}")
    return Cost(**{currency: _number(amount, f"{where}.{currency}") for currency, amount in amounts.items()})


def keys(record: Any, expected: Sequence[str], where: str, optional: Sequence[str] = ()) -> Mapping[str, Any]:
    """The record, if it is an object of exactly these keys, the optional ones or not."""
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object with the keys {', '.join(expected)}, found {shown(record)}")
    for key in expected:
        if key not in record:
            raise ValueError(f"{where}: the key {key!r} is missing, expected {', '.join(expected)}")
    for key in record:
        if key not in expected and key not in optional:
            raise ValueError(f"{where}: unknown key {key!r}, expected {', '.join(expected)}")
    return record


def shown(value: Any) -> str:
    """A value on one short line, for a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_row(record: Any, where: str) -> Row:
    keys(record, ("name", "twin", "scores", "cost", "group", "label"), where)
    found = record["scores"]
    if not isinstance(found, dict):
        raise ValueError(f"{where}.scores: expected an object of scores, found {shown(found)}")
    return Row(
        name=typed(record["name"], str, f"{where}.name"),
        twin=typed(record["twin"], bool, f"{where}.twin"),
        scores={metric: _score(score, f"{where}.scores.{metric}") for metric, score in found.items()},
        cost=cost(record["cost"], f"{where}.cost"),
        group=typed(record["group"], str, f"{where}.group"),
        label=typed(record["label"], str, f"{where}.label"),
    )


def _score(record: Any, where: str) -> Score:
    keys(record, ("mean", "sd", "n"), where)
    mean, sd = _number(record["mean"], f"{where}.mean"), _number(record["sd"], f"{where}.sd")
    count = typed(record["n"], int, f"{where}.n")
    try:
        return Score(mean, sd, count)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def parse_point(record: Any, where: str) -> Point:
    keys(record, ("row", "seed", "step", "tokens", "flops", "seconds", "scores"), where)
    if not isinstance(record["scores"], dict):
        raise ValueError(f"{where}.scores: expected an object of numbers, found {shown(record['scores'])}")
    return Point(
        row=typed(record["row"], str, f"{where}.row"),
        seed=typed(record["seed"], int, f"{where}.seed"),
        step=typed(record["step"], int, f"{where}.step"),
        tokens=_number(record["tokens"], f"{where}.tokens"),
        flops=_number(record["flops"], f"{where}.flops"),
        seconds=_number(record["seconds"], f"{where}.seconds"),
        scores={metric: _number(value, f"{where}.scores.{metric}") for metric, value in record["scores"].items()},
    )


def parse_pair(record: Any, where: str) -> Pair:
    keys(record, ("method", "twin"), where)
    return Pair(typed(record["method"], str, f"{where}.method"), typed(record["twin"], str, f"{where}.twin"))


def parse_scatter(record: Any, where: str) -> Scatter:
    keys(record, ("title", "x", "y", "points", "says"), where, optional=("joined",))
    words = {name: typed(record[name], str, f"{where}.{name}") for name in ("title", "x", "y", "says")}
    points = []
    for at, point in items(record, "points", where):
        if not isinstance(point, list) or len(point) != 3:
            raise ValueError(f"{at}: expected a list of label, x and y, found {shown(point)}")
        label, x, y = point
        points.append((typed(label, str, f"{at}: label"), _number(x, f"{at}: x"), _number(y, f"{at}: y")))
    try:
        return Scatter(
            points=tuple(points), joined=typed(record.get("joined", False), bool, f"{where}.joined"), **words
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _scatter_record(scatter: Scatter) -> dict[str, Any]:
    points = [[label, _plain(x), _plain(y)] for label, x, y in scatter.points]
    record = {"title": scatter.title, "x": scatter.x, "y": scatter.y, "points": points, "says": scatter.says}
    return record | ({"joined": True} if scatter.joined else {})


def _point_record(point: Point) -> dict[str, Any]:
    return {
        "row": point.row,
        "seed": int(point.seed),
        "step": int(point.step),
        "tokens": _plain(point.tokens),
        "flops": _plain(point.flops),
        "seconds": _plain(point.seconds),
        "scores": {metric: float(value) for metric, value in point.scores.items()},
    }


def _plain(value: float) -> float:
    """An integer where it is one that a double holds exactly: counts then read as counts."""
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def items(record: Mapping[str, Any], key: str, where: str) -> Iterator[tuple[str, Any]]:
    """The entries of a list in a record, each with the words that say where it stands."""
    if not isinstance(record[key], list):
        raise ValueError(f"{where}: {key}: expected a list, found {shown(record[key])}")
    for index, item in enumerate(record[key]):
        yield f"{where}: {key}[{index}]", item


def typed(value: Any, kind: type[Kind], where: str) -> Kind:
    """The value, if it is of that kind (true is no integer)."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        name = {str: "a string", int: "an integer", bool: "true or false"}[kind]
        raise ValueError(f"{where}: expected {name}, found {shown(value)}")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, found {shown(value)}")
    return value
