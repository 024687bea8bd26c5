"""Where a reason gives its answer away: sentences that state it, and the label named word for word."""

from __future__ import annotations

import re
from collections.abc import Collection

from shoestring.methods.rationale import arithmetic, labels

# "So the answer is …", as a sentence, after a lead-in such as "Of these choices,", or as the last part of one
_STATED = re.compile(
    r"(?P<begin>^|(?<=[.!?\n])|,(?=[ \t]+(?:so|thus|hence|therefore)\b))[ \t]*[*_]*"
    r"(?:(?:of|from|among) [^.!?,\n]{1,80}, )?"
    r"(?:(?:and|so|thus|hence|therefore|then)\b,? ){0,3}"
    r"(?:(?:the|my) (?:[a-z]+ )?answer(?: is\b:?|:)|(?:final )?answer:)"
    r"(?P<rest>[^\n]*?)(?P<end>[.!?][*_]*(?=\s|$)|(?=\n)|$)",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\([a-z]\)", re.IGNORECASE)


def without_answer(reason: str, answers: Collection[str] | None) -> str:
    """A reason without the sentences, or last parts of sentences, that state one of the answers.

    "The answer must be a place" stays: it states none. For answers that are expressions, any number is one. Where it is
    not known what may be one (None), whatever is stated is.
    """

    def cut(found: re.Match[str]) -> str:
        rest = found["rest"]
        stated = (
            answers is None
            or _LETTER.search(rest)
            or any(names(rest, answer) or _number(rest, answer) for answer in answers)
        )
        return (found["end"] if found["begin"] else "") if stated else found.group()

    return _STATED.sub(cut, reason).strip()


def names(reason: str, label: str) -> bool:
    """Whether a reason holds a label word for word; of an expression, its signs and numbers, with or without spaces."""
    written = _expression(label)
    if written is None:
        wanted, words = labels.tokens(label), labels.tokens(reason)
        return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in range(len(words)))
    wanted_signs = written.replace(" ", "").removeprefix("(").removesuffix(")")
    signs = re.sub(r"\s", "", reason)
    return re.search(rf"(?<![0-9.]){re.escape(wanted_signs)}(?!\.?[0-9])", signs) is not None


def _number(rest: str, answer: str) -> bool:
    return _expression(answer) is not None and re.search("[0-9]", rest) is not None


def _expression(label: str) -> str | None:
    try:
        return arithmetic.normalised(label)
    except ValueError:
        return None
