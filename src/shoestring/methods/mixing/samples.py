"""Questions and answers as token ids: what is asked is read, what is answered is trained on and scored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from shoestring.data import tokenizers
from shoestring.data.batches import NOT_SCORED
from shoestring.types import Batch

Pieces: TypeAlias = Sequence[tuple[str, bool]]


class Samples:
    """Rows of one length, to be drawn from by place: `{"input_ids", "labels"}`, each (length,) int64.

    pieces     of each sample: text, and whether it is scored; tokens of others have the label -100
    whole      whether all tokens are scored, as in a language model's training
    length     tokens a row: the longest sample where not given; shorter ones are filled at the right, unscored
    Raises ValueError where there is no sample, one is longer than `length`, or nothing of one is scored.
    """

    def __init__(
        self, pieces: Iterable[Pieces], tokenizer: Any, whole: bool = False, length: int | None = None
    ) -> None:
        rows = list(pieces)
        if not rows:
            raise ValueError("no samples: expected one or more")
        encode = tokenizers.encoder(tokenizer)
        flat = [text for sample in rows for text, _ in sample]
        distinct = list(dict.fromkeys(flat))
        codes = {text: ids.astype(np.int64) for text, ids in zip(distinct, encode(distinct), strict=True)}
        ids = [np.concatenate([codes[text] for text, _ in sample]) for sample in rows]
        longest = max(map(len, ids))
        length = longest if length is None else length
        if longest > length:
            raise ValueError(f"a sample of {longest} tokens does not fit into {length}")
        self.input_ids = torch.full((len(rows), length), int(tokenizer.eos_token_id))
        self.labels = torch.full((len(rows), length), NOT_SCORED)
        for place, (sample, row) in enumerate(zip(rows, ids, strict=True)):
            self.input_ids[place, : len(row)] = torch.from_numpy(row)
            scored = np.concatenate([np.full(len(codes[text]), whole or asked) for text, asked in sample])
            if not scored[1:].any():
                raise ValueError(f"nothing is scored of the sample {''.join(text for text, _ in sample)!r}")
            self.labels[place, : len(row)] = torch.from_numpy(np.where(scored, row, NOT_SCORED))

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def fingerprint(self) -> str:
        """What tells these samples from any others."""
        digest = hashlib.sha256(self.input_ids.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def length(self) -> int:
        """Tokens a row."""
        return self.input_ids.shape[1]

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids[place], "labels": self.labels[place]}

    def batches(self, rows: int) -> list[Batch]:
        """All of them in order, `rows` at a time."""
        pairs = zip(torch.split(self.input_ids, rows), torch.split(self.labels, rows), strict=True)
        return [{"input_ids": ids, "labels": labels} for ids, labels in pairs]
