"""Which runs there are: steps at equal FLOPs, rates chosen on dev at seeds of their own, and the one that is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring import config, runtime
from shoestring.cost import Cost, Ledger
from shoestring.methods.permutation import recipe_plan
from shoestring.methods.permutation.recipe_ground import Ground, prepare
from shoestring.methods.permutation.recipe_held import JOINT
from shoestring.methods.permutation.recipe_plan import Plan, finals, outcomes_of, plan, step_flops
from shoestring.methods.permutation.recipe_pretrain import Job, Outcome
from shoestring.methods.permutation.recipe_schema import ARMS, Recipe
from shoestring.train import side_by_side as processes
from shoestring.train.settle import Settled

SMALL = {"n_layer": 2, "d_model": 16, "d_inner": 16}


def recipe(source: str = "a", **changes: Any) -> Recipe:
    told: dict[str, Any] = {
        "model": "xlnet-tiny",
        "changes": SMALL,
        "text": {"sources": [source], "tokenizer": "bytes", "length": 24, "reuse": 12, "predicted": 4, "batch": 4},
        "memory": 12,
        "arms": ["permutation", "masked"],
        "steps": 100,
        "held": {"dev": 2, "test": 2, "longest": 2},
        "seeds": [0, 1],
        "tuning": {"learning_rates": [1e-3]},
        "compute": {"precision": "fp32", "workers": 1},
    }
    return config.check({**told, **changes}, Recipe, "here")


def bare(**changes: Any) -> Ground:
    """A ground without files."""
    return Ground(recipe(**changes), {}, Path("nowhere"), Settled("fp32", False, 1, ""), 1, {})


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ground]:
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    for split in ("train", "dev", "test"):
        (tmp_path / f"text_{split}.txt").write_text(" ".join(f"{split} {number}." for number in range(200)))

    def make(**changes: Any) -> Ground:
        return prepare(recipe(str(tmp_path / "text_{split}.txt"), **changes), 1, tmp_path / "out")

    return make


def outcome(dev: float, test: float = 0.0) -> Outcome:
    return Outcome([{"step": 1, "dev": {JOINT: 99.0}}, {"step": 2, "dev": {JOINT: dev}, "test": {JOINT: test}}])


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Job]]:
    """Outcomes that are given instead of trained: tuned(nats on dev of a job, or why it diverged) -> what was run."""

    def make(found: Callable[[Job], float | str], one_step: Callable[[str], int] = lambda _: 10) -> list[Job]:
        ran: list[Job] = []

        def given(_: Ground, jobs: Sequence[Job], ledger: Ledger, out: Path) -> dict[Job, Outcome]:
            ran.extend(jobs)
            told = {job: found(job) for job in jobs}
            return {job: Outcome(diverged=one) if isinstance(one, str) else outcome(one) for job, one in told.items()}

        monkeypatch.setattr(recipe_plan, "outcomes_of", given)
        monkeypatch.setattr(recipe_plan, "step_flops", lambda _, arm: one_step(arm))
        return ran

    return make


NOWHERE = Path("nowhere")


# by hand


def test_one_rate_is_not_tuned(tuned: Any) -> None:
    ran = tuned(lambda _: 1.0, {"permutation": 12, "masked": 10}.__getitem__)
    assert plan(bare(), Ledger(), NOWHERE) == Plan(
        {"permutation": 100, "masked": 120},
        {"permutation": 12, "masked": 10},
        {"permutation": 1e-3, "masked": 1e-3},
    )
    assert ran == []


def test_each_arm_has_its_own_best_rate_by_the_mean_over_seeds(tuned: Any) -> None:
    nats = {
        ("permutation", 1e-3): [5.0, 9.0],
        ("permutation", 1e-2): [7.0, 6.0],
        ("masked", 1e-3): [4.0, 4.0],
        ("masked", 1e-2): [1.0, 8.0],
    }
    ran = tuned(lambda job: nats[job.arm, job.learning_rate][job.seed - 100])
    made = bare(tuning={"seeds": [100, 101], "learning_rates": [1e-3, 1e-2]})
    found = plan(made, Ledger(), NOWHERE)
    assert found.rates == {"permutation": 1e-2, "masked": 1e-3}
    assert found.tried["masked"] == {1e-3: pytest.approx(4.0), 1e-2: pytest.approx(4.5)}
    assert {job.seed for job in ran} == {100, 101}, "seeds that no row is of"
    assert len({job.folder for job in ran}) == len(ran) == 8
    assert all(job.folder.startswith("tuning/") and not job.final and not job.kept for job in ran)
    assert [job.learning_rate for job in finals(made, found)] == [1e-2, 1e-3, 1e-2, 1e-3]


def test_of_rates_as_good_the_first_is_taken(tuned: Any) -> None:
    tuned(lambda _: 5.0)
    found = plan(bare(tuning={"learning_rates": [3e-3, 1e-3]}), Ledger(), NOWHERE)
    assert set(found.rates.values()) == {3e-3}


def test_a_rate_at_which_a_run_diverged_is_out(tuned: Any) -> None:
    tuned(lambda job: "step 3: the loss is nan" if (job.learning_rate, job.seed) == (1e-2, 101) else -job.learning_rate)
    found = plan(bare(tuning={"seeds": [100, 101], "learning_rates": [1e-3, 1e-2]}), Ledger(), NOWHERE)
    assert set(found.rates.values()) == {1e-3}
    assert found.tried["masked"].keys() == {1e-3}


def test_an_arm_that_diverged_at_every_rate(tuned: Any) -> None:
    tuned(lambda job: "the loss is nan" if job.arm == "masked" else 1.0)
    made = bare(tuning={"learning_rates": [1e-3, 1e-2]})
    with pytest.raises(ValueError, match=r"^masked diverged at every one of tuning\.learning_rates: give lower ones$"):
        plan(made, Ledger(), NOWHERE)


def test_rows_are_of_the_recipes_seeds_and_one_model_is_kept(tuned: Any) -> None:
    tuned(lambda _: 1.0, {"permutation": 12, "masked": 10}.__getitem__)
    made = bare(seeds=[5, 3])
    jobs = finals(made, plan(made, Ledger(), NOWHERE))
    assert [(job.arm, job.seed, job.steps) for job in jobs] == [
        ("permutation", 5, 100),
        ("masked", 5, 120),
        ("permutation", 3, 100),
        ("masked", 3, 120),
    ]
    assert all(job.final for job in jobs)
    assert [job.kept for job in jobs] == [True, False, False, False]
    assert [job.folder for job in jobs[:2]] == ["permutation-seed5", "masked-seed5"]


def test_every_arm_has_folders_of_its_own() -> None:
    made = bare(arms=list(ARMS), seeds=[0, 1, 2])
    chosen = Plan(*(dict.fromkeys(ARMS, 1) for _ in range(3)))
    folders = [job.folder for job in finals(made, chosen)]
    assert len(set(folders)) == len(folders) == 3 * len(ARMS)
    assert not any(" " in folder or "," in folder for folder in folders)


# FLOPs


@given(st.integers(2, 10**5), st.integers(1, 10**15), st.integers(1, 10**15))
def test_no_twin_has_less_and_none_a_step_more(steps: int, method: int, twin: int) -> None:
    made = bare(steps=steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe_plan, "step_flops", lambda _, arm: {"permutation": method, "masked": twin}[arm])
        found = plan(made, Ledger(), NOWHERE)
    assert found.steps["permutation"] == steps
    assert 0 <= found.steps["masked"] * twin - steps * method < twin


def test_every_arm_has_as_many_flops(ground: Any) -> None:
    made = ground(arms=list(ARMS))
    ledger = Ledger()
    found = plan(made, ledger, NOWHERE)
    budget = 100 * found.flops["permutation"]
    for arm in ARMS:
        spent = found.steps[arm] * found.flops[arm]
        assert budget <= spent < budget + found.flops[arm], arm
    assert found.steps["permutation"] == found.steps["permutation, no spans"] == 100
    assert found.flops["permutation, position compensation"] > found.flops["permutation"]
    assert found.flops["permutation, no memory"] < found.flops["permutation"]
    assert found.flops["masked"] < found.flops["permutation"]
    assert ledger.total("probe").flops == 0, "what is probed is no run's"


def test_a_step_is_counted_as_it_is_trained(ground: Any) -> None:
    """Over its micro-batches: about as much as one of the whole batch, and nobody's random numbers are used up."""
    whole, parts = ground(), ground(compute={"precision": "fp32", "workers": 1, "accumulate": 2})
    before = torch.manual_seed(7).get_state()
    assert step_flops(parts, "permutation") == pytest.approx(step_flops(whole, "permutation"), rel=0.1)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_foretold_is_what_a_run_is_charged(ground: Any, tmp_path: Path) -> None:
    made = ground(steps=3)
    jobs = finals(made, plan(made, Ledger(), tmp_path))
    found = outcomes_of(made, jobs, Ledger(), tmp_path)
    for job, one in found.items():
        assert one.cost.flops == pytest.approx(job.steps * step_flops(made, job.arm), rel=0.02), job.arm


# tuning


def test_tuning_never_sees_test(ground: Any, tmp_path: Path) -> None:
    """It goes well without it."""
    made = ground(steps=2, tuning={"learning_rates": [1e-3, 1e-2]})
    (tmp_path / "out" / "tokens" / "test").rename(tmp_path / "elsewhere")
    found = plan(made, Ledger(), tmp_path)
    assert all(len(tried) == 2 for tried in found.tried.values())
    jobs = finals(made, found)
    with pytest.raises(ValueError, match=r"tokens/test"):
        outcomes_of(made, jobs, Ledger(), tmp_path)


# what runs come to


def test_runs_go_side_by_side_where_some_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def side_by_side(work: Sequence[processes.Job], workers: int) -> list[Outcome]:
        asked.append(workers)
        return [Outcome(ledger={"train": Cost(flops=2).as_dict()}) for _ in work]

    monkeypatch.setattr(recipe_plan.processes, "side_by_side", side_by_side)
    made = Ground(recipe(), {}, NOWHERE, Settled("fp32", False, 1, ""), 3, {})
    jobs = [Job(f"run{place}", "masked", 1e-3, place, 2) for place in range(5)]
    ledger = Ledger()
    found = outcomes_of(made, jobs, ledger, tmp_path)
    assert list(found) == jobs
    assert ledger.total("run3/train").flops == 2
    for job in jobs[:3]:
        (tmp_path / "runs" / job.folder).mkdir(parents=True)
        (tmp_path / "runs" / job.folder / "result.json").write_text("{}")
    outcomes_of(made, jobs, Ledger(), tmp_path)
    for job in jobs[3:]:
        (tmp_path / "runs" / job.folder).mkdir(parents=True)
        (tmp_path / "runs" / job.folder / "result.json").write_text("{}")
    outcomes_of(made, jobs, Ledger(), tmp_path)
    assert asked == [3, 2, 1]
