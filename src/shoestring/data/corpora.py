"""Where text comes from: the built-in corpus, a user's files, or a `datasets` name, each as one stream of documents."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from shoestring import files
from shoestring.data import formats, hub, python_library, source_files
from shoestring.data.source_files import File
from shoestring.data.splits import SPLITS, Document, Keep, Split, choose

__all__ = ["Document", "Split", "documents", "fingerprint", "gathered", "located", "sides", "whole"]

BUILT_IN = "python"
HUB_PREFIX = "hf:"
CUT = 1  # raise it whenever the same source would be cut or split in another way: packed copies are then made anew


def documents(
    source: str, split: Split, domains: Sequence[str] | None = None, text_field: str = "text"
) -> Iterator[Document]:
    """The documents of one split of a source, streamed in an order that is the same on every machine.

    source      "python", the built-in corpus (Python's own standard library); a file (.txt, .jsonl, .parquet, each also
                .gz); a folder of such files; a path with `{split}` in it; "hf:NAME" or "hf:NAME:CONFIG", a data set of
                the `datasets` library
    domains     only these, as `Document.domain` names them; None is all of them
    text_field  the field or column that holds the text; a field `domain` beside it is read too

    Where names of files (or of the data set's splits) say train, dev (valid, validation) or test, that is what they
    are; a missing test set is then half of the dev set, by hash, and a missing dev set a twentieth of train. All else,
    and a file given by itself, is cut by a hash of each text into 90 % train, 5 % dev and 5 % test: identical texts
    stay on one side. Raises ValueError, in one line, where there is nothing to read or it is not what it says.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: expected one of {', '.join(SPLITS)}")
    if domains is not None and not domains:
        raise ValueError("no domain is named: expected some, or None for all")
    seen: set[str] = set()
    for document in _every(source, split, text_field):
        seen.add(document.domain)
        if domains is None or document.domain in domains:
            yield document
    if not seen:
        raise _nothing(source, split)
    if missing := set(domains or seen) - seen:
        wanted, there = ", ".join(sorted(missing)), ", ".join(sorted(seen))
        raise ValueError(f"{source}: no {split} text in the domain {wanted}; it has {there}")


def gathered(
    sources: Sequence[str], split: Split, text_field: str = "text", whole_dev: bool = False
) -> Iterator[Document]:
    """The documents of one split of several sources, one source after the other; of one, `documents`.

    Files and folders among several are read as a folder of them all would be: names that say train, dev or test hold
    for all, and none needs a dev part of its own.

    whole_dev  nothing of what is named dev becomes test, though nothing is named so: for who measures no test
    Raises ValueError as `documents`, and where a file is named twice.
    """
    files = source_files.of_several(_paths(sources), len(sources) > 1)
    known: set[Path] = set()
    for several in files.values():
        own = {path.resolve(): path for path, _, _ in several}
        for twice in own.keys() & known:
            raise ValueError(f"{own[twice]} is named twice, by itself or in a folder: expected each file once")
        known |= own.keys()
    rules = _rules(split, chain.from_iterable(files.values()), whole_dev)
    there = False
    for source in sources:
        if source in files:
            found = _cut(files[source], rules, text_field)
        else:
            found = _every(source, split, text_field, whole_dev)
        for document in found:
            there = True
            yield document
    if not there:
        raise _nothing(", ".join(sources[:3]) + (f" and {len(sources) - 3} more" if len(sources) > 3 else ""), split)


def whole(source: str, text_field: str = "text") -> Iterator[Document]:
    """All documents of a file or a folder of files, whatever split they would fall into: for text that is held out."""
    for path, name, _ in source_files.of(source):
        yield from formats.read(path, name, source_files.domain(name), lambda _: True, text_field)


def located(name: str) -> str:
    """A source of `documents`, by path or by name in the folder SHOESTRING_DATA. Raises ValueError where it is none."""
    if not _is_path(name):
        return name
    if source_files.PLACEHOLDER in name:  # no file has that name: its folder is looked for
        folder = next(above for above in Path(name).parents if source_files.PLACEHOLDER not in str(above))
        return str(files.find(str(folder)) / Path(name).relative_to(folder))
    return str(files.find(name))


def fingerprint(source: str) -> str:
    """A short SHA-256 over all that a source holds: names and contents; of a `datasets` name, its revision and files.

    A moved folder keeps its fingerprint. Read once a process: a file is read again where its size or time has changed.
    """
    if source == BUILT_IN:
        return _built_in_fingerprint()
    digest = hashlib.sha256()
    if source.startswith(HUB_PREFIX):
        digest.update(hub.identity(*_hub_name(source)).encode())
    else:
        for path, name, named in source_files.of(source):
            try:
                status = path.stat()
                contents = _contents(path, status.st_size, status.st_mtime_ns)
            except OSError as error:
                raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
            digest.update(f"{name}\0{named}\0{status.st_size}\0{contents}\n".encode())
    return digest.hexdigest()[:16]


def _every(source: str, split: Split, text_field: str, whole_dev: bool = False) -> Iterator[Document]:
    if source == BUILT_IN:
        yield from (document for side, document in python_library.read() if side == split)
    elif source.startswith(HUB_PREFIX):
        yield from hub.read(*_hub_name(source), split, text_field, whole_dev)
    else:
        files = source_files.of(source)
        yield from _cut(files, _rules(split, files), text_field)


def _rules(split: Split, files: Iterable[File], whole_dev: bool = False) -> dict[Split | None, Keep]:
    return choose(split, {named for _, _, named in files if named is not None}, whole_dev)


def _cut(files: Iterable[File], rules: dict[Split | None, Keep], text_field: str) -> Iterator[Document]:
    for path, name, named in files:
        if named in rules:
            yield from formats.read(path, name, source_files.domain(name), rules[named], text_field)


def _nothing(source: str, split: Split) -> ValueError:
    return ValueError(
        f"{source}: no {split} text: what no name calls train, dev or test is cut by a hash of each row of a table and "
        "each block of plain text, 4 KB and on to a blank line (64 KB at most); a twentieth is dev, another test: give "
        f"more text, or a file named after {split}"
    )


def _paths(sources: Sequence[str]) -> list[str]:
    return [source for source in sources if _is_path(source)]


def _is_path(source: str) -> bool:
    return source != BUILT_IN and not source.startswith(HUB_PREFIX)


def _hub_name(source: str) -> tuple[str, str | None]:
    name, _, config = source.removeprefix(HUB_PREFIX).partition(":")
    if not name:
        raise ValueError(f"{source!r} names no data set: expected hf:NAME or hf:NAME:CONFIG")
    return name, config or None


def sides(sources: Sequence[str]) -> dict[Split | None, int]:
    """How many files of `gathered` are each split by their names; None stands for those that are cut."""
    files = chain.from_iterable(source_files.of_several(_paths(sources), len(sources) > 1).values())
    return dict(Counter(named for _, _, named in files))


@cache
def _built_in_fingerprint() -> str:
    digest = hashlib.sha256()
    for split, document in python_library.read():
        digest.update(f"{split}\0{document.name}\0{document.text}\0".encode())
    return digest.hexdigest()[:16]


@cache
def _contents(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
