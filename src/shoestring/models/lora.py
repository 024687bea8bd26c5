"""LoRA by peft: small trainable factors beside frozen linear layers of a model that stays the class it is."""

from __future__ import annotations

import copy
import fnmatch
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.models import manifest
from shoestring.models.folders import one_line, read_json
from shoestring.models.surgery import Match, replace

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

_ADAPTER = "default"
_PREFIX = "base_model.model."  # where peft's files think the model is
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# of a plain LoRA, these are one of these
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_dora": (False,),
    "use_rslora": (False,),
    "modules_to_save": (None, []),
    "layers_to_transform": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}


def add(
    model: PreTrainedModel, rank: int, alpha: float, dropout: float = 0.0, match: Match | None = None, seed: int = 0
) -> list[str]:
    """Put two factors beside each linear layer that matches and freeze all else; returns those layers' names.

    rank, alpha     a layer of weights W now computes (W + alpha / rank * B A) x, A (rank, in) and B (out, rank)
    dropout         of the factors' input while training
    match           which linear layers, as `surgery.replace` takes it; all but the head where None
    seed            of A; B begins at zero, so that the model begins as it was
    The model is changed in its place and stays what it was to `train`, `checkpoint` and `generate`: the optimizer is to
    be made after this. Raises ValueError where nothing matched or adapters are there already, ModuleNotFoundError
    without peft.

    Hu et al. 2022 (LoRA), section 4; on all linear layers, as Dettmers et al. 2023 (QLoRA) found better than some.
    """
    if rank < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise ValueError(f"expected rank >= 1, alpha > 0 and 0 <= dropout < 1, got {rank}, {alpha} and {dropout}")
    if _has_adapters(model):
        raise ValueError("the model has adapters already: merge them, or load into them")
    import torch

    chosen = _chosen(model, match)
    config = _config(model, chosen, rank, alpha, dropout)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.default_generator.manual_seed(seed)
        # where some layers keep their weights transposed and some do not, peft looks at each one, and says so
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        _peft().inject_adapter_in_model(config, model, _ADAPTER)
    for name, layer in chosen.items():
        model.get_submodule(name).train(layer.training)
    return list(chosen)


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A plain copy of the model, its factors added to the weights, all of its parameters trainable."""
    _live(model)
    plain: Any = copy.deepcopy(model)

    def base(_: str, layer: Any) -> nn.Module:
        layer.merge()
        inner: nn.Module = layer.get_base_layer()
        return inner

    replace(plain, lambda _, module: isinstance(module, _peft().tuners.lora.LoraLayer), base)
    del plain.peft_config
    plain.requires_grad_(True)
    result: PreTrainedModel = plain
    return result


def state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the factors alone, by the names that peft gives them, such as `….q_proj.lora_A.weight`."""
    return {name: tensor.detach().clone() for name, tensor in _live(model).items()}


def load_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put factors in the place of the model's own. Raises ValueError naming one that is absent or does not fit."""
    import torch

    live = _live(model)
    odd = sorted(set(live) ^ set(tensors))
    if odd:
        raise ValueError(f"the factor {odd[0]} is {'absent' if odd[0] in live else 'none of the model'}: add alike")
    for name, tensor in live.items():
        if tensor.shape != tensors[name].shape:
            raise ValueError(f"{name} is {tuple(tensors[name].shape)}, the model's {tuple(tensor.shape)}: add alike")
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(tensors[name])


def save(model: PreTrainedModel, folder: str | Path) -> Path:
    """Write the factors and their settings in peft's own format, which `PeftModel.from_pretrained` reads.

    Written beside and renamed, with checksums, in the place of adapters that stood there. Raises ValueError where the
    folder holds other files.
    """
    from safetensors.torch import save_file

    tensors = {_PREFIX + name: tensor.cpu().contiguous() for name, tensor in state(model).items()}
    target = Path(folder)
    own = {_CONFIG, _WEIGHTS, manifest.MANIFEST}
    foreign = sorted(path.name for path in target.iterdir() if path.name not in own) if target.is_dir() else []
    if foreign or target.is_file():
        what = f"also holds {foreign[0]}" if foreign else "is a file"
        raise ValueError(f"{target} {what}: name a folder for the adapters alone")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_file(tensors, partial / _WEIGHTS, {"format": "pt"})
        settings: Any = model.peft_config
        settings[_ADAPTER].save_pretrained(partial)
        manifest.seal(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def load(model: PreTrainedModel, folder: str | Path) -> list[str]:
    """Add the adapters that a folder holds, written by `save` or by peft; returns the names of the layers.

    Raises ValueError where a file is absent, torn or changed, the adapter is not a plain LoRA, or does not fit the
    model, which is then left as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    place = Path(folder)
    if (place / manifest.MANIFEST).is_file():
        manifest.verify(place)
    told = read_json(place / _CONFIG, "the settings of an adapter")
    special = [f"{key} is {told.get(key)!r}" for key, plain in _PLAIN.items() if told.get(key, plain[0]) not in plain]
    if special:
        raise ValueError(f"{place / _CONFIG}: {special[0]}: expected a plain LoRA")
    try:
        tensors = load_file(place / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{place / _WEIGHTS} is absent or torn: {one_line(error)}") from error
    factors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    try:
        layers = _fitting(model, factors, told["r"])
        names = add(model, told["r"], told["lora_alpha"], told.get("lora_dropout", 0.0), lambda name, _: name in layers)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{place}: the adapter does not fit: {one_line(error)}") from error
    load_state(model, factors)
    return names


def _fitting(model: PreTrainedModel, factors: Mapping[str, Tensor], rank: int) -> set[str]:
    """The layers that factors are for. Raises ValueError where one is of no layer of the model, or not of its shape."""
    layers = {name.rpartition(".lora_")[0] for name in factors}
    expected: dict[str, tuple[int, int]] = {}
    for name, layer in _chosen(model, lambda name, _: name in layers).items():
        inputs, outputs = _sizes(layer)
        expected |= {f"{name}.lora_A.weight": (rank, inputs), f"{name}.lora_B.weight": (outputs, rank)}
    for name in sorted(set(expected) | set(factors)):
        shape = tuple(factors[name].shape) if name in factors else "absent"
        if shape != expected.get(name):
            raise ValueError(f"{name} is {shape}, the model's is {expected.get(name, 'absent')}")
    return layers


def _sizes(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer: GPT-2's keep their weights the other way round."""
    from torch import nn

    rows, columns = layer.weight.shape
    return (columns, rows) if isinstance(layer, nn.Linear) else (rows, columns)


def _chosen(model: PreTrainedModel, match: Match | None) -> dict[str, Any]:
    """The linear layers that match, by name; the head is among them only if it is asked for."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()

    def wanted(name: str, module: nn.Module) -> bool:
        if match is None:
            return module is not head
        return fnmatch.fnmatchcase(name, match) if isinstance(match, str) else match(name, module)

    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    chosen = {name: module for name, module in linear.items() if wanted(name, module)}
    if not chosen:
        examples = ", ".join(list(linear)[:3])
        raise ValueError(f"{match!r} matches no linear layer of {type(model).__name__}: they are such as {examples}")
    return chosen


def _config(model: PreTrainedModel, layers: Mapping[str, nn.Module], rank: int, alpha: float, dropout: float) -> Any:
    from torch import nn

    return _peft().LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(layers),
        fan_in_fan_out=not any(isinstance(layer, nn.Linear) for layer in layers.values()),
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )


def _has_adapters(model: nn.Module) -> bool:
    return any(name.endswith(f".lora_A.{_ADAPTER}.weight") for name, _ in model.named_parameters())


def _live(model: nn.Module) -> dict[str, Tensor]:
    """The factors themselves, by peft's names."""
    if not _has_adapters(model):
        raise ValueError(f"the {type(model).__name__} has no adapters: add them first")
    read = _peft().get_peft_model_state_dict
    found: dict[str, Tensor] = read(model, adapter_name=_ADAPTER, save_embedding_layers=False)
    return found


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise ModuleNotFoundError("LoRA needs peft: pip install 'shoestring[rationale]'", name="peft") from None
    return peft
