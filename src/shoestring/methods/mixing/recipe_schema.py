"""What the experiment's recipe says, and what it may not say."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from shoestring import config
from shoestring.methods.mixing.recipe_tasks_schema import (
    Addition,
    Count,
    Domains,
    Lego,
    Model,
    Name,
    Part,
    Rate,
    Share,
    Start,
)

TWINS = (
    "random",
    "stratified",
    "skill-stratified",
    "curriculum",
    "anti-curriculum",
    "skill-curriculum",
    "target only",
    "fixed share",
)
METHODS = ("static", "skill-it", "skill-it given", "skill-it identity", "aioli")
SAMPLERS = TWINS + METHODS
FOLLOWERS = ("static", "skill-it", "skill-stratified")  # of the learned graph


class GraphOf(config.Recipe):
    """How the graph is learned.

    how       "approximate" or "brute"
    value     of an edge: "gain", "relative" or "constant"
    steps     of each training, at the learning rate of all, warmed up as they are and held
    seeds     whose signs must agree
    given     edges by skill and evaluated skill, besides each skill's own of 1: a graph for "skill-it given"
    """

    how: Literal["approximate", "brute"] = "approximate"
    value: Literal["gain", "relative", "constant"] = "gain"
    steps: Count
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((100, 101, 102), min_length=1)
    given: dict[Name, dict[Name, float]] = Field(default_factory=dict)


class SkillIt(config.Recipe):
    """Skill-It's settings.

    rates     eta, tried on dev, at the tuning seeds
    rounds    of the run; `window` in measurements, of which there are `measurements` a round
    measured  samples or windows of dev, of each evaluated skill, that a measurement is of
    """

    rates: tuple[Rate, ...] = Field((0.5,), min_length=1)
    rounds: Count = 6
    window: Count = 3
    measurements: Count = 1
    measured: Count
    normalize_loss: bool = False


class Aioli(config.Recipe):
    """Aioli's settings: rates and measured as Skill-It's; the rest see `shoestring.methods.mixing.Aioli`."""

    rates: tuple[Rate, ...] = Field((0.2,), min_length=1)
    rounds: Count = 2
    measured: Count
    sweeps: Count = 1
    slice_steps: Count = 4
    one_hot: Annotated[float, Field(gt=0, le=1)] = 0.75
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None


class Curriculum(config.Recipe):
    """The curricula's settings: rounds over which the pool grows; what is mixed in of skills before (over skills)."""

    rounds: Count = 5
    mixing: Annotated[float, Field(ge=0)] = 0.4


class Compute(config.Recipe):
    """How it is computed.

    precision     "auto" measures, and takes the faster
    processes     of one run, as many as the launcher must have started; more than one needs torchrun
    sharding      across processes: whole replicas (ddp) or sharded parameters (fsdp2)
    workers       runs side by side; null is as many as cores and memory allow
    loaders       processes that make batches, of each run; a change of weights then comes that much later
    save_seconds  least time between two checkpoints to resume from
    """

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    processes: Count = 1
    sharding: Literal["ddp", "fsdp2"] = "ddp"
    workers: Count | None = None
    loaders: Annotated[int, Field(ge=0)] = 0
    save_seconds: Annotated[float, Field(ge=0)] = 60.0

    @model_validator(mode="after")
    def _one_way_only(self) -> Compute:
        if self.processes > 1 and (self.workers or 1) > 1:
            raise ValueError(f"expected workers=1 with processes={self.processes}, got {self.workers}")
        return self


class Optimizer(config.Recipe):
    """AdamW's numbers, beside the learning rate."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    betas: tuple[Part, Part] = (0.9, 0.95)


class Tuning(config.Recipe):
    """What is chosen on dev, at seeds that no row is of.

    seeds           of the trials
    learning_rates  tried with the twin; the best is everyone's
    shares          of the target, tried by the sampler "fixed share"
    """

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((1000,), min_length=1)
    learning_rates: tuple[Rate, ...] = Field(min_length=1)
    shares: tuple[Share, ...] = Field((0.25, 0.5, 0.75), min_length=1)


class Methods(config.Recipe):
    """The settings of what is compared. Rates of more than one are tried on dev, as the learning rates are."""

    graph: GraphOf
    skill_it: SkillIt
    aioli: Aioli
    curriculum: Curriculum = Curriculum()


class Recipe(config.Recipe):
    """The whole experiment: one of three tasks, from one common start, drawn by every sampler at equal steps.

    base            what a preset is trained on first; null is from scratch
    samplers        by name; "stratified", the twin, is one
    steps, warmup_steps, evaluate_every   optimizer steps; the learning rate falls linearly from the warm-up on
    batch           samples (windows of text) an optimizer step, over all processes
    held_out        of each evaluated skill, samples or windows: for control and choice (dev), and to report (test)
    """

    lego: Lego | None = None
    addition: Addition | None = None
    domains: Domains | None = None
    model: Model = Model()
    base: Start | None = None
    samplers: tuple[Name, ...] = Field(min_length=2)
    steps: Count
    warmup_steps: Count
    batch: Count
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    evaluate_every: Count
    held_out: tuple[Count, Count]
    tuning: Tuning
    optimizer: Optimizer = Optimizer()
    methods: Methods
    compute: Compute = Compute()

    @model_validator(mode="after")
    def _one_task(self) -> Recipe:
        if sum(task is not None for task in (self.lego, self.addition, self.domains)) != 1:
            raise ValueError("expected one of lego, addition and domains")
        for name in self.samplers:
            if name not in SAMPLERS:
                raise ValueError(
                    f"expected samplers among {', '.join(SAMPLERS)}, got {name!r}{config.nearest(name, SAMPLERS)}"
                )
        if "stratified" not in self.samplers or not set(self.samplers) & set(METHODS):
            raise ValueError("expected samplers with 'stratified', the twin, and a method beside it")
        if len(set(self.samplers)) < len(self.samplers) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("expected each sampler and each seed once")
        if set(self.seeds) & {*self.tuning.seeds, *self.methods.graph.seeds}:
            raise ValueError("expected seeds that neither tuning nor the graph has")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        rounds = self.methods.skill_it.rounds * self.methods.skill_it.measurements, self.methods.aioli.rounds
        if self.steps % self.evaluate_every or any(self.steps % count for count in rounds):
            told = f"evaluate_every={self.evaluate_every} and the methods' rounds {rounds}"
            raise ValueError(f"expected steps that {told} divide, got {self.steps}")
        growing = self.methods.curriculum.rounds
        if growing > self.steps:
            raise ValueError(f"expected methods.curriculum.rounds of at most steps={self.steps}, got {growing}")
        if self.base is not None and self.base.look_up and self.lego is None:
            raise ValueError("expected lego, for a base with look_up")
        if self.warmup_steps + 1 >= self.steps:
            raise ValueError(f"expected warmup_steps below steps={self.steps}, got {self.warmup_steps}")
        measured = max(self.methods.skill_it.measured, self.methods.aioli.measured)
        if measured > self.held_out[0]:
            raise ValueError(
                f"expected methods with measured of at most the dev set, {self.held_out[0]}, got {measured}"
            )
        if self.batch % self.compute.processes:
            raise ValueError(f"expected batch that processes={self.compute.processes} divides, got {self.batch}")
        read = () if self.domains is None else (self.domains.text, *self.domains.files.values())
        if self.base is not None and self.base.text is not None and self.base.text in read:
            raise ValueError(f"expected a base of other text than the skills', some of which is held out, got {read}")
        for name in self.samplers:
            if name in ("target only", "fixed share") and not self.targets:
                raise ValueError(f"expected domains with a target that is trained on, for the sampler {name!r}")
        if "skill-it given" in self.samplers and not self.methods.graph.given:
            raise ValueError("expected methods.graph.given, for the sampler 'skill-it given'")
        return self

    @property
    def rates(self) -> dict[str, tuple[float, ...]]:
        """What is tried of each sampler that has a number of its own: eta, or the share of the target."""
        own = {"aioli": self.methods.aioli.rates, "fixed share": self.tuning.shares}
        own |= {name: self.methods.skill_it.rates for name in METHODS if name not in own}
        return {name: own[name] for name in self.samplers if name in own}

    @property
    def targets(self) -> tuple[str, ...]:
        """Skills that are evaluated and trained on, where only some are evaluated."""
        found = None if self.domains is None or self.domains.out_of_domain else self.domains.target
        return found or ()
