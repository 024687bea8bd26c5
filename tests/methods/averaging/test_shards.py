"""Files of weights: what is listed, and how each kind of damage is named."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shoestring.methods.averaging.shards import read_shard


def one_line(error: pytest.ExceptionInfo[ValueError], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def written(file: Path, header: dict[str, object], data: bytes) -> Path:
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def test_by_hand_a_file_of_two_tensors_is_listed_in_the_order_in_which_they_lie(tmp_path):
    header = {
        "__metadata__": {"format": "pt", "note": "kept"},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [8, 16]},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    file = written(tmp_path / "x.safetensors", header, bytes(16))
    shard = read_shard(file)
    assert [(one.name, one.dtype, one.shape) for one in shard.tensors] == [
        ("a", torch.float32, (2,)),
        ("b", torch.int64, (1,)),
    ]
    assert [one.offset for one in shard.tensors] == [file.stat().st_size - 16, file.stat().st_size - 8]
    assert shard.metadata == {"format": "pt", "note": "kept"}


def test_the_librarys_own_files_are_listed_whole(tmp_path):
    tensors = {f"t{number}": torch.zeros(number, 3, dtype=torch.bfloat16) for number in range(4)}
    tensors["scalar"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "x.safetensors")
    listed = {one.name: (one.dtype, one.shape) for one in read_shard(tmp_path / "x.safetensors").tensors}
    assert listed == {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_a_torch_file_is_listed_at_the_top_or_below_the_usual_names(tmp_path, wrapper):
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    torch.save(state if wrapper is None else {wrapper: state, "step": 3}, tmp_path / "x.pt")
    listed = {one.name: (one.dtype, one.shape) for one in read_shard(tmp_path / "x.pt").tensors}
    assert listed == {"a": (torch.float32, (2, 3)), "b": (torch.int64, (2,))}


def test_a_cut_or_grown_file_is_refused_with_both_sizes(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(100)}, file)
    whole, size = file.read_bytes(), file.stat().st_size
    file.write_bytes(whole[:-1])
    with pytest.raises(ValueError) as error:
        read_shard(file)
    one_line(error, str(file), f"says {size} bytes", f"has {size - 1}")
    file.write_bytes(whole + b"x")
    with pytest.raises(ValueError) as error:
        read_shard(file)
    one_line(error, str(file), "longer")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, (2).to_bytes(8, "little") + b"[]"])
def test_garbage_is_refused_by_name(tmp_path, content):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_shard(file)
    one_line(error, str(file))


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}, "F4"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "cannot lie"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "cannot lie"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}, "does not begin"),
        ({"dtype": "F32", "shape": [2]}, "header"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_by_name(tmp_path, entry, word):
    file = written(tmp_path / "x.safetensors", {"odd": entry}, bytes(8))
    with pytest.raises(ValueError) as error:
        read_shard(file)
    one_line(error, str(file), word)


class Runs:
    """Would make a folder if it were unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    torch.save({"a": torch.zeros(1), "b": Runs(tmp_path / "ran")}, tmp_path / "x.pt")
    with pytest.raises(ValueError) as error:
        read_shard(tmp_path / "x.pt")
    one_line(error, str(tmp_path / "x.pt"), "refused", "run code")
    assert not (tmp_path / "ran").exists()


def test_torch_files_that_are_cut_old_or_empty_are_refused_by_name(tmp_path):
    file = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, file)
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not torch at all"):
        file.write_bytes(content)
        with pytest.raises(ValueError) as error:
            read_shard(file)
        one_line(error, str(file))
    torch.save({"a": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError) as error:
        read_shard(file)
    one_line(error, str(file), "save it again")


@pytest.mark.parametrize("content", [{}, {"step": 3}, [1], {"model": {"a": 1}}])
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError) as error:
        read_shard(tmp_path / "x.pt")
    one_line(error, str(tmp_path / "x.pt"), "state dict")


def test_what_cannot_be_averaged_or_is_of_another_kind_is_refused_with_what_is_read(tmp_path):
    torch.save({"a": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "x.pt")
    with pytest.raises(ValueError) as error:
        read_shard(tmp_path / "x.pt")
    one_line(error, "'a'", "complex64", "bfloat16")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError) as error:
        read_shard(tmp_path / "x.gguf")
    one_line(error, "x.gguf", ".safetensors", ".pt")
    with pytest.raises(ValueError, match="no such file"):
        read_shard(tmp_path / "absent.pt")
