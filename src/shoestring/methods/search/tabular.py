"""Tables of the published benchmarks' own libraries, where these are installed, as our `Table`.

Their files are pickles, which run what is in them when they are read: open none but those of the benchmark's authors.
`Table.read` reads a CSV file, and runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from shoestring.methods.search.cells101 import Cells101, Graph
from shoestring.methods.search.table import Table


def nats_bench_table(path: str | Path, sizes: bool, dataset: str, epochs: str) -> Table:
    """A data set of NATS-Bench, averaged over the seeds of its trainings.

    path     the benchmark's file (.pickle.pbz2), or its folder (-simple)
    sizes    the size space, not the topologies
    dataset  cifar10-valid, cifar10, cifar100 or ImageNet16-120, as the library means them
    epochs   of the trainings, as the library writes them: 12 or 200, of sizes 01, 12 or 90
    The columns are the library's own names: `valid-accuracy` and `test-accuracy` in percent, `train-all-time` in
    seconds, and others; what it does not know of the first architecture is left out.

    Read against nats_bench 1.8. Raises ModuleNotFoundError where it is absent, ValueError where a number is missing.
    """
    try:
        import nats_bench
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading NATS-Bench needs its library: pip install nats_bench") from None
    file = _there(path)
    space = "sss" if sizes else "tss"
    api = nats_bench.create(str(file), space, fast_mode=file.is_dir(), verbose=False)
    rows = ((api.arch(row), api.get_more_info(row, dataset, hp=epochs, is_random=False)) for row in range(len(api)))
    return _table(rows, str(file))


def nasbenchapi_table(path: str | Path, benchmark: Literal["101", "201"]) -> Table:
    """NAS-Bench-101 or 201 from a pickle of the library nasbenchapi.

    101: trained longest, averaged over its runs: `final_validation_accuracy`, `final_test_accuracy` from 0 to 1,
    `final_training_time` in seconds, and others by the library's names.
    201: `cifar10 val` and so on in percent, of the seed 777 after the last epoch; what it does not know of the first
    architecture is left out. Where the test accuracy of a data set is absent, the library gives the validation
    accuracy in its place and does not say so.

    Read against nasbenchapi 1.0.5. Raises ModuleNotFoundError where it is absent, ValueError where a number is missing.
    """
    try:
        import nasbenchapi
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading its pickles needs nasbenchapi: pip install nasbenchapi") from None
    file = _there(path)
    if benchmark == "101":
        api = nasbenchapi.NASBench101(str(file), verbose=False)
        return _table(((_text101(found), _longest(api, found)) for found in api.iter_all()), str(file))
    api = nasbenchapi.NASBench201(str(file), verbose=False)
    return _table(((text, _numbers201(api, text)) for text in api.iter_all()), str(file))


def _text101(found: Any) -> str:
    matrix = tuple(tuple(int(entry) for entry in row) for row in found.adjacency)
    return Cells101().encode(Graph(matrix, tuple(found.operations[1:-1])))


def _longest(api: Any, found: Any) -> Mapping[str, Any]:
    _, runs = api.query(found, average=True)
    numbers: Mapping[str, Any] = runs[max(runs)] if runs else {}
    return numbers


def _numbers201(api: Any, text: str) -> dict[str, Any]:
    asked = ((dataset, split) for dataset in api.datasets() for split in api.splits(dataset))
    return {f"{dataset} {split}": api.query(text, dataset=dataset, split=split)["metric"] for dataset, split in asked}


def _there(path: str | Path) -> Path:
    file = Path(path)
    if not file.exists():
        raise ValueError(f"{file}: no such file: expected the benchmark's own data")
    return file


def _known(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _table(found: Iterable[tuple[str, Mapping[str, Any]]], source: str) -> Table:
    columns: tuple[str, ...] = ()
    rows: dict[str, list[float]] = {}
    for text, numbers in found:
        columns = columns or tuple(name for name, value in numbers.items() if _known(value))
        absent = [name for name in columns if not _known(numbers.get(name))]
        if absent or not columns:
            raise ValueError(f"{source}: knows no {absent[0] if absent else 'number'} of {text}")
        rows[text] = [float(numbers[name]) for name in columns]
    if not rows:
        raise ValueError(f"{source}: holds no architecture")
    return Table(columns, rows, source)
