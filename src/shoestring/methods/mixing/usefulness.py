"""Whether a graph of skills tells a sampler anything that drawing all alike does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shoestring.methods.mixing.graph import Graph

EMPTY, COMPLETE = 0.05, 0.95  # shares of the edges between skills
EVEN = 0.1  # spread of what each skill gives, below which a complete graph prefers none

Verdict = Literal["useful", "nearly empty", "nearly complete"]


@dataclass(frozen=True)
class Usefulness:
    """What a graph is good for.

    verdict   "nearly empty" and "nearly complete" graphs are not used: sampling falls back to stratified
    density   share of the edges between different skills that are above zero
    spread    standard deviation of the sums of rows over their mean: how differently skills help
    sentence  all of this, said
    """

    verdict: Verdict
    density: float
    spread: float
    sentence: str

    @property
    def useful(self) -> bool:
        return self.verdict == "useful"


def usefulness(graph: Graph) -> Usefulness:
    """Whether a graph differs from none, and from one in which everything helps everything.

    Chen et al. 2023 (and the README of their code) advise stratified sampling for graphs that are nearly empty or
    nearly complete; where the lines are drawn is ours. Nearly empty: at most 5 % of the edges between different skills
    are above zero. Nearly complete: at least 95 % are, and what the skills give in sum differs by less than a tenth.
    """
    between = graph.edges[graph.between]
    density = int((between > 0).sum()) / len(between) if len(between) else 0.0
    sums = graph.edges.sum(1)
    mean = float(sums.mean())
    spread = float(sums.std(correction=0)) / abs(mean) if mean else float("inf")
    verdict: Verdict = "useful"
    if density <= EMPTY:
        verdict = "nearly empty"
    elif density >= COMPLETE and spread < EVEN:
        verdict = "nearly complete"
    gives = f"what skills give in sum spreads by {spread:.0%}" if mean else "skills give nothing in sum"
    told = f"{density:.0%} of the edges between skills are above zero, {gives}"
    agreed = "" if graph.agreement is None else f", seeds agreed on the sign of {graph.agreement:.0%} of the edges"
    falls = "" if verdict == "useful" else "; sampling falls back to stratified, all skills alike"
    return Usefulness(verdict, density, spread, f"the graph is {verdict}: {told}{agreed}{falls}")
