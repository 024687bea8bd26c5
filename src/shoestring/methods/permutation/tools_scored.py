"""The spans that a command wants scored: read, told one after the other, as a table or as JSON lines."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shoestring import files, runtime
from shoestring.data import formats
from shoestring.evaluate.tables import terminal_width
from shoestring.methods.permutation import tools_opened
from shoestring.methods.permutation.convert import from_transformers
from shoestring.methods.permutation.scoring import Direction, SpanScore, span_log_prob
from shoestring.methods.permutation.tools_out import writing

SCORES = "scores"  # what is added to a row
_SPAN = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Asked:
    """A text with spans. place: where it stands; row, what it came with."""

    place: str
    text: str
    spans: tuple[tuple[int, int], ...]
    row: dict[str, Any]


@dataclass(frozen=True)
class Scored:
    asked: Asked
    order: Direction
    scores: tuple[SpanScore, ...]


def asked(text: str | None, spans: Sequence[str], file: Path | None) -> list[Asked]:
    """What the options ask for. Raises ValueError where they do not fit together, or a row is not what is expected."""
    if (text is None) == (file is None) or (file is not None and spans):
        raise ValueError("expected either --text with --span FROM:TO, or --file")
    if text is not None:
        if not spans:
            raise ValueError(f"--text without --span: expected one, such as --span 0:{len(text)}")
        found = [_SPAN.fullmatch(span) for span in spans]
        for span, match in zip(spans, found, strict=True):
            if match is None:
                raise ValueError(f"--span {span!r}: expected FROM:TO in characters, such as 4:9")
        places = tuple((int(match[1]), int(match[2])) for match in found if match)
        row = {"text": text, "spans": [list(place) for place in places]}
        return [_checked("--text", row)]
    assert file is not None
    read = [_checked(place, row) for place, row in formats.json_rows(files.find(str(file)), str(file))]
    if not read:
        raise ValueError(f"{file}: no rows: expected JSON lines of {{text, spans}}")
    return read


def scored(named: str, every: Iterable[Asked], order: Direction) -> Iterator[Scored]:
    """The scores of each text, one after the other. Raises ValueError, naming the place, where one has none."""
    folder = tools_opened.folder_of(named)
    model = tools_opened.model_of(folder, torch.float32, language=True)
    tokenizer = tools_opened.tokenizer_of(folder, model)
    if model.config.attn_type == "uni":
        raise ValueError(
            f"{folder}: autoregressive: it sees nothing after a span: expected permutation, mpnet or masked"
        )
    model = from_transformers(model).to(runtime.current().device)
    for one in every:
        try:
            found = span_log_prob(model, tokenizer, one.text, one.spans, order)
        except ValueError as error:
            raise ValueError(f"{one.place}: {error}") from error
        if not all(math.isfinite(span.total) for span in found):
            raise ValueError(f"{one.place}: no finite log-probability: the weights of {folder} are at fault")
        yield Scored(one, order, tuple(found))


def tell(found: Iterator[Scored], out: Path | None, table: bool) -> None:
    """Show a table, where one is wanted, and write JSON lines, where a file is named or no table is wanted."""
    if out is not None and (out.suffix != ".jsonl" or out.is_dir()):
        raise ValueError(f"--out {out}: expected the name of a file ending in .jsonl")
    if out is not None and out.exists():
        raise ValueError(f"--out {out}: it is there already: give another name, or remove it")
    console = Console(width=terminal_width(), highlight=False)
    with writing(out) if out is not None else nullcontext(sys.stdout) as stream:
        for one in found:
            if table:
                console.print(_table(one))
            if out is not None or not table:
                stream.write(json.dumps(_record(one), ensure_ascii=False) + "\n")


def _checked(place: str, row: dict[str, Any]) -> Asked:
    text, spans = row.get("text"), row.get("spans")
    if not isinstance(text, str) or not isinstance(spans, list) or not spans or not all(map(_is_span, spans)):
        raise ValueError(f"{place}: expected {{text, spans: [[from, to], ...]}}, got {json.dumps(row)[:60]}")
    if SCORES in row:
        raise ValueError(f"{place}: its {SCORES!r} would be written over: rename it, or leave it out")
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise ValueError(f"{place}: span {start}:{end} of {len(text)} characters: expected one inside the text")
    return Asked(place, text, tuple((start, end) for start, end in spans), row)


def _is_span(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)


def _record(found: Scored) -> dict[str, Any]:
    """The row with the scores of its spans, in nats, and the order in which their tokens were told."""
    told = [{**span._asdict(), "total": span.total} for span in found.scores]
    return {**found.asked.row, "order": found.order, SCORES: told}


def _table(found: Scored) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    drawn.add_column(f"token, {found.order.replace('-', ' ')}")
    drawn.add_column("log-probability, nats", justify="right")
    for (start, end), span in zip(found.asked.spans, found.scores, strict=True):
        for token, likely in zip(span.tokens, span.log_probabilities, strict=True):
            drawn.add_row(Text(repr(token)), f"{likely:.4f}")
        drawn.add_row(Text(f"{start}:{end} {span.text!r}", style="bold"), f"{span.total:.4f}", end_section=True)
    return drawn
