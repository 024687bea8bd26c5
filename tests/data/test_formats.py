import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.formats import BLOCK_CHARACTERS, DOCUMENT_CHARACTERS, read, suffix
from shoestring.data.splits import Document


def everything(path, keep=lambda text: True, text_field="text"):
    return list(read(path, path.name, "books", keep, text_field))


def written(path, content):
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_small_text_is_one_document(tmp_path, name):
    path = written(tmp_path / name, "One.\n\nTwo: ä.\n")
    assert everything(path) == [Document("One.\n\nTwo: ä.\n", "books", f"{name}#0")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(tmp_path, name):
    rows = [{"text": "one"}, {"text": " "}, {"text": "two\nlines", "domain": "poems"}, {"text": "three", "domain": 3}]
    path = written(tmp_path / name, "\n".join(map(json.dumps, rows)) + "\n\n")
    assert everything(path) == [
        Document("one", "books", f"{name}:1"),
        Document("two\nlines", "poems", f"{name}:3"),
        Document("three", "3", f"{name}:4"),
    ]


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet(tmp_path, name):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'shoestring[datasets]'")
    from pyarrow import parquet

    table = pyarrow.table({"body": ["one", "two"], "domain": ["poems", None], "other": [1, 2]})
    parquet.write_table(table, tmp_path / "plain.parquet")
    path = written(tmp_path / name, (tmp_path / "plain.parquet").read_bytes())
    expected = [Document("one", "poems", f"{name}:1"), Document("two", "books", f"{name}:2")]
    assert everything(path, text_field="body") == expected
    with pytest.raises(ValueError, match=r"no field 'text'; it has 'body', 'domain', 'other'"):
        everything(path)


def test_a_long_text_is_cut_at_blank_lines(tmp_path):
    paragraph = "word " * 200 + "\n\n"  # 1,002 characters: five fill a block
    text = paragraph * 200
    documents = everything(written(tmp_path / "a.txt", text))
    assert "".join(document.text for document in documents) == text
    assert all(document.text.endswith("\n\n") for document in documents)
    lengths = [len(document.text) for document in documents]
    assert all(DOCUMENT_CHARACTERS <= length <= DOCUMENT_CHARACTERS + 6 * 1002 for length in lengths[:-1])


def test_what_is_not_kept_parts_its_neighbours(tmp_path):
    blocks = [letter * BLOCK_CHARACTERS + "\n\n" for letter in "abcde"]
    path = written(tmp_path / "a.txt", "".join(blocks))
    documents = everything(path, keep=lambda block: block[0] != "c")
    assert [document.text for document in documents] == ["".join(blocks[:2]), "".join(blocks[3:])]
    assert [document.name for document in documents] == ["a.txt#0", "a.txt#3"]


def test_one_endless_line_is_cut_too(tmp_path):
    text = "ä" * 150_000
    documents = everything(written(tmp_path / "a.txt", text))
    assert len(documents) > 2
    assert "".join(document.text for document in documents) == text


@given(text=st.text(st.sampled_from("ab \n\u00e9\u20ac\U0001f600\0\r"), max_size=200), repeats=st.integers(1, 400))
def test_cutting_loses_nothing_but_blank_blocks(tmp_path_factory, text, repeats):
    path = written(tmp_path_factory.mktemp("text") / "a.txt", text * repeats)
    joined = "".join(document.text for document in everything(path))
    assert joined.split() == (text * repeats).split()


def test_a_byte_order_mark_is_no_text(tmp_path):
    assert everything(written(tmp_path / "a.txt", "\ufeffone"))[0].text == "one"
    assert everything(written(tmp_path / "a.jsonl", '\ufeff{"text": "one"}'))[0].text == "one"


def test_nul_bytes_are_text(tmp_path):
    assert everything(written(tmp_path / "a.txt", b"a\0b"))[0].text == "a\0b"


def test_known_suffixes():
    names = ["a.txt", "a.jsonl.gz", "a.parquet", "a.gz", "a.md", "a.txt.zip"]
    assert [suffix(Path(name)) for name in names] == [".txt", ".jsonl", ".parquet", None, None, None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "one"}\n{"text": ', r"^a\.jsonl:2: not JSON \(Expecting value, column 9\)"),
        ("a.jsonl", "[" * 100_000, r"^a\.jsonl:1: not JSON \("),
        ("a.jsonl", '{"text": "one"}\n{"id": ' + "1" * 5000 + "}", r"^a\.jsonl:2: not JSON \(Exceeds the limit"),
        ("a.jsonl", "[1]", r"^a\.jsonl:1: a JSON list, expected an object"),
        ("a.jsonl", '{"body": "one", "id": 1}', r"^a\.jsonl:1: no field 'text'; it has 'body', 'id'"),
        ("a.jsonl", '{"text": 7}', r"^a\.jsonl:1: field 'text' holds int, expected text"),
        ("a.jsonl", '{"text": null}', r"^a\.jsonl:1: field 'text' holds NoneType, expected text"),
        ("a.jsonl", '{"text": "\\ud800"}', r"^a\.jsonl:1: .*surrogate"),
        ("a.jsonl", b'{"text": "\xff"}', r"^a\.jsonl: not UTF-8 at byte 10 "),
        ("a.txt", b"abc\nde\xfff", r"^a\.txt: not UTF-8 at byte 6 "),
        ("a.txt", b"a" * 65_535 + b"\xc3\xa9" + b"\xe2\x82", r"^a\.txt: not UTF-8 at byte 65537 "),
        ("a.txt.gz", b"abc\xff", r"^a\.txt\.gz: not UTF-8 at byte 3 "),
    ],
)
def test_misuse_is_named_in_one_line(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as raised:
        everything(written(tmp_path / name, content))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"plain", lambda data: data[:30] + b"xxxx"])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    whole = gzip.compress(bytes(range(32, 127)) * 50)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(damage(whole))
    with pytest.raises(ValueError, match=r"^a\.txt\.gz: the gzip file is damaged or cut short"):
        everything(path)


def test_a_damaged_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow", reason="pip install 'shoestring[datasets]'")
    with pytest.raises(ValueError, match=r"^a\.parquet: not a Parquet file") as raised:
        everything(written(tmp_path / "a.parquet", b"PAR1" * 10))
    assert "\n" not in str(raised.value)


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ValueError, match=r"^a\.txt: cannot be read \(Is a directory\)"):
        everything(tmp_path / "a.txt")
