"""Arithmetic: by hand, against random trees, and what is refused."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale import arithmetic

# by hand


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("( 84.0 / 2.0 )", Fraction(42)),
        ("2 + 3 * 4", Fraction(14)),
        ("(2 + 3) * 4", Fraction(20)),
        ("10 - 4 - 3", Fraction(3)),
        ("24 / 4 / 2", Fraction(3)),
        ("-3 + 5", Fraction(2)),
        ("6 - (-5)", Fraction(11)),
        ("6 - -5", Fraction(11)),
        ("2 * -3", Fraction(-6)),
        ("-(3 + 4)", Fraction(-7)),
        ("+5", Fraction(5)),
        ("1 / 3", Fraction(1, 3)),
        ("0.1 + 0.2", Fraction(3, 10)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("1,234,567 + 1", Fraction(1234568)),
        ("1,234.5", Fraction(2469, 2)),
        ("3 × 4 ÷ 2 − 1", Fraction(5)),
        ("3 x 4", Fraction(12)),
        ("3·4", Fraction(12)),
        ("\t007\n", Fraction(7)),
    ],
)
def test_values(text: str, expected: Fraction) -> None:
    assert arithmetic.value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("( 84.0 / 2.0 )", "(84 / 2)"),
        ("( ( 17.0 + 15.0 ) + 2.0 )", "((17 + 15) + 2)"),
        ("(17 + 15 + 2)", "((17 + 15) + 2)"),
        ("(16 * 17) * 4", "((16 * 17) * 4)"),
        ("((7))", "7"),
        ("1,000 - 0.50", "(1000 - 0.5)"),
        ("6 - (-5.10)", "(6 - -5.1)"),
        ("-(3+4)", "-(3 + 4)"),
        ("0.0", "0"),
        ("5 / 0", "(5 / 0)"),
    ],
)
def test_one_way_of_writing(text: str, expected: str) -> None:
    assert arithmetic.normalised(text) == expected


def test_the_same_value_in_other_words() -> None:
    assert arithmetic.same("(84 / 2)", "42")
    assert arithmetic.same("(2 / 3)", "0.66666667")
    assert not arithmetic.same("(2 / 3)", "0.66")
    assert arithmetic.same("0", "(3 - 3)")
    assert not arithmetic.same("0", "0.0000001")
    assert not arithmetic.same("(some - 8)", "(some - 8)")
    assert not arithmetic.same("1 / 0", "1 / 0")


# what is refused


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "(",
        ")",
        "()",
        "1 +",
        "+",
        "* 2",
        "1 2",
        "2 (3)",
        "(1",
        "1)",
        "1 + * 2",
        "2 ** 3",
        "9**9**9",
        "2 ^ 3",
        "5 % 2",
        "50%",
        "7 // 2",
        "1e5",
        "1_000",
        "1,00",
        "1,0000",
        "1.2.3",
        "5 + x",
        "x",
        "5 = 5",
        "nan",
        "inf",
        "__import__('os')",
        "().__class__",
        "print(1)",
        "[1]",
        "1 if 1 else 2",
        "٣ + ٤",
        "３ + ４",
        "²",
        "½",
        "1\x002",
        "1 \ud800",
    ],
)
def test_what_is_no_arithmetic(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        arithmetic.value(text)
    with pytest.raises(ValueError, match="'") as refused:
        arithmetic.normalised(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["1 / 0", "5 / (3 - 3)", "0 / 0", "1 / (1/2 - 0.5)"])
def test_division_by_zero(text: str) -> None:
    with pytest.raises(ValueError, match=r"divides by zero: expected an expression that has a value"):
        arithmetic.value(text)


@pytest.mark.parametrize("text", ["(" * 100_000, "(" * 50_000 + "1" + ")" * 50_000, "-" * 100_000 + "1", "9" * 100_000])
def test_what_is_too_long(text: str) -> None:
    with pytest.raises(ValueError, match=r"has 100\d\d\d? characters|has 10000\d characters"):
        arithmetic.value(text)


def test_what_is_just_short_enough() -> None:
    assert arithmetic.value("(" * 499 + "1" + ")" * 499) == 1
    assert arithmetic.value("-" * 999 + "1") == -1
    assert arithmetic.value("+".join("1" * 500)) == 500
    assert arithmetic.value("*".join(["9" * 99] * 10)) == (10**99 - 1) ** 10
    assert arithmetic.same("9" * 1000, "9" * 999 + "8")  # within the tolerance; no float overflows
    assert arithmetic.normalised("(" * 499 + "1" + ")" * 499) == "1"


# against a reference: trees that are evaluated and written side by side


def _joined(left: tuple[str, Fraction], sign: str, right: tuple[str, Fraction]) -> tuple[str, Fraction]:
    one, other = left[1], right[1]
    if sign == "/" and other == 0:
        sign = "+"
    result = {"+": one + other, "-": one - other, "*": one * other, "/": one / other if other else one}[sign]
    return f"({left[0]} {sign} {right[0]})", result


numbers = st.integers(0, 10_000).map(lambda number: (str(number), Fraction(number)))
decimals = st.decimals(0, 100, places=2).map(lambda number: (f"{number:f}", Fraction(number)))
trees = st.recursive(
    numbers | decimals,
    lambda inner: (
        st.builds(_joined, inner, st.sampled_from("+-*/"), inner)
        | inner.map(lambda pair: (f"-{pair[0]}" if pair[0][0] == "(" else f"(-{pair[0]})", -pair[1]))
    ),
    max_leaves=12,
)


@given(trees)
def test_random_trees(tree: tuple[str, Fraction]) -> None:
    text, expected = tree
    assert arithmetic.value(text) == expected
    written = arithmetic.normalised(text)
    assert arithmetic.value(written) == expected
    assert arithmetic.normalised(written) == written
    assert arithmetic.value(text.replace(" ", "")) == expected


@given(st.lists(st.tuples(st.sampled_from("+-*/"), st.integers(1, 99)), min_size=1, max_size=8), st.integers(1, 99))
def test_precedence(rest: list[tuple[str, int]], first: int) -> None:
    """Without brackets: sums of products, from the left."""
    terms = [Fraction(first)]
    for sign, number in rest:
        if sign == "*":
            terms[-1] *= number
        elif sign == "/":
            terms[-1] /= number
        else:
            terms.append(Fraction(number if sign == "+" else -number))
    text = str(first) + "".join(f" {sign} {number}" for sign, number in rest)
    assert arithmetic.value(text) == sum(terms)


@given(st.text(max_size=30) | st.text("0123456789+-*/().,x ", max_size=30))
def test_any_text_has_a_value_or_is_refused(text: str) -> None:
    try:
        value = arithmetic.value(text)
    except ValueError:
        return
    assert arithmetic.value(arithmetic.normalised(text)) == value
