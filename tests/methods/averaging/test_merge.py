"""Merging on disk: the bits of the average in memory, whole or not there at all, in little memory."""

import errno
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from shoestring.methods.averaging import blend, stream
from shoestring.methods.averaging.average import average
from shoestring.methods.averaging.merge import merge

merging = importlib.import_module("shoestring.methods.averaging.merge")  # its package's `merge` is the function


def save(folder, state, sealed=False):
    folder.mkdir(parents=True)
    file = folder / "model.safetensors"
    save_file(state, file)
    if sealed:
        entry = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size}
        (folder / "manifest.json").write_text(json.dumps({"files": {file.name: entry}}))
    return folder


def random_states(count, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"w": torch.randn(40, 30, generator=generator).to(dtype), "b": torch.randn(30, generator=generator).to(dtype)}
        for _ in range(count)
    ]


def refused(call, *words):
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    for word in words:
        assert str(word) in str(error.value)


def nothing_left(tmp_path):
    return not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_by_hand_a_weighted_mean_of_two_and_what_is_written_of_it(tmp_path):
    sources = [save(tmp_path / "a", {"x": torch.tensor([1.0, 4.0]), "n": torch.tensor([1])})]
    sources.append(save(tmp_path / "b", {"x": torch.tensor([5.0, 0.0]), "n": torch.tensor([2])}))
    out = merge(sources, tmp_path / "out", weights=[1, 3])
    assert out == tmp_path / "out"
    state = load_file(out / "model.safetensors")
    assert state["x"].tolist() == [4.0, 1.0]
    assert state["n"].tolist() == [2]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["averaged"] == {"sources": [str(one) for one in sources], "weights": [0.25, 0.75]}
    content = (out / "model.safetensors").read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert manifest["files"] == {"model.safetensors": entry}
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "model.safetensors"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Four bf16 models in shards, with what a run keeps beside them, and their state dicts."""
    root, states = tmp_path_factory.mktemp("models"), []
    config = GPTNeoXConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=200
    )
    for step in range(4):
        torch.manual_seed(step)
        model = GPTNeoXForCausalLM(config).to(torch.bfloat16)
        model.save_pretrained(root / f"step-{step}", max_shard_size="30KB")
        (root / f"step-{step}" / "optimizer.safetensors").write_bytes(b"moments")
        (root / f"step-{step}" / "tokenizer.json").write_text("{}")
        states.append(model.state_dict())
    return sorted(root.iterdir()), states


def test_a_sharded_model_equals_the_average_in_memory_and_loads_with_transformers(models, tmp_path):
    folders, states = models
    out = merge(folders, tmp_path / "out", block_bytes=1000)
    names = {path.name for path in folders[-1].iterdir()}
    assert len([name for name in names if name.endswith("safetensors")]) > 2
    assert {path.name for path in out.iterdir()} == names - {"optimizer.safetensors"} | {"manifest.json"}
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == torch.bfloat16
    for name, tensor in average(states).items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_dtype_asked_for_is_in_the_weights_and_in_the_configuration(models, tmp_path):
    folders, states = models
    out = merge(folders, tmp_path / "out", dtype=torch.float32)
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert loaded.dtype == torch.float32
    want = average(states, dtype=torch.float32)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in want.items())


def test_sources_of_every_kind_give_the_same_bits(tmp_path):
    states = random_states(3)
    folders = [save(tmp_path / f"folder-{at}", state) for at, state in enumerate(states)]
    for at, state in enumerate(states):
        torch.save({"model": {f"module.{name}": one for name, one in state.items()}}, tmp_path / f"{at}.pt")
    torches = [tmp_path / f"{at}.pt" for at in range(3)]
    files = [folder / "model.safetensors" for folder in folders]
    want = average(states)
    mixed = [folders[0], torches[1], files[2]]
    for number, sources in enumerate((folders, torches, files, mixed, mixed[::-1])):
        got = load_file(merge(sources, tmp_path / f"out-{number}") / "model.safetensors")
        assert set(got) == set(want)
        if number < 4:
            assert all(torch.equal(got[name], want[name]) for name in want)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), max_size=3),
    weights=st.lists(st.floats(0.01, 9), min_size=1, max_size=5),
    kind=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    target=st.sampled_from([None, torch.float32, torch.float64, torch.bfloat16]),
    block_bytes=st.integers(1, 200),
)
def test_whatever_the_shape_weights_and_blocks_it_is_the_average_in_memory(
    tmp_path_factory, shape, weights, kind, target, block_bytes
):
    folder = tmp_path_factory.mktemp("merge")
    states = [{"a": torch.randn(shape).to(kind), "n": torch.tensor(at)} for at in range(len(weights))]
    sources = [save(folder / str(at), state) for at, state in enumerate(states)]
    out = merge(sources, folder / "out", weights, target, block_bytes)
    accumulate = torch.float64 if target == torch.float64 else torch.float32
    want = average(states, weights, accumulate=accumulate, dtype=target)
    got = load_file(out / "model.safetensors")
    assert all(torch.equal(got[name], want[name]) and got[name].dtype == want[name].dtype for name in want)
    shutil.rmtree(folder)


def test_one_source_and_a_source_given_twice(tmp_path):
    states = random_states(2)
    first, second = (save(tmp_path / str(at), state) for at, state in enumerate(states))
    assert torch.equal(load_file(merge([first], tmp_path / "one") / "model.safetensors")["w"], states[0]["w"])
    got = load_file(merge([first, second, second], tmp_path / "out") / "model.safetensors")
    assert torch.equal(got["w"], average([states[0], states[1], states[1]])["w"])


def test_the_output_is_a_source_again(tmp_path):
    sources = [save(tmp_path / str(at), state) for at, state in enumerate(random_states(2))]
    first = merge(sources, tmp_path / "first")
    assert torch.equal(
        load_file(merge([first], tmp_path / "second") / "model.safetensors")["w"],
        load_file(first / "model.safetensors")["w"],
    )


def test_an_interrupted_merge_leaves_no_result_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "SPAN_BYTES", 100)
    monkeypatch.setattr(stream, "SYNCED", 1)
    states = random_states(3)
    sources = [save(tmp_path / str(at), state) for at, state in enumerate(states)]
    blended = []
    original = blend.Blender.blend
    monkeypatch.setattr(blend.Blender, "blend", lambda self, span: (blended.append(span.end), original(self, span)))

    def interrupt(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(sources, tmp_path / "out", block_bytes=50, progress=interrupt)
    assert not (tmp_path / "out").exists()
    noted = (tmp_path / "out.partial" / "journal.jsonl").read_text().splitlines()
    done = json.loads(noted[-1])["done"] if len(noted) > 1 else 0
    whole, before = len(set(blended)), len(blended)
    merge(sources, tmp_path / "out", block_bytes=50)
    again = len(blended) - before
    assert len(set(blended)) == again + done >= whole
    got, want = load_file(tmp_path / "out" / "model.safetensors"), average(states)
    assert all(torch.equal(got[name], want[name]) for name in want)
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]["model.safetensors"]
    assert hashlib.sha256((tmp_path / "out" / "model.safetensors").read_bytes()).hexdigest() == entry["sha256"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "model.safetensors"]


def test_other_weights_do_not_go_on_with_foreign_work(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "SYNCED", 1)
    monkeypatch.setattr(merging, "SPAN_BYTES", 100)
    states = random_states(2)
    sources = [save(tmp_path / str(at), state) for at, state in enumerate(states)]

    def interrupt(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(sources, tmp_path / "out", progress=interrupt)
    got = load_file(merge(sources, tmp_path / "out", weights=[1, 9]) / "model.safetensors")
    assert torch.equal(got["w"], average(states, [1, 9])["w"])


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
import importlib
from shoestring.methods.averaging import stream
merging = importlib.import_module("shoestring.methods.averaging.merge")
stream.SYNCED = 1
merging.SPAN_BYTES = 4096
folder, sources = Path(sys.argv[1]), sys.argv[2:]
random.seed(0)
kills = 0
while kills < 8 and not (folder / "out").exists():
    child = os.fork()
    if not child:
        merging.merge(sources, folder / "out", block_bytes=256)
        os._exit(0)
    time.sleep(random.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    kills += os.waitpid(child, 0)[1] != 0
if not (folder / "out").exists():
    merging.merge(sources, folder / "out", block_bytes=256)
print(kills)
"""


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    generator = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(300, 300, generator=generator)} for _ in range(3)]
    sources = [save(tmp_path / str(at), state) for at, state in enumerate(states)]
    command = [sys.executable, "-c", KILLED, str(tmp_path), *map(str, sources)]
    kills = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kills > 0
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["w"], average(states)["w"])
    assert not (tmp_path / "out.partial").exists()


MEMORY = """
import sys, torch
from shoestring.methods.averaging.merge import merge
def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
before = resident()
merge(sys.argv[2:], sys.argv[1])
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_memory_does_not_grow_with_the_checkpoints(tmp_path, kind):
    sources = []
    for at in range(3):
        sources.append(tmp_path / f"{at}.{kind}")
        state = {"w": torch.full((24 << 20,), float(at), dtype=torch.bfloat16)}
        save_file(state, sources[-1]) if kind == "safetensors" else torch.save(state, sources[-1])
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "out"), *map(str, sources)]
    grown = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown < 64, "MiB, where the sources have 144 and the result 48"


def test_a_flipped_byte_is_found_by_the_manifest_and_nothing_is_left(tmp_path):
    states = random_states(2)
    sources = [save(tmp_path / str(at), state, sealed=True) for at, state in enumerate(states)]
    file = sources[0] / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    refused(lambda: merge(sources, tmp_path / "out"), file, "sha256")
    assert nothing_left(tmp_path)
    content[-3] ^= 1
    file.write_bytes(content)
    assert merge(sources, tmp_path / "out").is_dir()


def test_damage_and_disagreement_are_refused_by_name_and_nothing_is_left(tmp_path):
    good = save(tmp_path / "good", {"a": torch.zeros(4), "b": torch.zeros(2)})

    def against(*words, **tensors):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        bad = save(tmp_path / "bad", tensors)
        refused(lambda: merge([bad, good], tmp_path / "out"), "bad", *words)
        assert nothing_left(tmp_path)

    against("'a' holds NaN or an infinity", a=torch.tensor([0, 0, torch.nan, 0]), b=torch.zeros(2))
    against("'b' is missing", a=torch.zeros(4))
    against("'c' is extra", a=torch.zeros(4), b=torch.zeros(2), c=torch.zeros(1))
    against("'a' has shape [2]", a=torch.zeros(2), b=torch.zeros(2))
    against("'b' is float16", a=torch.zeros(4), b=torch.zeros(2).half())
    file = tmp_path / "good" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused(lambda: merge([good, good], tmp_path / "out"), file, "cut short")
    assert nothing_left(tmp_path)


def test_calls_that_cannot_be_meant_are_refused(tmp_path):
    source = save(tmp_path / "a", {"x": torch.zeros(1)})
    out = tmp_path / "out"
    refused(lambda: merge([], out), "no checkpoints")
    refused(lambda: merge(source, out), "expected a list")
    refused(lambda: merge([tmp_path / "absent"], out), "absent", "no such checkpoint")
    refused(lambda: merge([source], source), source, "exists already")
    refused(lambda: merge([source], out, dtype=torch.int8), "int8")
    refused(lambda: merge([source], out, block_bytes=0), "block_bytes")
    for weights in ([1], [1, 2, 3], [1, -1], [-1, -2], [0, 0], [torch.nan, 1], [torch.inf, 1]):
        refused(lambda weights=weights: merge([source, source], out, weights=weights), "weights")
    assert nothing_left(tmp_path)


def test_too_little_room_is_said_beforehand(tmp_path, monkeypatch):
    source = save(tmp_path / "a", {"x": torch.zeros(1000)})
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 17))
    refused(lambda: merge([source], tmp_path / "out"), "needs 4", "17 free", tmp_path / "out")
    assert nothing_left(tmp_path)


def test_a_disk_that_fills_up_names_the_file_and_keeps_what_is_done(tmp_path, monkeypatch):
    states = random_states(2)
    sources = [save(tmp_path / str(at), state) for at, state in enumerate(states)]
    with monkeypatch.context() as full:
        original = os.pwrite

        def pwrite(descriptor, view, place):
            if place > 2000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(descriptor, view, place)

        full.setattr(os, "pwrite", pwrite)
        refused(
            lambda: merge(sources, tmp_path / "out", block_bytes=64),
            tmp_path / "out.partial" / "model.safetensors",
            "No space left",
        )
    assert not (tmp_path / "out").exists()
    got = load_file(merge(sources, tmp_path / "out") / "model.safetensors")
    assert torch.equal(got["w"], average(states)["w"])
