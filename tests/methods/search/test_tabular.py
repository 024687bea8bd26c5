"""Tables of the published benchmarks' libraries, here by stand-ins with the same interface."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shoestring.methods.search.cells101 import Cells101
from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.tabular import nasbenchapi_table, nats_bench_table

ONE, TWO = Cells201().encode(("none",) * 6), Cells201().encode(("skip_connect",) * 6)
OPERATIONS = ("input", "conv3x3-bn-relu", "output")


class Nats:
    """nats_bench 1.8: len, arch(index), get_more_info(index, dataset, iepoch, hp, is_random)."""

    def __init__(self) -> None:
        self.made: tuple[Any, ...] = ()
        self.numbers: list[dict[str, Any]] = [
            {"comment": "x", "valid-accuracy": np.float32(10.5), "train-all-time": 3, "valid-loss": None},
            {"comment": "x", "valid-accuracy": 20.5, "train-all-time": 4.0},
        ]

    def create(self, file_path_or_dict, search_space, fast_mode=False, verbose=True):
        self.made = (file_path_or_dict, search_space, fast_mode, verbose)
        return self

    def __len__(self) -> int:
        return 2

    def arch(self, index: int) -> str:
        return (ONE, TWO)[index]

    def get_more_info(self, index, dataset, iepoch=None, hp="12", is_random=True):
        assert (dataset, iepoch, hp, is_random) == ("cifar10-valid", None, "12", False)
        return self.numbers[index]


class NASBench201:
    """nasbenchapi 1.0.5: iter_all(), datasets(), splits(dataset), query(arch, dataset, split)."""

    def __init__(self, data_path=None, verbose=True) -> None:
        assert verbose is False

    def iter_all(self):
        return iter((ONE, TWO))

    def datasets(self):
        return ["cifar10", "cifar100"]

    def splits(self, dataset):
        return ["val", "test"]

    def query(self, arch, dataset="cifar10", split="val", seed=None, budget=None):
        known = {("cifar10", "val"): 50.0, ("cifar100", "test"): 60.0}
        return {"metric": known.get((dataset, split)), "cost": None}


class NASBench101(NASBench201):
    """nasbenchapi 1.0.5: iter_all() of adjacency and operations, query(arch, average) of numbers by epochs."""

    def iter_all(self):
        yield SimpleNamespace(adjacency=((0, 1, 1), (0, 0, 1), (0, 0, 0)), operations=OPERATIONS)

    def query(self, arch, dataset="cifar10", split="val", seed=None, budget=None, average=False, summary=False):
        assert average
        return {"module_hash": "x"}, {
            108: {"final_validation_accuracy": 0.9, "final_training_time": 7.0},
            12: {"final_validation_accuracy": 0.5, "final_training_time": 1.0},
        }


@pytest.fixture
def nats(monkeypatch: pytest.MonkeyPatch) -> Nats:
    stub = Nats()
    monkeypatch.setitem(sys.modules, "nats_bench", stub)
    return stub


def test_nats_bench(nats: Nats, tmp_path: Path) -> None:
    file = tmp_path / "a.pickle.pbz2"
    file.touch()
    table = nats_bench_table(file, False, "cifar10-valid", "12")
    assert nats.made == (str(file), "tss", False, False)
    assert list(table) == [
        (ONE, {"valid-accuracy": 10.5, "train-all-time": 3.0}),
        (TWO, {"valid-accuracy": 20.5, "train-all-time": 4.0}),
    ]
    nats_bench_table(tmp_path, True, "cifar10-valid", "12")
    assert nats.made == (str(tmp_path), "sss", True, False)


def test_a_number_that_is_missing_later_is_named(nats: Nats, tmp_path: Path) -> None:
    nats.numbers[1]["valid-accuracy"] = None
    with pytest.raises(ValueError, match=r"knows no valid-accuracy of .*skip_connect"):
        nats_bench_table(tmp_path, False, "cifar10-valid", "12")
    nats.numbers = [{"comment": "x"}] * 2
    with pytest.raises(ValueError, match="knows no number of"):
        nats_bench_table(tmp_path, False, "cifar10-valid", "12")


def test_nasbenchapi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stub = SimpleNamespace(NASBench101=NASBench101, NASBench201=NASBench201)
    monkeypatch.setitem(sys.modules, "nasbenchapi", stub)
    assert list(nasbenchapi_table(tmp_path, "201")) == [
        (text, {"cifar10 val": 50.0, "cifar100 test": 60.0}) for text in (ONE, TWO)
    ]
    ((text, numbers),) = nasbenchapi_table(tmp_path, "101")
    assert numbers == {"final_validation_accuracy": 0.9, "final_training_time": 7.0}
    assert Cells101().encode(Cells101().decode(text)) == text
    assert Cells101().decode(text).operations == OPERATIONS[1:2]


def test_no_such_file(nats: Nats, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.pkl: no such file"):
        nats_bench_table(tmp_path / "a.pkl", False, "cifar10", "12")


def test_without_the_libraries_the_line_to_install_them_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    monkeypatch.setitem(sys.modules, "nasbenchapi", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install nats_bench$"):
        nats_bench_table(tmp_path, False, "cifar10", "12")
    with pytest.raises(ModuleNotFoundError, match=r"pip install nasbenchapi$"):
        nasbenchapi_table(tmp_path, "201")
