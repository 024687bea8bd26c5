"""A table of trained architectures, each scored untrained: how well every proxy orders what training gave."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shoestring import runtime
from shoestring.methods.search import tools_spaces
from shoestring.methods.search.images import images, labelled
from shoestring.methods.search.inputs import Inputs, checked
from shoestring.methods.search.parallel import Proxy, scores
from shoestring.methods.search.proxies import PROXIES
from shoestring.methods.search.score import Score
from shoestring.methods.search.space import Space
from shoestring.methods.search.table import Table
from shoestring.methods.search.tools_kept import claim
from shoestring.methods.search.tools_score import NASWOT, fitting

PROBED = 3  # networks that show, before the long way, what each proxy costs and whether it takes such networks
SINGULAR, REFUSED = "-inf", "refused"


class Ranked(NamedTuple):
    """What was scored.

    scores   by proxy, then by architecture: -inf where it is singular, nan where the proxy refused the network
    truth    by column, then by architecture
    seconds  by proxy, of one network
    refused  by proxy that takes no such network, why
    """

    scores: dict[str, dict[str, float]]
    truth: dict[str, dict[str, float]]
    seconds: dict[str, float]
    refused: dict[str, str]


@dataclass(frozen=True)
class Ranking:
    """A table to be ranked; each score is kept in `out`/scores.jsonl the moment it is known.

    columns  those to compare with; all where empty
    rows     so many, drawn by seed; all where None
    count    images a batch
    """

    table: Path
    images: Path
    space: str
    columns: tuple[str, ...]
    rows: int | None
    count: int
    side: int
    seed: int
    workers: int
    out: Path

    def found(self, progress: Callable[[int, int], None]) -> Ranked:
        """Score what is not yet scored. progress: rows done and rows in all, after each."""
        space = tools_spaces.named(self.space)
        table = Table.read(self.table, space)
        for column in self.columns:
            table.value(next(iter(table))[0], column)
        rows = dict(table)
        texts = self._drawn(list(rows))
        batch, labels = self._batch()
        inputs: Inputs = {"images": batch} if labels is None else {"images": batch, "labels": labels}
        checked(inputs)
        columns = self.columns or table.columns
        if all(len({rows[text][column] for text in texts}) == 1 for column in columns):
            raise ValueError(f"{self.table}: all rows are alike in {', '.join(columns)}: there is nothing to order")
        build = partial(_built, space, self.seed, runtime.current().device)
        fitting(build(texts[0]), inputs)
        claim(self.out, self._of(_digest(batch)))
        head, known = self._known()
        if not head:
            head = _probed([partial(build, text) for text in texts[:PROBED]], inputs)
            self._write(head)
        asked = {name: Willing(proxy) for name, proxy in PROXIES.items() if name in head["seconds"]}
        left = [text for text in texts if text not in known]
        progress(len(texts) - len(left), len(texts))
        jobs = ((text, partial(build, text)) for text in left)
        for done, (text, values) in enumerate(scores(jobs, asked, inputs, self.workers), len(texts) - len(left) + 1):
            known[text] = {name: value.value for name, value in values.items()}
            self._write({"architecture": text, "scores": {name: _kept(value) for name, value in known[text].items()}})
            progress(done, len(texts))
        return Ranked(
            {name: {text: known[text][name] for text in texts} for name in asked},
            {column: {text: rows[text][column] for text in texts} for column in columns},
            head["seconds"],
            head["refused"],
        )

    def _drawn(self, texts: list[str]) -> list[str]:
        if len(texts) < PROBED:
            raise ValueError(f"{self.table}: holds {len(texts)} rows: expected {PROBED} or more")
        count = len(texts) if self.rows is None else self.rows
        if not PROBED <= count <= len(texts):
            raise ValueError(f"--rows {count}: expected {PROBED} up to the {len(texts)} rows of {self.table}")
        return Random(self.seed).sample(texts, count)

    def _batch(self) -> tuple[Tensor, Tensor | None]:
        try:
            return labelled(self.images, self.count, self.side, self.seed)
        except ValueError:
            return images(self.images, self.count, self.side, self.seed), None

    def _of(self, batch: str) -> dict[str, Any]:
        return {
            "tool": "rank",
            "table": _digest(self.table.read_bytes()),
            "space": self.space,
            "images": batch,
            "seed": self.seed,
        }

    @property
    def _path(self) -> Path:
        return self.out / "scores.jsonl"

    def _known(self) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
        """What an earlier call scored; a line that a kill tore is scored again."""
        head: dict[str, Any] = {}
        known: dict[str, dict[str, float]] = {}
        content = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        if content and not content.endswith("\n"):
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        for line in content.split("\n"):
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "architecture" in entry:
                known[entry["architecture"]] = {name: _read(value) for name, value in entry["scores"].items()}
            else:
                head = entry
        return head, known if head else {}

    def _write(self, entry: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, allow_nan=False) + "\n")


@dataclass(frozen=True)
class Willing:
    """A proxy that gives nan for a network it refuses: of thousands, one must not stop all."""

    proxy: Proxy

    def __call__(self, model: nn.Module, inputs: Inputs) -> Score:
        try:
            return self.proxy(model, inputs)
        except ValueError:
            return Score(math.nan)


def _built(space: Space[Any], seed: int, device: torch.device, text: str) -> nn.Module:
    return space.build(space.decode(text), seed).to(device)


def _probed(builds: Sequence[Callable[[], nn.Module]], inputs: Inputs) -> dict[str, Any]:
    """What each proxy takes for one network, and why some take none. Raises ValueError where NASWOT takes none."""
    spent: dict[str, list[float]] = {}
    refused: dict[str, str] = {}
    for build in builds:
        model = build()
        for name, proxy in PROXIES.items():
            since = time.perf_counter()
            try:
                proxy(model, inputs)
            except ValueError as error:
                refused[name] = str(error)
            else:
                spent.setdefault(name, []).append(time.perf_counter() - since)
    if NASWOT not in spent:
        raise ValueError(f"{NASWOT} takes none of the first {len(builds)} networks: {refused[NASWOT]}")
    seconds = {name: sorted(values)[len(values) // 2] for name, values in spent.items()}
    return {"seconds": seconds, "refused": {name: why for name, why in refused.items() if name not in spent}}


def _kept(value: float) -> float | str:
    return value if math.isfinite(value) else REFUSED if math.isnan(value) else SINGULAR


def _read(value: float | str) -> float:
    return {SINGULAR: -math.inf, REFUSED: math.nan}[value] if isinstance(value, str) else value


def _digest(held: bytes | Tensor) -> str:
    content = held if isinstance(held, bytes) else held.numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
