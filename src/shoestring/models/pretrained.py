"""Models with their tokenizers, by name or folder, offline first; saved so that any Hugging Face code loads them."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoestring.models.folders import check_weights, find, has_tokenizer, one_line, read_json
from shoestring.runtime import unwrap

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load(
    name_or_folder: str | Path, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model, in evaluation mode on the CPU, and its tokenizer.

    A folder is taken first, then what the Hub's cache holds, then the Hub, unless HF_HUB_OFFLINE is set.
    dtype       of the weights; as stored where None
    Nothing of the folder is run. Raises ValueError where it is absent, foreign, incomplete or torn, or its parts do not
    fit together.
    """
    folder = find(str(name_or_folder))
    config = _config(folder)
    check_weights(folder)
    with _no_bars():
        model = _model(folder, config, dtype)
    tokenizer = _tokenizer(folder)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model's embedding only {rows} rows: "
            "use the tokenizer the model was trained with, or resize the embedding"
        )
    return model, tokenizer


def save(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> Path:
    """Write a model folder that `from_pretrained` and any server of such folders load: safetensors, configuration,
    tokenizer and generation settings, whose end of sequence and padding are the tokenizer's.

    Written beside and renamed, in the place of a model that stood there, without wrappers of DDP and torch.compile.
    Across processes, call it from each: shards of FSDP2 are gathered and the first process writes. Raises ValueError
    where the tokenizer has no end-of-sequence token, is larger than the embedding, or the folder holds other files.
    """
    import torch.distributed as distributed

    target = Path(folder)
    inner: Any = unwrap(model)
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-sequence token: set tokenizer.eos_token before saving")
    rows = inner.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens but the model's embedding only {rows} rows")
    weights = _gathered(inner)
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        with _no_bars():
            _write(_as_its_own(inner), weights, tokenizer, target)
    return target


def named_on_disk(model: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict under the names its architecture has in published folders, which servers look for.

    transformers renames some while loading (GPT-NeoX's head is `embed_out` on disk and `lm_head` in memory). Where more
    than names would change (experts that are stacked, say), the names in memory are kept: those load too.
    """
    import torch
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return weights
    # empty ones are renamed in their place: sharded tensors would come back as others
    empty = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in weights.items()}
    names = {id(tensor): name for name, tensor in empty.items()}
    renamed = {name: names.get(id(tensor)) for name, tensor in _reverted(model, empty).items()}
    if set(renamed.values()) != set(weights):
        return weights
    return {name: weights[own] for name, own in renamed.items() if own is not None}


def _reverted(model: nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    reverted: dict[str, torch.Tensor] = revert_weight_conversion(_as_its_own(model), dict(weights))
    return reverted


def _as_its_own(model: nn.Module) -> nn.Module:
    """The same model under its own class: FSDP2 gives it another, whose conversions transformers does not know."""
    from torch.distributed.fsdp import FSDPModule

    own = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))
    if own is type(model):
        return model
    same = cast("nn.Module", own.__new__(own))
    same.__dict__.update(model.__dict__)
    return same


def _config(folder: Path) -> PretrainedConfig:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    path = folder / "config.json"
    kind = read_json(path, "the configuration of a Hugging Face model").get("model_type")
    if kind not in CONFIG_MAPPING:
        if "auto_map" in read_json(path, ""):
            raise ValueError(f"{path}: architecture {kind!r} wants Python code of its own to run, which is refused")
        raise ValueError(f"{path}: transformers knows no architecture {kind!r}: is the installed version too old?")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(f"{path}: architecture {kind!r} is not a causal language model")
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    return config


def _model(folder: Path, config: PretrainedConfig, dtype: torch.dtype | None) -> PreTrainedModel:
    """The model, all of its tensors from the folder: `from_pretrained` alone would draw missing ones at random."""
    import pickle

    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype="auto" if dtype is None else dtype,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{folder}: {one_line(error)}") from error
    for name, stored, expected in sorted(found["mismatched_keys"]):
        shapes = f"{tuple(stored)} in the file, {tuple(expected)} by config.json"
        raise ValueError(f"{folder}: tensor {name} has shape {shapes}")
    for name in sorted(found["missing_keys"]):
        count = len(found["missing_keys"])
        raise ValueError(f"{folder}: the weights lack {name}" + (f" and {count - 1} more" if count > 1 else ""))
    loaded: PreTrainedModel = model.eval()
    return loaded


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's own tokenizer: where there is none, `from_pretrained` would make up an empty one from the model."""
    from transformers import AutoTokenizer

    if not has_tokenizer(folder):
        raise ValueError(f"{folder} holds no tokenizer: expected tokenizer.json, or the files of a slow tokenizer")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder}: the tokenizer cannot be read: {one_line(error)}") from error
    return tokenizer


@contextmanager
def _no_bars() -> Iterator[None]:
    """Reading and writing a folder on this machine shows no bars of transformers' own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _gathered(model: nn.Module) -> dict[str, torch.Tensor] | None:
    """The whole weights of a sharded model, on the CPU of the first process; None where nothing is sharded."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.tensor import DTensor

    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return None
    gathered: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return gathered


def _write(model: Any, weights: dict[str, torch.Tensor] | None, tokenizer: Any, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        model.save_pretrained(partial, state_dict=weights)
        tokenizer.save_pretrained(partial)
        config, generation = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
        for settings in (config, generation):
            _end_as(tokenizer, settings)
        config.save_pretrained(partial)
        generation.save_pretrained(partial)
        _put_in_place(partial, target)
    except OSError as error:
        raise ValueError(f"{target} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _end_as(tokenizer: Any, settings: Any) -> None:
    """Give a configuration the tokenizer's special tokens; several ends are kept if its own is among them."""
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        settings.eos_token_id = tokenizer.eos_token_id
    settings.bos_token_id = tokenizer.bos_token_id
    settings.pad_token_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _put_in_place(partial: Path, target: Path) -> None:
    """Rename a finished folder to its name; what was there is removed only if it was a model and no more."""
    if not target.exists():
        partial.rename(target)
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file: name a folder for the model")
    new = {path.name for path in partial.iterdir()}
    foreign = [path.name for path in target.iterdir() if path.name not in new and not _of_a_model(path.name)]
    if foreign:
        raise ValueError(f"{target} also holds {sorted(foreign)[0]}, which saving would remove: name another folder")
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    target.rename(old)
    partial.rename(target)
    shutil.rmtree(old)


def _of_a_model(name: str) -> bool:
    return name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
