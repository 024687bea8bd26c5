"""A student where a command finds it: in its folder, in that of a run, or as graphs; and how it reads a user's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring import files
from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.rows import FORM

if TYPE_CHECKING:
    from shoestring.methods.rationale.exported import Exported
    from shoestring.methods.rationale.student import Student

_RUN = "checkpoint"  # where a run of the experiment leaves its student
_KEPT = ("columns", "options", "expression", "rationale")


def folder_of(named: Path) -> Path:
    """A student's folder: itself, or the one in a finished run's. Raises ValueError where there is none."""
    from shoestring.methods.rationale.lessons import KEPT

    if not named.is_dir():
        raise ValueError(f"{named}: {'a file' if named.exists() else 'no such folder'}, expected that of a student")
    inside = named / _RUN
    return inside if not (named / KEPT).exists() and (inside / KEPT).exists() else named


def opened(named: Path) -> tuple[Student | Exported, Form | None]:
    """A student to be asked, on the accelerator where there is one, and its form, if it was kept."""
    if named.suffix == ".onnx":
        from shoestring.methods.rationale.exported import Exported

        graphs = Exported.load(named)
        held = graphs.notes.get("form")
        return graphs, None if held is None else _form(held, named)
    import torch

    from shoestring.methods.rationale.student import Student

    folder = folder_of(named)
    student = Student.load(folder)
    if torch.accelerator.is_available():
        student.model.to(torch.accelerator.current_accelerator())
    return student, remembered(folder)


def noted(form: Form) -> dict[str, Any]:
    """What is kept of a form with a student: how a row becomes the text that it reads, and its options."""
    return {name: getattr(form, name) for name in _KEPT}


def remember(form: Form, folder: Path) -> None:
    files.replace(folder / FORM, json.dumps(noted(form), ensure_ascii=False, indent=1) + "\n")


def remembered(folder: Path) -> Form | None:
    """The form that a student's folder holds. Raises ValueError where it is torn."""
    path = folder / FORM
    if not path.exists():
        return None
    return _form(files.read_json(path, "delete it, and say the columns by options"), path)


def _form(held: Mapping[str, Any], place: Path) -> Form:
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
