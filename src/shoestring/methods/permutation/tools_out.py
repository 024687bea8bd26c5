"""Where a command's result goes: nothing is left of what did not begin, and no folder or file is ever half there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def missing(out: Path) -> list[Path]:
    """The folder of a command and those above it, as far as they do not exist. ValueError where there is a file."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: a file: expected a folder, or nothing")
    return [folder for folder in (out, *out.parents) if not folder.exists()]


@contextmanager
def leaving_nothing_begun(out: Path, new: list[Path]) -> Iterator[None]:
    """Where it goes wrong, take a new folder of runs away again, unless a run was begun in it, or text was packed and
    the fault is not in what was asked. To be entered by who holds the folder.

    new  the folders that were `missing`
    Raises ValueError where safetensors cannot be written or read, or the system says no of no file that it names.
    """
    from safetensors import SafetensorError

    try:
        yield
    except BaseException as error:
        kept = (out / "runs").exists() or ((out / "tokens").exists() and not isinstance(error, ValueError))
        if out in new and not kept:
            shutil.rmtree(out, ignore_errors=True)
            with suppress(OSError):  # something else is in it meanwhile
                for folder in new[1:]:
                    folder.rmdir()
        if isinstance(error, SafetensorError):  # no ValueError, and no OSError though it may be one
            raise ValueError(f"{out}: cannot be written or read: {error}") from error
        if isinstance(error, OSError) and error.filename is None and error.strerror:  # a full disk, say
            raise ValueError(f"{out}: cannot be written or read: {error.strerror}") from error
        raise


def check_whole(folder: Path, runs: Path) -> None:
    """Raises ValueError where the model of a finished run is gone, or not whole; runs is what remembers that it ran."""
    from shoestring.models import folders

    mend = f"delete {runs}, and it is trained anew"
    if not folder.is_dir():
        raise ValueError(f"{folder}: the model is gone: {mend}")
    try:
        folders.check_weights(folder)
    except ValueError as error:
        raise ValueError(f"{error}; {mend}") from error


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, folder: Path) -> None:
    """Write a model folder that `from_pretrained` loads: beside, and renamed. What stood there is replaced.

    Of any head: `pretrained.save` is for language models. Raises ValueError where it cannot be written.
    """
    from safetensors import SafetensorError

    from shoestring.data import tokenizers
    from shoestring.models import manifest, reading

    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with reading.quietly():
            model.save_pretrained(partial)
        if tokenizer is not None:
            tokenizers.save(tokenizer, partial)
        for path in partial.iterdir():
            manifest.flush(path)
        if folder.exists():
            manifest.discard(folder)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{folder}: cannot be written ({error}): make room, or name another") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def writing(out: Path) -> Iterator[TextIO]:
    """A file that is whole or not there. Raises ValueError where it cannot be written."""
    beside = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(out)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (beside, *beside.parents):
            raise  # of something else, that is read meanwhile
        raise ValueError(f"--out {out}: cannot be written ({error.strerror or error}): give another") from error
    finally:
        with suppress(OSError):  # there is none where it could not be made
            beside.unlink()


def tell_going_on(folder: Path, steps: int) -> None:
    """Say where a run that was stopped goes on: it has a checkpoint in its folder, and no result yet."""
    from rich.console import Console

    from shoestring.train import checkpoint

    stopped = checkpoint.latest(folder / "checkpoint")
    if stopped is not None and not (folder / "result.json").exists():
        Console(stderr=True, highlight=False).print(f"going on from step {checkpoint.step_of(stopped):,} of {steps:,}")


def tell(out: Path) -> None:
    """Print what there is to know of a finished command's report, and where its model is."""
    from rich.console import Console

    from shoestring.evaluate import report

    console = Console(width=report.terminal_width(), highlight=False)
    for sentence in report.read(out).notes:
        console.print(f"• {sentence}", markup=False)
    console.print(f"The model: {out / 'model'}", soft_wrap=True, markup=False)
