"""Rows, points and notes from outcomes that are made up, so that every figure can be checked on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from shoestring import config
from shoestring.cost import Cost
from shoestring.evaluate import report as reports
from shoestring.evaluate.scores import Report
from shoestring.methods.permutation.recipe_ground import Ground
from shoestring.methods.permutation.recipe_held import APART, CLOZE, JOINT, REMEMBERED
from shoestring.methods.permutation.recipe_plan import Plan
from shoestring.methods.permutation.recipe_pretrain import Job, Outcome
from shoestring.methods.permutation.recipe_report import DEV, report
from shoestring.methods.permutation.recipe_schema import ARMS, PLAIN, Recipe
from shoestring.train.settle import Settled

NATS = {"permutation": [10.0, 12.0], "masked": [13.0, 13.0], "autoregressive": [15.0, 16.0]}
TASKS = [{"name": name, "train": "a", "test": "b"} for name in ("SST", "NLI")]


def ground(rates: Sequence[float] = (1e-3,), **changes: Any) -> Ground:
    told: dict[str, Any] = {
        "model": "xlnet-tiny",
        "text": {"sources": ["a"], "tokenizer": "bytes", "length": 24, "reuse": 12, "predicted": 4, "batch": 4},
        "memory": 12,
        "arms": list(ARMS),
        "steps": 8,
        "held": {"dev": 2, "test": 2, "longest": 4},
        "seeds": [0, 1],
        "tuning": {"learning_rates": list(rates)},
    }
    settled = Settled("fp32", False, 1, "measured")
    return Ground(
        config.check({**told, **changes}, Recipe, "here"), {}, Path("t"), settled, 3, {"text": "abc", "x": "d"}
    )


def outcome(arm: str, nats: float, seed: int = 0, diverged: str | None = None, tasks: bool = False) -> Outcome:
    def scores(value: float) -> dict[str, float]:
        found = {JOINT: value, CLOZE: value / 4}
        found |= {REMEMBERED: value - 0.5} if ARMS[arm].memory else {}
        return found | ({APART: value + 2 + seed} if ARMS[arm].kind in ("permutation", "masked") else {})

    points = [
        {
            "step": step,
            "cost": Cost(flops=100 * step, tokens=10 * step, seconds=step).as_dict(),
            "dev": scores(nats + 1 + 8 - step),
            "test": scores(nats + 8 - step),
        }
        for step in (4, 8)
    ]
    ledger = {"train": Cost(flops=800, tokens=80, seconds=8 + 2 * seed, peak_bytes=5 + seed).as_dict()}
    ledger |= {"train/evaluate": Cost(flops=999).as_dict(), "fine-tune/SST": Cost(flops=999).as_dict()}
    accuracies = {
        "SST": {"dev": 0.9, "test": 0.5 + 0.1 * seed, "rate": 1e-3 * (1 + seed)},
        "NLI": {"dev": 0.8, "test": 0.4, "rate": 3e-3},
    }
    return Outcome(points, accuracies if tasks else {}, ledger, diverged)


def outcomes(nats: Mapping[str, Sequence[float]] = NATS, tasks: bool = False) -> dict[Job, Outcome]:
    return {
        Job(f"{arm}-{seed}", arm, 1e-3, seed, 8, final=True): outcome(arm, value, seed, tasks=tasks)
        for arm, some in nats.items()
        for seed, value in enumerate(some)
    }


def chosen(**tried: dict[float, float]) -> Plan:
    arms = [*ARMS]
    steps = {arm: 1000 * (place + 1) for place, arm in enumerate(arms)}
    flops = {arm: (place + 1) * 10**9 for place, arm in enumerate(arms)}
    rates = {arm: min(tried[arm], key=tried[arm].__getitem__) if arm in tried else 1e-3 for arm in arms}
    return Plan(steps, flops, rates, dict(tried))


@pytest.fixture
def simple() -> Report:
    return report("r", outcomes(), chosen(), ground())


def notes(found: Report, start: str) -> list[str]:
    return [note for note in found.notes if note.startswith(start)]


# by hand


def test_rows(simple: Report) -> None:
    assert [(row.name, row.twin) for row in simple.rows] == [
        ("permutation", False),
        ("masked", True),
        ("autoregressive", True),
    ]
    row = simple.row("permutation")
    assert list(row.scores) == [JOINT, REMEMBERED, APART, CLOZE, DEV]
    assert row.scores[REMEMBERED].mean == 10.5
    assert REMEMBERED not in simple.row("masked").scores
    assert (row.scores[JOINT].mean, row.scores[JOINT].n) == (11.0, 2)
    assert row.scores[JOINT].sd == pytest.approx(2**0.5)
    assert row.scores[APART].mean == pytest.approx((12 + 15) / 2)
    assert row.scores[CLOZE].mean == pytest.approx(2.75)
    assert row.scores[DEV].mean == 12.0
    assert APART not in simple.row("autoregressive").scores
    assert (simple.room, simple.recipe, simple.metric, simple.lower_is_better) == ("permutation", "r", JOINT, True)


def test_a_row_costs_what_pretraining_took_once(simple: Report) -> None:
    assert simple.row("masked").cost == Cost(flops=800, tokens=80, seconds=9, peak_bytes=6)


def test_points_are_of_every_measurement(simple: Report) -> None:
    found = [(point.seed, point.step, point.scores[JOINT]) for point in simple.points if point.row == "permutation"]
    assert found == [(0, 4, 14.0), (0, 8, 10.0), (1, 4, 16.0), (1, 8, 12.0)]
    point = simple.measured("autoregressive")[1][0]
    assert (point.tokens, point.flops, point.seconds) == (40, 400, 4)


def test_the_method_is_held_against_each(simple: Report) -> None:
    assert [(pair.method, pair.twin) for pair in simple.pairs] == [
        ("permutation", "masked"),
        ("permutation", "autoregressive"),
    ]


def test_ablations_are_no_twins() -> None:
    found = report("r", outcomes(dict.fromkeys(ARMS, (9.0,))), chosen(), ground())
    assert {row.name for row in found.rows if row.twin} == {"masked", "masked, memory", "autoregressive"}
    assert len(found.pairs) == len(ARMS) - 1


def test_facts(simple: Report) -> None:
    assert simple.facts == {"data": "text abc; x d", "precision": "measured", "side by side": "3 at once"}


def test_tasks_have_columns_and_a_note() -> None:
    found = report("r", outcomes(tasks=True), chosen(), ground(fine_tuning={"sets": TASKS}))
    row = found.row("masked")
    assert list(row.scores) == [JOINT, APART, CLOZE, "SST accuracy", "NLI accuracy", DEV]
    assert row.scores["SST accuracy"].mean == pytest.approx(0.55)
    (note,) = notes(found, "Fine-tuning")
    assert note == (
        "Fine-tuning took the rate that was best on dev, run by run: SST 0.001, 0.002; NLI 0.003. "
        "Its cost is in no row."
    )
    assert found.row("masked").cost.flops == 800


def test_without_tasks_there_is_no_note_of_them(simple: Report) -> None:
    assert not notes(simple, "Fine-tuning")


# notes


def test_what_a_span_is(simple: Report) -> None:
    (note,) = notes(simple, "A span has 2 to 4 tokens")
    assert "the autoregressive arm sees what stands before alone" in note


def test_what_is_taught_and_scored_alike(simple: Report) -> None:
    assert notes(simple, "Scored is what is read forward")
    assert not notes(simple, "permutation, plain and masked alone"), "the arm was not run"
    plain = report("r", outcomes({**NATS, PLAIN: [1.0, 2.0]}), chosen(), ground())
    assert notes(plain, "permutation, plain and masked alone")


def test_rates_steps_and_flops_are_told(simple: Report) -> None:
    (note,) = notes(report("r", outcomes(), chosen(), ground(rates=(1e-4, 1e-3))), "Learning rates")
    assert note == (
        "Learning rates, chosen on dev for each arm, which is in no row's cost, and steps, at equal FLOPs: "
        "permutation 0.001 for 1,000 steps; "
        "masked 0.001 for 6,000 steps; autoregressive 0.001 for 8,000 steps."
    )
    (note,) = notes(simple, "All arms have the learning rate 0.001: none was chosen here.")
    assert note.endswith("Steps, at equal FLOPs: permutation 1,000; masked 6,000; autoregressive 8,000.")
    (note,) = notes(simple, "FLOPs of a step")
    assert note == "FLOPs of a step: permutation 1.00 G; masked 6.00 G; autoregressive 8.00 G."


def test_what_is_apart_is_told_by_seed() -> None:
    arms = {**NATS, PLAIN: [14.0, 13.0], "permutation, no memory": [9.0, 11.5]}
    found = report("r", outcomes(arms), chosen(), ground())
    assert [note for note in found.notes if "nats a span more" in note] == [
        "permutation, nats a span more, paired by seed: -2.0 ± 1.4 to masked; -4.5 ± 0.7 to autoregressive.",
        "permutation, plain, nats a span more, paired by seed: 0.5 ± 0.7 to masked; -2.0 ± 1.4 to autoregressive.",
        "permutation, no memory, nats a span more, paired by seed: -0.8 ± 0.4 to permutation.",
    ]


def test_what_telling_a_span_at_once_saves(simple: Report) -> None:
    gains = [note for note in simple.notes if "telling a span as one event saves" in note]
    assert [note.split(":")[0] for note in gains] == ["permutation", "masked"]
    assert gains[0] == "permutation: telling a span as one event saves 2.5 ± 0.7 nats over its tokens apart."


@pytest.mark.parametrize(
    ("tried", "told"),
    [
        ({1e-4: 3.0, 1e-3: 1.0, 1e-2: 2.0}, False),
        ({1e-4: 1.0, 1e-3: 2.0, 1e-2: 3.0}, True),
        ({1e-4: 3.0, 1e-3: 2.0, 1e-2: 1.0}, True),
        ({1e-4: 3.0, 1e-3: 2.0}, False),  # beyond it, it diverged
        ({1e-4: 2.0}, True),
    ],
)
def test_a_rate_at_the_end_of_those_tried(tried: dict[float, float], told: bool) -> None:
    middle = {1e-4: 3.0, 1e-3: 1.0, 1e-2: 3.0}
    plan = chosen(**{"permutation": tried, "masked": middle, "autoregressive": middle})
    found = report("r", outcomes(), plan, ground(rates=(1e-4, 1e-3, 1e-2)))
    ends = notes(found, "At the end of the rates tried")
    assert bool(ends) is told
    assert not told or ends[0].endswith("may lie beyond: permutation.")


def test_one_rate_has_no_end(simple: Report) -> None:
    assert not notes(simple, "At the end")


# diverged


def test_an_arm_of_which_a_run_diverged_is_left_out_and_named() -> None:
    found = outcomes()
    job = next(job for job in found if (job.arm, job.seed) == ("autoregressive", 1))
    found[job] = Outcome(diverged="step 3: the loss is nan")
    made = report("r", found, chosen(), ground())
    assert [row.name for row in made.rows] == ["permutation", "masked"]
    assert made.notes[-1] == "autoregressive is left out, a run diverged (step 3: the loss is nan)."
    assert all("autoregressive" not in note for note in notes(made, "All arms have"))
    assert {point.row for point in made.points} == {"permutation", "masked"}


@pytest.mark.parametrize("arm", ["permutation", "masked"])
def test_without_the_method_or_its_twin_there_is_no_report(arm: str) -> None:
    found = outcomes()
    found[next(job for job in found if job.arm == arm)] = Outcome(diverged="step 3: the loss is nan")
    said = rf"^too many runs diverged: {arm} is left out, .*\(step 3: the loss is nan\)\. Lower tuning\.learning_rates$"
    with pytest.raises(ValueError, match=said):
        report("r", found, chosen(), ground())


# the page


def test_it_can_be_written(simple: Report, tmp_path: Path) -> None:
    reports.write(simple, tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert "autoregressive" in text
    assert JOINT in text
