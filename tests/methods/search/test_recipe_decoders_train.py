"""One architecture's trainings: finished ones are read, stopped ones go on to the same bits."""

from __future__ import annotations

import json
from random import Random

import pytest
from safetensors.torch import load_file

from shoestring.data import tokenizers
from shoestring.methods.search import recipe_decoders_train as trainings
from shoestring.methods.search.recipe_decoders_draw import drawn
from shoestring.methods.search.recipe_decoders_ground import Ground
from shoestring.methods.search.recipe_schema import Decoders
from shoestring.train.settle import Settled

CHOSEN = Decoders(
    length=16,
    batch=4,
    held_out=64,
    layers=(1, 2),
    widths=(32,),
    head_widths=(16,),
    ratios=(1.0, 2.0, 4.0),
    parameters=(20_000, 60_000),
    free=3,
    fixed=3,
    fixed_parameters=30_000,
    tolerance=0.5,
    steps=12,
    warmup_steps=2,
    learning_rates=(3e-3, 1e-2),
)


@pytest.fixture
def ground(corpus, tmp_path):
    tokenizers.resolve("bytes", ()).save_pretrained(tmp_path / "tokenizer")
    found = drawn(CHOSEN, 257, Random(0))
    places = dict.fromkeys(("train", "dev", "test"), corpus.folder)
    return Ground(places, tmp_path / "tokenizer", "numbers", found, Settled("fp32", False, 1, "told"), 1)


def silent(step, until, loss, rate):
    pass


def without_clock(training):
    costs = [point["cost"]["flops"] for point in training.points]
    return [point["test"] for point in training.points], training.dev, costs, training.cost.tokens, training.diverged


def test_each_rate_and_seed_is_trained_once_and_then_read(ground, tmp_path):
    text = ground.drawn.every[0]
    shown = []
    found = trainings.follow(CHOSEN, ground, text, (0, 1), True, tmp_path, lambda *told: shown.append(told[:2]))
    assert list(found) == [(3e-3, 0), (3e-3, 1), (1e-2, 0), (1e-2, 1)]
    one = found[1e-2, 0]
    assert [point["step"] for point in one.points] == [2, 4, 6, 8, 10, 12]
    assert one.points[-1]["cost"]["tokens"] == one.cost.tokens == 12 * 4 * 16
    assert one.test < one.points[0]["test"]
    assert one.dev == pytest.approx(one.test)  # both are of one text here
    assert one.ledger["train/evaluate"]["flops"] > 0 == one.ledger["train/evaluate"]["tokens"]
    assert shown[-1] == (48, 48)
    kept = [path.parent.parent.parent.name for path in tmp_path.rglob("model.safetensors")]
    assert sorted(kept) == ["rate0.003-seed0", "rate0.01-seed0"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    assert trainings.follow(CHOSEN, ground, text, (0, 1), True, tmp_path, silent) == found
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before
    trainings.export(CHOSEN, ground, text, 1e-2, 0, tmp_path)
    exported = load_file(tmp_path / "checkpoint" / "model.safetensors")
    last = load_file(trainings.place(tmp_path, text, 1e-2, 0) / "checkpoint" / "step-00000012" / "model.safetensors")
    assert exported.keys() == last.keys()
    assert all(bool((exported[name] == last[name]).all()) for name in last)


@pytest.mark.parametrize("step", [4, 7, 12])
def test_stopped_and_gone_on_is_never_stopped(ground, tmp_path, monkeypatch, step):
    text = ground.drawn.every[-1]
    chosen = CHOSEN.model_copy(update={"learning_rates": (1e-2,)})
    whole = trainings.follow(chosen, ground, text, (0,), True, tmp_path / "whole", silent)

    class StoppedError(Exception):
        pass

    class Stop(trainings.Progress):
        def __call__(self, run):
            if run.step == step:
                raise StoppedError

    monkeypatch.setattr(trainings, "_SAVED", 3)
    monkeypatch.setattr(trainings, "_SAVE_SECONDS", 0.0)
    with monkeypatch.context() as stopping:
        stopping.setattr(trainings, "Progress", Stop)
        with pytest.raises(StoppedError):
            trainings.follow(chosen, ground, text, (0,), True, tmp_path / "torn", silent)
    torn = trainings.place(tmp_path / "torn", text, 1e-2, 0)
    assert not (torn / "result.json").exists()
    assert (torn / "checkpoint" / f"step-{(step - 1) // 3 * 3:08d}").is_dir()
    resumed = trainings.follow(chosen, ground, text, (0,), True, tmp_path / "torn", silent)
    assert without_clock(resumed[1e-2, 0]) == without_clock(whole[1e-2, 0])
    files = [trainings.place(tmp_path / out, text, 1e-2, 0) for out in ("whole", "torn")]
    weights = [load_file(file / "checkpoint" / "step-00000012" / "model.safetensors") for file in files]
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])


def test_a_training_that_diverges_says_so_and_what_it_cost(ground, tmp_path, monkeypatch):
    def fails(run, objective, *, ledger, **rest):
        ledger.charge(flops=5)
        raise trainings.DivergedError("step 3: the loss is nan")

    monkeypatch.setattr(trainings, "train", fails)
    found = trainings.follow(CHOSEN, ground, ground.drawn.every[0], (0,), False, tmp_path, silent)
    assert [(one.diverged, one.dev, one.cost.flops) for one in found.values()] == 2 * [
        ("step 3: the loss is nan", None, 5)
    ]


def test_a_torn_result_is_refused_by_name(ground, tmp_path):
    text = ground.drawn.every[0]
    folder = trainings.place(tmp_path, text, 3e-3, 0)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"points": []})[:-1])
    with pytest.raises(ValueError, match=r"result.json: torn .* delete it, and this training is done again"):
        trainings.follow(CHOSEN, ground, text, (0,), False, tmp_path, silent)
