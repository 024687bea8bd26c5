"""What all trainings of the experiment over decoders stand on: packed text, the architectures, and how to compute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from torch import nn
from transformers import PreTrainedTokenizerBase

from shoestring import files, runtime
from shoestring.data import corpora, tokenizers
from shoestring.data.batches import TokenBatches, windows
from shoestring.data.tokens import Tokens, packed
from shoestring.methods.search.recipe_decoders_draw import Drawn, drawn
from shoestring.methods.search.recipe_schema import Decoders, Recipe
from shoestring.train import optim
from shoestring.train.objectives import next_token
from shoestring.train.settle import Settled, settle
from shoestring.train.side_by_side import affordable
from shoestring.types import Batch, Run


@dataclass(frozen=True)
class Ground:
    """Where the text and the tokenizer lie, which architectures were drawn, and what was settled."""

    tokens: dict[str, Path]
    tokenizer: Path
    source_fingerprint: str
    drawn: Drawn
    settled: Settled
    workers: int

    def build(self, text: str, seed: int) -> partial[nn.Module]:
        """What builds the untrained network of a text."""
        return partial(self.drawn.space.build, self.drawn.space.decode(text), seed)

    def run(self, chosen: Decoders, text: str, rate: float, seed: int) -> Run:
        """A training at its first step."""
        runtime.seed_everything(seed)
        model = self.build(text, seed)()
        if self.settled.compiled:
            model.compile(dynamic=False)
        batches = TokenBatches(Tokens.load(self.tokens["train"]), chosen.batch, chosen.length, seed)
        return Run(model, optim.adamw(model, rate), batches)

    def shown(self, chosen: Decoders, seed: int) -> Batch:
        """The windows of training text that untrained networks are scored on."""
        train = Tokens.load(self.tokens["train"])
        return next(iter(TokenBatches(train, chosen.scored_windows, chosen.length, seed)))

    def held_out(self, chosen: Decoders, split: str) -> list[Batch]:
        """Windows spread over a split."""
        return list(windows(Tokens.load(self.tokens[split]), chosen.length, 32, chosen.held_out))

    def opened_tokenizer(self) -> PreTrainedTokenizerBase:
        return tokenizers.load(str(self.tokenizer))


def prepare(recipe: Recipe, chosen: Decoders, out: Path) -> Ground:
    """Pack the text, draw the architectures and choose how to compute; a resumed run finds all of it again.

    Raises ValueError where `out` was begun on a text that has changed since.
    """
    runtime.start(processes=1)
    fingerprint = corpora.fingerprint(chosen.text)
    folder = out / "tokenizer"
    if not (out / "runs").exists():  # nothing was computed yet in the way that is kept there
        (out / "settled.json").unlink(missing_ok=True)
    files.begun_on(out, {chosen.text: fingerprint})
    documents = (document.text for document in corpora.documents(chosen.text, "train"))
    tokenizers.resolve(chosen.tokenizer, documents).save_pretrained(folder)
    tokenizer = tokenizers.load(str(folder))
    tokens = {split: packed(chosen.text, split, tokenizer) for split in ("train", "dev", "test")}
    found = drawn(chosen, len(tokenizer), Random(recipe.seeds[0]))
    largest = found.space.decode(found.every[0])
    workers = recipe.workers or affordable(len(found.every), _training_bytes(chosen, found))
    batch = next(iter(TokenBatches(tokens["train"], chosen.batch, chosen.length, seed=0)))
    settled = settle(
        found.space.build(largest, recipe.seeds[0]),
        next_token,
        batch,
        chosen.steps,
        out / "settled.json",
        runtime.threads(workers),
        chosen.precision,
    )
    places = {split: packs.folder for split, packs in tokens.items()}
    return Ground(places, folder, fingerprint, found, settled, workers)


def _training_bytes(chosen: Decoders, found: Drawn) -> float:
    """An estimate of the memory of the largest training: weights, gradients, two moments, activations."""
    largest = found.space.decode(found.every[0])
    rows = chosen.batch * chosen.length
    inner = 12 * largest.width + 4 * largest.inner
    return (
        7e8
        + 16.0 * found.parameters(found.every[0])
        + 4.0 * rows * (3 * found.space.vocabulary + inner * largest.layers)
    )
