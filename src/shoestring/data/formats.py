"""Documents from files: plain text, JSON lines and Parquet, each also under gzip."""

from __future__ import annotations

import codecs
import gzip
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from shoestring.data.splits import Document, Keep

SUFFIXES = (".txt", ".jsonl", ".parquet")
BLOCK_CHARACTERS = 4096  # small enough that a megabyte of plain text still fills a twentieth
DOCUMENT_CHARACTERS = 65536


def suffix(path: Path) -> str | None:
    """The format of a file by its name, `.gz` left away; None where it is not one of `SUFFIXES`."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.suffix if plain.suffix in SUFFIXES else None


def read(path: Path, name: str, domain: str, keep: Keep, text_field: str) -> Iterator[Document]:
    """The documents of one file that a split keeps, streamed.

    name        how errors and documents call the file
    domain      the domain of rows that name none
    text_field  the field or column that holds the text, in JSONL and Parquet
    Plain text is cut at blank lines into blocks of about 4 KB; neighbours that the split keeps are joined again, up to
    about 64 KB a document. Raises ValueError, naming file and line or byte, where the file is torn or not what it says.
    """
    kind = suffix(path)
    try:
        if kind == ".txt":
            yield from _plain(path, name, domain, keep)
        else:
            rows = json_rows(path, name) if kind == ".jsonl" else _parquet_rows(path, name, text_field)
            for place, row in rows:
                document = row_document(row, place, domain, text_field)
                if document.text.strip() and keep(document.text):
                    yield document
    except OSError as error:
        raise ValueError(f"{name}: cannot be read ({error.strerror or error})") from error


def row_document(row: dict[str, Any], place: str, domain: str, text_field: str) -> Document:
    """A row of a table as a document, in the domain that it names, if any; ValueError where it holds no text."""
    if text_field not in row:
        raise ValueError(
            f"{place}: no field {text_field!r}; it has {_listed(row)}: name the right one as text_field (--text-field)"
        )
    text = row[text_field]
    if not isinstance(text, str):
        raise ValueError(f"{place}: field {text_field!r} holds {type(text).__name__}, expected text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: field {text_field!r} holds half a surrogate pair, which UTF-8 cannot hold"
        ) from error
    named = row.get("domain")
    return Document(text, domain if named is None else str(named), place)


def _plain(path: Path, name: str, domain: str, keep: Keep) -> Iterator[Document]:
    kept: list[str] = []
    first = 0
    for number, block in enumerate(_blocks(path, name)):
        wanted = keep(block)
        if wanted:
            first = first if kept else number
            kept.append(block)
        if kept and (not wanted or sum(map(len, kept)) >= DOCUMENT_CHARACTERS):
            yield Document("".join(kept), domain, f"{name}#{first}")
            kept = []
    if kept:
        yield Document("".join(kept), domain, f"{name}#{first}")


def _blocks(path: Path, name: str) -> Iterator[str]:
    """The text in blocks that end at a blank line, or, where none comes for 64 KB, at any; blank ones left out."""
    lines: list[str] = []
    size = 0
    for line in _lines(path, name, limit=DOCUMENT_CHARACTERS):
        lines.append(line)
        size += len(line)
        if size >= DOCUMENT_CHARACTERS or (size >= BLOCK_CHARACTERS and line.isspace()):
            yield from _unless_blank("".join(lines))
            lines, size = [], 0
    yield from _unless_blank("".join(lines))


def _unless_blank(text: str) -> Iterator[str]:
    if text.strip():
        yield text


def json_rows(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file of JSON lines, each behind its place, streamed; blank lines are passed over."""
    for number, line in enumerate(_lines(path, name, limit=-1), start=1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        yield place, json_object(line, place)


def json_object(line: str, place: str) -> dict[str, Any]:
    """The object of a line of JSON. Raises ValueError, naming the place, where it holds something else."""
    try:
        row = json.loads(line.rstrip())  # else what ends too early is missed in the first column of a next line
    except json.JSONDecodeError as error:
        what = f"{error.msg}, column {error.colno}"  # its line is of this line alone
        raise ValueError(f"{place}: not JSON ({what}): expected one object a line") from error
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits
        raise ValueError(f"{place}: not JSON ({error}): expected one object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place}: a JSON {type(row).__name__}, expected an object with a text field")
    return row


def _lines(path: Path, name: str, limit: int) -> Iterator[str]:
    """The lines of a UTF-8 file, in parts of at most `limit` bytes, ends kept, a byte-order mark dropped."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    consumed = 0
    with _opened(path) as file:
        while True:
            with _whole(name):
                line = file.readline(limit)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(line, final=not line)
            except UnicodeDecodeError as error:
                place = consumed - pending + error.start
                raise ValueError(f"{name}: not UTF-8 at byte {place} ({error.reason}): convert the file") from error
            if not line:
                return
            yield text.removeprefix("\ufeff") if consumed == 0 else text
            consumed += len(line)


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """Raises ValueError, naming the file, where what is read of it under gzip is damaged or ends too early."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{name}: the gzip file is damaged or cut short ({error}): fetch or write it again") from error


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _parquet_rows(path: Path, name: str, text_field: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise ValueError(f"{name}: Parquet needs pyarrow: pip install 'shoestring[datasets]'") from error
    with tempfile.TemporaryFile() as unpacked, _opened(path) as file:
        if path.suffix == ".gz":  # Parquet is read from its end, where a gzip stream cannot start
            with _whole(name):
                shutil.copyfileobj(file, unpacked)
        number = 0
        try:
            table = parquet.ParquetFile(unpacked if path.suffix == ".gz" else file)
            names = table.schema_arrow.names
            columns = [column for column in (text_field, "domain") if column in names]
            for batch in table.iter_batches(batch_size=256, columns=columns if text_field in columns else names):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}:{number}", row
        except ArrowInvalid as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{name}: not a Parquet file, or a damaged one, after row {number} ({reason})") from error


def _listed(row: dict[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "no fields"
