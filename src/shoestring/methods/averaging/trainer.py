"""Averaging for who trains with the Hugging Face `Trainer`."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import ProgressCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from shoestring.methods.averaging.latest import Latest
from shoestring.methods.averaging.weights import local_shard
from shoestring.methods.averaging.window import SuspiciousWindow

WINDOW = "averaging.safetensors"


class AveragingCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves the average of the latest weights; the live ones train on as if it were not there.

        trainer.add_callback(AveragingCallback(trainer, count=5, every=100))

    count, every, start   as in `Latest`; nothing is averaged before the window is full

    Evaluation: the Trainer tells callbacks of it only when it is over, once a data set. So the same batches are
    evaluated again with the average swapped in, under the prefix `eval_averaged`, which takes as long again, and the
    scores join the live ones. `metric_for_best_model="eval_averaged_loss"` works where `eval_delay` is not less than
    the steps until the window is full; a callback that stops early by it must be added after this one.
    Saving: `checkpoint-N/averaged/`, and `averaged/` at the end, are written by the Trainer's own `save_model`, and so
    load with `from_pretrained`. They have no optimizer state: an average has no moments that match it.
    Resuming: `checkpoint-N/averaging.safetensors` holds the window, and is found where checkpoints are written; call
    `load` before `train` when resuming from elsewhere.
    One process and DDP. Under FSDP2 each process holds its shards, and saves them to a file of its own, which as many
    processes must read again. DeepSpeed and FSDP1 are refused.
    """

    def __init__(self, trainer: Trainer, count: int, every: int = 1, start: int = 0) -> None:
        self.trainer = trainer
        self.latest = Latest(count, every, start)
        self._loaded = False

    def load(self, checkpoint: str | Path) -> None:
        """Take the window from a checkpoint's folder. Raises ValueError, naming the file, if absent or torn."""
        path = self._window(Path(checkpoint))
        if not path.is_file():
            raise ValueError(f"{path} is absent: expected the window of a run with AveragingCallback")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["averaging"])
                snapshots: dict[str, dict[str, Tensor]] = {str(age): {} for age in range(len(header["steps"]))}
                for key in file.keys():  # noqa: SIM118, a safe_open has no iterator
                    age, name = key.split("/", 1)
                    snapshots[age][name] = file.get_tensor(key)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"{path} is no window that can be read ({said}): remove it, or resume elsewhere"
            ) from error
        self.latest.load_state_dict(header | {"snapshots": snapshots})
        self._loaded = True

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Find the window that belongs to the step the run begins at."""
        if self.trainer.is_deepspeed_enabled:
            raise ValueError("AveragingCallback cannot read the partitioned weights of DeepSpeed: use DDP or FSDP2")
        if state.is_hyper_param_search:
            raise ValueError(
                "AveragingCallback does not know the folders of a hyper-parameter search: search without it"
            )
        loaded, self._loaded = self._loaded, False
        if loaded:
            if self.latest.steps and self.latest.steps[-1] > state.global_step:
                reach = f"reaches step {self.latest.steps[-1]}, and the run begins at {state.global_step}"
                raise ValueError(f"the loaded window {reach}: load that of the checkpoint resumed from")
            return
        self.latest.clear()
        if state.global_step > 0:
            folder = _checkpoint(args, state)
            if self._window(folder).is_file():
                self.load(folder)
                self._loaded = False
            else:
                warnings.warn(
                    f"resumed at step {state.global_step}, but {self._window(folder)} is absent: the window starts "
                    "empty; where it lies elsewhere, call load() with the checkpoint's folder before train()",
                    stacklevel=2,
                )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the weights where it is time."""
        if self.latest.due(state.global_step):
            self.latest.take(self.trainer.model, state.global_step)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        eval_dataloader: Any,
        **_: Any,
    ) -> None:
        """Evaluate the average on the batches that the live weights were just evaluated on."""
        if not self.latest.full:
            return
        prefix = min((name for name in metrics if name.endswith("_runtime")), key=len).removesuffix("_runtime")
        with self.latest.swapped(self.trainer.model), _randomness_kept():
            output = self.trainer.evaluation_loop(
                eval_dataloader,
                description="Evaluation of the average",
                prediction_loss_only=True if self.trainer.compute_metrics is None else None,
                metric_key_prefix=f"{prefix}_averaged",
            )
        for callback in self.trainer.callback_handler.callbacks:
            if isinstance(callback, ProgressCallback):
                callback.on_predict(args, state, control)  # closes the bar of these batches
        self.trainer.log(dict(output.metrics))
        metrics.update(output.metrics)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save the window, and the averaged model where the window is full, into the checkpoint just written."""
        folder = _checkpoint(args, state)
        if not args.save_only_model:
            sharded = any(local_shard(parameter) is not parameter for parameter in self.trainer.model.parameters())
            if sharded:
                self._save_window(self._own_window(folder))
            elif args.should_save:
                self._save_window(folder / WINDOW)
        if self.latest.full:
            self._save_average(folder / "averaged", args.should_save)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save the averaged model where the run saves its own."""
        if self.latest.full:
            self._save_average(Path(args.output_dir) / "averaged", args.should_save)
        else:
            warnings.warn(
                f"no average was saved: the run ended with {len(self.latest.steps)} of {self.latest.count} weights "
                "taken; choose a smaller count or every",
                stacklevel=2,
            )

    def _window(self, folder: Path) -> Path:
        """Where a folder holds this process's window: of its shards, or what all processes hold alike."""
        own = self._own_window(folder)
        return own if own.is_file() else folder / WINDOW

    def _own_window(self, folder: Path) -> Path:
        args = self.trainer.args
        return folder / f"averaging-{args.process_index}-of-{args.world_size}.safetensors"

    def _save_window(self, path: Path) -> None:
        state = self.latest.state_dict()
        tensors = {f"{age}/{name}": t for age, held in state.pop("snapshots").items() for name, t in held.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial, metadata={"format": "pt", "averaging": json.dumps(state)})
        partial.replace(path)

    def _save_average(self, folder: Path, writes: bool) -> None:
        for sentence in self.latest.suspicious():
            warnings.warn(f"{folder}: {sentence}", SuspiciousWindow, stacklevel=3)
        partial = folder.with_name(folder.name + ".partial")
        with self.latest.swapped(self.trainer.model):
            self.trainer.save_model(str(partial), _internal_call=True)  # internal: nothing is pushed to the hub
        if writes:
            if folder.exists():
                shutil.rmtree(folder)
            partial.replace(folder)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


@contextmanager
def _randomness_kept() -> Iterator[None]:
    """Whatever is drawn inside, by a data loader's seed or a collator, the run goes on as if it had not been."""
    python, array = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
