"""Which runs there are: rates chosen on dev, the twin with as much compute, and the one student that is kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import config
from shoestring.cost import Cost, Ledger
from shoestring.cost.flops import StepFlops
from shoestring.cost.foretold import Foretold
from shoestring.data import tokenizers
from shoestring.methods.rationale import recipe_plan
from shoestring.methods.rationale.chains import Shape, chains, solve
from shoestring.methods.rationale.recipe_arm import Arm, Outcome, stream
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_ground import Ground, Start
from shoestring.methods.rationale.recipe_plan import Cell, Plan, cells, finals, outcomes_of, plan
from shoestring.methods.rationale.recipe_schema import Recipe
from shoestring.methods.rationale.recipe_setting import Setting
from shoestring.train.settle import Settled
from shoestring.train.side_by_side import Job

SMALL = {"num_layers": 1, "num_decoder_layers": 1, "d_model": 16, "num_heads": 2, "d_kv": 8, "d_ff": 16}
DECODER = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
ARMS = ["standard", "standard, compute-matched", "two-task"]


@pytest.fixture
def ground(tmp_path: Path) -> Callable[..., Ground]:
    """What runs stand on, without a run: ground(preset="t5-tiny", tasks=("chains",), **changes of the recipe)."""

    def make(preset: str = "t5-tiny", tasks: Sequence[str] = ("chains",), **changes: Any) -> Ground:
        told: dict[str, Any] = {
            "chains": {"given": 2, "derived": 2, "train": 20},
            "model": {"names": [preset], "changes": SMALL if preset == "t5-tiny" else DECODER},
            "arms": ARMS,
            "steps": 100,
            "batch": 4,
            "evaluate_every": 10,
            "patience": 2,
            "held_out": [3, 4],
            "seeds": [0, 1],
            "tuning": {"seeds": [100], "learning_rates": [1e-3]},
            "lessons": {"tokens": [48, 32]},
        }
        recipe = config.check({**told, **changes}, Recipe, "here")
        tokenizers.byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
        examples = chains(Shape(2, 2), 27, 0)
        taught = [replace(one, rationale=solve(one.text)[0], teacher_label=one.label) for one in examples[:20]]
        made = {name: Task(name, taught, examples[20:23], examples[23:], recipe.steps) for name in tasks}
        kind = "encoder-decoder" if preset == "t5-tiny" else "decoder"
        settled = Settled("fp32", False, 1, "fp32")
        start = Start(preset, kind, tmp_path / "tokenizer", None, settled)
        return Ground(
            recipe, made, dict.fromkeys(recipe.model.names, start), dict.fromkeys(recipe.model.names, 7), 1, {}
        )

    return make


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Arm]]:
    """Outcomes that are given instead of trained: tuned(dev accuracy of an arm, or why it diverged) -> what was run."""

    def make(found: Callable[[Arm], float | str]) -> list[Arm]:
        ran: list[Arm] = []

        def outcome(_: Ground, arms: Sequence[Arm], ledger: Ledger, out: Path) -> dict[Arm, Outcome]:
            ran.extend(arms)
            result = {arm: found(arm) for arm in arms}
            return {
                arm: Outcome(diverged=one) if isinstance(one, str) else Outcome([{"dev": 0.0}, {"dev": one}])
                for arm, one in result.items()
            }

        monkeypatch.setattr(recipe_plan, "outcomes_of", outcome)
        return ran

    return make


# by hand


def test_cells_are_every_model_task_and_fraction(ground: Any) -> None:
    found = cells(ground(tasks=("A", "B"), fractions=[0.5, 1.0]))
    assert found == [
        Cell("t5-tiny", "A", 0.5),
        Cell("t5-tiny", "A", 1.0),
        Cell("t5-tiny", "B", 0.5),
        Cell("t5-tiny", "B", 1.0),
    ]


def test_one_rate_is_not_tuned(ground: Any, tuned: Any) -> None:
    ran = tuned(lambda _: 0.5)
    made = ground(arms=["standard", "two-task"])
    assert plan(made, Ledger(), Path("nowhere")) == Plan(
        {(Cell("t5-tiny", "chains", 1.0), arm): Setting(1e-3, 1.0) for arm in ("standard", "two-task")}
    )
    assert ran == []


def test_each_arm_has_its_own_best_rate_by_the_mean_over_seeds(ground: Any, tuned: Any) -> None:
    scores = {
        ("standard", 1e-3): [0.5, 0.1],
        ("standard", 1e-2): [0.3, 0.4],
        ("two-task", 1e-3): [0.6, 0.6],
        ("two-task", 1e-2): [0.9, 0.2],
    }
    ran = tuned(lambda arm: scores[arm.name, arm.learning_rate][arm.seed - 100])
    made = ground(arms=["standard", "two-task"], tuning={"seeds": [100, 101], "learning_rates": [1e-3, 1e-2]})
    found = plan(made, Ledger(), Path("nowhere"))
    cell = Cell("t5-tiny", "chains", 1.0)
    assert found.settings == {(cell, "standard"): (1e-2, 1.0), (cell, "two-task"): (1e-3, 1.0)}
    assert found.tried[cell, "standard"] == {(1e-3, 1.0): pytest.approx(0.3), (1e-2, 1.0): pytest.approx(0.35)}
    assert {arm.seed for arm in ran} == {100, 101}, "seeds that no row is of"
    assert len({arm.folder for arm in ran}) == len(ran) == 8
    assert all(arm.folder.startswith("tuning/") for arm in ran)
    assert [arm.learning_rate for arm in finals(made, found)] == [1e-2, 1e-2, 1e-3, 1e-3]


def test_of_rates_as_good_the_first_is_taken(ground: Any, tuned: Any) -> None:
    tuned(lambda _: 0.5)
    found = plan(ground(tuning={"seeds": [100], "learning_rates": [3e-3, 1e-3]}), Ledger(), Path("nowhere"))
    assert set(found.settings.values()) == {(3e-3, 1.0)}


def test_a_rate_at_which_a_run_diverged_is_out(ground: Any, tuned: Any) -> None:
    tuned(lambda arm: "step 3: the loss is nan" if (arm.learning_rate, arm.seed) == (1e-2, 101) else arm.learning_rate)
    tuning = {"seeds": [100, 101], "learning_rates": [1e-3, 1e-2]}
    made = ground(arms=["standard", "two-task"], tuning=tuning)
    found = plan(made, Ledger(), Path("nowhere"))
    assert set(found.settings.values()) == {(1e-3, 1.0)}
    assert all(tried == {(1e-3, 1.0): 1e-3} for tried in found.tried.values())
    tuned(lambda arm: "gone" if arm.name == "two-task" else 0.5)
    with pytest.raises(ValueError, match=r"two-task diverged at every one of tuning\.learning_rates: give lower ones"):
        plan(made, Ledger(), Path("nowhere"))


def test_rates_are_chosen_cell_by_cell(ground: Any, tuned: Any) -> None:
    tuned(lambda arm: arm.learning_rate if arm.fraction == 0.5 else -arm.learning_rate + 0.5)
    made = ground(arms=["standard", "two-task"], fractions=[0.5, 1.0], tuning={"learning_rates": [1e-3, 1e-2]})
    found = plan(made, Ledger(), Path("nowhere"))
    assert {cell.fraction: setting.rate for (cell, _), setting in found.settings.items()} == {0.5: 1e-2, 1.0: 1e-3}


@pytest.mark.parametrize(
    "changes",
    [{"fractions": [0.5, 0.5000001]}, {"model": {"names": ["models/a", "models-a"]}}],
    ids=["fractions", "models"],
)
def test_runs_that_would_share_a_folder_are_refused(ground: Any, tuned: Any, changes: dict[str, Any]) -> None:
    ran = tuned(lambda _: 0.5)
    made = ground(arms=["standard", "two-task"], tuning={"learning_rates": [1e-3, 1e-2]}, **changes)
    with pytest.raises(ValueError, match=r"^the runs of .*, and of .*, would have one folder: leave one out"):
        plan(made, Ledger(), Path("nowhere"))
    assert ran == []


def test_lambda_is_chosen_for_the_arms_that_have_it(ground: Any, tuned: Any) -> None:
    ran = tuned(lambda arm: 0.5 - abs(arm.weight - 0.1))
    names = ["standard", "single-task", "two-task, shuffled reasons", "two-task"]
    made = ground(arms=names, tuning={"learning_rates": [1e-3], "weights": [0.01, 0.1, 2.0]})
    found = plan(made, Ledger(), Path("nowhere"))
    assert {name: setting.weight for (_, name), setting in found.settings.items()} == dict(
        zip(names, [1.0, 1.0, 0.1, 0.1], strict=True)
    )
    assert {name for _, name in found.tried} == set(names[2:]), "nothing is to be chosen for the others"
    assert len({arm.folder for arm in ran}) == len(ran) == 2 * 3
    assert {arm.weight for arm in finals(made, found) if arm.name == "two-task"} == {0.1}
    assert "tuning/rate0.001-weight0.01-" in ran[0].folder


def test_the_lambda_that_was_chosen_is_the_one_that_reasons_weigh(ground: Any, tuned: Any) -> None:
    tuned(lambda arm: -arm.weight + 1.0)
    made = ground(seeds=[0], tuning={"learning_rates": [1e-3], "weights": [0.5, 0.25]}, patience=1)
    chosen = {arm.name: arm for arm in finals(made, plan(made, Ledger(), Path("nowhere")))}["two-task"]
    coder = made.coder(chosen.model)

    def scales(arm: Arm) -> list[float]:
        batches, _ = stream(made, arm, made.tasks[arm.task], coder)
        return [float(batch["scale"][0]) for batch in islice(batches, 2)]

    (label, reason), (same, four_times) = scales(chosen), scales(replace(chosen, weight=1.0))
    assert label == same
    assert four_times == pytest.approx(4 * reason)


def test_the_runs_of_rows(ground: Any) -> None:
    made = ground(tasks=("A", "B"), fractions=[0.5, 1.0])
    found = plan(made, Ledger(), Path("nowhere"))
    arms = finals(made, found)
    assert len({arm.folder for arm in arms}) == len(arms) == 2 * 2 * 3 * 2
    assert {arm.seed for arm in arms} == {0, 1}
    kept = [arm for arm in arms if arm.kept]
    assert [(arm.task, arm.fraction, arm.name, arm.seed) for arm in kept] == [("A", 1.0, "two-task", 0)]
    for arm in arms:
        matched = arm.name == "standard, compute-matched"
        assert (arm.steps > 100) is matched
        assert arm.every > 10 if matched else arm.every == 10
        assert -(-arm.steps // arm.every) == 10, "as many looks at dev"
        assert "," not in arm.folder
        assert "/" not in arm.folder


def test_folders_of_names_that_are_paths(ground: Any) -> None:
    made = ground(tasks=("data/my set.jsonl",))
    arms = finals(made, plan(made, Ledger(), Path("nowhere")))
    assert all("/" not in arm.folder and " " not in arm.folder for arm in arms)
    assert len({arm.folder for arm in arms}) == len(arms)


# as much compute


def spent(made: Ground, arm: Arm) -> float:
    """The FLOPs of all steps of an arm, batch by batch."""
    coder = made.coder(arm.model)
    batches, _ = stream(made, arm, made.tasks[arm.task], coder)
    step_flops = StepFlops(made.model(arm.model, 0))
    return float(sum(step_flops(batch) for batch in islice(batches, arm.steps * batches.micro_batches)))


@pytest.mark.parametrize("preset", ["t5-tiny", "neox-tiny"])
@pytest.mark.parametrize("changes", [{}, {"lessons": {"tokens": [48, 32], "parts": 2}}, {"batch": 8, "steps": 37}])
def test_the_matched_twin_takes_as_many_flops_within_a_step(preset: str, changes: dict[str, Any], ground: Any) -> None:
    made = ground(preset, seeds=[0, 1, 2], **changes)
    found = plan(made, Ledger(), Path("nowhere"))
    (times,) = found.longer.values()
    assert times > 1
    arms = {(arm.name, arm.seed): arm for arm in finals(made, found)}
    over = []
    for seed in (0, 1, 2):
        standard, matched, two_task = (spent(made, arms[name, seed]) for name in ARMS)
        one = standard / arms["standard", seed].steps
        assert abs(standard - two_task) > one
        over.append((matched - two_task) / one)
    assert min(over) > -1e-6, "of no seed less"
    assert min(over) < 1.5


def test_where_no_formula_fits_it_is_counted(ground: Any) -> None:
    """Dropout keeps the formula from fitting, and changes no product."""
    (plain,) = plan(ground(), Ledger(), Path("nowhere")).longer.values()
    model = {"names": ["t5-tiny"], "changes": {**SMALL, "dropout_rate": 0.1}}
    (counted,) = plan(ground(model=model), Ledger(), Path("nowhere")).longer.values()
    assert counted == pytest.approx(plain, rel=0.02)


@pytest.mark.parametrize("preset", ["t5-tiny", "neox-tiny"])
@pytest.mark.parametrize("mode", ["mixed", "alternating"])
@pytest.mark.parametrize("steps", [20, 100, 256, 640])
def test_flops_over_a_few_steps_are_those_over_all(preset: str, mode: str, steps: int, ground: Any) -> None:
    """Texts and reasons of uneven lengths; as many steps as would always hit on one of two tasks in turn."""
    made = ground(preset, steps=steps, batch=16, lessons={"tokens": [48, 32], "mode": mode})
    (task,) = made.tasks.values()
    uneven = [
        replace(one, text="x" * (place * 7 % 40), rationale="r" * (1 + place * 11 % 30))
        for place, one in enumerate(task.train)
    ]
    made.tasks[task.name] = replace(task, train=uneven)
    for arm in finals(made, plan(made, Ledger(), Path("nowhere"))):
        if arm.seed == 0 and arm.name != ARMS[1]:
            probe = recipe_plan.Probe(made, made.model(arm.model, 0))
            assert probe.of_arm(arm) == pytest.approx(spent(made, arm) / arm.steps, rel=0.02)


def test_steps_whose_flops_are_known_are_not_gone_through_again(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something is frozen no formula fits; nothing is foretold here, so that the other steps stay unknown."""
    monkeypatch.setattr(Foretold, "__call__", lambda *_: None)
    made = ground("t5-tiny", steps=40, batch=4, lessons={"tokens": [48, 32]})
    (task,) = made.tasks.values()
    uneven = [replace(one, text="x" * (place * 7 % 40)) for place, one in enumerate(task.train)]
    made.tasks[task.name] = replace(task, train=uneven)
    arm, *_ = finals(made, plan(made, Ledger(), Path("nowhere")))
    model = made.model(arm.model, 0)
    next(model.parameters()).requires_grad_(False)
    passes: list[object] = []
    model.register_forward_hook(lambda *_: passes.append(None))
    probe = recipe_plan.Probe(made, model)
    mean = probe.of_arm(arm)
    assert passes
    passes.clear()
    assert probe.of_arm(arm) == mean
    assert not passes


@given(st.integers(1, 5000), st.sampled_from([8, 64]))
def test_steps_are_spread_evenly(steps: int, most: int) -> None:
    found = recipe_plan._spread(steps, most)
    assert found == sorted(set(found))
    assert len(found) == min(steps, most)
    assert 0 <= found[0] <= found[-1] < steps
    assert steps - found[-1] <= 2 * steps / most + 1
    if steps > most:
        assert sum(step % 2 for step in found) == most // 2


def test_the_model_that_steps_were_looked_at_by_is_gone_when_runs_start(
    ground: Any, tuned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lie on the accelerator beside theirs."""
    probed: list[weakref.ref[object]] = []
    left: list[object] = []
    real = Ground.model

    def model(self: Ground, name: str, seed: int) -> Any:
        found = real(self, name, seed)
        probed.append(weakref.ref(found))
        return found

    def ran(arm: Arm) -> float:
        gc.collect()
        left.extend(one for one in (reference() for reference in probed) if one is not None)
        return 0.5

    monkeypatch.setattr(Ground, "model", model)
    tuned(ran)
    plan(ground(tuning={"seeds": [100], "learning_rates": [3e-3, 1e-3]}), Ledger(), Path("nowhere"))
    assert probed
    assert left == []


def test_it_is_not_reckoned_where_nobody_asks(ground: Any) -> None:
    assert plan(ground(arms=["standard", "two-task"]), Ledger(), Path("nowhere")).longer == {}


def test_alternating_steps_have_one_task(ground: Any) -> None:
    mixed, alternating = (
        next(iter(plan(ground(lessons={"tokens": [48, 32], "mode": mode}), Ledger(), Path("nowhere")).longer.values()))
        for mode in ("mixed", "alternating")
    )
    assert 1 < alternating < mixed
    assert alternating == pytest.approx(mixed / 2, rel=0.01)


# what each came to


def test_what_runs_took_is_booked_below_their_names(ground: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ground(arms=["standard", "two-task"], seeds=[0])
    arms = finals(made, plan(made, Ledger(), Path("nowhere")))

    def ran(jobs: Sequence[Job], workers: int) -> list[Outcome]:
        assert workers == 1
        assert [job.name for job in jobs] == [arm.folder for arm in arms]
        return [Outcome(ledger={"train": Cost(flops=place + 1.0).as_dict()}) for place, _ in enumerate(jobs)]

    monkeypatch.setattr(recipe_plan, "side_by_side", ran)
    ledger = Ledger()
    found = outcomes_of(made, arms, ledger, Path("nowhere"))
    assert list(found) == arms
    assert [ledger.total(arm.folder).flops for arm in arms] == [1, 2]
    assert ledger.total().flops == 3
