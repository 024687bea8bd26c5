"""What a search has measured and scored, kept in its folder line by line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoestring import files
from shoestring.methods.search.score import Score


class Kept:
    """What a folder holds of measured seconds and of scores, by architecture; a line that a kill tore is not there.

    Raises ValueError where the folder was begun with other options, or holds something else.
    """

    def __init__(self, out: Path, options: Mapping[str, Any]) -> None:
        self._path = out / "scores.jsonl"
        self.seconds: dict[str, float] = {}
        self.scores: dict[str, dict[str, Score]] = {}
        claim(out, options)
        for line in self._path.read_text(encoding="utf-8").split("\n") if self._path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if "scores" in entry:
                self.scores[entry["architecture"]] = {name: _read(kept) for name, kept in entry["scores"].items()}
            else:
                self.seconds[entry["architecture"]] = entry["seconds"]

    def add_scores(self, text: str, found: Mapping[str, Score]) -> None:
        self.scores[text] = dict(found)
        self._add({"architecture": text, "scores": {name: _plain(value) for name, value in found.items()}})

    def add_seconds(self, text: str, seconds: float) -> None:
        self.seconds[text] = seconds
        self._add({"architecture": text, "seconds": seconds})

    def _add(self, entry: dict[str, Any]) -> None:
        with self._path.open("a+b") as stream:
            end = stream.seek(0, 2)
            stream.seek(max(0, end - 1))
            torn = stream.read(1) not in (b"", b"\n")
            stream.write(b"\n" * torn + json.dumps(entry).encode() + b"\n")


def claim(out: Path, options: Mapping[str, Any]) -> None:
    """Make a folder this tool's, with these options, or see that it is. Raises ValueError where it is another's."""
    kept = out / "search.json"
    if not kept.exists():
        if out.is_dir() and any(out.iterdir()):
            raise ValueError(f"{out}: holds files that are no search's: give another --out")
        try:
            files.replace(kept, json.dumps(options, indent=1) + "\n")
        except OSError as error:
            raise ValueError(f"--out {out} cannot be written ({error.strerror}): give another") from error
        return
    try:
        before = dict(json.loads(kept.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise ValueError(f"{kept}: torn or changed: remove {out}, or give another --out") from None
    for name, value in options.items():
        if before.get(name) != value:
            raise ValueError(f"{out}: begun with {name} {before.get(name)}, now {value}: give another --out")


def _plain(found: Score) -> dict[str, Any]:
    """Without the infinities and nans that JSON does not have."""
    return {name: value if math.isfinite(value) else str(value) for name, value in found._asdict().items()}


def _read(kept: Mapping[str, Any]) -> Score:
    value, size, shape = (float(kept[name]) for name in ("value", "size_term", "shape_term"))
    return Score(value, size, shape, int(kept["units"]))
