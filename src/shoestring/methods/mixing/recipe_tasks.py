"""The experiment's tasks: skills, the pools they are drawn from, and what is held out of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from shoestring.data import corpora, tokenizers
from shoestring.data.splits import Split
from shoestring.data.tokens import packed
from shoestring.methods.mixing.addition import addition
from shoestring.methods.mixing.lego import KINDS, lego, look_up
from shoestring.methods.mixing.recipe_schema import Recipe
from shoestring.methods.mixing.recipe_tasks_schema import Addition, Domains, Lego
from shoestring.methods.mixing.samples import Pieces, Samples
from shoestring.methods.mixing.windows import Windows
from shoestring.types import Batch

_ROWS = 256  # held-out samples scored at once
_TOKENS = 8192  # or tokens
SPLITS = ("train", "dev", "test")
_LOOKED_UP = 20000  # samples of the base, of each kind


@dataclass(frozen=True)
class Task:
    """What is learned, ready to be drawn from.

    skills     that can be trained on; `evaluated` those that losses are measured of
    pools      samples by skill
    held_out   by split ("dev", "test") and evaluated skill
    length     tokens a sample
    answers    whether samples have answers, whose accuracy is scored
    """

    skills: tuple[str, ...]
    evaluated: tuple[str, ...]
    pools: dict[str, Any]
    held_out: dict[str, dict[str, list[Batch]]]
    length: int
    answers: bool

    @property
    def sizes(self) -> dict[str, float]:
        return {name: float(len(pool)) for name, pool in self.pools.items()}


def task(recipe: Recipe, tokenizer: Path) -> Task:
    """The task of a recipe, with the tokenizer of a folder; made once a process."""
    return _made(recipe.model_dump_json(), tokenizer)


@cache
def _made(told: str, tokenizer: Path) -> Task:
    recipe = Recipe.model_validate_json(told)
    opened = tokenizers.load(str(tokenizer))
    if recipe.domains is not None:
        return _domains(recipe.domains, recipe.held_out, opened)
    if recipe.lego is not None:
        return _questions(_lego(recipe.lego), recipe.lego.sizes, recipe.held_out, opened, recipe.lego.whole)
    assert recipe.addition is not None
    return _questions(_addition(recipe.addition), recipe.addition.sizes, recipe.held_out, opened)


def fingerprints(recipe: Recipe) -> dict[str, str]:
    """What the task's data is told from others by: of text, its contents; what is generated is the recipe's own."""
    read = (
        {} if recipe.domains is None else {name or "text": source for name, source in _sources(recipe.domains).items()}
    )
    if recipe.base is not None and recipe.base.text is not None:
        read["base"] = corpora.located(recipe.base.text)
    return {name: f"{Path(source).name} {corpora.fingerprint(source)}" for name, source in read.items()}


def tokenizer_texts(recipe: Recipe) -> Iterator[str]:
    """What a tokenizer of the recipe's own is trained on."""
    if recipe.domains is None:
        raise ValueError(
            f"tokenizer {recipe.model.tokenizer!r}: expected 'bytes' or one that exists, for generated questions"
        )
    for source in dict.fromkeys(_sources(recipe.domains).values()):
        yield from (document.text for document in corpora.documents(source, "train"))


def look_ups(clauses: int, tokenizer: Path, seed: int) -> Samples:
    """What a base learns before LEGO."""
    pieces = [sample for kind in KINDS for sample in look_up(clauses, kind, _LOOKED_UP, seed)]
    return Samples(pieces, tokenizers.load(str(tokenizer)))


def base_text(source: str, length: int, tokenizer: Path) -> Windows:
    """Windows of text that a base is trained on."""
    return Windows(packed(corpora.located(source), "train", tokenizers.load(str(tokenizer))), length)


Make = Callable[[int, int, int], Sequence[Pieces]]  # (skill, count, seed)


def _lego(chosen: Lego) -> tuple[tuple[str, ...], Make]:
    names = tuple(f"depth {depth}" for depth in range(1, chosen.clauses + 1))
    return names, lambda skill, count, seed: lego(chosen.clauses, skill + 1, count, seed, chosen.style)


def _addition(chosen: Addition) -> tuple[tuple[str, ...], Make]:
    names = tuple(f"digit {digit}" for digit in range(chosen.digits))
    return names, lambda skill, count, seed: addition(chosen.digits, skill, count, seed, chosen.style)


def _questions(
    made: tuple[tuple[str, ...], Make],
    sizes: Sequence[int],
    held_out: tuple[int, int],
    tokenizer: Any,
    whole: bool = False,
) -> Task:
    """Pools by skill; what is held out is asked in no pool of any skill."""
    names, make = made
    kept: dict[str, dict[str, list[Pieces]]] = {"dev": {}, "test": {}}
    asked: set[str] = set()
    for skill, name in enumerate(names):
        for split, count in zip(("dev", "test"), held_out, strict=True):
            fresh = _fresh(make(skill, 2 * count, SPLITS.index(split)), asked)[:count]
            kept[split][name] = fresh
            asked |= {_asked(sample) for sample in fresh}
    pools = {name: _fresh(make(skill, sizes[skill], 0), asked) for skill, name in enumerate(names)}
    length = max(Samples(pool, tokenizer).length for pool in pools.values())
    held = {
        split: {name: Samples(rows, tokenizer, length=length).batches(_ROWS) for name, rows in by_skill.items()}
        for split, by_skill in kept.items()
    }
    drawn = {name: Samples(pool, tokenizer, whole, length) for name, pool in pools.items()}
    return Task(names, names, drawn, held, length, True)


def _fresh(samples: Sequence[Pieces], asked: set[str]) -> list[Pieces]:
    return [sample for sample in samples if _asked(sample) not in asked]


def _asked(sample: Pieces) -> str:
    return "".join(text for text, scored in sample if not scored)


def _domains(chosen: Domains, held_out: tuple[int, int], tokenizer: Any) -> Task:
    sources = _sources(chosen)
    found = (
        chosen.only or tuple(sources) if chosen.files else chosen.only or _named(chosen, next(iter(sources.values())))
    )
    for name in (*found, *(chosen.target or ())):
        if chosen.files and name not in sources:
            raise ValueError(f"domains: {name!r} is none of the files: expected {', '.join(sources)}")
    evaluated = chosen.target or found
    if missing := set(evaluated) - set(found):
        raise ValueError(f"domains.target: {', '.join(sorted(missing))} is none of {', '.join(found)}")
    skills = tuple(name for name in found if not (chosen.out_of_domain and name in evaluated))
    length = chosen.length
    rows = max(1, _TOKENS // length)

    def text(name: str, split: Split) -> Windows:
        source, domains = (sources[name], None) if chosen.files else (sources[""], [name])
        if chosen.cut == "stretches":
            return Windows(packed(source, None, tokenizer, domains=domains), length, split)
        return Windows(packed(source, split, tokenizer, domains=domains), length)

    pools = {name: text(name, "train") for name in skills}
    dev, test = {name: text(name, "dev") for name in evaluated}, {name: text(name, "test") for name in evaluated}
    held = {
        split: {name: part.batches(count, rows) for name, part in parts.items()}
        for split, parts, count in zip(("dev", "test"), (dev, test), held_out, strict=True)
    }
    return Task(skills, evaluated, pools, held, length, False)


def _named(chosen: Domains, source: str) -> tuple[str, ...]:
    """The domains that a source's documents name."""
    documents = corpora.whole(source) if chosen.cut == "stretches" else corpora.documents(source, "train")
    return tuple(sorted({document.domain for document in documents}))


def _sources(chosen: Domains) -> dict[str, str]:
    """Where each skill's text comes from; one source of all under the empty name."""
    if chosen.text is not None:
        return {"": corpora.located(chosen.text)}
    return {name: corpora.located(source) for name, source in chosen.files.items()}
