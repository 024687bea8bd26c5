"""A mixture's place in the checkpoints of the Hugging Face `Trainer`, which reads ahead of what it trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from shoestring import files
from shoestring.methods.mixing.mixture import Mixture

PLACE = "mixture.json"


class MixtureCallback(TrainerCallback):  # type: ignore[misc]
    """Keeps a mixture's place, and weights set in other callbacks, in each checkpoint, and goes on from there.

        mixture = Mixture(sources, batch_size=None)
        trainer = Trainer(model, args, train_dataset=mixture, callbacks=[MixtureCallback(mixture), ...])

    Before all callbacks that set weights. `TrainingArguments` are to have `ignore_data_skip=True`, since the mixture
    goes on by itself, `max_steps`, no loader's workers, and one process. The Trainer reads one batch ahead: weights
    that are set after a step hold from the step after the next, also in a run that is resumed.
    Raises ValueError where a run cannot go on exactly: other arguments, no place in the checkpoint, or another mixture.
    """

    def __init__(self, mixture: Mixture) -> None:
        if not isinstance(mixture, Mixture):
            raise ValueError(f"MixtureCallback of a {type(mixture).__name__}: expected the Mixture that is trained on")
        if mixture.batch_size is not None:
            raise ValueError(
                f"batch_size is {mixture.batch_size}: expected a Mixture with batch_size=None, of single samples, "
                "which the Trainer makes batches of"
            )
        mixture.ahead = 1
        self.mixture = mixture
        self._before = 0  # samples that were read before this training
        self._seen: list[dict[str, Any]] = []  # states, of which the first is before what the next checkpoint is of

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **had: Any) -> None:
        """Find the place that belongs to the step the run begins at."""
        read = getattr(had.get("train_dataloader"), "dataset", None)
        if isinstance(read, Mixture) and read is not self.mixture:
            raise ValueError("the Trainer reads another mixture than this callback's: give both the same")
        if args.dataloader_num_workers or args.world_size > 1 or not args.ignore_data_skip:
            raise ValueError(
                f"dataloader_num_workers={args.dataloader_num_workers}, {args.world_size} processes, ignore_data_skip="
                f"{args.ignore_data_skip}: expected 0, one and True, for a mixture to be saved and resumed"
            )
        if state.global_step:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}" / PLACE
            if not path.is_file():
                raise ValueError(f"{path}: no such file: the run was not saved with MixtureCallback, or lies elsewhere")
            self.mixture.load_state_dict(files.read_json(path, "resume from another checkpoint"))
        self._before = self.mixture.batches - self._samples(args, state)
        self._seen = [self.mixture.state_dict()]

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look where the mixture is: a batch ahead."""
        self._seen = [*self._seen[-1:], self.mixture.state_dict()]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the place of the step that was saved into its checkpoint."""
        place = self.mixture.state_after(self._before + self._samples(args, state), self._seen[0])
        files.replace(Path(args.output_dir) / f"checkpoint-{state.global_step}" / PLACE, json.dumps(place))

    @staticmethod
    def _samples(args: TrainingArguments, state: TrainerState) -> int:
        steps: int = state.global_step
        return steps * int(args.gradient_accumulation_steps) * int(args.train_batch_size)
