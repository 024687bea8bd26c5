"""Keep what runs measured, and write it into the README, the documents and the cards: no figure is typed by hand.

python docs/cards.py keep OUT     keep a finished run's folder as results/ROOM/RECIPE.json
python docs/cards.py write        rewrite every block between <!-- results ... --> or <!-- rooms --> and <!-- end -->
python docs/cards.py check        exit 1, naming the files, if a block differs from what `write` would write
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from blocks import NAME, ORIGIN, PICTURES, RESULTS, block, cards, drawings, seal

from shoestring.evaluate import records
from shoestring.evaluate.canvas import darkened
from shoestring.evaluate.report import read
from shoestring.evaluate.savings import saving

ROOT = Path(__file__).resolve().parent.parent
_START = re.compile(r"^<!-- (results .*|rooms) -->$", re.MULTILINE)
_END = "<!-- end -->"
_OUT = re.compile(r" --out[ =]\S+")  # where a run was kept, which is nothing that it came of


def keep(out: Path, root: Path) -> Path:
    """Keep a run's report under results/. Raises ValueError where it does not say how it came about."""
    report = read(out)
    for fact in ORIGIN:
        if not report.facts.get(fact):
            raise ValueError(
                f"{out}: the report has no fact {fact!r}: only a run that says where it comes from is kept"
            )
    for name in (report.room, report.recipe):
        if not re.fullmatch(NAME, name):
            raise ValueError(
                f"{out}: {name!r} cannot name a file: expected small letters, digits, and . _ - between them"
            )
    facts = {**report.facts, "command": _OUT.sub("", report.facts["command"])}
    report = replace(report, facts=facts)
    record = records.as_record(report)
    found = [saving(report, pair) for pair in report.pairs]
    origin = {fact: report.facts[fact] for fact in ORIGIN}
    result = {"room": report.room, "recipe": report.recipe, **origin, **record}
    result["savings"] = [pair.as_dict() for pair in found if pair is not None]
    path = root / "results" / report.room / f"{report.recipe}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(result), encoding="utf-8")
    return path


def write(root: Path) -> list[Path]:
    """Rewrite all blocks, and draw the pictures whose results have changed. Returns the files that changed."""
    changed = []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        written = rewritten(path, text, root)
        if written != text:
            path.write_text(written, encoding="utf-8")
            changed.append(path)
        for room, recipe, kind in _pictured(written):
            changed += _draw(root, room, recipe, kind)
    return changed


def check(root: Path) -> list[str]:
    """What `write` would change, one line each. A picture is held to the results that it was drawn from."""
    wrong = []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        if rewritten(path, text, root) != text:
            wrong.append(f"{path.relative_to(root)}: a block differs from its results: run `make cards`")
        for room, recipe, kind in _pictured(text):
            mark = seal(root, room, recipe)
            for drawing in drawings(root, room, recipe, kind):
                for picture in (drawing.light, drawing.dark):
                    if not _sealed(picture, mark):
                        wrong.append(f"{picture.relative_to(root)}: not drawn from its results: run `make cards`")
    return wrong


def documents(root: Path) -> list[Path]:
    """The README, the documents (not those that are links to cards), and the rooms' cards."""
    pages = [path for path in sorted((root / "docs").glob("*.md")) if not path.is_symlink()]
    return [path for path in (root / "README.md", *pages, *cards(root)) if path.exists()]


def rewritten(path: Path, text: str, root: Path) -> str:
    """The text of a document with each block as its results have it. Raises ValueError on a block without an end."""
    parts, position = [], 0
    for start in _START.finditer(text):
        end = text.find(f"\n{_END}", start.start())
        following = _START.search(text, start.end())
        if end < 0 or (following and following.start() < end):
            raise ValueError(f"{path}: the block {start[0]!r} has no end: expected a line {_END!r} after it")
        parts += [text[position : start.end()], "\n\n", block(path, start[1], root)]
        position = end
    return "".join([*parts, text[position:]])


def _pictured(text: str) -> Iterator[tuple[str, str, str]]:
    """Room, recipe and kind of each block of pictures."""
    for start in _START.finditer(text):
        asked = RESULTS.fullmatch(start[1])
        if asked and asked[3] in PICTURES:
            yield asked[1], asked[2], asked[3]


def _draw(root: Path, room: str, recipe: str, kind: str) -> list[Path]:
    mark, drawn = seal(root, room, recipe), []
    for drawing in drawings(root, room, recipe, kind):
        stale = [path for path in (drawing.light, drawing.dark) if not _sealed(path, mark)]
        light = drawing.draw() if stale else ""
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(mark + (darkened(light) if path == drawing.dark else light), encoding="utf-8")
        drawn += stale
    return drawn


def _sealed(path: Path, mark: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8").startswith(mark)


def _lines(result: dict[str, Any]) -> str:
    """JSON with a line for each entry of each list, so that a change reads as what changed."""
    fields = []
    for key, value in result.items():
        listed = ",\n".join(f"  {_compact(item)}" for item in value) if isinstance(value, list) else ""
        fields.append(f" {_compact(key)}: " + (f"[\n{listed}\n ]" if listed else _compact(value)))
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def main(arguments: list[str], root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("keep", help="keep a run under results/").add_argument("out", type=Path)
    commands.add_parser("write", help="rewrite the blocks and pictures")
    commands.add_parser("check", help="exit 1 if a block or picture is not what `write` would write")
    asked = parser.parse_args(arguments)
    try:
        if asked.command == "check":
            wrong = check(root)
            print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
            return 1 if wrong else 0
        for path in [keep(asked.out, root)] if asked.command == "keep" else write(root):
            print(path.relative_to(root))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
