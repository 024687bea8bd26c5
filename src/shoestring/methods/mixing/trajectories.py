"""How the loss of each sample moves while a model is trained: what tells skills apart that nobody named.

B samples a batch, T length, V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shoestring.data.batches import NOT_SCORED
from shoestring.models.modes import evaluating
from shoestring.types import Batch, Run

_CHUNK_ELEMENTS = 2**22  # of fp32 logits at a time: 16 MB


def sample_losses(model: nn.Module, batches: Iterable[Batch]) -> Tensor:
    """The mean loss of each sample over its own targets, nats per token.

    model    a causal language model as Hugging Face's: called with the batch, it returns what has `logits`
    batches  `input_ids` (B, T); `labels` (B, T), unshifted, -100 where not scored; `attention_mask` where needed
    Returns (samples,) in float64, on the CPU. The model is in evaluation mode meanwhile and then as it was. Raises
    ValueError, naming the sample, where a loss is not finite or there is no target.
    """
    device = next(model.parameters()).device
    found: list[Tensor] = []
    with evaluating(model):
        for batch in batches:
            here = {name: tensor.to(device) for name, tensor in batch.items()}
            labels = here.pop("labels", here["input_ids"])
            targets = (labels[:, 1:] != NOT_SCORED).sum(1)
            if not bool(targets.all()):
                sample = sum(map(len, found)) + int((targets == 0).nonzero()[0])
                raise ValueError(f"sample {sample} has no target: expected two tokens or more that are scored")
            found.append((_nats(model(**here, use_cache=False).logits, labels).sum(1) / targets).cpu())
    if not found:
        raise ValueError("there is no sample to take the loss of: the batches are empty")
    losses = torch.cat(found)
    if not bool(losses.isfinite().all()):
        sample = int((~losses.isfinite()).nonzero()[0])
        raise ValueError(
            f"the loss of sample {sample} is {float(losses[sample])}: the model's weights or activations overflowed: "
            "lower the learning rate"
        )
    return losses


class Trajectories:
    """A hook that takes the loss of every sample at each call, over one run or over several, one after another.

    batches  the fixed set, iterated anew at each call: see `sample_losses`
    steps    of each call, in order; a second run's begin low again
    Raises ValueError, naming step and sample, where a loss is not finite.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.steps: list[int] = []
        self._taken: list[Tensor] = []
        self._samples = sum(len(batch["input_ids"]) for batch in batches)

    def __call__(self, run: Run) -> None:
        try:
            losses = sample_losses(run.model, self.batches)
        except ValueError as error:
            raise ValueError(f"step {run.step}: {error}") from error
        self.steps.append(run.step)
        self._taken.append(losses)

    @property
    def losses(self) -> NDArray[np.float64]:
        """(samples, checkpoints of all runs): the features to be clustered. Raises ValueError where none was taken."""
        if not self._taken:
            raise ValueError("no loss was taken: call the recorder after some steps, as a hook of `train`")
        return np.ascontiguousarray(torch.stack(self._taken, dim=1).numpy())

    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "losses": [losses.clone() for losses in self._taken]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after what was taken before; ValueError where that was of another number of samples."""
        counts = {len(losses) for losses in state["losses"]} - {self._samples}
        if counts or len(state["steps"]) != len(state["losses"]):
            raise ValueError(f"the saved losses are of {counts or 'torn'} samples, expected {self._samples}")
        self.steps = [int(step) for step in state["steps"]]
        self._taken = [losses.to("cpu", torch.float64) for losses in state["losses"]]


class RaggedBatches:
    """Samples of several lengths, as token ids: in order to be measured, and an endless shuffled stream to train on.

    rows        ids of each sample, two or more: shorter ones are filled up at the right, where a causal model does not
                look, with labels of -100
    batch_size  samples a step
    An epoch's order comes from (seed, epoch) alone, so that nothing but a count need be saved; a batch may end one
    epoch and begin the next. Raises ValueError where a sample has no target.
    """

    def __init__(self, rows: Sequence[NDArray[np.integer[Any]]], batch_size: int, seed: int) -> None:
        short = next((place for place, row in enumerate(rows) if len(row) < 2), None)
        if short is not None or not rows:
            which = "there is no sample" if short is None else f"sample {short} has {len(rows[short])} tokens"
            raise ValueError(f"{which}: expected samples of two tokens or more, so that each has a target")
        if batch_size < 1 or not 0 <= seed < 1 << 64:
            raise ValueError(f"batch_size {batch_size}, seed {seed}: expected one or more, and 0 to 2**64 - 1")
        self._rows, self._batch_size, self._seed = rows, batch_size, seed
        self._drawn = 0
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def in_order(self) -> list[Batch]:
        """Every sample once, in batches."""
        size = self._batch_size
        return [padded(self._rows[first : first + size]) for first in range(0, len(self._rows), size)]

    def __iter__(self) -> Iterator[Batch]:
        while True:
            first = self._drawn * self._batch_size
            rows = [self._at(place) for place in range(first, first + self._batch_size)]
            self._drawn += 1
            yield padded(rows)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream stopped; ValueError where it was another stream."""
        for key, mine in self._identity().items():
            if state.get(key) != mine:
                raise ValueError(
                    f"the saved samples have {key} {state.get(key)!r}, these {mine!r}: resume with the same"
                )
        self._drawn = int(state["drawn"])

    def _identity(self) -> dict[str, int]:
        return {"samples": len(self._rows), "batch_size": self._batch_size, "seed": self._seed}

    def _at(self, place: int) -> NDArray[np.integer[Any]]:
        epoch, place = divmod(place, len(self._rows))
        if epoch != self._epoch:
            # raw Philox numbers, sorted: numpy keeps those the same in every version
            raw = np.random.Philox(key=np.array([self._seed, epoch], dtype=np.uint64)).random_raw(len(self._rows))
            self._epoch, self._order = epoch, np.argsort(raw, kind="stable")
        row: NDArray[np.integer[Any]] = self._rows[int(self._order[place])]
        return row


def padded(rows: Sequence[NDArray[np.integer[Any]]]) -> Batch:
    """Rows of ids as `input_ids` and `labels`, each (B, longest) int64, filled at the right with 0 and -100."""
    width = max(len(row) for row in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    labels = torch.full_like(input_ids, NOT_SCORED)
    for place, row in enumerate(rows):
        input_ids[place, : len(row)] = labels[place, : len(row)] = torch.from_numpy(row.astype(np.int64))
    return {"input_ids": input_ids, "labels": labels}


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each target, 0 where there is none. logits (B, T, V), labels (B, T) unshifted; returns (B, T).

    In chunks, so that the fp32 copy is never that of the whole batch.
    """
    targets = nn.functional.pad(labels[:, 1:], (0, 1), value=NOT_SCORED)
    flat = logits.reshape(-1, logits.shape[-1])
    rows = max(1, _CHUNK_ELEMENTS // flat.shape[-1])
    nats = [
        nn.functional.cross_entropy(some.float(), wanted, ignore_index=NOT_SCORED, reduction="none")
        for some, wanted in zip(torch.split(flat, rows), torch.split(targets.reshape(-1), rows), strict=True)
    ]
    return torch.cat(nats).double().reshape(targets.shape)
