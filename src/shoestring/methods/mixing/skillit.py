"""The hook that evaluates and re-weighs each round, as Skill-It does."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.rounds import Evaluate, Losses, Weighed, by_name, measured, one_hot, one_later, same
from shoestring.methods.mixing.usefulness import usefulness
from shoestring.methods.mixing.weights import alike, first_weights, skill_weights, tempered
from shoestring.types import Run


@dataclass(frozen=True)
class Switches:
    """What the code released with Skill-It can do beyond its paper, by its names; all off.

    mean               average over the window instead of summing (its fine-tuning does so by itself)
    normalize_loss     divide each loss by its first
    eta_schedule       divide the rate by latest sum / first sum of the losses
    initialize_loss    begin the window with equal losses, of the first's mean: a smoother way from the first mixture
    ignore_lone_nodes  a skill whose only edge is its own keeps 1 / skills
    dynamic_lambda     halve the edges between different skills after each round
    prior              multiply the weights by these, by skill, in every round
    init               the weights of the first round, by skill, instead of those that the graph gives
    """

    mean: bool = False
    normalize_loss: bool = False
    eta_schedule: bool = False
    initialize_loss: bool = False
    ignore_lone_nodes: bool = False
    dynamic_lambda: bool = False
    prior: Mapping[str, float] | None = None
    init: Mapping[str, float] | None = None


class SkillIt:
    """Evaluate and re-weigh a mixture each round (Chen et al. 2023, Algorithm 2), as a hook.

    mixture    what is drawn from: anything with `set_weights`
    graph      its skills are the mixture's sources, its evaluated ones are what `evaluate` measures. Those make the
               setting: the same skills (continual pre-training), some of them (fine-tuning to a target), others (out
               of domain)
    evaluate   model -> held-out loss by evaluated skill, on data that no reported score is of
    rate       eta; 0 draws all alike
    round_steps  optimizer steps a round
    until      the last step: no re-weighing there
    window     measurements that the weights look back on
    measured_every  steps between two measurements; once a round where not given. The released code measures within
               rounds, and its window counts those
    floor      the least share of any skill; 0 as in the paper
    fall_back  whether a graph that `usefulness` finds nearly empty or nearly complete is left unused: stratified
               sampling, with a warning
    `begin(run)` comes before the first step; it does nothing on a run that went on from a checkpoint. A measurement
    that is not finite, or lacks a skill, is a ValueError that leaves the weights as they are.

    The pseudo-code of the paper makes the weights of round t + 1 of losses before round t; here they are of those at
    its end. The released code measures after the first step and every so many from there, so that it sees those up to
    one measurement before the end; what its switches divide by is its second measurement, here the one before training;
    and it halves edges of 1 between different skills as it loads a graph, here none.
    """

    def __init__(
        self,
        mixture: Weighed,
        graph: Graph,
        evaluate: Evaluate,
        *,
        rate: float,
        round_steps: int,
        until: int,
        window: int = 3,
        measured_every: int | None = None,
        floor: float = 0.0,
        fall_back: bool = True,
        switches: Switches | None = None,
    ) -> None:
        every = round_steps if measured_every is None else measured_every
        if min(round_steps, until, window, every) < 1 or round_steps % every:
            raise ValueError(
                f"round_steps={round_steps}, until={until}, window={window}, measured_every={every}: "
                "expected one or more of each, and rounds of whole measurements"
            )
        if not rate >= 0:
            raise ValueError(f"rate is {rate}: expected 0 or more")
        switches = switches or Switches()
        if switches.ignore_lone_nodes and graph.skills != graph.evaluated:
            raise ValueError(
                "ignore_lone_nodes: expected a graph whose evaluated skills are its skills, in their order"
            )
        self.mixture, self.graph, self.evaluate = mixture, graph, evaluate
        self.rate, self.round_steps, self.until, self.window, self.every = rate, round_steps, until, window, every
        self.floor, self.switches = floor, switches
        self.losses = Losses(graph.evaluated)
        self.history: list[tuple[int, dict[str, float]]] = []
        self.edges = graph.edges  # replaced as they are dampened, never changed in place
        self.first: list[float] | None = None
        self.useful = usefulness(graph)
        self.stratified = fall_back and not self.useful.useful
        if self.stratified:
            warnings.warn(self.useful.sentence, UserWarning, stacklevel=2)
        self._begun = self._said = False
        self._step = -1  # of the latest call

    def begin(self, run: Run) -> None:
        """Set the weights of the first round; measure first where a switch needs the losses before training."""
        if self._begun:
            return
        switches = self.switches
        if not self.stratified and (switches.normalize_loss or switches.eta_schedule or switches.initialize_loss):
            losses = Losses(self.graph.evaluated)
            self.first = losses.add(run.step, measured(self.evaluate, run))
        self._set(run.step, self._first())
        self._begun = True

    def __call__(self, run: Run) -> None:
        if not self._begun:
            raise ValueError("SkillIt was not begun: call its begin(run) before the first step")
        self._step = one_later(run.step, self._step)
        if self.stratified or run.step >= self.until:
            return
        if run.step % self.every == 0:
            self.losses.add(run.step, measured(self.evaluate, run))
        if run.step % self.round_steps == 0:
            self._set(run.step, self._next())
            if self.switches.dynamic_lambda:
                self._dampen()

    @property
    def weights(self) -> dict[str, float]:
        """The latest weights."""
        return self.history[-1][1]

    def state_dict(self) -> dict[str, Any]:
        return {
            "identity": self._identity(),
            "begun": self._begun,
            "losses": [list(row) for row in self.losses.rows],
            "history": [[step, weights] for step, weights in self.history],
            "edges": self.edges.clone(),
            "first": self.first,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        same("settings", state.get("identity", {}), self._identity())
        self._step = -1
        self._begun, self.first = state["begun"], state["first"]
        self.losses.rows = [list(row) for row in state["losses"]]
        self.history = [(step, dict(weights)) for step, weights in state["history"]]
        self.edges = state["edges"].double().clone()

    def _identity(self) -> dict[str, Any]:
        given = {"prior": self.switches.prior, "init": self.switches.init}
        return {
            "skills": list(self.graph.skills),
            "evaluated": list(self.graph.evaluated),
            "graph": hashlib.sha256(self.graph.edges.numpy().tobytes()).hexdigest()[:16],
            "rate": self.rate,
            "round_steps": self.round_steps,
            "window": self.window,
            "measured_every": self.every,
            "floor": self.floor,
            "stratified": self.stratified,
            **vars(self.switches),
            **{name: None if one is None else dict(one) for name, one in given.items()},
        }

    def _first(self) -> Tensor:
        switches = self.switches
        if self.stratified:
            return alike(len(self.graph.skills))
        if switches.init is not None:
            given = self._named("init", switches.init)
            return given / given.sum()
        return first_weights(self.edges, self.rate, ignore_lone_nodes=switches.ignore_lone_nodes, prior=self._prior())

    def _next(self) -> Tensor:
        switches = self.switches
        rows = self.losses.rows
        if switches.initialize_loss and self.first is not None:
            rows = [[sum(self.first) / len(self.first)] * len(self.first), *rows]
        first = None if self.first is None else torch.tensor(self.first, dtype=torch.float64)
        return skill_weights(
            self.edges,
            torch.from_numpy(np.array(rows[-self.window :])),
            self.rate,
            mean=switches.mean,
            normalize_loss=first if switches.normalize_loss else None,
            eta_schedule=first if switches.eta_schedule else None,
            ignore_lone_nodes=switches.ignore_lone_nodes,
            prior=self._prior(),
        )

    def _set(self, step: int, weights: Tensor) -> None:
        weights = tempered(weights, self.floor) if self.floor else weights
        named = by_name(self.graph.skills, weights)
        told = one_hot(named)
        if told and not self._said:
            self._said = True
            warnings.warn(f"step {step}: {told}: lower the rate, or give a floor", UserWarning, stacklevel=3)
        self.mixture.set_weights(named)
        self.history.append((step, named))

    def _prior(self) -> Tensor | None:
        return None if self.switches.prior is None else self._named("prior", self.switches.prior)

    def _named(self, what: str, values: Mapping[str, float]) -> Tensor:
        if set(values) != set(self.graph.skills):
            raise ValueError(f"{what} names {sorted(values)}: expected each of {sorted(self.graph.skills)}")
        return torch.tensor([values[name] for name in self.graph.skills], dtype=torch.float64)

    def _dampen(self) -> None:
        self.edges = torch.where(self.graph.between & (self.edges > 0), self.edges / 2, self.edges)
