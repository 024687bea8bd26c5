"""The skills of a user's text: what each is called, where its text lies, and what of it is held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shoestring.config import nearest
from shoestring.data import corpora, formats, tokenizers
from shoestring.data.splits import Split, named_split, without_split
from shoestring.data.tokens import packed
from shoestring.methods.mixing.windows import Windows, least

if TYPE_CHECKING:
    from shoestring.types import Batch

Cut = Literal["documents", "stretches"]
FEW = 16  # held-out windows of a skill, below which documents are not held out whole
_TOKENS = 8192  # held out, scored at once
_SPLIT = "{split}"


@dataclass(frozen=True)
class Skill:
    """A skill and its text: a source of its own, or one domain of a source that holds several."""

    name: str
    source: str
    domain: str | None = None


@dataclass(frozen=True)
class Texts:
    """The text of every skill, in windows.

    length     tokens a window
    tokenizer  its folder
    cut        what is held out: whole documents, as `corpora` splits them, or stretches of each skill's text
    """

    skills: tuple[Skill, ...]
    length: int
    tokenizer: Path
    text_field: str
    cut: Cut = "documents"

    def windows(self, name: str, split: Split) -> Windows:
        """Windows of a skill. Raises ValueError, naming it, where its text does not fill one."""
        skill = next(skill for skill in self.skills if skill.name == name)
        domains = None if skill.domain is None else [skill.domain]
        whole = self.cut == "stretches"
        part = split if whole else None
        try:
            tokens = packed(
                skill.source,
                None if whole else split,
                opened(self.tokenizer),
                domains=domains,
                text_field=self.text_field,
            )
        except ValueError as error:
            raise ValueError(f"skill {name!r}: {error}") from error
        try:
            return Windows(tokens, self.length, part)
        except ValueError as error:
            raise ValueError(
                f"skill {name!r}: {len(tokens):,} tokens in {skill.source} do not fill windows of {self.length} for "
                f"{split}, which takes {least(self.length, part):,}: give more text, or a smaller --length"
            ) from error

    def held_out(self, name: str, count: int) -> list[Batch]:
        """At most `count` windows of the dev part, in batches to be scored."""
        return self.windows(name, "dev").batches(count, max(1, _TOKENS // self.length))


@cache
def opened(folder: Path) -> Any:
    """The tokenizer of a folder, read once a process."""
    return tokenizers.load(str(folder))


def skills(named: Sequence[str], text_field: str) -> tuple[Skill, ...]:
    """What is called a skill: the domains of one source, or each of several sources.

    named  sources, each a path, "python" or hf:NAME; name=source gives a skill another name than its file's
    Raises ValueError where there are not two or more, or two are called the same.
    """
    told = [_named(text) for text in named]
    if len(told) == 1 and told[0].name == "":
        source = told[0].source
        several = tuple(Skill(domain, source, domain) for domain in sorted(_domains(source, text_field)))
    else:
        several = tuple(Skill(skill.name or _stem(skill.source), skill.source) for skill in told)
    if len(several) < 2:
        only = several[0].name if several else "none"
        raise ValueError(
            f"{' '.join(named)}: one skill alone ({only}), expected two or more: documents that carry a 'domain', or "
            "several files"
        )
    twice = [skill for place, skill in enumerate(several) if skill.name in {one.name for one in several[:place]}]
    if twice:
        raise ValueError(
            f"{twice[0].source}: a skill is called {twice[0].name!r} already: say another-name={twice[0].source}"
        )
    return several


def chosen(evaluated: Sequence[str], among: Sequence[str]) -> tuple[str, ...]:
    """The skills that losses are measured of: all, unless some are named. Raises ValueError on one that is none."""
    for name in evaluated:
        if name not in among:
            raise ValueError(
                f"--evaluated {name}: no such skill{nearest(name, list(among))}: expected some of {', '.join(among)}"
            )
    return tuple(dict.fromkeys(evaluated)) or tuple(among)


def fingerprints(several: Sequence[Skill]) -> dict[str, str]:
    """What the data is told from other data by: of one source its contents, of several those of each skill."""
    if several[0].domain is not None:
        return {Path(several[0].source).name: corpora.fingerprint(several[0].source)}
    return {skill.name: corpora.fingerprint(skill.source) for skill in several}


def training_texts(several: Sequence[Skill], text_field: str) -> Iterator[str]:
    """What a tokenizer of their own is trained on."""
    for source in dict.fromkeys(skill.source for skill in several):
        yield from (document.text for document in corpora.documents(source, "train", text_field=text_field))


def cut(texts: Texts, held_out: int) -> Cut:
    """Whole documents where every skill then has some windows of dev text, else stretches of every text.

    Files that say in their names what is held out are never cut otherwise. Raises ValueError where documents alone can
    be held out, and a skill has none.
    """
    either = all(_plain(skill.source) for skill in texts.skills)
    try:
        enough = all(len(texts.windows(skill.name, "dev")) >= min(FEW, held_out) for skill in texts.skills)
        for skill in texts.skills:
            texts.windows(skill.name, "train")
    except ValueError:
        if not either:
            raise
        return "stretches"
    return "stretches" if either and not enough else "documents"


def _named(text: str) -> Skill:
    """A source, under the name that is given before an equals sign; else under none."""
    name, equals, source = text.partition("=")
    if not equals or Path(text).exists():
        name, source = "", text
    return Skill(name.strip(), corpora.located(source))


def _stem(source: str) -> str:
    """A file's or folder's name less suffixes and split."""
    name = Path(source.removeprefix(corpora.HUB_PREFIX).replace(_SPLIT, "")).name
    first = name.removesuffix(".gz")
    for suffix in formats.SUFFIXES:
        first = first.removesuffix(suffix)
    return without_split(first) or first or source


def _domains(source: str, text_field: str) -> set[str]:
    documents = (
        corpora.whole(source, text_field)
        if _plain(source)
        else corpora.documents(source, "train", text_field=text_field)
    )
    return {document.domain for document in documents}


def _plain(source: str) -> bool:
    """Whether a source is files of which none says in its name what it is for: those may be cut anywhere."""
    if source == corpora.BUILT_IN or source.startswith(corpora.HUB_PREFIX) or _SPLIT in source:
        return False
    folder = Path(source)
    return not folder.is_dir() or not any(
        named_split(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if formats.suffix(path)
    )
