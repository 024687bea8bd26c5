"""Arithmetic as a teacher writes it: read by a small grammar, in exact fractions, and never run."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

# bounds the depth, and the digits of any number and of any result: there is no power to make few characters large
LENGTH = 1000
TOLERANCE = 1e-6
_TOKEN = re.compile(r"\s*(?:((?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)|([-+*/()×·÷−x]))")
_PLAIN = {"×": "*", "·": "*", "x": "*", "÷": "/", "−": "-"}
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "negative": 3}
_OPERATE = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def value(text: str) -> Fraction:
    """What an expression of + - * / and brackets comes to, exactly.

    Also read: decimals, thousands commas, a sign before a term, and × · x ÷ − for their plain forms.
    Raises ValueError where it is none, is longer than `LENGTH` characters, or divides by zero.
    """
    stack: list[Fraction] = []
    for token in _postfix(text):
        if token == "negative":
            stack.append(-stack.pop())
        elif token in _OPERATE:
            right, left = stack.pop(), stack.pop()
            if token == "/" and right == 0:
                raise ValueError(f"{_shown(text)} divides by zero: expected an expression that has a value")
            stack.append(Fraction(_OPERATE[token](left, right)))
        else:
            stack.append(Fraction(token))
    return stack.pop()


def same(first: str, second: str, tolerance: float = TOLERANCE) -> bool:
    """Whether both are expressions that come to the same, up to a part `tolerance` of the larger."""
    try:
        one, other = value(first), value(second)
    except ValueError:
        return False
    return abs(one - other) <= Fraction(tolerance) * max(abs(one), abs(other))


def normalised(text: str) -> str:
    """An expression in one way of writing: `(84 / 2)`, each operation in its brackets, for `( 84.0 / 2.0 )`.

    The order of terms and operations is kept, and nothing is worked out. Raises ValueError where it is no expression.
    """
    stack: list[str] = []
    for token in _postfix(text):
        if token == "negative":
            stack.append(f"-{stack.pop()}")
        elif token in _OPERATE:
            right, left = stack.pop(), stack.pop()
            stack.append(f"({left} {token} {right})")
        else:
            stack.append(token)
    return stack.pop()


def _postfix(text: str) -> list[str]:
    """The numbers and operations in the order they are worked out in, by Dijkstra's shunting yard: no recursion."""
    found: list[str] = []
    waiting: list[str] = []
    term = True  # whether a term is to come, or what joins two
    for token in _tokens(text):
        if term and token in ("-", "("):
            waiting.append("negative" if token == "-" else token)
        elif term and token not in "+*/)":
            found.append(token)
            term = False
        elif not term and token == ")":
            while waiting and waiting[-1] != "(":
                found.append(waiting.pop())
            if not waiting:
                raise ValueError(f"{_shown(text)}: a bracket is closed that was not opened")
            waiting.pop()
        elif not term and token in _OPERATE:
            while waiting and waiting[-1] != "(" and _RANK[waiting[-1]] >= _RANK[token]:
                found.append(waiting.pop())
            waiting.append(token)
            term = True
        elif not (term and token == "+"):  # a plus before a term says nothing
            raise ValueError(f"{_shown(text)}: {token!r} where {'a number' if term else 'an operation'} was expected")
    if term or "(" in waiting:
        raise ValueError(f"{_shown(text)} ends before its {'last number' if term else 'closing bracket'}")
    return found + waiting[::-1]


def _tokens(text: str) -> Iterator[str]:
    if len(text) > LENGTH:
        raise ValueError(f"{_shown(text)} has {len(text)} characters, expected an expression of at most {LENGTH}")
    place, end = 0, len(text.rstrip())
    while place < end:
        found = _TOKEN.match(text, place)
        if found is None:
            rest = text[place:].lstrip()
            raise ValueError(f"{_shown(text)}: {rest[0]!r} is not of numbers, + - * / and brackets")
        number, sign = found.groups()
        yield _PLAIN.get(sign, sign) if number is None else _number(number)
        place = found.end()


def _number(text: str) -> str:
    """`84` for `84.0`, `0.5` for `.50`, `1000` for `1,000`."""
    plain = format(Decimal(text.replace(",", "")), "f")
    whole, _, part = plain.partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
