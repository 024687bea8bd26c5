"""The rooms, found by folder: what each is called and holds, read without loading any."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

_METHODS = Path(__file__).parent / "methods"


@dataclass(frozen=True)
class Room:
    """A room as its card's front matter tells it."""

    name: str
    paper: str
    sentence: str
    state: str
    folder: Path

    @property
    def recipes(self) -> tuple[str, ...]:
        """The names of the recipes that come with the room."""
        return tuple(sorted(path.stem for path in (self.folder / "recipes").glob("*.yaml")))

    def recipe(self, name: str) -> Path:
        """The file of a recipe by its name, or a user's own YAML file. Raises ValueError naming what there is."""
        if name in self.recipes:
            return self.folder / "recipes" / f"{name}.yaml"
        if name.endswith((".yaml", ".yml")):
            if not Path(name).is_file():
                raise ValueError(f"{name}: no such file")
            return Path(name)
        raise ValueError(
            f"the room {self.name} has no recipe {name!r}{_nearest(name, self.recipes)}: "
            f"expected {', '.join(self.recipes)}, or a .yaml file"
        )


@cache
def every() -> tuple[Room, ...]:
    """All rooms, by name."""
    return tuple(_read(card) for card in sorted(_METHODS.glob("*/README.md")))


def find(name: str) -> Room:
    """The room of a name. Raises ValueError naming the nearest and all."""
    for room in every():
        if room.name == name:
            return room
    names = [room.name for room in every()]
    raise ValueError(f"no room or command is called {name!r}{_nearest(name, names)}: the rooms are {', '.join(names)}")


def _read(card: Path) -> Room:
    front = card.read_text(encoding="utf-8").split("---\n")[1]
    told = yaml.safe_load(front)
    return Room(
        name=card.parent.name,
        paper=str(told["paper"]),
        sentence=str(told["sentence"]),
        state=str(told["state"]),
        folder=card.parent,
    )


def _nearest(name: str, names: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
