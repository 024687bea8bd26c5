"""Averaging under Lightning, in real runs of a tiny model."""

from __future__ import annotations

import builtins
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from shoestring.methods.averaging.average import average

lightning = pytest.importorskip("lightning.pytorch", reason="needs pip install 'shoestring[lightning]'")
averaging_lightning = importlib.import_module("shoestring.methods.averaging.lightning")

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings(
        "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"
    ),  # lightning's call
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
]


class Model(lightning.LightningModule):  # type: ignore[name-defined,misc]
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 3))
        self.layers[2].bias = self.layers[0].bias
        self.seen: dict[int, dict[str, Tensor]] = {}
        self.validated: dict[int, dict[str, Tensor]] = {}
        self.fails_at = -1

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return (self.layers(batch[0]) - batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        self.validated[self.trainer.global_step] = self.copy()
        if self.trainer.global_step == self.fails_at:
            raise RuntimeError("out of memory")
        self.log("loss", (self.layers(batch[0]) - batch[0]).square().mean())

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen[self.trainer.global_step] = self.copy()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 0.05)

    def copy(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.state_dict().items()}


def fit(
    folder: Path, averaging: dict[str, int] | None, resume: Path | None = None, fails_at: int = -1, **keywords: Any
) -> Any:
    lightning.seed_everything(0, verbose=False)
    model, data = Model(), TensorDataset(torch.randn(24, 3))
    model.fails_at = fails_at
    model.callback = averaging_lightning.AveragingLightningCallback(**averaging) if averaging else None
    saving = lightning.callbacks.ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=4)
    settings: dict[str, Any] = {"max_steps": 8, "val_check_interval": 2} | keywords
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[saving] + [model.callback] * bool(averaging), **settings,
    )  # fmt: skip
    loaders = DataLoader(data, batch_size=4), DataLoader(data, batch_size=24)
    trainer.fit(model, *loaders, ckpt_path=resume, weights_only=True if resume else None)
    return model


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, fit(folder, {"count": 3})


def mean(model: Any, *steps: int) -> dict[str, Tensor]:
    return average([model.seen[step] for step in steps])


def test_validation_sees_the_average_and_training_does_not(finished: tuple[Path, Any], tmp_path: Path) -> None:
    _, model = finished
    assert same(model.validated[2], model.seen[2])  # the window is not full
    for step in (4, 6, 8):
        assert same(model.validated[step], mean(model, step - 2, step - 1, step))
    plain = fit(tmp_path, None)
    assert all(same(model.seen[step], plain.seen[step]) for step in range(1, 9))
    assert same(model.copy(), plain.copy())


def test_the_checkpoint_holds_both(finished: tuple[Path, Any]) -> None:
    folder, model = finished
    for step in (4, 8):
        saved = torch.load(folder / f"step={step}.ckpt", weights_only=True)
        assert same(saved["state_dict"], model.seen[step])
        assert same(saved["averaged_state_dict"], mean(model, step - 2, step - 1, step))
        tied = [saved["averaged_state_dict"][name].data_ptr() for name in ("layers.0.bias", "layers.2.bias")]
        assert tied[0] == tied[1]


def test_a_resumed_run_goes_on_with_its_window(finished: tuple[Path, Any], tmp_path: Path) -> None:
    folder, whole = finished
    resumed = fit(tmp_path, {"count": 3}, resume=folder / "step=4.ckpt", max_steps=6)
    assert resumed.callback.latest.steps == [4, 5, 6]
    assert same(resumed.validated[6], average([whole.seen[4], resumed.seen[5], resumed.seen[6]]))


def test_accumulated_batches_count_once(tmp_path: Path) -> None:
    model = fit(tmp_path, {"count": 4}, max_steps=3, accumulate_grad_batches=2)
    assert model.callback.latest.steps == [1, 2, 3]


def test_an_error_while_the_average_is_in_leaves_the_live_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    original = Model.__init__

    def remembered(self: Any) -> None:
        original(self)
        kept.append(self)

    monkeypatch.setattr(Model, "__init__", remembered)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path, {"count": 2}, fails_at=4)
    assert not same(kept[0].validated[4], kept[0].seen[4])
    assert same(kept[0].copy(), kept[0].seen[4])


def test_without_lightning_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("lightning"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "shoestring.methods.averaging.lightning")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'shoestring\[lightning\]'"):
        importlib.import_module("shoestring.methods.averaging.lightning")
