"""The graph that a command asks for, from its texts to its edges and their price."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from shoestring import runtime
from shoestring.cost import Cost
from shoestring.data import tokenizers
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.learn import How, Plan, Value, learn_graph
from shoestring.methods.mixing.tools_skills import (
    FEW,
    Skill,
    Texts,
    chosen,
    cut,
    fingerprints,
    opened,
    skills,
    training_texts,
)
from shoestring.methods.mixing.tools_trainings import Start, Training, base_cost, claim, cost, cost_file
from shoestring.methods.mixing.tools_watch import Tell
from shoestring.models import pretrained
from shoestring.train.objectives import next_token
from shoestring.train.settle import settle
from shoestring.types import Batch

EPOCHS = 4  # of a skill in a training, above which its edges tell of repetition


class Learned(NamedTuple):
    """A graph, what each part of it cost, and how many of its trainings were trained by this call."""

    graph: Graph
    costs: dict[str, Cost]
    trainings: int
    trained: int
    folder: Path


@dataclass(frozen=True)
class Wanted:
    """What is asked for, as the command's options say it."""

    data: tuple[str, ...]
    base: Start
    tokenizer: str | None
    how: How
    steps: int
    seeds: int
    evaluated: tuple[str, ...]
    out_of_domain: bool
    held_out: int
    length: int
    value: Value
    signed: bool
    precision: Literal["auto", "fp32", "bf16"]
    workers: int
    folder: Path
    text_field: str

    def learned(self, tell: Tell, warn: Callable[[str], None]) -> Learned:
        """Train what is not yet trained. Raises ValueError where options, texts or the folder do not fit."""
        several, plan = self._plan()
        data = fingerprints(several)
        self._claim(plan, data)
        training = self._training(several, plan, tell)
        for sentence in self._doubts(training, plan):
            warn(sentence)
        jobs = [(shares, seed) for seed in range(self.seeds) for shares in plan.mixtures()]
        counted: list[int] = []

        def ended(done: int, total: int) -> None:
            counted.append(done)
            tell("trainings", done, total)

        graph = learn_graph(
            training,
            plan.skills,
            plan.evaluated,
            how=self.how,
            seeds=range(self.seeds),
            value=self.value,
            signed=self.signed,
            folder=self.folder,
            identity=self._told(),
            workers=self.workers,
            progress=ended,
            tokenizer=tokenizers.fingerprint(opened(training.texts.tokenizer)),
            data=json.dumps(data, sort_keys=True),
        )
        costs = self._costs(jobs)
        spent = sum(costs.values(), Cost())
        facts = {"cut": training.texts.cut, "held_out": self.held_out, "precision": training.precision}
        paid = {"flops": spent.flops, "tokens": spent.tokens, "seconds": spent.seconds}
        graph = replace(graph, learned={**graph.learned, **facts, **paid})
        return Learned(graph, costs, len(jobs), counted[-1] - counted[0], self.folder)

    def _plan(self) -> tuple[tuple[Skill, ...], Plan]:
        if not self.base.preset and self.tokenizer is not None:
            raise ValueError(f"--tokenizer {self.tokenizer}: {self.base.model} has its own: leave the option out")
        if self.out_of_domain and not self.evaluated:
            raise ValueError("--out-of-domain: say by --evaluated which skills are not trained on")
        several = skills(self.data, self.text_field)
        names = tuple(skill.name for skill in several)
        evaluated = chosen(self.evaluated, names)
        trained = tuple(name for name in names if not (self.out_of_domain and name in evaluated))
        if not trained:
            raise ValueError("--out-of-domain: every skill is evaluated, and none is left to train on")
        return several, Plan(trained, evaluated, self.how)

    def _claim(self, plan: Plan, data: Mapping[str, str]) -> None:
        options = {
            "model": self.base.told(self.length),
            "tokenizer": self.tokenizer or "",
            "skills": list(plan.skills),
            "data": dict(data),
            "text_field": self.text_field,
            "length": self.length,
            "batch": self.base.batch,
            "steps": self.steps,
            "learning_rate": self.base.learning_rate,
            "held_out": self.held_out,
            "precision": self.precision,
        }
        claim(self.folder, options)

    def _training(self, several: tuple[Skill, ...], plan: Plan, tell: Tell) -> Training:
        tokenizer = self.base.tokenizer(self.tokenizer, training_texts(several, self.text_field), self.folder)
        texts = Texts(several, self.length, tokenizer, self.text_field)
        texts = replace(texts, cut=cut(texts, self.held_out))
        for name in plan.skills:  # before anything is trained
            texts.windows(name, "train")
        for name in plan.evaluated:
            texts.windows(name, "dev")
        base = self.base.folder(texts, plan.skills, self.folder, tell)
        rate = self.base.learning_rate
        training = Training(texts, plan.evaluated, base, self.steps, self.base.batch, rate, self.held_out, self.folder)
        model = pretrained.load(base, torch.float32)[0].train()
        batch: Batch = next(iter(training.mixture({plan.skills[0]: 1.0}, 0)))
        kept = self.folder / "settled.json"
        settled = settle(model, next_token, batch, self.steps, kept, torch.get_num_threads(), self.precision)
        threads = settled.threads if self.workers == 1 else runtime.threads(self.workers)
        return replace(training, precision=settled.precision, compiled=settled.compiled, threads=threads)

    def _doubts(self, training: Training, plan: Plan) -> Iterator[str]:
        """What makes edges worth less than they look."""
        held_out = {name: len(training.texts.windows(name, "dev")) for name in plan.evaluated}
        thin = {name: count for name, count in held_out.items() if count < min(FEW, self.held_out)}
        if thin:
            least = min(thin.values())
            yield f"{', '.join(thin)}: losses are those of {least} windows or a few more: edges to them are noise"
        read = self.steps * self.base.batch
        often = {name: read / len(training.texts.windows(name, "train")) for name in plan.skills}
        often = {name: times for name, times in often.items() if times > EPOCHS}
        if often:
            yield (
                f"{', '.join(often)}: a training reads the text {max(often.values()):.0f} times or nearly as often: "
                "edges tell of repetition; give more text, or fewer --steps"
            )

    def _told(self) -> str:
        base = self.base
        rest = f"{self.steps} steps of {base.batch} windows of {self.length} tokens at {base.learning_rate:g}"
        return f"{base.told(self.length)}, {rest}"

    def _costs(self, jobs: Sequence[tuple[Mapping[str, float], int]]) -> dict[str, Cost]:
        found = {
            "the base": sum(base_cost(self.folder).values(), Cost()),
            "trainings": Cost(),
            "held-out losses": Cost(),
        }
        for job in jobs:
            for phase, spent in cost(cost_file(self.folder, *job)).items():
                name = "trainings" if phase == "train" else "held-out losses"
                found[name] = found[name] + spent
        return {name: spent for name, spent in found.items() if spent != Cost()}
