"""A run to disk and back, bit for bit; what is torn, foreign or half written is refused or never there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from shoestring import runtime
from shoestring.cost import Ledger
from shoestring.data import tokenizers
from shoestring.methods.averaging import Ema, Latest
from shoestring.models import manifest
from shoestring.train import checkpoint, optim
from shoestring.train.hooks import Every, Save
from shoestring.train.loop import train
from shoestring.train.objectives import next_token
from shoestring.types import Hook, Run

Build = Callable[..., Run]
DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
TIED = {"preset": "gpt2-small", "n_embd": 32, "n_layer": 2, "n_head": 2}


def averages() -> list[Hook]:
    return [Latest(3, every=2), Every(2, Ema((0.5, 0.9)))]


def weights(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in run.model.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return bool(one.keys() == other.keys()) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


@pytest.fixture
def saved(tiny: Build, tmp_path: Path) -> Path:
    """A checkpoint of a run of three steps, without hooks."""
    return checkpoint.save(tmp_path / "checkpoint", train(tiny(), next_token, until=3))


def reseal(folder: Path) -> None:
    """Write the manifest anew, as if the folder had been saved like this."""
    (folder / "manifest.json").unlink()
    partial = folder.with_name("partial")
    folder.replace(partial)
    manifest.seal(partial, folder)


# stopped and resumed


@pytest.mark.parametrize("changes", [DROPOUT, TIED | {"resid_pdrop": 0.1}], ids=["neox", "tied gpt2"])
def test_resumed_is_never_stopped_bit_for_bit(tiny: Build, tmp_path: Path, changes: dict[str, Any]) -> None:
    schedule = optim.warmup_stable_decay(12, 4, 3)

    def go(until: int, folder: Path, seed: int) -> tuple[Run, list[Hook], Ledger, list[float]]:
        runtime.seed_everything(seed)
        run, hooks, ledger, seen = tiny(rows=2, **changes), averages(), Ledger(), []
        stopped = checkpoint.latest(folder)
        if stopped is not None:
            checkpoint.load(stopped, run, hooks=hooks, ledger=ledger)
        save = Save(folder, hooks, ledger)
        with ledger.phase("train"):
            every = [*hooks, lambda run: seen.append(run.loss), Every(5, save)]
            train(run, next_token, until=until, hooks=every, ledger=ledger, accumulate=2, schedule=schedule)
        return run, hooks, ledger, seen

    whole = go(12, tmp_path / "whole", 1)
    first = go(8, tmp_path / "stopped", 1)
    # saved at 5 and stopped at 8; whatever the seed, the generators go on from the checkpoint
    second = go(12, tmp_path / "stopped", 2)
    assert first[3][:5] + second[3] == whole[3]
    assert same(weights(second[0]), weights(whole[0]))
    assert same(second[0].optimizer.state_dict(), whole[0].optimizer.state_dict())
    assert second[0].batches.state_dict() == whole[0].batches.state_dict()
    assert (second[0].step, second[0].loss) == (12, whole[0].loss)
    for one, other in zip(second[1], whole[1], strict=True):
        assert same(one.state_dict(), other.state_dict())  # type: ignore[attr-defined]
    one, other = second[2].total("train"), whole[2].total("train")
    assert (one.tokens, one.flops) == (other.tokens, other.flops)
    assert one.tokens == 12 * 4 * 16


def test_the_generators_are_where_they_were(tiny: Build, tmp_path: Path) -> None:
    run = tiny()
    path = checkpoint.save(tmp_path, run)
    expected = torch.rand(3)
    checkpoint.load(path, tiny())
    assert torch.equal(torch.rand(3), expected)


def test_a_branch_takes_the_run_without_the_memory_of_its_hooks(tiny: Build, tmp_path: Path) -> None:
    run, hooks = tiny(), averages()
    train(run, next_token, until=4, hooks=hooks)
    path = checkpoint.save(tmp_path, run, hooks=hooks)
    branch = checkpoint.load(path, tiny())
    assert same(weights(branch), weights(run))
    assert branch.step == 4


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 0.1 + 0.2])
def test_the_loss_is_kept_exactly(tiny: Build, tmp_path: Path, loss: float) -> None:
    run = tiny()
    run.loss = loss
    found = checkpoint.load(checkpoint.save(tmp_path, run), tiny()).loss
    assert found == loss or (found != found and loss != loss)


def test_an_optimizer_before_its_first_step_and_one_of_another_kind(tiny: Build, tmp_path: Path) -> None:
    def build() -> Run:
        run = tiny()
        run.optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1, momentum=0.9)
        return run

    fresh = checkpoint.load(checkpoint.save(tmp_path / "a", build()), build())
    assert not fresh.optimizer.state
    run = train(build(), next_token, until=2)
    resumed = checkpoint.load(checkpoint.save(tmp_path / "b", run), build())
    assert same(resumed.optimizer.state_dict(), run.optimizer.state_dict())


# what others load


def test_hugging_face_loads_it_under_the_published_names(tiny: Build, tmp_path: Path) -> None:
    run = train(tiny(), next_token, until=2)
    path = checkpoint.save(tmp_path, run, tokenizer=tokenizers.resolve("bytes", ()))
    names = set(load_file(path / "model.safetensors"))
    assert "embed_out.weight" in names
    assert not any(name.startswith("lm_head") for name in names)
    told = json.loads((path / "config.json").read_text())
    assert (told["architectures"], told["dtype"]) == (["GPTNeoXForCausalLM"], "float32")
    model, found = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    ids = next(iter(run.batches))["input_ids"]
    run.model.eval()
    assert torch.equal(model(ids).logits, run.model(ids).logits)
    assert AutoTokenizer.from_pretrained(path)("abc").input_ids == tokenizers.resolve("bytes", ())("abc").input_ids


def test_tied_tensors_are_written_once_and_stay_tied(tiny: Build, tmp_path: Path) -> None:
    run = train(tiny(**TIED), next_token, until=2)
    path = checkpoint.save(tmp_path, run)
    assert not {"lm_head.weight", "transformer.wte.weight"} <= set(load_file(path / "model.safetensors"))
    back = checkpoint.load(path, tiny(**TIED))
    assert same(weights(back), weights(run))
    assert back.model.lm_head.weight is back.model.transformer.wte.weight
    model = AutoModelForCausalLM.from_pretrained(path)
    assert torch.equal(model.lm_head.weight, run.model.lm_head.weight)


def test_a_model_that_is_not_hugging_faces(tiny: Build, tmp_path: Path) -> None:
    def build() -> Run:
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        return Run(model, optim.adamw(model, 0.1), tiny().batches)

    run = build()
    run.model(torch.randn(4, 2))
    back = checkpoint.load(checkpoint.save(tmp_path, run), build())
    assert same(weights(back), weights(run))
    assert back.model[1].num_batches_tracked == 1


# many


def test_the_newest_is_the_latest_and_only_so_many_are_kept(tiny: Build, tmp_path: Path) -> None:
    run = tiny()
    assert checkpoint.latest(tmp_path / "absent") is None
    assert checkpoint.latest(tmp_path) is None
    for step in (2, 99_999_999, 100_000_000, 7):
        run.step = step
        checkpoint.save(tmp_path, run)
    (tmp_path / "step-notes.txt").touch()
    names = [path.name for path in checkpoint.every(tmp_path)]
    assert names == ["step-00000002", "step-00000007", "step-99999999", "step-100000000"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step-100000000"
    checkpoint.prune(tmp_path, keep=2)
    assert [path.name for path in checkpoint.every(tmp_path)] == names[2:]
    checkpoint.prune(tmp_path, keep=0)
    assert [path.name for path in checkpoint.every(tmp_path)] == names[3:]
    assert (tmp_path / "step-notes.txt").exists()


def test_what_a_killed_save_left_is_passed_over_and_removed(tiny: Build, saved: Path) -> None:
    folder = saved.parent
    for name in (".partial-step-00000009", ".partial-step-00000001-discarded", ".partial-step-00000004"):
        (folder / name / "inner").mkdir(parents=True)
    assert checkpoint.every(folder) == [saved]
    run = checkpoint.load(saved, tiny())
    run.step = 4
    checkpoint.save(folder, run)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_step_saved_again_is_written_over(tiny: Build, saved: Path) -> None:
    run = checkpoint.load(saved, tiny())
    run.loss = 42.0
    assert checkpoint.save(saved.parent, run) == saved
    assert checkpoint.load(saved, tiny()).loss == 42.0
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


# a full disk

FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from torch import nn
from shoestring.train import checkpoint, optim
from shoestring.types import Run

class Nothing:
    def __iter__(self): return iter(())
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

folder = Path(sys.argv[1])
model = nn.Linear(300, 300)
run = Run(model, optim.adamw(model, 0.1), Nothing())
checkpoint.save(folder, run)
model(torch.ones(1, 300)).sum().backward()
run.optimizer.step()
run.step = 1
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
# no file may grow beyond: the first that is written, the weights (361 kB), the optimizer's moments (twice as much)
for limit in (400, 100_000, 400_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        checkpoint.save(folder, run, keep=1)
    except OSError as error:
        print(error, [path.name for path in folder.iterdir()])
"""


def test_a_disk_that_is_full_costs_no_earlier_checkpoint(python: Any, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    result = python(FULL, folder)
    assert result.returncode == 0, result.stderr
    told = result.stdout.splitlines()
    assert len(told) == 3
    for line in told:
        assert re.fullmatch(
            r".*step-00000001: not written \(.+\); earlier checkpoints are kept \['step-00000000'\]", line
        )
    manifest.verify(folder / "step-00000000")


def test_a_disk_that_fills_at_any_file(tiny: Build, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = checkpoint.load(saved, tiny())
    run.step = 4
    for module, name in (
        (checkpoint, "save_torch_state_dict"),
        (checkpoint.states, "save_file"),
        (checkpoint, "_write_json"),
        (manifest, "flush"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match=r"step-00000004: not written \(.*No space left on device\); earlier"):
                checkpoint.save(saved.parent, run, keep=1)
        assert [path.name for path in saved.parent.iterdir()] == [saved.name]
    checkpoint.load(saved, tiny())


# refused

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "optimizer.json",
    "optimizer.safetensors",
    "process-0.json",
    "process-0.safetensors",
    "state.json",
)


def test_these_are_its_files(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == sorted([*FILES, "manifest.json"])


@pytest.mark.parametrize("name", FILES)
def test_a_torn_changed_or_absent_file_is_named(tiny: Build, saved: Path, name: str) -> None:
    file, run = saved / name, tiny()
    before, content = weights(run), file.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged, message in (
        (content[:-1], "the manifest says .*: torn"),
        (bytes(flipped), "its checksum is not the manifest's: changed or damaged"),
        (None, "absent, though the manifest lists it"),
    ):
        file.unlink(missing_ok=True)
        if damaged is not None:
            file.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{re.escape(str(file))}: .*{message}") as caught:
            checkpoint.load(saved, run)
        assert "\n" not in str(caught.value)
    assert same(weights(run), before)


def test_a_torn_manifest_is_named(tiny: Build, saved: Path) -> None:
    file = saved / "manifest.json"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"manifest\.json: torn or foreign"):
        checkpoint.load(saved, tiny())


def test_foreign_folders_are_refused(tiny: Build, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent: not a checkpoint: it has no manifest\.json"):
        checkpoint.load(tmp_path / "absent", tiny())
    model = tmp_path / "model"
    tiny().model.save_pretrained(model)
    with pytest.raises(ValueError, match=r"model: not a checkpoint: it has no manifest\.json"):
        checkpoint.load(model, tiny())
    (saved / "state.json").unlink()
    reseal(saved)  # as an average of checkpoints is
    with pytest.raises(ValueError, match=r"step-00000003: no run can go on from it: it has no state\.json"):
        checkpoint.load(saved, tiny())


def test_a_tensor_that_is_missing_foreign_or_of_another_shape_or_type(tiny: Build, saved: Path) -> None:
    file = saved / "model.safetensors"
    tensors = load_file(file)
    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    for changed, message in (
        ({key: tensor for key, tensor in tensors.items() if key != name}, f"the tensor '{name}' is missing"),
        (tensors | {"extra": torch.ones(1)}, r"model\.safetensors: the model has no tensor 'extra'"),
        (tensors | {name: torch.ones(2, 2)}, rf"{name} is \(2, 2\), the model's \(256, 64\)"),
        (tensors | {name: tensors[name].half()}, f"{name} is torch.float16, the model's torch.float32"),
    ):
        save_file(changed, file)
        reseal(saved)
        with pytest.raises(ValueError, match=message):
            checkpoint.load(saved, tiny())
    file.write_bytes(b"not safetensors")
    reseal(saved)
    with pytest.raises(ValueError, match=r"model\.safetensors: torn or not safetensors"):
        checkpoint.load(saved, tiny())


def test_another_model_optimizer_stream_or_other_hooks(tiny: Build, saved: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors: .* is \(.*\), the model's \("):
        checkpoint.load(saved, tiny(hidden_size=32))
    other = tiny()
    other.optimizer = torch.optim.AdamW(other.model.parameters())
    with pytest.raises(ValueError, match=r"optimizer\.json: its parameter groups are not this optimizer's"):
        checkpoint.load(saved, other)
    with pytest.raises(ValueError, match="the saved batches have batch_size 4, these 2: resume with the same"):
        checkpoint.load(saved, tiny(rows=2))
    with pytest.raises(
        ValueError, match=r"it holds the memory of the hooks \[\], this run has \['0 Latest', '1 Every'\]"
    ):
        checkpoint.load(saved, tiny(), hooks=averages())
    with_memory = checkpoint.save(saved.parent, tiny(), hooks=[Latest(3)])
    with pytest.raises(ValueError, match="the saved window has count 3 and this one 4: give count=3, or start anew"):
        checkpoint.load(with_memory, tiny(), hooks=[Latest(4)])


def test_a_memory_that_cannot_be_kept_is_an_error_at_once(tiny: Build, tmp_path: Path) -> None:
    class Foreign:
        def __call__(self, run: Run) -> None: ...

        def state_dict(self) -> dict[str, Any]:
            return {"file": tmp_path}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    with pytest.raises(TypeError, match="a checkpoint cannot hold PosixPath"):
        checkpoint.save(tmp_path / "checkpoint", tiny(), hooks=[Foreign()])
    assert checkpoint.every(tmp_path / "checkpoint") == []
    shutil.rmtree(tmp_path / "checkpoint")
