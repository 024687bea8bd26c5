"""Tokenized examples as a batch to learn from, for a Hugging Face Trainer.

B rows, S tokens of the longest, P predicted tokens of the row with the most
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from shoestring.data.batches import NOT_SCORED
from shoestring.methods.permutation.orders import HIDDEN, Order, perm_mask, permuted
from shoestring.methods.permutation.spans import Spans, check_spans, draw
from shoestring.methods.permutation.vocabulary import Marks, marks
from shoestring.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SIXTH = 1 / 6


class _Row(NamedTuple):
    ids: NDArray[np.int64]
    segments: NDArray[np.int64] | None
    order: Order
    targets: NDArray[np.int64]


class PermutationCollator:
    """Draws what is predicted of each example, and in which order.

    tokenizer           its special tokens but the end and the unknown are functional, unless an example says which are
    predicted           share of a row's ordinary tokens, 1/K; at least one is predicted where there is one
    spans               see `spans.draw`
    block               positions a block of the order; None is the whole row
    pad_to_multiple_of  S is a multiple of this
    for_transformers    for the body of transformers, not for ours
    seed                None draws from torch's own generator, which a Trainer seeds, saves, and seeds in each worker

    Takes examples with `input_ids`, and `token_type_ids`, `special_tokens_mask`, `attention_mask` where there are, of
    any lengths. Gives `input_ids` (B, S), `rank` and `sees` (B, S), `targets` and `labels` (B, P),
    and `token_type_ids`; or for transformers `input_ids`, `attention_mask`, `perm_mask` (B, S, S), `target_mapping`
    (B, P, S), `labels` and `token_type_ids`. Padding stands at the right, seen by nobody; a row without an ordinary
    token has no target, but one row of them must have one. The input keeps its tokens: Yang et al. 2019 (arXiv
    1906.08237) hide what is predicted in the query stream, and what comes later in the order must see it.
    Raises ValueError where a number or an example is not what is expected.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        predicted: float = _SIXTH,
        spans: Spans = "words",
        block: int | None = None,
        pad_to_multiple_of: int | None = None,
        for_transformers: bool = False,
        seed: int | None = None,
    ) -> None:
        if not 0 < predicted <= 1:
            raise ValueError(f"predicted {predicted}: expected a share of the tokens, above 0 and at most 1")
        check_spans(spans)
        for name, value in (("block", block), ("pad_to_multiple_of", pad_to_multiple_of)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: expected one or more")
        if seed is not None and not 0 <= seed < 1 << 64:
            raise ValueError(f"seed {seed}: expected a number from 0 to 2**64 - 1")
        self.tokenizer, self.predicted, self.spans, self.block = tokenizer, predicted, spans, block
        self.pad_to_multiple_of, self.for_transformers, self.seed = pad_to_multiple_of or 1, for_transformers, seed
        self._generator: np.random.Generator | None = None
        self._worker = 0  # whom the generator was made for

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        if not examples:
            raise ValueError("no examples: expected one or more")
        generator = self._drawn_from()
        rows = [self._row(example, generator) for example in examples]
        if len({row.segments is None for row in rows}) > 1:
            raise ValueError("some of the examples have token_type_ids and some have none: expected all or none")
        if not any(len(row.targets) for row in rows):
            raise ValueError(
                "nothing to predict: all tokens of these examples are special, or there are none: leave them out"
            )
        unit = self.pad_to_multiple_of
        length = max(1, *(len(row.ids) for row in rows))
        length = -(-length // unit) * unit
        return self._for_transformers(rows, length) if self.for_transformers else self._for_ours(rows, length)

    def _row(self, example: Mapping[str, Any], generator: np.random.Generator) -> _Row:
        ids = _vector(example, "input_ids", None)
        there = self._there(example, ids)
        special = _vector(example, "special_tokens_mask", len(ids))
        segments = _vector(example, "token_type_ids", len(ids))
        functional = np.isin(ids, self._functional) if special is None else special != 0
        ids, functional = ids[there], functional[there]
        eligible = ~functional
        count = int(eligible.sum())
        goal = min(count, max(1, round(self.predicted * count)))
        chosen = draw(self.spans, self._starts_word(ids), eligible, goal, generator, max(count, 1), max(goal, 1))
        order = permuted(chosen, functional, self.block or max(len(ids), 1), generator)
        return _Row(ids, None if segments is None else segments[there], order, np.flatnonzero(chosen))

    def _there(self, example: Mapping[str, Any], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which tokens of an example are no padding."""
        mask = _vector(example, "attention_mask", len(ids))
        if mask is not None:
            return np.asarray(mask != 0)
        pad = self.tokenizer.pad_token_id
        tells = pad is not None and pad != self.tokenizer.eos_token_id
        return ids != pad if tells else np.ones(len(ids), dtype=np.bool_)

    def _for_ours(self, rows: list[_Row], length: int) -> Batch:
        return {
            **self._padded(rows, length),
            "rank": _stack([row.order.rank for row in rows], length, HIDDEN),
            "sees": _stack([row.order.sees for row in rows], length, 0),
            "targets": _stack([row.targets for row in rows], _most(rows), -1),
        }

    def _for_transformers(self, rows: list[_Row], length: int) -> Batch:
        batch = self._for_ours(rows, length)
        rank, sees, targets = batch.pop("rank"), batch.pop("sees"), batch.pop("targets")
        at = torch.arange(length)
        return {
            **batch,
            "attention_mask": (rank != HIDDEN).long(),
            "perm_mask": perm_mask(rank, sees),
            "target_mapping": (targets[..., None] == at).float(),
        }

    def _padded(self, rows: list[_Row], length: int) -> Batch:
        pad = self.tokenizer.pad_token_id
        labels = [row.ids[row.targets] for row in rows]
        batch = {
            "input_ids": _stack([row.ids for row in rows], length, 0 if pad is None else pad),  # nobody sees it
            "labels": _stack(labels, _most(rows), NOT_SCORED),
        }
        segments = [row.segments for row in rows if row.segments is not None]
        if segments:
            batch["token_type_ids"] = _stack(segments, length, self.tokenizer.pad_token_type_id)
        return batch

    def _starts_word(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        if self.spans == "single":
            return np.zeros(len(ids), dtype=np.bool_)
        size = len(self._marks.starts_word)
        if len(ids) and not 0 <= ids.min() <= ids.max() < size:
            raise ValueError(f"tokens from {ids.min()} to {ids.max()} in a vocabulary of {size}: of another tokenizer")
        starts = self._marks.starts_word[ids]
        starts[1:] |= self._marks.closes_word[ids[:-1]]
        return starts

    @cached_property
    def _marks(self) -> Marks:
        return marks(self.tokenizer)

    @cached_property
    def _functional(self) -> list[int]:
        """The end of text is an ordinary token, where it is not the separator, and so is an unknown one."""
        tokenizer = self.tokenizer
        separators = {tokenizer.sep_token_id, tokenizer.cls_token_id}
        ordinary = {tokenizer.unk_token_id, tokenizer.eos_token_id} - separators
        return sorted(set(tokenizer.all_special_ids) - ordinary)

    def _drawn_from(self) -> np.random.Generator:
        if self.seed is None:
            return _generator(int(torch.randint(1 << 62, ()).item()), 0)
        info = get_worker_info()
        worker = 0 if info is None else info.seed % (1 << 64)  # another one in each worker and epoch
        if self._generator is None or worker != self._worker:
            self._generator, self._worker = _generator(self.seed, worker), worker
        return self._generator


def _generator(seed: int, worker: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, worker], dtype=np.uint64)))


def _vector(example: Mapping[str, Any], name: str, length: int | None) -> Any:
    """(length,) int64 of an example; None where it has none of that name."""
    if name not in example:
        if length is None:
            raise ValueError(f"an example has no {name}, but {', '.join(example)}: expected tokenized text")
        return None
    vector = np.asarray(example[name], dtype=np.int64)
    if vector.ndim != 1 or length not in (None, len(vector)):
        shape = "one row of ids" if length is None else f"({length},), as the input_ids"
        raise ValueError(f"{name} of an example are of shape {vector.shape}: expected {shape}")
    return vector


def _most(rows: list[_Row]) -> int:
    """P: one at the least, so that no model is given an empty axis."""
    return max(1, *(len(row.targets) for row in rows))


def _stack(vectors: Sequence[NDArray[Any]], length: int, filling: int) -> torch.Tensor:
    """(len(vectors), length), filled at the right."""
    stacked = np.full((len(vectors), length), filling, dtype=vectors[0].dtype)
    for row, vector in zip(stacked, vectors, strict=True):
        row[: len(vector)] = vector
    return torch.from_numpy(stacked)
