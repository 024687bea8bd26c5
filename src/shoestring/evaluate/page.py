"""The report as one HTML page that needs nothing beside it: no network, no script, light and dark, wide and narrow."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from shoestring.cost import Cost
from shoestring.evaluate import pictures, records, scatter, tables
from shoestring.evaluate.canvas import NARROW, WIDE, darkened
from shoestring.evaluate.savings import sentences
from shoestring.evaluate.scores import Report

_TEMPLATE = "page.html"


@dataclass(frozen=True)
class Picture:
    """One picture in its four looks, as data: addresses, with what to say where it cannot be seen."""

    title: str
    says: str
    light: str
    dark: str
    light_narrow: str
    dark_narrow: str


@dataclass(frozen=True)
class Phases:
    """What each phase cost, as text: the currencies that were spent, a line for each phase, and the total."""

    currencies: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]
    total: tuple[str, ...]


def page(report: Report, out: Path) -> str:
    """The page of a report, with the cost by phase and the recipe where `out` has its ledger.json and recipe.yaml.

    Raises ValueError, naming file and key, where ledger.json is broken.
    """
    import jinja2

    source = resources.files("shoestring.evaluate").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        source
    )
    ledger, recipe = out / "ledger.json", out / "recipe.yaml"
    return template.render(
        report=report,
        savings=[[_unbroken(sentence) for sentence in sentences(report, pair)] for pair in report.pairs],
        quality=_quality(report),
        curves=_curves(report),
        scatters=_scatters(report),
        grids=tables.grids(report),
        phases=phases(ledger) if ledger.exists() else None,
        recipe=recipe.read_text(encoding="utf-8") if recipe.exists() else "",
    )


def phases(ledger: Path) -> Phases:
    """The cost by phase in a ledger.json, as text. Raises ValueError, naming file and phase, where it is broken."""
    try:
        entries = json.loads(ledger.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{ledger}: not JSON ({error.msg} at character {error.pos}): expected costs by phase"
        ) from None
    if not isinstance(entries, dict):
        raise ValueError(f"{ledger}: expected an object of costs by phase, found {records.shown(entries)}")
    costs = {phase: records.cost(amounts, f"{ledger}: {phase or 'no phase'}") for phase, amounts in entries.items()}
    whole = sum(costs.values(), Cost())
    units = tables.spent([whole])
    lines = tuple((phase or "outside any phase", tables.costs(cost, units)) for phase, cost in costs.items())
    return Phases(tuple(unit.name for unit in units.values()), lines, tables.costs(whole, units))


def _unbroken(sentence: str) -> str:
    """A sentence whose figures no line break will part."""
    return re.sub(" (?=[±%])|(?<=±) ", "\N{NO-BREAK SPACE}", sentence)


def _quality(report: Report) -> Picture:
    says = f"The final {report.metric} of each row, {_over(report)}, against what one run costs. "
    says += "Lower is better." if report.lower_is_better else "Higher is better."
    return _picture("Quality against cost", says, *(pictures.quality(report, style) for style in (WIDE, NARROW)))


def _over(report: Report) -> str:
    several = any(row.scores[report.metric].n > 1 for row in report.rows if report.metric in row.scores)
    return "mean ± standard deviation over seeds" if several else "of one seed"


def _curves(report: Report) -> list[Picture]:
    if not any(report.measured(row.name) for row in report.rows):
        return []
    found = []
    for axis, word in {"step": "steps", "flops": "FLOPs", "seconds": "seconds"}.items():
        if not any(getattr(point, axis) for point in report.points):
            continue
        says = f"The {report.metric} of each row against {word}: {_over(report)}, twins dashed."
        drawn = (pictures.curves(report, axis, style) for style in (WIDE, NARROW))
        found.append(_picture(f"Against {word}", says, *drawn))
    return found


def _scatters(report: Report) -> list[Picture]:
    return [
        _picture(y, scatter.says(panels), *(scatter.cloud(panels, style) for style in (WIDE, NARROW)))
        for y, panels in scatter.pictured(report).items()
    ]


def _picture(title: str, says: str, wide: str, narrow: str) -> Picture:
    return Picture(title, says, *(_address(svg) for svg in (wide, darkened(wide), narrow, darkened(narrow))))


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
