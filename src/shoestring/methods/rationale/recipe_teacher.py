"""The experiment's own teacher: the program that made the chains, asked over HTTP as any other would be."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shoestring import files
from shoestring.cost import Ledger
from shoestring.methods.rationale import datasets, prompts_reading
from shoestring.methods.rationale.ask import ask_about
from shoestring.methods.rationale.chains import asked, spelled, taught
from shoestring.methods.rationale.recipe_data import untaught_chains
from shoestring.methods.rationale.recipe_schema import Recipe
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.endpoint import Endpoint
from shoestring.models.teacher.loopback import serving

TAUGHT, ANSWERS, SPENT = "taught.jsonl", "answers.sqlite", "teacher.json"
_WARM = 0.7


def teach(recipe: Recipe, ledger: Ledger, out: Path) -> None:
    """Leave the chains with the teacher's answers in `out`, and charge what all of them took, now or before."""
    if not (out / TAUGHT).exists():
        _ask(recipe, out)
    kept = files.read_json(out / SPENT, f"delete {out}, and all is done again")
    ledger.charge(teacher_tokens=float(kept["prompt_tokens"]) + float(kept["completion_tokens"]))


def _ask(recipe: Recipe, out: Path) -> None:
    chosen = recipe.chains
    assert chosen is not None
    prompt = prompts_reading.load("chains")
    if chosen.spelled:
        shown = (replace(one, rationale=spelled(one.text, one.rationale)) for one in prompt.demonstrations)
        prompt = replace(prompt, demonstrations=tuple(shown))

    def answer(messages: list[dict[str, str]], parameters: dict[str, Any]) -> str:
        text = asked(messages[-1]["content"])
        reason, label = taught(text, chosen.error_rate, int(parameters.get("seed") or 0))
        return f" {spelled(text, reason) if chosen.spelled else reason} So the answer is {label}."

    with serving(answer, model="chains") as server, Answers(out / ANSWERS) as store:
        teacher = Endpoint("chains", server.url, api_key="none")
        found = ask_about(
            untaught_chains(recipe),
            prompt,
            teacher,
            store,
            samples=chosen.samples,
            temperature=_WARM if chosen.samples > 1 else None,
            seed=0,
        )
    if found.asked.failed or found.problems:
        raise ValueError(f"the teacher's answers cannot be used: {found.asked.failed or found.problems}")
    files.replace(out / SPENT, json.dumps(asdict(found.asked.total)))
    datasets.write(out / TAUGHT, found.examples)
