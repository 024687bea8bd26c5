"""The searches, on a space of whole numbers whose accuracies are known."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.evolve import area, drawn, naswot, random_search, regularised_evolution
from shoestring.methods.search.history import Trained, Visit, best
from shoestring.methods.search.listed import Listed
from shoestring.methods.search.table import Table

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data"))
REAL = DATA / "search" / "nasbench201_dev12500.csv.gz"
MOST = 30


class Numbers:
    """The whole numbers below 30; a neighbour is one more or one less."""

    name = "numbers"

    def draw(self, random: Random) -> int:
        return random.randrange(MOST)

    def mutate(self, architecture: int, random: Random) -> int:
        return random.choice(list(self.neighbours(architecture)))

    def neighbours(self, architecture: int) -> Iterator[int]:
        return (number for number in (architecture - 1, architecture + 1) if 0 <= number < MOST)

    def encode(self, architecture: int) -> str:
        return str(architecture)

    def decode(self, text: str) -> int:
        return int(text)

    def build(self, architecture: int, seed: int) -> nn.Module:
        raise NotImplementedError


class Scripted(Numbers):
    """Draws what is written down; a mutation is ten times its parent, and one more each time."""

    def __init__(self, *drawn: int) -> None:
        self.left, self.mutations = list(drawn), itertools.count()

    def draw(self, random: Random) -> int:
        return self.left.pop(0)

    def mutate(self, architecture: int, random: Random) -> int:
        return 100 * architecture + next(self.mutations)


class Least(Random):
    """Chooses the first of a sequence, always."""

    def choice(self, seq):
        return seq[0]


def worth(architecture: int) -> Trained:
    return Trained(float(architecture), 1.0, -float(architecture))


def numbers(history: list[Visit[int]]) -> list[int]:
    return [visit.architecture for visit in history]


# by hand


def test_naswot_takes_the_first_of_the_best() -> None:
    values = {3: 1.0, 4: 7.0, 5: 7.0, 6: -math.inf}
    chosen, scored = naswot(Scripted(6, 3, 4, 5), values.__getitem__, 4, Random(0))
    assert chosen == 4
    assert scored == [(6, -math.inf), (3, 1.0), (4, 7.0), (5, 7.0)]


def test_what_scores_minus_infinity_is_chosen_where_nothing_else_is_there() -> None:
    assert naswot(Scripted(6, 3), lambda _: -math.inf, 2, Random(0))[0] == 6
    history = list(area(Scripted(6, 3), lambda _: -math.inf, worth, 1, Random(0), draws=2, population=1))
    assert numbers(history) == [6]


def test_random_search_is_its_draws() -> None:
    history = list(random_search(Scripted(5, 9, 2, 8), worth, 3, Random(0)))
    assert history == [
        Visit(5, 5.0, 1.0, 1.0, -5.0),
        Visit(9, 9.0, 1.0, 2.0, -9.0),
        Visit(2, 2.0, 1.0, 3.0, -2.0),
    ]
    assert best(history).architecture == 9


def test_a_training_begins_before_the_budget_is_spent_and_may_end_beyond_it() -> None:
    def train(architecture: int) -> Trained:
        return Trained(architecture, 0.75)

    history = list(random_search(Scripted(5, 7, 9, 8), train, 2, Random(0)))
    assert [visit.spent for visit in history] == [0.75, 1.5, 2.25]
    assert best(history, 2).architecture == 7


@pytest.mark.parametrize(("cost", "budget", "count"), [(0.1, 1.0, 10), (0.3, 6.0, 20), (0.1, 0.3, 3)])
def test_ten_times_a_tenth_is_one(cost: float, budget: float, count: int) -> None:
    history = list(random_search(Numbers(), lambda _: Trained(1.0, cost), budget, Random(0)))
    assert len(history) == count
    assert history[-1].spent == budget


def test_the_oldest_leaves_however_good_it_is() -> None:
    """With a choice of the first, the parent is always the oldest that lives."""
    history = list(regularised_evolution(Scripted(9, 3, 5), worth, 7, Least(), population=3, sample=2))
    assert numbers(history) == [9, 3, 5, 900, 301, 502, 90003]


def test_the_most_accurate_of_the_tournament_is_the_parent() -> None:
    history = list(regularised_evolution(Scripted(4, 9, 5), worth, 4, Random(0), population=3, sample=50))
    assert numbers(history) == [4, 9, 5, 900]


def test_area_trains_the_best_scored_first_and_they_leave_first() -> None:
    score = {1: 10.0, 2: 40.0, 3: -math.inf, 4: 30.0, 5: 20.0}.__getitem__
    space = Scripted(1, 2, 3, 4, 5)
    history = list(area(space, score, worth, 6, Least(), draws=5, population=3, sample=1))
    assert numbers(history) == [2, 4, 5, 200, 401, 502]


def test_scores_are_charged_before_the_first_training() -> None:
    history = list(area(Scripted(1, 2), float, worth, 2, Random(0), draws=2, population=2, score_cost=0.25))
    assert [visit.spent for visit in history] == [1.5, 2.5]
    assert list(area(Scripted(1, 2), float, worth, 2, Random(0), draws=2, population=2, score_cost=1.0)) == []


def test_what_fails_is_never_a_parent_while_another_is_there() -> None:
    def train(architecture: int) -> Trained:
        return Trained(-math.inf if architecture > 5 else architecture, 1.0)

    history = list(regularised_evolution(Scripted(6, 2, 7), train, 4, Random(0), population=3, sample=50))
    assert history[-1].architecture == 200


# against an obvious one


def obvious(population: list[int], random: Random, sample: int, steps: int) -> list[int]:
    """Aging evolution with lists, each accuracy the number itself."""
    seen = list(population)
    while len(seen) < steps:
        contest = []
        while len(contest) < sample:
            contest.append(population[random.randrange(len(population))])
        parent = sorted(contest)[-1]
        child = Numbers().mutate(parent, random)
        population = [*population[1:], child]
        seen.append(child)
    return seen


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 4), st.integers(7, 40))
def test_evolution_is_the_obvious_one(seed: int, population: int, sample: int, steps: int) -> None:
    found = list(regularised_evolution(Numbers(), worth, steps, Random(seed), population, sample))
    random = Random(seed)
    first = [random.randrange(MOST) for _ in range(population)]
    assert numbers(found) == obvious(first, random, sample, steps)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(0, 6), st.integers(1, 4), st.integers(7, 40))
def test_area_is_the_obvious_one(seed: int, population: int, more: int, sample: int, steps: int) -> None:
    draws = population + more
    found = list(
        area(
            Numbers(),
            lambda number: -abs(number - 20.0),
            worth,
            steps,
            Random(seed),
            draws=draws,
            population=population,
            sample=sample,
        )
    )
    random = Random(seed)
    first = sorted((random.randrange(MOST) for _ in range(draws)), key=lambda number: abs(number - 20))[:population]
    assert numbers(found) == obvious(first, random, sample, steps)


# properties

Search = Callable[[Random, float], Iterator[Visit[int]]]


def uneven(architecture: int) -> Trained:
    return Trained(float(architecture), 0.1 + architecture / 7)


SEARCHES: dict[str, Search] = {
    "random": lambda random, budget: random_search(Numbers(), uneven, budget, random),
    "rea": lambda random, budget: regularised_evolution(Numbers(), uneven, budget, random, 4, 2),
    "area": lambda random, budget: area(
        Numbers(), float, uneven, budget, random, draws=8, population=4, sample=2, score_cost=0.01
    ),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), budget=st.floats(1, 60))
def test_all_stop_at_the_budget_and_tell_what_was_spent(search: Search, seed: int, budget: float) -> None:
    history = list(search(Random(seed), budget))
    scoring = history[0].spent - history[0].cost
    for at, visit in enumerate(history):
        assert visit.spent == pytest.approx(scoring + sum(before.cost for before in history[: at + 1]))
        assert visit.spent - visit.cost < budget
    assert history[-1].spent >= budget


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_seed_is_a_search(search: Search) -> None:
    assert list(search(Random(3), 60)) == list(search(Random(3), 60))
    assert list(search(Random(3), 60)) != list(search(Random(4), 60))


def test_no_other_generator_is_touched() -> None:
    import random

    state = random.getstate()
    for search in SEARCHES.values():
        list(search(Random(3), 20))
    assert random.getstate() == state


# stopped


def test_what_training_raises_leaves_the_history() -> None:
    def train(architecture: int) -> Trained:
        if architecture == 2:
            raise RuntimeError("out of memory")
        return worth(architecture)

    search, seen = random_search(Scripted(5, 9, 2, 8), train, 9, Random(0)), []
    with pytest.raises(RuntimeError, match="out of memory"):
        seen.extend(visit.architecture for visit in search)
    assert seen == [5, 9]


# bad input


@pytest.mark.parametrize("budget", [0, -1, math.nan])
def test_a_budget_must_be_there(budget: float) -> None:
    with pytest.raises(ValueError, match=r"budget is .*: expected more than 0"):
        random_search(Numbers(), worth, budget, Random(0))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Trained(math.nan, 1.0), "^7: its accuracy is nan: expected a number, or -inf"),
        (Trained(1.0, 0.0), "^7: its cost is 0.0: expected more than 0"),
        (Trained(1.0, math.nan), "^7: its cost is nan"),
        (Trained(1.0, math.inf), "^7: its cost is inf"),
    ],
)
def test_what_training_may_not_give(found: Trained, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(random_search(Scripted(7), lambda _: found, 1, Random(0)))


def test_a_score_is_a_number() -> None:
    with pytest.raises(ValueError, match=r"^7: its score is nan"):
        naswot(Scripted(7), lambda _: math.nan, 1, Random(0))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: drawn(Numbers(), float, 0, Random(0)), "draws is 0: expected 1 or more"),
        (lambda: regularised_evolution(Numbers(), worth, 1, Random(0), population=0), "population is 0"),
        (lambda: regularised_evolution(Numbers(), worth, 1, Random(0), sample=0), "sample is 0"),
        (lambda: area(Numbers(), float, worth, 1, Random(0), draws=9), "draws is 9: expected 10 or more"),
        (lambda: area(Numbers(), float, worth, 1, Random(0), score_cost=-1), "score_cost is -1: expected 0 or more"),
    ],
)
def test_bad_numbers_are_refused_at_once(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


# on the real table


@pytest.mark.skipif(not REAL.exists(), reason="needs the data sets: name their folder in SHOESTRING_DATA")
def test_on_the_real_table_evolution_beats_chance_and_a_true_score_beats_both() -> None:
    table = Table.read(REAL)
    space = Listed(Cells201(), table)
    train = table.train(space, "c10_val_12ep", 1.0, "c10_test_200ep")

    def score(cell: tuple[str, ...]) -> float:
        return table.value(space.encode(cell), "c100_val_12ep")

    found = {
        "random": [best(random_search(space, train, 60, Random(seed))).accuracy for seed in range(40)],
        "rea": [best(regularised_evolution(space, train, 60, Random(seed))).accuracy for seed in range(40)],
        "area": [best(area(space, score, train, 60, Random(seed), draws=200)).accuracy for seed in range(40)],
    }
    assert mean(found["random"]) < mean(found["rea"]) < mean(found["area"])
