"""The experiment: averaging beside the raw run, a tuned moving average and a real cool-down, on one trajectory."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path

from shoestring.cost import Ledger
from shoestring.evaluate.scores import Report
from shoestring.methods.averaging.recipe_ground import prepare
from shoestring.methods.averaging.recipe_report import best, report
from shoestring.methods.averaging.recipe_run import Outcome, export, follow
from shoestring.methods.averaging.recipe_schema import Recipe
from shoestring.train.side_by_side import Job, side_by_side

__all__ = ["Recipe", "run"]


def run(recipe: Recipe, ledger: Ledger, out: Path, name: str = "recipe") -> Report:
    """Train every trajectory and lay averaging beside its twins; what is finished in `out` is not redone.

    Each trajectory is one (schedule, learning rate, seed). From it come the raw run, every window and every moving
    average; the cool-downs and the spike branch off its checkpoints. The window, the decay and the length of the
    cool-down are chosen on dev, over all seeds, for each group; test, which is scored along the way too, is reported.
    `out`/checkpoint becomes the model folder of the average with the lowest dev loss at its end.
    """
    schedules = ("constant", "cosine") if recipe.cosine else ("constant",)
    arms = list(product(schedules, recipe.learning_rates, recipe.seeds))
    with ledger.phase("prepare"):
        ground = prepare(recipe, len(arms), out)
    jobs = [
        Job(f"{schedule} {rate:g}, seed {seed}", partial(follow, recipe, ground, schedule, rate, seed, out))
        for schedule, rate, seed in arms
    ]
    outcomes: list[Outcome] = side_by_side(jobs, ground.workers)
    for outcome in outcomes:
        ledger.absorb(outcome.ledger, f"{outcome.schedule} {outcome.rate:g}/seed {outcome.seed}")
    facts = {
        "text": f"{recipe.text.source} {ground.source_fingerprint}",
        "precision": ground.settled.why,
        "side by side": f"{ground.workers} at once",
    }
    found = report(recipe, name, outcomes, facts)
    with ledger.phase("export"):
        outcome, steps = best(recipe, outcomes)
        export(recipe, ground, outcome, steps, out / "checkpoint")
    return found
