"""What all runs of the experiment stand on: tasks, tokenizers, common starts, and how to compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from shoestring import files, runtime
from shoestring.cost import Ledger
from shoestring.data import corpora, tokenizers
from shoestring.methods.rationale import corruption, datasets, recipe_models
from shoestring.methods.rationale.chains import DIGITS
from shoestring.methods.rationale.encode import Coder, Family, batch, check_room
from shoestring.methods.rationale.lessons import LABEL, RATIONALE, Way, Wording, lessons
from shoestring.methods.rationale.loss import written
from shoestring.methods.rationale.recipe_base import SPENT, Pretraining
from shoestring.methods.rationale.recipe_data import Task, fingerprints, of_chains, of_sets
from shoestring.methods.rationale.recipe_lessons import check_lessons
from shoestring.methods.rationale.recipe_models import family, preset, slug
from shoestring.methods.rationale.recipe_models import folder as folder_of
from shoestring.methods.rationale.recipe_schema import Recipe, is_preset
from shoestring.methods.rationale.recipe_teacher import TAUGHT, teach
from shoestring.models import lora, pretrained, seq2seq
from shoestring.train.settle import Settled, settle
from shoestring.train.side_by_side import Job, affordable, side_by_side
from shoestring.types import Batch

WORDING = Wording()
_TAUGHT = datasets.kept(datasets.Form(options=DIGITS))


@dataclass(frozen=True)
class Start:
    """Where the runs of one model begin.

    tokenizer  its folder
    folder     a model folder that every run goes on from; None where each seed draws its own weights
    """

    name: str
    family: Family
    tokenizer: Path
    folder: Path | None
    settled: Settled


@dataclass(frozen=True)
class Ground:
    """The recipe, and what was prepared for it in `out`.

    tasks, starts  by name; sizes, parameters by name of the model
    data           fingerprints of what is read
    """

    recipe: Recipe
    tasks: dict[str, Task]
    starts: dict[str, Start]
    sizes: dict[str, int]
    workers: int
    data: dict[str, str]

    def coder(self, name: str) -> Coder:
        start = self.starts[name]
        return Coder(tokenizers.load(str(start.tokenizer)), start.family, *self.recipe.lessons.tokens)

    def model(self, name: str, seed: int) -> PreTrainedModel:
        """The model before its first step, in training mode."""
        start = self.starts[name]
        runtime.seed_everything(seed)
        if start.folder is None:
            return preset(self.recipe, name, len(tokenizers.load(str(start.tokenizer))), seed)
        model = pretrained.load(start.folder, kind="any")[0].float().train()
        adapters = self.recipe.model.lora
        if adapters is not None:
            lora.add(model, adapters.rank, adapters.alpha, adapters.dropout, seed=seed)
        return model


def prepare(recipe: Recipe, arms: Sequence[str], runs: int, ledger: Ledger, out: Path) -> Ground:
    """Ask the teacher, make the tokenizer, train the bases, choose how to compute; all is kept for a resumed run.

    arms  that will be run; runs, how many there will be, which may go side by side
    Raises ValueError where `out` was begun on data, or a model, that has changed since, and where an arm would have
    nothing to learn.
    """
    compute = recipe.compute
    made_here = [name for name in recipe.model.names if is_preset(name)]
    if recipe.model.lora is not None and made_here:
        raise ValueError(f"model.lora with the preset {made_here[0]!r}: expected trained models, whose weights stay")
    if not made_here and (recipe.model.changes or recipe.base is not None):
        raise ValueError(f"model.changes or base with {recipe.model.names[0]!r} alone: expected a preset for them")
    here = runtime.start(processes=compute.processes)
    with here.accelerator.main_process_first():
        data = {**fingerprints(recipe), **recipe_models.fingerprints(recipe)}
        if here.rank == 0:
            if not (out / "runs").exists():  # nothing was computed yet in the way that is kept there
                for kept in out.glob("settled-*.json"):
                    kept.unlink()
            files.begun_on(out, data)
            if recipe.chains is not None:
                with ledger.phase("teacher"):
                    teach(recipe, ledger, out)
        found = of_sets(recipe) if recipe.chains is None else [of_chains(recipe, datasets.read(out / TAUGHT, _TAUGHT))]
        check_lessons(recipe, found, arms)
        made = out / "tokenizer"
        if here.rank == 0 and made_here and not made.exists():
            _tokenizer(recipe, found).save_pretrained(made)
        largest = [_settled(recipe, name, found[0], out, runs) for name in recipe.model.names]
    workers = min(workers for workers, _, _ in largest)
    sizes = {name: size for name, (_, _, size) in zip(recipe.model.names, largest, strict=True)}
    starts = {}
    for name, (_, settled, _) in zip(recipe.model.names, largest, strict=True):
        folder = None if is_preset(name) else folder_of(name, out)
        if recipe.base is not None and is_preset(name):
            folder = _base(recipe, name, settled, ledger, out)
        tokenizer = made if is_preset(name) else folder_of(name, out)
        starts[name] = Start(name, family(name, out), tokenizer, folder, settled)
    return Ground(recipe, {task.name: task for task in found}, starts, sizes, workers, data)


def _settled(recipe: Recipe, name: str, task: Task, out: Path, runs: int) -> tuple[int, Settled, int]:
    """How many runs of a model go side by side, how each computes, and how many parameters it has."""
    compute = recipe.compute
    if is_preset(name):
        tokenizer = tokenizers.load(str(out / "tokenizer"))
        model = preset(recipe, name, len(tokenizer), recipe.seeds[0])
    else:
        model, _ = pretrained.load(folder_of(name, out), kind="any")
        tokenizer = tokenizers.load(str(folder_of(name, out)))
        model = model.float().train()
    check_room(model, *recipe.lessons.tokens)
    coder = Coder(tokenizer, family(name, out), *recipe.lessons.tokens)
    example = _batch(recipe, task, coder)
    workers = compute.workers or affordable(runs, _bytes(model, example))
    threads = runtime.threads(workers * compute.processes)
    kept = out / f"settled-{slug(name)}.json"
    settled = settle(model, written, example, recipe.steps, kept, threads, compute.precision, one_shape=False)
    return workers, settled, model.num_parameters()


def _base(recipe: Recipe, name: str, settled: Settled, ledger: Ledger, out: Path) -> Path:
    assert recipe.base is not None
    start = out / f"base-{slug(name)}"
    if not start.exists():
        model = preset(recipe, name, len(tokenizers.load(str(out / "tokenizer"))), recipe.base.seed)
        checkpoints = out / "runs" / start.name
        work = Pretraining(recipe, model, family(name, out), out / "tokenizer", settled, start, checkpoints)
        side_by_side([Job(start.name, work)], 1)
    runtime.current().accelerator.wait_for_everyone()
    mend = "delete the folder, and the base is trained again"
    ledger.absorb(files.read_json(start / SPENT, mend), start.name)
    return start


def _tokenizer(recipe: Recipe, found: list[Task]) -> PreTrainedTokenizerFast:
    made = tokenizers.resolve(recipe.model.tokenizer, _texts(recipe, found))
    if recipe.base is not None and any(name in seq2seq.names() for name in recipe.model.names):
        made.add_special_tokens({"additional_special_tokens": corruption.marks()})
    return made


def _texts(recipe: Recipe, found: list[Task]) -> Iterator[str]:
    """What a tokenizer is trained on: the base's text, and what the students read and write."""
    if recipe.base is not None:
        yield from (document.text for document in corpora.documents(corpora.located(recipe.base.text), "train"))
    for task in found:
        for example in task.train:
            yield from (text for text in (example.text, example.label, example.rationale) if text)


def _batch(recipe: Recipe, task: Task, coder: Coder) -> Batch:
    """A batch of reasons, the longer of the two tasks' (of labels where there are no reasons)."""
    labelled = [example for example in task.train if example.label or example.teacher_label]
    reasoned = [example for example in labelled if example.rationale]
    way: Way = "two-task" if reasoned else "standard"
    made = lessons((reasoned or labelled)[: 4 * recipe.batch], way, WORDING)
    chosen = (made.get(RATIONALE) or made[LABEL])[: max(1, recipe.batch // recipe.compute.processes)]
    return batch(coder.pairs(chosen), coder.family, coder.end)


def _bytes(model: PreTrainedModel, example: Batch) -> float:
    """An estimate of the memory of one run: weights, gradients, two moments, activations."""
    config = model.config
    width, layers = config.hidden_size, 2 * config.num_hidden_layers
    tokens = example["input_ids"].numel() + example["labels"].numel()
    return float(8e8 + 16 * model.num_parameters() + tokens * (config.vocab_size * 12 + layers * width * 4 * 40))
