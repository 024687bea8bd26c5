"""A student that onnxruntime computes, from the graphs that `exporting` writes: numpy in, answers out, no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from shoestring.methods.rationale import answering
from shoestring.methods.rationale.answering import Answer
from shoestring.methods.rationale.courses import Course, begun, log_likelihoods, padded
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import Taught, Wording
from shoestring.methods.rationale.together import Ids, Size, batches, scored

KEY, VERSION = "shoestring", 1  # of what a graph's file says of its student
_MEND = "export the student again"


def decoder_of(path: Path) -> Path:
    """The file beside an encoder's graph that holds its decoder's."""
    return path.with_name(f"{path.stem}.decoder.onnx")


@dataclass(frozen=True)
class Words:
    """Texts as ids and back, as `encode.Coder` makes them, by the tokenizers library alone.

    backend     what `tokenizer.json` holds
    end, start  the id that ends a text, and those that begin a source; between, those between source and target
    """

    backend: str
    family: str
    source_tokens: int
    target_tokens: int
    end: int
    start: tuple[int, ...] = ()
    between: tuple[int, ...] = ()

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        found = Tokenizer.from_str(self.backend)
        found.no_padding()
        found.no_truncation()
        found.encode_special_tokens = True  # letters of special tokens stay letters
        return found

    def sources(self, texts: Sequence[str]) -> list[list[int]]:
        room = self.source_tokens - len(self.start) - len(self.between)
        return [[*self.start, *_middle_out(ids, room), *self.between] for ids in self._encoded(texts)]

    def targets(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*ids[: self.target_tokens - 1], self.end] for ids in self._encoded(texts)]

    def text(self, ids: Sequence[int]) -> str:
        found = list(ids)
        if self.end in found:
            found = found[: found.index(self.end)]
        return str(self._tokenizer.decode(found, skip_special_tokens=True)).strip()

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


@dataclass(frozen=True)
class Exported:
    """A student as graphs. It answers as `Student` does.

    sessions  what is computed: of an encoder-decoder the encoder and the decoder, of a decoder itself
    begin     the id that an encoder-decoder's targets begin after
    notes     what the file says besides, by name
    """

    sessions: tuple[Any, ...]
    coder: Words
    taught: Taught
    begin: int
    notes: dict[str, Any]

    @classmethod
    def load(cls, path: Path | str, threads: int = 0) -> Exported:
        """From the file that `exporting.export` wrote, and the one beside it where there are two.

        threads  of this machine; as many as it has cores where 0
        Raises ValueError where a file is absent, torn or no student's; ModuleNotFoundError without onnxruntime.
        """
        path = Path(path)
        session = _session(path, threads)
        told = _told(session, path)
        if told["coder"] is None:
            raise ValueError(f"{path}: the decoder of a student: give the file beside it, whose name lacks '.decoder'")
        taught = {**told["taught"], "options": tuple(told["taught"]["options"])}
        found = Taught(**{**taught, "wording": Wording(**taught["wording"])})
        words: dict[str, Any] = dict(told["coder"])
        coder = Words(start=tuple(words.pop("start")), between=tuple(words.pop("between")), **words)
        sessions = [session]
        if coder.family == "encoder-decoder":
            beside = decoder_of(path)
            sessions.append(_session(beside, threads))
            if _told(sessions[1], beside)["of"] != told["of"]:
                raise ValueError(f"{beside}: the decoder of another student than {path}: {_MEND}")
        return cls(tuple(sessions), coder, found, told["begin"], told["notes"])

    def answers(self, examples: Sequence[Example], reasons: bool = False, free: bool = False) -> list[Answer]:
        """As `Student.answers`."""
        return answering.answers(self, examples, reasons, free)

    def stream(
        self, examples: Iterable[Example], batch_size: int = 64, reasons: bool = False, free: bool = False
    ) -> Iterator[Answer]:
        """As `Student.stream`."""
        return answering.stream(self, examples, batch_size, reasons, free)

    def likelihoods(
        self, sources: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
    ) -> list[list[float]]:
        """The log-likelihood of each option of each source, its end of text included, in nats."""

        def score(some: list[Ids], options: list[Sequence[Ids]]) -> list[list[float]]:
            each = len(options[0])
            targets = padded([target for targets in options for target in targets], self.coder.end)
            written = padded([[1] * len(target) for targets in options for target in targets], 0)
            logits = self.begun(some).repeated(each).logits(targets)
            lines: list[list[float]] = log_likelihoods(logits, targets, written).reshape(len(some), each).tolist()
            return lines

        return scored(sources, options, self._vocabulary, score)

    def write(self, sources: Sequence[Sequence[int]], tokens: int) -> list[str]:
        """What the student writes, greedily, up to the end of text or so many tokens."""
        found = [""] * len(sources)
        for rows in batches([Size(len(source)) for source in sources], self._vocabulary):
            course = self.begun([sources[row] for row in rows])
            written = [course.next()]
            ended = written[0] == self.coder.end
            while len(written) < tokens and not ended.all():
                written.append(course.next(written[-1]))
                ended |= written[-1] == self.coder.end
            for place, row in enumerate(rows):
                found[row] = self.coder.text([int(ids[place]) for ids in written])
        return found

    def begun(self, sources: Sequence[Sequence[int]]) -> Course:
        """Sources, read by the graphs, to be scored or written on."""
        return begun(self.sessions, sources, self.coder.end, self.begin)

    @property
    def _vocabulary(self) -> int:
        """As the graph that writes says it of its logits."""
        return int(self.sessions[-1].get_outputs()[0].shape[-1])


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "an exported student needs onnxruntime: pip install 'shoestring[rationale]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except state.NoSuchFile:
        raise ValueError(f"{path}: no such file: {_MEND}") from None
    except (
        state.Fail,
        state.InvalidProtobuf,
        state.InvalidGraph,
        state.InvalidArgument,
        state.RuntimeException,
    ) as error:
        raise ValueError(f"{path}: torn, or no graph ({' '.join(str(error).split())[:200]}): {_MEND}") from None


def _told(session: Any, path: Path) -> dict[str, Any]:
    """What the file says of its student."""
    try:
        told = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
        version = int(told["version"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: a graph, and of no student that this room exported") from None
    if version != VERSION:
        raise ValueError(f"{path}: layout {version}, this version of shoestring knows {VERSION}: {_MEND}")
    return dict(told)


def _middle_out(ids: list[int], room: int) -> list[int]:
    """What fits: the start and the end."""
    tail = room // 2
    return ids if len(ids) <= room else [*ids[: room - tail], *ids[len(ids) - tail :]]
