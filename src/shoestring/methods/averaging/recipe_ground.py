"""What all trajectories of the experiment stand on: packed text, the tokenizer, and how to compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shoestring import files, runtime
from shoestring.data import corpora, tokenizers
from shoestring.data.batches import TokenBatches, windows
from shoestring.data.tokens import Tokens, packed
from shoestring.methods.averaging.recipe_schema import Recipe
from shoestring.methods.averaging.recipe_watch import HeldOut, ring
from shoestring.models import presets
from shoestring.train import optim
from shoestring.train.objectives import next_token
from shoestring.train.settle import Settled, settle
from shoestring.train.side_by_side import affordable
from shoestring.types import Run


@dataclass(frozen=True)
class Ground:
    """Where the text and the tokenizer lie, and what was settled."""

    tokens: dict[str, Path]
    tokenizer: Path
    vocabulary: int
    source_fingerprint: str
    settled: Settled
    workers: int

    def run(self, recipe: Recipe, rate: float, seed: int) -> Run:
        """A run at its first step, on this process's part of the batches."""
        here = runtime.current()
        runtime.seed_everything(seed)
        model = presets.build(presets.configuration(recipe.model, self.vocabulary, recipe.text.length), seed)
        if self.settled.compiled:
            model.compile(dynamic=False)
        rows, length = recipe.text.batch // recipe.accumulate, recipe.text.length
        batches = TokenBatches(Tokens.load(self.tokens["train"]), rows, length, seed, here.rank, here.processes)
        return Run(model, optim.adamw(model, rate), batches)

    def opened_tokenizer(self) -> PreTrainedTokenizerBase:
        return tokenizers.load(str(self.tokenizer))

    def held_out(self, recipe: Recipe, split: str) -> HeldOut:
        """Windows spread over a split, and the bytes of text that their targets are."""
        batches = list(windows(Tokens.load(self.tokens[split]), recipe.text.length, 32, recipe.text.held_out))
        tokenizer = self.opened_tokenizer()
        targets = [row[row >= 0].tolist() for batch in batches for row in batch["labels"]]
        texts = [str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in targets]
        return batches, sum(len(text.encode()) for text in texts)


def prepare(recipe: Recipe, runs: int, out: Path) -> Ground:
    """Pack the text and choose how to compute; both are kept, and found again by a resumed run.

    runs  how many trajectories there will be, which may go side by side
    Raises ValueError where `out` was begun on a text that has changed since.
    """
    compute = recipe.compute
    here = runtime.start(processes=compute.processes, sharding=compute.sharding)
    with here.accelerator.main_process_first():
        return _prepared(recipe, runs, out)


def _prepared(recipe: Recipe, runs: int, out: Path) -> Ground:
    text, here = recipe.text, runtime.current()
    fingerprint = corpora.fingerprint(text.source)
    folder = out / "tokenizer"
    if here.rank == 0:
        if not (out / "runs").exists():  # nothing was computed yet in the way that is kept there
            (out / "settled.json").unlink(missing_ok=True)
        files.begun_on(out, {text.source: fingerprint})
        documents = (document.text for document in corpora.documents(text.source, "train"))
        tokenizers.resolve(text.tokenizer, documents).save_pretrained(folder)
    tokenizer = tokenizers.load(str(folder))
    tokens = {split: packed(text.source, split, tokenizer) for split in ("train", "dev", "test")}
    model = presets.build(presets.configuration(recipe.model, len(tokenizer), text.length), recipe.seeds[0])
    rows = text.batch // recipe.accumulate // here.processes
    batch = next(iter(TokenBatches(tokens["train"], rows, text.length, seed=0)))
    workers = recipe.compute.workers or affordable(runs, _trajectory_bytes(recipe, model))
    threads = runtime.threads(workers * here.processes)
    passes = recipe.steps * recipe.accumulate
    settled = settle(model, next_token, batch, passes, out / "settled.json", threads, recipe.compute.precision)
    places = {split: found.folder for split, found in tokens.items()}
    return Ground(places, folder, len(tokenizer), fingerprint, settled, workers)


def _trajectory_bytes(recipe: Recipe, model: PreTrainedModel) -> float:
    """An estimate of the memory of one trajectory: weights, gradients, two moments, snapshots, activations."""
    config = model.config
    copies = 4 + ring(recipe.averages) + len(recipe.averages.decays) + 3
    rows = recipe.text.batch // recipe.accumulate * recipe.text.length
    activations = rows * (config.vocab_size * 12 + config.num_hidden_layers * config.hidden_size * 4 * 34)
    return float(7e8 + 4 * model.num_parameters() * copies + activations)
