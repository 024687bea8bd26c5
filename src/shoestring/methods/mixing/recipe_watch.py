"""What is measured of a model: losses by skill, and of answers their accuracy; booked where it belongs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from shoestring import runtime
from shoestring.cost import Cost, Ledger, flops
from shoestring.evaluate import lm
from shoestring.methods.mixing.recipe_tasks import Task
from shoestring.models.modes import evaluating
from shoestring.train.hooks import Log
from shoestring.train.loop import DivergedError
from shoestring.train.objectives import IGNORED
from shoestring.types import Batch, Run

MIX = "mix"  # the phase of what a sampler measures: part of what it costs


def losses(model: nn.Module, held_out: Mapping[str, Sequence[Batch]], ledger: Ledger) -> dict[str, float]:
    """Held-out loss by skill, nats a target, its FLOPs charged under the open phase: every process computes it.

    Raises DivergedError where one is not finite.
    """
    found, here = {}, runtime.current()
    for name, batches in held_out.items():
        _charge(model, batches, ledger)
        try:
            found[name] = lm.loss(model, batches, autocast=here.autocast()).loss
        except ValueError as error:
            raise DivergedError(f"held-out {name}: {error}") from error
    return found


def accuracies(model: nn.Module, held_out: Mapping[str, Sequence[Batch]]) -> dict[str, float]:
    """The share of answers by skill whose every token is the likeliest."""
    found = {}
    with evaluating(model), runtime.current().autocast():
        for name, batches in held_out.items():
            right = torch.cat([_right(model, batch) for batch in batches])
            found[name] = float(right.double().mean())
    return found


def own(ledger: Mapping[str, Mapping[str, float]]) -> Cost:
    """What training and mixing took: all but the report's measurements, and saving."""
    spent = Cost()
    for name, amounts in ledger.items():
        if not {"evaluate", "save"} & set(name.split("/")):
            spent = spent + Cost(**amounts)
    return spent


class Controls:
    """What a sampler is told: losses by skill, booked as its own cost."""

    def __init__(self, held_out: Mapping[str, Sequence[Batch]], ledger: Ledger) -> None:
        self.held_out, self.ledger = held_out, ledger

    @classmethod
    def of_dev(cls, task: Task, count: int, ledger: Ledger) -> Controls:
        """On `count` dev samples of each evaluated skill."""
        return cls({name: [_spread(batches, count)] for name, batches in task.held_out["dev"].items()}, ledger)

    @classmethod
    def of_pools(cls, task: Task, count: int, ledger: Ledger) -> Controls:
        """On `count` samples to train on of each skill that is not evaluated, before any was trained on."""
        found = {}
        for name in task.skills:
            if name not in task.evaluated:
                pool = task.pools[name]
                rows = min(count, len(pool))
                batch = default_collate([pool[row * len(pool) // rows] for row in range(rows)])
                found[name] = [{"labels": batch["input_ids"], **batch}]
        return cls(found, ledger)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        with self.ledger.phase(MIX):
            found = losses(model, self.held_out, self.ledger)
        # those of the first process, to the last bit: processes whose weights part ways would draw some samples twice
        here = runtime.current()
        agreed = here.sum(*(value if here.rank == 0 else 0.0 for value in found.values()))
        return dict(zip(found, agreed, strict=True))


class Watch:
    """Measures on test as a run goes, which no choice sees; its memory is the points."""

    def __init__(self, task: Task, ledger: Ledger) -> None:
        self.task, self.ledger = task, ledger
        self.points: list[dict[str, Any]] = []
        self.log: Log | None = None

    def __call__(self, run: Run) -> None:
        with self.ledger.phase("evaluate"):
            held_out = self.task.held_out["test"]
            scores = {"loss": losses(run.model, held_out, self.ledger)}
            if self.task.answers:
                for batches in held_out.values():
                    _charge(run.model, batches, self.ledger)
                scores["accuracy"] = accuracies(run.model, held_out)
        self.points.append({"step": run.step, "cost": own(self.ledger.state_dict()).as_dict(), **scores})
        if self.log is not None:
            told = {f"{what}/{name}": value for what, found in scores.items() for name, value in found.items()}
            self.log.write(run.step, told)

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = list(state["points"])


def _spread(batches: Sequence[Batch], count: int) -> Batch:
    whole = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    rows = len(whole["input_ids"])
    places = torch.arange(min(count, rows)) * rows // min(count, rows)
    return {key: tensor[places] for key, tensor in whole.items()}


def _charge(model: nn.Module, batches: Sequence[Batch], ledger: Ledger) -> None:
    ledger.charge(flops=runtime.current().processes * sum(forward_flops(model, batch) for batch in batches))


def forward_flops(model: nn.Module, batch: Batch) -> int:
    """FLOPs of one forward pass: by formula, or where there is none by twice the parameters a token."""
    inner: Any = runtime.unwrap(model)
    rows, length = batch["input_ids"].shape
    if inner.config.model_type in ("gpt_neox", "gpt2"):
        return int(flops.formula(inner.config, rows, length, backward=False))
    return 2 * rows * length * sum(int(parameter.numel()) for parameter in inner.parameters())


def _right(model: nn.Module, batch: Batch) -> Tensor:
    """(B,) of bool: whether every scored token of a row is the likeliest."""
    device = next(model.parameters()).device
    here = {name: tensor.to(device) for name, tensor in batch.items()}
    targets = here.pop("labels")[:, 1:]
    likeliest = model(**here, use_cache=False).logits[:, :-1].argmax(-1)
    right: Tensor = ((likeliest == targets) | (targets == IGNORED)).all(1).cpu()
    return right
