"""Distilling Step-by-Step: a teacher's reasons as a second task for a small student."""

from shoestring.methods.rationale.ask import ask_about
from shoestring.methods.rationale.encode import Coder, batch
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import Taught, Wording, lessons
from shoestring.methods.rationale.loss import scaled, two_task_loss
from shoestring.methods.rationale.stream import Lessons
from shoestring.methods.rationale.student import Student

__all__ = ["Coder", "Example", "Lessons", "Student", "Taught", "Wording", "ask_about", "batch", "lessons", "scaled"]
__all__ += ["two_task_loss"]
