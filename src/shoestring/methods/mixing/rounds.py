"""What every sampler that re-weighs has in common: a mixture, losses by skill, and a record of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, distributed, nn

from shoestring.models.modes import evaluating
from shoestring.types import Run

Evaluate = Callable[[nn.Module], Mapping[str, float]]
ONE_HOT = 0.99  # a share above which a single skill is as good as all that is drawn


class Weighed(Protocol):
    """A stream whose sources can be re-weighed while it is drawn from, such as a `Mixture`."""

    def set_weights(self, weights: Mapping[str, float]) -> None: ...


class Losses:
    """Held-out losses at each measurement, by skill, in one order; they fit into a checkpoint."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.rows: list[list[float]] = []

    def add(self, step: int, losses: Mapping[str, float]) -> list[float]:
        """Take a measurement. Raises ValueError where a skill has no loss, or one that is not finite."""
        if not isinstance(losses, Mapping):
            raise ValueError(f"step {step}: evaluate gave a {type(losses).__name__}: expected losses by skill")
        found = dict(losses)  # where a skill is missing, whatever mapping it was
        try:
            row = [float(found[name]) for name in self.names]
        except KeyError as missing:
            known = ", ".join(losses) or "none"
            raise ValueError(f"step {step}: the skill {missing} was not evaluated; it gave losses of {known}") from None
        if not all(map(math.isfinite, row)):
            name, value = next(pair for pair in zip(self.names, row, strict=True) if not math.isfinite(pair[1]))
            raise ValueError(
                f"step {step}: the loss of {name!r} is {value}: the weights stay as they are; "
                "lower the learning rate, or look at what it is evaluated on"
            )
        self.rows.append(row)
        return row


def measured(evaluate: Evaluate, run: Run) -> Mapping[str, float]:
    """What `evaluate` finds, without gradients, of a model that is afterwards in the mode it was in.

    Of several processes, each of which is to call this, what the first one finds: were their weights to part by the
    last bit, they would no longer draw parts of one stream.
    """
    with evaluating(run.model):
        found = evaluate(run.model)
    if not (distributed.is_available() and distributed.is_initialized()):
        return found
    told = [{name: float(loss) for name, loss in found.items()} if isinstance(found, Mapping) else found]
    distributed.broadcast_object_list(told, src=0)
    return told[0]


def one_later(step: int, before: int) -> int:
    """The step. Raises ValueError where it is that of the call before: nobody counted it."""
    if step == before:
        raise ValueError(f"called twice at step {step}: add one to run.step after each optimizer step, then call")
    return step


def by_name(names: Sequence[str], weights: Tensor) -> dict[str, float]:
    """Weights under the names of their skills, made to sum to one to the last bit that counts."""
    total = math.fsum(weights.tolist())
    return dict(zip(names, (weights.double() / total).tolist(), strict=True))


def one_hot(weights: Mapping[str, float]) -> str:
    """What is to be said where one of several skills is as good as all that is drawn; else nothing."""
    if len(weights) == 1 or max(weights.values()) <= ONE_HOT:
        return ""
    skill = max(weights, key=weights.__getitem__)
    return f"{weights[skill]:.4f} of what is drawn is {skill!r}"


def same(kind: str, saved: Any, mine: Any) -> None:
    """Refuse the saved state of a sampler that was another."""
    if saved == mine:
        return
    if isinstance(saved, dict) and isinstance(mine, dict):
        if saved.keys() != mine.keys():
            raise ValueError("the saved sampler was of another kind: resume with the same")
        apart = [name for name in mine if saved[name] != mine[name]]
        told = "; ".join(f"{name} {_short(saved.get(name))}, this one {_short(mine.get(name))}" for name in apart)
    else:
        told = f"{kind} {_short(saved)}, this one {_short(mine)}"
    raise ValueError(f"the saved sampler has {told}: resume with the same")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
