"""Which runs the experiment has: each arm's learning rate and lambda chosen on dev, the twin with as much compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice, product
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.cost.flops import StepFlops
from shoestring.methods.rationale.loss import scaled
from shoestring.methods.rationale.recipe_arm import Arm, Outcome, finished, follow, stream
from shoestring.methods.rationale.recipe_ground import Ground
from shoestring.methods.rationale.recipe_schema import MATCHED, STANDARD, TWO_TASK
from shoestring.methods.rationale.recipe_setting import Setting, folder_of, settings_of
from shoestring.train.side_by_side import Job, side_by_side
from shoestring.types import Batch

_PROBED, _TAKEN = 256, 8  # steps of which the FLOPs are looked at, by formula and by taking them


class Cell(NamedTuple):
    """What is compared: arms on one fraction of one set, by one model."""

    model: str
    task: str
    fraction: float


@dataclass
class Plan:
    """What was chosen before the rows were run.

    settings  by cell and arm; tried, the mean best accuracy on dev by setting
    longer    by cell, how many times the twin's steps cost as much as the two-task's
    """

    settings: dict[tuple[Cell, str], Setting] = field(default_factory=dict)
    tried: dict[tuple[Cell, str], dict[Setting, float]] = field(default_factory=dict)
    longer: dict[Cell, float] = field(default_factory=dict)


def cells(ground: Ground) -> list[Cell]:
    recipe = ground.recipe
    return [Cell(*one) for one in product(recipe.model.names, ground.tasks, recipe.fractions)]


def plan(ground: Ground, ledger: Ledger, out: Path) -> Plan:
    """Choose each arm's setting, cell by cell, at seeds that no row is of. Raises ValueError where two runs would have
    one folder."""
    found, recipe, every = Plan(), ground.recipe, cells(ground)
    choices = {(cell, arm): settings_of(recipe, arm) for cell, arm in product(every, recipe.arms)}
    _check_apart([*choices])
    if MATCHED in recipe.arms:
        with ledger.phase("probe"):
            for name in recipe.model.names:
                found.longer |= _longer(ground, [cell for cell in every if cell.model == name])
    found.settings = {key: some[0] for key, some in choices.items()}
    tuned = {
        key: {
            setting: [
                _arm(ground, found, *key, setting, seed, f"tuning/{folder_of(setting, some)}-")
                for seed in recipe.tuning.seeds
            ]
            for setting in some
        }
        for key, some in choices.items()
        if len(some) > 1
    }
    runs = [arm for settings in tuned.values() for arm in chain(*settings.values())]
    outcomes = outcomes_of(ground, runs, ledger, out) if runs else {}
    for key, settings in tuned.items():
        means = {
            setting: fmean(outcomes[arm].dev for arm in arms)
            for setting, arms in settings.items()
            if not any(outcomes[arm].diverged for arm in arms)
        }
        if not means:
            raise ValueError(f"{key[1]} diverged at every one of tuning.learning_rates: give lower ones")
        found.tried[key] = means
        found.settings[key] = max(means, key=means.__getitem__)
    return found


def finals(ground: Ground, chosen: Plan) -> list[Arm]:
    """The runs that rows are of; the two-task student of the first cell and seed is kept."""
    recipe, every = ground.recipe, cells(ground)
    arms = [
        _arm(ground, chosen, cell, arm, chosen.settings[cell, arm], seed, "")
        for cell, arm, seed in product(every, recipe.arms, recipe.seeds)
    ]
    most = Cell(every[0].model, every[0].task, max(recipe.fractions))  # what a user would want to have
    folder = _arm(ground, chosen, most, TWO_TASK, chosen.settings[most, TWO_TASK], recipe.seeds[0], "").folder
    return [replace(arm, kept=arm.folder == folder) for arm in arms]


def outcomes_of(ground: Ground, arms: Sequence[Arm], ledger: Ledger, out: Path) -> dict[Arm, Outcome]:
    """What each run showed; runs go side by side, where more than one is left to be done."""
    jobs = [Job(arm.folder, partial(follow, ground, arm, out)) for arm in arms]
    left = sum(not finished(arm, out) for arm in arms)
    found = dict(zip(arms, side_by_side(jobs, min(ground.workers, max(1, left))), strict=True))
    for arm, outcome in found.items():
        ledger.absorb(outcome.ledger, arm.folder)
    return found


def _arm(ground: Ground, chosen: Plan, cell: Cell, name: str, setting: Setting, seed: int, before: str) -> Arm:
    recipe = ground.recipe
    steps, every = ground.tasks[cell.task].steps, recipe.evaluate_every
    looks = -(-steps // every)  # at dev: as many for a twin that goes on for longer
    if name == MATCHED:
        steps = ceil(steps * chosen.longer[cell])
        every = -(-steps // looks)
    return Arm(
        f"{before}{_slug(cell, name)}-seed{seed}",
        *cell,
        name,
        *setting,
        seed,
        steps,
        every,
    )


def _slug(cell: Cell, name: str) -> str:
    return "-".join(f"{cell.model}-{cell.task}-{cell.fraction:g}-{name}".replace(",", "").replace("/", "-").split())


def _check_apart(every: Sequence[tuple[Cell, str]]) -> None:
    known: dict[str, Cell] = {}
    for cell, name in every:
        other = known.setdefault(_slug(cell, name), cell)
        if other is not cell:
            one, two = (f"{some.model}, {some.task}, fraction {some.fraction!r}" for some in (other, cell))
            raise ValueError(f"the runs of {one}, and of {two}, would have one folder: leave one out, or rename it")


def _longer(ground: Ground, every: Sequence[Cell]) -> dict[Cell, float]:
    """By cell, all of one model: the FLOPs of a two-task step over those of a standard one, in the mean over steps; of
    the seed where that is most, so that no twin has less."""
    name, seeds = every[0].model, ground.recipe.seeds
    probe = Probe(ground, ground.model(name, seeds[0]).to(runtime.current().device))

    def of(cell: Cell, arm: str, seed: int) -> float:
        return probe.of_arm(_arm(ground, Plan(), cell, arm, Setting(1.0, 1.0), seed, ""))

    return {cell: max(of(cell, TWO_TASK, seed) / of(cell, STANDARD, seed) for seed in seeds) for cell in every}


@dataclass(frozen=True)
class Probe:
    """Finds what the steps of one model take."""

    ground: Ground
    model: PreTrainedModel

    @cached_property
    def step_flops(self) -> StepFlops:
        return StepFlops(self.model)

    def of_arm(self, arm: Arm) -> float:
        """The mean FLOPs of a step, over steps spread evenly: few where they have to be taken, as no formula fits."""
        batches, _ = stream(self.ground, arm, self.ground.tasks[arm.task], self.ground.coder(arm.model))
        state = batches.state_dict()

        def of_step(step: int) -> Iterator[Batch]:
            batches.load_state_dict({**state, "step": step})
            return islice(batches, batches.micro_batches)

        def known(steps: Sequence[int]) -> float:
            return fmean(sum(map(self.step_flops, of_step(step))) for step in steps)

        try:
            mean = known(_spread(arm.steps, _PROBED))
        except KeyError:  # no formula fits
            few = _spread(arm.steps, _TAKEN)
            for batch in chain.from_iterable(map(of_step, few)):
                self._learn(batch, arm)
            mean = known(few)
        here = runtime.current()
        return here.sum(mean)[0] / here.processes  # each has a part of the batch, and all are to find the same

    def _learn(self, batch: Batch, arm: Arm) -> None:
        """Go forward and backward as the run will, unless it is known what that takes."""
        with suppress(KeyError):
            self.step_flops(batch)
            return
        device, precision = runtime.current().device, self.ground.starts[arm.model].settled.precision
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        with self.step_flops.counting(batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = scaled(self.model, batch)
            loss.total.backward()  # type: ignore[no-untyped-call]


def _spread(steps: int, most: int) -> list[int]:
    """At most so many steps, evenly; two together, so that tasks that alternate have equal parts."""
    if steps <= most:
        return list(range(steps))
    return [place * steps // (most // 2) + after for place in range(most // 2) for after in (0, 1)]
