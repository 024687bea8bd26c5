import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from shoestring.data import python_library
from shoestring.data.splits import SPLITS

CORPUS = list(python_library.read())


def size(split=None, domain=None):
    return sum(
        len(document.text) for side, document in CORPUS if split in (None, side) and domain in (None, document.domain)
    )


def test_a_module_is_read_as_it_lies_on_the_disk():
    texts = {document.name: document.text for _, document in CORPUS}
    textwrap = Path(sysconfig.get_path("stdlib"), "textwrap.py").read_text(encoding="utf-8")
    assert texts["textwrap.py"] == textwrap
    assert "email/message.py" in texts
    assert "lambda" in texts["manual/lambda"]


def test_each_domain_gives_about_a_twentieth_to_dev_and_to_test():
    assert size() > 7_000_000
    for domain in [*python_library.DOMAINS, python_library.MANUAL]:
        for split in ("dev", "test"):
            assert 0.03 < size(split, domain) / size(domain=domain) < 0.08, (domain, split)
    for split in ("dev", "test"):
        assert size(split) / size() == pytest.approx(0.05, abs=0.005)


def test_a_module_lies_on_one_side():
    sides = {}
    for split, document in CORPUS:
        if document.domain != python_library.MANUAL:
            sides.setdefault(document.name.split("/")[0], set()).add(split)
    assert {len(splits) for splits in sides.values()} == {1}


def test_no_paragraph_of_the_manual_is_told_twice():
    topics = [document.text for _, document in CORPUS if document.domain == python_library.MANUAL]
    paragraphs = Counter(
        paragraph for text in topics for paragraph in {part.strip() for part in text.split("\n\n")} if paragraph
    )
    assert max(paragraphs.values()) == 1


def test_names_are_sorted_and_nothing_depends_on_the_build():
    names = [document.name for _, document in CORPUS]
    files = [name for name in names if name.endswith(".py")]
    assert files == sorted(files)
    assert len(set(names)) == len(names)
    for name in files:
        module = name.split("/")[0].removesuffix(".py")
        assert module in sys.stdlib_module_names
        assert module not in python_library.LEFT_OUT
        assert not {"test", "tests", "site-packages", "idle_test"} & set(name.split("/"))
        assert "_sysconfigdata" not in name


def test_the_tables_name_each_module_once():
    for table in (python_library.DOMAINS, python_library.HELD_OUT):
        modules = [module for modules in table.values() for module in modules.split()]
        assert len(modules) == len(set(modules))
    assert set(python_library.HELD_OUT) <= set(SPLITS)
    read = {document.name.removesuffix(".py").split("/")[0] for _, document in CORPUS}
    read |= {document.name for _, document in CORPUS}
    held_out = {module for modules in python_library.HELD_OUT.values() for module in modules.split()}
    assert held_out <= read


def library(tmp_path, monkeypatch):
    (tmp_path / "textwrap.py").write_text("one = 1\n")
    (tmp_path / "shlex.py").write_bytes(b"\xff")
    (tmp_path / "no_such_module.py").write_text("two = 2\n")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))


def test_what_cannot_be_read_is_left_out_aloud(tmp_path, monkeypatch):
    library(tmp_path, monkeypatch)
    (tmp_path / "pydoc_data").mkdir()
    (tmp_path / "pydoc_data" / "topics.py").write_text("topics = {'if': 'So.\\n\\nOr so.', 'for': 'Or so.'}\n")
    with pytest.warns(UserWarning, match=r"lacks shlex\.py"):
        read = [(split, document.name, document.text) for split, document in python_library.read()]
    assert read == [("dev", "textwrap.py", "one = 1\n"), ("train", "manual/if", "So.\n\nOr so.")]


def test_a_python_without_its_manual_says_so(tmp_path, monkeypatch):
    library(tmp_path, monkeypatch)
    (tmp_path / "shlex.py").unlink()
    with pytest.warns(UserWarning, match="lacks the manual"):
        assert len(list(python_library.read())) == 1


def test_a_python_without_sources_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match=r"no sources under .*: name files of your own"):
        list(python_library.read())
