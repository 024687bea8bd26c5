"""Reasoning chains made by a program: a few assignments, what follows from them, and the program as their teacher.

q=3;b=5;k=b+q;?k        the text: any letters, none of which has a place or a meaning of its own
5+3=8                   the reason, one step a derived letter with the values filled in, modulo ten
8                       the label
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np

from shoestring.methods.rationale.examples import Example

DIGITS = tuple("0123456789")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_TEXT = re.compile(r"(?:[a-z]=(?:[0-9]+|[a-z][+-][a-z]);)+\?[a-z]")


@dataclass(frozen=True)
class Shape:
    """How hard a chain is: letters that are given a digit, and letters that are derived, each from two before it."""

    given: int = 2
    derived: int = 1

    def __post_init__(self) -> None:
        if self.given < 2 or self.derived < 1 or self.given + self.derived > len(_LETTERS):
            raise ValueError(
                f"chains of {self.given} given and {self.derived} derived letters: expected two given or more, one "
                f"derived or more, and {len(_LETTERS)} together at most"
            )


def chains(shape: Shape, count: int, seed: int, without: frozenset[str] = frozenset()) -> list[Example]:
    """`count` different chains with their labels; none of the texts in `without`. The same seed gives the same.

    What is asked for is the last derived letter. Raises ValueError where there are not so many different ones.
    """
    raw = np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64)))
    found: dict[str, Example] = {}
    for _ in range(20 * count + 1000):
        if len(found) == count:
            return list(found.values())
        text = _chain(shape, raw)
        if text not in without and text not in found:
            found[text] = Example(text, solve(text)[1], DIGITS)
    raise ValueError(
        f"{count} different chains of {shape.given} given and {shape.derived} derived letters were not found: ask for "
        "fewer, or for more letters"
    )


def solve(text: str) -> tuple[str, str]:
    """The reason and the label of a chain. Raises ValueError where the text is none."""
    try:
        if _TEXT.fullmatch(text):
            return _solved(text)
    except KeyError:  # a letter before it has a value
        pass
    raise ValueError(f"{text[:60]!r} is no chain: expected a text such as 'a=3;b=5;c=b+a;?c'")


def _solved(text: str) -> tuple[str, str]:
    *assignments, asked = text.split(";")
    values: dict[str, int] = {}
    steps = []
    for assignment in assignments:
        letter, _, term = assignment.partition("=")
        if term.isdigit():
            values[letter] = int(term) % 10
            continue
        first, sign, second = term[0], term[1], term[2]
        one, other = values[first], values[second]
        values[letter] = (one + other if sign == "+" else one - other) % 10
        steps.append(f"{one}{sign}{other}={values[letter]}")
    return ";".join(steps), str(values[asked.removeprefix("?")])


def taught(text: str, error_rate: float = 0.0, seed: int = 0) -> tuple[str, str]:
    """What a teacher of this error rate says of a chain: a reason and the label that it leads to.

    A wrong one slips by one or more in the last step. The same text and seed give the same words. Another seed is
    another sample.
    """
    reason, label = solve(text)
    digest = hashlib.sha256(f"{seed} {text}".encode()).digest()
    if int.from_bytes(digest[:4], "big") / 2**32 >= error_rate:
        return reason, label
    wrong = str((int(label) + 1 + digest[4] % 9) % 10)
    return reason[:-1] + wrong, wrong


def spelled(text: str, reason: str) -> str:
    """A chain's reason with each step behind the assignment that it fills in: `k=b+q=5+3=8`.

    It says no more, in more tokens, most of which repeat the text.
    """
    derived = [part for part in text.split(";")[:-1] if not part.partition("=")[2].isdigit()]
    return ";".join(f"{part}={step}" for part, step in zip(derived, reason.split(";"), strict=True))


def asked(prompt: str) -> str:
    """The last chain that stands in a prompt. Raises ValueError where there is none."""
    found = _TEXT.findall(prompt)
    if not found:
        raise ValueError(f"no chain stands in {prompt[-60:]!r}")
    return str(found[-1])


def _chain(shape: Shape, raw: np.random.Generator) -> str:
    names = raw.permutation([*_LETTERS])[: shape.given + shape.derived]
    parts = [f"{name}={int(raw.integers(10))}" for name in names[: shape.given]]
    for place in range(shape.given, shape.given + shape.derived):
        # the letter derived before is always used, so that no step of the reason can be left out
        before = place - 1 if place > shape.given else int(raw.integers(place))
        other = int(raw.choice([one for one in range(place) if one != before]))
        pair = (before, other) if raw.integers(2) else (other, before)
        sign = "+-"[int(raw.integers(2))]
        parts.append(f"{names[place]}={names[pair[0]]}{sign}{names[pair[1]]}")
    return ";".join(parts) + f";?{names[-1]}"
