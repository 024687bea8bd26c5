"""A student: a model, its words, and what it answers. The label alone, or with a reason where one is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.methods.rationale import answering
from shoestring.methods.rationale.answering import Answer
from shoestring.methods.rationale.encode import Coder, check_room, family
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import KEPT, Taught
from shoestring.methods.rationale.rows import FORM
from shoestring.methods.rationale.write import likelihoods, write

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Student:
    """A taught model. `taught` says in which words, and `coder` holds its tokenizer."""

    model: nn.Module
    coder: Coder
    taught: Taught

    @classmethod
    def of(cls, model: nn.Module, tokenizer: PreTrainedTokenizerFast, taught: Taught) -> Student:
        check_room(model, taught.source_tokens, taught.target_tokens)
        coder = Coder(tokenizer, family(model), taught.source_tokens, taught.target_tokens)
        return cls(model, coder, taught)

    @classmethod
    def load(cls, folder: Path | str) -> Student:
        """From a folder that `save` wrote. Raises ValueError where it is none, or is incomplete or torn."""
        from shoestring.data import tokenizers
        from shoestring.models import pretrained

        taught = Taught.load(Path(folder))
        model, _ = pretrained.load(folder, kind="any")
        return cls.of(model, tokenizers.load(str(folder)), taught)

    def save(self, folder: Path | str) -> Path:
        """A Hugging Face folder, and `rationale.json`, which holds the words, in it; in the place of a student there.

        How rows become texts, where that folder says it, stays for a student that was taught in the same words; for
        another it would be wrong, and goes. Across processes, call it from each: the first one writes. Raises
        ValueError as `pretrained.save` does.
        """
        from shoestring.models import pretrained  # not above: it brings the engines of large models along

        told = self.taught.text()
        kept, form = Path(folder) / KEPT, Path(folder) / FORM
        same = form.exists() and kept.exists() and kept.read_bytes() == told.encode()
        extra = {KEPT: told, FORM: form.read_text(encoding="utf-8") if same else None}
        return pretrained.save(self.model, self.coder.tokenizer, folder, extra)

    def answers(self, examples: Sequence[Example], reasons: bool = False, free: bool = False) -> list[Answer]:
        """Labels, by likelihood among an example's options (the student's own where it has none), else as written.

        free  write the label also where there are options
        A reason is a second pass, save of a student that writes the reason first.
        """
        return answering.answers(self, examples, reasons, free)

    def reasons(self, examples: Sequence[Example]) -> list[str | None]:
        """What the student writes as its reason. Raises ValueError where it was never taught to give one."""
        return [*answering.reasons_of(self, examples)]

    def stream(
        self, examples: Iterable[Example], batch_size: int = 64, reasons: bool = False, free: bool = False
    ) -> Iterator[Answer]:
        """Answers in the order of the examples, which are read only as they are needed."""
        return answering.stream(self, examples, batch_size, reasons, free)

    def likelihoods(
        self, sources: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """As `write.likelihoods`."""
        return likelihoods(self.model, self.coder, sources, options)

    def write(self, sources: Sequence[Sequence[int]], tokens: int) -> list[str]:
        """As `write.write`."""
        return write(self.model, self.coder, sources, tokens)
