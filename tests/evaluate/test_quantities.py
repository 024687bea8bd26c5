"""Numbers as people read them: by hand, and that nothing is lost in the rounding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.cost import CURRENCIES
from shoestring.evaluate.quantities import number, percent, plus_minus, seeds, unit
from shoestring.evaluate.scores import Score


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0, 3, "0"),
        (1234.5, 3, "1234"),
        (12.345, 3, "12.3"),
        (9.996, 3, "10.0"),
        (0.00123456, 4, "0.001235"),
        (-2.5, 2, "-2.5"),
        (999.7, 3, "1000"),
    ],
)
def test_numbers_by_hand(value, digits, text):
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (Score(2.0131, 0.0042, 3), "2.013 ± 0.004"),
        (Score(2.0131, 0.0149, 3), "2.013 ± 0.015"),
        (Score(2.0131, 0.0996, 3), "2.01 ± 0.10"),
        (Score(2.0131, 0.0, 1), "2.013"),
        (Score(2.0131, 0.0, 3), "2.013 ± 0"),
        (Score(512.4, 31.0, 3), "512 ± 31"),
        (Score(-0.0004, 0.3, 3), "0.0 ± 0.3"),
    ],
)
def test_mean_and_spread_by_hand(score, text):
    assert plus_minus(score) == text


def test_percents_by_hand():
    assert percent(Score(0.69, 0.031, 3)) == "69 ± 3 %"
    assert percent(Score(0.6912, 0.0031, 3)) == "69.1 ± 0.3 %"
    assert percent(Score(0.69, 0.0, 1)) == "69 %"
    assert percent(Score(-0.001, 0.05, 3)) == "0 ± 5 %"
    assert percent(Score(1.12, 0.0, 2)) == "112 ± 0 %"
    assert (seeds(1), seeds(3)) == ("1 seed", "3 seeds")


@pytest.mark.parametrize(
    ("currency", "amount", "name", "size"),
    [
        ("flops", 1.2e15, "PFLOP", 1e15),
        ("flops", 12, "FLOP", 1),
        ("tokens", 2.4e6, "M tokens", 1e6),
        ("tokens", 2.4e9, "B tokens", 1e9),
        ("seconds", 599, "s", 1),
        ("seconds", 600, "min", 60),
        ("seconds", 3 * 3600, "h", 3600),
        ("peak_bytes", 8.1e8, "MB peak", 1e6),
        ("bytes_sent", 10, "B sent", 1),
    ],
)
def test_units_by_hand(currency, amount, name, size):
    found = unit(currency, [0, amount])
    assert (found.name, found.size) == (name, size)


def test_every_currency_has_a_unit_even_for_nothing():
    assert all(unit(currency, []).size == 1 for currency in CURRENCIES)


@given(st.floats(1e-9, 1e12), st.integers(2, 6))
def test_a_number_is_right_to_its_digits(value, digits):
    assert float(number(value, digits)) == pytest.approx(value, rel=0.51 * 10 ** (1 - digits))


@given(st.floats(0.1, 100), st.floats(1e-4, 1))
def test_the_spread_is_never_rounded_away(mean, sd):
    shown, spread = (float(part) for part in plus_minus(Score(mean, sd, 3)).split(" ± "))
    assert spread == pytest.approx(sd, rel=0.26)
    assert abs(shown - mean) <= 0.51 * max(spread, sd)
