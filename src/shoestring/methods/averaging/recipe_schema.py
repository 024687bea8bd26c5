"""What the experiment's recipe says, and what it may not say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shoestring import config

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Part = Annotated[float, Field(gt=0, lt=1)]


class Text(config.Recipe):
    """What is read.

    source     "python" (the standard library), a file or folder of text, JSONL or Parquet, or hf:NAME[:CONFIG]
    tokenizer  "bytes", "bpe:SIZE" (trained here), a folder or a Hub name
    length     tokens a window
    batch      windows an optimizer step, over all micro-batches and processes
    held_out   tokens of dev text, and as many of test, scored at each measurement, in windows spread over the split
    """

    source: str = "python"
    tokenizer: str = "bytes"
    length: Count = 128
    batch: Count = 8
    held_out: Count = 16384


class Averages(config.Recipe):
    """What is tuned on dev.

    counts, strides  windows: the latest `count` weights, `stride` steps apart; all pairs are tried
    decays           moving averages, one a decay, moved every `every` steps
    every            a snapshot is taken each so many steps; strides are multiples of it
    """

    counts: tuple[Count, ...] = Field((5, 10), min_length=1)
    strides: tuple[Count, ...] = Field((5, 10), min_length=1)
    decays: tuple[Part, ...] = Field((0.8, 0.9, 0.95), min_length=1)
    every: Count = 5

    @model_validator(mode="after")
    def _strides_fit(self) -> Averages:
        for stride in self.strides:
            if stride % self.every:
                raise ValueError(f"expected strides that every={self.every} divides, got {stride}")
        return self


class Spike(config.Recipe):
    """An accident at `at` (of the run): `steps` steps at `factor` times the learning rate, followed to `until`."""

    at: Part = 0.5
    steps: Count = 3
    factor: Rate = 30.0
    until: Part = 0.75


class Compute(config.Recipe):
    """How it is computed.

    precision     "auto" measures, and takes the faster
    processes     of one run, as many as the launcher must have started; more than one needs torchrun
    sharding      across processes: whole replicas (ddp) or sharded parameters (fsdp2)
    workers       runs side by side; null is as many as cores and memory allow
    save_seconds  least time between two checkpoints to resume from
    keep_weights  whether the weights of each measurement stay on disk, in runs/*/trunk/trajectory, for the tools
    """

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    processes: Count = 1
    sharding: Literal["ddp", "fsdp2"] = "ddp"
    workers: Count | None = None
    save_seconds: Annotated[float, Field(ge=0)] = 60.0
    keep_weights: bool = False

    @model_validator(mode="after")
    def _one_way_only(self) -> Compute:
        if self.processes > 1 and (self.workers or 1) > 1:
            raise ValueError(f"expected workers=1 with processes={self.processes}, got {self.workers}")
        return self


class Recipe(config.Recipe):
    """The whole experiment.

    model           a preset's name
    steps, warmup_steps, evaluate_every   optimizer steps
    learning_rates  peaks; each is held to the end
    accumulate      micro-batches a step
    cooldowns       lengths of the real cool-down, as parts of the run at its end; the best on dev is the twin
    cosine          whether a run that anneals to nothing by itself is averaged too, as the control
    spike           an injected loss spike, or null
    """

    model: str = "neox-1m"
    text: Text = Text()
    steps: Count
    warmup_steps: Count
    learning_rates: tuple[Rate, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    accumulate: Count = 1
    evaluate_every: Count
    averages: Averages = Averages()
    cooldowns: tuple[Part, ...] = ()
    cosine: bool = False
    spike: Spike | None = None
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self.evaluate_every % self.averages.every:
            raise ValueError(
                f"expected evaluate_every that averages.every={self.averages.every} divides, got {self.evaluate_every}"
            )
        if self.steps % self.evaluate_every:
            raise ValueError(f"expected steps that evaluate_every={self.evaluate_every} divides, got {self.steps}")
        if self.text.batch % self.accumulate:
            raise ValueError(f"expected text.batch that accumulate={self.accumulate} divides, got {self.text.batch}")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.learning_rates)) < len(self.learning_rates):
            raise ValueError("expected each seed and each learning rate once")
        return self

    @model_validator(mode="after")
    def _branches_fit(self) -> Recipe:
        full = self.warmup_steps + max(self.averages.counts) * max(self.averages.strides)
        if full > self.steps // 2:
            raise ValueError(
                f"expected steps of at least twice warmup_steps + the widest window = {2 * full}, got {self.steps}"
            )
        for part in self.cooldowns:
            if not self.warmup_steps < self.on_grid(1 - part) < self.steps:
                raise ValueError(
                    f"expected cooldowns that begin after the warm-up and evaluate_every={self.evaluate_every} steps "
                    f"or more before the end, got {part}"
                )
        if self.spike is not None:
            start, until = self.on_grid(self.spike.at), self.on_grid(self.spike.until)
            if not full <= start < until - self.spike.steps:
                raise ValueError(
                    f"expected a spike after step {full}, when the widest window is full, and until after it, "
                    f"got one from step {start} to {until}"
                )
        return self

    def on_grid(self, part: float) -> int:
        """The measured step nearest to a part of the run."""
        return round(part * self.steps / self.evaluate_every) * self.evaluate_every
