"""What the experiment's recipe says, and what it may not say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shoestring import config

METHODS = ("naswot", "span")  # the room's own
SIZES = ("parameters", "reached_parameters")  # the twins that cost next to nothing
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]


class Cells(config.Recipe):
    """A tabular benchmark of image cells: how well scores order it, and what searches find in it.

    table, images  files; where there is none of that name, they are looked for in the folder SHOESTRING_DATA
    accuracies     columns that scores are held against; searches report the first
    validation     the column that a search sees
    channels, depth  of the networks: of their first stage, and cells a stage; the table's own are 16 and 5
    samples        images a network is scored on
    rows           drawn from the table, and scored by every proxy
    pool           drawn from the table, the former among them, and scored by those that search: what searches draw
                   from; null is the whole table
    searchers      proxies that search; the counts of parameters do so beside them
    draws          how many a search by score draws
    searches       simulated, of each kind
    budget         of an evolution or a random search, in trainings, which all count alike, and scores besides
    epochs, epoch_images  of one training: with the FLOPs of an average cell, what it is said to cost
    """

    table: Name
    images: Name
    accuracies: tuple[Name, ...] = Field(min_length=1)
    validation: Name
    channels: Count = 16
    depth: Count = 5
    samples: Annotated[int, Field(ge=2)] = 128
    rows: Annotated[int, Field(ge=20)] = 1000
    pool: Count | None = None
    searchers: tuple[Name, ...] = ("naswot",)
    draws: tuple[Count, ...] = Field((10, 100, 1000), min_length=1)
    searches: Annotated[int, Field(ge=2)] = 500
    budget: Rate = 100.0
    epochs: Count = 12
    epoch_images: Count = 25000

    @property
    def searching(self) -> tuple[str, ...]:
        """The proxies that search, each once."""
        return tuple(dict.fromkeys((*self.searchers, *SIZES)))

    @model_validator(mode="after")
    def _fits(self) -> Cells:
        if self.pool is not None and self.pool < self.rows:
            raise ValueError(f"expected pool of at least rows={self.rows}, or null, got {self.pool}")
        return self


class Decoders(config.Recipe):
    """Small language models, drawn, scored untrained, and really trained: how well scores order their losses.

    text            "python" (the standard library), a file or folder of text, JSONL or Parquet, or hf:NAME[:CONFIG]
    tokenizer       "bytes", "bpe:SIZE" (trained here), a folder or a Hub name
    length, batch   tokens a window, windows a step
    held_out        tokens of dev text, and as many of test
    scored_windows  of the training text, that an untrained network is scored on
    layers, widths, head_widths, ratios  what architectures are drawn from: all that fit together
    free, fixed     how many are drawn: between `parameters`; and within `tolerance` of the `fixed_parameters`
    steps, warmup_steps  of each training, at each of `learning_rates`: the best on dev is the architecture's
    precision       of the trainings; "auto" measures, and takes the faster
    """

    text: str = "python"
    tokenizer: str = "bytes"
    length: Count = 128
    batch: Count = 8
    held_out: Count = 16384
    scored_windows: Annotated[int, Field(ge=2)] = 16
    layers: tuple[Count, ...]
    widths: tuple[Count, ...]
    head_widths: tuple[Count, ...]
    ratios: tuple[Rate, ...]
    parameters: tuple[Count, Count]
    free: Annotated[int, Field(ge=3)]
    fixed: Annotated[int, Field(ge=3)]
    fixed_parameters: Count
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.03
    steps: Count
    warmup_steps: Count
    learning_rates: tuple[Rate, ...] = Field(min_length=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Decoders:
        least, most = self.parameters
        if least >= most:
            raise ValueError(f"expected parameters from less to more, got {least} to {most}")
        if self.warmup_steps >= self.steps:
            raise ValueError(f"expected warmup_steps below steps={self.steps}, got {self.warmup_steps}")
        if len(set(self.learning_rates)) < len(self.learning_rates):
            raise ValueError("expected each learning rate once")
        return self


class Recipe(config.Recipe):
    """The whole experiment: one of the two.

    proxies  what scores; `naswot` and `span` are the room's own, all others their twins
    seeds    of the weights that are scored, and of the trainings
    workers  processes side by side; null is as many as there are cores
    """

    cells: Cells | None = None
    decoders: Decoders | None = None
    proxies: tuple[Name, ...] = Field(min_length=2)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    workers: Count | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Recipe:
        if (self.cells is None) == (self.decoders is None):
            raise ValueError("expected either cells or decoders")
        if self.cells is not None:
            needed = {*SIZES, "flops", *self.cells.searchers}
            if needed - {*self.proxies}:
                raise ValueError(f"expected proxies with {', '.join(sorted(needed))}, got {', '.join(self.proxies)}")
            if len(self.seeds) > 1:
                raise ValueError(f"expected one seed for cells, got {self.seeds}")
        return self
