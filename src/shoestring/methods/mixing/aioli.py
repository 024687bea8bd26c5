"""Aioli: the effect of each skill on each estimated within the run, and the mixture moved accordingly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.mixture_loader import Loader
from shoestring.methods.mixing.rounds import Evaluate, Losses, Weighed, by_name, measured, one_hot, one_later, same
from shoestring.types import Run


def nearly_one_hot(skills: int, skill: int, factor: float) -> Tensor:
    """(skills,): `factor` of one skill, the rest shared by the others."""
    weights = torch.full((skills,), (1 - factor) / (skills - 1), dtype=torch.float64)
    weights[skill] = factor
    return weights


def mixing_law(drops: Tensor, factor: float) -> Tensor:
    """What each skill by itself does to each loss, from what near one-hot mixtures did.

    drops  (mixtures, evaluated): how far a loss fell while the i-th mixture, `factor` of skill i, was trained on
    Returns (skills, evaluated): the A of Aioli, transposed, so that rows are skills as in a Skill-It graph.
    Chen et al. 2024 (Aioli, arXiv 2411.05735), LearnParams: a linear system, one for each loss.
    """
    count = len(drops)
    mixtures = torch.stack([nearly_one_hot(count, skill, factor) for skill in range(count)])
    law: Tensor = torch.linalg.solve(mixtures, drops.double())
    return law


def normalized(law: Tensor) -> Tensor:
    """The law moved up until none is below zero, and divided by its sum, as the code released with Aioli does."""
    moved = law - law.min().clamp_max(0)
    total = moved.sum()
    return moved / total if total > 0 else torch.full_like(law, 1 / law.numel())


class Aioli:
    """Each round: try every skill for a few steps, learn the mixing law from it, move the mixture (a hook).

    mixture      what is drawn from: anything with `set_weights`
    skills       its sources
    evaluate     model -> held-out loss by evaluated skill, on data that no reported score is of
    evaluated    the skills that count; all of `skills` where not given
    rate         eta of the exponentiated-gradient step
    round_steps  optimizer steps a round, estimating included
    until        the last step: no round begins whose estimate would not end before it
    sweeps, slice_steps  how often every skill is tried, and for how many steps (lp_rounds, lp_steps)
    one_hot      share of the skill that is tried (one_hot_factor); the others share the rest
    normalize    whether the law is scaled to sum to one (aioli_normalize_A), so that the rate means the same anywhere
    ema          of the law over rounds: share of the old one; the mixture is then made of that law alone, else it is
                 moved from round to round
    seed         of the order in which skills are tried
    delay        steps until weights that are set take effect: that of a `Mixture` whose batches are made by workers;
                 1 in the Hugging Face Trainer
    `begin(run)` comes before the first step; it does nothing on a run that went on from a checkpoint.

    The steps of the estimate are steps of the run: no extra trainings, but measurements: 1 + sweeps * skills a round.
    """

    def __init__(
        self,
        mixture: Weighed,
        skills: Sequence[str],
        evaluate: Evaluate,
        *,
        evaluated: Sequence[str] | None = None,
        rate: float,
        round_steps: int,
        until: int,
        sweeps: int = 1,
        slice_steps: int = 4,
        one_hot: float = 0.75,
        normalize: bool = True,
        ema: float | None = None,
        seed: int = 0,
        delay: int = 0,
    ) -> None:
        count = len(skills)
        if count < 2:
            raise ValueError(f"{count} skills: expected two or more, there is nothing to mix")
        if min(sweeps, slice_steps, until) < 1 or not 1 / count < one_hot <= 1:
            raise ValueError(
                f"sweeps={sweeps}, slice_steps={slice_steps}, until={until}, one_hot={one_hot}: "
                f"expected one or more of each, and one_hot above {1 / count:.3g} up to 1"
            )
        self._trying = sweeps * count * slice_steps + delay
        if min(round_steps, until) <= self._trying:
            raise ValueError(
                f"round_steps={round_steps}, until={until}: expected more than the {self._trying} steps that "
                "estimating takes"
            )
        if ema is not None and not 0 <= ema < 1:
            raise ValueError(f"ema is {ema}: expected from 0 to below 1")
        if not math.isfinite(rate) or min(rate, seed, delay) < 0:
            raise ValueError(f"rate={rate}, seed={seed}, delay={delay}: expected 0 or more, and a finite rate")
        self.mixture, self.skills, self.evaluate = mixture, tuple(skills), evaluate
        self.rate, self.round_steps, self.until = rate, round_steps, until
        self.sweeps, self.slice_steps, self.one_hot = sweeps, slice_steps, one_hot
        self.normalize, self.ema, self.seed, self.delay = normalize, ema, seed, delay
        self.losses = Losses(skills if evaluated is None else evaluated)
        self.history: list[tuple[int, dict[str, float]]] = []  # the mixtures that the law gave, by step
        self.laws: list[Tensor] = []
        self._scores = torch.zeros(count, dtype=torch.float64)  # of the mixture, before softmax
        self._drops = torch.zeros(count, len(self.losses.names), dtype=torch.float64)
        self._latest = dict.fromkeys(self.skills, 1 / count)
        self._begun = self._said = False
        self._round = -1  # the step at which the round began that is tried in; none where below zero
        self._step = -1  # of the latest call

    def begin(self, run: Run) -> None:
        """Measure, and try the first skill."""
        if self._begun:
            return
        self._check_delay()
        if run.step % self.round_steps:
            raise ValueError(f"Aioli begins at step {run.step}: expected a multiple of round_steps={self.round_steps}")
        self._open(run.step)
        if run.step == self._round:
            self._measure(run, -self.delay)
            self._try(run.step, 0)
        self._begun = True

    def __call__(self, run: Run) -> None:
        if not self._begun:
            raise ValueError("Aioli was not begun: call its begin(run) before the first step")
        self._check_delay()
        self._step = one_later(run.step, self._step)
        place = run.step % self.round_steps
        if not place:
            self._open(run.step)
        if run.step - place != self._round:
            return
        self._measure(run, place - self.delay)
        self._try(run.step, place)

    def _check_delay(self) -> None:
        late = self.mixture.delay + self.mixture.ahead if isinstance(self.mixture, Mixture | Loader) else self.delay
        if late != self.delay:
            raise ValueError(
                f"delay is {self.delay}, but weights of the mixture take effect after {late} batches: "
                f"give Aioli delay={late}"
            )

    @property
    def weights(self) -> dict[str, float]:
        """The latest weights, those by which a skill is tried among them."""
        return self._latest

    def state_dict(self) -> dict[str, Any]:
        return {
            "identity": self._identity(),
            "begun": self._begun,
            "round": self._round,
            "losses": [list(row) for row in self.losses.rows],
            "history": [[step, weights] for step, weights in self.history],
            "latest": self._latest,
            "laws": list(self.laws),
            "scores": self._scores,
            "drops": self._drops.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        same("settings", state.get("identity", {}), self._identity())
        self._step = -1
        self._begun, self._round = state["begun"], state["round"]
        self.losses.rows = [list(row) for row in state["losses"]]
        self.history = [(step, dict(weights)) for step, weights in state["history"]]
        self._latest = dict(state["latest"])
        self.laws = list(state["laws"])
        self._scores, self._drops = state["scores"].double(), state["drops"].double().clone()

    def _identity(self) -> dict[str, Any]:
        names = ("rate", "round_steps", "sweeps", "slice_steps", "one_hot", "normalize", "ema", "seed", "delay")
        skills, evaluated = list(self.skills), list(self.losses.names)
        return {"skills": skills, "evaluated": evaluated, **{name: getattr(self, name) for name in names}}

    def _order(self, step: int) -> list[int]:
        """The skills in the order in which this round tries them: each sweep all of them, shuffled."""
        rounds = step // self.round_steps
        raw = np.random.Philox(key=np.array([self.seed, rounds], dtype=np.uint64))
        sweeps = [np.argsort(raw.random_raw(len(self.skills)), kind="stable") for _ in range(self.sweeps)]
        return [int(place) for place in np.concatenate(sweeps)]

    def _open(self, step: int) -> None:
        """Begin a round whose estimate ends before the last step."""
        self._round = step if step + self._trying < self.until else -1

    def _measure(self, run: Run, since: int) -> None:
        """Measure where a try has been in effect for its steps, `since` the first took effect; after the last, move."""
        tried, within = divmod(since, self.slice_steps)
        tries = self.sweeps * len(self.skills)
        if within or not 0 <= tried <= tries:
            return
        after = torch.tensor(self.losses.add(run.step, measured(self.evaluate, run)), dtype=torch.float64)
        if tried:
            drop = torch.tensor(self.losses.rows[-2], dtype=torch.float64) - after
            self._drops[self._order(run.step)[tried - 1]] += drop / self.sweeps
        if tried == tries:
            self._move(run.step)

    def _try(self, step: int, place: int) -> None:
        """Set the mixture of the next try where it is due; after the last, while late, that of the round before."""
        number, within = divmod(place, self.slice_steps)
        tries = self.sweeps * len(self.skills)
        if place == 0:
            self._drops.zero_()
        if not within and number < tries:
            self._set(nearly_one_hot(len(self.skills), self._order(step)[number], self.one_hot))
        elif not within and number == tries and self.delay:
            self._set(torch.softmax(self._scores, 0))

    def _move(self, step: int) -> None:
        law = mixing_law(self._drops, self.one_hot)
        law = normalized(law) if self.normalize else law
        if self.ema is not None:
            law = (1 - self.ema) * law + self.ema * self.laws[-1] if self.laws else law
            self._scores = self.rate * law.sum(1)
        else:
            self._scores = self._scores + self.rate * law.sum(1)
        self.laws.append(law)
        self._set(torch.softmax(self._scores, 0))
        self.history.append((step, self._latest))
        told = one_hot(self._latest)
        if told and not self._said:
            self._said = True
            warnings.warn(f"step {step}: {told}: lower the rate, or give an ema", UserWarning, stacklevel=3)

    def _set(self, weights: Tensor) -> None:
        self._latest = by_name(self.skills, weights)
        self.mixture.set_weights(self._latest)
