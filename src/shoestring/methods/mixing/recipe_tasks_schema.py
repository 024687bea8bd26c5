"""What the recipe says of its tasks: the skills, and the model that learns them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from shoestring import config

Count = Annotated[int, Field(ge=1)]
Part = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class Lego(config.Recipe):
    """Chains of assignments; the skill is the depth that is asked for, from 1 to `clauses`.

    sizes      samples in the pool, by depth: the imbalance that a random draw follows
    style      "short" for the byte tokenizer, "sentence" for a pre-trained model's
    whole      whether the loss in training is of whole sentences, as in the paper, and not of answers alone
    """

    clauses: Annotated[int, Field(ge=2, le=26)] = 5
    sizes: tuple[Count, ...]
    style: Literal["short", "sentence"] = "short"
    whole: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Lego:
        if len(self.sizes) != self.clauses:
            raise ValueError(f"expected one of sizes for each of {self.clauses} clauses, got {len(self.sizes)}")
        return self


class Addition(config.Recipe):
    """Sums; the skill is the digit that is asked for, from the ones on. sizes: samples in the pool, by digit."""

    digits: Annotated[int, Field(ge=2, le=9)] = 3
    sizes: tuple[Count, ...]
    style: Literal["short", "sentence"] = "short"

    @model_validator(mode="after")
    def _fits(self) -> Addition:
        if len(self.sizes) != self.digits:
            raise ValueError(f"expected one of sizes for each of {self.digits} digits, got {len(self.sizes)}")
        return self


class Domains(config.Recipe):
    """Kinds of text, each a skill.

    text      one source whose documents name their domain ("python", a file or folder, hf:NAME); or
    files     a source for each skill, by name. Where there is none of that name, it is looked for in the folder
              SHOESTRING_DATA
    only      these of them; null is all
    target    skills that are evaluated (fine-tuning); null is all that are trained on
    out_of_domain  whether the target is not trained on
    cut       what is held out: whole "documents", a twentieth for dev and as much for test; or, where a skill has too
              few of those, "stretches" of each skill's text, a tenth for each
    length    tokens a window
    """

    text: Name | None = None
    files: dict[Name, Name] = Field(default_factory=dict)
    only: tuple[Name, ...] | None = None
    target: tuple[Name, ...] | None = None
    out_of_domain: bool = False
    cut: Literal["documents", "stretches"] = "documents"
    length: Count = 128

    @model_validator(mode="after")
    def _fits(self) -> Domains:
        if (self.text is None) == (not self.files):
            raise ValueError("expected either text or files")
        for names in (self.only or (), self.target or ()):
            if len(set(names)) < len(names):
                raise ValueError(f"expected each skill once, got {', '.join(names)}")
        if self.out_of_domain and self.target is None:
            raise ValueError("expected a target that is not trained on, with out_of_domain")
        return self


class Model(config.Recipe):
    """What is trained.

    name       a preset's, or a folder or Hub name of a model to go on from, whose tokenizer is then taken
    changes    of a preset's configuration, by the names of its own fields
    tokenizer  "bytes", "bpe:SIZE" (trained on the skills' text), a folder or a Hub name
    """

    name: Name = "neox-tiny"
    changes: dict[Name, Any] = Field(default_factory=dict)
    tokenizer: Name = "bytes"


class Start(config.Recipe):
    """A model trained first, which every sampler goes on from.

    look_up        on looking things up (for LEGO), or
    text           on text: a source; windows as long as the task's
    steps, batch, learning_rate   of that training
    """

    look_up: bool = False
    text: Name | None = None
    steps: Count
    batch: Count = 64
    learning_rate: Rate = 2e-3
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fits(self) -> Start:
        if self.look_up == (self.text is not None):
            raise ValueError("expected either look_up or text")
        return self
