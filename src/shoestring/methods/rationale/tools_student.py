"""A student where a command finds it: in its folder, in that of a run, or as graphs; and how it reads a user's rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.remembered import form_of, remembered

if TYPE_CHECKING:
    from shoestring.methods.rationale.exported import Exported
    from shoestring.methods.rationale.student import Student

_RUN = "checkpoint"  # where a run of the experiment leaves its student


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
        return graphs, None if held is None else form_of(held, named)
    import torch

    from shoestring.methods.rationale.student import Student

    folder = folder_of(named)
    student = Student.load(folder)
    if torch.accelerator.is_available():
        student.model.to(torch.accelerator.current_accelerator())
    return student, remembered(folder)
