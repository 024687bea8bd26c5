"""A recipe of the experiment, made of a command's options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring import config
from shoestring.methods.rationale import rows
from shoestring.methods.rationale.datasets import Form
from shoestring.methods.rationale.recipe_schema import Columns, Recipe, is_preset
from shoestring.models import presets, seq2seq

PRESET_RATE, TRAINED_RATE = 1e-3, 1e-4
ALIKE = ("mode", "steps", "batch", "every", "patience", "held_out", "tokens", "parts", "precision", "workers")
_TUNING = 1000  # the first seed that rates are tried with
_SLIP = 0.85  # how near a name is to a preset's that it is taken for a slip


@dataclass(frozen=True)
class Told:
    """What options say of an experiment, by their own names."""

    columns: Columns
    data: str
    dev: str | None
    test: str | None
    unlabelled: bool
    models: tuple[str, ...]
    tokenizer: str
    lora: int | None
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    learning_rates: tuple[float, ...]
    weights: tuple[float, ...]
    mode: str
    steps: int
    batch: int
    every: int
    patience: int
    held_out: tuple[int, int]
    tokens: tuple[int, int]
    parts: int
    precision: str
    workers: int | None
    fractions: tuple[float, ...] = (1.0,)

    def recipe(self, command: str) -> Recipe:
        """The recipe. Raises ValueError, speaking of the command, where its values do not fit together."""
        rows_of = {"train": self.data, "dev": self.dev, "test": self.test, "unlabelled": self.unlabelled}
        lora = None if self.lora is None else {"rank": self.lora, "alpha": 2.0 * self.lora}
        free = next(seed for seed in range(_TUNING, _TUNING + len(self.seeds) + 1) if seed not in self.seeds)
        one, several = ({"weight": self.weights[0]}, []) if len(self.weights) == 1 else ({}, [*self.weights])
        told: dict[str, Any] = {
            "sets": [{"form": self.columns.model_dump(mode="json"), **rows_of}],
            "model": {"names": [*self.models], "tokenizer": self.tokenizer, "lora": lora},
            "arms": [*self.arms],
            "fractions": [*self.fractions],
            "steps": self.steps,
            "batch": self.batch,
            "evaluate_every": self.every,
            "patience": self.patience,
            "held_out": [*self.held_out],
            "seeds": [*self.seeds],
            "tuning": {"seeds": [free], "learning_rates": [*self.learning_rates], "weights": several},
            "lessons": {"mode": self.mode, "tokens": [*self.tokens], "parts": self.parts, **one},
            "compute": {"precision": self.precision, "workers": self.workers},
        }
        return config.check(told, Recipe, command)


def parts_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The files that are read."""
    return {name: None if given[name] is None else str(given[name]) for name in ("data", "dev", "test")}


def alike(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that stand in a recipe as they are given. Raises ValueError, naming the option, where one is none."""
    pairs = {name: pair(given[name], f"--{name.replace('_', '-')}") for name in ("held_out", "tokens")}
    every = given["every"] or max(1, given["steps"] // 20)
    return {**{name: given[name] for name in ALIKE}, **pairs, "every": every}


def columns(form: Form) -> dict[str, Any]:
    """A form as the recipe's schema takes it."""
    names = ("columns", "label", "options", "expression", "rationale", "teacher_label", "human")
    return {name: getattr(form, name) for name in names}


def rates_of(said: Sequence[float] | None, models: Sequence[str], tokenizer: str, lora: int | None) -> list[float]:
    """The learning rates to try, once the models are seen to fit the other options."""
    made = [model for model in models if is_preset(model)]
    for model in models:
        if model not in made and "/" not in model and not Path(model).exists():
            slip = rows.nearest(model, [*seq2seq.names(), *presets.names()], _SLIP)
            if slip:
                raise ValueError(f"--model {model}: no preset, and no folder{slip}")
    if lora is not None and made:
        raise ValueError(f"--lora {lora}: {made[0]} is a preset, untrained: leave it out")
    if tokenizer != "bytes" and not made:
        raise ValueError(f"--tokenizer {tokenizer}: {models[0]} has its own: leave it out")
    rates = [*(said or [PRESET_RATE if made else TRAINED_RATE])]
    if len(set(rates)) < len(rates) or not all(rates):
        raise ValueError(f"--learning-rate {', '.join(f'{rate:g}' for rate in rates)}: expected each once, above zero")
    return rates


def weights_of(said: Sequence[float] | None) -> list[float]:
    """The lambdas to try."""
    weights = [*(said or [1.0])]
    if len(set(weights)) < len(weights) or (len(weights) > 1 and not all(weights)):
        raise ValueError(f"--weight {', '.join(f'{one:g}' for one in weights)}: expected each once, above zero")
    return weights


def pair(text: str, option: str) -> tuple[int, int]:
    """Two counts with a comma between. Raises ValueError naming the option."""
    first, _, second = text.partition(",")
    if not (first.strip().isdecimal() and second.strip().isdecimal()):
        raise ValueError(f"{option} {text!r}: expected two numbers, such as 256,96")
    return int(first), int(second)
