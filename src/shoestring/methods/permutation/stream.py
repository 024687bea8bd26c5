"""An endless stream of batches for permutation language modelling, whose rows go on where they stopped.

B rows, S tokens a sequence, R reused tokens, M memory, P predicted tokens a sequence
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from shoestring.data.tokens import Tokens
from shoestring.methods.permutation import packing
from shoestring.methods.permutation.orders import Order, permuted
from shoestring.methods.permutation.packing import Record, Text
from shoestring.methods.permutation.spans import Spans, check_spans, draw
from shoestring.methods.permutation.vocabulary import Vocabulary
from shoestring.types import Batch

Segments = Literal["two", "one"]
_STARTS, _ROWS = 0, 1  # what a key of random numbers is for


class _Row(NamedTuple):
    record: Record
    order: Order
    targets: NDArray[np.int64]
    context: int


class PermutationBatches:
    """An endless stream of sequences whose rows are streams of their own, for a model with a memory.

    batch_size      B over all processes; each gets its batch_size / world
    length          S
    reuse           R: a row goes on by so many tokens a batch, and the model remembers so many
    predicted       P, divided between the reused tokens and the others by their numbers
    memory          M, which `context` counts of; 0 is none. With one, the order has blocks of R tokens that see none
                    after them, which the memory would tell; without, it is one over the sequence
    segments        "two": A and B after the reused tokens (see `packing.pack`); "one": contiguous tokens alone
    spans           what is predicted: spans of whole "words", spans of "tokens" as the official code has them, or
                    "single" tokens
    bidirectional   the second half of a process's rows is read from right to left
    rank, world     which process this is, of how many

    Yields `input_ids` (B, S) int64, `rank` and `sees` (B, S) int32, `targets` (B, P) int64 ascending, `labels` (B, P)
    int64, `context` (B,) int64, and of two segments `token_type_ids` (B, S) int64. `context` is how many of the M
    tokens just before the sequence were read before it, and are of the same document as its first token.

    The corpus is cut into B parts, one a row. An epoch goes once through each part, from a start within the first R
    tokens that is of the epoch; bidirectional rows change their parts with each epoch, so that every part is read both
    ways (in the official code a row each way shares a part). All is drawn from (seed, batch, row), so that nothing but
    a count need be saved. Raises ValueError where numbers do not fit together, or the text is too short.
    """

    def __init__(
        self,
        tokens: Tokens,
        vocabulary: Vocabulary,
        batch_size: int,
        length: int,
        reuse: int,
        predicted: int,
        seed: int,
        *,
        memory: int = 0,
        segments: Segments = "two",
        spans: Spans = "words",
        bidirectional: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        _check_rows(batch_size, bidirectional, rank, world)
        check_lengths(length, reuse, predicted, memory, segments)
        check_spans(spans)
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed {seed}: expected a number from 0 to 2**64 - 1")
        self._needed = packing.needed(length, segments)
        self._part = len(tokens) // batch_size
        self._steps = (self._part - self._needed + 1) // reuse  # an epoch's, from any start below `reuse`
        if self._steps < 1:
            takes = batch_size * (self._needed + reuse - 1)
            raise ValueError(
                f"{tokens.folder}: {len(tokens)} tokens do not fill {batch_size} rows of {length} that go on by "
                f"{reuse}, which takes {takes}: give more text, or a smaller batch or length"
            )
        self._identity = {
            "fingerprint": tokens.fingerprint,
            "batch_size": batch_size,
            "length": length,
            "reuse": reuse,
            "predicted": predicted,
            "seed": seed,
            "memory": memory,
            "segments": segments,
            "spans": spans,
            "bidirectional": bidirectional,
        }
        self._tokens, self._vocabulary = tokens.ids, vocabulary
        self._batch_size, self._length, self._reuse, self._seed = batch_size, length, reuse, seed
        self._memory, self._segments, self._spans, self._both = memory, segments, spans, bidirectional
        self._predicted, self._budget = predicted, _budget(length, reuse, predicted)
        own = batch_size // world
        ahead, half = (own // 2, batch_size // 2) if bidirectional else (own, 0)
        first = range(rank * ahead, (rank + 1) * ahead)
        self._rows = [*first, *(half + row for row in first if bidirectional)]
        self._drawn = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rows = [self._row(self._drawn, row) for row in self._rows]
            self._drawn += 1
            yield self._batch(rows)

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self._drawn, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another stream stopped, under any number of processes; ValueError where it was another stream.

        The model's memory is no part of it: it goes on with the run's own.
        """
        for key, mine in self._identity.items():
            if state.get(key) != mine:
                raise ValueError(
                    f"the saved batches have {key} {state.get(key)!r}, these {mine!r}: resume with the same"
                )
        if type(state.get("drawn")) is not int or state["drawn"] < 0:
            raise ValueError(f"the saved batches have drawn {state.get('drawn')!r}: expected a count")
        self._drawn = state["drawn"]

    def _row(self, batch: int, row: int) -> _Row:
        epoch, step = divmod(batch, self._steps)
        backward = self._both and row >= self._batch_size // 2
        part = (row + epoch * (self._batch_size // 2)) % self._batch_size if self._both else row
        on = self._offset(epoch, row) + step * self._reuse
        start = (part + 1) * self._part - on - self._needed if backward else part * self._part + on
        generator = np.random.Generator(self._philox(_ROWS, batch, row))
        text = packing.read(self._tokens[start : start + self._needed], self._vocabulary, backward)
        if self._segments == "two":
            record = packing.pack(
                text,
                self._reuse,
                lambda count: self._elsewhere(count, backward, generator),
                self._vocabulary,
                generator,
            )
        else:
            record = packing.plain(text)
        chosen = self._chosen(record, generator)
        block = self._reuse if self._memory else self._length
        order = permuted(chosen, record.functional, block, generator)
        context = self._context(start, min(self._memory, step * self._reuse), backward)
        return _Row(record, order, np.flatnonzero(chosen), context)

    def _chosen(self, record: Record, generator: np.random.Generator) -> NDArray[np.bool_]:
        """Spans do not cross from the reused tokens to the others: each have their share of P."""
        parts = []
        for here, goal in zip((slice(self._reuse), slice(self._reuse, None)), self._budget, strict=True):
            starts, eligible = record.starts_word[here], ~record.functional[here]
            # what is left free around a span, so that the goal is reached at the end of the row
            alpha, beta = self._length, self._predicted
            parts.append(draw(self._spans, starts, eligible, goal, generator, alpha, beta))
        return np.concatenate(parts)

    def _elsewhere(self, count: int, backward: bool, generator: np.random.Generator) -> Text:
        """Tokens from anywhere in the corpus, from a sentence's start if one is near."""
        width = min(2 * count, len(self._tokens))
        start = int(generator.random() * (len(self._tokens) - width + 1))
        text = packing.read(self._tokens[start : start + width], self._vocabulary, backward)
        ends = np.flatnonzero(text.ends_sentence[: width - count])
        first = int(ends[0]) + 1 if len(ends) else 0
        return text.part(first, first + count)

    def _context(self, start: int, read: int, backward: bool) -> int:
        """How many of the `read` tokens before a sequence, as it is read, are of its first token's document."""
        if backward:  # an end of text belongs to the document before it: from the first token itself on
            last = start + self._needed - 1
            between = self._tokens[last : last + read]
        else:
            between = self._tokens[start - read : start][::-1]
        ends = np.flatnonzero(between == self._vocabulary.eos)
        return int(ends[0]) if len(ends) else read

    def _offset(self, epoch: int, row: int) -> int:
        return int(self._philox(_STARTS, epoch, row).random_raw() % self._reuse)

    def _philox(self, use: int, time: int, row: int) -> np.random.Philox:
        # the lowest word of the counter counts the numbers drawn
        counter = np.array([0, row, time, 0], dtype=np.uint64)
        return np.random.Philox(key=np.array([self._seed, use], dtype=np.uint64), counter=counter)

    def _batch(self, rows: list[_Row]) -> Batch:
        input_ids = torch.from_numpy(np.stack([row.record.ids for row in rows]))
        targets = torch.from_numpy(np.stack([row.targets for row in rows]))
        batch = {
            "input_ids": input_ids,
            "rank": torch.from_numpy(np.stack([row.order.rank for row in rows])),
            "sees": torch.from_numpy(np.stack([row.order.sees for row in rows])),
            "targets": targets,
            "labels": input_ids.gather(1, targets),
            "context": torch.tensor([row.context for row in rows]),
        }
        if self._segments == "two":
            batch["token_type_ids"] = torch.from_numpy(np.stack([row.record.segments for row in rows]))
        return batch


def _budget(length: int, reuse: int, predicted: int) -> tuple[int, int]:
    first = -(-predicted * reuse // length)
    return first, predicted - first


def _check_rows(batch_size: int, bidirectional: bool, rank: int, world: int) -> None:
    if batch_size < 1 or world < 1:
        raise ValueError(f"a batch of {batch_size} among {world} processes: expected one or more of each")
    if bidirectional and batch_size % 2:
        raise ValueError(f"a batch of {batch_size} with rows of both directions: expected an even number")
    unit = 2 * world if bidirectional else world
    if batch_size % unit:
        each = " with as many rows of each direction" if bidirectional else ""
        raise ValueError(
            f"a batch of {batch_size} does not divide among {world} processes{each}: choose a multiple of {unit}"
        )
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes: expected 0 to {world - 1}")


def check_lengths(length: int, reuse: int, predicted: int, memory: int, segments: str) -> None:
    """Raises ValueError where the numbers of a stream leave no room for what is predicted, or for two segments."""
    if segments not in get_args(Segments):
        raise ValueError(f"segments {segments!r}: expected one of {', '.join(get_args(Segments))}")
    if not 1 <= reuse <= length:
        raise ValueError(f"{reuse} reused of {length} tokens: expected 1 to {length}")
    if memory < 0:
        raise ValueError(f"a memory of {memory} tokens: expected 0 or more")
    least = packing.FUNCTIONAL + 2
    if segments == "two" and length - reuse < least:
        raise ValueError(
            f"{reuse} of {length} tokens are reused, which leaves {length - reuse} for two segments: expected {least} "
            "or more; reuse fewer, or take one segment (--segments one, segments: one)"
        )
    room = packing.needed(length, segments) - reuse
    if predicted < 1 or _budget(length, reuse, predicted)[1] > room:
        most = next(count for count in range(length, 0, -1) if _budget(length, reuse, count)[1] <= room)
        raise ValueError(
            f"{predicted} predicted of {length} tokens: expected 1 to {most}, in their share of each block"
        )
