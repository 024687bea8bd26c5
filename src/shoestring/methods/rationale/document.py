"""A YAML file of keys and values, read strictly: what is not as it should be is refused with its file and key."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from shoestring.methods.rationale import labels, rows


def read(path: Path) -> Part:
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: not YAML ({error.problem or error.context})") from None
    except (UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    return Part(held, str(path), "")


class Part:
    """A mapping of the file, and the key that it stands under; values are fetched by name and checked."""

    def __init__(self, held: Any, file: str, key: str) -> None:
        self.file, self.key = file, key
        if not isinstance(held, dict):
            raise self.error("", f"holds {kind(held)}, expected keys and values")
        self.held: dict[Any, Any] = held
        for name in held:
            if not isinstance(name, str):
                raise self.error("", f"has the key {name!r}, expected a name: quote it if it is text")

    def error(self, name: str, what: str) -> ValueError:
        key = ".".join(filter(None, (self.key, name)))
        return ValueError(f"{self.file}: {key} {what}" if key else f"{self.file}: {what}")

    def only(self, known: Collection[str], needed: Iterable[str]) -> None:
        for name in self.held:
            if name not in known:
                hint = rows.nearest(name, known) or f"; expected one of {', '.join(known)}"
                raise self.error("", f"has the unknown key {name!r}{hint}")
        missing = [name for name in needed if name not in self.held]
        if missing:
            raise self.error(", ".join(missing), "is missing" if len(missing) == 1 else "are missing")

    def text(self, name: str, default: str | None = None) -> str:
        held = self.held.get(name, default)
        if not isinstance(held, str):
            raise self.error(name, f"holds {kind(held)}, expected text: quote it")
        if not held.strip() and default is None:
            raise self.error(name, "is blank, expected text")
        self._whole(name, held)
        return held.strip()

    def texts(self, name: str) -> tuple[str, ...]:
        held = self.held.get(name, [])
        if not isinstance(held, list) or not all(isinstance(one, str) and one.strip() for one in held):
            raise self.error(name, f"holds {kind(held)}, expected a list of texts, none blank: quote each")
        self._whole(name, "".join(held))
        return tuple(held)

    def _whole(self, name: str, text: str) -> None:
        if text.encode(errors="replace").decode() != text:
            raise self.error(name, "holds half a surrogate pair, which UTF-8 cannot hold")

    def options(self) -> tuple[str, ...]:
        found = tuple(one.strip() for one in self.texts("options"))
        if labels.distinct(found) != found:
            raise self.error("options", "lists one option twice: keep it once")
        return found

    def number(self, name: str, default: float, least: float, whole: bool) -> float:
        held = self.held.get(name, default)
        wanted = isinstance(held, int) or (isinstance(held, float) and not whole and math.isfinite(held))
        if isinstance(held, bool) or not wanted or held < least:
            raise self.error(name, f"is {kind(held)}, expected a {'whole ' if whole else ''}number from {least} up")
        return float(held)

    def part(self, name: str) -> Part:
        return Part(self.held.get(name, {}), self.file, ".".join(filter(None, (self.key, name))))


def kind(held: Any) -> str:
    """A value as errors name it."""
    names: Mapping[type, str] = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return names.get(type(held)) or rows.shown(held)
