"""The pretraining that a command wants: gone on with where it was stopped, its model put in place, and its report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from shoestring import runtime
from shoestring.cost import Cost, Ledger, spent
from shoestring.evaluate import experiment
from shoestring.evaluate.outcome import once
from shoestring.evaluate.quantities import number
from shoestring.evaluate.scores import Point, Report, Row, Score
from shoestring.methods.permutation.tools_out import check_whole, leaving_nothing_begun, missing, tell, tell_going_on
from shoestring.methods.permutation.tools_pretrain_ground import Ground, prepare
from shoestring.methods.permutation.tools_pretrain_setting import Setting
from shoestring.methods.permutation.vocabulary import asking
from shoestring.models import pretrained
from shoestring.runtime import unwrap
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Booked, Every, Log, Progress, Save, Spaced
from shoestring.train.loop import DivergedError, train
from shoestring.train.settle import Settled
from shoestring.train.side_by_side import Job, Show, side_by_side
from shoestring.types import Batch, Hook, Run

DEV, BEFORE = "dev loss", "before"
TRAIN, EVALUATE, SAVE = "train", "evaluate", "save"
_POINTS, _SAVE_SECONDS = 10, 60.0


@dataclass
class Outcome:
    """What a pretraining showed.

    points  by measurement: {"step", "cost": so far, "dev": nats per predicted token}
    ledger  all that was spent, by phase
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    ledger: dict[str, Any] = field(default_factory=dict)


def carry_out(setting: Setting, out: Path) -> None:
    """Pretrain what is not yet pretrained, put the model into `out`, and show what came of it.

    Raises ValueError where `out` holds something else or another pretraining, is in use, or the run diverged.
    """
    new = missing(out)

    def work(ledger: Ledger) -> Report:
        with leaving_nothing_begun(out, new):
            return _report(setting, out, ledger)

    experiment.carry_out(setting, out, work)
    if runtime.current().rank == 0:
        tell(out)


def _report(setting: Setting, out: Path, ledger: Ledger) -> Report:
    ground, how = prepare(setting, out)
    here = runtime.start(how.precision)
    torch.set_num_threads(how.threads)
    folder = out / "runs" / "pretrain"
    if here.rank == 0:
        tell_going_on(folder, setting.steps)

    def work() -> Outcome:
        done: list[Outcome] = side_by_side([Job("pretrain", partial(_go, ground, folder))], 1)
        return done[0]

    found = once(folder / "result.json", Outcome, work)
    check_whole(out / "model", out / "runs")
    if here.rank == 0:
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    ledger.load_state_dict(found.ledger)
    return _laid_out(ground, how, found, ledger)


def _go(ground: Ground, folder: Path, show: Show) -> Outcome:
    setting, ledger = ground.setting, Ledger()
    with ledger.phase(TRAIN):
        run, learnt = ground.run()
    watch = Watch(ground, ledger)
    # the objective's memory goes to disk with the run, and turns after each step
    hooks: list[Hook] = [learnt.memory, Every(-(-setting.steps // _POINTS), watch, last=setting.steps)]
    stopped = checkpoint.latest(folder / "checkpoint")
    if stopped is not None:
        checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
    log = watch.log = Log(folder, ledger, since=run.step)
    if stopped is None:
        watch(run)
    save = Booked(SAVE, Save(folder / "checkpoint", hooks, ledger, ground.tokenizer, keep=1), ledger)
    after: list[Hook] = [
        *hooks,
        Every(10, log),
        Progress(setting.steps, ledger, show),
        Spaced(_SAVE_SECONDS, save),
    ]
    schedule = optim.warmup_stable_decay(setting.steps + 1, setting.steps // 2, setting.warmup)
    try:
        with ledger.phase(TRAIN):
            how: dict[str, Any] = {"accumulate": setting.accumulate, "schedule": schedule}
            train(run, learnt, until=setting.steps, hooks=after, ledger=ledger, **how)
    finally:
        log.close()
    with ledger.phase(SAVE):
        # a model that writes on from a text wants none of the special tokens behind it
        tokenizer = ground.tokenizer if setting.objective == "autoregressive" else asking(ground.tokenizer)
        pretrained.save(run.model, tokenizer, ground.out / "model")
    return Outcome(watch.points, ledger.state_dict())


class Watch:
    """Measures the loss on held-out text, and remembers it."""

    def __init__(self, ground: Ground, ledger: Ledger) -> None:
        self._ground, self._ledger = ground, ledger
        self._held: list[Batch] = ground.held()
        self.points: list[dict[str, Any]] = []
        self.log: Log | None = None

    def __call__(self, run: Run) -> None:
        with self._ledger.phase(EVALUATE):
            found = self._ground.dev_loss(unwrap(run.model).to(runtime.current().device), self._held)
        if not math.isfinite(found):
            raise DivergedError(f"step {run.step}: the dev loss is {found}: lower --learning-rate, in another --out")
        self.points.append({"step": run.step, "cost": spent(self._ledger.state_dict(), TRAIN).as_dict(), "dev": found})
        if self.log is not None:
            self.log.write(run.step, {DEV: found})

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = list(state["points"])


def _laid_out(ground: Ground, how: Settled, found: Outcome, ledger: Ledger) -> Report:
    setting, took = ground.setting, spent(found.ledger, TRAIN)
    first, last = found.points[0]["dev"], found.points[-1]["dev"]
    row = Row(setting.objective, False, {DEV: Score.of([last]), BEFORE: Score.of([first])}, took)
    points = []
    for point in found.points:
        cost = Cost(**point["cost"])
        place = (setting.seed, int(point["step"]), cost.tokens, cost.flops, cost.seconds)
        points.append(Point(setting.objective, *place, {DEV: float(point["dev"])}))
    facts = {"data": "; ".join(f"{name} {mark}" for name, mark in ground.data.items()), "precision": how.why}
    notes = tuple(_notes(ground, ledger))
    return Report("permutation", "pretrain", (row,), tuple(points), (), DEV, notes, facts)


def _notes(ground: Ground, ledger: Ledger) -> Iterator[str]:
    setting, text, held = ground.setting, ground.text("train"), ground.held()
    rows, length = held[0]["input_ids"].shape
    yield (
        f"The dev loss is of {setting.objective}, in nats per predicted token, on {len(held)} batches of {rows} x "
        f"{length} held-out tokens; other objectives predict other tokens from other ones, and are not to be compared."
    )
    epochs = setting.steps * setting.batch * setting.reuse / len(text)
    yield f"There are {len(text):,} tokens to learn from, which were gone through {number(epochs)} times."
    yield f"Dev has {len(ground.text('dev')):,} tokens: {ground.how_cut()}."
    if share := ground.unknown():
        yield f"{share:.1%} of the tokens to learn from are unknown to the tokenizer."
    others = ledger.total().seconds - spent(ledger.state_dict(), TRAIN).seconds
    yield f"Looking at dev and saving took {number(max(0.0, others))} s more."
