"""LoRA: by hand, merged and apart, frozen and trained, to disk and back, and through peft's own reader."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.models import lora, presets, seq2seq

peft = pytest.importorskip("peft")
NAMES = ["neox-tiny", "gpt2-small", "t5-tiny"]


def model(name: str, seed: int = 0) -> Any:
    if name.startswith("t5"):
        return seq2seq.build(seq2seq.configuration(name, 60), seed)
    small = {"n_embd": 48, "n_layer": 2, "n_head": 4} if name == "gpt2-small" else {}
    return presets.build(presets.configuration(name, 60, 24, **small), seed)


def answer(one: Any) -> torch.Tensor:
    ids = torch.arange(12).reshape(2, 6)
    decoder = {"decoder_input_ids": ids[:, :4]} if one.config.is_encoder_decoder else {}
    logits: torch.Tensor = one(input_ids=ids, use_cache=False, **decoder).logits
    return logits


def trained(name: str, steps: int = 3, **options: Any) -> Any:
    """A model whose factors have moved."""
    one = model(name)
    lora.add(one, 4, 8.0, **options)
    optimizer = torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        answer(one).logsumexp(-1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return one


# by hand


def test_a_layer_adds_its_factors_product() -> None:
    one = model("neox-tiny")
    names = lora.add(one, 2, 6.0, match="*.0.attention.dense")
    assert names == ["gpt_neox.layers.0.attention.dense"]
    layer = one.get_submodule(names[0])
    first, second = torch.randn(2, 64), torch.randn(64, 2)
    lora.load_state(one, {f"{names[0]}.lora_A.weight": first, f"{names[0]}.lora_B.weight": second})
    x = torch.randn(5, 64)
    expected = x @ layer.base_layer.weight.T + layer.base_layer.bias + 3.0 * (x @ first.T) @ second.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    plain = lora.merged(one).get_submodule(names[0])
    torch.testing.assert_close(plain.weight, layer.base_layer.weight + 3.0 * second @ first)


@pytest.mark.parametrize(
    ("name", "layers", "leaves"),
    [
        ("neox-tiny", 8, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
        ("gpt2-small", 8, {"c_attn", "c_proj", "c_fc"}),
        ("t5-tiny", 2 * 7 + 2 * 11, {"q", "k", "v", "o", "wi_0", "wi_1", "wo"}),
    ],
)
def test_all_linear_layers_but_the_head_are_the_default(name: str, layers: int, leaves: set[str]) -> None:
    one = model(name)
    before = type(one)
    names = lora.add(one, 2, 4.0)
    assert len(names) == layers
    assert {found.rpartition(".")[2] for found in names} == leaves
    assert type(one) is before
    trainable = {found for found, parameter in one.named_parameters() if parameter.requires_grad}
    factors = {f"{found}.lora_{side}.default.weight" for found in names for side in "AB"}
    assert trainable == factors


# against a reference: the model without adapters, and peft's own reader


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_as_the_model_was_and_only_the_factors_move(name: str) -> None:
    plain, one = model(name), trained(name, steps=0)
    with torch.no_grad():  # attention whose bias is frozen takes another way than one whose bias is not
        assert torch.equal(answer(one), answer(plain))
    moved = trained(name)
    kept = {found.replace(".base_layer", ""): tensor for found, tensor in moved.state_dict().items()}
    assert all(torch.equal(kept[found], tensor) for found, tensor in plain.state_dict().items())
    before, after = lora.state(one), lora.state(moved)
    assert all(not torch.equal(before[found], after[found]) for found in before)
    assert (answer(moved) - answer(plain)).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_merged_answers_as_apart_and_is_plain(name: str) -> None:
    one = trained(name)
    plain = lora.merged(one)
    torch.testing.assert_close(answer(plain), answer(one), rtol=1e-5, atol=1e-5)
    assert plain.state_dict().keys() == model(name).state_dict().keys()
    assert all(parameter.requires_grad for parameter in plain.parameters())
    assert type(plain) is type(one)
    assert not any("peft" in type(module).__module__ for module in plain.modules())
    # what was merged is another model
    assert lora.state(one).keys()
    if name == "t5-tiny":
        assert plain.encoder.embed_tokens.weight is plain.shared.weight is not plain.lm_head.weight


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("name", NAMES)
def test_peft_itself_reads_what_is_saved(name: str, tmp_path: Path) -> None:
    one = trained(name)
    folder = lora.save(one, tmp_path / "adapters")
    theirs = peft.PeftModel.from_pretrained(model(name), folder)
    assert torch.equal(answer(theirs.eval()), answer(one.eval()))
    theirs.save_pretrained(tmp_path / "theirs")
    back = model(name).eval()
    assert lora.load(back, tmp_path / "theirs")
    assert torch.equal(answer(back), answer(one))


def test_a_merged_model_is_saved_and_loaded_as_any(tmp_path: Path) -> None:
    from shoestring.data.tokenizers import byte_tokenizer
    from shoestring.models import pretrained

    one = presets.build(presets.configuration("neox-tiny", 257, 24), 0)
    lora.add(one, 2, 4.0)
    lora.load_state(one, {name: torch.full_like(tensor, 0.01) for name, tensor in lora.state(one).items()})
    with pytest.raises(ValueError, match=r"the model has adapters beside its weights: save `lora\.merged\(model\)`"):
        pretrained.save(one, byte_tokenizer(), tmp_path / "apart")
    plain = lora.merged(one)
    loaded, _ = pretrained.load(pretrained.save(plain, byte_tokenizer(), tmp_path / "merged"))
    assert torch.equal(answer(loaded), answer(plain.eval()))


# property


def test_same_seed_same_factors_and_the_global_generator_is_untouched() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    states = []
    for seed in (3, 3, 4):
        one = model("t5-tiny")
        lora.add(one, 2, 4.0, seed=seed)
        states.append(lora.state(one))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_a_state_is_a_copy_and_goes_into_another_model() -> None:
    one, other = trained("t5-tiny"), trained("t5-tiny", steps=0)
    kept = lora.state(one)
    lora.load_state(other, kept)
    assert torch.equal(answer(other), answer(one))
    next(iter(kept.values())).zero_()
    assert torch.equal(answer(other), answer(one))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept_and_dropout_is_of_the_factors(training: bool) -> None:
    one = model("neox-tiny").train(training)
    lora.add(one, 4, 8.0, dropout=0.5)
    lora.load_state(one, {name: torch.ones_like(tensor) for name, tensor in lora.state(one).items()})
    assert all(module.training is training for module in one.modules())
    assert torch.equal(answer(one), answer(one)) is not training


@pytest.mark.parametrize("name", ["neox-tiny", "t5-tiny"])
def test_a_resumed_run_is_the_run_that_never_stopped(name: str, tmp_path: Path) -> None:
    from shoestring.cost import Ledger
    from shoestring.train import checkpoint, optim
    from shoestring.train.loop import train
    from shoestring.train.objectives import next_token, sequence_to_sequence
    from shoestring.types import Run

    objective = sequence_to_sequence if name == "t5-tiny" else next_token

    def begin() -> Run:
        torch.manual_seed(5)  # dropout draws from torch's own generator
        one = model(name)
        lora.add(one, 2, 4.0, dropout=0.1)
        return Run(one, optim.adamw(one, 0.01), Counting())

    ledgers = [Ledger(), Ledger()]
    whole = train(begin(), objective, until=6, ledger=ledgers[0])
    half = train(begin(), objective, until=3, ledger=ledgers[1])
    saved = checkpoint.save(tmp_path, half, ledger=ledgers[1])
    resumed = checkpoint.load(saved, begin(), ledger=ledgers[1])
    resumed = train(resumed, objective, until=6, ledger=ledgers[1])
    left, right = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert whole.loss == resumed.loss
    assert ledgers[0].total().flops == ledgers[1].total().flops > 0


class Counting:
    """An endless stream of made-up batches that knows where it is."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Any:
        while True:
            generator = torch.Generator().manual_seed(self.drawn)
            self.drawn += 1
            yield {key: torch.randint(0, 60, (2, 8), generator=generator) for key in ("input_ids", "labels")}

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drawn = state["drawn"]


# misuse


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_values_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected rank >= 1, alpha > 0 and 0 <= dropout < 1"):
        lora.add(model("neox-tiny"), **{"rank": 2, "alpha": 4.0} | wrong)


def test_what_matches_nothing_or_is_there_already_is_refused() -> None:
    one = model("neox-tiny")
    with pytest.raises(
        ValueError, match=r"'\*\.q' matches no linear layer of GPTNeoXForCausalLM: they are such as gpt"
    ):
        lora.add(one, 2, 4.0, match="*.q")
    with pytest.raises(ValueError, match=r"the GPTNeoXForCausalLM has no adapters: add them first"):
        lora.state(one)
    with pytest.raises(ValueError, match=r"has no adapters"):
        lora.merged(one)
    lora.add(one, 2, 4.0)
    with pytest.raises(ValueError, match="has adapters already"):
        lora.add(one, 2, 4.0)


def test_factors_that_do_not_fit_are_named() -> None:
    one = trained("neox-tiny", match="*.dense")
    kept = lora.state(one)
    name = sorted(kept)[0]
    with pytest.raises(ValueError, match=rf"the factor {name} is absent"):
        lora.load_state(one, {key: tensor for key, tensor in kept.items() if key != name})
    with pytest.raises(ValueError, match=r"the factor a is none of the model"):
        lora.load_state(one, kept | {"a": kept[name]})
    with pytest.raises(ValueError, match=rf"{name} is \(4, 1\), the model's \(4, 64\)"):
        lora.load_state(one, kept | {name: torch.zeros(4, 1)})
    assert torch.equal(lora.state(one)[name], kept[name])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lora.save(trained("neox-tiny", match="*.dense"), tmp_path / "adapters")


def refused(folder: Path, name: str = "neox-tiny") -> str:
    one = model(name)
    with pytest.raises(ValueError) as refusal:
        lora.load(one, folder)
    assert "\n" not in str(refusal.value)
    assert one.state_dict().keys() == model(name).state_dict().keys()
    return str(refusal.value)


def test_adapters_that_are_torn_or_of_another_model_are_refused(folder: Path) -> None:
    assert "the adapter does not fit: " in refused(folder, "t5-tiny")
    (folder / "adapter_model.safetensors").write_bytes(b"torn")
    assert "adapter_model.safetensors: 4 bytes, the manifest says" in refused(folder)
    (folder / "manifest.json").unlink()
    assert "adapter_model.safetensors is absent or torn" in refused(folder)
    (folder / "adapter_config.json").unlink()
    assert "adapter_config.json is absent: expected the settings of an adapter" in refused(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3': expected a plain LoRA"),
        ({"use_dora": True}, "use_dora is True: expected a plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is ['lm_head']"),
        ({"r": 3}, "lora_A.weight is (4, 64), the model's is (3, 64)"),
        ({"r": None}, "does not fit"),
    ],
)
def test_settings_that_are_not_of_these_factors_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "manifest.json").unlink()
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert message in refused(folder)


def test_a_folder_with_other_files_is_not_replaced(folder: Path) -> None:
    one = trained("neox-tiny")
    lora.save(one, folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"adapters also holds notes\.txt: name a folder for the adapters alone"):
        lora.save(one, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["adapters"]


def test_the_package_is_asked_for_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModuleNotFoundError, match=r"LoRA needs peft: pip install 'shoestring\[rationale\]'"):
        lora.add(model("neox-tiny"), 2, 4.0)
