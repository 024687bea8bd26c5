"""The user's tables: read, asked, and refused with file, line and column."""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.history import Trained
from shoestring.methods.search.table import Table

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "search").is_dir(), reason="needs the data sets: name their folder in SHOESTRING_DATA"
)
SPACE = Cells201()
ONE, TWO = SPACE.encode(("none",) * 6), SPACE.encode(("skip_connect",) * 6)


def write(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


# by hand


def test_a_table_is_read(tmp_path: Path) -> None:
    table = Table.read(write(tmp_path, f"arch_str,val,test\n{ONE},10,11.5\n\n{TWO},20,1e1\n"), SPACE)
    assert table.columns == ("val", "test")
    assert list(table) == [(ONE, {"val": 10.0, "test": 11.5}), (TWO, {"val": 20.0, "test": 10.0})]
    assert len(table) == 2
    assert ONE in table
    assert "x" not in table
    assert table.value(TWO, "val") == 20


@pytest.mark.parametrize(
    ("header", "name", "column"),
    [
        ("7,arch_str,arch", None, 1),
        ("7,8,arch", None, 2),
        ("id,8,9", None, 0),
        ("arch,8,mine", "mine", 2),
    ],
)
def test_which_column_is_the_architecture(tmp_path: Path, header: str, name: str | None, column: int) -> None:
    table = Table.read(write(tmp_path, f"{header}\n1,2,3\n"), name=name)
    assert list(table.rows) == [str(column + 1)]
    assert len(table.columns) == 2


def test_gzip_marks_quotes_and_windows_lines(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbfarch,"the, value"\r\n"a,b",1\r\n'
    plain, packed = write(tmp_path, text), write(tmp_path, gzip.compress(text), "b.csv.gz")
    for file in (plain, packed):
        assert list(Table.read(file)) == [("a,b", {"the, value": 1.0})]


def test_training_is_looked_up(tmp_path: Path) -> None:
    table = Table.read(write(tmp_path, f"arch,val,test,seconds\n{ONE},1,2,3\n{TWO},4,5,6\n"), SPACE)
    assert table.train(SPACE, "val", "seconds", "test")(("skip_connect",) * 6) == Trained(4.0, 6.0, 5.0)
    found = table.train(SPACE, "test", 12)(("none",) * 6)
    assert found[:2] == (2.0, 12.0)
    assert math.isnan(found.test)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float]]) -> None:
    known = dict(rows)
    text = "arch,value\n" + "".join(f"{name},{value!r}\n" for name, value in known.items())
    table = Table.read(write(tmp_path_factory.mktemp("table"), text))
    assert {int(name): numbers["value"] for name, numbers in table} == known
    for name in ("again.csv", "again.csv.gz"):
        file = tmp_path_factory.mktemp("again") / name
        table.write(file)
        assert list(Table.read(file)) == list(table)
        assert [one.name for one in file.parent.iterdir()] == [name]


# bad input


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty: expected a header"),
        ("  \n", "is empty"),
        ("arch,a\n", "holds a header and no row"),
        ("arch\nx\n", "line 1: 'arch' is one column"),
        ("arch;a\nx;1\n", "line 1: 'arch;a' is one column: expected two or more, between commas"),
        ("arch,a,a\nx,1,2\n", "line 1: names the column 'a' twice"),
        ("arch,,a\nx,1,2\n", "line 1: column 2 has no name"),
        ("arch,a\nx,1\ny\n", "line 3: has 1 columns, but the header has 2"),
        ("arch,a\nx,1\ny,1,2\n", "line 3: has 3 columns"),
        ("arch,a\nx,1\ny,\n", "line 3: column 'a' is '': expected a number"),
        ("arch,a\nx,1\ny,high\n", "line 3: column 'a' is 'high': expected a number"),
        ("arch,a\nx,nan\n", "line 2: column 'a' is 'nan': expected a finite number"),
        ("arch,a\nx,-inf\n", "line 2: column 'a' is '-inf': expected a finite number"),
        ("arch,a\nx,1\n\nx,2\n", "line 4: x stands in line 2 already"),
        ("arch,a\n ,1\n", "line 2: column 'arch' is empty"),
        ('arch,a\nx,1\n"y,2\n', "line 3: is no CSV"),
        (b"arch,a\nx,1\n\xff\xfe,1\n", "line 3: is not UTF-8"),
        (gzip.compress(b"arch,a\nx,1\n", mtime=0)[:-9], "is torn or no gzip file"),
        (gzip.compress(b"arch,a\nx,1\n", mtime=0)[:12] + b"\xff" * 12, "is torn or no gzip file"),
    ],
)
def test_a_broken_file_is_named_to_the_column(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        Table.read(write(tmp_path, content))
    assert str(raised.value).startswith(str(tmp_path / "a.csv"))
    assert "\n" not in str(raised.value)


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"b\.csv: no such file"):
        Table.read(tmp_path / "b.csv")
    with pytest.raises(ValueError, match="is no gzip file, whatever its name says"):
        Table.read(write(tmp_path, "arch,a\nx,1\n", "c.csv.gz"))
    file = write(tmp_path, f"arch_str,val\n{ONE},1\n")
    with pytest.raises(ValueError, match="has no column 'arch_st'; did you mean 'arch_str'"):
        Table.read(file, name="arch_st")
    with pytest.raises(ValueError, match="has no column 'zzz': expected one of arch_str, val"):
        Table.read(file, name="zzz")
    table = Table.read(file)
    with pytest.raises(ValueError, match="has no column 'vall'; did you mean 'val'"):
        table.value(ONE, "vall")
    with pytest.raises(ValueError, match="has no column 'tests'"):
        table.train(SPACE, "val", 1.0, "tests")
    with pytest.raises(ValueError, match=r"holds no .*it lists 1 architectures"):
        table.value(TWO, "val")


def test_architectures_are_held_to_the_space(tmp_path: Path) -> None:
    wrong = ONE.replace("none~1", "maxpool~1")
    with pytest.raises(ValueError, match=r"a\.csv line 3: column 'arch': .*no operation 'maxpool'"):
        Table.read(write(tmp_path, f"arch,val\n{ONE},1\n{wrong},2\n"), SPACE)
    with pytest.raises(ValueError, match=r"line 3: .* stands in line 2 already"):
        Table.read(write(tmp_path, f"arch,val\n{ONE},1\n {ONE} ,2\n"), SPACE)


# the real ones


@needs_data
def test_the_real_tables_are_read() -> None:
    table = Table.read(DATA / "search" / "nasbench201_dev12500.csv.gz", SPACE)
    assert len(table) == 12500
    assert len(table.columns) == 9
    assert (
        table.value(
            "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
            "c10_test_200ep",
        )
        == 85.8633
    )
    macro = Table.read(DATA / "search" / "nasbench_macro_dev.csv.gz")
    assert len(macro) == 5249
    assert macro.value("02012100", "params") == 890666
