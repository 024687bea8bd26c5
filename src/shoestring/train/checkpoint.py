"""A run to disk and back: folders of safetensors, with checksums, written beside and renamed.

checkpoint/step-00000100/
    config.json, model.safetensors, tokenizer ...   loadable by `from_pretrained`
    optimizer.{json,safetensors}                    by parameter name
    process-0.{json,safetensors}                    random generators and hooks, one pair a process
    state.json                                      step, loss, the stream's place, the ledger
    manifest.json                                   sha256 and size of each file above
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.models import manifest, pretrained
from shoestring.train import state as states
from shoestring.types import Hook, Run, Stateful, memory

_NAME = re.compile(r"step-(\d{8,})")


def save(
    folder: Path,
    run: Run,
    *,
    hooks: Sequence[Hook] = (),
    ledger: Ledger | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    keep: int | None = None,
) -> Path:
    """Write the run under `folder`/step-NNNNNNNN and delete all but the newest `keep`.

    hooks   those given to `train`: the memory of each is kept, by its place in the list
    Every process calls; sharded tensors are gathered and process 0 writes them. Raises OSError where the disk is full:
    what was written of this checkpoint is removed, those before it stay.
    """
    final = folder / f"step-{run.step:08d}"
    partial = folder / f".partial-{final.name}"
    here = runtime.current()
    model = runtime.unwrap(run.model)
    try:
        if here.rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        here.accelerator.wait_for_everyone()
        first = here.rank == 0
        weights = {name: states.whole(tensor, first) for name, tensor in model.state_dict().items()}
        moments = _moments(model, run.optimizer, first)
        if here.rank == 0:
            _write_model(partial, model, weights, tokenizer)
            states.write({"groups": _groups(model, run.optimizer), "moments": moments}, partial / "optimizer")
            _write_json(partial / "state.json", _place(run, ledger, here.processes, model))
        mine = {
            "random": runtime.random_state(),
            "hooks": {name: hook.state_dict() for name, hook in _memories(hooks).items()},
        }
        states.write(mine, partial / f"process-{here.rank}")
        here.accelerator.wait_for_everyone()
        if here.rank == 0:
            manifest.seal(partial, final)
            prune(folder, keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"{final}: not written ({error}); earlier checkpoints are kept") from None
    here.accelerator.wait_for_everyone()
    return final


def load(path: Path, run: Run, *, hooks: Sequence[Hook] | None = None, ledger: Ledger | None = None) -> Run:
    """Put a checkpoint into a run built the way the saved one was, so that training goes on bit for bit.

    hooks   those given to `save`, in the same order; None takes the run without their memory, to branch off it
    Raises ValueError naming the file that is absent, torn or changed, or the tensor that does not fit.
    """
    try:
        manifest.verify(path)
    except ValueError as error:
        mend = "delete this checkpoint, and the run goes on from one before it, or begins anew"
        raise ValueError(f"{error}: {mend}") from error
    here = runtime.current()
    run.model, run.optimizer = here.prepare(run.model, run.optimizer)
    model = runtime.unwrap(run.model)
    place = _read_json(path / "state.json")
    _read_model(path, model)
    _read_optimizer(path, model, run.optimizer)
    run.step, run.loss = int(place["step"]), float.fromhex(place["loss"]) if place["loss"] else float("nan")
    run.batches.load_state_dict(place["batches"])
    same = place["processes"] == here.processes
    mine = states.read(path / f"process-{here.rank if same else 0}")
    if hooks is not None:
        split = (place["sharded"] or _sharded(model)) and not (same and place["sharded"] == _sharded(model))
        if split and any(mine["hooks"].values()):
            raise ValueError(
                f"{path}: its hooks remember the weights as {place['processes']} processes held them, which these "
                f"{here.processes} do not: resume with as many, sharded alike"
            )
        _load_hooks(hooks, mine["hooks"], path)
    if ledger is not None:
        ledger.load_state_dict(place["ledger"])
    runtime.set_random_state(mine["random"])
    return run


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint under a folder; None where there is none."""
    found = every(folder)
    return found[-1] if found else None


def every(folder: Path) -> list[Path]:
    """All checkpoints under a folder, oldest first; partly written ones bear another name and are not among them."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was saved at, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def prune(folder: Path, keep: int | None) -> None:
    """Delete all but the newest `keep` checkpoints, and what a killed save left."""
    for path in folder.glob(".partial-*"):
        shutil.rmtree(path, ignore_errors=True)
    if keep is not None:
        for path in every(folder)[: -max(1, keep)]:
            manifest.discard(path)


def _write_model(
    folder: Path, model: nn.Module, weights: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase | None
) -> None:
    # names that share storage are written once; which, is noted in the file's metadata
    save_torch_state_dict(pretrained.named_on_disk(model, weights), folder, max_shard_size="5GB")
    if isinstance(model, PreTrainedModel):
        config = copy.deepcopy(model.config)
        # servers choose the class by this; FSDP2 has put itself before the name
        config.architectures = [type(model).__name__.removeprefix("FSDP")]
        config.dtype = str(model.dtype).removeprefix("torch.")
        config.save_pretrained(folder)
        generation = getattr(model, "generation_config", None)  # some heads have none
        if generation is not None:
            generation.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _read_model(path: Path, model: nn.Module) -> None:
    live = pretrained.named_on_disk(model, model.state_dict())
    missing = set(live)
    for file in sorted(path.glob("model*.safetensors")):
        try:
            tensors = load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file}: torn or not safetensors ({error})") from None
        for name, tensor in tensors.items():
            if name not in live:
                raise ValueError(f"{file}: the model has no tensor {name!r}")
            if live[name].shape != tensor.shape:
                raise ValueError(f"{file}: {name} is {tuple(tensor.shape)}, the model's {tuple(live[name].shape)}")
            if live[name].dtype != tensor.dtype:
                raise ValueError(f"{file}: {name} is {tensor.dtype}, the model's {live[name].dtype}")
            with torch.no_grad():
                live[name].copy_(states.like(tensor, live[name]))
            missing.discard(name)
    pointers = {_pointer(live[name]) for name in live if name not in missing}
    untied = [name for name in sorted(missing) if _pointer(live[name]) not in pointers]
    if untied:
        raise ValueError(f"{path}: the tensor {untied[0]!r} is missing")


def _pointer(tensor: Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.data_ptr()


def _groups(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [
        {
            **{key: value for key, value in group.items() if key != "params"},
            "names": [names[p] for p in group["params"]],
        }
        for group in optimizer.param_groups
    ]


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer, here: bool) -> dict[str, Any]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[cast(nn.Parameter, parameter)]: {
            key: states.whole(value, here) if isinstance(value, Tensor) else value for key, value in state.items()
        }
        for parameter, state in optimizer.state.items()
    }


def _read_optimizer(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    saved = states.read(path / "optimizer")
    names = {parameter: name for name, parameter in model.named_parameters()}
    mine = [sorted(group["names"]) for group in _groups(model, optimizer)]
    if mine != [sorted(group["names"]) for group in saved["groups"]]:
        raise ValueError(f"{path}/optimizer.json: its parameter groups are not this optimizer's")
    for group, kept in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update({key: tuple(v) if isinstance(v, list) else v for key, v in kept.items() if key != "names"})
    optimizer.state.clear()
    for group in optimizer.param_groups:
        # as torch's own loading does: only these count their steps on the device
        device = group["params"][0].device if group.get("fused") or group.get("capturable") else torch.device("cpu")
        for parameter in group["params"]:
            moments = saved["moments"].get(names[parameter])
            if moments is not None:
                optimizer.state[parameter] = {key: _placed(v, parameter, device) for key, v in moments.items()}


def _placed(value: Any, parameter: Tensor, device: torch.device) -> Any:
    if not isinstance(value, Tensor):
        return value
    return states.like(value, parameter) if value.shape == parameter.shape and value.ndim else value.to(device)


def _memories(hooks: Sequence[Hook]) -> dict[str, Stateful]:
    found = {f"{index} {type(hook).__name__}": memory(hook) for index, hook in enumerate(hooks)}
    return {name: hook for name, hook in found.items() if hook is not None}


def _load_hooks(hooks: Sequence[Hook], saved: dict[str, Any], path: Path) -> None:
    mine = _memories(hooks)
    if set(mine) != set(saved):
        raise ValueError(f"{path}: it holds the memory of the hooks {sorted(saved)}, this run has {sorted(mine)}")
    for name, hook in mine.items():
        hook.load_state_dict(saved[name])


def _place(run: Run, ledger: Ledger | None, processes: int, model: nn.Module) -> dict[str, Any]:
    return {
        "step": run.step,
        "loss": run.loss.hex() if run.loss == run.loss else None,
        "batches": run.batches.state_dict(),
        "ledger": ledger.state_dict() if ledger is not None else {},
        "processes": processes,
        "sharded": _sharded(model),
    }


def _sharded(model: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: no run can go on from it: it has no {path.name}") from None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
