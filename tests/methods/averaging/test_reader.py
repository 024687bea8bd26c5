"""Ranges read from disk: the same elements whatever holds them, in bounded memory."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from shoestring.methods.averaging.reader import Reader
from shoestring.methods.averaging.shards import read_shard


def stored(file):
    return {one.name: one for one in read_shard(file).tensors}


def test_by_hand_three_elements_from_the_middle(tmp_path):
    save_file({"a": torch.arange(10, dtype=torch.int32), "b": torch.arange(5.0)}, tmp_path / "x.safetensors")
    with Reader() as reader:
        buffer = torch.empty(100, dtype=torch.uint8)
        assert reader.read(stored(tmp_path / "x.safetensors")["a"], 4, 7, buffer).tolist() == [4, 5, 6]
        assert reader.read(stored(tmp_path / "x.safetensors")["b"], 0, 2, buffer).tolist() == [0.0, 1.0]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    tensor = torch.randn(37, 11, generator=torch.Generator().manual_seed(0))
    save_file({"a": tensor}, folder / "x.safetensors")
    turned = tensor.t().contiguous().t()
    assert not turned.is_contiguous()
    torch.save({"plain": tensor, "turned": turned}, folder / "x.pt")
    return tensor.reshape(-1), [stored(folder / "x.safetensors")["a"], *stored(folder / "x.pt").values()]


@settings(max_examples=40, deadline=None)
@given(bounds=st.tuples(st.integers(0, 407), st.integers(0, 407)).map(sorted))
def test_any_range_is_the_same_from_a_safetensors_a_torch_and_a_transposed_tensor(both, bounds):
    whole, tensors = both
    buffer = torch.empty(407 * 4, dtype=torch.uint8)
    with Reader() as reader:
        for one in tensors:
            assert torch.equal(reader.read(one, *bounds, buffer), whole[slice(*bounds)])


def test_a_file_that_shrinks_under_the_reader_is_named(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(1000)}, file)
    one = stored(file)["a"]
    file.write_bytes(file.read_bytes()[:-400])
    with Reader() as reader, pytest.raises(ValueError, match=r"x\.safetensors: ends at byte \d+, inside tensor 'a'"):
        reader.read(one, 0, 1000, torch.empty(4000, dtype=torch.uint8))


MEMORY = """
import sys, torch
from pathlib import Path
from shoestring.methods.averaging.reader import Reader
from shoestring.methods.averaging.shards import read_shard
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
buffer = torch.empty(1 << 20, dtype=torch.uint8)
one = read_shard(Path(sys.argv[1])).tensors[0]
before = resident()
with Reader() as reader:
    total = sum(int(reader.read(one, at, at + (1 << 20), buffer)[7]) for at in range(0, one.numel, 1 << 20))
print(resident() - before, total)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and gives pages back as Linux does")
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_reading_a_large_file_keeps_little_of_it_resident(tmp_path, name):
    tensor = torch.ones(64 << 20, dtype=torch.uint8)
    if name.endswith("pt"):
        torch.save({"a": tensor}, tmp_path / name)
    else:
        save_file({"a": tensor}, tmp_path / name)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / name)]
    grown, total = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(total) == 64
    assert float(grown) < 16, "MiB of a file of 64"
