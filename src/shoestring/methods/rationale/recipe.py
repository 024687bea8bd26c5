"""The experiment: students taught with a teacher's reasons beside students taught without, from one start."""

from __future__ import annotations

from pathlib import Path

from shoestring.cost import Cost, Ledger
from shoestring.evaluate.scores import Report
from shoestring.methods.rationale.recipe_arm import export
from shoestring.methods.rationale.recipe_ground import prepare
from shoestring.methods.rationale.recipe_plan import finals, outcomes_of, plan
from shoestring.methods.rationale.recipe_report import report
from shoestring.methods.rationale.recipe_schema import Recipe

__all__ = ["Recipe", "run"]


def run(recipe: Recipe, ledger: Ledger, out: Path, name: str = "recipe") -> Report:
    """Teach every arm from every seed; what is finished in `out` is not redone.

    Each arm's learning rate is its own best on dev, at seeds that no row is of; so is the step at which a student is
    taken. Rows are of test, which no choice sees. `out`/checkpoint becomes the two-task student of most labels, from
    the first seed.
    """
    runs = len(recipe.arms) * len(recipe.seeds) * len(recipe.fractions)
    with ledger.phase("prepare"):
        ground = prepare(recipe, recipe.arms, runs, ledger, out)
    asked = Cost(teacher_tokens=ledger.total("prepare/teacher").teacher_tokens)
    chosen = plan(ground, ledger, out)
    arms = finals(ground, chosen)
    found = outcomes_of(ground, arms, ledger, out)
    done = report(name, found, chosen, ground, asked)
    kept = next(arm for arm in arms if arm.kept)
    if not found[kept].diverged:
        with ledger.phase("export"):
            export(kept, out)
    return done
