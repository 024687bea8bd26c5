"""The Hugging Face Trainer, stopped and resumed: the samples and weights of a run that was never stopped."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.trainer import PLACE, MixtureCallback
from shoestring.models import presets

SOURCES = {
    name: [{"input_ids": torch.tensor([kind, number, 0, 1])} for number in range(9)]
    for kind, name in enumerate("ab", 2)
}


class Reweigh(TrainerCallback):
    """Weights that follow the step."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        share = 0.9 if state.global_step % 3 else 0.2
        self.mixture.set_weights({"a": share, "b": 1 - share})


def trained(
    folder: Path,
    until: int,
    accumulate: int = 1,
    resume: bool = False,
    before: int = 0,
    callback: Any = None,
    **changes: Any,
) -> list[list[int]]:
    """The samples of each batch that the model was given, as (source, number) in one.

    before  samples that are looked at before it is trained
    """
    given: list[list[int]] = []
    mixture = Mixture(SOURCES, batch_size=None, seed=1)
    list(islice(mixture, before))

    def collate(samples: list[Any]) -> Any:
        ids = torch.stack([sample["input_ids"] for sample in samples])
        return {"input_ids": ids, "labels": ids}

    class Watched(Trainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            given.append((100 * inputs["input_ids"][:, 0] + inputs["input_ids"][:, 1]).tolist())
            return super().training_step(model, inputs, *rest, **more)

    args = TrainingArguments(
        output_dir=str(folder), max_steps=until, save_steps=1, per_device_train_batch_size=4, report_to=[],
        use_cpu=True, gradient_accumulation_steps=accumulate, disable_tqdm=True, remove_unused_columns=False,
        logging_strategy="no",
        **{"ignore_data_skip": True} | changes,
    )  # fmt: skip
    model = presets.build(presets.configuration("neox-tiny", 16, 8), 0)
    callbacks = [callback or MixtureCallback(mixture), Reweigh(mixture)]
    trainer = Watched(model, args, train_dataset=mixture, data_collator=collate, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume or None)
    return given


@pytest.mark.parametrize("accumulate", [1, 3])
def test_stopped_and_resumed_is_never_stopped(accumulate: int, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 7, accumulate)
    assert len(whole) == 7 * accumulate
    assert len({tuple(sorted(sample // 100 for sample in batch)) for batch in whole}) > 1, "the weights moved"
    begun = trained(tmp_path / "parts", 3, accumulate)
    went_on = trained(tmp_path / "parts", 7, accumulate, resume=True)
    assert begun + went_on == whole


def test_what_was_read_before_the_training_is_left_out_when_it_goes_on(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 6, before=3)
    begun = trained(tmp_path / "parts", 2, before=3)
    assert begun + trained(tmp_path / "parts", 6, resume=True) == whole


def test_what_cannot_be_resumed_exactly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ignore_data_skip=False: expected 0, one and True"):
        trained(tmp_path, 1, ignore_data_skip=False)
    trained(tmp_path, 2)
    (tmp_path / "checkpoint-2" / PLACE).unlink()
    with pytest.raises(ValueError, match="the run was not saved with MixtureCallback"):
        trained(tmp_path, 3, resume=True)


def test_mixtures_that_the_trainer_cannot_read_as_they_are() -> None:
    mixture = Mixture(SOURCES, batch_size=None)
    MixtureCallback(mixture)
    assert mixture.ahead == 1, "an Aioli is to be told"
    with pytest.raises(ValueError, match="batch_size is 4: expected a Mixture with batch_size=None"):
        MixtureCallback(Mixture(SOURCES, batch_size=4))
    with pytest.raises(ValueError, match="MixtureCallback of a str"):
        MixtureCallback("mixture")  # type: ignore[arg-type]


def test_another_mixture_than_is_read(tmp_path: Path) -> None:
    other = MixtureCallback(Mixture(SOURCES, batch_size=None))
    with pytest.raises(ValueError, match="the Trainer reads another mixture than this callback's"):
        trained(tmp_path, 2, callback=other)


def test_a_state_that_was_never_reached_is_refused() -> None:
    mixture = Mixture(SOURCES, batch_size=4)
    before = mixture.state_dict()
    with pytest.raises(ValueError, match="the state after 1 batches: expected from 0 to 0"):
        mixture.state_after(1, before)
