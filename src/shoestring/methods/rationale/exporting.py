"""A student as ONNX graphs: what reads and what writes, for any number of rows and any length."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shoestring.methods.rationale.courses import log_likelihoods
from shoestring.methods.rationale.encode import language_model
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.exported import KEY, VERSION, Exported, decoder_of
from shoestring.methods.rationale.graphs import Goes, Reads, Writes
from shoestring.models.modes import evaluating

if TYPE_CHECKING:
    from shoestring.methods.rationale.student import Student

TOLERANCE = 1e-3  # by which part of itself, or nats where it is small, a log-likelihood may differ from torch's
_ROUGH = 1.0  # the same in eight bits: beyond that it is another student
_TRIED = (Example("Is it?"), Example("It rained all night, and in the morning the street was wet."))
_OPTIONS = ("yes", "no, it is not")


class Written(NamedTuple):
    """Files of a student's graphs, and by which part an option's log-likelihood differs from torch's at most."""

    files: list[Path]
    difference: float


def export(student: Student, path: Path, notes: Mapping[str, Any] | None = None, int8: bool = False) -> Written:
    """Write a student's graphs, for `exported.Exported`: one file, and a second beside it of an encoder-decoder.

    notes  what is kept in the file besides, as JSON holds it
    int8   weights of matrix products in eight bits: a quarter of the size, and answers that differ a little
    The files are written beside and renamed. Raises ValueError where torch cannot make a graph of the model, or the
    graph computes something else, or its weights do not bear eight bits; ModuleNotFoundError without onnx.
    """
    _needs_onnx()
    if language_model(student.model).dtype != torch.float32:
        student = replace(student, model=copy.deepcopy(student.model).float())
    model = language_model(student.model)
    told = {**_told(student, model), "notes": dict(notes or {})}
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with evaluating(model), _quietly():
            _write_all(model, student.coder.family, partial / path.name, told)
        difference = _difference(student, partial / path.name)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"the graph of a {type(model).__name__} differs from it by {difference:.2g} of a log-likelihood: this "
                "model cannot be exported; torch is needed to answer with it"
            )
        if int8:
            with _quietly():
                _in_eight_bits(partial)
            difference = _difference(student, partial / path.name)
            if not difference <= _ROUGH:
                raise ValueError(
                    f"in eight bits a {type(model).__name__} differs from itself by {difference:.2g} of a "
                    "log-likelihood: export it without int8"
                )
        names = sorted((one.name for one in partial.iterdir()), key=lambda name: (name == path.name, name))
        for name in names:  # the one that is loaded by name comes last
            (partial / name).replace(path.with_name(name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Written([path.with_name(name) for name in reversed(names)], difference)


def wrote(path: Path) -> bool:
    """Whether something is a graph that `export` wrote, or an empty file. Raises ModuleNotFoundError without onnx."""
    _needs_onnx()
    if not path.is_file():
        return False
    if not path.stat().st_size:
        return True
    import onnx
    from google.protobuf.message import DecodeError

    try:
        found = onnx.load(path, load_external_data=False)
    except DecodeError:
        return False
    return any(one.key == KEY for one in found.metadata_props)


def _write_all(model: Any, family: str, path: Path, told: Mapping[str, Any]) -> None:
    """Graphs of a family, traced on rows of sizes that all differ: each of them may then be any."""
    rows, source, before, after = 3, 7, 5, 2
    ids = torch.arange(rows * source).reshape(rows, source) % 11
    mask = torch.ones_like(ids)
    free = torch.export.Dim.DYNAMIC
    both, held = {0: free, 1: free}, {0: free, 2: free}
    if family == "encoder-decoder":
        cross = Reads(model)(ids, mask)
        past = [torch.zeros(rows, one.shape[1], before, one.shape[3]) for one in cross]
        names = [f"cross_{place}" for place in range(len(cross))]
        _write(Reads(model), (ids, mask), (both, both), names, path, told)
        each = [held] * len(past)
        read = (ids[:, :after], mask, past, [*cross])
        _write(Writes(model), read, (both, both, each, each), _outputs(past), decoder_of(path), {**told, "coder": None})
        return
    _, *seen = Goes(model)(ids[:, :before], mask[:, :before], torch.arange(before)[None], torch.tensor([0]), [])
    places = before + torch.arange(after).expand(rows, -1)
    shapes = (both, both, both, {0: free}, [held] * len(seen))
    inputs = (ids[:, :after], mask, places, torch.arange(after), seen)
    _write(Goes(model), inputs, shapes, _outputs(seen), path, told)


def _write(
    module: nn.Module, inputs: Any, shapes: Any, outputs: Sequence[str], path: Path, told: Mapping[str, Any]
) -> None:
    from torch.onnx.errors import OnnxExporterError

    try:
        program = torch.onnx.export(
            module.eval(), inputs, dynamo=True, dynamic_shapes=shapes, output_names=outputs, verbose=False
        )
    except OnnxExporterError as error:
        kind = type(language_model(module)).__name__
        raise ValueError(f"torch makes no graph of a {kind}: {' '.join(str(error).split())[:300]}") from error
    assert program is not None
    program.model.metadata_props[KEY] = json.dumps(told)
    program.save(path, external_data=False)


def _outputs(past: Sequence[Tensor]) -> list[str]:
    return ["logits", *(f"present_{place}" for place in range(len(past)))]


def _told(student: Student, model: Any) -> dict[str, Any]:
    """What the file says of its student, so that nothing else is needed to answer as it does."""
    coder, digest = student.coder, hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    (around,), (letter,), ([*alone, _],) = coder.sources([""]), coder.sources(["a"]), coder.targets(["a"])
    start = next(at for at in range(len(around) + 1) if [*around[:at], *alone, *around[at:]] == letter)
    return {
        "version": VERSION,
        "of": digest.hexdigest()[:16],
        "taught": asdict(student.taught),
        "begin": model.config.decoder_start_token_id if coder.family == "encoder-decoder" else coder.end,
        "coder": {
            "backend": coder.tokenizer.backend_tokenizer.to_str(),
            "family": coder.family,
            "source_tokens": coder.source_tokens,
            "target_tokens": coder.target_tokens,
            "end": coder.end,
            "start": around[:start],
            "between": around[start:],
        },
    }


def _difference(student: Student, path: Path) -> float:
    """How far the graphs' log-likelihoods, at once and token by token, are from torch's, on texts of two lengths."""
    graphs = Exported.load(path)
    sources = student.coder.sources([example.text for example in _TRIED])
    targets = student.coder.targets(_OPTIONS)
    options = [targets] * len(sources)
    exact = np.array(student.likelihoods(sources, options))
    spelled = np.stack([_spelled(graphs, sources, target) for target in targets], axis=1)
    found = (np.array(graphs.likelihoods(sources, options)), spelled)
    return max(float((np.abs(one - exact) / np.maximum(1.0, np.abs(exact))).max()) for one in found)


def _spelled(graphs: Exported, sources: Sequence[Sequence[int]], target: Sequence[int]) -> NDArray[np.float64]:
    """(R,): the log-likelihood of a target after each source, by the way on which the graphs write."""
    course, total = graphs.begun(sources), np.zeros(len(sources))
    before: NDArray[np.int64] | None = None
    for token in target:
        tokens = np.full((len(sources), 1), token, dtype=np.int64)
        total += log_likelihoods(course.step(before), tokens, np.ones_like(tokens))
        before = tokens[:, 0]
    return total


def _in_eight_bits(folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for path in list(folder.glob("*.onnx")):
        beside = path.with_suffix(".int8")
        quantize_dynamic(path, beside, weight_type=QuantType.QInt8)
        beside.replace(path)


def _needs_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError("exporting to ONNX: pip install 'shoestring[rationale]'") from None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what is said each time of packages that are not needed, of torch's own past, and of other steps."""
    registration, root = logging.getLogger("torch.onnx._internal.exporter._registration"), logging.getLogger()
    level, nobody = registration.level, logging.NullHandler()

    def wanted(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in str(record.msg)

    registration.setLevel(logging.ERROR)
    root.addHandler(nobody)  # else its first warning would put one there for good
    root.addFilter(wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
            yield
    finally:
        registration.setLevel(level)
        root.removeFilter(wanted)
        root.removeHandler(nobody)
