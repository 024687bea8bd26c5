"""Training that goes on where it was stopped, where all there is to it is a number of steps."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from shoestring.cost import Ledger
from shoestring.train import checkpoint
from shoestring.train.hooks import Every, Progress, Save, Spaced
from shoestring.train.loop import train
from shoestring.train.optim import Schedule
from shoestring.train.side_by_side import Show
from shoestring.types import Hook, Objective, Run

_CHANCES = 20  # steps between two chances to save


def resumed(
    run: Run,
    objective: Objective,
    *,
    until: int,
    folder: Path,
    ledger: Ledger,
    tokenizer: PreTrainedTokenizerBase,
    show: Show,
    save_seconds: float,
    schedule: Schedule | None = None,
) -> Run:
    """Train to a step from the latest checkpoint in a folder, if it holds one, and leave the last one there.

    show          told of the progress
    save_seconds  least time between two checkpoints
    The ledger goes on from the checkpoint's, and is charged under "train".
    """
    stopped = checkpoint.latest(folder)
    if stopped is not None:
        checkpoint.load(stopped, run, ledger=ledger)
    save = Save(folder, (), ledger, tokenizer, keep=1)
    hooks: list[Hook] = [Progress(until, ledger, show), Every(_CHANCES, Spaced(save_seconds, save))]
    with ledger.phase("train"):
        train(run, objective, until=until, hooks=hooks, ledger=ledger, schedule=schedule)
    save(run)
    return run
