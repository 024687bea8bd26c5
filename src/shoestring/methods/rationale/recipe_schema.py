"""What the experiment's recipe says, and what it may not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from shoestring import config
from shoestring.methods.rationale.chains import Shape
from shoestring.models import presets, seq2seq

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Part = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]

STANDARD, DISTILLED, TWO_TASK, MATCHED = "standard", "distilled", "two-task", "standard, compute-matched"
SHUFFLED, SINGLE, INFORMED = "two-task, shuffled reasons", "single-task", "informed"
HUMAN, AGREEING = "two-task, human reasons", "two-task, agreeing reasons"
METHODS = (TWO_TASK, HUMAN, AGREEING)
ARMS = (STANDARD, DISTILLED, MATCHED, SINGLE, INFORMED, SHUFFLED, *METHODS)


def is_preset(name: str) -> bool:
    return name in seq2seq.names() or name in presets.names()


class Chains(config.Recipe):
    """Reasoning chains made by a program, whose teacher is the program behind an endpoint on this machine.

    given, derived  letters with a digit, and letters that follow from two others
    train           chains that the teacher is asked about
    error_rate      how often the teacher slips
    samples         asked of each chain; more than one are voted on
    spelled         whether a reason's steps repeat the assignments that they fill in
    """

    given: Count
    derived: Count
    train: Count
    error_rate: Share = 0.0
    samples: Count = 1
    spelled: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Chains:
        Shape(self.given, self.derived)
        return self


class Columns(config.Recipe):
    """How rows of a user's own are read, as `datasets.Form` says."""

    columns: tuple[Name, ...] = Field(("text",), min_length=1)
    label: Name | None = "label"
    options: tuple[Name, ...] | Name = ()
    expression: bool = False
    rationale: Name | None = "rationale"
    teacher_label: Name | None = "teacher_label"
    human: Name | None = None


class DataSet(config.Recipe):
    """A data set with a teacher's answers, from files: a path, or a name in SHOESTRING_DATA.

    form        how a row is read: "cqa", "svamp", "esnli", "anli", or columns of a user's own
    train       what is learned from
    dev         what is chosen by; where null, a tenth of train, by a hash of each text's first line
    test        nothing is chosen by it; where null, another tenth of train
    unlabelled  no gold label of train is looked at: dev and test are then files
    steps       of a run; null is those of the recipe
    """

    form: Name | Columns
    train: Name
    dev: Name | None = None
    test: Name | None = None
    unlabelled: bool = False
    steps: Count | None = None

    @model_validator(mode="after")
    def _judged(self) -> DataSet:
        if self.unlabelled and (self.dev is None or self.test is None):
            raise ValueError("expected dev and test, with gold labels, beside unlabelled rows to train on")
        return self

    @property
    def name(self) -> str:
        """What it is called."""
        return self.form if isinstance(self.form, str) else Path(self.train).name


class Lora(config.Recipe):
    """Adapters in place of all weights, for trained models."""

    rank: Count = 16
    alpha: Rate = 32.0
    dropout: Share = 0.0


class Model(config.Recipe):
    """The students.

    names      presets, or folders or Hub names of trained models; each trains every way
    tokenizer  "bytes", "bpe:SIZE" (trained on the texts of the sets and of the base), a folder or a Hub name; of a
               preset alone
    changes    values of a preset's configuration, by their own names
    lora       trains adapters of a trained model in place of all weights
    """

    names: tuple[Name, ...] = Field(min_length=1)
    tokenizer: Name = "bytes"
    changes: dict[str, JsonValue] = Field(default_factory=dict)
    lora: Lora | None = None


class Reading(config.Recipe):
    """What a preset learns first, by span corruption (encoder-decoders) or next tokens (decoders).

    text    a file or folder by path, or by name in SHOESTRING_DATA, or "python"
    length  tokens a window
    """

    text: Name
    steps: Count
    batch: Count = 32
    length: Count = 128
    learning_rate: Rate
    seed: Seed = 0


class Lessons(config.Recipe):
    """How the two tasks are taught.

    weight   lambda, of the reason's loss
    mode     "mixed": both tasks each step; "alternating": one a step, in turn
    tokens   at most, of what is read and of what is written
    parts    micro-batches a task's batch is cut into
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    mode: Literal["mixed", "alternating"] = "mixed"
    tokens: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=2)]] = (256, 96)
    parts: Count = 1


class Tuning(config.Recipe):
    """What is chosen on dev, at seeds that no row is of: each arm's own learning rate, and lambda where it has one.

    weights  to choose lambda from; where there are none it is that of the lessons
    """

    seeds: tuple[Seed, ...] = Field((1000,), min_length=1)
    learning_rates: tuple[Rate, ...] = Field(min_length=1)
    weights: tuple[Rate, ...] = ()


class Optimizer(config.Recipe):
    """AdamW's numbers, beside the learning rate."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Part, Part] = (0.9, 0.99)


class Compute(config.Recipe):
    """How it is computed.

    precision     "auto" measures, and takes the faster
    processes     of one run, as many as the launcher must have started; more than one needs torchrun
    workers       runs side by side; null is as many as cores and memory allow
    save_seconds  least time between two checkpoints to resume from
    """

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    processes: Count = 1
    workers: Count | None = None
    save_seconds: Annotated[float, Field(ge=0)] = 60.0

    @model_validator(mode="after")
    def _one_way_only(self) -> Compute:
        if self.processes > 1 and (self.workers or 1) > 1:
            raise ValueError(f"expected workers=1 with processes={self.processes}, got {self.workers}")
        return self


class Recipe(config.Recipe):
    """The whole experiment: every arm from the same start, at equal steps, on every set and fraction of its labels.

    sets            of real data; or `chains`, made here
    arms            by name; "standard", the twin, is one
    fractions       of the train part, of which all arms see the same examples
    steps           of a run, before which it may end: after `patience` measurements on dev without a better one
    batch           examples of each task a step, over all processes
    held_out        examples at most: of dev, to choose by, and of test, to report
    """

    chains: Chains | None = None
    sets: tuple[DataSet, ...] = ()
    model: Model
    base: Reading | None = None
    arms: tuple[Name, ...]
    fractions: tuple[Part, ...] = Field((1.0,), min_length=1)
    steps: Count
    batch: Count
    evaluate_every: Count
    patience: Count
    held_out: tuple[Count, Count]
    seeds: tuple[Seed, ...] = Field(min_length=1)
    tuning: Tuning
    lessons: Lessons = Lessons()
    optimizer: Optimizer = Optimizer()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _one_task(self) -> Recipe:
        if (self.chains is None) == (not self.sets):
            raise ValueError("expected either chains or sets")
        for name in self.arms:
            if name not in ARMS:
                raise ValueError(f"expected arms among {', '.join(ARMS)}, got {name!r}{config.nearest(name, ARMS)}")
        if STANDARD not in self.arms or TWO_TASK not in self.arms:
            raise ValueError(f"expected the arms {STANDARD!r}, the twin, and {TWO_TASK!r}")
        if set(self.seeds) & set(self.tuning.seeds):
            raise ValueError("expected seeds that tuning does not have")
        weights, weight = self.tuning.weights, self.lessons.weight
        if weights and weight not in (1.0, *weights):
            raise ValueError(f"expected either tuning.weights or lessons.weight, which is {weight:g}")
        unfit = {HUMAN, INFORMED} & set(self.arms)
        if self.chains is not None and unfit:  # nobody gave such a reason, or it is the answer itself
            raise ValueError(f"expected chains without the arms {HUMAN!r} and {INFORMED!r}, got {unfit.pop()!r}")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> Recipe:
        tuning = self.tuning
        listed: dict[str, Sequence[str | float]] = {
            **{"arms": self.arms, "seeds": self.seeds, "fractions": self.fractions, "model.names": self.model.names},
            **{"sets": [one.name for one in self.sets], "tuning.seeds": tuning.seeds},
            **{"tuning.learning_rates": tuning.learning_rates, "tuning.weights": tuning.weights},
        }
        for name, values in listed.items():
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"expected each of {name} once, got {twice[0]!r} more often")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.batch % (self.compute.processes * self.lessons.parts):
            raise ValueError(
                f"expected a batch that {self.compute.processes} processes times {self.lessons.parts} parts divide, "
                f"got {self.batch}"
            )
        return self
