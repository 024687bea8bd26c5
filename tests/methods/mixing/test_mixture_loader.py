"""Batches made by workers: the same batches, weights that reach them in time, and a run that was killed."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import datasets
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.mixture_loader import Told

many = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on a machine of few cores


def rows(start: int, count: int) -> list[dict[str, torch.Tensor]]:
    return [{"x": torch.tensor(start + number)} for number in range(count)]


def mixed(**more: Any) -> Mixture:
    sources = {"a": rows(0, 7), "b": rows(1000, 11), "c": rows(2000, 300)}
    return Mixture(**({"sources": sources, "weights": {"a": 0.1, "b": 0.3, "c": 0.6}, "batch_size": 4} | more))


def stream(count: int, shards: int = 4) -> Any:
    made = datasets.Dataset.from_dict({"x": list(range(2000, 2000 + count))}).with_format("torch")
    return made.to_iterable_dataset(num_shards=shards)


def history(workers: int, steps: int = 30, state: dict[str, Any] | None = None, **more: Any) -> Any:
    """What is read where weights change now and then, by the step alone, and the state after each step."""
    loader = mixed(**more).loader(workers)
    if state is not None:
        loader.load_state_dict(state)
    read, states = [], []
    for batch in islice(loader, steps):
        read.append(batch["x"].tolist())
        step = loader.mixture.batches
        if step % 4 == 3:
            raw = [Random(10 * step + source).random() for source in range(3)]
            loader.set_weights({name: weight / sum(raw) for name, weight in zip("abc", raw, strict=True)})
        states.append(json.loads(json.dumps(loader.state_dict())))
    return read, states


@many
@pytest.mark.parametrize("more", [{}, {"repeats": {"a": 2, "b": 3}}, {"rank": 1, "world": 2}])
def test_any_number_of_workers_gives_the_same_batches(more: dict[str, Any]) -> None:
    read, states = history(0, delay=6, **more)
    for workers in (1, 2, 3):
        found, kept = history(workers, delay=6, **more)
        assert found == read
        assert [state | {"shards": 1} for state in kept] == [state | {"shards": 1} for state in states]
    resumed, _ = history(2, 30 - 11, state=states[10], delay=6, **more)
    assert resumed == read[11:]


def test_streams_go_on_with_as_many_workers_and_no_others() -> None:
    sources = {"a": rows(0, 7), "b": stream(11, 1), "c": stream(300)}
    read, states = history(2, sources=sources)
    assert len({number for batch in read for number in batch}) > 40
    resumed, _ = history(2, 19, state=states[10], sources=sources)
    assert resumed == read[11:]
    with pytest.raises(ValueError, match=r"read by 2 shards \(processes x workers\), these by 1"):
        history(0, state=states[10], sources=sources)


def test_no_sample_of_a_stream_comes_twice_a_pass() -> None:
    for sources in ({"c": stream(64, 4)}, {"c": stream(64, 1)}):
        loader = Mixture(sources, batch_size=4, rank=0, world=1).loader(2)
        read = [number for batch in islice(loader, 16) for number in batch["x"].tolist()]
        assert sorted(read) == list(range(2000, 2064))


def test_the_delay_is_what_workers_make_ahead() -> None:
    mixture = mixed()
    mixture.loader(2, prefetch=3)
    assert mixture.delay == 6
    mixture = mixed(delay=7)
    mixture.loader(2, prefetch=3)
    assert mixture.delay == 7
    mixture = mixed()
    for workers in (1, 2, 0):
        assert mixture.loader(workers, prefetch=3).delay == 3 * workers
    with pytest.raises(ValueError, match="delay is 5, and 2 workers make 6 batches ahead: give Mixture a delay of 6"):
        mixed(delay=5).loader(2, prefetch=3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workers": -1}, "workers is -1"),
        ({"workers": 1, "prefetch": 0}, "prefetch is 0"),
        ({"workers": 1, "batch_size": 3}, "option 'batch_size' of the DataLoader is set by the mixture"),
        ({"workers": 1, "in_order": False}, "option 'in_order'"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mixed().loader(**arguments)


def test_iterating_again_goes_on_and_the_numbers_of_torch_are_left_alone() -> None:
    whole, loader = [batch["x"].tolist() for batch in islice(mixed(), 9)], mixed().loader(2)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    read = [batch["x"].tolist() for count in (4, 5) for batch in islice(loader, count)]
    assert read == whole
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_worker_finds_wrong_is_told() -> None:
    loader = mixed(repeats=1, sources={"a": rows(0, 7)}, weights=None).loader(2)
    batches = iter(loader)
    assert len(next(batches)["x"]) == 4
    with pytest.raises(ValueError, match="all sources with a weight are exhausted after 4 samples"):
        next(batches)
    del batches
    gc.collect()  # PyTorch waits seconds for workers whose loader a traceback holds while others are started


def test_a_plain_loader_gives_each_batch_once_and_no_one_a_wrong_place() -> None:
    whole, mixture = [batch["x"].tolist() for batch in islice(mixed(), 12)], mixed()
    plain = DataLoader(mixture, batch_size=None, num_workers=2)
    assert [batch["x"].tolist() for batch in islice(plain, 12)] == whole
    for ask in (mixture.state_dict, mixture.counts, lambda: mixture.set_weights({"a": 1, "b": 0, "c": 0})):
        with pytest.raises(ValueError, match=r"read by the workers of a plain DataLoader.*use Mixture\.loader"):
            ask()


def test_nor_does_a_plain_loader_after_one_that_was_told() -> None:
    whole, mixture = [batch["x"].tolist() for batch in islice(mixed(), 6)], mixed()
    read = [batch["x"].tolist() for batch in islice(mixture.loader(1), 3)]
    plain = DataLoader(mixture, batch_size=None, num_workers=1)
    assert read + [batch["x"].tolist() for batch in islice(plain, 3)] == whole
    with pytest.raises(ValueError, match="read by the workers of a plain DataLoader"):
        mixture.state_dict()


def test_workers_that_stand_elsewhere_are_not_read_on() -> None:
    loader = mixed().loader(1)
    start = loader.state_dict()
    batches = iter(loader)
    first = next(batches)["x"].tolist()
    loader.load_state_dict(start)
    with pytest.raises(ValueError, match="a state was loaded, or the loader iterated anew"):
        next(batches)
    anew = iter(loader)
    assert next(anew)["x"].tolist() == first
    second = next(iter(loader.mixture))["x"].tolist()
    assert second == next(islice(mixed(), 1, None))["x"].tolist()
    with pytest.raises(ValueError, match="go on with a new iterator"):
        next(anew)
    assert loader.mixture.batches == 2
    gc.collect()  # as above


def test_other_ways_to_start_workers() -> None:
    whole = [batch["x"].tolist() for batch in islice(mixed(), 3)]
    loader = mixed().loader(1, multiprocessing_context="spawn")
    assert [batch["x"].tolist() for batch in islice(loader, 3)] == whole


def test_told_keeps_each_batch_its_weights() -> None:
    told = Told(3, 2)
    told.tell(4, [0.25, 0.75])
    told.tell(5, [1, 0])
    told.tell(5, [0, 1])
    assert [told.at(batch) for batch in (1, 3, 4, 5, 6, 7)] == [None, None, [0.25, 0.75], [0.0, 1.0], None, None]


SCRIPT = """
import json, sys
from itertools import islice
import torch
from shoestring.methods.mixing.mixture import Mixture

def rows(start, count):
    return [{"x": torch.tensor(start + number)} for number in range(count)]

def main(place):
    sources = {"a": rows(0, 7), "b": rows(1000, 11), "c": rows(2000, 300)}
    loader = Mixture(sources, batch_size=4, seed=3).loader(2)
    while True:
        for batch in loader:
            step = loader.mixture.batches
            if step % 5 == 0:
                loader.set_weights({"a": 0.5, "b": 0.25, "c": 0.25} if step % 2 else {"a": 0, "b": 0.5, "c": 0.5})
            state = {"state": loader.state_dict(), "read": batch["x"].tolist()}
            with open(place, "a") as file:
                file.write(json.dumps(state) + "\\n")

if __name__ == "__main__":
    main(sys.argv[1])
"""


def test_killed_and_resumed_equals_never_stopped(tmp_path: Path) -> None:
    script, place = tmp_path / "script.py", tmp_path / "states.jsonl"
    script.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, "-W", "error::RuntimeWarning", str(script), str(place)]) as process:
        while not place.exists() or place.read_text().count("\n") < 23:
            assert process.poll() is None
            time.sleep(0.05)
        workers = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
    kept = [json.loads(line) for line in place.read_text().split("\n")[:-1]]
    assert len(workers) == 2

    def on(state: dict[str, Any] | None, steps: int) -> list[list[int]]:
        sources = {"a": rows(0, 7), "b": rows(1000, 11), "c": rows(2000, 300)}
        loader = Mixture(sources, batch_size=4, seed=3).loader(2)
        if state:
            loader.load_state_dict(state)
        read = []
        for batch in islice(loader, steps):
            step = loader.mixture.batches
            if step % 5 == 0:
                loader.set_weights({"a": 0.5, "b": 0.25, "c": 0.25} if step % 2 else {"a": 0, "b": 0.5, "c": 0.5})
            read.append(batch["x"].tolist())
        return read

    whole = on(None, len(kept) + 20)
    assert [one["read"] for one in kept] == whole[: len(kept)]
    assert on(kept[-1]["state"], 20) == whole[len(kept) :]
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def test_single_samples_are_not_handed_to_several_workers() -> None:
    sources = {"a": [torch.zeros(1)] * 8, "b": [torch.ones(1)] * 8}
    loader = DataLoader(Mixture(sources, batch_size=None), batch_size=4, num_workers=2)
    with pytest.raises(ValueError, match="single samples in 2 workers"):
        next(iter(loader))
