"""Averaging under the Hugging Face Trainer, in real runs of a tiny model."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from shoestring.methods.averaging.average import average
from shoestring.methods.averaging.trainer import AveragingCallback
from shoestring.methods.averaging.window import SuspiciousWindow


class Kept(TrainerCallback):
    """The live weights after each step, as another callback sees them."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.weights[state.global_step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def texts(count: int, seed: int) -> list[dict[str, Tensor]]:
    rows = torch.randint(40, (count, 12), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in rows]


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="a")


def build(
    folder: Path, averaging: dict[str, int] | None, evaluated: Any = None, **settings: Any
) -> tuple[Trainer, Kept]:
    set_seed(0)
    config = GPTNeoXConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, hidden_dropout=0.1, tie_word_embeddings=True,
    )  # fmt: skip
    given = {
        "max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "lr_scheduler_type": "constant",
        "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4, "logging_steps": 2,
        "report_to": "none", "use_cpu": True, "disable_tqdm": True, "dataloader_pin_memory": False,
    } | settings  # fmt: skip
    kept = Kept()
    trainer = Trainer(
        model=GPTNeoXForCausalLM(config),
        args=TrainingArguments(output_dir=str(folder), **given),
        train_dataset=texts(24, 0),
        eval_dataset=evaluated or texts(8, 1),
        processing_class=tokenizer(),
        callbacks=[kept],
    )
    if averaging:
        trainer.add_callback(AveragingCallback(trainer, **averaging))
    return trainer, kept


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def loss_of(weights: dict[str, Tensor], config: GPTNeoXConfig) -> float:
    model = GPTNeoXForCausalLM(config).eval()
    model.load_state_dict(weights)
    rows = torch.stack([row["input_ids"] for row in texts(8, 1)])
    with torch.no_grad():
        return float(model(input_ids=rows, labels=rows).loss)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, Kept]:
    folder = tmp_path_factory.mktemp("finished")
    trainer, kept = build(folder, {"count": 3})
    trainer.train()
    return folder, trainer, kept


def test_the_average_is_evaluated_beside_the_live_weights(finished: tuple[Path, Trainer, Kept]) -> None:
    _, trainer, kept = finished
    log = trainer.state.log_history
    found = {row["step"]: row["eval_averaged_loss"] for row in log if "eval_averaged_loss" in row}
    live = {row["step"]: row["eval_loss"] for row in log if "eval_loss" in row}
    assert list(live) == [2, 4, 6, 8]
    assert list(found) == [4, 6, 8]  # at step 2 the window is not full
    for step in found:
        mean = average([kept.weights[s] for s in (step - 2, step - 1, step)])
        assert found[step] == pytest.approx(loss_of(mean, trainer.model.config), abs=1e-5)
        assert live[step] == pytest.approx(loss_of(kept.weights[step], trainer.model.config), abs=1e-5)


def test_the_average_is_saved_beside_the_live_weights(finished: tuple[Path, Trainer, Kept]) -> None:
    folder, _, kept = finished
    for saved, last in ((folder / "checkpoint-4", 4), (folder / "checkpoint-8", 8), (folder, 8)):
        mean = average([kept.weights[s] for s in (last - 2, last - 1, last)])
        loaded = AutoModelForCausalLM.from_pretrained(saved / "averaged").state_dict()
        assert same(loaded, mean)
        assert PreTrainedTokenizerFast.from_pretrained(saved / "averaged").get_vocab() == {"a": 0, "b": 1}
        assert not list(saved.rglob("*.partial"))
    assert same(AutoModelForCausalLM.from_pretrained(folder / "checkpoint-8").state_dict(), kept.weights[8])


def test_the_live_run_is_the_same_bit_for_bit(finished: tuple[Path, Trainer, Kept], tmp_path: Path) -> None:
    _, trainer, kept = finished
    plain, plainly = build(tmp_path, None)
    plain.train()
    assert all(same(kept.weights[step], plainly.weights[step]) for step in range(1, 9))
    assert same(trainer.model.state_dict(), plain.model.state_dict())


def test_the_run_goes_on_as_if_evaluation_had_drawn_nothing(finished: tuple[Path, Trainer, Kept]) -> None:
    _, trainer, _ = finished

    def drawn() -> tuple[float, float, float]:
        set_seed(5)
        trainer.evaluate()
        return torch.rand(()).item(), random.random(), np.random.random()

    callback = next(one for one in trainer.callback_handler.callbacks if isinstance(one, AveragingCallback))
    beside = drawn()
    trainer.remove_callback(callback)
    assert drawn() == beside
    trainer.add_callback(callback)


def test_stopped_and_resumed_is_never_stopped(finished: tuple[Path, Trainer, Kept], tmp_path: Path) -> None:
    folder, whole, _ = finished
    first, _ = build(tmp_path, {"count": 3}, max_steps=4)
    first.train()
    second, _ = build(tmp_path, {"count": 3})
    second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(second.model.state_dict(), whole.model.state_dict())
    for name in ("checkpoint-8/averaged", "averaged"):
        one, other = (AutoModelForCausalLM.from_pretrained(where / name).state_dict() for where in (folder, tmp_path))
        assert same(one, other)
    ours = [row for row in second.state.log_history if "eval_averaged_loss" in row]
    theirs = [row for row in whole.state.log_history if "eval_averaged_loss" in row]
    assert [row["eval_averaged_loss"] for row in ours] == [row["eval_averaged_loss"] for row in theirs][: len(ours)]


def test_a_window_elsewhere_is_loaded_by_hand(finished: tuple[Path, Trainer, Kept], tmp_path: Path) -> None:
    folder, _, kept = finished
    trainer, again = build(tmp_path, {"count": 3}, max_steps=5, eval_strategy="no", save_strategy="no")
    callback = trainer.callback_handler.callbacks[-1]
    callback.load(folder / "checkpoint-4")
    trainer.train(resume_from_checkpoint=str(folder / "checkpoint-4"))
    assert callback.latest.steps == [3, 4, 5]
    found, mean = callback.latest.average(), average([kept.weights[3], kept.weights[4], again.weights[5]])
    assert same(found, {name: mean[name] for name in found})


def test_the_best_is_chosen_by_the_average_where_asked(tmp_path: Path) -> None:
    trainer, _ = build(
        tmp_path, {"count": 2}, max_steps=4, save_steps=2,
        metric_for_best_model="eval_averaged_loss", greater_is_better=False, load_best_model_at_end=True,
    )  # fmt: skip
    trainer.train()
    losses = [row["eval_averaged_loss"] for row in trainer.state.log_history if "eval_averaged_loss" in row]
    assert trainer.state.best_metric == min(losses)


def test_several_sets_are_each_evaluated(tmp_path: Path) -> None:
    sets = {"one": texts(4, 1), "other": texts(4, 2)}
    trainer, _ = build(tmp_path, {"count": 2}, max_steps=2, save_strategy="no", evaluated=sets)
    trainer.train()
    keys = {key for row in trainer.state.log_history for key in row if key.endswith("averaged_loss")}
    assert keys == {"eval_one_averaged_loss", "eval_other_averaged_loss"}


def test_an_error_while_the_average_is_in_leaves_the_live_weights(tmp_path: Path) -> None:
    trainer, kept = build(tmp_path, {"count": 2}, max_steps=2, eval_strategy="no", save_strategy="no")
    trainer.train()
    loop = trainer.evaluation_loop

    def fails(*args: Any, **keywords: Any) -> Any:
        if "averaged" in keywords["metric_key_prefix"]:
            assert not same(trainer.model.state_dict(), kept.weights[2])
            raise RuntimeError("out of memory")
        return loop(*args, **keywords)

    trainer.evaluation_loop = fails
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.evaluate()
    assert same(trainer.model.state_dict(), kept.weights[2])


def test_a_second_run_begins_with_an_empty_window(tmp_path: Path) -> None:
    trainer, _ = build(tmp_path, {"count": 2}, max_steps=2, eval_strategy="no", save_strategy="no")
    trainer.train()
    trainer.train()
    assert trainer.callback_handler.callbacks[-1].latest.steps == [1, 2]


def test_what_the_user_should_know_is_said(finished: tuple[Path, Trainer, Kept], tmp_path: Path) -> None:
    folder, _, _ = finished
    trainer, _ = build(tmp_path, {"count": 9}, max_steps=1, eval_strategy="no", save_strategy="no")
    with pytest.warns(UserWarning, match="ended with 1 of 9 weights taken"):
        trainer.train()
    trainer, _ = build(tmp_path, {"count": 2, "every": 9}, max_steps=5, eval_strategy="no", save_strategy="no")
    absent = pytest.warns(UserWarning, match=r"averaging.safetensors is absent: the window starts empty")
    with absent, pytest.warns(UserWarning, match="ended with 0 of 2 weights taken"):
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-4"))
    trainer, _ = build(tmp_path, {"count": 4}, max_steps=4, learning_rate=0.0, eval_strategy="no", save_strategy="no")
    with pytest.warns(SuspiciousWindow, match="The same weights twice"):
        trainer.train()


def test_misuse_is_refused_in_a_line(finished: tuple[Path, Trainer, Kept], tmp_path: Path) -> None:
    folder, _, _ = finished
    trainer, _ = build(tmp_path, {"count": 4})
    callback = trainer.callback_handler.callbacks[-1]
    with pytest.raises(ValueError, match=r"averaging.safetensors is absent"):
        callback.load(tmp_path)
    with pytest.raises(ValueError, match="count 3 and this one 4"):
        callback.load(folder / "checkpoint-4")
    name = "averaging.safetensors"
    for content in ((folder / "checkpoint-4" / name).read_bytes()[:900], b"not a window"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is no window that can be read") as caught:
            callback.load(tmp_path)
        assert "\n" not in str(caught.value)
    trainer, _ = build(tmp_path, {"count": 3}, max_steps=8)
    trainer.callback_handler.callbacks[-1].load(folder / "checkpoint-8")
    with pytest.raises(ValueError, match="reaches step 8, and the run begins at 4"):
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-4"))
    assert json.loads((folder / "checkpoint-8" / "trainer_state.json").read_text())["global_step"] == 8
