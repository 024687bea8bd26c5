"""Averaging for who trains with Lightning: the extra `shoestring[lightning]`."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from shoestring.methods.averaging.latest import Latest
from shoestring.methods.averaging.window import SuspiciousWindow

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError("AveragingLightningCallback needs Lightning: pip install 'shoestring[lightning]'") from error


class AveragingLightningCallback(Callback):  # type: ignore[misc]
    """Validates and saves the average of the latest weights, while the live ones train on as if it were not there.

    count, every, start   as in `Latest`, in steps of the optimizer; before the window is full the live weights validate

    Validation sees the average: what `validation_step` logs is its score, also to a `ModelCheckpoint` that monitors
    it. The live weights are back when validation ends, or fails, and are what a checkpoint holds as `state_dict`; the
    average joins it as `averaged_state_dict` where the window is full. The window is part of the checkpoint, so that a
    resumed run averages what one never stopped would. One process and DDP, where all hold the same; FSDP1 is refused.
    """

    def __init__(self, count: int, every: int = 1, start: int = 0) -> None:
        super().__init__()
        self.latest = Latest(count, every, start)
        self._step = 0
        self._swap = ExitStack()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember where the run begins; a fresh one begins with an empty window."""
        self._step = trainer.global_step
        if self._step == 0:
            self.latest.clear()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Take the weights where it is time: of the batches that gradients are accumulated over, after the last."""
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            if self.latest.due(self._step):
                self.latest.take(pl_module, self._step)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the average in."""
        if self.latest.full:
            self._swap.enter_context(self.latest.swapped(pl_module))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the live weights back."""
        self._swap.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the live weights back."""
        self._swap.close()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the average under the names of the state dict it can be loaded in place of."""
        if not self.latest.full:
            return
        for sentence in self.latest.suspicious():
            warnings.warn(sentence, SuspiciousWindow, stacklevel=2)
        with self.latest.swapped(pl_module):
            checkpoint["averaged_state_dict"] = _copied(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The window, as `Latest` gives it."""
        return self.latest.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a window."""
        self.latest.load_state_dict(state_dict)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    """The state dict in host memory, tied tensors once."""
    copies: dict[tuple[Any, ...], Tensor] = {}
    copied = {}
    for name, tensor in module.state_dict().items():
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        if memory not in copies:
            copies[memory] = tensor.detach().to("cpu", copy=True)
        copied[name] = copies[memory]
    return copied
