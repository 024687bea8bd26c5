"""Rows, notes and pictures from outcomes that are made up, so that every figure can be checked on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoestring import config, rooms
from shoestring.cost import Cost
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.recipe_arm import Outcome
from shoestring.methods.mixing.recipe_ground import Ground
from shoestring.methods.mixing.recipe_notes import Settings
from shoestring.methods.mixing.recipe_report import ACCURACY, LOSS, MIXING, report
from shoestring.methods.mixing.recipe_schema import Recipe
from shoestring.train.settle import Settled

SKILLS = ("digit 0", "digit 1")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    from shoestring.data import tokenizers

    tokenizers.byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    recipe = config.load(rooms.find("mixing").recipe("smoke"), Recipe)
    return Ground(recipe, tmp_path / "tokenizer", None, Settled("fp32", False, 1, "fp32"), 1, {})


def outcome(losses: list[float], accuracy: list[float], mix: float = 0.0, diverged: str | None = None) -> Outcome:
    points = [
        {
            "step": 6 * place,
            "cost": Cost(flops=100 * place, tokens=10 * place, seconds=place).as_dict(),
            "loss": dict.fromkeys(SKILLS, loss),
            "accuracy": {"digit 0": right, "digit 1": right / 2},
        }
        for place, (loss, right) in enumerate(zip(losses, accuracy, strict=True))
    ]
    ledger = {"train": Cost(flops=200 - mix, tokens=20, seconds=2, peak_bytes=5).as_dict()}
    ledger |= {"train/mix": Cost(flops=mix).as_dict(), "train/evaluate": Cost(flops=999).as_dict()}
    weights = [[0, {"digit 0": 0.25, "digit 1": 0.75}], [6, {"digit 0": 0.5, "digit 1": 0.5}]]
    return Outcome(
        points, dict.fromkeys(SKILLS, losses[-1]), weights, epochs={"digit 0": 3.0}, ledger=ledger, diverged=diverged
    )


def found() -> dict[str, list[Outcome]]:
    return {
        "random": [outcome([3, 2, 1.5], [0.0, 0.2, 0.8]), outcome([3, 2, 1.7], [0.0, 0.2, 0.8])],
        "stratified": [outcome([3, 2, 1.0], [0.0, 0.4, 1.0]), outcome([3, 2, 1.2], [0.0, 0.4, 1.0])],
        "skill-it": [outcome([3, 2, 0.9], [0.0, 0.6, 1.0], mix=10), outcome([3, 2, 1.0], [0.0, 0.6, 1.0], mix=20)],
        "aioli": [outcome([3, 2, 1.1], [0.0, 0.6, 1.0]), outcome([3, 2, 1.2], [0.0, 0.6, 1.0])],
    }


def settings() -> Settings:
    return Settings(
        1e-3, {"skill-it": 0.5, "aioli": 0.2}, {"eta of aioli": {0.2: 1.0, 0.5: 1.1}}, Cost(flops=1000, tokens=5)
    )


def graph() -> Graph:
    made = Graph.of([[1, 0.5], [0, 1]], SKILLS)
    return Graph(made.skills, made.evaluated, made.edges, 0.75, learned={"trainings": 9})


def test_rows_by_hand(ground: Ground) -> None:
    made = report("r", found(), settings(), graph(), ground)
    assert [row.name for row in made.rows] == ["random, by size", "stratified", "Skill-It", "Aioli"]
    assert [row.twin for row in made.rows] == [True, True, False, False]
    row = made.row("Skill-It")
    assert row.scores[LOSS].mean == pytest.approx(0.95)
    assert row.scores[ACCURACY].mean == pytest.approx(0.75)
    assert row.scores[MIXING].mean == pytest.approx(15 / 200)
    # the run's own and its sampler's, the whole graph; never what the report measured
    assert (row.cost.flops, row.cost.tokens) == (1200, 25)
    assert made.row("Aioli").cost.flops == 200
    assert made.metric == ACCURACY
    assert not made.lower_is_better
    points = [point for point in made.points if point.row == "Skill-It" and point.seed == 0]
    assert [point.flops for point in points] == [1000, 1100, 1200]
    assert [(pair.method, pair.twin) for pair in made.pairs] == [
        ("Skill-It", "stratified"),
        ("Aioli", "stratified"),
        ("Skill-It", "random, by size"),
    ]


def test_the_middle_is_that_of_the_random_draw_after_its_start(ground: Ground) -> None:
    outcomes = found()
    for one in outcomes.values():
        for run in one:
            run.points.append(run.points[-1] | {"step": 18})
    made = report("r", outcomes, settings(), graph(), ground)
    # mean accuracy of random: 0, .15, .6, .6: halfway from .15 to .6 is .375, nearest of which is step 6, the first
    assert made.rows[0].scores["accuracy at step 6"].mean == pytest.approx(0.15)


def test_notes_say_who_won_what_was_tuned_and_what_was_left_out(ground: Ground) -> None:
    outcomes = found()
    outcomes["static"] = [
        outcome([3, 2, 1], [0, 0, 0]),
        outcome([3, 2, 1], [0, 0, 0], diverged="step 3: the loss is nan"),
    ]
    notes = " ".join(report("r", outcomes, settings(), graph(), ground).notes)
    for said in (
        "Skill-It, static (T = 1) is left out: 1 of 2 runs diverged (step 3: the loss is nan).",
        "Skill-It less stratified, paired by seed: test loss -0.15 ± 0.07, accuracy 0 ± 0 points",
        "Chosen by mean dev loss at other seeds, eta of aioli: 0.2 (0.2: 1.000, 0.5: 1.100).",
        "Not tuned: eta of skill-it (0.5).",
        "Lowest mean test loss at the end: Skill-It.",
        "Highest mean test accuracy at the end: stratified.",
        "What samplers measured, at most, of their runs' FLOPs: Skill-It 10.0%.",
        "Most epochs of a skill: random, by size 3.0 (digit 0)",
        "seeds agreed on the sign of 75% of the edges",
        "The graph took 9 short trainings",
    ):
        assert said in notes, said


def test_another_twin_that_wins_is_held_against_the_twin(ground: Ground) -> None:
    outcomes = found() | {"random": [outcome([3, 2, 0.5], [0, 0.2, 0.8]), outcome([3, 2, 0.7], [0, 0.2, 0.8])]}
    notes = " ".join(report("r", outcomes, settings(), graph(), ground).notes)
    assert "Lowest mean test loss at the end: random, by size." in notes
    assert "random, by size less stratified, paired by seed: test loss -0.5" in notes


def test_a_target_alone_is_a_twin_too(ground: Ground) -> None:
    made = report("r", found() | {"target only": found()["random"]}, settings(), graph(), ground)
    assert "Aioli less target only, paired by seed: test loss -0.45" in " ".join(made.notes)
    assert [pair.twin for pair in made.pairs] == ["stratified", "stratified", "random, by size", "target only"]


def test_a_fixed_share_of_the_target_is_a_twin_whose_share_is_told(ground: Ground) -> None:
    chosen = settings()
    chosen.rates = {"fixed share": 0.5, "skill-it": 0.5}
    outcomes = found() | {"fixed share": found()["random"]}
    notes = " ".join(report("r", outcomes, chosen, graph(), ground).notes)
    assert "Not tuned: a fixed share of the target (0.5), eta of skill-it (0.5)." in notes
    chosen.tried["a fixed share of the target"] = {0.3: 1.2, 0.5: 1.1}
    made = report("r", outcomes, chosen, graph(), ground)
    assert "a fixed share of the target: 0.5 (0.3: 1.200, 0.5: 1.100)." in " ".join(made.notes)
    assert "Aioli less a fixed share of the target, paired by seed: test loss -0.45" in " ".join(made.notes)
    assert next(row for row in made.rows if row.name == "a fixed share of the target").twin


def test_pictures_are_means_over_seeds(ground: Ground) -> None:
    made = report("r", found(), settings(), None, ground)
    weights = next(one for one in made.scatters if one.y == "weight" and one.title == "Skill-It")
    assert ("digit 1", 0.0, 0.75) in weights.points
    assert weights.points[-2:] == (("digit 0", 12.0, 0.5), ("digit 1", 12.0, 0.5))
    losses = next(one for one in made.scatters if one.y == "test loss by skill" and one.title == "Skill-It")
    assert ("digit 0", 12.0, pytest.approx(0.95)) in losses.points
    assert losses.joined
    assert min(step for _, step, _ in losses.points) == 6, "from the first measurement after the start on"


def test_nothing_is_reported_without_the_twin(ground: Ground) -> None:
    lost: Any = found() | {"stratified": [outcome([1, 1, 1], [0, 0, 0], diverged="nan")] * 2}
    with pytest.raises(ValueError, match="too many runs diverged"):
        report("r", lost, settings(), None, ground)
    gone = [outcome([1, 1, 1], [0, 0, 0], diverged="nan")] * 2
    lost = {sampler: outcomes if sampler in ("random", "stratified") else gone for sampler, outcomes in found().items()}
    with pytest.raises(ValueError, match="too many runs diverged"):
        report("r", lost, settings(), None, ground)
