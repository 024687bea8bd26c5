"""The experiment that a curve wants: its recipe, and its run as the door runs one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoestring import config
from shoestring.evaluate import experiment
from shoestring.methods.rationale import recipe as room
from shoestring.methods.rationale import rows, tools_recipe
from shoestring.methods.rationale.recipe_schema import (
    AGREEING,
    DISTILLED,
    HUMAN,
    INFORMED,
    MATCHED,
    SHUFFLED,
    SINGLE,
    STANDARD,
    TWO_TASK,
    Columns,
    Recipe,
)
from shoestring.methods.rationale.tools_form import Said, check_gold, check_reasons
from shoestring.methods.rationale.tools_out import leaving_nothing_begun
from shoestring.methods.rationale.tools_train import MODEL

SHORT = {
    "standard": STANDARD,
    "distilled": DISTILLED,
    "matched": MATCHED,
    "single-task": SINGLE,
    "informed": INFORMED,
    "shuffled": SHUFFLED,
    "two-task": TWO_TASK,
    "human": HUMAN,
    "agreeing": AGREEING,
}


def recipe(given: Mapping[str, Any]) -> Recipe:
    """The experiment, by the command's options. Raises ValueError, naming the option, where one is none."""
    form, models = Said.of(given).form_of(given["data"]), tuple(given["model"] or [MODEL])
    chosen = [part.strip() for part in given["arms"].split(",")]
    for name in chosen:
        if name not in SHORT:
            hint = rows.nearest(name, SHORT) or f"; expected one of {', '.join(SHORT)}"
            raise ValueError(f"--arms {name!r}: no such arm{hint}")
    check_gold(form, given["data"])
    check_reasons(form, given["data"])
    if "human" in chosen and form.human is None:
        raise ValueError("--arms 'human': no column of people's reasons is there: leave it out")
    lora, tokenizer = given["lora"], given["tokenizer"]
    return tools_recipe.Told(
        config.check(tools_recipe.columns(form), Columns, "curve"),
        **tools_recipe.parts_of(given),
        unlabelled=False,
        models=models,
        tokenizer=tokenizer,
        lora=lora,
        arms=tuple(SHORT[name] for name in chosen),
        seeds=tuple(range(given["seeds"])),
        learning_rates=tuple(tools_recipe.rates_of(given["learning_rate"], models, tokenizer, lora)),
        weights=tuple(tools_recipe.weights_of(given["weight"])),
        fractions=_fractions(given["fractions"]),
        **tools_recipe.alike({**given, "parts": 1}),
    ).recipe("curve")


def run(chosen: Recipe, out: Path) -> None:
    """Run it, and leave its report."""
    runs = len(chosen.model.names) * len(chosen.fractions) * len(chosen.arms) * len(chosen.seeds)
    print(f"{runs} runs of at most {chosen.steps} steps, those that choose learning rates aside", file=sys.stderr)
    with leaving_nothing_begun(out):
        experiment.carry_out(chosen, out, lambda ledger: room.run(chosen, ledger, out, "curve"))


def _fractions(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < part <= 1 for part in found) or len(set(found)) < len(found):
        raise ValueError(f"--fractions {text!r}: expected numbers above 0, up to 1, each once, with commas between")
    return found
