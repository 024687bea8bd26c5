"""When two labels are the same: by case, spaces and full stops for words, by value for expressions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from shoestring.methods.rationale import arithmetic

_AROUND = " .*_`\"'“”‘’"


def folded(text: str) -> str:
    """A text without what does not tell labels apart: case, runs of spaces, unseen characters, a final full stop."""
    seen = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen).casefold().split()).removesuffix(".").rstrip()


def distinct(options: Sequence[str]) -> tuple[str, ...]:
    """The options, each kept once, in their order."""
    kept: dict[str, str] = {}
    for option in options:
        kept.setdefault(folded(option) or option, option)
    return tuple(kept.values())


def match(text: str, options: Sequence[str]) -> str | None:
    """The one option that a text is, as the options write it; None where it is none of them, or several."""
    if text in options:
        return text
    for fold in (folded, _bare):
        wanted = fold(text)
        found = {option for option in options if wanted and fold(option) == wanted}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def same(first: str, second: str, options: Sequence[str] = (), expression: bool = False) -> bool:
    """Whether two labels are one: of the options the same, else alike in words, or by value where they are expressions.

    Dates, scores and ratios look like expressions and are none: who asks has to say so.
    """
    if options:
        one, other = match(first, options), match(second, options)
        if one is not None or other is not None:
            return one == other
    return folded(first) == folded(second) or (expression and arithmetic.same(first, second))


def tokens(text: str) -> list[str]:
    """The words of a folded text, without signs."""
    return re.findall(r"\w+", folded(text))


def _bare(text: str) -> str:
    """Also without quotation marks and markdown around it."""
    return folded(text.strip(_AROUND))
