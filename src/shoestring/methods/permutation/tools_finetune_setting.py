"""What a fine-tuning is, by its command's options, and what they may not say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from shoestring import config, files
from shoestring.methods.permutation.heads import Kind
from shoestring.methods.permutation.recipe_schema import Count, Name, Rate, Seed

_SHORT, _LONG = 128, 512
_PATHS = ("model", "train", "dev", "test")
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "classification": ("text",),
    "spans": ("context", "question", "answers"),
    "choices": ("context", "question", "options"),
}


class Setting(config.Recipe):
    """A fine-tuning, as the options say it; kept beside what came of it, so that the same command goes on.

    columns        of one or two texts; of spans and choices those that COLUMNS names, in that order
    learning_rate  None is by the model's width
    """

    model: Name
    task: Kind
    train: Name
    dev: Name | None
    test: Name | None
    columns: tuple[Name, ...]
    label: Name
    epochs: Count
    learning_rate: Rate | None
    layer_decay: Annotated[float, Field(gt=0, le=1)]
    batch: Count
    length: Annotated[int, Field(ge=8)]
    seed: Seed
    memory: Annotated[int, Field(ge=0)]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Setting:
        """By the command's options. Raises ValueError where one is none, or they do not fit together."""
        told = {name: value for name, value in given.items() if name in cls.model_fields}
        task = given["task"]
        if given["memory"] and task == "spans":
            raise ValueError(f"--memory {given['memory']}: spans reads a long context window by window: leave it out")
        for name in ("train", "dev", "test"):
            if given[name] is not None and not given[name].endswith((".jsonl", ".jsonl.gz")):
                raise ValueError(
                    f"--{name} {given[name]}: expected JSON lines, .jsonl or .jsonl.gz: an object a line, of one text, "
                    "pair or question"
                )
        told["columns"] = _columns(task, given["columns"])
        told["length"] = given["length"] or (_SHORT if task == "classification" else _LONG)
        told |= {name: files.spelled(given[name]) for name in _PATHS if given[name] is not None}
        return config.check(told, cls, "finetune")


def _columns(task: Kind, given: str | None) -> list[str]:
    """Raises ValueError where there are more or fewer than the task has."""
    if given is None:
        return [*COLUMNS[task]]
    columns = [name.strip() for name in given.split(",")]
    classifying = task == "classification"
    if len(columns) not in ((1, 2) if classifying else (3,)):
        expected = (
            "one or two texts, such as premise,hypothesis" if classifying else f"three, for {','.join(COLUMNS[task])}"
        )
        raise ValueError(f"--columns {given}: expected {expected}")
    return columns
