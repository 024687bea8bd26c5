"""The spaces that the tools know by name; a space is loaded when it is asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from shoestring.methods.search.space import Space

_SPACES = {
    "nas-bench-201": ("cells201", "Cells201"),
    "nas-bench-101": ("cells101", "Cells101"),
    "nas-bench-macro": ("macro", "Macro"),
    "sizes": ("sizes", "Sizes"),
    "darts": ("darts", "Darts"),
}


def names() -> list[str]:
    """The spaces of networks for images."""
    return list(_SPACES)


def named(name: str) -> Space[Any]:
    """The space of a name, as its tables were made. Raises ValueError naming the nearest and all."""
    if name not in _SPACES:
        close = difflib.get_close_matches(name, _SPACES, n=1)
        nearest = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no space is called {name!r}{nearest}: expected one of {', '.join(_SPACES)}")
    module, kind = _SPACES[name]
    space: Space[Any] = getattr(importlib.import_module(f"shoestring.methods.search.{module}"), kind)()
    return space
