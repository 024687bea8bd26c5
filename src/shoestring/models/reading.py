"""A model and its tokenizer, read from a folder: nothing missing is made up, and nothing of the folder is run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from shoestring.models.folders import has_tokenizer, one_line, read_json
from shoestring.models.seq2seq import note_own_head

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Kind: TypeAlias = Literal["causal", "seq2seq", "any"]
_CALLED = {"causal": "a causal language model", "seq2seq": "an encoder-decoder", "any": "a language model"}


def configuration(folder: Path, kind: Kind = "causal") -> PretrainedConfig:
    """The configuration of a folder. Raises ValueError where it is unknown, broken or of another kind."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    path = folder / "config.json"
    name = read_json(path, "the configuration of a Hugging Face model").get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        if "auto_map" in read_json(path, ""):
            raise ValueError(f"{path}: architecture {name!r} wants Python code of its own to run, which is refused")
        raise ValueError(f"{path}: transformers knows no architecture {name!r}: is the installed version too old?")
    if not _kinds(name):
        raise ValueError(f"{path}: architecture {name!r} is not {_CALLED[kind]}")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    if kind not in ("any", kind_of(config)):
        found = _CALLED[kind_of(config)]
        raise ValueError(f"{path}: architecture {name!r} is {found}: expected {_CALLED[kind]}")
    return config


def kind_of(config: PretrainedConfig) -> Kind:
    """Whether a language model's configuration is of an encoder-decoder or of a decoder alone."""
    kinds = _kinds(config.model_type)
    return kinds[-1] if config.is_encoder_decoder else kinds[0]


def _kinds(architecture: str) -> list[Kind]:
    """As what transformers can build an architecture: BART, say, as either."""
    from transformers.models.auto import modeling_auto

    names: dict[Kind, Any] = {
        "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }
    return [kind for kind, known in names.items() if architecture in known]


def weights(folder: Path, config: PretrainedConfig, dtype: torch.dtype | None, gguf: str = "") -> PreTrainedModel:
    """The model, all of its tensors from the folder: `from_pretrained` alone would draw missing ones at random.

    gguf    the name of a file in the folder that all of it comes from, its weights to be unpacked
    """
    import pickle

    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    place, describes, source = folder, "config.json", {}
    if gguf:
        from transformers import GgufConfig

        place, describes = folder / gguf, "its metadata"
        source = {"gguf_file": gguf, "quantization_config": GgufConfig(dequantize=True)}
    family = AutoModelForSeq2SeqLM if kind_of(config) == "seq2seq" else AutoModelForCausalLM
    try:
        model, found = family.from_pretrained(
            folder,
            config=config,
            dtype="auto" if dtype is None else dtype,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **source,
        )
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{place}: {one_line(error)}") from error
    for name, stored, expected in sorted(found["mismatched_keys"]):
        shapes = f"{tuple(stored)} in the file, {tuple(expected)} by {describes}"
        raise ValueError(f"{place}: tensor {name} has shape {shapes}")
    for name in sorted(found["missing_keys"]):
        count = len(found["missing_keys"])
        raise ValueError(f"{place}: the weights lack {name}" + (f" and {count - 1} more" if count > 1 else ""))
    loaded: PreTrainedModel = model.eval()
    return loaded


def check_head(folder: Path, model: PreTrainedModel) -> None:
    """See that an encoder-decoder has a head of its own where its folder says so.

    transformers (5.23) takes a T5's head for its embedding, whatever the folder says, unless the weights hold both.
    """
    apart = model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    if apart:
        note_own_head(model)
    elif read_json(folder / "config.json", "").get("tie_word_embeddings") is False:
        raise ValueError(f"{folder}: its head is the embedding, though by config.json it is not: weights are missing")


def tokenizer(folder: Path, gguf: str = "") -> PreTrainedTokenizerBase:
    """The folder's own tokenizer: where there is none, `from_pretrained` would make up an empty one from the model.

    gguf    the name of a file in the folder that all of it comes from
    """
    if not gguf and not has_tokenizer(folder):
        raise ValueError(f"{folder} holds no tokenizer: expected tokenizer.json, or the files of a slow tokenizer")
    found = _opened(folder, folder / gguf, {"gguf_file": gguf} if gguf else {})
    expected = sorted(set(found.vocab_files_names.values()))
    if not gguf and expected and not any((folder / name).is_file() for name in expected):
        # a class that does not find its file makes a vocabulary of a few tokens and says nothing
        raise ValueError(f"{folder}: a {type(found).__name__} without its vocabulary: expected {' or '.join(expected)}")
    return found


def _opened(folder: Path, place: Path, source: dict[str, str]) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **source
        )
    except Exception as error:
        # of a damaged vocabulary the library says so by a bare Exception; any other kind than these is a bug
        if type(error) is not Exception and not isinstance(error, OSError | ValueError | TypeError | KeyError):
            raise
        # without a sentencepiece that works, it guesses at another format, and asks for what would read that
        needs = ": a .model file needs sentencepiece, and a protobuf no older than it was built with"
        hint = needs if "tiktoken" in str(error) else ""
        raise ValueError(f"{place}: the tokenizer cannot be read: {one_line(error)}{hint}") from error
    return found


@contextmanager
def quietly() -> Iterator[None]:
    """Reading and writing on this machine shows no bars of transformers' own, nor advice on heads, nor its table of
    weights that a folder lacks or has in another shape: whoever reads raises an error then."""
    from transformers.utils import logging as shown

    def wanted(record: logging.LogRecord) -> bool:
        told = str(record.msg)
        lacking = "LOAD REPORT" in told and ("MISSING" in told or "MISMATCH" in told)
        return not lacking and "The tied weights mapping" not in told

    logger = logging.getLogger("transformers.modeling_utils")
    bars = shown.is_progress_bar_enabled()
    shown.disable_progress_bar()
    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
        if bars:
            shown.enable_progress_bar()
