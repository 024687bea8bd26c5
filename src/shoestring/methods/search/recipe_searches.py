"""Searches in a table, many times over: by score alone, and with trainings that are looked up."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from torch import nn

from shoestring.methods.search.cells201 import Cell, Cells201
from shoestring.methods.search.evolve import area, random_search, regularised_evolution
from shoestring.methods.search.history import Train, Visit, best, improvements
from shoestring.methods.search.listed import Listed
from shoestring.methods.search.recipe_schema import METHODS, Cells
from shoestring.methods.search.table import Table

RANDOM, OPTIMUM, EVOLUTION, ASSISTED = "random", "optimum", "evolution (REA)", "AREA"
STEPS = 10  # points of a search that are kept for the picture
DRAWN = 100  # searches of which they are kept, of those assisted by `METHODS` and of those by none


@dataclass(frozen=True)
class Path:
    """One search with trainings: after how many trainings' cost, and what the best so far by validation has on test."""

    spent: Sequence[float]
    test: Sequence[float]


@dataclass
class Searched:
    """What the searches came to; accuracies by column, one a search.

    by_score       by whether only cells kept aside were drawn, and how many, then by name
    with_training  by name
    paths          of the first searches of each name
    best           of all the table, by column
    """

    by_score: dict[tuple[bool, int], dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    with_training: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    paths: dict[str, list[Path]] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pool:
    """The table's cells, drawn from the scored ones only."""

    listed: Listed[Cell]
    scored: Sequence[Cell]

    @property
    def name(self) -> str:
        return self.listed.name

    def draw(self, random: Random) -> Cell:
        return random.choice(self.scored)

    def mutate(self, architecture: Cell, random: Random) -> Cell:
        return self.listed.mutate(architecture, random)

    def neighbours(self, architecture: Cell) -> Iterator[Cell]:
        return self.listed.neighbours(architecture)

    def encode(self, architecture: Cell) -> str:
        return self.listed.encode(architecture)

    def decode(self, text: str) -> Cell:
        return self.listed.decode(text)

    def build(self, architecture: Cell, seed: int) -> nn.Module:
        return self.listed.build(architecture, seed)


def simulate(
    cells: Cells,
    space: Cells201,
    table: Table,
    scores: Mapping[str, Mapping[str, float]],
    passes: Mapping[str, float],
    aside: Container[str],
    seed: int,
) -> Searched:
    """All searches of the recipe.

    scores  of the cells that may be drawn, by searching proxy and cell
    passes  what a proxy's score takes of a network, in forward passes over its batch
    aside   the cells that were not looked at while our own score was chosen
    """
    found = Searched(best={column: max(row[column] for _, row in table) for column in cells.accuracies})
    pool = list(next(iter(scores.values())))
    for only, drawn_from in ((False, pool), (True, [text for text in pool if text in aside])):
        for draws in cells.draws:
            if draws <= len(drawn_from):
                found.by_score[only, draws] = _by_score(cells, table, scores, drawn_from, draws, seed)
    listed = Listed(space, table)
    drawn = _Pool(listed, [space.decode(text) for text in pool])
    train = table.train(space, cells.validation, 1.0)
    one_pass = cells.samples / (3 * cells.epochs * cells.epoch_images)  # of a training, whose backward takes two
    kinds: dict[str, Callable[[Random], Iterator[Visit[Cell]]]] = {
        RANDOM: lambda random: random_search(drawn, train, cells.budget, random),
        EVOLUTION: lambda random: regularised_evolution(drawn, train, cells.budget, random),
    }
    for proxy in scores:
        kinds[f"{ASSISTED}, {proxy}"] = partial(
            _assisted, drawn, train, cells.budget, scores[proxy], one_pass * passes[proxy]
        )
    plain = {f"{ASSISTED}, {proxy}" for proxy in scores if proxy not in METHODS}
    for name, search in kinds.items():
        found.with_training[name] = {column: [] for column in (cells.validation, *cells.accuracies)}
        found.paths[name] = []
        for index in range(cells.searches):
            history = list(search(Random(f"{seed} {index}")))  # the same first draws for each kind
            chosen = space.encode(best(history, cells.budget).architecture)
            for column, values in found.with_training[name].items():
                values.append(table.value(chosen, column))
            if index < DRAWN and name not in plain:
                found.paths[name].append(_path(history, space, table, cells))
    return found


def _assisted(
    pool: _Pool, train: Train[Cell], budget: float, scores: Mapping[str, float], cost: float, random: Random
) -> Iterator[Visit[Cell]]:
    return area(pool, lambda cell: scores[pool.encode(cell)], train, budget, random, score_cost=cost)


def _by_score(
    cells: Cells, table: Table, scores: Mapping[str, Mapping[str, float]], pool: Sequence[str], draws: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """Accuracies, on the same draws, of what each proxy picks, of a random pick, and the best drawn, by column."""
    found: dict[str, dict[str, list[float]]] = {
        name: {column: [] for column in cells.accuracies} for name in (*scores, RANDOM, OPTIMUM)
    }
    random = Random(f"{seed} {draws}")
    for _ in range(cells.searches):
        drawn = random.sample(pool, draws)
        picked = {name: max(drawn, key=values.__getitem__) for name, values in scores.items()} | {RANDOM: drawn[0]}
        for column in cells.accuracies:
            for name, text in picked.items():
                found[name][column].append(table.value(text, column))
            found[OPTIMUM][column].append(max(table.value(text, column) for text in drawn))
    return found


def _path(history: Sequence[Visit[Cell]], space: Cells201, table: Table, cells: Cells) -> Path:
    """What the best so far, by validation, has on test, at some numbers of trainings."""
    better = improvements(history)
    spent, test = [], []
    for step in range(1, STEPS + 1):
        at = cells.budget * step / STEPS
        done = [visit for visit in better if visit.spent <= at]
        if done:
            spent.append(at)
            test.append(table.value(space.encode(done[-1].architecture), cells.accuracies[0]))
    return Path(spent, test)
