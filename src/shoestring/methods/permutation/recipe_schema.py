"""What the experiment's recipe says, and what it may not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from shoestring import config
from shoestring.methods.permutation.objectives import Kind
from shoestring.methods.permutation.spans import Spans
from shoestring.methods.permutation.stream import Segments, check_lengths

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]

PLAIN = "permutation, plain"
PERMUTATION, MASKED, MASKED_MEMORY, CAUSAL = "permutation", "masked", "masked, memory", "autoregressive"
_BERT_SHARE = 0.15  # of the tokens are predicted: Devlin et al. 2019


@dataclass(frozen=True)
class Arm:
    """One way to pretrain: the objective, and what of the recipe's setting it has.

    method  whether it is permutation language modelling, or a twin
    """

    kind: Kind
    method: bool = False
    memory: bool = True
    spans: bool = True
    bidirectional: bool = True
    bert: bool = False


ARMS = {
    PERMUTATION: Arm("permutation", True),
    "permutation, no memory": Arm("permutation", True, memory=False),
    "permutation, no spans": Arm("permutation", True, spans=False),
    "permutation, one direction": Arm("permutation", True, bidirectional=False),
    "permutation, position compensation": Arm("mpnet", True),
    MASKED: Arm("masked", memory=False, spans=False, bidirectional=False, bert=True),
    MASKED_MEMORY: Arm("masked"),
    CAUSAL: Arm("autoregressive", bidirectional=False),
    # as the masked arm in all but the objective and how many are predicted
    PLAIN: Arm("permutation", True, memory=False, spans=False, bidirectional=False),
}


class Text(config.Recipe):
    """What is read, and how it is cut.

    sources     of text, laid end to end: each "python", or a path, or a name in SHOESTRING_DATA, as `corpora.documents`
    tokenizer   "bytes", "bpe:SIZE", a SentencePiece file, a folder or a Hub name
    length      S, tokens a sequence
    reuse       R, by which a row goes on, and a block of the order
    predicted   P, of a sequence
    batch       rows a step, over all processes
    spans       what is predicted: whole "words", "tokens" or "single" ones
    segments    "two", with separators, or "one"
    """

    sources: tuple[Name, ...] = Field(min_length=1)
    tokenizer: Name
    length: Count
    reuse: Count
    predicted: Count
    batch: Count
    spans: Spans = "words"
    segments: Segments = "two"

    @model_validator(mode="after")
    def _fits(self) -> Text:
        if not self.reuse < self.length:
            raise ValueError(f"expected a reuse below the length, got {self.reuse} of {self.length}")
        if not self.predicted < self.length:
            raise ValueError(f"expected fewer predicted than the length, got {self.predicted} of {self.length}")
        check_lengths(self.length, self.reuse, self.predicted, 0, self.segments)
        return self

    @property
    def scattered(self) -> int:
        """How many are predicted where 15 % are."""
        return max(1, round(_BERT_SHARE * self.length))


class Held(config.Recipe):
    """What every arm is scored on: spans of 1 to `longest` tokens, as many of each length.

    dev, test  spans of each length: of dev, to choose by, and of test, to report
    """

    dev: Count
    test: Count
    longest: Annotated[int, Field(ge=2)] = 5


class TaskSet(config.Recipe):
    """Texts with labels, to fine-tune on: JSON lines by path, or by name in SHOESTRING_DATA.

    columns  of the one or two texts; label, that of the label
    train    a tenth of which, by a hash, is dev
    limit    rows of each part at most, drawn by a hash
    """

    name: Name
    train: Name
    test: Name
    columns: tuple[Name, ...] = Field(("text",), min_length=1, max_length=2)
    label: Name = "label"
    limit: Count | None = None


class FineTuning(config.Recipe):
    """How each pretrained model is taught each task: at each rate, of which dev chooses, run by run."""

    sets: tuple[TaskSet, ...] = ()
    learning_rates: tuple[Rate, ...] = (3e-4,)
    epochs: Count = 2
    batch: Count = 32
    length: Annotated[int, Field(ge=8)] = 96
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Share, Share] = (0.9, 0.98)


class Tuning(config.Recipe):
    """Each arm's own learning rate, chosen on dev at seeds that no row is of."""

    learning_rates: tuple[Rate, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field((1000,), min_length=1)


class Optimizer(config.Recipe):
    """AdamW's numbers, and the shape of its schedule in parts of the steps."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    betas: tuple[Share, Share] = (0.9, 0.98)
    warmup: Share = 0.05
    decay: Share = 0.5

    @model_validator(mode="after")
    def _parts(self) -> Optimizer:
        if self.warmup + self.decay > 1:
            raise ValueError(f"expected a warmup and a decay of 1 in all at most, got {self.warmup} and {self.decay}")
        return self


class Compute(config.Recipe):
    """How it is computed.

    precision     "auto" measures, and takes the faster
    accumulate    micro-batches of a step, each with a memory of its own
    checkpointing whether a layer's activations are computed again in backward
    processes     of one run, as many as the launcher must have started; more than one needs torchrun
    workers       runs side by side; null is as many as cores and memory allow
    save_seconds  least time between two checkpoints to resume from
    """

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    accumulate: Count = 1
    checkpointing: bool = False
    processes: Count = 1
    workers: Count | None = None
    save_seconds: Annotated[float, Field(ge=0)] = 60.0

    @model_validator(mode="after")
    def _one_way_only(self) -> Compute:
        if self.processes > 1 and (self.workers or 1) > 1:
            raise ValueError(f"expected workers=1 with processes={self.processes}, got {self.workers}")
        return self


class Recipe(config.Recipe):
    """The whole experiment: every arm on the same text at equal FLOPs, scored on the same spans and tasks.

    model          a shape, or a folder whose configuration is taken; changes, of its values, by their own names
    memory         M, states that a sequence looks back on
    bidirectional  whether half of the rows is read from right to left
    steps          of the permutation arm; the others take as many as its FLOPs allow
    points         measurements along a run, its end among them
    """

    model: Name
    changes: dict[str, JsonValue] = Field(default_factory=dict)
    text: Text
    memory: Annotated[int, Field(ge=0)]
    bidirectional: bool = True
    arms: tuple[Name, ...]
    steps: Annotated[int, Field(ge=2)]
    points: Count = 4
    held: Held
    seeds: tuple[Seed, ...] = Field(min_length=1)
    tuning: Tuning
    fine_tuning: FineTuning = FineTuning()
    optimizer: Optimizer = Optimizer()
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _arms(self) -> Recipe:
        for name in self.arms:
            if name not in ARMS:
                known = ", ".join(map(repr, ARMS))
                raise ValueError(f"expected arms among {known}, got {name!r}{config.nearest(name, ARMS)}")
        if PERMUTATION not in self.arms or MASKED not in self.arms:
            raise ValueError(f"expected the arms {PERMUTATION!r} and {MASKED!r}, the twin")
        if set(self.seeds) & set(self.tuning.seeds):
            raise ValueError("expected seeds that tuning does not have")
        listed: dict[str, Sequence[str | float]] = {
            "arms": self.arms,
            "seeds": self.seeds,
            "tuning.seeds": self.tuning.seeds,
            "tuning.learning_rates": self.tuning.learning_rates,
            "fine_tuning.sets": [one.name for one in self.fine_tuning.sets],
        }
        for key, values in listed.items():
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"expected each of {key} once, got {twice[0]!r} more often")
        return self

    @model_validator(mode="after")
    def _rows(self) -> Recipe:
        parts = self.compute.processes * self.compute.accumulate * (2 if self.bidirectional else 1)
        if self.text.batch % parts:
            what = "processes times micro-batches times directions"
            raise ValueError(f"expected a batch that {parts} divides, {what}, got {self.text.batch}")
        if self.held.longest >= self.text.length - self.text.reuse:
            raise ValueError(f"expected held.longest below length - reuse, got {self.held.longest}")
        return self

    def arm(self, name: str) -> Arm:
        """An arm, less what the recipe itself goes without."""
        arm = ARMS[name]
        return replace(
            arm, memory=arm.memory and self.memory > 0, bidirectional=arm.bidirectional and self.bidirectional
        )
