"""Packed tokens: a corpus as one memory-mapped row of ids, with a header that says what it is."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shoestring.data import corpora, tokenizers
from shoestring.data.splits import Document, Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT = "shoestring tokens 1"
BATCH_CHARACTERS = 1 << 20
_IDS, _HEADER = "tokens.bin", "tokens.json"
_WIDTHS = {"uint16": "<u2", "uint32": "<u4"}
_NUMBERS = ("count", "text_bytes", "documents")
_TEXTS = ("tokenizer", "source", "sha256")


@dataclass(frozen=True, eq=False)
class Tokens:
    """The ids of a packed corpus, each document followed by the end of text, and what is known of them.

    ids         (count,): read from the disk as they are needed
    text_bytes  UTF-8 bytes of the text, the ends of text not counted
    tokenizer   fingerprint of the tokenizer that made the ids
    source      fingerprint of the corpus, empty where none was given
    sha256      of the ids as they lie on the disk
    """

    folder: Path
    ids: NDArray[np.unsignedinteger[Any]]
    count: int
    text_bytes: int
    documents: int
    tokenizer: str
    source: str
    sha256: str

    def __len__(self) -> int:
        return self.count

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / self.count

    @property
    def fingerprint(self) -> str:
        """What tells these ids from any others."""
        return self.sha256[:16]

    @classmethod
    def load(cls, folder: Path | str, expect: str | None = None) -> Tokens:
        """Open a folder that `pack` wrote.

        expect  the fingerprint of the tokenizer that the ids must be of
        Raises ValueError, naming the folder, where it is absent, foreign, cut short, or of another tokenizer.
        """
        folder = Path(folder)
        header = _header(folder)
        if expect is not None and header["tokenizer"] != expect:
            raise ValueError(
                f"{folder}: packed by tokenizer {header['tokenizer']}, expected {expect}: pack the text again"
            )
        width = np.dtype(_WIDTHS[header["dtype"]])
        path, expected = folder / _IDS, header["count"] * width.itemsize
        size = path.stat().st_size if path.exists() else 0
        if size != expected or not size:
            raise ValueError(f"{path}: {size} bytes, expected {expected}: a torn file; remove {folder} and pack again")
        ids = np.memmap(path, dtype=width, mode="r")
        return cls(folder=folder, ids=ids, **{key: header[key] for key in (*_NUMBERS, *_TEXTS)})


def pack(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast, folder: Path | str, source: str = ""
) -> Tokens:
    """Write documents as packed ids, streamed, and open them.

    folder  made by this call: written beside and renamed when whole; where another process was first, its is kept
    source  fingerprint of the corpus, to be kept in the header
    Raises ValueError where the folder holds something already, there is no text, or the disk refuses.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder}: exists already: remove it, or pack into another folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            if not _write(documents, tokenizer, Path(beside) / "whole", source):
                raise ValueError(f"{folder}: no document to pack: expected text")
            _move(Path(beside) / "whole", folder)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written ({error.strerror or error}): make room, or name another"
        ) from error
    return Tokens.load(folder, expect=tokenizers.fingerprint(tokenizer))


def packed(
    source: str,
    split: Split | None,
    tokenizer: PreTrainedTokenizerFast,
    cache_dir: Path | str | None = None,
    domains: Sequence[str] | None = None,
    text_field: str = "text",
) -> Tokens:
    """One split of a source as packed ids, taken from the cache where the same was packed before.

    split      None packs all that a file or folder holds, whatever split it would fall into
    cache_dir  by default $SHOESTRING_CACHE, else ~/.cache/shoestring
    Several processes may ask at once: each gets the whole, and one copy is kept. `source`, `split`, `domains` and
    `text_field` are those of `corpora.documents`.
    """
    identity = corpora.fingerprint(source)
    tokenizer_identity = tokenizers.fingerprint(tokenizer)
    kinds = None if domains is None else sorted(domains)
    key = json.dumps([FORMAT, corpora.CUT, identity, split, kinds, text_field, tokenizer_identity])
    folder = _cache(cache_dir) / "tokens" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.exists():
        texts = (
            _whole(source, kinds, text_field)
            if split is None
            else corpora.documents(source, split, domains, text_field)
        )
        try:
            return pack(texts, tokenizer, folder, source=identity)
        except ValueError:
            if not folder.exists():
                raise
    return Tokens.load(folder, expect=tokenizer_identity)


def _whole(source: str, domains: Sequence[str] | None, text_field: str) -> Iterator[Document]:
    return (one for one in corpora.whole(source, text_field) if domains is None or one.domain in domains)


def _cache(cache_dir: Path | str | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("SHOESTRING_CACHE") or "~/.cache/shoestring").expanduser()


def _write(documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast, folder: Path, source: str) -> int:
    """Write the ids and then their header; returns how many documents there were."""
    encode = tokenizers.encoder(tokenizer)
    eos = tokenizer.eos_token_id
    dtype = "uint16" if max(tokenizer.get_vocab().values()) < 1 << 16 else "uint32"
    width = np.dtype(_WIDTHS[dtype])
    digest = hashlib.sha256()
    count = text_bytes = written = 0
    folder.mkdir()
    with (folder / _IDS).open("wb") as file:
        for texts in _batched(documents):
            parts = [np.append(ids.astype(width), width.type(eos)) for ids in encode(texts)]
            row = np.concatenate(parts).astype(width, copy=False).tobytes()
            digest.update(row)
            file.write(row)
            count += len(row) // width.itemsize
            text_bytes += sum(len(text.encode()) for text in texts)
            written += len(texts)
        file.flush()
        os.fsync(file.fileno())
    header = {
        "format": FORMAT,
        "dtype": dtype,
        "count": count,
        "text_bytes": text_bytes,
        "documents": written,
        "tokenizer": tokenizers.fingerprint(tokenizer),
        "source": source,
        "sha256": digest.hexdigest(),
    }
    (folder / _HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    return written


def _batched(documents: Iterable[Document]) -> Iterator[list[str]]:
    """Texts in lists of about a million characters, so that the tokenizer has enough for its threads."""
    texts: list[str] = []
    size = 0
    for document in documents:
        texts.append(document.text)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _move(whole: Path, folder: Path) -> None:
    try:
        whole.rename(folder)
    except OSError:
        if not (folder / _HEADER).exists():  # else another process was first: its folder stays
            raise


def _header(folder: Path) -> dict[str, Any]:
    path = folder / _HEADER
    if not path.exists():
        raise ValueError(f"{folder}: no packed tokens there: expected {_HEADER} and {_IDS}")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}): remove {folder} and pack again") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("dtype") not in _WIDTHS:
        raise ValueError(f"{path}: not a header of packed tokens (format {FORMAT!r}): remove {folder} and pack again")
    wrong = [key for key in _NUMBERS if type(header.get(key)) is not int or header[key] < 0]
    wrong += [key for key in _TEXTS if not isinstance(header.get(key), str)]
    if wrong:
        raise ValueError(f"{path}: {wrong[0]} is {header.get(wrong[0])!r}: remove {folder} and pack again")
    return header
