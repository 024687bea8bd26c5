"""The words all floors speak: a batch, a stream of them, a loss, a run, a hook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Batch: TypeAlias = "dict[str, Tensor]"


class Batches(Protocol):
    """An endless stream of batches that knows where it is."""

    def __iter__(self) -> Iterator[Batch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Loss(NamedTuple):
    """A sum and a count, so that micro-batches and processes weigh by their size.

    total   (): the summed loss, nats, differentiable
    count   how many terms were summed (targets); total / count is the mean
    tokens  how many input tokens the batch held: what the ledger is charged
    """

    total: Tensor
    count: int  # type: ignore[assignment]  # it hides tuple.count, which no one asks of a loss
    tokens: int


Objective: TypeAlias = "Callable[[nn.Module, Batch], Loss]"


@dataclass
class Run:
    """All that a run needs to go on: what `train` moves forward and a checkpoint holds.

    step    optimizer steps taken so far
    loss    mean loss of the latest step, nats per target
    """

    model: nn.Module
    optimizer: Optimizer
    batches: Batches
    step: int = 0
    loss: float = math.nan


Hook: TypeAlias = Callable[[Run], None]


@runtime_checkable
class Stateful(Protocol):
    """What a hook with a memory offers, so that a checkpoint can hold it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def memory(hook: object) -> Stateful | None:
    """The hook as something with a memory; None where it has none."""
    return hook if isinstance(hook, Stateful) else None
