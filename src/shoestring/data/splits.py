"""Which text trains and which is held out: by the files' own names, else by a hash of the text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Split: TypeAlias = Literal["train", "dev", "test"]
Keep: TypeAlias = Callable[[str], bool]
SPLITS: tuple[Split, ...] = get_args(Split)
TRAIN_SHARE, DEV_SHARE = 0.90, 0.05

WORDS: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
_SPLIT_OF_WORD = {word: split for split, words in WORDS.items() for word in words}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(_SPLIT_OF_WORD)})(?![a-z])", re.IGNORECASE)

_SHARD = re.compile(r"\d+-of-\d+")


@dataclass(frozen=True)
class Document:
    """A text, the domain it belongs to, and a name by which it can be found again."""

    text: str
    domain: str
    name: str


def named_split(path: str) -> Split | None:
    """The split that a path names, as `wiki_train.txt` and `valid/0.jsonl` do, the last word winning; else None."""
    words = _WORD.findall(path)
    return _SPLIT_OF_WORD[words[-1].lower()] if words else None


def without_split(stem: str) -> str:
    """A file's stem less its split and its number among shards: `wiki_train` and `wiki-00001-of-00002` give `wiki`."""
    rest = _WORD.sub("", _SHARD.sub("", stem)).strip("_-. ")
    return "" if rest.isdigit() else rest


def hashed_split(key: str) -> Split:
    """The split of a key by its hash: 90 % train, 5 % dev, 5 % test, the same on every machine."""
    fraction = _fraction(key, start=0)
    if fraction < TRAIN_SHARE:
        return "train"
    return "dev" if fraction < TRAIN_SHARE + DEV_SHARE else "test"


def choose(wanted: Split, named: Set[Split], whole_dev: bool = False) -> dict[Split | None, Keep]:
    """From which files a split is drawn, and which of their texts it keeps.

    named      the splits that file names give
    whole_dev  files of dev are no test, though there is none
    Returns a rule for each kind of file to be read: by the split that the file is named after, None for files that
    name none, which are cut by hash. Of the named ones, a missing test set is half of dev, a missing dev set is a
    twentieth of train, and train alone is cut as files without a name are. Identical texts stay on one side.
    """
    rules: dict[Split | None, Keep] = {None: lambda text: hashed_split(text) == wanted}
    if wanted in named:
        rules[wanted] = _everything
    if "dev" in named:
        if "test" not in named and wanted != "train" and not whole_dev:
            rules["dev"] = lambda text: _half(text) == wanted
    elif "train" in named:
        if "test" not in named:
            rules["train"] = rules[None]
        elif wanted != "test":
            rules["train"] = lambda text: _twentieth(text) == wanted
    return rules


def _everything(_: str) -> bool:
    return True


def _half(text: str) -> Split:
    return "dev" if _fraction(text, start=8) < 0.5 else "test"


def _twentieth(text: str) -> Split:
    return "dev" if _fraction(text, start=8) < DEV_SHARE else "train"


def _fraction(key: str, start: int) -> float:
    """A number in [0, 1) from eight bytes of the key's hash; other bytes make an independent cut."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[start : start + 8], "big") / 2**64
