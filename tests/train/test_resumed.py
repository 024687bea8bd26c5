"""train/resumed.py: stopped and gone on with is never stopped."""

import pytest
import torch

from shoestring.cost import Ledger
from shoestring.data import tokenizers
from shoestring.models import presets
from shoestring.train import checkpoint, optim
from shoestring.train.objectives import next_token
from shoestring.train.resumed import resumed
from shoestring.types import Run


class Numbers:
    """Batches of a seeded stream that knows where it is."""

    def __init__(self):
        self.drawn = 0

    def __iter__(self):
        while True:
            self.drawn += 1
            yield {"input_ids": torch.randint(257, (2, 8), generator=torch.Generator().manual_seed(self.drawn))}

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


def train(folder, until=24, show=lambda *_: None, ledger=None):
    model = presets.build(presets.configuration("neox-tiny", 257, 8), 0)
    run = Run(model, optim.adamw(model, 1e-3), Numbers())
    return resumed(
        run,
        next_token,
        until=until,
        folder=folder,
        ledger=ledger if ledger is not None else Ledger(),
        tokenizer=tokenizers.byte_tokenizer(),
        show=show,
        save_seconds=0.0,
        schedule=optim.cosine(25),
    )


def test_stopped_and_gone_on_with_is_never_stopped(tmp_path):
    def stop(step, *_):
        if step == 24:
            raise KeyboardInterrupt

    whole, spent = train(tmp_path / "whole", ledger=(ledger := Ledger())), Ledger()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", show=stop)
    assert [path.name for path in checkpoint.every(tmp_path / "stopped")] == ["step-00000020"]
    after = train(tmp_path / "stopped", ledger=spent)
    assert after.step == whole.step == 24
    for one, other in zip(after.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert spent.total("train").tokens == ledger.total("train").tokens == 24 * 16


def test_what_has_ended_is_read_and_not_redone(tmp_path):
    train(tmp_path)
    shown = []
    run = train(tmp_path, show=lambda step, *_: shown.append(step))
    assert run.step == 24
    assert shown == []
    assert [path.name for path in checkpoint.every(tmp_path)] == ["step-00000024"]
