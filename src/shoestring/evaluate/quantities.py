"""Numbers as people read them: significant digits, mean ± sd, costs in units of a fitting size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from shoestring.evaluate.scores import Score


@dataclass(frozen=True)
class Unit:
    """What a quantity is counted in: `name`, of `size` base units."""

    name: str
    size: float


def _decimal(name: str, *prefixes: str) -> tuple[Unit, ...]:
    powers = {"": 0, "k": 3, "M": 6, "G": 9, "B": 9, "T": 12, "P": 15, "E": 18, "Z": 21}
    return tuple(Unit(name.format(prefix).strip(), 10.0 ** powers[prefix]) for prefix in prefixes)


_UNITS = {
    "step": (Unit("steps", 1),),
    "flops": _decimal("{}FLOP", "", "M", "G", "T", "P", "E", "Z"),
    "tokens": _decimal("{} tokens", "", "k", "M", "B"),
    "labels": _decimal("{} labels", "", "k", "M"),
    "teacher_tokens": _decimal("{} teacher tokens", "", "k", "M", "B"),
    "bytes_sent": _decimal("{}B sent", "", "k", "M", "G", "T"),
    "seconds": (Unit("s", 1), Unit("min", 60), Unit("h", 3600)),
    "peak_bytes": _decimal("{}B peak", "", "k", "M", "G", "T"),
}


def unit(currency: str, amounts: Iterable[float]) -> Unit:
    """The unit that suits the largest of the amounts; minutes from ten minutes on, hours from three hours on."""
    largest = max(amounts, default=0.0)
    patience = {"min": 10, "h": 3}
    fitting = [found for found in _UNITS[currency] if largest >= found.size * patience.get(found.name, 1)]
    return fitting[-1] if fitting else _UNITS[currency][0]


def number(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent; digits before the point are never dropped."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    places = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{value:.{places}f}" if places > 0 else f"{value:.0f}"


def plus_minus(score: Score, scale: float = 1.0) -> str:
    """Mean ± sd, the sd to one significant digit (two where it begins with 1); of one seed the mean alone."""
    mean, sd = score.mean * scale, score.sd * scale
    if score.n == 1:
        return number(mean, 4)
    if sd == 0:
        return f"{number(mean, 4)} ± 0"
    leading = f"{sd:.1e}"
    places = min(6, max(0, (1 if leading.startswith("1") else 0) - int(leading.split("e")[1])))
    return f"{mean:z.{places}f} ± {sd:.{places}f}"


def percent(score: Score) -> str:
    """A fraction in percent, to whole percents; to tenths where the sd is below one percent."""
    mean, sd = 100 * score.mean, 100 * score.sd
    if score.n == 1:
        return f"{mean:.0f} %"
    places = 1 if 0 < sd < 0.95 else 0
    return f"{mean:z.{places}f} ± {sd:.{places}f} %"


def seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
