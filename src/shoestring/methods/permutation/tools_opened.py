"""An XLNet where a command finds it: its folder or that of a finished run, whichever head it has, and its tokenizer."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from shoestring.data import tokenizers
from shoestring.methods.permutation.vocabulary import Vocabulary
from shoestring.models import folders, manifest, reading

LANGUAGE = "XLNetLMHeadModel"
_KINDS = (
    LANGUAGE,
    "XLNetModel",
    "XLNetForSequenceClassification",
    "XLNetForMultipleChoice",
    "XLNetForQuestionAnsweringSimple",
    "XLNetForQuestionAnswering",
    "XLNetForTokenClassification",
)
_INSIDE = ("model", "checkpoint")  # where a tool's folder, and a recipe's, have their model


def folder_of(named: str) -> Path:
    """A model's folder: itself, the one in a finished run's, or the snapshot of a Hub name. ValueError if none is."""
    path = Path(named).expanduser()
    if path.is_dir() and not (path / "config.json").exists():
        inside = [path / name for name in _INSIDE if (path / name / "config.json").is_file()]
        if not inside and (path / "runs").is_dir():
            raise ValueError(f"{named}: a run that has not ended: go on with its own command first")
        if not inside:
            raise ValueError(f"{named}: holds no config.json, nor a model's folder: expected that of an XLNet")
        return inside[0]
    return folders.find(named)


def model_of(folder: Path, dtype: torch.dtype | None = None, language: bool = False) -> PreTrainedModel:
    """The model of a folder, as transformers has it, in evaluation on the CPU, all of its weights from the folder.

    dtype     of the weights; as stored where None
    language  whether it must be a language model
    Raises ValueError where it is no XLNet, is torn or incomplete, holds what is no number, or was damaged since a run
    of ours saved it.
    """
    kind = _kind(folder)
    if language and kind != LANGUAGE:
        raise ValueError(f"{folder}: an {kind}: expected a language model, {LANGUAGE}")
    config = reading.configuration(folder)
    if (folder / manifest.MANIFEST).exists():
        manifest.verify(folder)
    folders.check_weights(folder)
    try:
        with reading.quietly():
            model, found = getattr(transformers, kind).from_pretrained(
                folder,
                config=config,
                dtype="auto" if dtype is None else dtype,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{folder}: {folders.one_line(error)}") from error
    for name, stored, expected in sorted(found["mismatched_keys"]):
        shapes = f"{tuple(stored)} in the file, {tuple(expected)} by config.json"
        raise ValueError(f"{folder}: tensor {name} has shape {shapes}")
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"{folder}: the weights lack {missing[0]}{more}")
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(f"{folder}: tensor {name} holds NaN or infinity: the weights are at fault")
    loaded: PreTrainedModel = model.eval()
    return loaded


def tokenizer_of(folder: Path, model: PreTrainedModel) -> PreTrainedTokenizerFast:
    """The tokenizer of a model's folder. Raises ValueError where there is none, or it is another model's."""
    if not folders.has_tokenizer(folder):
        raise ValueError(f"{folder} holds no tokenizer: expected tokenizer.json, or a SentencePiece file")
    tokenizer = tokenizers.load(str(folder))
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model's embedding only {rows} rows: "
            "use the tokenizer the model was trained with"
        )
    unsaid = type(model.config)()  # what a configuration has that nobody set: so it may be, beside as many tokens
    for name in ("pad_token_id", "eos_token_id"):
        stated, own = getattr(model.config, name), getattr(tokenizer, name)
        usual = getattr(unsaid, name) if len(tokenizer) == rows else own
        if None not in (stated, own) and stated not in (own, usual):
            raise ValueError(
                f"{folder}: {name} is {stated} in config.json but {own} of the tokenizer: use the tokenizer the model "
                "was trained with, or set config.json right"
            )
    return tokenizer


def vocabulary_of(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
    """The tokenizer of a folder as the data side sees it. Raises ValueError where it cannot, naming the folder."""
    try:
        return Vocabulary.of(tokenizer)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def _kind(folder: Path) -> str:
    path = folder / "config.json"
    content = folders.read_json(path, "the configuration of an XLNet")
    if content.get("model_type") != "xlnet":
        raise ValueError(f"{path}: its model_type is {content.get('model_type')!r}: expected 'xlnet'")
    named = content.get("architectures") or [LANGUAGE]
    if not isinstance(named, list) or named[0] not in _KINDS:
        raise ValueError(f"{path}: its architectures are {named!r}: expected one of {', '.join(_KINDS)}")
    return str(named[0])
