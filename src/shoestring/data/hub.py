"""Documents from a data set of the `datasets` library, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shoestring.data.formats import row_document
from shoestring.data.splits import Document, Split, choose, named_split


def read(name: str, config: str | None, split: Split, text_field: str, whole_dev: bool = False) -> Iterator[Document]:
    """The documents of one split of a data set; its own splits are used as files named so would be.

    whole_dev  as of `choose`
    Raises ValueError where `datasets` is absent, the name cannot be reached, or a row has no text.
    """
    library = _library(name)
    label = _label(name, config)
    try:
        own_splits = [(own, named_split(own)) for own in library.get_dataset_split_names(name, config)]
    except (OSError, ValueError) as error:
        raise _unreachable(label, error) from error
    rules = choose(split, {named for _, named in own_splits if named is not None}, whole_dev)
    for own, named in own_splits:
        if named not in rules:
            continue
        try:
            for number, row in enumerate(library.load_dataset(name, config, split=own, streaming=True)):
                document = row_document(row, f"{label}[{own}][{number}]", label, text_field)
                if document.text.strip() and rules[named](document.text):
                    yield document
        except OSError as error:
            raise _unreachable(label, error) from error


def identity(name: str, config: str | None) -> str:
    """What tells one revision of a data set from another: name, configuration, and its files with their revisions."""
    library = _library(name)
    label = _label(name, config)
    try:
        builder = library.load_dataset_builder(name, config)
    except (OSError, ValueError) as error:
        raise _unreachable(label, error) from error
    files = builder.config.data_files or {}
    parts = [f"{split}:{sorted(map(str, paths))}:{paths.origin_metadata}" for split, paths in files.items()]
    return "\n".join([name, builder.config.name, str(builder.info.version), *sorted(parts)])


def _library(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"hf:{name} needs the library datasets: pip install 'shoestring[datasets]'") from error
    return datasets


def _label(name: str, config: str | None) -> str:
    return f"hf:{name}:{config}" if config else f"hf:{name}"


def _unreachable(label: str, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{label}: cannot be read ({reason}): check the name, the configuration and the network")
