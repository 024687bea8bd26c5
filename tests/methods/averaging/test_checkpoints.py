"""Checkpoints found in order of step, and opened whatever wrote them."""

import hashlib
import json

import pytest
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from shoestring.methods.averaging.checkpoints import find, open_checkpoint, step_of


def save(folder, **tensors):
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors or {"a": torch.zeros(2)}, folder / "model.safetensors")
    return folder


def names(opened):
    return [one.name for shard in opened.shards for one in shard.tensors]


def test_by_hand_steps_are_in_order_of_number_and_not_of_the_alphabet(tmp_path):
    for step in (1000, 20, 3, 100):
        save(tmp_path / f"checkpoint-{step}")
    assert [path.name for path in find(tmp_path)] == [f"checkpoint-{step}" for step in (3, 20, 100, 1000)]


@pytest.mark.parametrize("style", ["step-{:08d}", "checkpoint-{}", "step{}", "pythia-70m@step{}", "epoch_{}"])
def test_folders_of_every_usual_name_are_found(tmp_path, style):
    for step in (9, 10, 11):
        save(tmp_path / style.format(step))
    (tmp_path / "logs-2026").mkdir()
    assert [step_of(path) for path in find(tmp_path)] == [9, 10, 11]


def test_a_run_is_found_from_above_its_checkpoint_folder_and_from_it(tmp_path):
    for step in (5, 10):
        save(tmp_path / "lawa" / "checkpoint" / f"step-{step:08d}")
    assert find(tmp_path) == find(tmp_path / "lawa") == find(tmp_path / "lawa" / "checkpoint")
    assert [step_of(path) for path in find(tmp_path)] == [5, 10]


def test_partly_written_ones_and_other_files_are_passed_over(tmp_path):
    for name in ("step-1", "step-2", "step-3.partial", ".partial-step-4", "tmp-checkpoint-5"):
        save(tmp_path / name)
    assert [path.name for path in find(tmp_path)] == ["step-1", "step-2"]
    files = tmp_path / "files"
    for name in ("a_9.pt", "a_10.pt", "rng_state_0.pth", "model-00001-of-00002.safetensors", "optimizer-3.pt"):
        files.mkdir(exist_ok=True)
        (files / name).touch()
    assert [path.name for path in find(files)] == ["a_9.pt", "a_10.pt"]


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6, unique=True))
def test_numbered_files_come_in_natural_order(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("files")
    for step in steps:
        (folder / f"ckpt7b_{step}.safetensors").touch()
    assert [step_of(path) for path in find(folder)] == sorted(steps)


def test_where_the_order_would_be_a_guess_or_there_is_none_it_is_said(tmp_path):
    for run in ("raw", "lawa"):
        save(tmp_path / run / "checkpoint" / "step-1")
    with pytest.raises(ValueError, match="several kinds") as error:
        find(tmp_path)
    assert "raw" in str(error.value)
    assert "lawa" in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no checkpoints: expected step-100"):
        find(tmp_path / "empty")
    with pytest.raises(ValueError, match="no such folder"):
        find(tmp_path / "absent")
    with pytest.raises(ValueError, match="no step"):
        step_of("model.safetensors")


def test_a_sharded_folder_is_opened_by_its_index(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(1)}, tmp_path / "model-00002-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map}))
    assert names(open_checkpoint(tmp_path)) == ["a", "b"]
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors: no such file"):
        open_checkpoint(tmp_path)
    index.write_text("{")
    with pytest.raises(ValueError, match=r"index\.json: is not JSON"):
        open_checkpoint(tmp_path)
    index.write_text("{}")
    with pytest.raises(ValueError, match="weight_map"):
        open_checkpoint(tmp_path)


def test_a_folder_of_torch_files_whole_and_sharded(tmp_path):
    (tmp_path / "whole").mkdir()
    torch.save({"a": torch.zeros(1)}, tmp_path / "whole" / "pytorch_model.bin")
    assert names(open_checkpoint(tmp_path / "whole")) == ["a"]
    for number, name in ((1, "a"), (2, "b")):
        torch.save({name: torch.zeros(1)}, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert names(open_checkpoint(tmp_path)) == ["a", "b"]


def test_the_manifest_of_a_run_is_held_against_sizes_and_gives_the_checksums(tmp_path):
    file = save(tmp_path) / "model.safetensors"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = {"sha256": sha256, "bytes": file.stat().st_size}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {"model.safetensors": entry}}))
    assert open_checkpoint(tmp_path).digests == {file: sha256}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {"model.safetensors": {**entry, "bytes": 7}}}))
    with pytest.raises(ValueError, match=rf"model\.safetensors: has {entry['bytes']} bytes, but manifest.json says 7"):
        open_checkpoint(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(ValueError, match=r"model\.safetensors: is not in manifest\.json"):
        open_checkpoint(tmp_path)


def test_folders_without_weights_are_refused_with_what_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"holds no weights that are read: expected a Hugging Face folder"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapter"):
        open_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="no such checkpoint"):
        open_checkpoint(tmp_path / "absent")


def test_a_hub_name_with_a_revision_is_found_in_the_local_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--some--model"
    save(repository / "snapshots" / "0123abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "step1000").write_text("0123abc")
    opened = open_checkpoint("some/model@step1000")
    assert names(opened) == ["a"]
    assert opened.source == "some/model@step1000"
    with pytest.raises(ValueError, match="some/model@step2000: neither a file nor in the local cache") as error:
        open_checkpoint("some/model@step2000")
    assert "\n" not in str(error.value)
