"""Which of a teacher's reasons a student should not learn, each filter with the count of what it took out.

A filter judges reasons: an example without one passes. One whose teacher was told the gold label is judged as any other
and stays marked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from shoestring.methods.rationale import labels, leaks
from shoestring.methods.rationale.examples import Example

Judged = list[Example | None]  # one for each that was given, in order: it, it with a changed reason, or None for out
SHOWN = 3
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


@dataclass(frozen=True)
class Removed:
    """What a filter did.

    judged   how many examples had a reason that it could judge
    count    how many of them it took out
    examples the first few of these
    changed  of how many it changed the reason
    holding  how many that passed `leak` name their gold label all the same
    again    how many that `duplicates` took out are of an example that was there before; the others fit any
    """

    name: str
    judged: int
    count: int
    examples: tuple[Example, ...] = ()
    changed: int = 0
    holding: int = 0
    again: int = 0

    @property
    def share(self) -> float:
        return self.count / self.judged if self.judged else 0.0


@dataclass(frozen=True)
class Filtered:
    """The examples that are left, and what each filter took out, in the order that they were applied in."""

    examples: list[Example]
    removed: tuple[Removed, ...]

    def table(self) -> str:
        """A line a filter: its name, how many reasons it judged and took out, its share, and what else is to know."""
        lines = [f"{'filter':<12}{'judged':>8}{'out':>8}{'share':>8}"]
        for one in self.removed:
            more = [f"{one.changed} shortened"] if one.changed else []
            more += [f"{one.holding} still name the label"] if one.holding else []
            if one.name == "duplicates" and one.count:
                more += [f"{one.again} of an example there before, {one.count - one.again} given for many texts"]
            line = f"{one.name:<12}{one.judged:>8}{one.count:>8}{one.share:>8.1%}  {', '.join(more)}"
            lines += [line.rstrip(), *(f"    {_brief(example)}" for example in one.examples)]
        return "\n".join(lines)


def agrees(examples: Sequence[Example]) -> tuple[list[Example], Removed]:
    """Take out reasons for another label than the gold one: beside it they would teach a contradiction.

    Expressions agree by value. A reason whose label could not be read is for another; one of an example without a gold
    label passes. Zelikman et al. 2022 (STaR) keep the same.
    """
    return _taken("agrees", examples, _agrees(examples))


def consistent(examples: Sequence[Example], threshold: float = 0.5) -> tuple[list[Example], Removed]:
    """Take out reasons for a label that less than `threshold` of the samples gave. A teacher asked once passes."""
    return _taken("consistent", examples, _consistent(examples, threshold))


def leak(examples: Sequence[Example], remove: bool = False) -> tuple[list[Example], Removed]:
    """Cut sentences such as "So the answer is …" out of reasons, and take out those of which nothing is left.

    remove  whether to take out reasons that name the gold label all the same. Two tasks with separate outputs lose
            nothing by them; a student that reads the reason would.
    """
    return _taken("leak", examples, _leak(examples, remove))


def length(examples: Sequence[Example], least: int = 1, most: int = 256) -> tuple[list[Example], Removed]:
    """Take out reasons of fewer than `least` or more than `most` words; in Chinese, Japanese or Korean, characters."""
    return _taken("length", examples, _length(examples, least, most))


def duplicates(examples: Sequence[Example], texts: int = 3) -> tuple[list[Example], Removed]:
    """Take out reasons of an example that was there before (same text and label), and those that fit anything.

    texts  how many different texts one reason may be given for; all of a reason given for more are out
    """
    return _taken("duplicates", examples, _duplicates(examples, texts))


def apply(
    examples: Iterable[Example],
    names: Sequence[str],
    drop: Literal["rationale", "example"] = "rationale",
    options: Mapping[str, Mapping[str, float]] | None = None,
) -> Filtered:
    """Apply filters by name, in order.

    drop     "rationale" keeps an example whose reason is out for its label alone; "example" takes it out whole
    options  the filters' arguments, such as {"length": {"least": 5}}
    Raises ValueError where a filter, or an argument of it, is not known.
    """
    if drop not in ("rationale", "example"):
        raise ValueError(f"drop: {drop!r}, expected 'rationale' or 'example'")
    if unused := sorted(set(options or {}) - set(names)):
        raise ValueError(f"options of the filter {unused[0]!r}, which is not applied: name it, or leave them out")
    current, removed = list(examples), []
    for name in names:
        judged = _judge(name, (options or {}).get(name, {}))(current)
        removed.append(_taken(name, current, judged)[1])
        bare = [replace(one, rationale=None) if drop == "rationale" else None for one in current]
        pairs = zip(judged, bare, strict=True)
        current = [one for kept, without in pairs if (one := kept if kept is not None else without) is not None]
    return Filtered(current, tuple(removed))


def _judge(name: str, options: Mapping[str, float]) -> Callable[[Sequence[Example]], Judged]:
    if name not in _KNOWN:
        raise ValueError(f"filter {name!r}: expected one of {', '.join(_KNOWN)}")
    judge, defaults = _KNOWN[name]
    for key, held in options.items():
        if key not in defaults:
            raise ValueError(f"filter {name!r} has no option {key!r}: expected {', '.join(defaults) or 'none'}")
        if type(held) is not type(defaults[key]) and (type(held), type(defaults[key])) != (int, float):
            raise ValueError(f"filter {name!r}: {key} is {held!r}, expected a value such as {defaults[key]!r}")
    return partial(judge, **{**defaults, **options})


def _taken(name: str, examples: Sequence[Example], judged: Judged) -> tuple[list[Example], Removed]:
    pairs = list(zip(examples, judged, strict=True))
    kept = [after for after in judged if after is not None]
    out = [before for before, after in pairs if after is None]
    changed = sum(after is not None and before.rationale != after.rationale for before, after in pairs)
    holding = sum(names_label(one) for one in kept) if name == "leak" else 0
    again = sum(_repeated(examples)) if name == "duplicates" else 0
    needed = {"agrees": "label", "consistent": "agreement"}.get(name, "rationale")
    able = sum(one.rationale is not None and getattr(one, needed) is not None for one in examples)
    return kept, Removed(name, able, len(out), tuple(out[:SHOWN]), changed, holding, again)


def _agrees(examples: Sequence[Example]) -> Judged:
    def agreeing(one: Example) -> bool:
        if one.rationale is None or one.label is None:
            return True
        return one.teacher_label is not None and labels.same(one.label, one.teacher_label, one.options, one.expression)

    return [one if agreeing(one) else None for one in examples]


def _consistent(examples: Sequence[Example], threshold: float = 0.5) -> Judged:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: {threshold!r}, expected a part of the samples, from 0 to 1")
    unsure = (one.rationale is not None and one.agreement is not None and one.agreement < threshold for one in examples)
    return [None if out else one for one, out in zip(examples, unsure, strict=True)]


def _leak(examples: Sequence[Example], remove: bool = False) -> Judged:
    judged: Judged = []
    for one in examples:
        if one.rationale is None:
            judged.append(one)
            continue
        reason = leaks.without_answer(one.rationale, _answers(one))
        short = one if reason == one.rationale else replace(one, rationale=reason)
        judged.append(short if reason and not (remove and names_label(short)) else None)
    return judged


def _length(examples: Sequence[Example], least: int = 1, most: int = 256) -> Judged:
    if not 0 <= least <= most:
        raise ValueError(f"least {least!r} and most {most!r}: expected numbers of words, in order")
    sizes = (None if one.rationale is None else len(_WORD.findall(one.rationale)) for one in examples)
    return [one if size is None or least <= size <= most else None for one, size in zip(examples, sizes, strict=True)]


def _duplicates(examples: Sequence[Example], texts: int = 3) -> Judged:
    given: dict[str, set[str]] = {}
    for one in examples:
        if one.rationale is not None:
            given.setdefault(labels.folded(one.rationale), set()).add(labels.folded(one.text))

    def wide(one: Example) -> bool:
        return one.rationale is not None and len(given[labels.folded(one.rationale)]) > texts

    return [None if again or wide(one) else one for one, again in zip(examples, _repeated(examples), strict=True)]


def unanswered(one: Example) -> Example:
    """The example, its reason without the sentences that tell an answer: for who reads it beside the text.

    Of one of the options; where there are none, of any. No label counts, gold or the teacher's: at prediction there is
    none, and a student is to read what it was taught on. Where nothing is left of a reason, there is none.
    """
    if one.rationale is None:
        return one
    return replace(one, rationale=leaks.without_answer(one.rationale, one.options or None) or None)


def _repeated(examples: Sequence[Example]) -> list[bool]:
    """Whether each has a reason and its text and label were there before, with one."""
    seen: set[tuple[str, str]] = set()
    found = []
    for one in examples:
        key = (labels.folded(one.text), labels.folded(one.label or ""))
        found.append(one.rationale is not None and key in seen)
        if one.rationale is not None:
            seen.add(key)
    return found


def _answers(one: Example) -> set[str]:
    return {answer for answer in (*one.options, one.label, one.teacher_label) if answer is not None}


def names_label(one: Example) -> bool:
    """Whether its reason names its gold label word for word."""
    return one.rationale is not None and one.label is not None and leaks.names(one.rationale, one.label)


def _brief(one: Example) -> str:
    reason = " ".join((one.rationale or "").split())
    shown = reason if len(reason) <= 60 else reason[:57] + "..."
    return f"gold {one.label!r}, teacher {one.teacher_label!r}: {shown}"


_KNOWN: dict[str, tuple[Callable[..., Judged], dict[str, float]]] = {
    "agrees": (_agrees, {}),
    "consistent": (_consistent, {"threshold": 0.5}),
    "leak": (_leak, {"remove": False}),
    "length": (_length, {"least": 1, "most": 256}),
    "duplicates": (_duplicates, {"texts": 3}),
}
