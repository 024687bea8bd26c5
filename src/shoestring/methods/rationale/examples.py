"""What a student learns from: a text, its label, and the reason that a teacher gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One example.

    text           what the student reads, without a prefix
    label          the gold label; None where nobody gave one
    options        the labels it may have; none where any text may be the answer
    expression     whether labels are arithmetic, and the same where their values are
    rationale      the teacher's reason; None where it gave none that could be read
    teacher_label  the label that the teacher gave
    agreement      the part of the teacher's samples that voted for `teacher_label`; None where it was asked once
    told           whether the teacher was told the gold label when it was asked for a reason
    record         the row that it was read from
    """

    text: str
    label: str | None = None
    options: tuple[str, ...] = ()
    rationale: str | None = None
    teacher_label: str | None = None
    agreement: float | None = None
    told: bool = False
    expression: bool = False
    record: dict[str, Any] = field(default_factory=dict, compare=False)
