"""The training that a command wants, as one arm of the experiment: gone on with, and its student put in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shoestring import config, files
from shoestring.cost import Cost, Ledger
from shoestring.evaluate import outcome
from shoestring.methods.rationale import tools_recipe
from shoestring.methods.rationale.lessons import KEPT as TAUGHT
from shoestring.methods.rationale.lessons import REASONED
from shoestring.methods.rationale.recipe_arm import Arm, Outcome
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.recipe_ground import Ground, prepare
from shoestring.methods.rationale.recipe_plan import outcomes_of
from shoestring.methods.rationale.recipe_schema import STANDARD, TWO_TASK, Columns, Count, Name, Recipe
from shoestring.methods.rationale.recipe_setting import Setting, folder_of, settings_of
from shoestring.methods.rationale.rows import FORM
from shoestring.methods.rationale.tools_form import Said, check_gold, check_reasons
from shoestring.methods.rationale.tools_out import leaving_nothing_begun
from shoestring.models import folders

WORK, SUMMARY = "training", "summary.json"  # within a student's folder


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    outcomes  by setting; best, the one that did best on dev
    spent     for all settings and for what was measured
    """

    training: Training
    task: Task
    ground: Ground
    outcomes: dict[Setting, Outcome]
    best: Setting
    spent: Cost
    work: Path

    @property
    def outcome(self) -> Outcome:
        return self.outcomes[self.best]

    def folder(self, setting: Setting) -> Path:
        """Where a run's log lies."""
        return self.work / "runs" / folder_of(setting, [*self.outcomes])


class Training(config.Recipe):
    """What is trained, as the options say it; kept beside what came of it, so that the same command goes on."""

    data: Name
    dev: Name | None
    test: Name | None
    unlabelled: bool
    columns: Columns
    model: Name
    tokenizer: Name
    way: Literal["two-task", "standard", "distilled", "single-task", "informed"]
    weights: tuple[float, ...]
    mode: Literal["mixed", "alternating"]
    steps: Count
    batch: Count
    learning_rates: tuple[float, ...]
    every: Count
    patience: Count
    held_out: tuple[Count, Count]
    lora: Count | None
    tokens: tuple[int, int]
    parts: Count
    seed: int
    precision: Literal["auto", "fp32", "bf16"]
    workers: Count | None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Training:
        """By the command's options. Raises ValueError where one is none, or they do not fit together."""
        form = Said.of(given).of_parts(given["data"], given["dev"], given["unlabelled"])
        if not given["unlabelled"]:
            check_gold(form, given["data"])
        elif None in (given["dev"], given["test"]):
            raise ValueError(
                "--unlabelled: give --dev and --test, whose rows have gold labels, to choose by and report on"
            )
        if given["way"] in REASONED:
            check_reasons(form, given["data"])
        rates = tools_recipe.rates_of(given["learning_rate"], [given["model"]], given["tokenizer"], given["lora"])
        told = {
            **tools_recipe.parts_of(given),
            **{name: given[name] for name in ("unlabelled", "model", "tokenizer", "way", "lora", "seed")},
            **tools_recipe.alike(given),
            "columns": tools_recipe.columns(form),
            "learning_rates": rates,
            "weights": tools_recipe.weights_of(given["weight"]),
        }
        if given["weight"] and given["way"] != TWO_TASK:
            raise ValueError(f"--weight: the way {given['way']!s} has no loss of reasons apart: leave it out")
        found = config.check(told, cls, "train")
        found.recipe()
        return found

    def recipe(self) -> Recipe:
        """The experiment of which this is one arm."""
        return tools_recipe.Told(
            self.columns,
            *(self.data, self.dev, self.test),
            unlabelled=self.unlabelled,
            models=(self.model,),
            tokenizer=self.tokenizer,
            lora=self.lora,
            arms=tuple(dict.fromkeys((STANDARD, TWO_TASK, self.way))),
            seeds=(self.seed,),
            learning_rates=self.learning_rates,
            weights=self.weights,
            **{name: getattr(self, name) for name in tools_recipe.ALIKE},
        ).recipe("train")

    def done(self, out: Path) -> Trained:
        """Train what is not yet trained, and put the best student into `out`.

        Raises ValueError where `out` holds something else, or another training.
        """
        work, ledger = out / WORK, Ledger()
        if out.exists() and not work.exists() and any(out.iterdir()):
            raise ValueError(f"{out}: holds files that are no training of this command: give another --out")
        with leaving_nothing_begun(work), outcome.opened(work, config.dump(self)):
            settings = settings_of(self.recipe(), self.way)
            ground = prepare(self.recipe(), [self.way], len(settings), ledger, work)
            arms = {one: self._arm(ground, one, folder_of(one, settings)) for one in settings}
            found = outcomes_of(ground, [*arms.values()], ledger, work)
            outcomes = {setting: found[arm] for setting, arm in arms.items()}
            fit = [setting for setting, one in outcomes.items() if not one.diverged]
            if not fit:
                raise ValueError(f"{outcomes[settings[0]].diverged}: give a lower --learning-rate")
            best = max(fit, key=lambda setting: outcomes[setting].dev)
            (task,) = ground.tasks.values()
            trained = Trained(self, task, ground, outcomes, best, ledger.total(), work)
            self._put(trained, out)
        return trained

    def _arm(self, ground: Ground, setting: Setting, folder: str) -> Arm:
        (model,), (task,) = ground.recipe.model.names, ground.tasks
        return Arm(folder, model, task, 1.0, self.way, *setting, self.seed, self.steps, self.every, kept=True)

    def _put(self, trained: Trained, out: Path) -> None:
        """Move the student into `out`, the file by which it is known last, and say beside it what was measured."""
        source = trained.folder(trained.best) / "student"
        if not (out / TAUGHT).exists():
            if not (source / TAUGHT).exists():
                raise ValueError(
                    f"{out}: the student is gone: delete {trained.folder(trained.best)}, and it is trained anew"
                )
            last = (FORM, TAUGHT)
            for path in sorted(source.iterdir(), key=lambda path: (path.name in last, path.name == TAUGHT)):
                path.replace(out / path.name)
        folders.check_weights(out)
        for setting in trained.outcomes:
            shutil.rmtree(trained.folder(setting) / "student", ignore_errors=True)
        told = {
            "learning_rate": trained.best.rate,
            **({"weight": trained.best.weight} if self.way == TWO_TASK else {}),
            "scores": trained.outcome.scores,
            "dev": trained.outcome.dev,
            "cost": trained.outcome.cost.as_dict(),
            "outcomes": {trained.folder(one).name: asdict(outcome) for one, outcome in trained.outcomes.items()},
        }
        files.replace(out / WORK / SUMMARY, json.dumps(told, ensure_ascii=False, indent=1))
