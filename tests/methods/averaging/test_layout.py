"""The files of an average: the newest checkpoint's, as safetensors, with its configuration beside them."""

import json

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save_file

from shoestring.methods.averaging.checkpoints import Checkpoint, open_checkpoint
from shoestring.methods.averaging.layout import lay_out, write_beside
from shoestring.methods.averaging.shards import CODES, Shard, Stored


def test_by_hand_a_file_of_two_tensors(tmp_path):
    save_file({"b": torch.zeros(3, dtype=torch.bfloat16), "a": torch.zeros(2)}, tmp_path / "model.safetensors")
    (file,) = lay_out(open_checkpoint(tmp_path), None)
    assert (file.name, [slot.name for slot in file.slots]) == ("model.safetensors", ["a", "b"])
    start = len(file.header)
    assert start % 8 == 0
    assert [slot.offset for slot in file.slots] == [start, start + 8]
    assert file.size == start + 14


def test_the_layout_of_an_unchanged_file_is_the_librarys_byte_for_byte(tmp_path):
    tensors = {f"layer.{number}": torch.randn(number + 1, 4) for number in range(12)}
    tensors |= {"flag": torch.ones(3, dtype=torch.bool), "half": torch.zeros(5, dtype=torch.float16)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (file,) = lay_out(open_checkpoint(tmp_path), None)
    content = (tmp_path / "model.safetensors").read_bytes()
    assert file.size == len(content)
    assert [slot.name for slot in file.slots] == sorted(tensors, key=lambda name: content.index(f'"{name}"'.encode()))


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(CODES, key=str)), st.lists(st.integers(0, 3), max_size=3)),
        max_size=6,
    ),
    st.sampled_from([None, torch.float64, torch.bfloat16]),
)
def test_whatever_it_holds_the_library_reads_what_was_laid_out(tmp_path_factory, kinds, dtype):
    path = tmp_path_factory.mktemp("layout") / "x.pt"
    tensors = tuple(Stored(str(at), path, kind, tuple(shape)) for at, (kind, shape) in enumerate(kinds))
    (file,) = lay_out(Checkpoint("x", None, (Shard(path, tensors, {}),)), dtype)
    read = load(file.header + bytes(file.size - len(file.header)))
    expected = {
        one.name: (dtype if dtype is not None and one.dtype.is_floating_point else one.dtype, one.shape)
        for one in tensors
    }
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in read.items()} == expected


def test_files_are_named_as_from_pretrained_looks_for_them(tmp_path):
    def name(file):
        (output,) = lay_out(Checkpoint("x", None, (Shard(tmp_path / file, (), {}),)), None)
        return output.name

    assert name("pytorch_model.bin") == "model.safetensors"
    assert name("ckpt_100.pt") == "model.safetensors"
    assert name("pytorch_model-00002-of-00003.bin") == "model-00002-of-00003.safetensors"
    assert name("model-00002-of-00003.safetensors") == "model-00002-of-00003.safetensors"


def test_configuration_and_tokenizer_come_along_and_the_optimizer_stays(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    save_file({"a": torch.zeros(2)}, source / "model-00001-of-00001.safetensors", metadata={"format": "pt", "by": "me"})
    index = {"metadata": {"total_size": 8, "by": "me"}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    (source / "config.json").write_text(json.dumps({"model_type": "gpt_neox", "dtype": "float32"}))
    for kept in ("tokenizer.json", "merges.txt", "spiece.model", "generation_config.json", "chat_template.jinja"):
        (source / kept).write_text(kept)
    left = ("optimizer.safetensors", "optimizer.json", "process-0.json", "state.json", "trainer_state.json")
    for name in (*left, "training_args.bin", "rng_state.pth", "README.md"):
        (source / name).write_text(name)
    checkpoint = open_checkpoint(source)
    files = lay_out(checkpoint, torch.bfloat16)
    write_beside(checkpoint, files, out, torch.bfloat16)
    kept = {"tokenizer.json", "merges.txt", "spiece.model", "generation_config.json", "chat_template.jinja"}
    assert {path.name for path in out.iterdir()} == kept | {"config.json", "model.safetensors.index.json"}
    assert json.loads((out / "config.json").read_text()) == {"model_type": "gpt_neox", "dtype": "bfloat16"}
    assert json.loads((out / "model.safetensors.index.json").read_text())["metadata"] == {"total_size": 4, "by": "me"}
    (out / files[0].name).write_bytes(files[0].header + bytes(4))
    with safe_open(out / files[0].name, "pt") as stream:
        assert stream.metadata() == {"format": "pt", "by": "me"}
