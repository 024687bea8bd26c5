"""Addition: each digit asked for is that of the sum."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.mixing.addition import addition


@given(seed=st.integers(0, 10**9), digits=st.integers(1, 6), data=st.data())
def test_each_answer_is_a_digit_of_the_sum(seed: int, digits: int, data: st.DataObject) -> None:
    digit = data.draw(st.integers(0, digits - 1))
    for sample in addition(digits, digit, 5, seed):
        (question, first), (answer, second) = sample
        assert (first, second) == (False, True)
        found = re.fullmatch(rf"(\d{{{digits}}})\+(\d{{{digits}}}),(\d)=", question)
        assert found
        assert int(found[3]) == digit
        assert answer == f"{int(found[1]) + int(found[2]):0{digits + 1}d}"[::-1][digit]


def test_both_styles_ask_the_same() -> None:
    for short, sentence in zip(addition(3, 1, 50, 0), addition(3, 1, 50, 0, "sentence"), strict=True):
        left, right = short[0][0][:3], short[0][0][4:7]
        assert sentence[0] == (f"Input: A = {' '.join(left)} + {' '.join(right)} , A 1 = ? Output:", False)
        assert sentence[1] == (f" {short[1][0]}", True)


def test_all_digits_come_and_carries_too() -> None:
    found = addition(2, 1, 400, 0)
    assert {answer for _, (answer, _) in found} == set("0123456789")
    carried = [question for (question, _), _ in found if int(question[1]) + int(question[4]) > 9]
    assert len(carried) > 100
    assert any(question.startswith("0") for (question, _), _ in found)


def test_the_seed_and_the_digit_give_other_numbers() -> None:
    assert addition(3, 0, 9, 0) == addition(3, 0, 9, 0)
    told = [tuple(sample[0][0][:7] for sample in addition(3, digit, 9, seed)) for digit in (0, 1) for seed in (0, 1)]
    assert len(set(told)) == 4


@pytest.mark.parametrize("digit", [-1, 3])
def test_digits_that_are_not_there(digit: int) -> None:
    with pytest.raises(ValueError, match=f"digit {digit} of 3: expected from 0 to 2"):
        addition(3, digit, 1, 0)
