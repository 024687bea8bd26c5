"""A GGUF file, as llama.cpp and its kin keep models in: read as a causal language model, its weights unpacked."""

from __future__ import annotations

import struct
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.models import reading
from shoestring.models.folders import one_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def read(
    path: Path, dtype: torch.dtype | None, kind: reading.Kind = "causal"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a GGUF file, in evaluation mode, its weights unpacked, and the tokenizer in the same file.

    dtype       of the unpacked weights; where None fp32, or as stored if no weight is packed
    Slow where the vocabulary is large, as the file is gone through several times: save the model to a folder once.
    Raises ValueError where the file is absent, torn or foreign, or no causal language model; ModuleNotFoundError where
    the package is absent that reads it.
    """
    if kind == "seq2seq":
        raise ValueError(f"{path} is read as a causal language model: name the folder of an encoder-decoder")
    _check(path)
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    with reading.quietly():
        try:
            config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        except (StrictDataclassError, OSError, ValueError, TypeError, KeyError, IndexError, struct.error) as error:
            raise ValueError(f"{path} is torn or no GGUF of a known architecture: {one_line(error)}") from error
        if reading.kind_of(config) != "causal":
            raise ValueError(f"{path}: architecture {config.model_type!r} is not a causal language model")
        tokenizer = reading.tokenizer(path.parent, gguf=path.name)
        model = reading.weights(path.parent, config, dtype, gguf=path.name)
    return model, tokenizer


def _check(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file: it does not begin with GGUF")
    if find_spec("gguf") is None:
        raise ModuleNotFoundError("reading a GGUF file needs gguf: pip install 'shoestring[rationale]'", name="gguf")
