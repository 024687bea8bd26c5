"""State to disk and back, exactly."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shoestring.train import state

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit, a tuple as the list it comes back as."""
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and one.dtype == other.dtype and one.shape == other.shape
        return alike and one.contiguous().reshape(-1).view(torch.uint8).equal(other.reshape(-1).view(torch.uint8))
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return isinstance(other, float) and (
            struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
        )
    return type(one) is type(other) and bool(one == other)


# by hand


def test_what_is_written(tmp_path: Path) -> None:
    given = {"step": 3, 0: {"exp": torch.ones(2)}, "rest": (1.5, math.inf, None, True, "text", [])}
    state.write(given, tmp_path / "memory")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["memory.json", "memory.safetensors"]
    back = state.read(tmp_path / "memory")
    assert back["rest"] == [1.5, math.inf, None, True, "text", []]
    assert list(back) == ["step", 0, "rest"]
    assert back[0]["exp"].equal(torch.ones(2))


def test_tensors_that_share_storage_come_back_apart(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    state.write(
        {"whole": whole, "view": whole.T, "same": whole, "grad": whole.clone().requires_grad_()}, tmp_path / "a"
    )
    back = state.read(tmp_path / "a")
    assert back["view"].equal(whole.T)
    back["whole"].zero_()
    assert back["same"].equal(whole)
    assert not back["grad"].requires_grad


def test_names_that_look_like_ours(tmp_path: Path) -> None:
    given = {
        "a/b": torch.ones(1),
        "a": {"b": torch.zeros(1), 0: torch.full((1,), 2.0), "0": torch.full((1,), 3.0)},
        "a/b#1": torch.full((1,), 4.0),
        "plain": {"__tensor__": "a", "__float__": "nan", "__keys__": []},
    }
    state.write(given, tmp_path / "a")
    assert same(given, state.read(tmp_path / "a"))


def test_cut_as_a_plain_tensor_is_only_moved() -> None:
    tensor = torch.ones(2)
    assert state.whole(tensor) is tensor
    assert state.like(tensor, torch.zeros(2)) is tensor


# property

TENSORS = st.builds(
    lambda dtype, shape, seed: (
        torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        if dtype == torch.bool
        else (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 50).to(dtype)
    ),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.integers(0, 9),
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | TENSORS
KEYS = st.text("ab/#0", max_size=3) | st.text(max_size=4) | st.integers(-3, 3) | st.just("__tensor__")
STATES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(given_state=STATES)
@settings(deadline=None)
def test_it_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, given_state: Any) -> None:
    stem = tmp_path_factory.getbasetemp() / "round"
    state.write(given_state, stem)
    assert same(given_state, state.read(stem))


# misuse


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", Path("x"), 1j, torch.float32, len, object()])
def test_what_cannot_be_read_back_is_not_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"a checkpoint cannot hold {type(value).__name__} \(at /inner/0\)"):
        state.write({"inner": [value]}, tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", [(1, 2), 1.5, None])
def test_keys_that_cannot_be_read_back(tmp_path: Path, key: Any) -> None:
    with pytest.raises(TypeError, match=r"a checkpoint cannot hold the key .* \(at /inner\)"):
        state.write({"inner": {key: 1}}, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_absent_and_torn_files_are_named(tmp_path: Path) -> None:
    state.write({"a": torch.ones(3)}, tmp_path / "a")
    plain, weights = tmp_path / "a.json", tmp_path / "a.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    with pytest.raises(ValueError, match=r"a\.safetensors: torn or not safetensors"):
        state.read(tmp_path / "a")
    weights.unlink()
    with pytest.raises(ValueError, match=r"a\.safetensors: no such file; the checkpoint is not whole"):
        state.read(tmp_path / "a")
    weights.write_bytes(whole)
    plain.write_text(plain.read_text()[:-1])
    with pytest.raises(ValueError, match=r"a\.json: not JSON"):
        state.read(tmp_path / "a")
    plain.unlink()
    with pytest.raises(ValueError, match=r"a\.json: no such file"):
        state.read(tmp_path / "a")
