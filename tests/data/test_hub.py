import json
import sys

import pytest

from shoestring.data import corpora, hub
from shoestring.data.splits import Document


@pytest.fixture
def data_set(tmp_path):
    pytest.importorskip("datasets", reason="pip install 'shoestring[datasets]'")
    for split, count in (("train", 3), ("validation", 40)):
        rows = [json.dumps({"text": f"{split} {row}", "other": row}) for row in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_a_data_set_is_read_by_its_own_splits(data_set):
    name = f"hf:{data_set}"
    train = list(hub.read(str(data_set), None, "train", "text"))
    assert train[0] == Document("train 0", name, f"{name}[train][0]")
    assert [document.text for document in train] == ["train 0", "train 1", "train 2"]
    held_out = [{document.text for document in corpora.documents(name, split)} for split in ("dev", "test")]
    assert held_out[0] | held_out[1] == {f"validation {row}" for row in range(40)}
    assert not held_out[0] & held_out[1]
    assert len(list(corpora.gathered([name], "dev", whole_dev=True))) == 40


def test_another_revision_has_another_fingerprint(data_set):
    before = corpora.fingerprint(f"hf:{data_set}")
    assert corpora.fingerprint(f"hf:{data_set}") == before
    (data_set / "test.jsonl").write_text('{"text": "new"}\n')
    assert corpora.fingerprint(f"hf:{data_set}") != before


def test_misuse_is_named_in_one_line(data_set):
    with pytest.raises(ValueError, match=r"\[train\]\[0\]: no field 'body'; it has 'text', 'other'"):
        list(hub.read(str(data_set), None, "train", "body"))
    with pytest.raises(ValueError, match=r"absent: cannot be read") as raised:
        list(hub.read(str(data_set / "absent"), None, "train", "text"))
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"hf:.*:absent: cannot be read"):
        corpora.fingerprint(f"hf:{data_set}:absent")


def test_without_the_library_the_install_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"hf:any .*: pip install 'shoestring\[datasets\]'$"):
        list(corpora.documents("hf:any", "train"))
