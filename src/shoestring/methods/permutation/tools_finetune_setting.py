"""What a fine-tuning is, by its command's options, and what they may not say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from shoestring import config
from shoestring.methods.permutation.heads import Kind
from shoestring.methods.permutation.recipe_schema import Count, Name, Rate, Seed

_SHORT, _LONG = 128, 512


class Setting(config.Recipe):
    """A fine-tuning, as the options say it; kept beside what came of it, so that the same command goes on.

    learning_rate  None is by the model's width
    """

    model: Name
    task: Kind
    train: Name
    dev: Name | None
    test: Name | None
    columns: tuple[Name, ...] = Field(min_length=1, max_length=2)
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
        task, classifying = given["task"], given["task"] == "classification"
        if given["columns"] is not None and not classifying:
            raise ValueError(f"--columns {given['columns']}: of {task}, columns have names of their own: leave it out")
        if given["memory"] and task == "spans":
            raise ValueError(f"--memory {given['memory']}: spans reads a long context window by window: leave it out")
        told["columns"] = (given["columns"] or "text").split(",")
        told["length"] = given["length"] or (_SHORT if classifying else _LONG)
        return config.check(told, cls, "finetune")
