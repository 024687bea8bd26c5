"""A mixture's batches made by worker processes, which hear of changed weights through shared memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset

if TYPE_CHECKING:
    from shoestring.methods.mixing.mixture import Mixture

OURS = ("batch_size", "shuffle", "sampler", "batch_sampler", "collate_fn", "drop_last", "in_order", "num_workers")


class Told:
    """Changes of weights, each in the slot of the batch before which it takes effect, in memory that workers share.

    The loader asks a worker for batch b only when fewer than prefetch * workers batches before it are outstanding, so
    with a delay of as many a slot is written before a worker is asked for its batch, and is read after. No worker is
    further behind than the `workers` batches of a round, so that `delay` + `workers` slots and one are enough.
    """

    def __init__(self, slots: int, sources: int) -> None:
        self._batches = torch.full((slots,), -1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._weights = torch.zeros(slots, sources, dtype=torch.float64)
        self._weights.share_memory_()  # type: ignore[no-untyped-call]

    def tell(self, batch: int, weights: Sequence[float]) -> None:
        slot = batch % len(self._batches)
        self._weights[slot] = torch.tensor(weights, dtype=torch.float64)
        self._batches[slot] = batch

    def at(self, batch: int) -> list[float] | None:
        """The weights that batch was told; None where it was told none."""
        slot = batch % len(self._batches)
        return self._weights[slot].tolist() if self._batches[slot] == batch else None


class _Parts(IterableDataset[Any]):
    """A mixture as the workers of a `Loader` read it."""

    def __init__(self, mixture: Mixture, told: Told) -> None:
        self._mixture, self._told = mixture, told

    def __iter__(self) -> Iterator[Any]:
        return self._mixture.part(self._told)


class Loader:
    """The batches of a `Mixture`, made by worker processes: the stream of the mixture, place and weights with it.

    Batch b of a process is made by worker b % workers; the main process counts what it hands out. Under the same delay
    the batches are the same for any number of workers, save that each worker reads its own shard of a stream. They end
    with the iterator, or with the process; iterating again goes on with the next batch.
    """

    def __init__(
        self, mixture: Mixture, workers: int, prefetch: int = 2, options: Mapping[str, Any] | None = None
    ) -> None:
        for name, value, least in (("workers", workers, 0), ("prefetch", prefetch, 1)):
            if value < least:
                raise ValueError(f"{name} is {value}: expected {least} or more")
        for name in options or {}:
            if name in OURS:
                raise ValueError(f"option {name!r} of the DataLoader is set by the mixture: leave it out")
        needed = prefetch * workers
        if 0 < mixture.given_delay < needed:
            raise ValueError(
                f"delay is {mixture.given_delay}, and {workers} workers make {needed} batches ahead: give Mixture a "
                f"delay of {needed} or more (or none, and it becomes that), or use fewer workers or a smaller prefetch"
            )
        mixture.delay = mixture.given_delay or needed
        self.mixture, self._workers, self._prefetch, self._options = mixture, workers, prefetch, dict(options or {})
        mixture.split(max(1, workers))

    def __iter__(self) -> Iterator[Any]:
        if not self._workers:
            yield from self.mixture
            return
        self.mixture.split(self._workers)
        told = self.mixture.share(self.mixture.delay + self._workers + 1)
        # a generator of its own: the loader draws a seed for its workers, and leaves torch's own numbers alone
        options = {"generator": torch.Generator().manual_seed(0), **self._options}
        made = DataLoader(
            _Parts(self.mixture, told), None, num_workers=self._workers, prefetch_factor=self._prefetch, **options
        )
        for batch in made:
            if not self.mixture.tells(told):
                raise ValueError("a state was loaded, or the loader iterated anew, since: go on with a new iterator")
            self.mixture.skip()
            yield batch

    @property
    def delay(self) -> int:
        """Batches until weights that are set take effect."""
        return self.mixture.delay

    @property
    def ahead(self) -> int:
        """See `Mixture`."""
        return self.mixture.ahead

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """See `Mixture.set_weights`."""
        self.mixture.set_weights(weights)

    def state_dict(self) -> dict[str, Any]:
        return self.mixture.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stopped, at the next `iter`; see `Mixture.load_state_dict`."""
        self.mixture.load_state_dict(state)
