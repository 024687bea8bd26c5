"""Every window of a run at once: what `merge` of each would write, each checkpoint read once."""

import importlib
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from shoestring.methods.averaging import stream
from shoestring.methods.averaging.checkpoints import find
from shoestring.methods.averaging.merge import merge
from shoestring.methods.averaging.reader import Reader
from shoestring.methods.averaging.sweep import sweep

merging = importlib.import_module("shoestring.methods.averaging.merge")  # its package's `merge` is the function


def trajectory(root, count, size=60, style="checkpoint-{}"):
    for at in range(count):
        folder = root / style.format(10 * at)
        folder.mkdir(parents=True)
        generator = torch.Generator().manual_seed(at)
        state = {"w": torch.randn(size, generator=generator).to(torch.bfloat16), "n": torch.tensor([at])}
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text(f'{{"step": {at}}}')
    return root


def test_by_hand_the_windows_of_two_among_three(tmp_path):
    for at, value in enumerate((0.0, 2.0, 8.0)):
        (tmp_path / "run").mkdir(exist_ok=True)
        save_file({"w": torch.tensor([value])}, tmp_path / "run" / f"model_{at}.safetensors")
    paths = sweep(tmp_path / "run", tmp_path / "out", 2)
    assert [path.name for path in paths] == ["step-00000001", "step-00000002"]
    assert [load_file(path / "model.safetensors")["w"].item() for path in paths] == [1.0, 5.0]
    assert find(tmp_path / "out") == paths


@settings(max_examples=8, deadline=None)
@given(count=st.integers(1, 4), stride=st.integers(1, 2), dtype=st.sampled_from([None, torch.float32, torch.float64]))
def test_each_window_is_byte_for_byte_what_merge_writes(tmp_path_factory, count, stride, dtype):
    root = tmp_path_factory.mktemp("sweep")
    run = find(trajectory(root / "run", 8))
    paths = sweep(root / "run", root / "out", count, stride, dtype, block_bytes=40)
    assert len(paths) == 8 - (count - 1) * stride
    for last, path in enumerate(paths, start=(count - 1) * stride):
        members = run[last - (count - 1) * stride : last + 1 : stride]
        alone = merge(members, root / f"alone-{last}", dtype=dtype)
        assert sorted(file.name for file in path.iterdir()) == sorted(file.name for file in alone.iterdir())
        for file in alone.iterdir():
            assert (path / file.name).read_bytes() == file.read_bytes(), file.name
    shutil.rmtree(root)


def test_each_checkpoint_is_read_once(tmp_path, monkeypatch):
    read = []
    original = Reader.read

    def reading(self, stored, start, stop, buffer):
        if stored.name == "w":
            read.append((stored.file, start, stop))
        return original(self, stored, start, stop, buffer)

    monkeypatch.setattr(Reader, "read", reading)
    sweep(trajectory(tmp_path / "run", 9), tmp_path / "out", 4, block_bytes=80)
    assert len(read) == len(set(read)) == 9 * 3


def test_an_interrupted_sweep_leaves_no_result_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "SPAN_BYTES", 16)
    monkeypatch.setattr(stream, "SYNCED", 1)
    trajectory(tmp_path / "run", 5)

    def interrupt(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "run", tmp_path / "out", 2, progress=interrupt)
    assert not (tmp_path / "out").exists()
    paths = sweep(tmp_path / "run", tmp_path / "out", 2)
    whole = sweep(tmp_path / "run", tmp_path / "whole", 2)
    for one, other in zip(paths, whole, strict=True):
        for file in one.iterdir():
            assert file.read_bytes() == (other / file.name).read_bytes()


def test_windows_that_do_not_fit_and_bad_checkpoints_are_refused(tmp_path):
    run = trajectory(tmp_path / "run", 4)
    with pytest.raises(ValueError, match="has 4 checkpoints: a window of 3, 2 apart, needs 5"):
        sweep(run, tmp_path / "out", 3, 2)
    with pytest.raises(ValueError, match="at least 1 of each"):
        sweep(run, tmp_path / "out", 0)
    (tmp_path / "twice").mkdir()
    for name in ("x-1", "x-01"):
        save_file({"w": torch.zeros(1)}, tmp_path / "twice" / f"{name}.safetensors")
    with pytest.raises(ValueError, match="two checkpoints of step-00000001"):
        sweep(tmp_path / "twice", tmp_path / "out", 1)
    state = load_file(run / "checkpoint-20" / "model.safetensors")
    state["w"][7] = torch.nan
    save_file(state, run / "checkpoint-20" / "model.safetensors")
    with pytest.raises(ValueError, match=r"checkpoint-20/model\.safetensors: tensor 'w' holds NaN"):
        sweep(run, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
