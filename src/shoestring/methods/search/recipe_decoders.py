"""The experiment over language models: scores of untrained decoders, held against what real trainings came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from torch import nn

from shoestring.cost import Cost, Ledger
from shoestring.cost.flops import counting
from shoestring.evaluate.scores import Report
from shoestring.methods.search.inputs import Inputs
from shoestring.methods.search.parallel import Proxy
from shoestring.methods.search.recipe_decoders_candidate import Candidate, Said
from shoestring.methods.search.recipe_decoders_ground import Ground, prepare
from shoestring.methods.search.recipe_decoders_report import FIXED, FREE, report
from shoestring.methods.search.recipe_decoders_train import export, follow
from shoestring.methods.search.recipe_schema import Recipe
from shoestring.methods.search.recipe_scored import named, scored
from shoestring.methods.search.score import Score
from shoestring.train.side_by_side import Job, side_by_side


def run_decoders(recipe: Recipe, ledger: Ledger, out: Path, name: str) -> Report:
    """Score every drawn decoder, train it at each learning rate from each seed, and hold the scores against the losses.

    `out`/checkpoint becomes the trained model, of the first seed, of the architecture of free size that the first proxy
    ranks highest.
    """
    chosen = recipe.decoders
    assert chosen is not None
    proxies = named(recipe.proxies)
    with ledger.phase("prepare"):
        ground = prepare(recipe, chosen, out)
    said = _said(recipe, ground, proxies, ground.shown(chosen, recipe.seeds[0]), out / "runs")
    for proxy in proxies:
        spent = sum((one[proxy].cost for one in said.values()), Cost())
        ledger.absorb({"": spent.as_dict()}, f"score/{proxy}")
    first = max(ground.drawn.free, key=lambda text: said[text][recipe.proxies[0]].value)
    texts = [first, *(text for text in ground.drawn.every if text != first)]
    jobs = [Job(text, partial(follow, chosen, ground, text, recipe.seeds, text == first, out)) for text in texts]
    candidates = {}
    for text, trainings in zip(texts, side_by_side(jobs, ground.workers), strict=True):
        for training in trainings.values():
            ledger.absorb(training.ledger, "trainings")
        candidates[text] = Candidate(text, ground.drawn.parameters(text), said[text], trainings)
    groups = {
        FREE: [candidates[text] for text in ground.drawn.free],
        FIXED: [candidates[text] for text in ground.drawn.fixed],
    }
    facts = {
        "text": f"{chosen.text} {ground.source_fingerprint}",
        "precision": ground.settled.why,
        "side by side": f"{ground.workers} at once",
    }
    found = report(name, recipe.proxies, groups, facts)
    with ledger.phase("export"):
        export(chosen, ground, first, candidates[first].rate, recipe.seeds[0], out)
    return found


@dataclass(frozen=True)
class Counted:
    """A proxy that says how many FLOPs it takes, in the place of a score; picklable."""

    proxy: Proxy

    def __call__(self, model: nn.Module, inputs: Inputs) -> Score:
        with counting() as counted:
            self.proxy(model, inputs)
        return Score(float(counted.flops))


def _said(
    recipe: Recipe, ground: Ground, proxies: Mapping[str, Proxy], inputs: Inputs, folder: Path
) -> dict[str, dict[str, Said]]:
    """By text and proxy: the mean score over the seeds, and what scoring took from all of them.

    FLOPs are counted apart, in one more pass of one seed, since counting takes longer than what it counts.
    """
    texts, seeds = ground.drawn.every, recipe.seeds
    keys = {(text, seed): f"{text} seed {seed}" for text in texts for seed in seeds}
    builds = {key: ground.build(text, seed) for (text, seed), key in keys.items()}
    found = scored(folder / "scores.jsonl", "scoring", builds, proxies, inputs, ground.workers)
    counters = {name: Counted(proxy) for name, proxy in proxies.items()}
    once = {text: ground.build(text, seeds[0]) for text in texts}
    counts = scored(folder / "flops.jsonl", "counting FLOPs", once, counters, inputs, ground.workers)
    said: dict[str, dict[str, Said]] = {}
    for text in texts:
        kept = {name: [found[keys[text, seed]][name] for seed in seeds] for name in proxies}
        said[text] = {
            name: Said(
                fmean(one.score.value for one in each),
                Cost(
                    flops=len(seeds) * counts[text][name].score.value,
                    seconds=sum(one.seconds for one in each),
                ),
            )
            for name, each in kept.items()
        }
    return said
