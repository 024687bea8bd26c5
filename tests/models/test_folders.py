import json

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from shoestring.models import folders


def weights(folder, *names: str):
    folder.mkdir(exist_ok=True)
    for name in names:
        save_file({"weight": torch.ones(100)}, folder / name)
    return folder


# by hand


def test_a_folder_is_found_before_anything_is_asked(tmp_path, monkeypatch):
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert folders.find("org/name").resolve() == tmp_path / "org" / "name"


def test_single_weights_come_before_sharded_and_safetensors_before_pickles(tmp_path):
    assert folders.weight_files(tmp_path) == []
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert folders.weight_files(tmp_path) == [tmp_path / "pytorch_model.bin"]
    index = {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert folders.weight_files(tmp_path) == [tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"]
    weights(tmp_path, "model.safetensors")
    assert folders.weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_whole_weights_pass(tmp_path):
    folders.check_weights(weights(tmp_path, "model.safetensors"))


def cached(home, name: str, *files: str):
    """A repository as the Hub's cache lays it out."""
    repository = home / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for file in files:
        (snapshot / file).write_text("{}")
    return snapshot


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_the_hubs_cache_is_found_without_a_network(hub, monkeypatch):
    snapshot = cached(hub, "org/name", "config.json", "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert folders.find("org/name") == snapshot


# misuse


def test_a_cache_without_the_weights_is_not_enough(hub):
    cached(hub, "org/name", "config.json")
    with pytest.raises(
        ValueError, match="org/name is neither a folder nor in the Hub's cache, and HF_HUB_OFFLINE is set"
    ):
        folders.find("org/name")


@pytest.mark.parametrize("name", ["org/absent", "no such thing"])
def test_an_absent_name_is_refused_offline(hub, name):
    with pytest.raises(ValueError, match=f"{name} is neither a folder nor in the Hub's cache"):
        folders.find(name)


def test_a_hub_that_is_not_reached_is_told_in_a_few_words(hub, monkeypatch):
    import huggingface_hub

    def answer(*_args, **_kwargs):
        raise LocalEntryNotFoundError("An error happened, and so on") from OSError("no route")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    with pytest.raises(ValueError, match=r"cache, and the Hub was not reached \(no route\)$"):
        folders.find("org/name")


def test_what_the_hub_says_is_told_on_one_line(hub, monkeypatch):
    import huggingface_hub

    def answer(*_args, local_files_only, **_kwargs):
        raise OSError("no route\nto the Hub" if not local_files_only else "nothing cached")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    with pytest.raises(ValueError, match=r"of the Hub: no route to the Hub$"):
        folders.find("org/name")


@pytest.mark.parametrize("name", ["/absent/folder", "./absent", "../absent", "~/absent/model", "one/two/three"])
def test_a_path_is_not_taken_for_a_name_on_the_hub(name):
    with pytest.raises(ValueError, match="there is no such folder"):
        folders.find(name)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(ValueError, match="is a file: expected the folder of a model"):
        folders.find(str(tmp_path / "model.bin"))


def test_no_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no weights"):
        folders.check_weights(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_a_torn_file_is_named(tmp_path, kept):
    path = weights(tmp_path, "model.safetensors") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors is torn or not safetensors"):
        folders.check_weights(tmp_path)


def test_an_absent_shard_is_named(tmp_path):
    weights(tmp_path, "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"model-2\.safetensors is absent"):
        folders.check_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a JSON list"),
        ("{}", "no 'weight_map'"),
        ('{"weight_map": 3}', "'weight_map'"),
    ],
)
def test_a_bad_index_is_named(tmp_path, content, said):
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match=rf"index\.json.*{said}"):
        folders.check_weights(tmp_path)


def test_an_absent_configuration_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json is absent: expected the configuration"):
        folders.read_json(tmp_path / "config.json", "the configuration")


def test_a_fingerprint_is_of_what_makes_the_model(tmp_path):
    one, other = (weights(tmp_path / name, "model.safetensors") for name in ("one", "other"))
    (one / "notes.md").write_text("nothing of it")
    assert folders.fingerprint(one) == folders.fingerprint(other)
    before = folders.fingerprint(one)
    (one / "config.json").write_text("{}")
    changed = folders.fingerprint(one)
    save_file({"weight": torch.zeros(100)}, one / "model.safetensors")
    assert len({before, changed, folders.fingerprint(one)}) == 3
    packed = tmp_path / "model.gguf"
    packed.write_bytes(b"GGUF")
    before = folders.fingerprint(packed)
    packed.write_bytes(b"GGUF2")
    assert folders.fingerprint(packed) != before
    with pytest.raises(ValueError, match="cannot be read"):
        folders.fingerprint(tmp_path / "absent.gguf")
