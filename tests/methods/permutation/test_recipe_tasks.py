"""The tasks: files in their columns, what is dev, and the fine-tuning whose rate dev chooses."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from shoestring import config
from shoestring.cost import Ledger
from shoestring.data import tokenizers
from shoestring.methods.permutation import recipe_tasks
from shoestring.methods.permutation.configurations import build, configuration
from shoestring.methods.permutation.features import classification
from shoestring.methods.permutation.heads import with_head
from shoestring.methods.permutation.recipe_schema import FineTuning, Recipe, TaskSet
from shoestring.methods.permutation.recipe_tasks import accuracy, fingerprints, read, taught
from shoestring.methods.permutation.rows import Labelled
from shoestring.methods.permutation.vocabulary import Vocabulary, prepared
from shoestring.train.loop import DivergedError, train

Rows = list[dict[str, Any]]


def rows(count: int, first: int = 0) -> Rows:
    """The label is the letter that a text ends with."""
    return [
        {"text": f"number {place} {'ab'[place % 2]}", "label": "ab"[place % 2]} for place in range(first, first + count)
    ]


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., TaskSet]:
    """task(train rows, test rows, **fields): written to files of their own."""
    number = iter(range(99))

    def make(train: Rows, test: Rows, **fields: Any) -> TaskSet:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        paths = {"train": folder / "train.jsonl", "test": folder / "test.jsonl"}
        for path, some in zip(paths.values(), (train, test), strict=True):
            path.write_text("".join(json.dumps(row) + "\n" for row in some))
        return TaskSet(name="A", **{name: str(path) for name, path in paths.items()}, **fields)

    return make


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return prepared(tokenizers.byte_tokenizer())[0]


@pytest.fixture
def model() -> Any:
    return build(configuration("xlnet-tiny", 260, n_layer=1), 0)


def quiet(*_: Any) -> None:
    """Nobody watches."""


# what is read


def test_a_set_in_its_parts(task: Any) -> None:
    found = read(task(rows(200), rows(20, 500)))
    assert found.labels == ("a", "b")
    assert [example.texts for example in found.test] == [(row["text"],) for row in rows(20, 500)]
    assert sorted((*found.train, *found.dev), key=lambda row: row.texts) == sorted(
        (Labelled("", (row["text"],), row["label"]) for row in rows(200)), key=lambda row: row.texts
    )
    assert 8 <= len(found.dev) <= 35, "about a tenth"


def test_what_is_dev_hangs_on_the_texts_alone(task: Any) -> None:
    one, other = read(task(rows(200), rows(9))), read(task(rows(300)[::-1], rows(9)))
    assert set(one.dev) <= set(other.dev)
    assert not set(one.train) & set(other.dev)
    twice = read(task(rows(100) * 2, rows(9)))
    assert not set(twice.dev) & set(twice.train), "copies stay on one side"


def test_two_columns_and_labels_that_are_numbers(task: Any) -> None:
    pairs = [{"one": f"x{place}", "two": f"y{place}", "gold": place % 3} for place in range(60)]
    found = read(task(pairs, pairs[:5], columns=("one", "two"), label="gold"))
    assert found.labels == ("0", "1", "2")
    assert found.test[4] == Labelled("", ("x4", "y4"), "1")


def test_a_limit_is_of_each_part(task: Any) -> None:
    found = read(task(rows(200), rows(20), limit=6))
    assert (len(found.train), len(found.dev), len(found.test)) == (6, 6, 6)
    by_label = sorted(rows(200), key=lambda row: row["label"])
    assert {row.label for row in read(task(by_label, rows(20), limit=40)).train} == {"a", "b"}


def test_files_by_name_and_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOESTRING_DATA", str(tmp_path))
    for name, some in (("train", rows(50)), ("test", rows(4))):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in some)
    found = read(TaskSet(name="A", train="train.jsonl.gz", test="test.jsonl.gz", limit=40))
    assert len(found.test) == 4


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"label": "a"}, r"train\.jsonl:41: no 'text'; it has 'label': name the right one"),
        ({"text": "x"}, r"train\.jsonl:41: no 'label'; it has 'text': name the right one"),
        ({"text": None, "label": "a"}, r"train\.jsonl:41: text: expected text, got None"),
        ({"text": ["x"], "label": "a"}, r"train\.jsonl:41: text: expected text, got \['x'\]"),
        ({"text": " \n", "label": "a"}, r"train\.jsonl:41: text: empty: leave such rows out$"),
        ({"text": "x", "label": ""}, r"train\.jsonl:41: label: empty"),
        ([1], r"train\.jsonl:41: a JSON list, expected an object"),
    ],
)
def test_a_row_that_is_not_what_its_columns_say(row: Any, said: str, task: Any) -> None:
    made = task([*rows(40), row], rows(9))
    with pytest.raises(ValueError, match=said):
        read(made)


def test_a_line_that_is_no_json(task: Any) -> None:
    made = task(rows(40), rows(9))
    Path(made.test).write_text('{"text": "x"')
    with pytest.raises(ValueError, match=r"test\.jsonl:1: not JSON"):
        read(made)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (
            rows(40),
            [{"text": "x", "label": "c"}],
            r"test\.jsonl: the label 'c' is none of those that are learnt: a, b$",
        ),
        (rows(40)[::2], rows(9), r"train\.jsonl: \d+ and \d+ examples of the labels \('a',\): expected more"),
        (rows(40), [], r"expected more"),
        (rows(2), rows(9), r"expected more"),
        ([], rows(9), r"train\.jsonl: 0 and 0 examples"),
    ],
)
def test_too_few_and_strange_labels(train: Rows, test: Rows, said: str, task: Any) -> None:
    made = task(train, test)
    with pytest.raises(ValueError, match=said):
        read(made)


def test_a_label_that_dev_alone_has(task: Any) -> None:
    found = read(task(rows(100), rows(9)))
    odd = [{**row, "label": "c"} if row["text"] == found.dev[0].texts[0] else row for row in rows(100)]
    made = task(odd, rows(9))
    with pytest.raises(ValueError, match=r"train\.jsonl: the label 'c' is none of those that are learnt: a, b$"):
        read(made)


# before all else


def told(sets: list[TaskSet], batch: int = 8) -> Recipe:
    values: Mapping[str, Any] = {
        "model": "xlnet-tiny",
        "text": {"sources": ["a"], "tokenizer": "bytes", "length": 16, "reuse": 6, "predicted": 4, "batch": 2},
        "memory": 4,
        "arms": ["permutation", "masked"],
        "steps": 2,
        "held": {"dev": 3, "test": 4},
        "seeds": [0],
        "tuning": {"learning_rates": [1e-3]},
        "fine_tuning": {"sets": [one.model_dump(mode="json") for one in sets], "batch": batch},
    }
    return config.check(values, Recipe, "here")


def test_fingerprints_are_of_all_files(task: Any) -> None:
    one = task(rows(100), rows(9))
    found = fingerprints(told([one]))
    assert set(found) == {one.train, one.test}
    Path(one.test).write_text(json.dumps(rows(1, 77)[0]))
    assert fingerprints(told([one]))[one.test] != found[one.test]
    assert fingerprints(told([])) == {}


def test_what_cannot_be_taught_is_told_first(task: Any) -> None:
    with pytest.raises(ValueError, match=r"test\.jsonl: the label 'c'"):
        fingerprints(told([task(rows(100), [{"text": "x", "label": "c"}])]))
    with pytest.raises(ValueError, match=r"train\.jsonl: \d+ examples: expected a batch of 99 or more$"):
        fingerprints(told([task(rows(100), rows(9))], batch=99))


# what is taught


def test_a_task_is_learnt_and_the_pretrained_model_stays_as_it_was(task: Any, model: Any, tokenizer: Any) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    how = FineTuning(learning_rates=(1e-2,), epochs=8, batch=16, length=24)
    ledger = Ledger()
    with ledger.phase("A"):
        found = taught(model, tokenizer, task(rows(200), rows(40, 900)), how, 0, ledger, quiet)
    assert found.keys() == {"dev", "test", "rate"}
    assert found["test"] > 0.9
    assert found["rate"] == 1e-2
    assert ledger.total("A").flops > 0
    assert ledger.total("A").tokens > 0
    assert ledger.total("A").labels == 200, "those of train and of dev, which chooses"
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_pairs_are_taught(task: Any, model: Any, tokenizer: Any) -> None:
    pairs = [{"one": "ab"[place % 2], "two": f"{place} {'ab'[place // 2 % 2]}"} for place in range(120)]
    pairs = [{**row, "label": str(row["one"] == row["two"][-1])} for row in pairs]
    how = FineTuning(learning_rates=(3e-3,), epochs=1, batch=8, length=16)
    made = task(pairs, pairs[:40], columns=("one", "two"))
    found = taught(model, tokenizer, made, how, 0, Ledger(), quiet)
    assert 0 <= found["test"] <= 1


def scripted(monkeypatch: pytest.MonkeyPatch, dev: dict[float, float | None]) -> list[tuple[float, str]]:
    """Accuracy on dev by rate, None where it diverges; returns what was looked at."""
    looked: list[tuple[float, str]] = []
    rates: list[float] = []

    def trained(run: Any, *_: Any, **__: Any) -> Any:
        rates.append(run.optimizer.param_groups[0]["lr"])
        if dev[rates[-1]] is None:
            raise DivergedError("step 3: the loss is nan")
        return run

    def score(_: Any, some: list[Any], __: int) -> float:
        split = "test" if len(some) == 7 else "dev"
        looked.append((rates[-1], split))
        found = dev[rates[-1]]
        assert found is not None
        return found if split == "dev" else rates[-1]

    monkeypatch.setattr(recipe_tasks, "trained", trained)
    monkeypatch.setattr(recipe_tasks, "accuracy", score)
    return looked


@pytest.mark.parametrize(
    ("dev", "rate"),
    [
        ({0.1: 0.5, 0.2: 0.7, 0.3: 0.6}, 0.2),
        ({0.1: 0.5, 0.2: 0.5}, 0.1),
        ({0.1: 0.0, 0.2: 0.0}, 0.1),
        ({0.1: None, 0.2: 0.0}, 0.2),
        ({0.1: 0.3, 0.2: None}, 0.1),
    ],
)
def test_dev_chooses_the_rate(
    dev: dict[float, float | None], rate: float, task: Any, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, dev)
    how = FineTuning(learning_rates=tuple(dev), batch=8, length=16)
    found = taught(model, tokenizer, task(rows(80), rows(7)), how, 0, Ledger(), quiet)
    assert found == {"dev": dev[rate], "test": rate, "rate": rate}


def test_diverged_at_every_rate(task: Any, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {0.1: None, 0.2: None})
    how, made = FineTuning(learning_rates=(0.1, 0.2), batch=8, length=16), task(rows(80), rows(7))
    with pytest.raises(DivergedError, match=r"^A: it diverged at every one of fine_tuning\.learning_rates$"):
        taught(model, tokenizer, made, how, 0, Ledger(), quiet)


def test_what_is_drawn_hangs_on_the_seed_alone(
    task: Any, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is taught after another, or after a run was resumed, comes out the same: its head has a dropout."""
    weights: list[torch.Tensor] = []

    def kept(run: Any, *given: Any, **named: Any) -> Any:
        found = train(run, *given, **named)
        weights.append(torch.cat([weight.detach().flatten() for weight in run.model.parameters()]))
        return found

    monkeypatch.setattr(recipe_tasks, "trained", kept)
    made = task(rows(80), rows(7))
    for rates, seed in (((1e-2,), 0), ((3e-3, 1e-2), 0), ((1e-2,), 1)):
        how = FineTuning(learning_rates=rates, epochs=1, batch=8, length=16)
        taught(model, tokenizer, made, how, seed, Ledger(), quiet)
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[3])


def test_accuracy_counts_what_is_right(model: Any, tokenizer: Any) -> None:
    learner = with_head(model, "classification", ["a", "b"])
    with torch.no_grad():
        learner.logits_proj.weight.zero_()
        learner.logits_proj.bias.copy_(torch.tensor([0.0, 1.0]))  # always b
    vocabulary, encode = Vocabulary.of(tokenizer), tokenizers.encoder(tokenizer)
    features = [
        classification(vocabulary, encode, "word " * (1 + place % 9), None, 64, "ab"[place % 3 == 0], ["a", "b"])
        for place in range(300)
    ]
    assert accuracy(learner, features, vocabulary.pad) == 100 / 300
    assert learner.training
