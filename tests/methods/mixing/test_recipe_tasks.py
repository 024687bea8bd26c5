"""The tasks: pools, what is held out of them, and what tells their data from any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring import config, rooms
from shoestring.data import tokenizers
from shoestring.methods.mixing.recipe_schema import Recipe
from shoestring.methods.mixing.recipe_tasks import Task, fingerprints, look_ups, task

ROOM = rooms.find("mixing")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    tokenizers.byte_tokenizer().save_pretrained(folder)
    return folder


def texts(path: Path, domains: dict[str, int], words: str = "the quick brown fox jumps. ") -> Path:
    records = [
        {"domain": name, "text": f"{name} {number} " + words * 60}
        for name, count in domains.items()
        for number in range(count)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def of_domains(**domains: Any) -> Recipe:
    told = config.load(ROOM.recipe("smoke"), Recipe).model_dump(mode="json")
    told |= {
        "addition": None,
        "domains": {"length": 16, "cut": "stretches", **domains},
        "samplers": ["stratified", "aioli"],
    }
    told["methods"]["aioli"]["measured"] = told["methods"]["skill_it"]["measured"] = 2
    return config.check(told | {"held_out": [2, 3]}, Recipe, "here")


def rows(made: Task, split: str, name: str) -> set[tuple[int, ...]]:
    return {tuple(row.tolist()) for batch in made.held_out[split][name] for row in batch["input_ids"]}


@pytest.mark.parametrize("name", ["smoke", "lego"])
def test_no_question_that_is_held_out_is_trained_on(name: str, tokenizer: Path) -> None:
    overrides = ["lego.sizes=[80, 80, 80, 80]", "held_out=[20, 30]"] if name == "lego" else []
    changes = ["methods.skill_it.measured=4", "methods.aioli.measured=4"]
    made = task(config.load(ROOM.recipe(name), Recipe, [*overrides, *changes]), tokenizer)
    assert made.answers
    assert made.skills == made.evaluated
    asked = {
        skill: {tuple(row[: made.length - 1].tolist()) for row in made.pools[skill].input_ids} for skill in made.skills
    }
    for skill in made.skills:
        dev, test = rows(made, "dev", skill), rows(made, "test", skill)
        assert dev
        assert test
        assert not dev & test
        for held in dev | test:
            assert all(held[:-1] not in questions for questions in asked.values())
        assert made.pools[skill][0]["input_ids"].shape == (made.length,)


def test_whole_sentences_are_trained_on_and_answers_are_scored(tokenizer: Path) -> None:
    overrides = ["lego.sizes=[30, 30, 30, 30]", "held_out=[8, 8]", "lego.whole=true"]
    overrides += ["methods.skill_it.measured=4", "methods.aioli.measured=4"]
    made = task(config.load(ROOM.recipe("lego"), Recipe, overrides), tokenizer)
    assert bool((made.pools["depth 1"].labels == made.pools["depth 1"].input_ids).all())
    assert {int((row >= 0).sum()) for batch in made.held_out["test"]["depth 1"] for row in batch["labels"]} == {1}


def test_stretches_keep_skills_of_a_single_document(tokenizer: Path, tmp_path: Path) -> None:
    source = texts(tmp_path / "texts.jsonl", {f"kind{number}": 1 for number in range(12)})
    made = task(of_domains(text=str(source)), tokenizer)
    assert made.skills == tuple(sorted(f"kind{number}" for number in range(12)))
    assert not made.answers
    assert {batch["input_ids"].shape[1] for batch in made.held_out["test"]["kind0"]} == {16}


def test_settings_are_made_of_targets(tokenizer: Path, tmp_path: Path) -> None:
    source = str(texts(tmp_path / "texts.jsonl", {"a": 2, "b": 2, "c": 2}))
    fine = task(of_domains(text=source, target=["b"]), tokenizer)
    assert (fine.skills, fine.evaluated) == (("a", "b", "c"), ("b",))
    beyond = task(of_domains(text=source, target=["b"], out_of_domain=True), tokenizer)
    assert (beyond.skills, beyond.evaluated) == (("a", "c"), ("b",))
    with pytest.raises(ValueError, match=r"domains\.target: d is none of a, b, c"):
        task(of_domains(text=source, target=["d"]), tokenizer)


def test_data_is_told_apart_by_skill_also_where_files_share_a_name(tmp_path: Path) -> None:
    first, second = texts(tmp_path / "a" / "x.jsonl", {"a": 2}), texts(tmp_path / "b" / "x.jsonl", {"b": 2})
    recipe = of_domains(files={"a": str(first), "b": str(second)})
    before = fingerprints(recipe)
    assert set(before) == {"a", "b"}
    texts(first, {"a": 2}, "other words. ")
    after = fingerprints(recipe)
    assert after["a"] != before["a"]
    assert after["b"] == before["b"]


def test_a_base_for_lego_is_asked_for_every_variable(tokenizer: Path) -> None:
    samples = look_ups(4, tokenizer, 0)
    assert samples.length == 4 * 5
    assert torch.unique((samples.labels >= 0).sum(1)).tolist() == [4]
