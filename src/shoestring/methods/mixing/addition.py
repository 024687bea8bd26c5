"""Addition of two numbers of a few digits; the skill is which digit of the sum is asked for."""

from __future__ import annotations

from typing import Literal

import numpy as np

from shoestring.methods.mixing.samples import Pieces


def addition(
    digits: int, digit: int, count: int, seed: int, style: Literal["short", "sentence"] = "short"
) -> list[Pieces]:
    """Sums of two numbers of `digits` digits, and one digit of each.

    digit  which one, from 0, the ones: the skill
    style  "short", a character a token: "234+129,0=3"; or "sentence", in the words of the authors' data
    Questions may come again: there are few of them. Chen et al. 2023, addition.
    """
    if not 0 <= digit < digits:
        raise ValueError(f"digit {digit} of {digits}: expected from 0 to {digits - 1}")
    chance = np.random.default_rng([seed, digits, digit, 3])
    found: list[Pieces] = []
    for left, right in chance.integers(0, 10**digits, (count, 2)).tolist():
        answer = str((left + right) // 10**digit % 10)
        first, second = f"{left:0{digits}d}", f"{right:0{digits}d}"
        if style == "short":
            prompt = f"{first}+{second},{digit}="
        else:
            prompt, answer = f"Input: A = {' '.join(first)} + {' '.join(second)} , A {digit} = ? Output:", f" {answer}"
        found.append([(prompt, False), (answer, True)])
    return found
