"""Samples from files: each text with the whole record that it came in."""

from __future__ import annotations

import codecs
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from shoestring.data import corpora, formats
from shoestring.data.splits import Document


class Sample(NamedTuple):
    """A text, the record it came in, and the domain that the record or its file's name gives."""

    text: str
    record: dict[str, Any]
    domain: str


def read(data: Path, fields: Sequence[str], count: int, seed: int) -> tuple[list[Sample], int]:
    """At most `count` samples, drawn by seed, in the order of the data, and how many there are. Blank ones are none."""
    if not data.exists():
        raise ValueError(f"{data}: no such file or folder: expected .jsonl, .parquet or .txt, or a folder of them")
    drawn: list[tuple[int, Document]] = []
    random, total = Random(seed), 0
    for total, document in enumerate(_documents(data, fields[0]), start=1):
        if len(drawn) < count:
            drawn.append((total, document))
        elif (place := random.randrange(total)) < count:
            drawn[place] = (total, document)
    documents = [document for _, document in sorted(drawn, key=itemgetter(0))]
    records = _records(data, {document.name for document in documents})
    found = []
    for document in documents:
        record = records.get(document.name)
        texts = [document.text] if record is None else [record.get(name) for name in fields]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{document.name}: expected text in each of the fields {', '.join(fields)}")
        plain = {"text": document.text, **({"domain": document.domain} if data.is_dir() else {})}
        found.append(Sample("\n".join(map(str, texts)), plain if record is None else record, document.domain))
    return found, total


def _documents(data: Path, field: str) -> Iterator[Document]:
    """The documents; plain text is cut at blank lines."""
    for document in corpora.whole(str(data), field):
        if _row(document.name):
            yield document
        else:
            parts = re.split(r"\n[^\S\n]*\n", document.text)
            yield from (replace(document, text=part) for part in parts if part.strip())


def _row(name: str) -> tuple[str, int] | None:
    """The file and the number of the row that a document is named after; None where it is a piece of plain text."""
    file, _, number = name.rpartition(":")
    return (file, int(number)) if number.isdecimal() and formats.suffix(Path(file)) in (".jsonl", ".parquet") else None


def _records(data: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The whole records of the rows that are named: `corpora` reads no more of them than text and domain."""
    wanted: dict[str, set[int]] = {}
    for file, number in filter(None, map(_row, names)):
        wanted.setdefault(file, set()).add(number)
    found: dict[str, dict[str, Any]] = {}
    for file, numbers in wanted.items():
        path = data / file if data.is_dir() else data
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            if formats.suffix(path) == ".jsonl":
                lines = ((number, line) for number, line in enumerate(stream, start=1) if number in numbers)
                rows = {number: json.loads(line.removeprefix(codecs.BOM_UTF8)) for number, line in lines}
            else:
                from pyarrow import BufferReader, parquet

                table = parquet.read_table(BufferReader(stream.read()))
                rows = {number: table.slice(number - 1, 1).to_pylist()[0] for number in numbers}
        found |= {f"{file}:{number}": row for number, row in rows.items()}
    return found
