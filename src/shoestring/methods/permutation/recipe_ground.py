"""What all runs of the experiment stand on: packed text, the tokenizer, the spans that are scored, how to compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast, XLNetConfig, XLNetLMHeadModel

from shoestring import files, runtime
from shoestring.data import corpora, tokenizers, tokens
from shoestring.data.splits import Document, Split
from shoestring.data.tokens import Tokens
from shoestring.methods.permutation import configurations, vocabulary
from shoestring.methods.permutation.memory import Memory
from shoestring.methods.permutation.micro_batches import MicroBatches
from shoestring.methods.permutation.objectives import Pretraining
from shoestring.methods.permutation.recipe_schema import PERMUTATION, Arm, Recipe
from shoestring.methods.permutation.recipe_tasks import fingerprints as task_fingerprints
from shoestring.methods.permutation.stream import PermutationBatches
from shoestring.methods.permutation.vocabulary import Vocabulary
from shoestring.train import optim
from shoestring.train.settle import Settled, settle
from shoestring.train.side_by_side import affordable
from shoestring.types import Batches, Run

_SPLITS: tuple[Split, ...] = ("train", "dev", "test")


@dataclass(frozen=True)
class Ground:
    """Where the text and the tokenizer lie, and what was settled.

    data  fingerprints of all that is read, by name
    """

    recipe: Recipe
    tokens: dict[str, Path]
    tokenizer: Path
    settled: Settled
    workers: int
    data: dict[str, str]

    def opened_tokenizer(self) -> PreTrainedTokenizerFast:
        return tokenizers.load(str(self.tokenizer))

    def run(self, arm: Arm, rate: float, seed: int) -> tuple[Run, Pretraining]:
        """A run at its first step, with its objective, whose memory is a hook."""
        recipe = self.recipe
        runtime.seed_everything(seed + runtime.current().rank)  # the weights are of the seed alone
        model = configurations.build(configuration(recipe, arm, len(self.opened_tokenizer())), seed)
        several = arm.kind != "autoregressive" and recipe.text.segments == "two"
        configurations.readied(model, arm.kind, several, recipe.compute.checkpointing)
        chosen = recipe.optimizer
        optimizer = optim.adamw(model, rate, chosen.weight_decay, chosen.betas)
        return Run(model, optimizer, self.batches(arm, seed)), objective(recipe, arm, model.config)

    def batches(self, arm: Arm, seed: int) -> Batches:
        here, text = runtime.current(), self.recipe.text
        causal = arm.kind == "autoregressive"
        stream = PermutationBatches(
            Tokens.load(self.tokens["train"]),
            Vocabulary.of(self.opened_tokenizer()),
            text.batch,
            text.length,
            text.length if causal else text.reuse,
            text.scattered if arm.bert else text.predicted,
            seed,
            memory=self.recipe.memory if arm.memory else 0,
            segments="one" if causal else text.segments,
            spans=text.spans if arm.spans else "single",
            bidirectional=arm.bidirectional,
            rank=here.rank,
            world=here.processes,
        )
        parts = self.recipe.compute.accumulate
        return stream if parts == 1 else MicroBatches(stream, parts, arm.bidirectional)


def configuration(recipe: Recipe, arm: Arm, size: int) -> XLNetConfig:
    """The configuration that an arm is pretrained with, for a vocabulary of a size."""
    causal = arm.kind == "autoregressive"
    return configurations.configuration(
        recipe.model,
        size,
        **recipe.changes,
        mem_len=recipe.memory if arm.memory else None,
        reuse_len=None if causal else recipe.text.reuse,
        attn_type="uni" if causal else "bi",
    )


def objective(recipe: Recipe, arm: Arm, config: XLNetConfig) -> Pretraining:
    return Pretraining(arm.kind, Memory(config, recipe.compute.accumulate), recipe.text.reuse, arm.bidirectional)


def prepare(recipe: Recipe, runs: int, out: Path) -> Ground:
    """Make the tokenizer, pack the text, choose how to compute; all is kept, and found again by a resumed run.

    runs  how many there will be, which may go side by side
    Raises ValueError where `out` was begun on data that has changed since.
    """
    here = runtime.start(processes=recipe.compute.processes)
    with here.accelerator.main_process_first():
        return _prepared(recipe, runs, out)


def _prepared(recipe: Recipe, runs: int, out: Path) -> Ground:
    here, folder = runtime.current(), out / "tokenizer"
    data = {name: corpora.fingerprint(corpora.located(name)) for name in recipe.text.sources}
    data |= task_fingerprints(recipe)
    if here.rank == 0:
        of = {"data": data, "recipe": recipe.model_dump(mode="json", exclude={"compute": {"workers", "save_seconds"}})}
        files.made_of(out, of, ("settled.json", "tokenizer", "tokens"))
        files.begun_on(out, data)
        if not folder.exists():
            made = vocabulary.opened(recipe.text.tokenizer, (one.text for one in documents(recipe, "train")))
            vocabulary.save(vocabulary.prepared(made)[0], folder)
    tokenizer = tokenizers.load(str(folder))
    places: dict[str, Path] = {}
    for split in _SPLITS:
        place = places[split] = out / "tokens" / split
        if not place.exists():
            tokens.pack(documents(recipe, split), tokenizer, place)
        Tokens.load(place, expect=tokenizers.fingerprint(tokenizer))
    ground = Ground(recipe, places, folder, Settled("fp32", False, 1, ""), 1, data)
    arm = recipe.arm(PERMUTATION)
    model: XLNetLMHeadModel = configurations.build(configuration(recipe, arm, len(tokenizer)), recipe.seeds[0])
    batch = next(iter(ground.batches(arm, recipe.seeds[0])))
    workers = recipe.compute.workers or affordable(runs, _bytes(recipe, model))
    threads = runtime.threads(workers * here.processes)
    learnt = objective(recipe, arm, model.config)
    kept = out / "settled.json"
    settled = settle(model, learnt, batch, recipe.steps, kept, threads, recipe.compute.precision, one_shape=False)
    return Ground(recipe, places, folder, settled, workers, data)


def documents(recipe: Recipe, split: Split) -> Iterator[Document]:
    return corpora.gathered([corpora.located(name) for name in recipe.text.sources], split)


def _bytes(recipe: Recipe, model: XLNetLMHeadModel) -> float:
    """An estimate of the memory of one run: weights, gradients, two moments, activations."""
    config, text = model.config, recipe.text
    rows = text.batch // recipe.compute.accumulate
    states = rows * (text.length + text.predicted) * config.n_layer * config.d_model * 4 * 30
    logits = rows * text.length * config.vocab_size * 12  # all positions, of the autoregressive arm
    return float(8e8 + 16 * model.num_parameters() + states + logits)
