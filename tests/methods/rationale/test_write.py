"""What a student says, against passes of its own for each option and token, without a cache and without padding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
)

from shoestring.data.tokenizers import byte_tokenizer
from shoestring.methods.rationale import together
from shoestring.methods.rationale import write as writing
from shoestring.methods.rationale.encode import Coder, batch, family
from shoestring.methods.rationale.write import NotFiniteError, likelihoods, write
from shoestring.models import presets, seq2seq

END = 256
BART = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}  # its encoder has learnt positions
NAMES = ["t5", "bart", "neox", "gpt2", "gemma"]
OPTIONS = ["yes", "no", "it is neither", ""]
TEXTS = ["Is it?", "A much longer question, is it not, of which the end counts?", "?", "naïve 東京"]


def small(name: str) -> nn.Module:
    """With weights large enough that what it says hangs on all that it reads."""
    if name == "t5":
        shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
        model = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **shape), 0)
    elif name == "bart":
        sides = {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in BART.items()}
        special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), END)
        torch.manual_seed(0)
        told = {"vocab_size": 257, "d_model": 32, "max_position_embeddings": 128, "forced_eos_token_id": None}
        model = BartForConditionalGeneration(BartConfig(**told, **sides, **special, dropout=0.0))
    elif name == "neox":
        shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48}
        model = presets.build(presets.configuration("neox-tiny", 257, 128, **shape), 0)
    elif name == "gemma":  # every second layer looks back a few tokens alone
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
        layers = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=257, eos_token_id=END, **shape, **heads, **layers))
    else:
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 2}
        model = presets.build(presets.configuration("gpt2-small", 257, 128, **shape), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3.0 if name == "t5" else 8.0)
    return model


MODELS = {name: small(name) for name in NAMES}


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return MODELS[request.param]


def coder(model: nn.Module) -> Coder:
    return Coder(byte_tokenizer(), family(model), 80, 24)


@torch.no_grad()
def slowly(model: nn.Module, source: list[int], target: list[int]) -> float:
    """One option in a pass of its own; in evaluation mode, as what is asked is."""
    model.eval()
    if family(model) == "encoder-decoder":
        logits = model(input_ids=torch.tensor([source]), labels=torch.tensor([target]), use_cache=False).logits[0]
    else:
        logits = model(input_ids=torch.tensor([[*source, *target]]), use_cache=False).logits[0, len(source) - 1 : -1]
    chances = logits.double().log_softmax(dim=-1)
    return sum(chances[place, token].item() for place, token in enumerate(target))


@torch.no_grad()
def slowly_written(model: nn.Module, source: list[int], tokens: int) -> list[int]:
    """The likeliest token, over and over, all read again each time."""
    model.eval()
    found: list[int] = []
    while len(found) < tokens and END not in found:
        if family(model) == "encoder-decoder":
            started = torch.tensor([[END, *found]])
            logits = model(input_ids=torch.tensor([source]), decoder_input_ids=started, use_cache=False).logits
        else:
            logits = model(input_ids=torch.tensor([[*source, *found]]), use_cache=False).logits
        found.append(int(logits[0, -1].argmax()))
    return found


# by hand


def test_a_model_that_knows_nothing_finds_each_token_as_likely(model: nn.Module) -> None:
    one = coder(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        found = likelihoods(model, one, one.sources(["x", "yy"]), [one.targets(["a", "abc"]), one.targets(["ab"])])
        assert found == [
            [pytest.approx(-2 * math.log(257)), pytest.approx(-4 * math.log(257))],
            [pytest.approx(-3 * math.log(257))],
        ]
        assert write(model, one, one.sources(["x"]), 3) == [byte_tokenizer().decode([0, 0, 0])]
    finally:
        model.load_state_dict(before)


def test_nothing_to_say(model: nn.Module) -> None:
    assert likelihoods(model, coder(model), [], []) == []
    assert write(model, coder(model), [], 4) == []


# against a slow reference


def test_likelihoods_are_those_of_passes_of_their_own(model: nn.Module) -> None:
    one = coder(model)
    sources = one.sources(TEXTS)
    options = [one.targets(OPTIONS), one.targets(OPTIONS[:1]), one.targets(OPTIONS[::-1]), one.targets(OPTIONS[2:])]
    found = likelihoods(model, one, sources, options)
    for source, targets, line in zip(sources, options, found, strict=True):
        assert line == pytest.approx([slowly(model, source, target) for target in targets], rel=1e-5, abs=1e-5)
    assert len({round(value, 3) for line in found for value in line}) > 6, "it hangs on what is read"


def test_an_option_of_nothing_but_its_end(model: nn.Module) -> None:
    one = coder(model)
    sources = one.sources(TEXTS)
    found = likelihoods(model, one, sources, [[[END]]] * len(sources))
    for source, (value,) in zip(sources, found, strict=True):
        assert value == pytest.approx(slowly(model, source, [END]), rel=1e-5, abs=1e-5)


def test_likelihoods_are_what_training_lowers(model: nn.Module) -> None:
    from shoestring.methods.rationale.lessons import Lesson
    from shoestring.methods.rationale.loss import written

    one = coder(model)
    pairs = one.pairs([Lesson(text, "maybe") for text in TEXTS])
    found = likelihoods(model, one, [pair.source for pair in pairs], [[pair.target] for pair in pairs])
    total = written(model, batch(pairs, one.family, one.end)).total.item()
    assert -sum(value for (value,) in found) == pytest.approx(total, rel=1e-5)


def test_penalties_that_a_models_folder_asks_for_change_nothing(model: nn.Module) -> None:
    sources, own = coder(model).sources(TEXTS), model.generation_config
    before = write(model, coder(model), sources, 12)
    model.generation_config = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1, num_beams=3)
    try:
        assert write(model, coder(model), sources, 12) == before
        assert model.generation_config.num_beams == 3
    finally:
        model.generation_config = own


@pytest.mark.parametrize("tokens", [1, 5, 16])
def test_what_is_written_is_the_likeliest_token_over_and_over(
    model: nn.Module, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_ROUND", tokens)
    one = coder(model)
    sources = one.sources(TEXTS)
    found = write(model, one, sources, 12)
    expected = [slowly_written(model, source, 12) for source in sources]
    assert found == [one.text(ids) for ids in expected]
    assert len({*map(tuple, expected)}) > 1, "it hangs on what is read"


@pytest.mark.parametrize("tokens", [1, 5, 16])
def test_writing_ends_with_the_end_of_text(model: nn.Module, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose bias is raised until it comes by itself, at differing places."""
    monkeypatch.setattr(writing, "_ROUND", tokens)
    one, head = coder(model), model.get_output_embeddings()
    sources = one.sources(TEXTS)
    before = head.weight.detach().clone()
    ended = set()
    try:
        for other in range(1, 40):
            with torch.no_grad():
                head.weight.copy_(before)
                head.weight[END] = before[other] * 1.5
            expected = [slowly_written(model, source, 12) for source in sources]
            assert write(model, one, sources, 12) == [one.text(ids) for ids in expected]
            ended |= {len(ids) for ids in expected if ids[-1] == END}
            if len(ended) > 2:
                break
    finally:
        with torch.no_grad():
            head.weight.copy_(before)
    assert ended


def test_rows_that_have_ended_are_computed_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_ROUND", 2)
    model, rows = small("neox"), []
    one = coder(model)
    model.register_forward_pre_hook(lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    head, sources = model.get_output_embeddings(), one.sources(TEXTS)
    before = head.weight.detach().clone()
    for other in range(1, 40):  # until some end at once, and not all
        with torch.no_grad():
            head.weight[END] = before[other] * 1.5
        lengths = [len(slowly_written(model, source, 8)) for source in sources]
        if min(lengths) <= 2 < 8 == max(lengths):
            break
    rows.clear()
    write(model, one, sources, 8)
    assert rows == [sum(length > step - step % 2 for length in lengths) for step in range(8)]
    assert rows[-1] < 4


# property


@settings(max_examples=10)
@given(
    st.lists(
        st.tuples(st.integers(1, 30), st.lists(st.integers(0, 5), min_size=1, max_size=4)), min_size=1, max_size=7
    ),
    st.sampled_from(NAMES),
    st.integers(16, 400),
    st.integers(257, 257 * 30),
)
def test_however_rows_are_put_together(rows: list[tuple[int, list[int]]], name: str, most: int, logits: int) -> None:
    model, one = MODELS[name], coder(MODELS[name])
    sources = one.sources(["abcdefghij klmnopqrst uvwxyz"[:size] for size, _ in rows])
    options = [one.targets(["maybe"[:size] for size in sizes]) for _, sizes in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "_TOKENS", most)
        patch.setattr(together, "_LOGITS", logits)
        found = likelihoods(model, one, sources, options)
        said = write(model, one, sources, 3)
    for place, (source, targets) in enumerate(zip(sources, options, strict=True)):
        assert found[place] == pytest.approx(likelihoods(model, one, [source], [targets])[0], rel=1e-5, abs=1e-4)
        assert len(found[place]) == len(targets)
        for size in {*map(len, targets)}:
            same = [value for value, target in zip(found[place], targets, strict=True) if len(target) == size]
            assert same == pytest.approx([same[0]] * len(same), rel=1e-6), "the same option is as likely"
    assert said == [write(model, one, [source], 3)[0] for source in sources]


def test_logits_that_fill_the_memory_are_not_made_at_once(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 257 tokens, no more than forty rows of them: one source's twelve options of eleven go in four parts."""
    one, made = coder(model), []
    sources, options = one.sources(["Is it?"] * 3), [one.targets([f"option {n:03}" for n in range(12)])] * 3
    whole = likelihoods(model, one, sources, options)
    monkeypatch.setattr(together, "_LOGITS", 257 * 40)
    hook = model.get_output_embeddings().register_forward_hook(lambda *held: made.append(held[2].numel()))
    try:
        found = likelihoods(model, one, sources, options)
    finally:
        hook.remove()
    assert max(made) <= 257 * 40
    for line, expected in zip(found, whole, strict=True):
        assert line == pytest.approx(expected, rel=1e-5)


def test_a_model_that_overflowed_is_refused(model: nn.Module) -> None:
    one, head = coder(model), model.get_output_embeddings()
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight[5] = float("nan")
    try:
        with pytest.raises(
            NotFiniteError, match=r"log-likelihoods are .*nan.*weights or activations overflowed$"
        ) as told:
            likelihoods(model, one, one.sources(["x"]), [one.targets(["a"])])
        assert isinstance(told.value, ValueError)
    finally:
        with torch.no_grad():
            head.weight.copy_(before)


def test_the_mode_and_the_gradients_are_left_as_they_were(model: nn.Module) -> None:
    one = coder(model)
    for training in (True, False):
        model.train(training)
        likelihoods(model, one, one.sources(["x"]), [one.targets(["a", "b"])])
        write(model, one, one.sources(["x"]), 2)
        assert model.training is training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_dropout_is_off_while_it_says_something() -> None:
    shape = {"num_layers": 1, "d_model": 16, "num_heads": 2, "d_kv": 8, "d_ff": 16, "dropout_rate": 0.5}
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **shape), 0)
    one = coder(model)
    told = one.sources(TEXTS), [one.targets(OPTIONS)] * len(TEXTS)
    assert likelihoods(model, one, *told) == likelihoods(model, one, *told)
    assert write(model, one, told[0], 5) == write(model, one, told[0], 5)


def test_inside_what_compiles(model: nn.Module) -> None:
    one = coder(model)
    whole = torch.compile(model, backend="eager")
    sources, options = one.sources(TEXTS), [one.targets(OPTIONS)] * len(TEXTS)
    assert likelihoods(whole, one, sources, options) == likelihoods(model, one, sources, options)
    assert write(whole, one, sources, 3) == write(model, one, sources, 3)
