"""Which runs the experiment has: steps at equal FLOPs, and each arm's learning rate chosen on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean

import torch

from shoestring import runtime
from shoestring.cost import Ledger, flops
from shoestring.methods.permutation.recipe_ground import Ground
from shoestring.methods.permutation.recipe_held import JOINT
from shoestring.methods.permutation.recipe_pretrain import Job, Outcome, finished, follow
from shoestring.methods.permutation.recipe_schema import PERMUTATION
from shoestring.train import side_by_side as processes


@dataclass
class Plan:
    """What was chosen before the rows were run, by arm.

    steps  that take as many FLOPs as the permutation arm's; flops of one
    rates  chosen; tried, the mean nats a span on dev at each rate
    """

    steps: dict[str, int] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    tried: dict[str, dict[float, float]] = field(default_factory=dict)


def plan(ground: Ground, ledger: Ledger, out: Path) -> Plan:
    """Find what a step of each arm takes, and choose its learning rate at seeds that no row is of.

    Raises ValueError where an arm diverged at every rate.
    """
    recipe, found = ground.recipe, Plan()
    with ledger.phase("probe"):
        found.flops = {arm: step_flops(ground, arm) for arm in recipe.arms}
    budget = recipe.steps * found.flops[PERMUTATION]
    # no twin has less
    found.steps = {arm: -(-budget // one) for arm, one in found.flops.items()}
    rates, seeds = recipe.tuning.learning_rates, recipe.tuning.seeds
    found.rates = dict.fromkeys(recipe.arms, rates[0])
    if len(rates) == 1:
        return found
    runs = [
        Job(f"tuning/{_slug(arm)}-{rate:g}-seed{seed}", arm, rate, seed, found.steps[arm])
        for arm, rate, seed in product(recipe.arms, rates, seeds)
    ]
    outcomes = outcomes_of(ground, runs, ledger, out)
    for arm in recipe.arms:
        tried = {rate: [outcomes[run] for run in runs if (run.arm, run.learning_rate) == (arm, rate)] for rate in rates}
        found.tried[arm] = {
            rate: fmean(one.points[-1]["dev"][JOINT] for one in some)
            for rate, some in tried.items()
            if not any(one.diverged for one in some)
        }
        if not found.tried[arm]:
            raise ValueError(f"{arm} diverged at every one of tuning.learning_rates: give lower ones")
        found.rates[arm] = min(found.tried[arm], key=lambda rate: found.tried[arm][rate])
    return found


def finals(ground: Ground, chosen: Plan) -> list[Job]:
    """The runs that rows are of; the permutation arm's of the first seed keeps its model."""
    recipe = ground.recipe
    return [
        Job(
            f"{_slug(arm)}-seed{seed}",
            arm,
            chosen.rates[arm],
            seed,
            chosen.steps[arm],
            final=True,
            kept=(arm, seed) == (PERMUTATION, recipe.seeds[0]),
        )
        for seed, arm in product(recipe.seeds, recipe.arms)
    ]


def outcomes_of(ground: Ground, jobs: Sequence[Job], ledger: Ledger, out: Path) -> dict[Job, Outcome]:
    """What each run showed; runs go side by side, where more than one is left to be done."""
    work = [processes.Job(job.folder, partial(follow, ground, job, out)) for job in jobs]
    left = sum(not finished(job, out) for job in jobs)
    done = processes.side_by_side(work, min(ground.workers, max(1, left)))
    found: dict[Job, Outcome] = dict(zip(jobs, done, strict=True))
    for job, outcome in found.items():
        ledger.absorb(outcome.ledger, job.folder)
    return found


def step_flops(ground: Ground, name: str) -> int:
    """The FLOPs of a step of an arm, over all processes, counted on its first batch."""
    recipe, here = ground.recipe, runtime.current()
    with torch.random.fork_rng(devices=[]):
        run, learnt = ground.run(recipe.arm(name), 1.0, recipe.seeds[0])
    model = run.model.to(here.device)
    batch = {name: tensor.to(here.device) for name, tensor in next(iter(run.batches)).items()}
    with flops.counting() as counted:
        learnt(model, batch).total.backward()  # type: ignore[no-untyped-call]
    return counted.flops * recipe.compute.accumulate * here.processes


def _slug(arm: str) -> str:
    return arm.replace(", ", "-").replace(" ", "-")
