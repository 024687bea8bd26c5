import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LongT5Config,
    LongT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from shoestring.cost import flops
from shoestring.cost.foretold import Foretold, Sizes
from shoestring.models import lora, presets

SHAPES = [(2, 9), (3, 14), (2, 17), (4, 11), (1, 12), (3, 8), (2, 13), (4, 16)]  # rows, tokens


def gemma() -> nn.Module:
    config = Gemma3TextConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
    )
    model = Gemma3ForCausalLM(config)
    lora.add(model, 2, 4.0)
    return model


def llama() -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return presets.build(LlamaConfig(vocab_size=97, **sizes), seed=0)


def t5() -> nn.Module:
    """Whose dropout keeps the formula from fitting."""
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(vocab_size=97, dropout_rate=0.1, decoder_start_token_id=0, **sizes))


def batch(model: nn.Module, rows: int, length: int, target: int) -> dict[str, Tensor]:
    ids = torch.arange(rows * length).reshape(rows, length) % 97
    if isinstance(model, T5ForConditionalGeneration):
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, :target].contiguous()}
    columns = torch.arange(length - target, length)
    return {"input_ids": ids, "labels": ids, "scored": (torch.arange(rows)[:, None] * length + columns).flatten()}


def step(model: nn.Module, given: dict[str, Tensor]) -> None:
    """The body on everything, the head on what is scored."""
    if isinstance(model, T5ForConditionalGeneration):
        model(**given).loss.backward()
        return
    columns = given["scored"][: len(given["scored"]) // len(given["input_ids"])]
    output: Any = model(input_ids=given["input_ids"], use_cache=False, logits_to_keep=columns)
    output.logits.logsumexp(-1).sum().backward()


def counted(model: nn.Module, step_flops: flops.StepFlops, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often there was counting over 24 batches of many shapes."""
    times = []
    real = flops.counting

    def seen() -> Any:
        times.append(1)
        return real()

    with monkeypatch.context() as patch:
        patch.setattr(flops, "counting", seen)
        for place, (rows, length) in enumerate(SHAPES * 3):
            given = batch(model, rows, length + place % 3, 3 + place % 4)
            with step_flops.counting(given):
                step(model, given)
    return len(times)


@pytest.mark.parametrize("make", [gemma, llama, t5])
def test_other_shapes_are_foretold_to_the_flop(make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    step_flops = flops.StepFlops(model)
    assert counted(model, step_flops, monkeypatch) < 16 < 3 * len(SHAPES)
    assert counted(model, step_flops, monkeypatch) == 0, "all is known"
    for rows, length, target in ((2, 10, 4), (3, 13, 4), (1, 15, 3)):
        given = batch(model, rows, length, target)
        assert step_flops(given) == flops.count(lambda given=given: step(model, given))


@pytest.mark.parametrize(("rows", "length", "target"), [(2, 30, 4), (2, 7, 4), (5, 12, 4), (4, 12, 9)])
def test_beyond_what_was_counted_it_is_counted(
    rows: int, length: int, target: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llama()
    step_flops = flops.StepFlops(model)
    counted(model, step_flops, monkeypatch)
    with pytest.raises(KeyError):
        step_flops(batch(model, rows, length, target))


def test_a_model_that_pads_to_blocks_is_not_foretold_into_the_next() -> None:
    """LongT5's local attention: within a block of 16 its cost grows by none but the terms, and jumps at its end."""
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 1, "num_heads": 2, "local_radius": 15}
    model = LongT5ForConditionalGeneration(LongT5Config(vocab_size=97, decoder_start_token_id=0, **sizes))
    step_flops = flops.StepFlops(model)
    for place, length in enumerate([*range(17, 32), 33, 20, 40, 25, 60, 35]):
        ids = torch.arange(2 * length).reshape(2, length) % 97
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, : 3 + place % 4].clone()}
        with step_flops.counting(given):
            model(**given).loss.backward()
        assert step_flops(given) == flops.count(lambda given=given: model(**given).loss.backward())


def test_what_is_frozen_later_is_counted_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    step_flops = flops.StepFlops(model)
    counted(model, step_flops, monkeypatch)
    whole = step_flops(batch(model, 2, 10, 5))
    model.model.embed_tokens.requires_grad_(False)
    model.model.layers[0].requires_grad_(False)
    with pytest.raises(KeyError):
        step_flops(batch(model, 2, 10, 5))
    counted(model, step_flops, monkeypatch)
    assert step_flops(batch(model, 2, 10, 5)) < whole


def test_other_keys_are_counted_shape_by_shape() -> None:
    model = llama()
    step_flops = flops.StepFlops(model)
    for length in range(8, 30):
        given = {"input_ids": torch.zeros(1, length, dtype=torch.long), "position_ids": torch.arange(length)[None]}
        with pytest.raises(KeyError):
            step_flops(given)
        with step_flops.counting(given):
            model(**given, use_cache=False).logits.sum().backward()
        assert step_flops(given) > 0


# the learning itself

sizes = st.builds(Sizes, st.integers(1, 40), st.integers(1, 700), st.integers(0, 200), st.integers(0, 3000))


def polynomial(one: Sizes, numbers: list[int]) -> int:
    return int(sum(int(term) * number for term, number in zip(one.terms(), numbers, strict=True)))


@settings(deadline=None)
@given(
    st.lists(sizes, min_size=18, max_size=30, unique=True), st.lists(st.integers(0, 10**8), min_size=10, max_size=10)
)
def test_what_is_told_of_a_polynomial_is_right(batches: list[Sizes], numbers: list[int]) -> None:
    foretold = Foretold()
    for one in batches:
        told = foretold(one)
        assert told is None or told == pytest.approx(polynomial(one, numbers), rel=1e-8)
        foretold.learn(one, polynomial(one, numbers))


@pytest.mark.parametrize("seed", range(5))
def test_a_polynomial_of_batches_unlike_each_other_is_foretold(seed: int) -> None:
    drawn = random.Random(seed)
    numbers = [drawn.randint(0, 10**8) for _ in range(10)]
    batches = [
        Sizes(drawn.randint(1, 40), drawn.randint(1, 700), drawn.randint(0, 200), drawn.randint(0, 3000))
        for _ in range(13)
    ]
    foretold = Foretold()
    for one in batches[:-1]:
        foretold.learn(one, polynomial(one, numbers))
    assert foretold(batches[0]) is None, "ten terms, and only two counts were foretold"
    foretold.learn(batches[-1], polynomial(batches[-1], numbers))
    assert foretold(batches[0]) == pytest.approx(polynomial(batches[0], numbers), rel=1e-8)


def test_what_is_no_polynomial_is_never_foretold() -> None:
    foretold = Foretold()
    for length in range(1, 60):
        assert foretold(Sizes(1, length, 0, 0)) is None
        foretold.learn(Sizes(1, length, 0, 0), length**3 + 1)


def test_once_wrong_it_is_not_relied_on_again() -> None:
    foretold = Foretold()
    for length in range(1, 10):
        foretold.learn(Sizes(1, length, 0, 0), 7 * length)
    assert foretold(Sizes(1, 8, 0, 0)) == 56
    foretold.learn(Sizes(1, 30, 0, 0), 7 * 30 + 1)
    assert foretold(Sizes(1, 8, 0, 0)) is None


@pytest.mark.parametrize(
    "unlike",
    [{}, {"input_ids": torch.zeros(3)}, {"input_ids": torch.zeros(3, 4), "labels": torch.zeros(3)}],
    ids=["nothing", "one row of ids", "a label a row"],
)
def test_other_batches_have_no_sizes(unlike: dict[str, Tensor]) -> None:
    assert Sizes.of(unlike) is None
