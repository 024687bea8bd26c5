"""What happens after a step: every so often, log, evaluate, save, show progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from torch import nn
from transformers import PreTrainedTokenizerBase

from shoestring import files, runtime
from shoestring.cost import Ledger
from shoestring.train import checkpoint
from shoestring.types import Hook, Run, memory


class Every:
    """Call a hook after each `steps` steps, and after step `last`."""

    def __init__(self, steps: int, hook: Hook, last: int | None = None) -> None:
        if steps < 1:
            raise ValueError(f"every {steps} steps: expected one or more")
        self.steps, self.hook, self.last = steps, hook, last

    def __call__(self, run: Run) -> None:
        if run.step % self.steps == 0 or run.step == self.last:
            self.hook(run)

    def state_dict(self) -> dict[str, Any]:
        inner = memory(self.hook)
        return inner.state_dict() if inner is not None else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        inner = memory(self.hook)
        if inner is not None:
            inner.load_state_dict(state)


class Spaced:
    """Call a hook at most once in so many seconds: for what is slow and may come late, such as saving."""

    def __init__(self, seconds: float, hook: Hook) -> None:
        self.seconds, self.hook = seconds, hook
        self.since = time.perf_counter()

    def __call__(self, run: Run) -> None:
        due = time.perf_counter() - self.since >= self.seconds
        here = runtime.current()
        # process 0 decides: the hook may need all of them
        if here.sum(float(due and here.rank == 0))[0]:
            self.hook(run)
            self.since = time.perf_counter()


class Booked:
    """Book a hook's time and memory under a phase of its own; it has no memory."""

    def __init__(self, name: str, hook: Hook, ledger: Ledger) -> None:
        self.name, self.hook, self.ledger = name, hook, ledger

    def __call__(self, run: Run) -> None:
        with self.ledger.phase(self.name):
            self.hook(run)


class Log:
    """Append what the step cost and scored to a JSON-lines file, and to TensorBoard event files beside it.

    folder   gets `log.jsonl` and `tensorboard/`; on a resumed run, lines of steps after `since` are dropped
    Process 0 writes.
    """

    def __init__(self, folder: Path, ledger: Ledger, since: int = 0) -> None:
        self.ledger = ledger
        self.file: TextIO | None = None
        if runtime.current().rank:
            return
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "log.jsonl"
        _drop_after(path, since)
        self.file = path.open("a", encoding="utf-8")
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=since + 1)

    def __call__(self, run: Run) -> None:
        rates = [group["lr"] for group in run.optimizer.param_groups]
        self.write(run.step, {"loss": run.loss, "learning_rate": max(rates)})

    def write(self, step: int, scores: dict[str, float]) -> None:
        """Log scores at a step, beside the costs so far."""
        if self.file is None:
            return
        spent = self.ledger.total()
        costs = {"tokens": spent.tokens, "flops": spent.flops, "seconds": round(spent.seconds, 3)}
        self.file.write(json.dumps({"kind": "train", "step": step, **scores, **costs}) + "\n")
        self.file.flush()
        for name, value in scores.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.writer.close()


class Evaluate:
    """Score the live model and hand the scores on.

    score    model -> {metric: value}; runs under the phase "evaluate" of the ledger
    record   called with (step, scores)
    """

    def __init__(
        self,
        score: Callable[[nn.Module], dict[str, float]],
        record: Callable[[int, dict[str, float]], None],
        ledger: Ledger,
    ) -> None:
        self.score, self.record, self.ledger = score, record, ledger

    def __call__(self, run: Run) -> None:
        with self.ledger.phase("evaluate"):
            scores = self.score(run.model)
        self.record(run.step, scores)


class Save:
    """Write a checkpoint of the run, its hooks and its ledger.

    hooks   the list given to `train`; it may hold this hook itself
    """

    def __init__(
        self,
        folder: Path,
        hooks: Sequence[Hook] = (),
        ledger: Ledger | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        keep: int | None = None,
    ) -> None:
        self.folder, self.hooks, self.ledger, self.tokenizer, self.keep = folder, hooks, ledger, tokenizer, keep

    def __call__(self, run: Run) -> None:
        checkpoint.save(
            self.folder, run, hooks=self.hooks, ledger=self.ledger, tokenizer=self.tokenizer, keep=self.keep
        )


class Progress:
    """Tell how far the run is: `show(step, until, loss, tokens per second)`, at most every `seconds`."""

    def __init__(
        self, until: int, ledger: Ledger, show: Callable[[int, int, float, float], None], seconds: float = 0.5
    ) -> None:
        self.until, self.ledger, self.show, self.seconds = until, ledger, show, seconds
        self.since = self.shown = time.perf_counter()
        self.tokens = ledger.total().tokens

    def __call__(self, run: Run) -> None:
        now = time.perf_counter()
        if now - self.shown < self.seconds and run.step != self.until:
            return
        self.shown = now
        rate = (self.ledger.total().tokens - self.tokens) / max(now - self.since, 1e-9)
        self.show(run.step, self.until, run.loss, rate)


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the line a killed run was writing
            continue
        if entry.get("step", 0) <= step:
            kept.append(line + "\n")
    files.replace(path, "".join(kept))
