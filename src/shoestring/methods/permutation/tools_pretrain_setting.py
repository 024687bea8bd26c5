"""What a pretraining is, by its command's options, and what they may not say together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from shoestring import config, files
from shoestring.data import corpora
from shoestring.methods.permutation import configurations
from shoestring.methods.permutation.objectives import Kind
from shoestring.methods.permutation.recipe_schema import Count, Name, Rate, Seed
from shoestring.methods.permutation.spans import Spans
from shoestring.methods.permutation.stream import Segments, check_lengths
from shoestring.methods.permutation.tools_pretrain import NEW_TOKENIZER

_NEW_RATE, _GOING_ON_RATE = 1e-3, 1e-4
_PARTIAL = ("reuse", "predicted", "spans", "segments")  # what an autoregressive model has not


class Setting(config.Recipe):
    """A pretraining, as the options say it; kept beside what came of it, so that the same command goes on.

    tokenizer  None where the model is a folder's, which has its own
    """

    text: tuple[Name, ...] = Field(min_length=1)
    model: Name
    tokenizer: Name | None
    objective: Kind
    length: Count
    reuse: Count
    memory: Annotated[int, Field(ge=0)]
    predicted: Count
    batch: Count
    steps: Count
    learning_rate: Rate
    warmup: Annotated[int, Field(ge=0)]
    seed: Seed
    spans: Spans
    segments: Segments
    one_direction: bool
    precision: Literal["auto", "fp32", "bf16"]
    checkpointing: bool
    accumulate: Count
    text_field: Name

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Setting:
        """By the command's options. Raises ValueError where one is none, or they do not fit together."""
        told = {name: value for name, value in given.items() if name in cls.model_fields}
        told["text"] = [files.spelled(name, (corpora.BUILT_IN,)) for name in given["text"]]
        told["model"] = files.spelled(given["model"], configurations.names())
        new, causal, length = is_new(given["model"]), given["objective"] == "autoregressive", given["length"]
        if not new and given["tokenizer"] is not None:
            raise ValueError(f"--tokenizer {given['tokenizer']}: {given['model']} has its own: leave it out")
        for name in _PARTIAL if causal else ():
            if given[name] is not None:
                raise ValueError(f"--{name} {given[name]}: an autoregressive model predicts every token: leave it out")
        unsaid = {
            "tokenizer": NEW_TOKENIZER if new else None,
            "reuse": length if causal else length // 2,
            "memory": 3 * length // 4,
            "predicted": _predicted(given["objective"], length),
            "learning_rate": _NEW_RATE if new else _GOING_ON_RATE,
            "warmup": given["steps"] // 20,
            "spans": "single" if causal else "words",
            "segments": "one" if causal else "two",
        }
        told |= {name: value for name, value in unsaid.items() if given[name] is None}
        setting = config.check(told | {"one_direction": causal or given["one_direction"]}, cls, "pretrain")
        setting._check_together()
        return setting

    @property
    def directions(self) -> int:
        return 1 if self.one_direction else 2

    @property
    def new(self) -> bool:
        return is_new(self.model)

    def _check_together(self) -> None:
        parts = self.accumulate * self.directions
        if self.batch % parts:
            what = "--accumulate times directions (--one-direction has one)"
            raise ValueError(f"--batch {self.batch}: expected a number that {parts} divides, {what}")
        if self.warmup + self.steps // 2 > self.steps:
            raise ValueError(f"--warmup {self.warmup} of {self.steps} steps: expected at most half")
        if len(set(self.text)) < len(self.text):
            raise ValueError("TEXT: expected each source once")
        check_lengths(self.length, self.reuse, self.predicted, self.memory, self.segments)


def _predicted(objective: Kind, length: int) -> int:
    if objective == "autoregressive":
        return 1  # the stream draws them, and nobody reads them
    return max(1, round(0.15 * length) if objective == "masked" else length // 6)


def is_new(model: str) -> bool:
    """Whether a model is a named shape. Raises ValueError where it is neither one, nor may be a folder or Hub name."""
    if model in configurations.names():
        return True
    if "/" not in model and not Path(model).exists():
        near = config.nearest(model, configurations.names())
        raise ValueError(
            f"--model {model}: no shape and no folder{near}: expected {', '.join(configurations.names())}, or a folder"
        )
    return False
