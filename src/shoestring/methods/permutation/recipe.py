"""The experiment: permutation language modelling beside masked and autoregressive twins on one backbone."""

from __future__ import annotations

import shutil
from pathlib import Path

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.evaluate.scores import Report
from shoestring.methods.permutation.recipe_ground import prepare
from shoestring.methods.permutation.recipe_plan import finals, outcomes_of, plan
from shoestring.methods.permutation.recipe_report import report
from shoestring.methods.permutation.recipe_schema import Recipe

__all__ = ["Recipe", "run"]


def run(recipe: Recipe, ledger: Ledger, out: Path, name: str = "recipe") -> Report:
    """Pretrain every arm from every seed at equal FLOPs; what is finished in `out` is not redone.

    Each arm's learning rate is its own best on dev, at seeds that no row is of; rows are of test, which no choice sees.
    `out`/checkpoint becomes the model of the permutation arm's first seed.
    """
    runs = len(recipe.arms) * max(len(recipe.seeds), len(recipe.tuning.learning_rates) * len(recipe.tuning.seeds))
    with ledger.phase("prepare"):
        ground = prepare(recipe, runs, out)
    chosen = plan(ground, ledger, out)
    jobs = finals(ground, chosen)
    found = outcomes_of(ground, jobs, ledger, out)
    done = report(name, found, chosen, ground)
    kept = next(job for job in jobs if job.kept)
    if not found[kept].diverged and runtime.current().rank == 0:
        source, target, beside = out / "runs" / kept.folder / "model", out / "checkpoint", out / "checkpoint.partial"
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source, beside)
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)
    return done
