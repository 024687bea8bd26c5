"""Searches over any space: by score alone, at random, by regularised evolution, and by evolution assisted by a score.

All yield what they trained as it is done, so that a long search shows its progress and can be broken off. All draws are
of the generator given. With `history.kept`, a search that was stopped goes on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from shoestring.methods.search.history import Train, Visit, checked, exactly
from shoestring.methods.search.space import Space

A = TypeVar("A")
Rate: TypeAlias = Callable[[A], float]


class Scored(NamedTuple, Generic[A]):
    """An architecture and what a score says of it, untrained."""

    architecture: A
    score: float


def naswot(space: Space[A], score: Rate[A], draws: int, random: Random) -> tuple[A, list[Scored[A]]]:
    """The best scored of `draws` architectures, the first of equals, and all of them in the order drawn.

    One that scores -inf is taken only where all do. Draws are with replacement. Raises ValueError where a score is nan.

    Mellor et al. 2021 (NASWOT).
    """
    scored = list(drawn(space, score, draws, random))
    return max(scored, key=lambda entry: entry.score).architecture, scored


def drawn(space: Space[A], score: Rate[A], draws: int, random: Random) -> Iterator[Scored[A]]:
    """Architectures drawn and scored, as they are ready. Raises ValueError where a score is nan."""
    _at_least(1, draws=draws)
    return _drawn(space, score, draws, random)


def _drawn(space: Space[A], score: Rate[A], draws: int, random: Random) -> Iterator[Scored[A]]:
    for _ in range(draws):
        architecture = space.draw(random)
        value = float(score(architecture))
        if math.isnan(value):
            raise ValueError(f"{space.encode(architecture)}: its score is nan: expected a number, or -inf")
        yield Scored(architecture, value)


def random_search(space: Space[A], train: Train[A], budget: float, random: Random) -> Iterator[Visit[A]]:
    """Train what is drawn, with replacement, until the budget is spent.

    budget  in the unit of the costs that `train` tells. As these are known only afterwards, a training is begun while
            less than the budget is spent, and the last one may end beyond it: `best(history, budget)` leaves it out
    """
    return _random(_Purse(space, train, budget), random)


def _random(purse: _Purse[A], random: Random) -> Iterator[Visit[A]]:
    while purse.open:
        yield purse.visit(purse.space.draw(random))


def regularised_evolution(
    space: Space[A], train: Train[A], budget: float, random: Random, population: int = 10, sample: int = 3
) -> Iterator[Visit[A]]:
    """Mutate the most accurate of a few drawn from a population of which the oldest leaves.

    budget      see `random_search`
    population  how many live; the first are drawn
    sample      how many are drawn, with replacement, for a parent

    Real et al. 2019, algorithm 1. The defaults, and drawing with replacement, are those of AutoDL-Projects' script for
    NATS-Bench.
    """
    _at_least(1, population=population, sample=sample)
    first = (space.draw(random) for _ in range(population))
    return _evolved(_Purse(space, train, budget), first, random, sample)


def area(
    space: Space[A],
    score: Rate[A],
    train: Train[A],
    budget: float,
    random: Random,
    *,
    draws: int = 20,
    population: int = 10,
    sample: int = 3,
    score_cost: float = 0.0,
) -> Iterator[Visit[A]]:
    """Assisted regularised evolution: the first population is the best scored of those drawn; then as without a score.

    budget      see `random_search`; scoring is charged to it, before the first training
    draws       how many are scored
    population  how many of them are trained first, the best scored first; these are also the first to leave
    sample      how many are drawn, with replacement, for a parent
    score_cost  of one score, in the unit of the budget

    Mellor et al. 2021 (NASWOT). How many stand in the tournament, and who of the first population leaves
    first, is not said there: the former is a parameter, the latter ours.
    """
    _at_least(1, population=population, sample=sample)
    _at_least(population, draws=draws)
    if not 0 <= score_cost < math.inf:
        raise ValueError(f"score_cost is {score_cost}: expected 0 or more, in the unit of the budget")
    purse = _Purse(space, train, budget)
    return _assisted(purse, drawn(space, score, draws, random), random, population, sample, score_cost)


def _assisted(
    purse: _Purse[A], scored: Iterator[Scored[A]], random: Random, population: int, sample: int, score_cost: float
) -> Iterator[Visit[A]]:
    found = []
    for entry in scored:
        purse.spent += exactly(score_cost)
        found.append(entry)
    found.sort(key=lambda entry: entry.score, reverse=True)
    yield from _evolved(purse, (entry.architecture for entry in found[:population]), random, sample)


def _evolved(purse: _Purse[A], first: Iterable[A], random: Random, sample: int) -> Iterator[Visit[A]]:
    living: deque[Visit[A]] = deque()
    for architecture in first:
        if not purse.open:
            return
        living.append(purse.visit(architecture))
        yield living[-1]
    while purse.open:
        parent = max((random.choice(living) for _ in range(sample)), key=lambda visit: visit.accuracy)
        living.append(purse.visit(purse.space.mutate(parent.architecture, random)))
        living.popleft()
        yield living[-1]


@dataclass
class _Purse(Generic[A]):
    """A budget, and what is spent of it."""

    space: Space[A]
    train: Train[A]
    budget: float
    spent: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise ValueError(f"budget is {self.budget}: expected more than 0, in the unit of the costs of training")

    @property
    def open(self) -> bool:
        return float(self.spent) < self.budget

    def visit(self, architecture: A) -> Visit[A]:
        found = checked(self.space.encode(architecture), self.train(architecture))
        self.spent += exactly(found.cost)
        return Visit(architecture, found.accuracy, found.cost, float(self.spent), found.test)


def _at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if number < least:
            raise ValueError(f"{name} is {number}: expected {least} or more")
