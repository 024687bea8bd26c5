"""The graph of skills: how much training on each lowers the loss on each, kept by name in a small JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shoestring import files

FORMAT = "shoestring skills graph 1"


class NotAGraphError(ValueError):
    """JSON that is something else."""


@dataclass(frozen=True, eq=False)
class Graph:
    """How much training on each skill lowers the loss on each evaluated one.

    skills      that can be trained on, by name
    evaluated   that losses are measured of, by name: the same, some of them, or others
    edges       (skills, evaluated), float64; zero is no edge
    agreement   share of the edges whose sign was that of every seed; None where it was not learned from several
    tokenizer   fingerprint of the tokenizer that the losses were measured with; empty where unknown
    data        fingerprint of the data; empty where unknown
    learned     how: method, seeds, budget, model, as text or numbers
    Raises ValueError where names or numbers do not fit.
    """

    skills: tuple[str, ...]
    evaluated: tuple[str, ...]
    edges: Tensor
    agreement: float | None = None
    tokenizer: str = ""
    data: str = ""
    learned: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, names in (("skills", self.skills), ("evaluated skills", self.evaluated)):
            if not names:
                raise ValueError(f"a graph without {kind}: expected one or more")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"a graph names {kind} {', '.join(map(repr, twice))} more than once")
        shape = (len(self.skills), len(self.evaluated))
        if tuple(self.edges.shape) != shape:
            raise ValueError(f"edges of {tuple(self.edges.shape)}: expected (skills, evaluated), which is {shape}")
        if not bool(torch.isfinite(self.edges).all()):
            i, j = (int(place) for place in (~torch.isfinite(self.edges)).nonzero()[0])
            value = float(self.edges[i, j])
            raise ValueError(f"the edge from {self.skills[i]!r} to {self.evaluated[j]!r} is {value}: not finite")
        object.__setattr__(self, "edges", self.edges.detach().double().cpu().clone())

    @classmethod
    def of(cls, edges: Any, skills: Sequence[str], evaluated: Sequence[str] | None = None) -> Graph:
        """A graph from a matrix: nested lists, an array, a tensor. evaluated: the skills themselves where not given."""
        matrix = torch.as_tensor(edges, dtype=torch.float64)
        return cls(tuple(skills), tuple(skills if evaluated is None else evaluated), matrix)

    @classmethod
    def identity(cls, skills: Sequence[str], evaluated: Sequence[str] | None = None) -> Graph:
        """Each skill helps itself alone: weights follow the losses. evaluated: as in `of`."""
        names = skills if evaluated is None else evaluated
        return cls.of([[float(skill == name) for name in names] for skill in skills], skills, names)

    @property
    def between(self) -> Tensor:
        """(skills, evaluated) of bool: where row and column are not the same skill."""
        return torch.tensor([[skill != name for name in self.evaluated] for skill in self.skills])

    def save(self, path: Path | str) -> None:
        """Write the graph, whole or not at all, as JSON keyed by the names of skills."""
        rows = {
            skill: {name: float(value) for name, value in zip(self.evaluated, row.tolist(), strict=True)}
            for skill, row in zip(self.skills, self.edges, strict=True)
        }
        told = {
            "format": FORMAT,
            "evaluated": list(self.evaluated),
            "edges": rows,
            "agreement": self.agreement,
            "tokenizer": self.tokenizer,
            "data": self.data,
            "learned": dict(self.learned),
        }
        files.replace(Path(path), json.dumps(told, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path | str, tokenizer: str = "", data: str = "") -> Graph:
        """Read a graph.

        tokenizer, data   fingerprints of what it is to be used with; one that is empty, here or there, is not compared
        Raises ValueError naming the file where it is absent, torn, no graph, or of another tokenizer or other data.
        """
        path = Path(path)
        graph = _read(path)
        for what, wanted, found in (("tokenizer", tokenizer, graph.tokenizer), ("data", data, graph.data)):
            if wanted and found and wanted != found:
                raise ValueError(
                    f"{path}: learned with the {what} {found}, not {wanted}: losses are not comparable; learn it again"
                )
        return graph


def _read(path: Path) -> Graph:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}): expected a graph of skills") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise NotAGraphError(f"{path}: not a graph of skills (no format {FORMAT!r})")
    rows, evaluated = told.get("edges"), told.get("evaluated")
    if not isinstance(rows, dict) or not isinstance(evaluated, list) or not all(isinstance(x, str) for x in evaluated):
        raise ValueError(f"{path}: expected edges by skill and the names of the evaluated ones")
    for skill, row in rows.items():
        foreign = [name for name in row if name not in evaluated] if isinstance(row, dict) else []
        if foreign:
            raise ValueError(f"{path}: an edge from {skill!r} to {foreign[0]!r}, which is not evaluated")
    matrix = [[_edge(path, rows, skill, name) for name in evaluated] for skill in rows]
    agreement, learned = told.get("agreement"), told.get("learned") or {}
    share = agreement is None or (isinstance(agreement, float | int) and 0 <= agreement <= 1)
    if not share or not isinstance(learned, dict):
        raise ValueError(f"{path}: agreement {agreement!r} or learned {learned!r} is not what it should be")
    fingerprints = str(told.get("tokenizer") or ""), str(told.get("data") or "")
    try:
        edges = torch.tensor(matrix, dtype=torch.float64).reshape(len(rows), len(evaluated))
        return Graph(tuple(rows), tuple(evaluated), edges, agreement, *fingerprints, learned)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _edge(path: Path, rows: Mapping[str, Any], skill: str, name: str) -> float:
    value = rows[skill].get(name) if isinstance(rows[skill], dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: the edge from {skill!r} to {name!r} is {value!r}: expected a number")
    return float(value)
