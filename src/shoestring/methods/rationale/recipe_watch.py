"""How a student fares: measured on dev as it learns, the best one held, and what that one does on test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shoestring.cost import Cost, Ledger
from shoestring.methods.rationale import labels
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.recipe_data import Task
from shoestring.methods.rationale.student import Student
from shoestring.runtime import unwrap
from shoestring.train.hooks import Log
from shoestring.types import Run

TRAIN, EVALUATE, SAVE = "train", "evaluate", "save"


class Watch:
    """Measures on dev, holds the weights that did best there, and says when there is nothing more to hope for.

    patience  measurements without a better one, after which it is tired
    Of equals the earlier is kept. Test is looked at for the report alone, whenever dev has a new best.
    """

    def __init__(self, student: Student, task: Task, ledger: Ledger, patience: int) -> None:
        self._student, self._task, self._ledger, self._patience = student, task, ledger, patience
        self._best: dict[str, Tensor] = {}
        self._since = 0
        self.points: list[dict[str, Any]] = []
        self.log: Log | None = None

    @property
    def tired(self) -> bool:
        return self._since >= self._patience

    def __call__(self, run: Run) -> None:
        with self._ledger.phase(EVALUATE):
            found = accuracy(self._student, self._task.dev)
            better = not self.points or found > max(point["dev"] for point in self.points)
            if better:
                self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._trained().items()}
            test = accuracy(self._student, self._task.test) if better else self.points[-1]["test"]
        self._since = 0 if better else self._since + 1
        cost = own(self._ledger.state_dict()).as_dict()
        self.points.append({"step": run.step, "dev": found, "test": test, "cost": cost})
        if self.log is not None:
            self.log.write(run.step, {"dev accuracy": found, "test accuracy of the best on dev": test})

    def take_best(self) -> None:
        """Put the weights that did best on dev into the student."""
        trained = self._trained()
        with torch.no_grad():
            for name, tensor in self._best.items():
                trained[name].copy_(tensor)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "since": self._since, "points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._since, self.points = dict(state["best"]), int(state["since"]), list(state["points"])

    def _trained(self) -> dict[str, Tensor]:
        model = unwrap(self._student.model)
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def accuracy(student: Student, examples: Sequence[Example], free: bool = False) -> float:
    """The part of the examples whose gold label the student gives; expressions are the same by their value."""
    answers = student.answers(examples, free=free)
    right = [
        example.label is not None and labels.same(example.label, answer.label, example.options, example.expression)
        for example, answer in zip(examples, answers, strict=True)
    ]
    return sum(right) / len(right)


def own(ledger: dict[str, Any]) -> Cost:
    """What training itself took, of a ledger's phases: not what was measured for the choice and for the report."""
    aside = {EVALUATE, SAVE}
    spent = [Cost(**amounts) for phase, amounts in ledger.items() if not aside & set(phase.split("/"))]
    return sum(spent, Cost())
