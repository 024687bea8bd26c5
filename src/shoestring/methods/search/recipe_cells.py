"""The experiment over image cells: scores of untrained networks against a table of trained ones, and searches in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import fmean

from safetensors.torch import save_file

from shoestring import files, runtime
from shoestring.cost import Cost, Ledger, flops
from shoestring.evaluate.scores import Report
from shoestring.methods.search.cells201 import Cells201, canonical, stripped
from shoestring.methods.search.images import labelled
from shoestring.methods.search.inputs import Inputs
from shoestring.methods.search.parallel import Proxy
from shoestring.methods.search.proxies import PROXIES
from shoestring.methods.search.recipe_cells_report import COUNT, Ranked, report
from shoestring.methods.search.recipe_schema import Recipe
from shoestring.methods.search.recipe_scored import Kept, named, scored
from shoestring.methods.search.recipe_searches import simulate
from shoestring.methods.search.table import Table

COUNTED = 4  # networks whose FLOPs are counted for each proxy


def run_cells(recipe: Recipe, ledger: Ledger, out: Path, name: str) -> Report:
    """Score the drawn cells, hold the scores against what training gave, and search the table with them.

    Cells whose networks compute the same edges (`stripped`) share one network and its scores, but for the parameter
    count. `out`/runs/scores.jsonl keeps each score as it arrives; `out`/checkpoint becomes the untrained network that
    the first proxy ranks highest.
    """
    assert recipe.cells is not None
    cells, space = recipe.cells, Cells201(recipe.cells.channels, recipe.cells.depth)
    table, images_from = Table.read(files.find(cells.table), space), files.find(cells.images)
    for column in (*cells.accuracies, cells.validation):
        table.value(next(iter(table))[0], column)
    with ledger.phase("prepare"):
        read = {cells.table: files.find(cells.table), cells.images: images_from}
        files.begun_on(out, {name: sha256(path.read_bytes()).hexdigest() for name, path in read.items()})
        images, labels = labelled(images_from, cells.samples, 32, recipe.seeds[0])
        inputs: Inputs = {"images": images, "labels": labels}
        texts = [text for text, _ in table]
        pool = Random(recipe.seeds[0]).sample(texts, min(cells.pool or len(texts), len(texts)))
        rows, kept_aside = pool[: cells.rows], aside(space, texts)
        if max(cells.draws) > len(pool):
            raise ValueError(f"draws is {max(cells.draws)}, but {len(pool)} cells are scored: expected at most as many")
        proxies = named(recipe.proxies)
        passes = _passes(space, rows[:COUNTED], proxies, inputs)
    found = _scored(recipe, space, pool, rows, proxies, inputs, out)
    costs = _costs(rows, found, passes, len(images))
    for proxy, cost in costs.items():
        kept = {id(found[text][proxy]): found[text][proxy] for text in pool if proxy in found[text]}.values()
        spent = Cost(flops=cost.flops * len(kept), seconds=sum(one.seconds for one in kept))
        ledger.absorb({"": spent.as_dict()}, f"score/{proxy}")
    values = {
        proxy: {text: scores[proxy].score.value for text, scores in found.items() if proxy in scores}
        for proxy in proxies
    }
    ranked = Ranked(
        {column: [table.value(text, column) for text in rows] for column in cells.accuracies},
        {proxy: [values[proxy][text] for text in rows] for proxy in proxies},
        [text in kept_aside for text in rows],
        costs,
    )
    with ledger.phase("search"):
        rates = {proxy: values[proxy] for proxy in cells.searching}
        searched = simulate(cells, space, table, rates, passes, kept_aside, recipe.seeds[0])
    _keep(space, max(rows, key=values[recipe.proxies[0]].__getitem__), recipe, out)
    flops_of_one = fmean(values["flops"][text] for text in rows)
    return report(recipe, name, ranked, searched, 3.0 * cells.epochs * cells.epoch_images * flops_of_one)


def aside(space: Cells201, texts: Sequence[str]) -> set[str]:
    """Those of a table's cells that were not looked at while our own score was chosen, nor any that compute the same.

    What was looked at was the half of the canonical texts whose SHA-256 of `split` and the text is even.
    """
    cells = {text: space.decode(text) for text in texts}
    even = [cell for cell in cells.values() if not sha256(f"split{canonical(cell)}".encode()).digest()[-1] % 2]
    seen = {canonical(cell, linear=True) for cell in even}
    return {text for text, cell in cells.items() if canonical(cell, linear=True) not in seen}


def _scored(
    recipe: Recipe,
    space: Cells201,
    pool: Sequence[str],
    rows: Sequence[str],
    proxies: Mapping[str, Proxy],
    inputs: Inputs,
    out: Path,
) -> dict[str, dict[str, Kept]]:
    """Scores by cell: of the rows by every proxy, of the rest of the pool by those that search.

    What a network computes decides every score but the parameter count, which also counts what it does not compute.
    """
    assert recipe.cells is not None
    workers, seed, kept = recipe.workers or runtime.cores(), recipe.seeds[0], out / "runs"
    written = {text: space.decode(text) for text in pool}
    same = {text: space.encode(stripped(cell)) for text, cell in written.items()}
    builds = {key: partial(space.build, space.decode(key), seed) for key in same.values()}
    computed = {name: proxy for name, proxy in proxies.items() if name != COUNT}
    of_rows = {same[text]: builds[same[text]] for text in rows}
    first = scored(kept / "scores.jsonl", "cells, every proxy", of_rows, computed, inputs, workers)
    searching = {name: computed[name] for name in recipe.cells.searching if name != COUNT}
    every = scored(kept / "scores.jsonl", "cells to search", builds, searching, inputs, workers)
    counts = {text: partial(space.build, cell, seed) for text, cell in written.items()}
    counted = scored(kept / "parameters.jsonl", "parameters", counts, {COUNT: proxies[COUNT]}, inputs, 1)
    return {text: {**every[same[text]], **first.get(same[text], {}), **counted[text]} for text in pool}


def _passes(space: Cells201, texts: Sequence[str], proxies: Mapping[str, Proxy], inputs: Inputs) -> dict[str, float]:
    """The FLOPs of each proxy as a multiple of a forward pass over its batch, by counting those of a few networks."""
    samples, forward = len(next(iter(inputs.values()))), 0.0
    counted = dict.fromkeys(proxies, 0)
    for text in texts:
        model = space.build(space.decode(text), 0)
        forward += PROXIES["flops"](model, inputs).value * samples
        for name, proxy in proxies.items():
            counted[name] += flops.count(partial(proxy, model, inputs))
    return {name: count / forward for name, count in counted.items()}


def _costs(
    rows: Sequence[str], found: Mapping[str, Mapping[str, Kept]], passes: Mapping[str, float], samples: int
) -> dict[str, Cost]:
    """What each proxy takes for one network: seconds of one process as measured, FLOPs in proportion of a pass."""
    forward = samples * fmean(found[text]["flops"].score.value for text in rows)
    return {
        name: Cost(flops=share * forward, seconds=fmean(found[text][name].seconds for text in rows))
        for name, share in passes.items()
    }


def _keep(space: Cells201, text: str, recipe: Recipe, out: Path) -> None:
    """The untrained network of a cell as it was scored, as weights and its text."""
    folder, cell = out / "checkpoint", stripped(space.decode(text))
    folder.mkdir(exist_ok=True)
    model = space.build(cell, recipe.seeds[0])
    told = {"space": space.name, "architecture": space.encode(cell)}
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata=told)
    files.replace(folder / "architecture.json", json.dumps({**told, "seed": recipe.seeds[0]}, indent=1))
