"""LEGO: chains of assignments in a shuffled order; the skill is how deep in the chain the question reaches."""

from __future__ import annotations

from typing import Literal

import numpy as np

from shoestring.methods.mixing.samples import Pieces

Style = Literal["short", "sentence"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
KINDS = ("read", "value")


def lego(clauses: int, depth: int, count: int, seed: int, style: Style = "short") -> list[Pieces]:
    """Questions about the variable at one depth of a chain, and their answers, 0 or 1.

    clauses  of each question: the root is a literal, every other variable its parent or its negation; shuffled
    depth    from 1, the root, to `clauses`: the skill
    style    "short", for a byte tokenizer, two characters a clause, a capital for a negation: "bAa1?b0" is b = not a,
             a = 1, b? 0; or "sentence", in the words of the authors' data, for a pre-trained model
    No question comes twice within a call. Zhang et al. 2022 (LEGO); Chen et al. 2023, with letters in place of theirs.
    """
    if not 1 <= depth <= clauses <= len(LETTERS):
        raise ValueError(f"depth {depth} of {clauses} clauses: expected from 1 to that, and at most {len(LETTERS)}")
    chance = np.random.default_rng([seed, clauses, depth, 1])
    found: dict[str, Pieces] = {}
    for _ in range(20 * count + 100):
        if len(found) == count:
            break
        names, negated, literal, order = _chain(chance, clauses)
        value = literal ^ int(negated[1:depth].sum() % 2)
        prompt = _short(names, negated, literal, order) if style == "short" else _said(names, negated, literal, order)
        prompt += f"?{names[depth - 1]}" if style == "short" else f". Output: {names[depth - 1]} = val"
        answer = str(value) if style == "short" else f" {value}"
        found.setdefault(prompt, [(prompt, False), (answer, True)])
    if len(found) < count:
        raise ValueError(f"there are not {count} different questions of {clauses} clauses")
    return list(found.values())


def look_up(clauses: int, kind: str, count: int, seed: int) -> list[Pieces]:
    """What a model must be able to do before it can learn LEGO from its answers: look things up.

    kind  "read": what a variable is assigned, as it stands there. "value": the value of a variable where all are
          literals. Nothing is ever negated or followed along a chain
    All variables of a context are asked for, in a shuffled order, in the short style. Ours: the base of the paper is a
    model pre-trained on text, which can do such things.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    if not 1 <= clauses <= len(LETTERS):
        raise ValueError(f"{clauses} clauses: expected from 1 to {len(LETTERS)}")
    chance = np.random.default_rng([seed, clauses, KINDS.index(kind), 2])
    return [_looked_up(chance, clauses, kind) for _ in range(count)]


def _chain(chance: np.random.Generator, clauses: int) -> tuple[list[str], np.ndarray, int, np.ndarray]:
    names = [LETTERS[place] for place in chance.permutation(len(LETTERS))[:clauses]]
    negated = chance.integers(0, 2, clauses)
    negated[0] = 0
    return names, negated, int(chance.integers(0, 2)), chance.permutation(clauses)


def _short(names: list[str], negated: np.ndarray, literal: int, order: np.ndarray) -> str:
    parts = [f"{names[0]}{literal}"]
    parts += [name + (names[place].upper() if flip else names[place]) for place, (name, flip) in _rest(names, negated)]
    return "".join(parts[place] for place in order)


def _said(names: list[str], negated: np.ndarray, literal: int, order: np.ndarray) -> str:
    parts = [f"{names[0]} = val {literal}"]
    parts += [f"{name} = {'not' if flip else 'val'} {names[place]}" for place, (name, flip) in _rest(names, negated)]
    return "Input: " + " , ".join(parts[place] for place in order)


def _rest(names: list[str], negated: np.ndarray) -> list[tuple[int, tuple[str, int]]]:
    """The variables after the root, each with the place of its parent."""
    return list(enumerate(zip(names[1:], negated[1:].tolist(), strict=True)))


def _looked_up(chance: np.random.Generator, clauses: int, kind: str) -> Pieces:
    names = [LETTERS[place] for place in chance.permutation(len(LETTERS))[:clauses]]
    roots = chance.random(clauses) < {"read": 0.25, "value": 1.0}[kind]
    roots[0] = True
    flips, literals = chance.integers(0, 2, clauses), chance.integers(0, 2, clauses)
    parents = [names[i - 1].upper() if flips[i] else names[i - 1] for i in range(clauses)]
    given = [str(literals[i]) if roots[i] else parents[i] for i in range(clauses)]
    mark = {"read": "#", "value": "?"}[kind]
    asked: list[tuple[str, bool]] = [("".join(names[i] + given[i] for i in chance.permutation(clauses)), False)]
    for i in chance.permutation(clauses):
        asked += [(f"{mark}{names[i]}", False), (given[i], True)]
    return asked
