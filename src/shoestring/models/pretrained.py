"""Models with their tokenizers, by name or folder, offline first; saved so that any Hugging Face code loads them."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from shoestring import files
from shoestring.models import gguf_file, reading
from shoestring.models.folders import check_weights, find, one_line
from shoestring.models.reading import Kind
from shoestring.runtime import unwrap

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(
    name_or_folder: str | Path, dtype: torch.dtype | None = None, kind: Kind = "causal"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A language model, in evaluation mode on the CPU, and its tokenizer.

    A folder is taken first, then what the Hub's cache holds, then the Hub, unless HF_HUB_OFFLINE is set. A path that
    ends in .gguf is that one file, whose weights are unpacked; it must be a causal language model.
    dtype       of the weights; as stored where None, fp32 if packed
    kind        "causal", "seq2seq" for encoder-decoders such as T5, or "any" of the two
    Nothing of the folder is run. Raises ValueError where it is absent, foreign, of another kind, incomplete or torn, or
    its parts do not fit together; ModuleNotFoundError where a GGUF file needs the package that reads it.
    """
    if str(name_or_folder).endswith(".gguf"):
        place = Path(name_or_folder).expanduser()
        model, tokenizer = gguf_file.read(place, dtype, kind)
    else:
        place = find(str(name_or_folder))
        config = reading.configuration(place, kind)
        check_weights(place)
        with reading.quietly():
            model = reading.weights(place, config, dtype)
        if config.is_encoder_decoder:
            reading.check_head(place, model)
        tokenizer = reading.tokenizer(place)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"{place}: the tokenizer has {len(tokenizer)} tokens but the model's embedding only {rows} rows: "
            "use the tokenizer the model was trained with, or resize the embedding"
        )
    return model, tokenizer


def save(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    extra: Mapping[str, str | None] | None = None,
) -> Path:
    """Write a model folder that `from_pretrained` and any server of such folders load: safetensors, configuration,
    tokenizer and generation settings, whose end of sequence and padding are the tokenizer's.

    extra  texts of small files that belong to the model, by name; None where one that stood there goes with it
    Written beside and renamed, in the place of a model that stood there, without wrappers of DDP and torch.compile.
    Across processes, call it from each: shards of FSDP2 are gathered and the first process writes. Raises ValueError
    where the tokenizer has no end-of-sequence token or is larger than the embedding, the folder holds other files, or
    the model has adapters that are not merged.
    """
    import torch.distributed as distributed

    target = Path(folder)
    inner: Any = unwrap(model)
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-sequence token: set tokenizer.eos_token before saving")
    rows = inner.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens but the model's embedding only {rows} rows")
    if any(".base_layer." in name for name, _ in inner.named_parameters()):
        raise ValueError("the model has adapters beside its weights: save `lora.merged(model)`, or them by `lora.save`")
    weights = _gathered(inner)
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        with reading.quietly():
            _write(_as_its_own(inner), weights, tokenizer, target, extra or {})
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


def _write(
    model: Any,
    weights: dict[str, torch.Tensor] | None,
    tokenizer: Any,
    target: Path,
    extra: Mapping[str, str | None],
) -> None:
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        model.save_pretrained(partial, state_dict=weights)
        tokenizer.save_pretrained(partial)
        config, generation = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
        for settings in (config, generation):
            _end_as(tokenizer, settings)
        if _has_own_head(model):
            config.tie_word_embeddings = False
        config.save_pretrained(partial)
        generation.save_pretrained(partial)
        for name, text in extra.items():
            if text is not None:
                files.replace(partial / name, text)
        _put_in_place(partial, target, {*extra})
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


def _has_own_head(model: Any) -> bool:
    """Whether the head is not the embedding: of a T5 that transformers loaded, the configuration always denies it."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is not model.get_input_embeddings().weight


def _put_in_place(partial: Path, target: Path, extra: set[str]) -> None:
    """Rename a finished folder to its name; what was there is removed only if it was a model and no more."""
    if not target.exists():
        partial.rename(target)
        return
    if not target.is_dir():
        raise ValueError(f"{target} is a file: name a folder for the model")
    new = {path.name for path in partial.iterdir()} | extra
    foreign = [path.name for path in target.iterdir() if path.name not in new and not _of_a_model(path.name)]
    if foreign:
        raise ValueError(f"{target} also holds {sorted(foreign)[0]}, which saving would remove: name another folder")
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    try:
        target.rename(old)
        partial.rename(target)
    finally:
        if old.exists() and not target.exists():  # interrupted, or refused, between the two
            old.rename(target)
    shutil.rmtree(old)


def _of_a_model(name: str) -> bool:
    return name.startswith("model") and name.endswith((".safetensors", ".safetensors.index.json"))
