"""One architecture, trained at each learning rate from each seed, measured on the way, and resumed where it stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch

from shoestring import files, runtime
from shoestring.cost import Cost, Ledger, flops
from shoestring.evaluate import lm
from shoestring.methods.search.recipe_decoders_ground import Ground
from shoestring.methods.search.recipe_schema import Decoders
from shoestring.models import pretrained
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Booked, Every, Log, Progress, Save, Spaced
from shoestring.train.loop import DivergedError, train
from shoestring.train.objectives import next_token
from shoestring.train.side_by_side import Show
from shoestring.types import Batch, Hook, Run

_MEASURED = 5  # times in a training that its test loss is measured, the end among them
_SAVED = 20  # steps between two chances to save
_SAVE_SECONDS = 30.0


@dataclass
class Training:
    """What a training showed.

    points    by measurement: {"step", "cost": of the training alone, "test": loss}
    dev       the loss at the end, which the learning rate is chosen by
    ledger    all that was spent, by phase
    diverged  why it ended early
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    dev: float | None = None
    ledger: dict[str, Any] = field(default_factory=dict)
    diverged: str | None = None

    @property
    def cost(self) -> Cost:
        """Of the training alone, without what measuring it took."""
        return Cost(**self.ledger["train"])

    @property
    def test(self) -> float:
        """The test loss at the end."""
        return float(self.points[-1]["test"])


def follow(
    chosen: Decoders, ground: Ground, text: str, seeds: tuple[int, ...], keep: bool, out: Path, show: Show
) -> dict[tuple[float, int], Training]:
    """All trainings of one architecture, by learning rate and seed. Those that have their result on disk are read.

    keep  whether the last weights of the first seed's stay on disk, for `export`
    """
    runtime.start(ground.settled.precision, processes=1)
    torch.set_num_threads(ground.settled.threads)
    arms = list(product(chosen.learning_rates, seeds))
    found = {}
    for index, (rate, seed) in enumerate(arms):
        show_arm = _Offset(show, index * chosen.steps, len(arms) * chosen.steps)
        kept = keep and seed == seeds[0]
        folder = place(out, text, rate, seed)
        result = folder / "result.json"
        if not result.exists():
            training = _Arm(chosen, ground, text, rate, seed, kept, show_arm).go(folder)
            files.replace(result, json.dumps(asdict(training)))
        if not kept:
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        found[rate, seed] = _read(result)
    return found


def place(out: Path, text: str, rate: float, seed: int) -> Path:
    """The folder of a training."""
    return out / "runs" / text.replace("=", "").replace(",", "-") / f"rate{rate:g}-seed{seed}"


def export(chosen: Decoders, ground: Ground, text: str, rate: float, seed: int, out: Path) -> None:
    """Write a training's last weights as the model folder `out`/checkpoint."""
    last = checkpoint.latest(place(out, text, rate, seed) / "checkpoint")
    assert last is not None
    run = ground.run(chosen, text, rate, seed)
    checkpoint.load(last, run)
    pretrained.save(run.model, ground.opened_tokenizer(), out / "checkpoint")


@dataclass(frozen=True)
class _Offset:
    """Progress of one training as that of all of its architecture's."""

    show: Show
    before: int
    whole: int

    def __call__(self, step: int, until: int, loss: float, rate: float) -> None:
        self.show(self.before + step, self.whole, loss, rate)


@dataclass(frozen=True)
class _Arm:
    chosen: Decoders
    ground: Ground
    text: str
    rate: float
    seed: int
    keep: bool
    show: _Offset

    def go(self, folder: Path) -> Training:
        """Train, from where it was stopped if it was."""
        chosen, ledger = self.chosen, Ledger()
        run = self.ground.run(chosen, self.text, self.rate, self.seed)
        watch = Watch(self.ground.held_out(chosen, "test"), ledger)
        measure = Every(max(1, chosen.steps // _MEASURED), watch, last=chosen.steps)
        save = Save(folder / "checkpoint", [measure], ledger, self.ground.opened_tokenizer(), keep=1)
        stopped = checkpoint.latest(folder / "checkpoint")
        if stopped is not None:
            checkpoint.load(stopped, run, hooks=[measure], ledger=ledger)
        log = Log(folder, ledger, since=run.step)
        watch.log = log
        booked = Booked("save", Every(_SAVED, Spaced(_SAVE_SECONDS, save)), ledger)
        hooks: list[Hook] = [measure, Every(10, log), Progress(chosen.steps, ledger, self.show), booked]
        schedule = optim.cosine(chosen.steps, chosen.warmup_steps)
        try:
            with ledger.phase("train"):
                train(run, next_token, until=chosen.steps, hooks=hooks, ledger=ledger, schedule=schedule)
            with ledger.phase("evaluate"):
                dev = measured(run, self.ground.held_out(chosen, "dev"), ledger)
            if self.keep:
                with ledger.phase("save"):
                    save(run)
        except DivergedError as error:
            return Training(diverged=str(error), ledger=ledger.state_dict())
        finally:
            log.close()
        return Training(watch.points, dev, ledger.state_dict())


class Watch:
    """Measures the test loss as the training goes; its memory is the points."""

    def __init__(self, held_out: list[Batch], ledger: Ledger) -> None:
        self.held_out, self.ledger = held_out, ledger
        self.points: list[dict[str, Any]] = []
        self.log: Log | None = None

    def __call__(self, run: Run) -> None:
        with self.ledger.phase("evaluate"):
            test = measured(run, self.held_out, self.ledger)
        spent = self.ledger.phases()["train"]
        self.points.append({"step": run.step, "cost": spent.as_dict(), "test": test})
        if self.log is not None:
            self.log.write(run.step, {"test": test})

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = list(state["points"])


def measured(run: Run, batches: list[Batch], ledger: Ledger) -> float:
    """The held-out loss of a run, nats a token, its FLOPs charged."""
    model: Any = runtime.unwrap(run.model)
    shapes = [batch["input_ids"].shape for batch in batches]
    ledger.charge(flops=sum(flops.formula(model.config, rows, length, False) for rows, length in shapes))
    return lm.loss(run.model, batches, autocast=runtime.current().autocast()).loss


def _read(path: Path) -> Training:
    mend = "delete it, and this training is done again"
    try:
        return Training(**files.read_json(path, mend))
    except TypeError as error:
        raise ValueError(f"{path}: torn ({error}): {mend}") from None
