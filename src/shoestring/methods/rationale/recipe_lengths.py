"""How many texts and reasons are longer than what a student reads and writes, so that they are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from shoestring.methods.rationale.encode import Coder
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import LABEL, RATIONALE
from shoestring.methods.rationale.recipe_ground import WORDING

_LOOKED_AT = 1000  # examples, spread evenly
_UNCUT = 10**9


def cut(coder: Coder, examples: Sequence[Example], reasons: bool) -> Iterator[str]:
    """A sentence where texts are cut, and one where reasons are. reasons: whether they are written at all."""
    some = examples[:: -(-len(examples) // _LOOKED_AT)]
    uncut = replace(coder, source_tokens=_UNCUT, target_tokens=_UNCUT)
    texts = [WORDING.label + example.text for example in some]
    given = [one.rationale for one in some if one.rationale and reasons]
    for name, lines, room in (
        (f"texts ({LABEL} task)", uncut.sources(texts), coder.source_tokens),
        (f"reasons ({RATIONALE} task)", uncut.targets(given), coder.target_tokens),
    ):
        long = sum(len(ids) > room for ids in lines)
        if long:
            yield f"{long:,} of {len(lines):,} {name} are longer than {room} tokens and are cut"
