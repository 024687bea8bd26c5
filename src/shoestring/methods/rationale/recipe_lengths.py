"""How many texts and reasons are longer than what a student reads and writes, so that they are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from shoestring.methods.rationale import filters
from shoestring.methods.rationale.encode import Coder
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import LABEL, RATIONALE, Way, lessons
from shoestring.methods.rationale.recipe_ground import WORDING

_LOOKED_AT = 1000  # of each kind, spread evenly
_UNCUT = 10**9
_READ: dict[Way, str] = {"informed": "texts with their reasons"}
_WRITTEN: dict[tuple[Way, str], str] = {
    ("two-task", RATIONALE): f"reasons ({RATIONALE} task)",
    ("single-task", LABEL): "reasons with their labels",
}


def cut(coder: Coder, examples: Sequence[Example], ways: Iterable[Way]) -> Iterator[str]:
    """A sentence for each kind of text that one of the ways has cut: what it reads, and what it is to write."""
    uncut = replace(coder, source_tokens=_UNCUT, target_tokens=_UNCUT)
    lengths: dict[tuple[str, int], list[int]] = {}
    sampled: set[str] = set()
    for way in ways:
        given = [filters.unanswered(one) for one in examples] if way == "informed" else examples
        try:
            found = lessons(given, way, WORDING)
        except ValueError:  # nothing to learn, nothing to cut
            continue
        for task, taught in found.items():
            some = taught[:: -(-len(taught) // _LOOKED_AT)]
            pairs = uncut.pairs(some)
            read = _READ.get(way, f"texts ({LABEL} task)")
            written = _WRITTEN.get((way, task), f"labels ({task} task)")
            sampled |= {read, written} if len(some) < len(taught) else set()
            lengths.setdefault((read, coder.source_tokens), [len(pair.source) for pair in pairs])
            lengths.setdefault((written, coder.target_tokens), [len(pair.target) for pair in pairs])
    for (name, room), every in lengths.items():
        long = sum(length > room for length in every)
        if long:
            looked = " that were looked at" if name in sampled else ""
            yield f"{long:,} of {len(every):,} {name}{looked} are longer than {room} tokens and are cut"
