"""The experiment's data: parts that share nothing, and what is drawn of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoestring import config, rooms
from shoestring.methods.rationale import datasets
from shoestring.methods.rationale.chains import DIGITS, solve
from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.encode import Pair
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import LABEL, Wording, lessons
from shoestring.methods.rationale.recipe_data import (
    Task,
    fingerprints,
    held_out_chains,
    of_chains,
    of_sets,
    untaught_chains,
)
from shoestring.methods.rationale.recipe_lessons import cost_of_labels, lessons_of
from shoestring.methods.rationale.recipe_schema import Recipe
from shoestring.methods.rationale.stream import Lessons

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "rationale").is_dir(), reason=f"{DATA / 'rationale'} is not there: set SHOESTRING_DATA"
)
PLAIN: dict[str, Any] = {
    "model": {"names": ["t5-tiny"]},
    "arms": ["standard", "two-task", "two-task, human reasons"],
    "steps": 4,
    "batch": 2,
    "evaluate_every": 2,
    "patience": 2,
    "held_out": [1000, 1000],
    "seeds": [0],
    "tuning": {"learning_rates": [1e-3]},
}
CHAINS = {"given": 2, "derived": 1, "train": 40}


def recipe(**changes: Any) -> Recipe:
    told = {**PLAIN, **changes}
    if "chains" in changes:
        told["arms"] = ["standard", "two-task"]
    return config.check(told, Recipe, "here")


def nli(place: int) -> dict[str, Any]:
    """Three rows of a premise."""
    label = ["entailment", "neutral", "contradiction"][place % 3]
    return {
        "uid": str(place),
        "premise": f"A man has {place // 3} dogs.",
        "hypothesis": f"He has {place} legs.",
        "label": label,
        "llm_rationale": f"reason {place}",
        "llm_label": label,
        "human_rationale": f"person {place}",
    }


ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "cqa": lambda place: {
        "question": f"Where is thing {place}?",
        "choices": [f"place {place}", "nowhere", "here"],
        "answer": "nowhere",
        "llm_rationale": f"reason {place}",
        "llm_label": "here",
        "human_rationale": f"person {place}",
    },
    "svamp": lambda place: {
        "question": f"Tom has {place} apples.\nHow many has he?",
        "equation": f"( {place}.0 + 1.0 )",
        "llm_rationale": f"reason {place}",
        "llm_equation": f"({place} + 1)",
    },
    "esnli": nli,
    "anli": lambda place: {name: held for name, held in nli(place).items() if name != "human_rationale"},
    "own": lambda place: {
        "title": f"Mail {place}",
        "body": "Buy!",
        "class": "spam" if place % 2 else "ham",
        "why": f"reason {place}",
        "said": "spam",
        "people": f"person {place}",
    },
}
OWN = {
    "columns": ["title", "body"],
    "label": "class",
    "options": ["spam", "ham"],
    "rationale": "why",
    "teacher_label": "said",
    "human": "people",
}
OPTIONS = {"esnli": 3, "anli": 3, "own": 2, "svamp": 0, "cqa": 0}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """A file of made-up rows of a form: written(form, count, first=0, name="train")."""

    def write(form: str, count: int, first: int = 0, name: str = "train") -> str:
        path = tmp_path / f"{name}.jsonl"
        rows = [ROWS[form](place) for place in range(first, first + count)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def form(name: str) -> Any:
    return OWN if name == "own" else name


def arms(name: str) -> list[str]:
    """With people's reasons, where the form has them."""
    return ["standard", "two-task", *(["two-task, human reasons"] if name in ("cqa", "esnli", "own") else [])]


def texts(examples: list[Example]) -> set[str]:
    return {example.text for example in examples}


# by hand


@pytest.mark.parametrize("name", ROWS)
def test_one_file_makes_three_parts_that_share_nothing(name: str, written: Callable[..., str]) -> None:
    path = written(name, 300)
    (task,) = of_sets(recipe(sets=[{"form": form(name), "train": path}], arms=arms(name)))
    parts = [texts(part) for part in (task.train, task.dev, task.test)]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts)) == 300
    assert all(part for part in parts)
    assert len(parts[0]) == pytest.approx(240, abs=45)
    assert len(task.options) == OPTIONS[name]
    for example in (*task.train, *task.dev, *task.test):
        assert example.rationale is not None
        assert example.rationale.startswith("reason ")
        assert example.label is not None
        assert example.teacher_label is not None
        assert example.record == {}, "other processes get a copy"
    if len(arms(name)) > 2:
        assert task.human is not None
        assert [one.text for one in task.human] == [one.text for one in task.train]
        assert all(
            one.rationale == two.rationale.replace("reason", "person")
            for one, two in zip(task.human, task.train, strict=True)
            if two.rationale
        )
    else:
        assert task.human is None


@pytest.mark.parametrize("name", ["cqa", "esnli"])
def test_what_was_asked_or_filtered_stands_for_what_the_set_came_with(
    name: str, tmp_path: Path, written: Callable[..., str]
) -> None:
    """All of one teacher: its labels beside its own reasons. People's reasons stay theirs."""
    came = datasets.read(written(name, 300), datasets.form(name))
    path = tmp_path / "kept.jsonl"
    datasets.write(path, [replace(one, rationale="asked", teacher_label="said", agreement=1.0) for one in came])
    (task,) = of_sets(recipe(sets=[{"form": name, "train": str(path)}], arms=arms(name)))
    assert {(one.rationale, one.teacher_label) for one in (*task.train, *task.test)} == {("asked", "said")}
    assert {one.agreement for one in task.train} == {1.0}
    assert task.human is not None
    assert all((one.rationale or "").startswith("person ") for one in task.human)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_people_bring_reasons_and_no_labels(unlabelled: bool, tmp_path: Path, written: Callable[..., str]) -> None:
    """Where some or no labels are looked at, the arm of people's reasons learns the same labels as the others."""
    rows = [{**nli(place), "label": nli(place)["label"] if place % 3 else None} for place in range(60)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    others = {"dev": written("esnli", 60, 100, "dev"), "test": written("esnli", 60, 200, "test")}
    told = {"form": "esnli", "train": str(tmp_path / "train.jsonl"), **others, "unlabelled": unlabelled}
    (task,) = of_sets(recipe(sets=[told]))
    places = [*range(len(task.train))]
    found = [
        lessons(lessons_of(arm, task, places, 0), "two-task", Wording())[LABEL]
        for arm in ("two-task", "two-task, human reasons")
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 60
    assert all(one.label is None for one in task.human or []) is unlabelled


@pytest.mark.parametrize("name", ROWS)
def test_what_stands_in_both_files_is_not_tested_on(name: str, written: Callable[..., str]) -> None:
    train, test = written(name, 200), written(name, 90, 150, "test")
    (task,) = of_sets(recipe(sets=[{"form": form(name), "train": train, "test": test}], arms=arms(name)))
    parts = [texts(part) for part in (task.train, task.dev, task.test)]
    assert len(parts[2]) == 40, "50 of 90 stand in the other"
    assert len(parts[0]) + len(parts[1]) == 200, "dev alone is cut off train"
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


def test_rows_of_one_premise_are_on_one_side(written: Callable[..., str]) -> None:
    (task,) = of_sets(recipe(sets=[{"form": "esnli", "train": written("esnli", 300)}], arms=arms("esnli")))
    sides = [{text.split("\n")[0] for text in texts(part)} for part in (task.train, task.dev, task.test)]
    assert len(sides[0] | sides[1] | sides[2]) == sum(map(len, sides)) == 100


def test_the_same_text_is_never_on_two_sides(written: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text(Path(written("cqa", 100)).read_text() * 3)
    (task,) = of_sets(recipe(sets=[{"form": "cqa", "train": str(path)}]))
    assert not texts(task.train) & (texts(task.dev) | texts(task.test))
    assert not texts(task.dev) & texts(task.test)


def test_an_instruction_that_rows_share_does_not_put_them_on_one_side(written: Callable[..., str]) -> None:
    """Their first line is no premise: parts are by the whole text, and still share nothing."""
    path = Path(written("own", 300))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for place, row in enumerate(rows):
        row["title"] = "Is this mail wanted?" if place % 50 else f"Is mail {place} wanted?"
        row["body"] = f"Buy {place}!"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:30]]))
    (task,) = of_sets(recipe(sets=[{"form": OWN, "train": str(path)}], arms=["standard", "two-task"]))
    parts = [texts(part) for part in (task.train, task.dev, task.test)]
    assert len(parts[0] | parts[1] | parts[2]) == sum(map(len, parts)) == 300
    assert len(parts[0]) == pytest.approx(240, abs=45)
    assert min(map(len, parts)) > 10


def test_parts_do_not_hang_on_what_else_is_in_the_file(written: Callable[..., str]) -> None:
    (few,) = of_sets(recipe(sets=[{"form": "cqa", "train": written("cqa", 100)}]))
    (more,) = of_sets(recipe(sets=[{"form": "cqa", "train": written("cqa", 400)}]))
    for one, other in ((few.train, more.train), (few.dev, more.dev), (few.test, more.test)):
        assert texts(one) < texts(other)


def test_no_more_is_held_out_than_asked_and_it_is_spread(written: Callable[..., str]) -> None:
    path = written("cqa", 400)
    (whole,) = of_sets(recipe(sets=[{"form": "cqa", "train": path}]))
    (few,) = of_sets(recipe(sets=[{"form": "cqa", "train": path}], held_out=[5, 1000]))
    assert len(few.dev) == 5
    places = [whole.dev.index(example) for example in few.dev]
    assert places == [place * len(whole.dev) // 5 for place in range(5)]
    assert (few.test, few.train) == (whole.test, whole.train), "what is not held out is not trained on either"


def test_tasks_have_their_names_and_steps(written: Callable[..., str]) -> None:
    sets = [
        {"form": "cqa", "train": written("cqa", 60, 0, "a"), "steps": 9},
        {"form": "anli", "train": written("anli", 90, 0, "b")},
        {"form": OWN, "train": written("own", 60, 0, "c")},
    ]
    found = of_sets(recipe(sets=sets, arms=["standard", "two-task"]))
    assert [task.name for task in found] == ["CQA", "ANLI", "c.jsonl"]
    assert [task.steps for task in found] == [9, 4, 4]
    assert [task.human for task in found] == [None, None, None], "nobody asked for them"


def test_a_file_of_too_few_rows_is_refused(written: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match=r"train\.jsonl: no rows are left for (train|dev|test): give more, or a file"):
        of_sets(recipe(sets=[{"form": "cqa", "train": written("cqa", 3)}]))
    path = Path(written("own", 60))
    unlabelled = [{**json.loads(line), "class": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in unlabelled))
    with pytest.raises(ValueError, match=r"none of the rows for dev has a label: name their column"):
        of_sets(recipe(sets=[{"form": OWN, "train": str(path)}], arms=["standard", "two-task"]))
    same = {"form": "cqa", "train": written("cqa", 100), "test": written("cqa", 100, 0, "test")}
    said = r"test\.jsonl: no rows are left for test, as the texts of all 100 stand in .*train\.jsonl, or in dev: give o"
    with pytest.raises(ValueError, match=said):
        of_sets(recipe(sets=[same]))


def test_dev_of_a_file_of_its_own(written: Callable[..., str]) -> None:
    files = {"train": written("cqa", 200), "dev": written("cqa", 60, 180, "dev")}
    (task,) = of_sets(recipe(sets=[{"form": "cqa", **files}]))
    parts = [texts(part) for part in (task.train, task.dev, task.test)]
    assert len(parts[1]) == 40
    assert task.again == (20, 0)
    assert len(parts[0]) + len(parts[2]) == 200
    assert not parts[0] & parts[2]
    files["test"] = written("cqa", 60, 220, "test")
    (task,) = of_sets(recipe(sets=[{"form": "cqa", **files}]))
    parts = [texts(part) for part in (task.train, task.dev, task.test)]
    assert list(map(len, parts)) == [200, 40, 40], "what dev has is not tested on"
    assert task.again == (20, 20)
    assert len(parts[0] | parts[1] | parts[2]) == 280


def test_premises_that_train_knows_are_counted_and_a_guess_is_told(written: Callable[..., str]) -> None:
    files = {"train": written("anli", 97), "test": written("anli", 40, 90, "test")}
    plain = ["standard", "two-task"]
    (task,) = of_sets(recipe(sets=[{"form": "anli", **files}], arms=plain))
    assert len(task.test) == 33
    assert task.known == 2, "97 and 98 have the premise of 96, which is trained on"
    assert task.guessed == pytest.approx(11 / 33)
    (whole,) = of_sets(recipe(sets=[{"form": "anli", "train": files["train"]}], arms=plain))
    assert whole.known == 0
    (listed,) = of_sets(recipe(sets=[{"form": "cqa", "train": written("cqa", 60)}], arms=plain))
    assert listed.guessed == 1, "always nowhere"
    assert replace(task, test=[Example("a", "x", ("x", "y")), Example("b", "z", ("z", "v"))]).guessed == 0.5


def test_people_who_gave_no_reasons_are_missed_before_anything_is_trained(written: Callable[..., str]) -> None:
    with pytest.raises(
        ValueError, match=r"train\.jsonl: no column of people's reasons: leave the arm 'two-task, human"
    ):
        of_sets(recipe(sets=[{"form": "svamp", "train": written("svamp", 60)}]))


@needs_data
@pytest.mark.parametrize("name", ["cpu", "controls", "sizes", "gemma", "gemma-labels", "paper"])
def test_the_data_of_the_shipped_recipes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_DATA", str(DATA))
    read = config.load(rooms.find("rationale").recipe(name), Recipe)
    for task in of_sets(read):
        assert min(50, read.held_out[0]) <= len(task.dev) <= read.held_out[0]
        assert 50 <= len(task.test) <= read.held_out[1]
        for arm in read.arms:
            assert lessons_of(arm, task, task.drawn(0.1, 0), 0)


def test_rows_without_gold_labels_are_learnt_from_and_judged_by_nobody(written: Callable[..., str]) -> None:
    files = {"train": written("own", 50), "dev": written("own", 20, 50, "dev"), "test": written("own", 20, 70, "test")}
    arms = ["standard", "two-task"]
    (task,) = of_sets(recipe(sets=[{"form": OWN, **files, "unlabelled": True}], arms=arms))
    assert {one.label for one in task.train} == {None}
    assert all(one.label for one in (*task.dev, *task.test))
    assert (len(task.train), len(task.dev), len(task.test)) == (50, 20, 20)
    assert cost_of_labels("two-task", task.train) == 0
    test = Path(files["test"])
    rows = [json.loads(line) for line in test.read_text().splitlines()]
    rows[3]["class"] = None
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task,) = of_sets(recipe(sets=[{"form": OWN, **files}], arms=arms))
    assert len(task.test) == 19, "without a gold label there is nothing to test by"


def test_files_by_name_and_what_they_held(
    written: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOESTRING_DATA", str(tmp_path))
    written("cqa", 30)
    written("cqa", 30, 50, "test")
    told = recipe(sets=[{"form": "cqa", "train": "train.jsonl", "test": "test.jsonl"}])
    before = fingerprints(told)
    assert before.keys() == {"train.jsonl", "test.jsonl"}
    written("cqa", 31)
    after = fingerprints(told)
    assert after["train.jsonl"] != before["train.jsonl"]
    assert after["test.jsonl"] == before["test.jsonl"]
    base = {"text": str(tmp_path / "test.jsonl"), "steps": 1, "learning_rate": 1e-3}
    assert len(fingerprints(recipe(chains=CHAINS, base=base))) == 1
    assert fingerprints(recipe(chains=CHAINS)) == {}


# which of them a run sees


def task(count: int = 40) -> Task:
    examples = [
        Example(str(place), "yes" if place % 2 else "no", ("yes", "no"), f"since {place}", "yes")
        for place in range(count)
    ]
    return Task("T", examples, examples[:2], examples[:2], 4)


def test_a_fraction_is_the_first_of_an_order_of_its_seed() -> None:
    orders = {seed: task().drawn(1.0, seed) for seed in (0, 1)}
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(40))
    assert orders[0] != orders[1]
    for fraction, count in ((0.5, 20), (0.25, 10), (0.125, 5), (0.001, 1)):
        assert task().drawn(fraction, 0) == orders[0][:count]


@pytest.mark.parametrize("seed", [0, 1, 1000])
def test_what_is_drawn_is_not_the_order_of_any_epoch(seed: int) -> None:
    """Else who sees few labels would see the first ones of an epoch of who sees all."""
    stream = Lessons({LABEL: [Pair([1], [2])]}, {LABEL: 1.0}, 1, family="decoder", pad=0, seed=seed)
    drawn = task().drawn(1.0, seed)
    for epoch in range(4):
        assert drawn != [int(place) for place in stream._order(40, epoch)], epoch


# chains


def test_chains_are_held_out_of_what_is_trained_on() -> None:
    told = recipe(chains={**CHAINS, "train": 100}, held_out=[30, 50])
    dev, test = held_out_chains(told)
    train = untaught_chains(told)
    assert (len(train), len(dev), len(test)) == (100, 30, 50)
    assert len(texts(train) | texts(dev) | texts(test)) == 180
    assert untaught_chains(told) == train
    given = [replace(one, rationale=solve(one.text)[0], teacher_label=one.label) for one in train]
    made = of_chains(told, given)
    assert made == Task("chains", given, dev, test, 4, form=Form(options=DIGITS))
    assert made.options == DIGITS


# real data


@needs_data
@pytest.mark.parametrize("name", ["cqa", "svamp", "esnli", "anli"])
def test_real_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_DATA", str(DATA))
    stem = "anli1" if name == "anli" else name
    files = {"train": f"rationale/{stem}_train.jsonl.gz", "test": f"rationale/{stem}_dev.jsonl.gz"}
    (found,) = of_sets(recipe(sets=[{"form": name, **files}], arms=["standard", "two-task"], held_out=[400, 1000]))
    parts = [texts(part) for part in (found.train, found.dev, found.test)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    rows = {"cqa": 9741, "svamp": 800, "esnli": 9842, "anli": 833}[name]
    assert len(found.train) == pytest.approx(0.9 * rows, rel=0.05)
    assert 0 < len(found.dev) <= 400
    assert 0 < len(found.test) <= 1000
    said = sum(one.rationale is not None for one in found.train) / len(found.train)
    assert said > 0.9
    assert len(found.options) == (3 if name in ("esnli", "anli") else 0)
