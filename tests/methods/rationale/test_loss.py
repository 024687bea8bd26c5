"""The two-task loss: by hand, against the losses of Hugging Face models, cut into parts, and what it costs."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    Qwen3Config,
)

from shoestring.cost import flops
from shoestring.data.tokenizers import byte_tokenizer
from shoestring.methods.rationale.encode import IGNORED, Coder, Family, Pair, batch, family
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import LABEL, RATIONALE, Wording, lessons
from shoestring.methods.rationale.loss import scaled, two_task_loss, written
from shoestring.methods.rationale.stream import Lessons, Mode
from shoestring.models import presets, seq2seq
from shoestring.train import optim
from shoestring.train.loop import train
from shoestring.types import Batch, Run

END = 256
SHAPE = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
FAMILIES: list[Family] = ["encoder-decoder", "decoder"]


def small(kind: Family, seed: int = 0) -> nn.Module:
    if kind == "encoder-decoder":
        shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
        return seq2seq.build(seq2seq.configuration("t5-tiny", 257, **shape), seed)
    shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48}
    return presets.build(presets.configuration("neox-tiny", 257, 64, **shape), seed)


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return small(request.param)


def pairs(seed: int, longest: int, count: int = 8) -> list[Pair]:
    """Of differing lengths."""
    random = torch.Generator().manual_seed(seed)

    def ids(most: int) -> list[int]:
        size = int(torch.randint(1, most + 1, (), generator=random))
        return torch.randint(0, 256, (size,), generator=random).tolist()

    return [Pair([*ids(9), 10], [*ids(longest), END]) for _ in range(count)]


LESSONS = {LABEL: pairs(0, 2), RATIONALE: pairs(1, 20)}
WEIGHTS = {LABEL: 1.0, RATIONALE: 0.7}


def batches(kind: Family) -> dict[str, Batch]:
    return {task: batch(some, kind, END) for task, some in LESSONS.items()}


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=False))


def close(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.allclose(one, two, rtol=1e-6, atol=1e-9) for one, two in zip(ours, theirs, strict=True))


# by hand


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary_for_each_token(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    found = written(model, batch([Pair([1, 2], [5, END]), Pair([3], [6, 7, 8, END])], family(model), END))
    assert found.total.item() == pytest.approx(6 * math.log(257), rel=1e-6)
    assert found.count == 6
    # the encoder's 2 by 2 and the decoder's 2 by 4; sources and targets in one row, 5 at most
    assert found.tokens == (12 if family(model) == "encoder-decoder" else 10)
    both = two_task_loss(model, batches(family(model)), WEIGHTS)
    assert both.item() == pytest.approx(1.7 * math.log(257), rel=1e-6), "whatever the lengths"


def test_a_label_of_one_token_is_not_drowned_by_a_long_reason(model: nn.Module) -> None:
    kind = family(model)
    label, reason = batch([Pair([1, 2], [END])], kind, END), batch([Pair([3, 2], [7] * 60)], kind, END)
    alone, other = written(model, label), written(model, reason)
    assert (alone.count, other.count) == (1, 60)
    both = two_task_loss(model, {LABEL: label, RATIONALE: reason}, {LABEL: 1.0, RATIONALE: 1.0})
    assert both.item() == pytest.approx(alone.total.item() + other.total.item() / 60, rel=1e-6)
    # one longer reason of the same mean leaves the label its weight: a sum over all tokens would take it away
    ours = gradients(model, both)
    theirs = [
        one + two / 60 for one, two in zip(gradients(model, alone.total), gradients(model, other.total), strict=True)
    ]
    assert all(torch.allclose(one, two, rtol=1e-4, atol=1e-7) for one, two in zip(ours, theirs, strict=True))


# against a reference: the losses that Hugging Face models return themselves


def theirs(model: nn.Module, some: list[Pair]) -> Tensor:
    """The mean over target tokens, by the model itself: of a decoder, of labels that are masked where it reads."""
    if family(model) == "encoder-decoder":
        made = batch(some, "encoder-decoder", END)
        return model(**made).loss
    width = max(len(pair.source) + len(pair.target) for pair in some)
    inputs, labels = torch.full((len(some), width), END), torch.full((len(some), width), IGNORED)
    for row, pair in enumerate(some):
        source, both = len(pair.source), [*pair.source, *pair.target]
        inputs[row, : len(both)] = torch.tensor(both)
        labels[row, source : len(both)] = torch.tensor(pair.target)
    return model(input_ids=inputs, labels=labels, use_cache=False).loss


@pytest.mark.parametrize("weight", [1.0, 0.5, 3.0])
def test_it_is_the_weighted_sum_of_the_models_own_losses(model: nn.Module, weight: float) -> None:
    ours = two_task_loss(model, batches(family(model)), {LABEL: 1.0, RATIONALE: weight})
    expected = theirs(model, LESSONS[LABEL]) + weight * theirs(model, LESSONS[RATIONALE])
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    pairs = zip(gradients(model, ours), gradients(model, expected), strict=True)
    assert all(torch.allclose(one, two, rtol=1e-4, atol=1e-6) for one, two in pairs)


def test_without_a_weight_it_is_the_standard_loss(model: nn.Module) -> None:
    ours = two_task_loss(model, batches(family(model)), {LABEL: 1.0, RATIONALE: 0.0})
    standard = two_task_loss(model, {LABEL: batches(family(model))[LABEL]}, {LABEL: 1.0})
    assert ours.item() == standard.item()
    assert standard.item() == pytest.approx(theirs(model, LESSONS[LABEL]).item(), rel=1e-6)
    pairs = zip(gradients(model, ours), gradients(model, standard), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_halves_that_add_up_to_one_are_half_of_it(model: nn.Module) -> None:
    """The alpha of the paper's code: gradient clipping sees the half, and Adam does not."""
    some = batches(family(model))
    ours = two_task_loss(model, some, {LABEL: 0.5, RATIONALE: 0.5})
    assert 2 * ours.item() == pytest.approx(two_task_loss(model, some, {LABEL: 1.0, RATIONALE: 1.0}).item(), rel=1e-6)


def test_only_what_is_scored_goes_through_the_head() -> None:
    model = small("decoder")
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    for some in LESSONS.values():
        made = batch(some, "decoder", END)
        written(model, made)
        assert math.prod(seen.pop()[:2]) == len(made["scored"]) < made["input_ids"].numel()


CONFIGS = [
    LlamaConfig(**SHAPE, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True),
    Qwen3Config(**SHAPE, num_attention_heads=2, num_key_value_heads=1, head_dim=16),
    Gemma3TextConfig(**SHAPE, num_attention_heads=2, num_key_value_heads=1, head_dim=16, final_logit_softcapping=3.0),
    GPT2Config(vocab_size=257, n_embd=32, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_decoders_of_other_families(config: PretrainedConfig) -> None:
    """Those with a head that is tied to their embedding, and with something after it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    ours = written(model, batch(LESSONS[RATIONALE], "decoder", END))
    assert (ours.total / ours.count).item() == pytest.approx(theirs(model, LESSONS[RATIONALE]).item(), rel=1e-5)


def test_wrapped_models_and_half_precision(model: nn.Module) -> None:
    some = batches(family(model))
    plain = two_task_loss(model, some, WEIGHTS)
    compiled = two_task_loss(torch.compile(model, backend="eager"), some, WEIGHTS)
    assert compiled.item() == pytest.approx(plain.item(), rel=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        half = two_task_loss(model, some, WEIGHTS)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(plain.item(), rel=2e-2)


# property


def test_padding_changes_nothing(model: nn.Module) -> None:
    kind = family(model)
    together = [written(model, batch(some, kind, END)) for some in LESSONS.values()]
    for found, some in zip(together, LESSONS.values(), strict=True):
        alone = [written(model, batch([pair], kind, END)) for pair in some]
        assert found.total.item() == pytest.approx(sum(one.total.item() for one in alone), rel=1e-6)
        assert found.count == sum(one.count for one in alone) == sum(len(pair.target) for pair in some)
    made = batch(LESSONS[LABEL], kind, END)
    for filling in (0, 77):
        other = batch(LESSONS[LABEL], kind, filling)
        other = {**made, "input_ids": other["input_ids"]}
        assert written(model, other).total.item() == pytest.approx(together[0].total.item(), rel=1e-6)


def stream(kind: Family, parts: int = 1, rank: int = 0, world: int = 1, mode: Mode = "mixed") -> Lessons:
    shares = {"parts": parts, "rank": rank, "world": world}
    return Lessons(LESSONS, WEIGHTS, 8, family=kind, pad=END, seed=3, mode=mode, **shares)


@pytest.mark.parametrize("mode", ["mixed", "alternating"])
@pytest.mark.parametrize(("parts", "world"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (4, 2)])
def test_micro_batches_add_up_to_the_whole(model: nn.Module, parts: int, world: int, mode: Mode) -> None:
    """As `train` does: gradients add up within a process and are means over processes, divided by targets a process."""
    kind, model = family(model), model.double()
    whole = stream(kind, mode=mode)
    tasks = ["label", "rationale"] if mode == "mixed" else ["label"]
    expected = two_task_loss(model, dict(zip(tasks, islice(whole, whole.micro_batches), strict=True)), WEIGHTS)
    loss, sums, targets = 0.0, [torch.zeros_like(parameter) for parameter in model.parameters()], 0
    for rank in range(world):
        cut = stream(kind, parts, rank, world, mode)
        assert cut.micro_batches == parts * len(tasks)
        for made in islice(cut, cut.micro_batches):
            found = scaled(model, made)
            loss, targets = loss + found.total.item(), targets + found.count
            for total, gradient in zip(sums, gradients(model, found.total), strict=True):
                total += gradient / world
    assert targets == world, "each process counts one"
    assert loss / targets == pytest.approx(expected.item(), rel=1e-6)
    assert close([total * world / targets for total in sums], gradients(model, expected))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_of_train_is_a_step_on_the_two_task_loss(model: nn.Module, parts: int) -> None:
    kind, cut = family(model), stream(family(model), parts)
    whole = stream(kind)
    by_hand = small(kind)
    loss = two_task_loss(by_hand, dict(zip(LESSONS, islice(whole, 2), strict=True)), WEIGHTS)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 1.0)
    optimizer.step()
    run = Run(model, torch.optim.SGD(model.parameters(), lr=0.1), cut)
    train(run, scaled, until=1, accumulate=cut.micro_batches)
    assert run.loss == pytest.approx(loss.item(), rel=1e-6)
    for one, two in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-6)


# what it costs


@pytest.mark.parametrize("parts", [1, 2])
def test_flops_by_formula_are_those_counted(model: nn.Module, parts: int) -> None:
    step_flops, cut = flops.StepFlops(model), stream(family(model), parts)
    for made in islice(cut, 3 * cut.micro_batches):
        counted = flops.count(lambda made=made: scaled(model, made).total.backward())
        assert step_flops(made) == counted, "by formula: nothing was counted before"


# alone


@pytest.mark.parametrize("kind", FAMILIES)
def test_in_a_bare_loop(kind: Family) -> None:
    examples = [Example(f"{one}+{two}", str(one + two), rationale=f"{one} and {two}") for one in "12" for two in "34"]
    made = lessons(examples, "two-task", Wording())
    coder = Coder(byte_tokenizer(), kind, 64, 16)
    some = {task: batch(coder.pairs(pairs), kind, coder.end) for task, pairs in made.items()}
    model = small(kind)
    optimizer = optim.adamw(model, 1e-2)
    losses = []
    for _ in range(60):
        loss = two_task_loss(model, some, {LABEL: 1.0, RATIONALE: 1.0})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
