"""Learning the graph of skills: short trainings from one shared base, side by side, kept as they end."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from shoestring import files
from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.trainings import Losses, Measure, checked, file_name, key_of, measured

How = Literal["brute", "approximate"]
Value = Literal["gain", "relative", "constant"]
_AGAIN = "delete it, and this training is done again"
EDGE = 0.5  # the paper's constant for an edge between skills


@dataclass(frozen=True)
class Plan:
    """Which trainings a graph takes: shares of skills, each a training; the empty one measures the base itself."""

    skills: tuple[str, ...]
    evaluated: tuple[str, ...]
    how: How = "approximate"

    def __post_init__(self) -> None:
        for kind, names in (("skills", self.skills), ("evaluated skills", self.evaluated)):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{kind} are {', '.join(names) or 'none'}: expected one or more, each once")
        if self.how not in ("brute", "approximate"):
            raise ValueError(f"how is {self.how!r}: expected 'brute' or 'approximate'")
        foreign = [name for name in self.evaluated if name not in self.skills]
        if self.how == "brute" and foreign:
            raise ValueError(
                f"brute force trains on each evaluated skill, and {', '.join(foreign)} cannot be trained on: "
                "use how='approximate'"
            )

    def mixtures(self) -> list[dict[str, float]]:
        """The base, each skill alone, and for brute force each pair by halves.

        Training on i and j together is one run, read for both (i, j) and (j, i): k (k + 1) / 2 runs, where Algorithm 1
        of the paper counts k + k (k - 1). By brute force, what is not evaluated is run in pairs with what is, and no
        more.
        """
        if self.how == "approximate":
            return [{}, *({skill: 1.0} for skill in self.skills)]
        alone = [{skill: 1.0} for skill in self.skills if skill in self.evaluated]
        pairs = [
            {first: 0.5, second: 0.5}
            for place, first in enumerate(self.skills)
            for second in self.skills[place + 1 :]
            if first in self.evaluated or second in self.evaluated
        ]
        return [{}, *alone, *pairs]


@dataclass(frozen=True)
class Found:
    """What the trainings of one seed came to: held-out losses by mixture."""

    plan: Plan
    losses: Mapping[str, Losses] = field(default_factory=dict)

    def edges(self, value: Value) -> Tensor:
        """(skills, evaluated): signed; above zero where training on the one helps the other."""
        plan, before = self.plan, self.losses[key_of({})]
        edges = torch.zeros(len(plan.skills), len(plan.evaluated), dtype=torch.float64)
        for row, skill in enumerate(plan.skills):
            for column, name in enumerate(plan.evaluated):
                edges[row, column] = self._edge(skill, name, before[name], value)
        return edges

    def _edge(self, skill: str, name: str, before: float, value: Value) -> float:
        if value == "constant" and skill == name:
            return 1.0
        if self.plan.how == "approximate":
            gain = before - self.losses[key_of({skill: 1.0})][name]
        elif skill == name:
            return 1.0  # Algorithm 1: by definition
        else:
            alone = self.losses[key_of({name: 1.0})][name]
            gain = alone - self.losses[key_of({skill: 0.5, name: 0.5})][name]
        if value == "relative":
            return gain / before if before else 0.0
        return math.copysign(EDGE, gain) if value == "constant" and gain else gain


def learn_graph(
    measure: Measure,
    skills: Sequence[str],
    evaluated: Sequence[str] | None = None,
    *,
    how: How = "approximate",
    seeds: Sequence[int] = (0, 1, 2),
    value: Value = "gain",
    signed: bool = False,
    folder: Path | str | None = None,
    identity: str = "",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    tokenizer: str = "",
    data: str = "",
) -> Graph:
    """The graph that short trainings from one shared base show, over several seeds.

    measure    (shares by skill, seed) -> held-out loss of each evaluated skill after training the base on that mixture
               for a fixed budget; empty shares ask for the losses of the base itself. Picklable where workers > 1
    evaluated  the skills themselves where not given; for brute force, some of them
    how        "brute": i helps j where the two by halves end lower on j than j alone at the same budget (Algorithm 1 of
               Chen et al. 2023; k (k + 1) / 2 trainings a seed). "approximate": by how much training on i alone lowers
               the loss on j (Algorithm 3; k trainings a seed)
    value      of an edge: "gain", the nats gained; "relative", over the loss before; "constant", 0.5,
               and 1 of each skill on itself
    signed     whether edges below zero stay, as in the graphs that came with the paper; its text drops them
    folder     keeps each training's losses the moment it ends: the same call again goes on, and pays for nothing twice
    identity   what the folder's trainings are of (base, data, budget): one begun on another is refused. Not to be left
               out with a folder, unless `data` says it
    progress   is told how many trainings are done, of how many: first those that were kept
    workers    processes; more than one, under `joblib.parallel_config`, are that backend's
    An edge is the mean over seeds where all agree in sign, and nothing where they do not. Raises ValueError where a
    loss is missing or not finite, and ModuleNotFoundError where joblib is needed and absent.
    """
    _check(seeds, value, folder, identity or data)
    plan = Plan(tuple(skills), tuple(skills if evaluated is None else evaluated), how)
    jobs = [(shares, seed) for seed in seeds for shares in plan.mixtures()]
    kept = _Kept(folder, f"{identity} {data} {tokenizer}", plan)
    missing = [job for job in jobs if kept.find(*job) is None]
    tell = progress or (lambda done, of: None)
    tell(len(jobs) - len(missing), len(jobs))
    ended = measured(measure, missing, plan.evaluated, workers)
    for done, (shares, seed, losses) in enumerate(ended, len(jobs) - len(missing) + 1):
        kept.keep(shares, seed, losses)
        tell(done, len(jobs))
    found = [Found(plan, kept.of(seed)).edges(value) for seed in seeds]
    stacked = torch.stack(found)
    edges, _ = agreed(stacked, signed)
    _, agreement = agreed(torch.where(_by_definition(plan, value), 0.0, stacked))
    told = {
        "how": how,
        "value": value,
        "signed": signed,
        "seeds": list(seeds),
        "trainings": sum(bool(shares) for shares, _ in jobs),
        "of": identity,
    }
    share = agreement if len(seeds) > 1 else None
    return Graph(plan.skills, plan.evaluated, edges, share, tokenizer, data, told)


def _check(seeds: Sequence[int], value: str, folder: Path | str | None, told: str) -> None:
    if not isinstance(seeds, Sequence):
        raise ValueError(f"seeds is {seeds!r}: expected several, such as (0, 1, 2)")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are {list(seeds)}: expected one or more, each once")
    if folder is not None and not told:
        raise ValueError(
            f"{folder}: say with identity=... what its trainings are of (model, budget, data): those that are kept are "
            "taken for what measure would give"
        )
    if value not in ("gain", "relative", "constant"):
        raise ValueError(f"value is {value!r}: expected 'gain', 'relative' or 'constant'")


def _by_definition(plan: Plan, value: Value) -> Tensor:
    """(skills, evaluated) of bool: edges that are not measured."""
    given = plan.how == "brute" or value == "constant"
    own = [[given and skill == name for name in plan.evaluated] for skill in plan.skills]
    return torch.tensor(own)


def agreed(edges: Tensor, signed: bool = False) -> tuple[Tensor, float]:
    """Mean edges where all seeds agree in sign, and the share of those among the edges that any seed saw.

    edges (seeds, skills, evaluated). Below zero nothing is left, unless `signed`.
    """
    signs = edges.sign()
    same = (signs == signs[0]).all(0)
    seen = (signs != 0).any(0)
    mean = torch.where(same, edges.mean(0), 0.0)
    share = float((same & seen).sum() / seen.sum()) if bool(seen.any()) else 1.0
    return (mean if signed else mean.clamp_min(0)), share


class _Kept:
    """Losses of finished trainings, in memory and, where a folder is given, each in a file of its own."""

    def __init__(self, folder: Path | str | None, identity: str, plan: Plan) -> None:
        self._losses: dict[tuple[int, str], dict[str, float]] = {}
        self._folder = None if folder is None else Path(folder)
        self._plan = plan
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        mark = self._folder / "of.json"
        told = {"identity": " ".join(identity.split())}
        if not mark.exists() and any(self._folder.glob("*-seed*.json")):
            raise ValueError(
                f"{self._folder}: holds trainings, but no {mark.name} that says of what: give another folder"
            )
        if not mark.exists():
            files.replace(mark, json.dumps(told))
        before = files.read_json(mark, "give another folder")
        if before != told:
            was = before.get("identity") if isinstance(before, dict) else before
            raise ValueError(f"{self._folder}: holds trainings of {was!r}, not of {told['identity']!r}: another folder")

    def find(self, shares: Mapping[str, float], seed: int) -> dict[str, float] | None:
        key = key_of(shares)
        if (seed, key) not in self._losses and self._folder is not None:
            path = self._path(shares, seed)
            if path.exists():
                losses = self._read(path)
                if set(self._plan.evaluated) <= set(losses):
                    self._losses[seed, key] = checked(shares, seed, losses, self._plan.evaluated)
        return self._losses.get((seed, key))

    def keep(self, shares: Mapping[str, float], seed: int, losses: dict[str, float]) -> None:
        self._losses[seed, key_of(shares)] = losses
        if self._folder is not None:
            path = self._path(shares, seed)
            whole = {**(self._read(path) if path.exists() else {}), **losses}  # those of other skills stay paid for
            files.replace(path, json.dumps({"shares": dict(shares), "seed": seed, "losses": whole}))

    def _read(self, path: Path) -> dict[str, Any]:
        told = files.read_json(path, _AGAIN)
        losses = told.get("losses") if isinstance(told, dict) else None
        if not isinstance(losses, dict) or not all(isinstance(loss, int | float) for loss in losses.values()):
            raise ValueError(f"{path}: holds no losses by skill: {_AGAIN}")
        return losses

    def of(self, seed: int) -> dict[str, Losses]:
        return {key: losses for (kept, key), losses in self._losses.items() if kept == seed}

    def _path(self, shares: Mapping[str, float], seed: int) -> Path:
        assert self._folder is not None
        return self._folder / file_name(shares, seed)
