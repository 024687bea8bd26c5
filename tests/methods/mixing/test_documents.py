"""Samples from files: whole records, drawn and in order, of every kind of file, and what cannot be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from shoestring.methods.mixing.documents import read


def lines(path: Path, records: list[dict]) -> Path:
    content = "".join(json.dumps(record) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)
    return path


RECORDS = [{"text": f"text {number}", "n": number, "deep": {"a": [number]}} for number in range(20)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_records_come_whole_and_in_order(tmp_path, name):
    found, total = read(lines(tmp_path / name, RECORDS), ["text"], 100, 0)
    assert [sample.record for sample in found] == RECORDS
    assert [sample.text for sample in found] == [record["text"] for record in RECORDS]
    assert total == 20


def test_blank_lines_and_blank_texts_do_not_shift_the_records(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one", "n": 1}\n\n{"text": " ", "n": 2}\r\n{"text": "three", "n": 3}')
    found, total = read(path, ["text"], 100, 0)
    assert [(sample.text, sample.record["n"]) for sample in found] == [("one", 1), ("three", 3)]
    assert total == 2


def test_a_draw_is_of_all_and_keeps_the_order(tmp_path):
    path = lines(tmp_path / "a.jsonl", RECORDS)
    drawn = {seed: [sample.record["n"] for sample in read(path, ["text"], 5, seed)[0]] for seed in range(60)}
    assert all(numbers == sorted(set(numbers)) and len(numbers) == 5 for numbers in drawn.values())
    assert {number for numbers in drawn.values() for number in numbers} == set(range(20))
    assert drawn[0] == [sample.record["n"] for sample in read(path, ["text"], 5, 0)[0]]


def test_parquet_comes_whole(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("a.parquet", "b.parquet.gz"):
        assert [sample.record for sample in read(tmp_path / name, ["text"], 100, 0)[0]] == RECORDS


def test_a_folder_and_plain_text(tmp_path):
    (tmp_path / "poems.txt").write_text("one\nline\n\n \t\ntwo\n\n\n")
    (tmp_path / "deep").mkdir()
    lines(tmp_path / "deep" / "more.jsonl", RECORDS[:1])
    found, _ = read(tmp_path, ["text"], 100, 0)
    assert [(sample.text.strip(), sample.domain) for sample in found] == [
        ("text 0", "deep"),
        ("one\nline", "poems"),
        ("two", "poems"),
    ]
    assert found[0].record == RECORDS[0]
    assert found[2].record == {"text": found[2].text, "domain": "poems"}


def test_a_question_and_its_answer(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"input": "1 + 1", "output": "2"}, {"input": "2 + 2", "output": "4"}])
    assert [sample.text for sample in read(path, ["input", "output"], 9, 0)[0]] == ["1 + 1\n2", "2 + 2\n4"]
    with pytest.raises(ValueError, match=r"a\.jsonl:1: expected text in each of the fields input, answer"):
        read(path, ["input", "answer"], 9, 0)
    with pytest.raises(ValueError, match="no field 'text'"):
        read(path, ["text"], 9, 0)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="no such file or folder"):
        read(tmp_path / "none.jsonl", ["text"], 9, 0)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="the file is empty"):
        read(tmp_path / "empty.jsonl", ["text"], 9, 0)
    (tmp_path / "blank.jsonl").write_text('{"text": ""}\n')
    assert read(tmp_path / "blank.jsonl", ["text"], 9, 0) == ([], 0)
