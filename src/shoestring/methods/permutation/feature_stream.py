"""An endless stream of features to fine-tune on, and the loss of a head of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from shoestring.methods.permutation.features import Choices, Feature, collate
from shoestring.types import Batch, Loss


class FeatureBatches:
    """Labelled features, each epoch in an order of its own from (seed, epoch) alone; a batch may end one and begin the
    next.

    pad          the id that padding is filled with
    batch        features a step, over all processes; each gets its batch / world, in the order of ranks
    Raises ValueError where there are fewer features than a batch takes, or it does not divide among the processes.
    """

    def __init__(
        self,
        features: Sequence[Feature] | Sequence[Choices],
        pad: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if len(features) < batch or batch < 1 or batch % world:
            raise ValueError(
                f"{len(features)} examples in batches of {batch} over {world} processes: expected as many examples, "
                "and a batch that the processes divide"
            )
        self._features, self._pad, self._batch, self._seed = features, pad, batch, seed
        self._rank, self._world = rank, world
        self._drawn = 0
        self._orders: dict[int, list[int]] = {}

    def __iter__(self) -> Iterator[Batch]:
        own = self._batch // self._world
        while True:
            first = self._drawn * self._batch + self._rank * own
            self._drawn += 1
            chosen: Any = [self._features[self._place(at)] for at in range(first, first + own)]
            yield collate(chosen, self._pad)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn, "batch": self._batch, "seed": self._seed, "features": len(self._features)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where the state is of other features, or another batch or seed."""
        mine = {**self.state_dict(), "drawn": state.get("drawn")}
        if state != mine:
            raise ValueError(f"the saved batches are of {state}, these of {mine}: resume with the same")
        self._drawn = int(state["drawn"])

    def _place(self, at: int) -> int:
        epoch, place = divmod(at, len(self._features))
        if epoch not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known >= epoch - 1}
            generator = np.random.Generator(np.random.Philox(key=np.array([self._seed, epoch], dtype=np.uint64)))
            self._orders[epoch] = np.argsort(generator.random(len(self._features)), kind="stable").tolist()
        return self._orders[epoch][place]


def headed(model: Callable[..., Any], batch: Batch) -> Loss:
    """The loss of a head of transformers, which is a mean over rows, as a sum over them, in nats."""
    rows = len(batch["input_ids"])
    return Loss(model(**batch).loss.float() * rows, rows, batch["input_ids"].numel())
