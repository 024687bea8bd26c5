"""How a student's rows become the texts that it reads, kept beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoestring import files
from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.rows import FORM

_KEPT = ("columns", "options", "expression", "rationale")


def noted(form: Form) -> dict[str, Any]:
    """What is kept of a form with a student: how a row becomes the text that it reads, and its options."""
    return {name: getattr(form, name) for name in _KEPT}


def remember(form: Form, folder: Path) -> None:
    """Keep a form in a student's folder, whole or not at all."""
    files.replace(folder / FORM, json.dumps(noted(form), ensure_ascii=False, indent=1) + "\n")


def remembered(folder: Path) -> Form | None:
    """The form that a student's folder holds. Raises ValueError where it is torn."""
    path = folder / FORM
    if not path.exists():
        return None
    return form_of(files.read_json(path, "delete it, and say the columns by options"), path)


def form_of(held: Mapping[str, Any], place: Path) -> Form:
    """A form by what was noted of it. Raises ValueError, naming the place, where that is none."""
    try:
        told = {name: held[name] for name in _KEPT}
        options = told["options"]
        return Form(**{**told, "columns": tuple(told["columns"]), "options": _options(options)}, label=None)
    except KeyError as error:
        raise ValueError(f"{place}: not how a student reads rows (no {error}): say the columns by options") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: not how a student reads rows ({error}): say the columns by options") from None


def _options(held: Any) -> Any:
    return held if isinstance(held, str) else tuple(held)
