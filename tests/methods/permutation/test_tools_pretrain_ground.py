"""What a pretraining stands on: its measure on held-out text, against transformers and by what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shoestring import runtime
from shoestring.methods.permutation.convert import to_transformers
from shoestring.methods.permutation.orders import perm_mask
from shoestring.methods.permutation.tools_pretrain_ground import Ground, prepare
from shoestring.methods.permutation.tools_pretrain_setting import Setting

UNSAID = ("tokenizer", "reuse", "memory", "predicted", "learning_rate", "warmup", "spans", "segments")


@pytest.fixture
def ground(tmp_path: Path) -> Callable[..., Ground]:
    text = tmp_path / "text"
    text.mkdir()
    for name, count in (("train", 900), ("dev", 60), ("test", 1)):
        (text / f"{name}.txt").write_text(" ".join(f"{number * 7 % 101} is so." for number in range(count)))

    def made(**changes: Any) -> Ground:
        given = {"text": [str(text)], "model": "xlnet-tiny", "objective": "permutation", "length": 16, "batch": 4}
        given |= {"steps": 4, "seed": 0, "one_direction": False, "precision": "fp32", "checkpointing": False}
        given |= dict.fromkeys(UNSAID) | {"tokenizer": "bytes", "accumulate": 1, "text_field": "text"} | changes
        return prepare(Setting.of(given), tmp_path / "out")[0]

    return made


def test_the_loss_on_dev_is_what_transformers_gives(ground):
    found = ground(memory=0, one_direction=True)
    model, held = found.model(), found.held()
    measured = found.dev_loss(model, held)
    assert model.training
    theirs, losses = to_transformers(model).eval(), []
    for batch in held:
        mapping = nn.functional.one_hot(batch["targets"].clamp(min=0), 16).float()
        masks = {"perm_mask": perm_mask(batch["rank"], batch["sees"]), "target_mapping": mapping}
        with torch.no_grad():
            logits = theirs(batch["input_ids"], token_type_ids=batch["token_type_ids"], **masks).logits
        kept = batch["labels"] >= 0
        losses.append(nn.functional.cross_entropy(logits[kept], batch["labels"][kept], reduction="none"))
    assert measured == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


@pytest.mark.parametrize("objective", ["permutation", "masked"])
def test_looking_draws_nothing_of_the_run_and_is_the_same_each_time(ground, objective):
    found = ground(objective=objective)
    run, learnt = found.run()
    before = runtime.random_state()["torch"]
    first, second = (found.dev_loss(run.model, found.held()) for _ in range(2))
    assert first == second
    assert torch.equal(runtime.random_state()["torch"], before)
    assert learnt.memory.slots == []


def test_as_many_rows_as_the_held_out_part_fills(ground):
    found = ground(batch=64)
    rows = found.held()[0]["input_ids"].shape[0]
    tokens = len(found.text("dev"))
    assert rows == tokens // 20 // 2 * 2, "13 of a sequence's 16 tokens are text, from a start within 8"
    assert 0 < rows < 64


def test_a_model_is_the_seeds_own(ground):
    found = ground(checkpointing=True, segments="one")
    one, other = (found.run()[0].model for _ in range(2))
    assert all(torch.equal(mine, its) for mine, its in zip(one.parameters(), other.parameters(), strict=True))
    assert (one.config.mem_len, one.config.reuse_len, one.config.attn_type) == (12, 8, "bi")
    frozen = {name.split(".")[-1] for name, weight in one.named_parameters() if not weight.requires_grad}
    assert frozen == {"seg_embed", "r_s_bias"}
