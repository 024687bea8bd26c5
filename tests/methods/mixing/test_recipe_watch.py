"""What is measured and what it costs: a run's own, its sampler's, and the report's, which are nobody's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from shoestring import config, rooms, runtime
from shoestring.cost import Cost, Ledger, flops
from shoestring.data import tokenizers
from shoestring.methods.mixing.recipe_schema import Recipe
from shoestring.methods.mixing.recipe_tasks import Task, task
from shoestring.methods.mixing.recipe_watch import MIX, Controls, Watch, accuracies, losses, own
from shoestring.models import presets
from shoestring.train.loop import DivergedError
from shoestring.types import Run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("task") / "tokenizer"
    tokenizers.byte_tokenizer().save_pretrained(folder)
    return task(config.load(rooms.find("mixing").recipe("smoke"), Recipe), folder)


@pytest.fixture
def model(made: Task):
    runtime.start()
    return presets.build(presets.configuration("neox-tiny", 257, made.length), 0)


class Says(nn.Module):
    """A model that finds one byte likeliest everywhere."""

    def __init__(self, byte: str) -> None:
        super().__init__()
        self.place, self.none = ord(byte), nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, use_cache: bool) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, 257)
        logits[..., self.place] = 1
        return SimpleNamespace(logits=logits)


def test_accuracy_by_hand_of_a_model_that_always_says_seven(made: Task) -> None:
    found = accuracies(Says("7"), made.held_out["test"])
    assert set(found) == set(made.evaluated)
    for skill, share in found.items():
        answers = torch.cat([batch["labels"][:, -1] for batch in made.held_out["test"][skill]])
        assert share == pytest.approx(float((answers == ord("7")).double().mean()))
    assert max(found.values()) > 0


def test_a_sampler_is_told_of_dev_and_pays_for_it(made: Task, model) -> None:
    ledger = Ledger()
    few = Controls.of_dev(made, 4, ledger)
    with ledger.phase("train"):
        found = few(model)
    assert set(found) == set(made.evaluated)
    for skill, batches in few.held_out.items():
        kept = {tuple(row.tolist()) for batch in batches for row in batch["input_ids"]}
        dev = {tuple(row.tolist()) for batch in made.held_out["dev"][skill] for row in batch["input_ids"]}
        assert kept <= dev
        assert len(kept) == 4
    spent = ledger.phases()[f"train/{MIX}"].flops
    assert spent == 2 * flops.formula(model.config, 4, made.length, backward=False)
    assert Controls.of_pools(made, 4, ledger).held_out == {}


def test_unevaluated_skills_are_measured_where_they_are_trained_on(made: Task, model) -> None:
    some = Task(made.skills, made.skills[:1], made.pools, made.held_out, made.length, True)
    found = Controls.of_pools(some, 5, Ledger())
    assert set(found.held_out) == {made.skills[1]}
    assert found.held_out[made.skills[1]][0]["input_ids"].shape == (5, made.length)
    assert found(model)[made.skills[1]] > 0


def test_they_are_spread_over_their_pool(made: Task) -> None:
    pool = [{"input_ids": torch.tensor([row, row])} for row in range(9)]
    some = Task(("a", "b"), ("a",), {"a": pool, "b": pool}, made.held_out, 2, False)
    found = Controls.of_pools(some, 5, Ledger()).held_out["b"][0]["input_ids"]
    assert found[:, 0].tolist() == [0, 1, 3, 5, 7]


def test_a_point_costs_what_the_run_took_without_measuring_it(made: Task, model) -> None:
    ledger = Ledger()
    watch = Watch(made, ledger)
    with ledger.phase("train"):
        ledger.charge(flops=100, tokens=7)
        with ledger.phase(MIX):
            ledger.charge(flops=10)
        with ledger.phase("save"):
            ledger.charge(flops=1000)
        watch(Run(model, torch.optim.SGD(model.parameters(), lr=0.1), iter(()), step=3))  # type: ignore[arg-type]
    point = watch.points[0]
    assert (point["step"], point["cost"]["flops"], point["cost"]["tokens"]) == (3, 110, 7)
    assert set(point["loss"]) == set(point["accuracy"]) == set(made.evaluated)
    rows = sum(len(batch["input_ids"]) for batches in made.held_out["test"].values() for batch in batches)
    twice = 2 * flops.formula(model.config, rows, made.length, backward=False)  # for the losses, and for the accuracies
    assert ledger.phases()["train/evaluate"].flops == pytest.approx(twice)
    again = Watch(made, ledger)
    again.load_state_dict(watch.state_dict())
    assert again.points == watch.points


def test_phases_of_the_report_are_no_runs_own() -> None:
    book = {
        "train": Cost(flops=1).as_dict(),
        "train/mix": Cost(flops=2).as_dict(),
        "train/evaluate": Cost(flops=4).as_dict(),
    }
    book |= {"evaluate": Cost(flops=8).as_dict(), "train/save": Cost(flops=16).as_dict()}
    assert own(book).flops == 3


def test_a_loss_that_is_not_finite_is_a_run_that_diverged(made: Task, model) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="held-out digit 0"):
        losses(model, made.held_out["dev"], Ledger())
