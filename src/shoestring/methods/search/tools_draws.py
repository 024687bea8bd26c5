"""What `find` does: draw architectures, score them, keep each score as it arrives, and rank."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from shoestring import runtime
from shoestring.config import nearest
from shoestring.data import corpora, tokenizers
from shoestring.data.batches import TokenBatches
from shoestring.data.tokens import packed
from shoestring.methods.search import tools_spaces
from shoestring.methods.search.decoders import Decoders
from shoestring.methods.search.images import count, images, labelled
from shoestring.methods.search.inputs import checked, moved
from shoestring.methods.search.latency import Within
from shoestring.methods.search.parallel import Proxy, scores
from shoestring.methods.search.proxies import PROXIES
from shoestring.methods.search.score import Score
from shoestring.methods.search.space import Space
from shoestring.methods.search.tools_kept import Kept
from shoestring.methods.search.tools_rank import Willing
from shoestring.methods.search.tools_score import fitting
from shoestring.types import Batch

TEXTS, IMAGES = 16, 128  # that a network is scored on
RANKED_BY = {"decoder": "decoder_parameters"}  # of a space; others by our own score, which ordered cells best
_SEEN = 1000  # draws in a row that were there before: then there are no more to be found


@dataclass(frozen=True)
class Wanted:
    """What is looked for, and in which folder it is kept; parameters and seconds of a forward pass are the most."""

    space: str
    max_parameters: int | None
    max_seconds: float | None
    data: str | None
    tokenizer: str
    length: int
    images: Path | None
    draws: int
    proxy: str | None
    seed: int
    workers: int
    out: Path


class Found(NamedTuple):
    """Architectures by their text, the best first, with each proxy's score."""

    ranked: dict[str, dict[str, Score]]
    proxy: str
    space: Space[Any]
    tokenizer: PreTrainedTokenizerFast | None


def best(wanted: Wanted, tell: Callable[[str], None]) -> Found:
    """Draw, score what is not yet scored in the folder, and rank.

    tell  is given sentences for people: which proxies cannot be had here, and that there are fewer than asked for
    Raises ValueError on options that do not fit together, a folder that was begun with others, and a proxy that cannot
    rank what was drawn.
    """
    every = PROXIES
    proxy = wanted.proxy or RANKED_BY.get(wanted.space, "span")
    if proxy not in every:
        raise ValueError(f"--proxy {proxy!r}{nearest(proxy, every)}: expected one of {', '.join(every)}")
    space, inputs, tokenizer = _text(wanted, tell) if wanted.space == "decoder" else _pictures(wanted)
    checked(inputs)
    device = runtime.current().device
    kept = Kept(wanted.out, _identity(wanted, space, inputs))
    architectures = _drawn(wanted, space, inputs, kept, device)
    if len(kept.scores) > wanted.draws:
        tell(f"{len(kept.scores)} are scored in {wanted.out}: the best of the first {wanted.draws} drawn is written")
    if len(architectures) < wanted.draws:
        tell(f"{len(architectures)} architectures are all that can be drawn, of {wanted.draws} that were asked for")
    builds = {space.encode(found): partial(_built, space, found, wanted.seed, device) for found in architectures}
    usable = _usable(every, proxy, next(iter(builds.values()))(), inputs, tell)
    missing = {text: build for text, build in builds.items() if not usable.keys() <= kept.scores.get(text, {}).keys()}
    with _progress("scoring", len(missing)) as step:
        for text, found in scores(missing.items(), usable, inputs, wanted.workers):
            kept.add_scores(text, found)
            step()
    rows = {text: {name: kept.scores[text][name] for name in usable} for text in builds}
    return Found(_ranked(rows, proxy), proxy, space, tokenizer)


def write(wanted: Wanted, found: Found) -> None:
    """The best as files: a decoder's config.json and tokenizer, which `model=FOLDER` takes; else its text."""
    text = next(iter(found.ranked))
    if isinstance(found.space, Decoders) and found.tokenizer is not None:
        found.space.configuration(found.space.decode(text)).save_pretrained(wanted.out)
        found.tokenizer.save_pretrained(wanted.out)
    else:
        (wanted.out / "architecture.txt").write_text(f"{text}\n", encoding="utf-8")


def _identity(wanted: Wanted, space: Space[Any], inputs: Batch) -> dict[str, Any]:
    """All that the seconds and scores of an architecture depend on: the budget says only which are drawn."""
    digest = hashlib.sha256(b"".join(inputs[name].numpy().tobytes() for name in sorted(inputs)))
    return {
        "tool": "find",
        "space": wanted.space,
        "vocabulary": space.vocabulary if isinstance(space, Decoders) else None,
        "length": wanted.length if isinstance(space, Decoders) else None,
        "seed": wanted.seed,
        "inputs": digest.hexdigest()[:16],
    }


def _text(wanted: Wanted, tell: Callable[[str], None]) -> tuple[Space[Any], Batch, PreTrainedTokenizerFast]:
    """Decoders for the user's text, a batch of it, and its tokenizer."""
    if wanted.data is None:
        raise ValueError("--space decoder without text: give --data, with a file, a folder, python or hf:NAME")
    documents = (document.text for document in corpora.documents(wanted.data, "train"))
    tokenizer = tokenizers.resolve(wanted.tokenizer, documents)
    space = Decoders(len(tokenizer), wanted.length, max_parameters=wanted.max_parameters)
    tokens = packed(wanted.data, "train", tokenizer)
    try:
        packed(wanted.data, "dev", tokenizer)
    except ValueError as error:
        tell(f"what is found cannot be trained on this text alone; a folder of several files could serve: {error}")
    try:
        batch = next(iter(TokenBatches(tokens, TEXTS, wanted.length, wanted.seed)))
    except ValueError as error:
        raise ValueError(
            f"--data {wanted.data}: too little text for {TEXTS} windows of {wanted.length} tokens, which networks are "
            "scored on: give more, or a smaller --length"
        ) from error
    return space, batch, tokenizer


def _pictures(wanted: Wanted) -> tuple[Space[Any], Batch, None]:
    """A space of networks for images, and a batch of the user's, with their labels where they have any."""
    if wanted.max_parameters is not None:
        raise ValueError(f"--max-params with --space {wanted.space}: expected --space decoder; others have no budget")
    if wanted.images is None:
        raise ValueError(f"--space {wanted.space} without images: give --images, with a folder, an .npz or an .npy")
    space = tools_spaces.named(wanted.space)
    held = count(wanted.images)
    if held < IMAGES:
        raise ValueError(
            f"--images {wanted.images}: holds {held} images: networks are scored on {IMAGES}, give so many"
        )
    try:
        drawn, labels = labelled(wanted.images, IMAGES, seed=wanted.seed)
    except ValueError:
        return space, {"images": images(wanted.images, IMAGES, seed=wanted.seed)}, None
    return space, {"images": drawn, "labels": labels}, None


def _drawn(wanted: Wanted, space: Space[Any], inputs: Batch, kept: Kept, device: torch.device) -> list[Any]:
    """Different architectures, in the order of the draws; the latency of each is measured before anything is scored."""
    source, random = space, Random(wanted.seed)
    if wanted.max_seconds is not None:
        one = {name: value[:1] for name, value in inputs.items()}
        source = Within(space, wanted.max_seconds, moved(one, device), known=dict(kept.seconds))
    found: dict[Any, None] = {}
    again = 0
    with _progress("drawing", wanted.draws if wanted.max_seconds is not None else 0) as step:
        while len(found) < wanted.draws and again < _SEEN:
            architecture = source.draw(random)
            if isinstance(source, Within):
                for text in source.known.keys() - kept.seconds.keys():
                    kept.add_seconds(text, source.known[text])
            if architecture in found:
                again += 1
                continue
            found[architecture], again = None, 0
            step()
    return list(found)


def _built(space: Space[Any], architecture: Any, seed: int, device: torch.device) -> nn.Module:
    return space.build(architecture, seed).to(device)


def _usable(
    every: Mapping[str, Proxy], chosen: str, model: nn.Module, inputs: Batch, tell: Callable[[str], None]
) -> dict[str, Proxy]:
    """The proxies that take such networks and inputs, tried on one. Raises ValueError where `chosen` does not."""
    fitting(model, inputs)
    usable: dict[str, Proxy] = {}
    for name, proxy in every.items():
        try:
            proxy(model, inputs)
        except ValueError as error:
            if name == chosen:
                raise ValueError(f"--proxy {name} cannot rank these: {error}") from error
            tell(f"left out: {name}: {error}")
            continue
        usable[name] = Willing(proxy)
    return usable


def _ranked(rows: dict[str, dict[str, Score]], proxy: str) -> dict[str, dict[str, Score]]:
    """The highest first, of equals the one drawn first; what has no value is last."""
    values = {text: row[proxy].value for text, row in rows.items()}
    order = sorted(rows, key=lambda text: -math.inf if math.isnan(values[text]) else values[text], reverse=True)
    if not math.isfinite(values[order[0]]):
        raise ValueError(f"{proxy} gives {values[order[0]]} for the best drawn: give another --proxy, or more --draws")
    return {text: rows[text] for text in order}


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not total) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
