"""YAML read strictly: file and key of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring.methods.rationale import document
from shoestring.methods.rationale.document import Part


def test_values(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes("\ufeffname: ' é '\nlist: [a, ' b']\npart: {n: 3, x: 0.5}\n".encode())
    part = document.read(file)
    assert part.text("name") == "é"
    assert part.text("other", default="") == ""
    assert part.texts("list") == ("a", " b")
    assert part.texts("none") == ()
    inner = part.part("part")
    assert (inner.number("n", 1, 0, whole=True), inner.number("x", 1, 0, whole=False)) == (3, 0.5)
    assert inner.number("other", 7, 0, whole=True) == 7
    part.only(("name", "list", "part"), ("name",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.yaml: holds nothing, expected keys and values"),
        (b"- a", r"a\.yaml: holds a list, expected keys and values"),
        (b"a: [1", r"a\.yaml:1: not YAML"),
        (b"a: b: c", r"a\.yaml:1: not YAML"),
        (b"a: \xff", r"a\.yaml: not YAML"),
        (b"a: !!python/object/apply:os.system ['echo 1']", r"a\.yaml:1: not YAML \(could not determine a constructor"),
        (b"[" * 20_000, r"a\.yaml: not YAML|a\.yaml:1: not YAML"),
        (b"a: \x00", r"a\.yaml: not YAML"),
        (b"1: a", r"a\.yaml: has the key 1, expected a name: quote it"),
        (b"d: 2020-13-45", r"a\.yaml: not YAML \(month must be in 1\.\.12\)|not YAML"),
    ],
)
def test_documents_that_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        document.read(file)
    assert "\n" not in str(refused.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.yaml: no such file$"):
        document.read(tmp_path / "no.yaml")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\)"):
        document.read(tmp_path)


@pytest.mark.parametrize(
    ("held", "reading", "message"),
    [
        (5, "text", r"^f: p\.key holds 5, expected text: quote it$"),
        (True, "text", r"holds True, expected text"),
        (None, "text", r"holds nothing, expected text"),
        (["a"], "text", r"holds a list, expected text"),
        (" ", "text", r"^f: p\.key is blank, expected text$"),
        ("\ud800", "text", r"half a surrogate pair"),
        ("a", "texts", r"holds text, expected a list of texts"),
        (["a", 1], "texts", r"holds a list, expected a list of texts, none blank: quote each"),
        (["a", " "], "texts", r"expected a list of texts, none blank"),
        (["a", "\ud800"], "texts", r"half a surrogate pair"),
        ("a", "part", r"^f: p\.key holds text, expected keys and values$"),
    ],
)
def test_values_that_are_refused(held: object, reading: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(Part({"key": held}, "f", "p"), reading)("key")


@pytest.mark.parametrize("held", [0, -1, 1.5, True, "1", None, float("nan"), float("inf")])
def test_numbers_that_are_refused(held: object) -> None:
    with pytest.raises(ValueError, match=r"^f: key is .*, expected a whole number from 1 up$"):
        Part({"key": held}, "f", "").number("key", 1, 1, whole=True)


def test_keys_that_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^f: p has the unknown key 'nam'; did you mean 'name'\?$"):
        Part({"nam": 1}, "f", "p").only(("name", "x"), ())
    with pytest.raises(ValueError, match=r"^f: has the unknown key 'q'; expected one of name, x$"):
        Part({"q": 1}, "f", "").only(("name", "x"), ())
    with pytest.raises(ValueError, match=r"^f: name is missing$"):
        Part({}, "f", "").only(("name",), ("name",))
    with pytest.raises(ValueError, match=r"^f: options lists one option twice"):
        Part({"options": ["a", "A."]}, "f", "").options()
