"""What the experiment sees of a run as it goes: raw weights, windows and moving averages, on held-out text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from torch import nn

from shoestring import runtime
from shoestring.cost import Cost, Ledger, flops
from shoestring.evaluate import lm
from shoestring.methods.averaging.ema import Ema
from shoestring.methods.averaging.latest import Latest
from shoestring.methods.averaging.recipe_schema import Averages
from shoestring.train.hooks import Every, Log
from shoestring.types import Batch, Hook, Run

RAW = "raw"
KEEP = "Snapshots"  # the class of the hook under whose name a checkpoint holds them

HeldOut = tuple[list[Batch], int]


@dataclass
class Watched:
    """What a run showed. Candidates are `raw`, `window 5x10` and `ema 0.9`.

    start           the trunk's step it left from; None for the trunk
    points          by measurement: {"step", "cost": of the training alone, "dev": {candidate: loss},
                    "test": {candidate: [loss, bits per byte]}, "own": {candidate: the cost of its averaging}}
    raw_peak_bytes  the peak before any snapshot was held
    warnings        what speaks against averaging the last window
    diverged        why the run ended early
    """

    start: int | None = None
    points: list[dict[str, Any]] = field(default_factory=list)
    raw_peak_bytes: float = 0
    warnings: list[str] = field(default_factory=list)
    diverged: str | None = None


def ring(averages: Averages) -> int:
    """How many snapshots the widest window reaches over."""
    return (max(averages.counts) - 1) * (max(averages.strides) // averages.every) + 1


class Watch:
    """Scores the raw weights and every candidate on dev, to choose by, and on test, to report, as the run goes.

    name      the ledger's phase of this run
    start     the trunk's step it leaves from; None for the trunk
    first     the step from which snapshots are taken; None where nothing is averaged
    held_out  dev and test: batches, and the bytes of text that their targets cover
    """

    def __init__(
        self,
        averages: Averages,
        name: str,
        start: int | None,
        first: int | None,
        evaluate_every: int,
        held_out: dict[str, HeldOut],
        ledger: Ledger,
    ) -> None:
        self.name, self.averaged, self.evaluate_every, self.ledger = name, first is not None, evaluate_every, ledger
        self.held_out = held_out
        self.seen_from = start
        self.seen = Watched(start)
        self.log: Log | None = None
        self.windows = {
            f"window {count}x{stride}": (count, stride) for count in averages.counts for stride in averages.strides
        }
        self.latest = Latest(ring(averages), averages.every, first or 0)
        self.ema = Ema(averages.decays, averages.every, first or 0)

    def forget(self) -> None:
        """Drop what came with a branch's checkpoint: the points of the trunk."""
        self.seen = Watched(self.seen_from)

    def hooks(self) -> list[Hook]:
        """Those with a memory, which a checkpoint holds; a branch that is not averaged keeps no snapshots."""
        every = Every(self.evaluate_every, self)
        if not self.averaged:
            return [every]
        moves = len(self.ema.decays)
        return [
            Snapshots("keep", self.latest, self.ledger, lambda model: 0),
            Moves("ema", self.ema, self.ledger, lambda model: 3 * moves * _parameters(model)),
            every,
        ]

    def __call__(self, run: Run) -> None:
        dev: dict[str, float] = {}
        test: dict[str, tuple[float, float]] = {}
        for name, swapped in self._candidates(run):
            with swapped, self.ledger.phase("evaluate"):
                dev[name] = self._score(run.model, "dev").loss
                score = self._score(run.model, "test")
                assert score.bits_per_byte is not None
                test[name] = score.loss, score.bits_per_byte
        spent = self.ledger.phases()
        prefix = self.name
        base = spent.get(f"{prefix}/warm-up", Cost()) + spent.get(f"{prefix}/train", Cost())
        own = {name: self._own(name, spent, prefix).as_dict() for name in dev}
        point = {"step": run.step, "cost": base.as_dict(), "dev": dev, "test": test, "own": own}
        self.seen.points.append(point)
        warm = spent.get(f"{prefix}/warm-up", Cost()).peak_bytes
        self.seen.raw_peak_bytes = warm or base.peak_bytes
        if self.log is not None:
            self.log.write(run.step, {f"dev/{name}": loss for name, loss in dev.items()})

    def finish(self) -> None:
        """Ask whether the last window is fit to be averaged."""
        if self.averaged and self.latest.full:
            self.seen.warnings = self.latest.suspicious()

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.seen)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = Watched(**state)

    def _candidates(self, run: Run) -> Iterator[tuple[str, AbstractContextManager[None]]]:
        yield RAW, nullcontext()
        if not self.averaged:
            return
        held = self.latest.steps
        for name, (count, stride) in self.windows.items():
            wanted = [run.step - index * stride for index in reversed(range(count))]
            if set(wanted) <= set(held):
                yield name, self._averaged(name, run.model, partial(self.latest.swapped, steps=wanted), 2 * count)
        if self.ema.steps:
            for decay in self.ema.decays:
                name = f"ema {decay:g}"
                yield name, self._averaged(name, run.model, partial(self.ema.swapped, decay=decay), 0)

    @contextmanager
    def _averaged(
        self, name: str, model: nn.Module, swap: Callable[..., AbstractContextManager[None]], operations: int
    ) -> Iterator[None]:
        with self.ledger.phase(name):
            self.ledger.charge(flops=operations * _parameters(model))
            with swap(model):
                yield

    def _own(self, name: str, spent: dict[str, Cost], prefix: str) -> Cost:
        """What averaging cost a candidate beyond the run itself: snapshots or moves, and the means taken."""
        kind = name.split()[0]
        cost = Cost()
        for stage in ("warm-up", "train"):
            place = f"{prefix}/{stage}"
            cost = cost + spent.get(f"{place}/{name}", Cost())
            if kind == "window":
                cost = cost + spent.get(f"{place}/keep", Cost())
            if kind == "ema":
                moves, among = spent.get(f"{place}/ema", Cost()), len(self.ema.decays)
                cost = cost + replace(moves, flops=moves.flops / among, seconds=moves.seconds / among)
        return cost

    def _score(self, model: nn.Module, split: str) -> lm.LmScore:
        batches, text_bytes = self.held_out[split]
        config: Any = runtime.unwrap(model).config
        shapes = [batch["input_ids"].shape for batch in batches]
        self.ledger.charge(flops=sum(flops.formula(config, rows, length, False) for rows, length in shapes))
        return lm.loss(model, batches, text_bytes, runtime.current().autocast())


class Moves:
    """Book a moving average's moves, and their arithmetic, under a phase of their own; its memory is the hook's."""

    def __init__(self, name: str, hook: Latest | Ema, ledger: Ledger, flops_each: Callable[[nn.Module], float]) -> None:
        self.name, self.hook, self.ledger, self.flops_each = name, hook, ledger, flops_each

    def __call__(self, run: Run) -> None:
        if self.hook.due(run.step):
            with self.ledger.phase(self.name):
                self.hook(run)
                self.ledger.charge(flops=self.flops_each(run.model))

    def state_dict(self) -> dict[str, Any]:
        return self.hook.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.hook.load_state_dict(state)


class Snapshots(Moves):
    """The same for the snapshots of a window."""


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
