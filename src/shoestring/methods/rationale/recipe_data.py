"""The experiment's data: what is trained on, chosen by and reported on, set by set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shoestring import files
from shoestring.methods.rationale import datasets, labels
from shoestring.methods.rationale.chains import DIGITS, Shape, chains
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.recipe_schema import HUMAN, INFORMED, DataSet, Recipe

CHAINS = "chains"
DRAW = (1 << 63) + 1  # beside a seed, where streams have the number of an epoch
DEV, TEST = 0, 1  # of ten parts; the others are to train on
_SHARING = 20  # more texts than that have no premise in common
_TRAIN_SEED, _HELD_OUT_SEED = 1, 0
TITLES = {"cqa": "CQA", "svamp": "SVAMP", "esnli": "e-SNLI", "anli": "ANLI"}


@dataclass(frozen=True)
class Task:
    """One set.

    form     how rows become its texts
    train    with the teacher's answers; human, the same with people's reasons in the place of its own, if there are any
    dev      to choose by; test, to report: neither is ever trained on
    steps    of a run
    known    how many texts of test have a premise (a first line) that stands in train too; none is the same whole
    again    how many rows of the files of dev and of test are left out, as their text stands in train (or in dev)
    """

    name: str
    train: list[Example]
    dev: list[Example]
    test: list[Example]
    steps: int
    human: list[Example] | None = None
    known: int = 0
    again: tuple[int, int] = (0, 0)
    form: datasets.Form = field(default_factory=datasets.Form)

    @property
    def guessed(self) -> float:
        """How often a guess is right on test: always the most frequent label, or any of an example's options."""
        golds = Counter(labels.folded(str(example.label)) for example in self.test)
        chance = [1 / len(example.options) for example in self.test if example.options]
        return max(golds.most_common(1)[0][1] / len(self.test), sum(chance) / len(self.test))

    @property
    def options(self) -> tuple[str, ...]:
        """The labels that every example may have; none where they differ."""
        every = {example.options for example in (*self.train, *self.dev, *self.test)}
        return next(iter(every)) if len(every) == 1 else ()

    @property
    def counted(self) -> str:
        """What its examples are counted as."""
        return "labels" if all(example.label is not None for example in self.train) else "examples"

    def drawn(self, fraction: float, seed: int) -> list[int]:
        """Which of the train part a run sees: each seed has an order, of which it is the first so many."""
        order = np.argsort(np.random.Philox(key=np.array([seed, DRAW], dtype=np.uint64)).random_raw(len(self.train)))
        return [int(place) for place in order[: max(1, round(fraction * len(self.train)))]]


def of_sets(recipe: Recipe) -> list[Task]:
    """The tasks of real data."""
    return [_task(recipe, one) for one in recipe.sets]


def of_chains(recipe: Recipe, taught: Sequence[Example]) -> Task:
    """The task of chains, of which the teacher has been asked about those to train on."""
    dev, test = held_out_chains(recipe)
    return Task(CHAINS, list(taught), dev, test, recipe.steps, form=datasets.Form(options=DIGITS))


def untaught_chains(recipe: Recipe) -> list[Example]:
    """The chains to train on, before the teacher was asked."""
    assert recipe.chains is not None
    known = frozenset(example.text for part in held_out_chains(recipe) for example in part)
    return chains(_shape(recipe), recipe.chains.train, _TRAIN_SEED, known)


def held_out_chains(recipe: Recipe) -> tuple[list[Example], list[Example]]:
    """Dev and test."""
    dev, test = recipe.held_out
    found = chains(_shape(recipe), dev + test, _HELD_OUT_SEED)
    return found[:dev], found[dev:]


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """Of each file that is read."""
    found = {}
    for name in (name for one in recipe.sets for name in (one.train, one.dev, one.test) if name is not None):
        found[name] = hashlib.sha256(files.find(name).read_bytes()).hexdigest()[:16]
    if recipe.base is not None:
        found[recipe.base.text] = _text_fingerprint(recipe.base.text)
    return found


def _task(recipe: Recipe, one: DataSet) -> Task:
    form = datasets.form(one.form) if isinstance(one.form, str) else datasets.Form(**one.form.model_dump())
    taught = replace(form, label=None) if one.unlabelled else form
    read = _read(one, one.train, taught)
    key = _premise(read)
    parts = [_part(key(example)) for example in read]
    given = {DEV: one.dev, TEST: one.test}
    train_parts = set(range(10)) - {part for part, file in given.items() if file is None}

    def of(examples: list[Example], wanted: set[int]) -> list[Example]:
        return [example for example, part in zip(examples, parts, strict=True) if part in wanted]

    human = None
    if HUMAN in recipe.arms:
        if form.human is None:
            raise ValueError(f"{one.train}: no column of people's reasons: leave the arm {HUMAN!r} out, or the set")
        people = zip(read, _read(one, one.train, taught, "human"), strict=True)
        human = of([replace(given, rationale=person.rationale) for given, person in people], train_parts)
    reasons: datasets.Reasons = "teacher" if INFORMED in recipe.arms else "none"
    # a text that stands in two files would be judged by what was learned by heart
    seen = {example.text for example in read}
    judged, again = {}, [0, 0]
    for part, file in given.items():
        found = of(read, {part}) if file is None else _read(one, file, form, reasons)
        if file is not None:
            new = [example for example in found if example.text not in seen]
            again[part], found = len(found) - len(new), new
            seen |= {example.text for example in found}
        judged[part] = [example for example in found if example.label is not None]
        if not judged[part]:
            raise ValueError(_nothing_left(one, part, file, found, again[part]))
    train, dev, test = of(read, train_parts), judged[DEV], judged[TEST]
    if not train:
        raise ValueError(f"{one.train}: no rows are left for train: give more, or files of their own for dev and test")
    dev, test = (_spread(part, limit) for part, limit in zip((dev, test), recipe.held_out, strict=True))
    premises = {key(example) for example in train}
    known = sum(key(example) in premises for example in test)
    return Task(
        TITLES.get(one.name, one.name),
        train,
        dev,
        test,
        one.steps or recipe.steps,
        human,
        known,
        (again[DEV], again[TEST]),
        form,
    )


def _nothing_left(one: DataSet, part: int, file: str | None, found: Sequence[Example], again: int) -> str:
    """Why there is nothing to choose by, or to report."""
    name = "dev" if part == DEV else "test"
    if found:
        return f"{file or one.train}: none of the rows for {name} has a label: name their column, or give others"
    if again:
        beside = f"{one.train}, or in dev" if part == TEST else one.train
        return f"{file}: no rows are left for {name}, as the texts of all {again:,} stand in {beside}: give others"
    return f"{one.train}: no rows are left for {name}: give more, or a file of its own"


def _read(one: DataSet, name: str, form: datasets.Form, reasons: datasets.Reasons = "teacher") -> list[Example]:
    """Without the rows themselves: runs in other processes get a copy. In a file of a known set that went through `ask`
    or `filter`, what these wrote stands for what the set came with."""
    found = files.find(name)
    if isinstance(one.form, str) and datasets.is_kept(found):
        form = datasets.kept(form)
    return [replace(example, record={}) for example in datasets.read(found, form, reasons)]


def _premise(examples: Sequence[Example]) -> Callable[[Example], str]:
    """What texts of one premise share: their first line; the whole text where most share that, an instruction."""
    firsts = {example.text.split("\n", maxsplit=1)[0] for example in examples}
    few = len(firsts) < len(examples) / _SHARING
    return lambda example: example.text if few else example.text.split("\n", maxsplit=1)[0]


def _part(key: str) -> int:
    """Of ten, by a hash of what is to stay together."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") * 10 >> 64


def _spread(examples: list[Example], limit: int) -> list[Example]:
    """At most so many, spread evenly."""
    if len(examples) <= limit:
        return examples
    return [examples[place * len(examples) // limit] for place in range(limit)]


def _shape(recipe: Recipe) -> Shape:
    assert recipe.chains is not None
    return Shape(recipe.chains.given, recipe.chains.derived)


def _text_fingerprint(name: str) -> str:
    from shoestring.data import corpora

    return corpora.fingerprint(corpora.located(name))
