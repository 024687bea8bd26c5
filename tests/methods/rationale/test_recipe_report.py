"""Rows, notes and pictures from outcomes that are made up, so that every figure can be checked on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoestring import config
from shoestring.cost import Cost
from shoestring.data import tokenizers
from shoestring.evaluate import report as reports
from shoestring.evaluate.scores import Report
from shoestring.methods.rationale.chains import DIGITS
from shoestring.methods.rationale.encode import Coder
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.recipe_arm import Arm, Outcome
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_ground import Ground, Start
from shoestring.methods.rationale.recipe_plan import Cell, Plan
from shoestring.methods.rationale.recipe_report import report, title
from shoestring.methods.rationale.recipe_schema import ARMS, Recipe
from shoestring.methods.rationale.recipe_setting import Setting
from shoestring.train.settle import Settled

ASKED = Cost(teacher_tokens=1000)
SIMPLE = {"standard": [0.5, 0.7], "standard, compute-matched": [0.6, 0.6], "two-task": [0.7, 0.8]}


def ground(tasks: Sequence[str] = ("chains",), **changes: Any) -> Ground:
    told: dict[str, Any] = {
        "chains": {"given": 2, "derived": 1, "train": 40},
        "model": {"names": ["t5-tiny"]},
        "arms": ["standard", "two-task"],
        "steps": 8,
        "batch": 4,
        "evaluate_every": 4,
        "patience": 2,
        "held_out": [3, 4],
        "seeds": [0, 1],
        "tuning": {"seeds": [100], "learning_rates": [1e-3]},
    }
    recipe = config.check({**told, **changes}, Recipe, "here")
    examples = [Example(str(place), str(place % 10), DIGITS) for place in range(40)]
    made = {name: Task(name, examples, examples[:2], examples, 8, known=3) for name in tasks}
    start = Start("t5-tiny", "encoder-decoder", Path("t"), None, Settled("fp32", False, 1, "measured"))
    names = recipe.model.names
    sizes = {name: 1_000_000 * (place + 1) for place, name in enumerate(names)}
    return Ground(recipe, made, dict.fromkeys(names, start), sizes, 3, {})


@pytest.fixture(autouse=True)
def coder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters, in place of the tokenizer that a run has in its folder."""

    def of_letters(made: Ground, name: str) -> Coder:
        return Coder(tokenizers.byte_tokenizer(), "encoder-decoder", *made.recipe.lessons.tokens)

    monkeypatch.setattr(Ground, "coder", of_letters)


def arm(name: str, seed: int, cell: Cell) -> Arm:
    return Arm(f"{cell}-{name}-{seed}", *cell, name, 1e-3, 1.0, seed, 8, 4)


def outcome(score: float, name: str = "two-task", diverged: str | None = None) -> Outcome:
    points = [
        {
            "step": step,
            "cost": Cost(flops=100 * step, tokens=10 * step, seconds=step).as_dict(),
            "dev": score / 2,
            "test": score - 0.1 * (8 - step),
        }
        for step in (4, 8)
    ]
    ledger = {"train": Cost(flops=800, tokens=80, labels=40, seconds=8, peak_bytes=5).as_dict()}
    ledger |= {"train/evaluate": Cost(flops=999).as_dict(), "evaluate": Cost(flops=999).as_dict()}
    scores = {"accuracy": score, "accuracy, written": score - 0.1}
    if name == "single-task":
        del scores["accuracy, written"]
    reasons = [["What is\nit?", "it follows", "1"]] if name.startswith(("two-task", "single-task")) else []
    return Outcome(points, scores, reasons, 40, 3.0, False, ledger, diverged)


def outcomes(
    scores: dict[str, list[float]], cells: Sequence[Cell] = (Cell("t5-tiny", "chains", 1.0),)
) -> dict[Arm, Outcome]:
    return {
        arm(name, seed, cell): outcome(score, name)
        for cell in cells
        for name, some in scores.items()
        for seed, score in enumerate(some)
    }


def chosen(cells: Sequence[Cell] = (Cell("t5-tiny", "chains", 1.0),), times: float = 2.5) -> Plan:
    return Plan(
        {(cell, name): Setting(1e-3, 1.0) for cell in cells for name in ARMS}, longer=dict.fromkeys(cells, times)
    )


@pytest.fixture
def simple() -> Report:
    return report("r", outcomes(SIMPLE), chosen(), ground(arms=list(SIMPLE)), ASKED)


# by hand


def test_rows(simple: Report) -> None:
    assert [(row.name, row.twin, row.group, row.title) for row in simple.rows] == [
        ("standard", True, "", "standard"),
        ("standard, compute-matched", True, "", "standard, compute-matched"),
        ("two-task", False, "", "two-task"),
    ]
    row = simple.row("two-task")
    assert row.scores["test accuracy"].mean == pytest.approx(0.75)
    assert row.scores["test accuracy"].sd == pytest.approx(0.0707, abs=1e-4)
    assert row.scores["test accuracy, written"].mean == pytest.approx(0.65)
    assert row.scores["dev accuracy"].mean == pytest.approx(0.375)
    assert (simple.room, simple.recipe, simple.metric, simple.lower_is_better) == (
        "rationale",
        "r",
        "test accuracy",
        False,
    )


def test_what_was_measured_for_the_report_is_in_no_row_and_the_teacher_is_in_those_that_need_it(simple: Report) -> None:
    cost = simple.row("two-task").cost
    assert (cost.flops, cost.tokens, cost.labels, cost.teacher_tokens, cost.peak_bytes) == (800, 80, 40, 1000, 5)
    assert simple.row("standard").cost.teacher_tokens == 0
    assert simple.row("standard, compute-matched").cost.teacher_tokens == 0


def test_costs_are_means_and_peaks_are_peaks() -> None:
    found = outcomes({"standard": [0.5, 0.7], "two-task": [0.7, 0.8]})
    first = next(iter(found.values()))
    first.ledger["train"]["flops"], first.ledger["train"]["peak_bytes"] = 1000, 50
    cost = report("r", found, chosen(), ground(), ASKED).row("standard").cost
    assert (cost.flops, cost.peak_bytes) == (900, 50)


def test_points_are_of_every_seed(simple: Report) -> None:
    points = [point for point in simple.points if point.row == "standard"]
    assert [(point.seed, point.step, point.flops, point.tokens, point.seconds) for point in points] == [
        (0, 4, 400, 40, 4),
        (0, 8, 800, 80, 8),
        (1, 4, 400, 40, 4),
        (1, 8, 800, 80, 8),
    ]
    assert [point.scores["test accuracy"] for point in points] == pytest.approx([0.1, 0.5, 0.3, 0.7])


def test_pairs_are_the_method_and_its_twins(simple: Report) -> None:
    assert [(pair.method, pair.twin) for pair in simple.pairs] == [
        ("two-task", "standard"),
        ("two-task", "standard, compute-matched"),
    ]


def test_notes(simple: Report) -> None:
    notes = " ".join(simple.notes)
    for said in (
        # paired by seed: 20 and 10; 10 and 20
        "two-task, test accuracy in points, paired by seed: 15 ± 7 to standard; 15 ± 7 to standard, compute-matched.",
        "standard, compute-matched: 2.50 times the steps of standard at most; it took 100.0% of the FLOPs of two-task.",
        "The teacher is the program that made the chains, behind an HTTP endpoint; it makes no mistake.",
        "Not tuned: the learning rate, 0.001 for all.",
        "Runs went through their labels 3.00 times in the mean; 0 of 6 ended early, when dev had nothing better to",
        "Dev, by which all arms are chosen, holds 2 (chains) labelled examples, which are in no row's cost.",
        "of 'What is / it?' the two-task student says '1', and as its reason 'it follows'.",
    ):
        assert said in notes, said
    assert "left out" not in notes


def test_where_dev_chooses_nothing_no_note_says_that_it_does() -> None:
    found = outcomes(SIMPLE)
    for done in found.values():
        done.points = done.points[-1:]
    notes = " ".join(report("r", found, chosen(), ground(), ASKED).notes)
    assert "Nothing is chosen on dev, 2 (chains) labelled examples: students are those at the end of their" in notes
    assert "best on dev" not in notes
    assert "chosen, holds" not in notes


def test_the_matched_twin_is_told_by_what_it_took() -> None:
    """It may have ended early, at fewer FLOPs than it might have had."""
    found = outcomes(SIMPLE)
    for one, done in found.items():
        done.early = one.seed == 1 and one.name != "two-task"
        if one.name == "standard, compute-matched":
            done.ledger["train"]["flops"] = 300 * (one.seed + 1)
    notes = " ".join(report("r", found, chosen(), ground(), ASKED).notes)
    assert "2.50 times the steps of standard at most; it took 56.2% of the FLOPs of two-task." in notes
    assert "2 of 6 ended early, when dev had nothing better to show." in notes
    cells = [Cell("t5-tiny", "chains", part) for part in (0.5, 1.0)]
    found = outcomes(SIMPLE, cells)
    for one, done in found.items():
        if one.name == "standard, compute-matched":
            done.ledger["train"]["flops"] = 800 if one.fraction == 1.0 else 200
    plan = chosen(cells)
    plan.longer[cells[0]] = 2.0
    notes = " ".join(report("r", found, plan, ground(fractions=[0.5, 1.0]), ASKED).notes)
    assert (
        "2.00 to 2.50 times the steps of standard at most; it took 25.0% to 100.0% of the FLOPs of two-task." in notes
    )


def test_facts(simple: Report) -> None:
    assert simple.facts == {"data": "generated", "precision": "t5-tiny: measured", "side by side": "3 at once"}
    made = ground()
    made.data["a.jsonl"] = "12ab"
    assert report("r", outcomes(SIMPLE), chosen(), made, ASKED).facts["data"] == "a.jsonl 12ab"


def test_every_arm_has_a_row_and_its_note() -> None:
    scores = {name: [0.1 * place, 0.1 * place] for place, name in enumerate(ARMS)}
    found = report("r", outcomes(scores), chosen(), ground(), ASKED)
    assert [row.name for row in found.rows] == list(ARMS)
    twins = {row.name for row in found.rows if row.twin}
    assert twins == set(ARMS) - {"two-task", "two-task, human reasons", "two-task, agreeing reasons"}
    assert "test accuracy, written" not in found.row("single-task").scores
    free = {row.name for row in found.rows if row.cost.teacher_tokens == 0}
    assert free == {"standard", "standard, compute-matched", "two-task, human reasons"}
    assert [pair.twin for pair in found.pairs] == ["standard", "distilled", "standard, compute-matched"]
    notes = " ".join(found.notes)
    for name in ("two-task, shuffled reasons", "single-task", "informed", "two-task, agreeing reasons"):
        assert f"{name}: " in notes, name
    assert "its label is judged as written, those of the others by likelihood among the options" in notes
    for name in ARMS:
        assert name == "two-task" or f" to {name}" in notes, name


def test_the_words_that_the_informed_arm_does_not_read_are_counted() -> None:
    made = ground()
    reasons = ["It is late. So the answer is 1.", "So the answer is 1.", "There is 1 left.", None]
    examples = [Example(str(place), "1", ("1", "2"), reason, "1") for place, reason in enumerate(reasons)]
    (name,) = made.tasks
    made.tasks[name] = replace(made.tasks[name], train=examples)
    notes = report(
        "r", outcomes({arm: [0.5, 0.5] for arm in ("standard", "two-task", "informed")}), chosen(), made, ASKED
    ).notes
    said = "1 of 3 reasons lost the words that state the answer, 1 were nothing else and are left out; 1 name it still."
    assert f"informed: {name}, {said}" in notes


def test_the_reasons_that_agree_are_counted() -> None:
    made, gold = ground(tasks=("A", "B")), ["1"] * 30 + ["2"] * 10
    for name, reasoned in (("A", 40), ("B", 20)):
        examples = [
            Example(str(place), "1", ("1", "2"), "so" if place < reasoned else None, gold[-place - 1])
            for place in range(40)
        ]
        made.tasks[name] = replace(made.tasks[name], train=examples)
    cells = [Cell("t5-tiny", task, 1.0) for task in made.tasks]
    scores = {name: [0.5, 0.5] for name in ("standard", "two-task", "two-task, agreeing reasons")}
    notes = report("r", outcomes(scores, cells), chosen(cells), made, ASKED).notes
    end = "are for a label that is not the gold one, and left out."
    assert f"two-task, agreeing reasons: A, 10 of 40 reasons (25%) {end}" in notes
    assert f"two-task, agreeing reasons: B, 10 of 20 reasons (50%) {end}" in notes
    sizes = "2 (A), 2 (B)"
    assert f"Dev, by which all arms are chosen, holds {sizes} labelled examples, which are in no row's cost." in notes


def test_a_diverged_arm_is_left_out_and_named() -> None:
    found = outcomes({**SIMPLE, "distilled": [0.5, 0.5], "single-task": [0.5, 0.5]})
    lost = next(one for one in found if one.name == "distilled" and one.seed == 1)
    found[lost] = Outcome(diverged="step 3: the loss is nan")
    made = report("r", found, chosen(), ground(), ASKED)
    assert [row.name for row in made.rows] == [*SIMPLE, "single-task"]
    assert made.notes[-1] == "distilled is left out, a run diverged (step 3: the loss is nan)."
    assert "distilled" not in [pair.twin for pair in made.pairs]
    assert all(point.row != "distilled" for point in made.points)


@pytest.mark.parametrize("name", ["standard", "two-task"])
def test_nothing_is_reported_without_the_method_or_its_twin(name: str) -> None:
    found = outcomes(SIMPLE)
    lost = next(one for one in found if one.name == name)
    found[lost] = Outcome(diverged="step 3: the loss is nan")
    with pytest.raises(ValueError, match=rf"too many runs diverged: {name} is left out.*Lower tuning\.learning_rates"):
        report("r", found, chosen(), ground(), ASKED)


def test_what_was_tuned_is_told() -> None:
    plan, cell = chosen(), Cell("t5-tiny", "chains", 1.0)
    plan.settings[cell, "two-task"] = Setting(2e-3, 1.0)
    plan.tried[cell, "two-task"] = {Setting(1e-3, 1.0): 0.25, Setting(2e-3, 1.0): 0.5}
    made = ground(tuning={"seeds": [100], "learning_rates": [1e-3, 2e-3]})
    notes = " ".join(report("r", outcomes(SIMPLE), plan, made, ASKED).notes)
    assert "learning rate of two-task: 0.002 (dev accuracy of each tried: 0.001: 25.0%, 0.002: 50.0%)." in notes
    assert "the runs they were chosen by are in no row's cost." in notes
    assert "Not tuned" not in notes


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (
            [1e-3, 2e-3],
            "learning rate and λ of two-task: 0.002 with λ 0.1 (dev accuracy of each tried: 0.002 with λ 0.1:",
        ),
        ([2e-3], "λ of two-task: 0.1 (dev accuracy of each tried: 0.1: 50.0%, 0.5: 25.0%)."),
    ],
    ids=["and rates", "alone"],
)
def test_lambdas_that_were_tuned_are_told(rates: list[float], said: str) -> None:
    plan, cell = chosen(), Cell("t5-tiny", "chains", 1.0)
    plan.settings[cell, "two-task"] = Setting(2e-3, 0.1)
    plan.tried[cell, "two-task"] = {Setting(2e-3, 0.1): 0.5, Setting(2e-3, 0.5): 0.25}
    made = ground(tuning={"seeds": [100], "learning_rates": rates, "weights": [0.1, 0.5]})
    notes = report("r", outcomes(SIMPLE), plan, made, ASKED).notes
    assert any(note.startswith(said) for note in notes)
    assert ("Not tuned: the learning rate, 0.002 for all." in notes) == (len(rates) == 1)


def test_the_teacher_is_told_as_it_was() -> None:
    chains = {"given": 2, "derived": 1, "train": 40, "error_rate": 0.1, "samples": 5}
    notes = " ".join(report("r", outcomes(SIMPLE), chosen(), ground(chains=chains), ASKED).notes)
    assert "behind an HTTP endpoint, asked 5 times, by vote; it slips in 10% of its answers." in notes
    sets = [{"form": "cqa", "train": "a.jsonl"}]
    notes = " ".join(report("r", outcomes(SIMPLE), chosen(), ground(chains=None, sets=sets), Cost()).notes)
    assert "The teacher's answers were given" in notes


def test_rows_that_stand_in_two_files_are_told() -> None:
    made = ground()
    made.tasks["chains"] = replace(made.tasks["chains"], again=(3, 0))
    notes = report("r", outcomes(SIMPLE), chosen(), made, ASKED).notes
    assert [note for note in notes if "are left out" in note] == [
        "chains: 3 rows of dev are left out: their texts stand in another part too."
    ]


def test_what_of_the_data_reaches_no_student_is_told() -> None:
    made = ground(lessons={"tokens": [20, 8]})
    task = made.tasks["chains"]
    some = [replace(one, rationale="r" * (7 + place)) for place, one in enumerate(task.train[:3])]
    long = [replace(one, text="t" * 40) for one in task.train[3:7]]
    made.tasks["chains"] = replace(task, train=[*some, *long, *task.train[7:]])
    notes = report("r", outcomes(SIMPLE), chosen(), made, ASKED).notes
    assert "chains: 3 of 40 training examples have a reason of the teacher." in notes
    assert "chains: 4 of 40 texts (label task) are longer than 20 tokens and are cut." in notes
    assert "chains: 2 of 3 reasons (rationale task) are longer than 8 tokens and are cut." in notes
    assert not any("with their" in note for note in notes), "no arm reads or writes such"
    made.tasks["chains"] = replace(task, train=[replace(one, rationale="why") for one in task.train])
    notes = report("r", outcomes(SIMPLE), chosen(), made, ASKED).notes
    assert not any("have a reason" in note or "are cut" in note for note in notes)


def test_what_the_teachers_labels_stand_in_for_is_told() -> None:
    made = ground(fractions=[0.5, 1.0])
    task = made.tasks["chains"]
    made.tasks["chains"] = replace(task, train=[replace(one, label=None) for one in task.train[:30]] + task.train[30:])
    cells = [Cell("t5-tiny", "chains", part) for part in (0.5, 1.0)]
    done = report("r", outcomes(SIMPLE, cells), chosen(cells), made, ASKED)
    said = "chains: 10 of 40 training examples have a gold label; where there is none all arms learn the teacher's."
    assert said in done.notes
    assert done.row("20 examples (50 %): two-task")
    assert done.scatters[0].x == "examples"


def test_seeds_that_go_on_from_the_same_weights_are_told() -> None:
    made, says = ground(), "All seeds of a model go on from the same weights"
    assert not any(says in note for note in report("r", outcomes(SIMPLE), chosen(), made, ASKED).notes)
    made.starts["t5-tiny"] = replace(made.starts["t5-tiny"], folder=Path("base"))
    assert any(says in note for note in report("r", outcomes(SIMPLE), chosen(), made, ASKED).notes)


# several cells


@pytest.fixture
def several() -> tuple[Report, Ground]:
    made = ground(tasks=("A", "B"), fractions=[0.25, 1.0], model={"names": ["t5-tiny", "t5-1m"]}, arms=list(SIMPLE))
    cells = [
        Cell(model, task, part) for model in made.recipe.model.names for task in ("A", "B") for part in (0.25, 1.0)
    ]
    found: dict[Arm, Outcome] = {}
    for cell in cells:
        # with a quarter of the labels B is learnt as well as with all by standard, and A is not
        gain = 0.0 if cell.fraction == 1.0 else -0.1 if cell.task == "B" else -0.3
        found |= outcomes({name: [score + gain for score in some] for name, some in SIMPLE.items()}, [cell])
    return report("r", found, chosen(cells), made, ASKED), made


def test_cells_have_titles_and_groups(several: tuple[Report, Ground]) -> None:
    found, made = several
    assert title(Cell("t5-tiny", "A", 0.25), made) == "A, 10 labels (25 %), t5-tiny"
    assert title(Cell("t5-tiny", "chains", 1.0), ground()) == ""
    assert len(found.rows) == 8 * 3
    assert found.groups()[0] == "A, 10 labels (25 %), t5-tiny"
    row = found.row("B, 40 labels (100 %), t5-1m: two-task")
    assert (row.group, row.title) == ("B, 40 labels (100 %), t5-1m", "two-task")
    assert {(pair.method.rpartition(": ")[2], pair.twin.rpartition(": ")[2]) for pair in found.pairs} == {
        ("two-task", "standard")
    }
    assert len(found.pairs) == 8


def test_rates_of_many_cells_are_told_by_how_often_each_was_chosen() -> None:
    made = ground(
        tasks=("A",),
        fractions=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0],
        arms=list(SIMPLE),
        tuning={"seeds": [100], "learning_rates": [1e-3, 2e-3]},
    )
    cells = [Cell("t5-tiny", "A", part) for part in made.recipe.fractions]
    found: dict[Arm, Outcome] = {}
    for cell in cells:
        found |= outcomes(SIMPLE, [cell])
    plan = chosen(cells)
    for place, cell in enumerate(cells):
        plan.settings[cell, "two-task"] = Setting(2e-3 if place < 2 else 1e-3, 1.0)
        plan.tried[cell, "two-task"] = {Setting(1e-3, 1.0): 0.25, Setting(2e-3, 1.0): 0.5}
    notes = [note for note in report("r", found, plan, made, ASKED).notes if note.startswith("learning rate of")]
    assert notes == ["learning rate of two-task, of 7 comparisons: 0.001 in 5, 0.002 in 2."]


def test_the_fewest_labels_that_are_enough(several: tuple[Report, Ground]) -> None:
    notes = " ".join(several[0].notes)
    # standard has 60 % with most labels; two-task 65 % with a quarter of B's, and 45 % with a quarter of A's
    says, end = (
        "two-task is at least as good as standard with most labels (60.0%) with",
        "and no other fraction tried, by",
    )
    assert f"B, t5-tiny: {says} 25 %, 100 % of the labels {end} means." in notes
    assert f"A, t5-tiny: {says} 100 % of the labels {end} means." in notes
    made = ground(fractions=[0.5, 1.0])
    cells = [Cell("t5-tiny", "chains", part) for part in (0.5, 1.0)]
    found = outcomes({"standard": [0.9, 0.9], "two-task": [0.1, 0.1]}, cells)
    notes = " ".join(report("r", found, chosen(cells), made, ASKED).notes)
    assert "chains: two-task is at least as good as standard with most labels (90.0%) with no fraction tried" in notes


def test_what_is_no_better_than_a_guess_says_nothing_of_fewer_labels() -> None:
    made = ground(fractions=[0.5, 1.0])
    cells = [Cell("t5-tiny", "chains", part) for part in (0.5, 1.0)]
    found = outcomes({"standard": [0.19, 0.18], "two-task": [0.3, 0.3]}, cells)  # two errors above 10 % are 19.5 %
    made_of_it = report("r", found, chosen(cells), made, ASKED)
    assert made_of_it.pairs == (), "nothing is said of what was saved"
    notes = made_of_it.notes
    assert "chains: standard with most labels (18.5%) is no better than a guess: fewer say nothing." in notes
    assert "at least as good" not in " ".join(notes)
    assert "chains: a guess is right for 10.0% of its 40 test examples." in notes
    assert any(note.startswith("chains: 3 of the test examples have a premise that stands in") for note in notes)


def test_what_was_saved_is_told_of_the_comparisons_with_a_twin_that_learnt() -> None:
    cells = [Cell("t5-tiny", "chains", part) for part in (0.5, 1.0)]
    found = outcomes({"standard": [0.1, 0.1], "two-task": [0.3, 0.3]}, cells[:1])
    found |= outcomes({"standard": [0.6, 0.6], "two-task": [0.7, 0.7]}, cells[1:])
    pairs = report("r", found, chosen(cells), ground(fractions=[0.5, 1.0]), ASKED).pairs
    assert [pair.twin for pair in pairs] == ["40 labels (100 %): standard"]


def test_the_teacher_is_paid_for_the_examples_that_were_drawn() -> None:
    made = ground(fractions=[0.25, 1.0])
    cells = [Cell("t5-tiny", "chains", part) for part in (0.25, 1.0)]
    rows = report(
        "r", outcomes({"standard": [0.9, 0.9], "two-task": [0.9, 0.9]}, cells), chosen(cells), made, ASKED
    ).rows
    assert [row.cost.teacher_tokens for row in rows] == [0, 250, 0, 1000]


def test_a_fraction_between_others_may_be_worse() -> None:
    """It is not as good from the fewest on."""
    parts = [0.125, 0.25, 0.5]
    cells = [Cell("t5-tiny", "chains", part) for part in parts]
    found: dict[Arm, Outcome] = {}
    for cell, score in zip(cells, (0.7, 0.3, 0.8), strict=True):
        found |= outcomes({"standard": [0.5, 0.7], "two-task": [score, score]}, [cell])
    notes = " ".join(report("r", found, chosen(cells), ground(fractions=parts), ASKED).notes)
    assert "with most labels (60.0%) with 12.5 %, 50 % of the labels and no other fraction tried" in notes


def test_pictures_of_labels_and_of_size(several: tuple[Report, Ground]) -> None:
    pictures = {(one.y, one.title): one for one in several[0].scatters}
    assert len(pictures) == 2 * 2 + 2
    labels = pictures["test accuracy against labels, %", "B, t5-1m"]
    assert labels.joined
    assert ("two-task", 10.0, pytest.approx(65.0)) in labels.points
    assert ("two-task", 40.0, pytest.approx(75.0)) in labels.points
    assert [point[:2] for point in labels.points if point[0] == "a guess"] == [("a guess", 10.0), ("a guess", 40.0)]
    assert len(labels.points) == 6 + 2
    sizes = pictures["test accuracy against size, %", "A"]
    assert ("standard", 1.0, pytest.approx(60.0)) in sizes.points
    assert ("standard", 2.0, pytest.approx(60.0)) in sizes.points
    assert len(sizes.points) == 6 + 2, "of the most labels alone"
    assert report("r", outcomes(SIMPLE), chosen(), ground(), ASKED).scatters == ()


def test_sizes_of_two_families_are_not_joined() -> None:
    made = ground(model={"names": ["t5-tiny", "neox-1m"]}, arms=list(SIMPLE))
    made.starts["neox-1m"] = replace(made.starts["neox-1m"], name="neox-1m", family="decoder")
    cells = [Cell(name, "chains", 1.0) for name in made.recipe.model.names]
    done = report("r", outcomes(SIMPLE, cells), chosen(cells), made, ASKED)
    assert [one.title for one in done.scatters] == ["chains, encoder-decoder", "chains, decoder"]
    assert [len(one.points) for one in done.scatters] == [4, 4]


def test_a_diverged_arm_is_left_out_of_its_cell_alone() -> None:
    made = ground(fractions=[0.5, 1.0], arms=list(SIMPLE))
    cells = [Cell("t5-tiny", "chains", part) for part in (0.5, 1.0)]
    found = outcomes(SIMPLE, cells)
    lost = next(one for one in found if (one.name, one.fraction) == ("standard, compute-matched", 0.5))
    found[lost] = Outcome(diverged="the loss is nan")
    done = report("r", found, chosen(cells), made, ASKED)
    assert "20 labels (50 %): standard, compute-matched" not in [row.name for row in done.rows]
    assert done.row("40 labels (100 %): standard, compute-matched").twin
    assert (
        done.notes[-1] == "20 labels (50 %): standard, compute-matched is left out, a run diverged (the loss is nan)."
    )


@pytest.mark.parametrize("name", ["standard", "two-task"])
@pytest.mark.parametrize("part", [0.5, 1.0])
def test_a_cell_without_the_method_or_its_twin_is_left_out_whole(name: str, part: float) -> None:
    made = ground(fractions=[0.5, 1.0], arms=list(SIMPLE))
    cells = [Cell("t5-tiny", "chains", one) for one in (0.5, 1.0)]
    found = outcomes(SIMPLE, cells)
    lost = next(one for one in found if (one.name, one.fraction) == (name, part))
    found[lost] = Outcome(diverged="the loss is nan")
    done = report("r", found, chosen(cells), made, ASKED)
    where, left = (
        ("20 labels (50 %)", "40 labels (100 %)") if part == 0.5 else ("40 labels (100 %)", "20 labels (50 %)")
    )
    assert [row.name for row in done.rows] == [f"{left}: {one}" for one in SIMPLE]
    assert {pair.twin for pair in done.pairs} == {f"{left}: {one}" for one in SIMPLE if one != "two-task"}
    assert done.notes[-2:] == (
        f"{where}: {name} is left out, a run diverged (the loss is nan).",
        f"{where}: left out whole, as standard or two-task is.",
    )
    enough = [note for note in done.notes if "at least as good" in note]
    assert len(enough) == (1 if part == 0.5 else 0), "with most labels there is nobody to be as good as"
    (picture,) = done.scatters
    assert {labels for _, labels, _ in picture.points} == {40.0 if part == 0.5 else 20.0}


def test_a_set_of_which_nothing_is_left_has_no_picture() -> None:
    made = ground(tasks=("A", "B"), fractions=[0.5, 1.0], model={"names": ["t5-tiny", "t5-1m"]}, arms=list(SIMPLE))
    cells = [Cell(model, task, part) for model in made.recipe.model.names for task in "AB" for part in (0.5, 1.0)]
    found = outcomes(SIMPLE, cells)
    for one in found:
        if one.task == "A" and one.name == "two-task":
            found[one] = Outcome(diverged="the loss is nan")
    done = report("r", found, chosen(cells), made, ASKED)
    assert {row.group[0] for row in done.rows} == {"B"}
    assert {one.title for one in done.scatters} == {"B, t5-tiny", "B, t5-1m", "B"}


# to a page


def test_it_is_written_and_read(simple: Report, tmp_path: Path) -> None:
    reports.write(simple, tmp_path)
    again = reports.read(tmp_path)
    assert [row.name for row in again.rows] == [row.name for row in simple.rows]
    assert (tmp_path / "report.html").stat().st_size > 1000
