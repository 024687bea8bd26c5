"""What is a skill: by files, by names, by domains; and what of each is held out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoestring.data import tokenizers
from shoestring.methods.mixing.tools_skills import Skill, Texts, chosen, cut, fingerprints, skills


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tokenizers.byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def test_names(here):
    for name in ("news.txt", "poems.v2.jsonl.gz", "a=b.txt", "wiki_train.txt"):
        (here / name).write_text("text")
    (here / "deep").mkdir()
    found = skills(["news.txt", "poems.v2.jsonl.gz", "old=news.txt", "a=b.txt", "deep", "wiki_train.txt"], "text")
    assert [skill.name for skill in found] == ["news", "poems.v2", "old", "a=b", "deep", "wiki"]


def test_built_in_hub_and_split_are_sources():
    found = skills(["python", "hf:me/data", "{split}/law.txt", "x=hf:me/data:fr"], "text")
    assert found == (
        Skill("python", "python"),
        Skill("data", "hf:me/data"),
        Skill("law", "{split}/law.txt"),
        Skill("x", "hf:me/data:fr"),
    )


def test_domains_of_a_folder_are_its_files(here):
    (here / "texts").mkdir()
    for name in ("b", "a"):
        (here / "texts" / f"{name}.txt").write_text("text")
    found = skills(["texts"], "text")
    assert found == (Skill("a", "texts", "a"), Skill("b", "texts", "b"))
    assert list(fingerprints(found)) == ["texts"]


def test_chosen():
    assert chosen((), ("a", "b")) == ("a", "b")
    assert chosen(("b", "b"), ("a", "b")) == ("b",)


def texts(rows: int, *, named: bool = False) -> Texts:
    """Two domains of so many documents of 32 bytes each."""
    parts = ("train", "dev", "test") if named else ("all",)
    Path("data").mkdir()
    for part in parts:
        lines = [
            {"text": f"{part} {domain} {number:05} " + "x" * 15, "domain": domain}
            for number in range(rows)
            for domain in ("ab", "cd")
        ]
        Path("data", f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Texts(skills(["data"], "text"), 8, Path("tokenizer"), "text")


def test_documents_are_held_out_where_there_are_enough():
    found = texts(400)
    assert cut(found, 16) == "documents"
    ids = (np.concatenate([row["input_ids"] for row in rows(found, part)]) for part in ("train", "dev"))
    train, dev = (set(re.findall("[0-9]{5}", tokenizers.byte_tokenizer().decode(part))) for part in ids)
    assert len(train) > len(dev) > 0
    assert train.isdisjoint(dev)


def rows(found: Texts, part: str) -> list:
    windows = found.windows("ab", part)
    return [windows[place] for place in range(len(windows))]


def test_else_stretches_are():
    found = texts(60)
    assert cut(found, 16) == "stretches"
    assert cut(found, 1) == "documents"  # no more were asked for
    stretched = replace(found, cut="stretches")
    assert len(rows(stretched, "train")) > 6 * len(rows(stretched, "dev")) > 0
    (batch,) = stretched.held_out("ab", 5)
    assert batch["input_ids"].shape == (5, 8)


def test_files_named_after_their_part_are_never_cut_otherwise():
    assert cut(texts(3, named=True), 128) == "documents"


def test_too_little_text_is_said_of_its_skill():
    found = texts(60)
    with pytest.raises(ValueError, match=r"skill 'ab': [\d,]+ tokens in data do not fill windows of 5000 for dev"):
        replace(found, length=5000, cut="stretches").windows("ab", "dev")
