"""The loop: step by step what ten plain lines do, and what it charges, refuses and leaves alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring import runtime
from shoestring.cost import Ledger, flops
from shoestring.cost.flops import StepFlops, count, formula
from shoestring.train import optim
from shoestring.train.loop import DivergedError, train
from shoestring.train.objectives import next_token
from shoestring.types import Batch, Loss, Run

Build = Callable[..., Run]


class Listed:
    """A stream of given batches, over and over."""

    def __init__(self, *batches: Batch, endless: bool = True) -> None:
        self.batches, self.endless, self.place = batches, endless, 0

    def __iter__(self) -> Iterator[Batch]:
        while self.endless or self.place < len(self.batches):
            self.place += 1
            yield self.batches[(self.place - 1) % len(self.batches)]

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def losses(run: Run, until: int, **rest: Any) -> list[float]:
    """The loss after each step."""
    seen: list[float] = []
    train(run, next_token, until=until, hooks=[*rest.pop("hooks", ()), lambda run: seen.append(run.loss)], **rest)
    return seen


def plain(run: Run, steps: int, clip: float | None = 1.0, schedule: optim.Schedule | None = None) -> list[float]:
    """A bare PyTorch loop."""
    model, batches, seen = run.model, iter(run.batches), []
    optimizer = torch.optim.AdamW(run.optimizer.param_groups, fused=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (schedule(step) if schedule else 1)
        ids = next(batches)["input_ids"]
        logits = model(input_ids=ids).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        seen.append(loss.item())
    return seen


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def line(slope: float = 0.0, rate: float = 0.5) -> Run:
    """Fit y = slope x by plain gradient descent."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, slope)
    return Run(model, torch.optim.SGD(model.parameters(), lr=rate), Listed())


def squares(model: nn.Module, batch: Batch) -> Loss:
    error = model(batch["x"]) - batch["y"]
    return Loss(error.square().sum(), error.numel(), 2 * error.numel())


def points(*pairs: tuple[float, float]) -> Batch:
    return {"x": torch.tensor([[x] for x, _ in pairs]), "y": torch.tensor([[y] for _, y in pairs])}


# by hand


def test_two_steps_of_gradient_descent() -> None:
    run = line()
    run.batches = Listed(points((1.0, 1.0)))
    seen: list[tuple[int, float, float]] = []
    hooks = [lambda run: seen.append((run.step, run.loss, run.model.weight.item()))]
    assert train(run, squares, until=2, hooks=hooks, clip=None, schedule=lambda step: (0.5, 0.25)[step]) is run
    # slope 0: loss 1, gradient -2, rate 0.25 -> 0.5; loss 0.25, gradient -1, rate 0.125 -> 0.625
    assert seen == [(1, 1.0, 0.5), (2, 0.25, 0.625)]
    assert run.model.weight.grad is None


def test_micro_batches_weigh_by_their_size() -> None:
    run = line()
    run.batches = Listed(points((1.0, 1.0)), points((1.0, 3.0), (1.0, 3.0), (1.0, 3.0)))
    train(run, squares, until=1, accumulate=2, clip=None)
    assert run.loss == (1 + 27) / 4
    # gradient: -2 (1 + 9) / 4 = -5, at rate 0.5
    assert run.model.weight.item() == 2.5


def test_the_gradient_is_clipped_to_its_norm() -> None:
    run = line()
    run.batches = Listed(points((1.0, 8.0)))
    train(run, squares, until=1, clip=0.5)
    assert run.model.weight.item() == pytest.approx(0.25, rel=1e-6)


def test_a_schedule_takes_the_rate_each_group_began_with() -> None:
    run = line()
    run.batches = Listed(points((0.0, 0.0)))
    run.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 2.0})
    seen = []
    hooks = [lambda run: seen.append([group["lr"] for group in run.optimizer.param_groups])]
    train(run, squares, until=3, hooks=hooks, schedule=optim.constant(2))
    assert seen == [[0.25, 1.0], [0.5, 2.0], [0.5, 2.0]]


def test_hooks_are_called_in_order_after_the_step_is_charged() -> None:
    run, ledger, seen = line(), Ledger(), []
    run.batches = Listed(points((1.0, 1.0)))
    hooks = [lambda run: seen.append(("first", run.step, ledger.total().tokens)), lambda run: seen.append("second")]
    train(run, squares, until=2, hooks=hooks, ledger=ledger)
    assert seen == [("first", 1, 2), "second", ("first", 2, 4), "second"]


def test_until_is_a_step() -> None:
    run, seen = line(), []
    run.batches = Listed(points((1.0, 1.0)))
    for until in (2, 2, 1, 3):
        train(run, squares, until=until, hooks=[lambda run: seen.append(run.step)])
    assert seen == [1, 2, 3]
    assert run.batches.place == 3  # type: ignore[attr-defined]


def test_gradients_left_by_others_are_not_added() -> None:
    run = line()
    run.batches = Listed(points((1.0, 1.0)))
    run.model.weight.grad = torch.full((1, 1), 100.0)
    train(run, squares, until=1, clip=None)
    assert run.model.weight.item() == 1.0


# against a reference


@pytest.mark.parametrize("clip", [1.0, 0.1, None])
@pytest.mark.parametrize("schedule", [None, optim.cosine(12, 3)])
def test_it_is_the_plain_loop(tiny: Build, clip: float | None, schedule: optim.Schedule | None) -> None:
    ours, theirs = tiny(), tiny()
    expected = plain(theirs, 12, clip, schedule)
    # a few roundings of fp32, which differ from processor to processor
    assert losses(ours, 12, clip=clip, schedule=schedule) == pytest.approx(expected, rel=0, abs=1e-5)
    one, other = (nn.utils.parameters_to_vector(run.model.parameters()) for run in (ours, theirs))
    # the norm: where a gradient is nothing but rounding (a key's bias), Adam makes whole steps of it
    assert (one - other).norm() <= 1e-4 * other.norm()


def test_accumulation_is_one_larger_batch(tiny: Build) -> None:
    expected = losses(tiny(rows=8), 12)
    for accumulate in (2, 4):
        assert losses(tiny(rows=8 // accumulate), 12, accumulate=accumulate) == pytest.approx(expected, abs=2e-6)


def test_ten_and_then_twenty_is_twenty_bit_for_bit(tiny: Build) -> None:
    one, two = tiny(hidden_dropout=0.1), tiny(hidden_dropout=0.1)
    schedule = optim.warmup_stable_decay(20, 8, 4)
    torch.manual_seed(0)
    whole = losses(one, 20, schedule=schedule)
    torch.manual_seed(0)
    parts = losses(two, 10, schedule=schedule) + losses(two, 20, schedule=schedule)
    assert parts == whole
    assert equal(weights(one.model), weights(two.model))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_tokens_and_flops_are_charged_by_formula(tiny: Build, accumulate: int) -> None:
    run, ledger = tiny(), Ledger()
    with ledger.phase("train"):
        train(run, next_token, until=5, ledger=ledger, accumulate=accumulate)
    spent = ledger.total("train")
    assert spent.tokens == 5 * accumulate * 4 * 16
    assert spent.flops == 5 * accumulate * formula(run.model.config, 4, 16)
    assert spent.seconds > 0


def test_what_has_no_formula_is_counted(tiny: Build) -> None:
    run, ledger = line(), Ledger()
    run.batches = Listed(points((1.0, 1.0)), points((1.0, 1.0), (2.0, 1.0)))
    train(run, squares, until=4, ledger=ledger)
    fresh = nn.Linear(1, 1, bias=False)
    each = [count(lambda batch=batch: squares(fresh, batch).total.backward()) for batch in run.batches.batches]
    assert all(each)
    assert ledger.total().flops == 2 * sum(each)
    assert ledger.total().tokens == 2 * (2 + 4)


def test_what_earlier_calls_counted_is_not_counted_again(tiny: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[int] = []
    real = flops.counting
    monkeypatch.setattr(flops, "counting", lambda: times.append(1) or real())
    run, ledger = tiny(), Ledger()
    run.model.gpt_neox.embed_in.requires_grad_(False)
    known = StepFlops(run.model)
    for until in (1, 2, 3):
        train(run, next_token, until=until, ledger=ledger, step_flops=known)
    assert len(times) == 1
    train(run, next_token, until=4, ledger=ledger)
    assert len(times) == 2, "nobody told it"
    train(run, next_token, until=5, step_flops=StepFlops(run.model))
    assert len(times) == 2, "nobody asks"


def test_counting_changes_no_bit(tiny: Build) -> None:
    assert losses(tiny(), 4, ledger=Ledger()) == losses(tiny(), 4)


def test_bf16_is_for_matrix_products_alone(tiny: Build) -> None:
    runtime.start("bf16")
    run, seen = tiny(), set()
    run.model.get_output_embeddings().register_forward_hook(lambda module, inputs, out: seen.add(out.dtype))
    half = losses(run, 6)
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    assert {moment.dtype for state in run.optimizer.state.values() for moment in state.values()} == {torch.float32}
    runtime.start("fp32")
    whole = losses(tiny(), 6)
    assert half != whole
    assert half == pytest.approx(whole, abs=0.05)


def test_it_trains_in_training_mode(tiny: Build) -> None:
    run = tiny()
    run.model.eval()
    train(run, next_token, until=1, hooks=[lambda run: run.model.eval()])
    seen = []
    run.model.register_forward_hook(lambda module, *_: seen.append(module.training))
    train(run, next_token, until=2)
    assert seen == [True]


def test_a_frozen_model_with_a_trained_head(tiny: Build) -> None:
    run = tiny()
    run.model.requires_grad_(False)
    run.model.get_output_embeddings().requires_grad_(True)
    run.optimizer = optim.adamw(run.model, 1e-2)
    before = weights(run.model)
    train(run, next_token, until=2, ledger=Ledger())
    changed = {name for name, tensor in run.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"lm_head.weight"}


# property


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_any_cut_into_micro_batches_is_the_same_step(sizes: list[int], seed: int) -> None:
    values = torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(seed))
    whole, cut = line(0.5), line(0.5)
    whole.batches = Listed({"x": values[:, :1], "y": values[:, 1:]})
    cut.batches = Listed(*({"x": part[:, :1], "y": part[:, 1:]} for part in values.split(sizes)))
    train(whole, squares, until=1)
    train(cut, squares, until=1, accumulate=len(sizes))
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert cut.model.weight.item() == pytest.approx(whole.model.weight.item(), rel=1e-4, abs=1e-5)


# misuse


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_leaves_weights_and_moments(tiny: Build, bad: float) -> None:
    run, called = tiny(), []
    train(run, next_token, until=2)
    before, moments = weights(run.model), copy.deepcopy(run.optimizer.state_dict()["state"])

    def spoilt(model: nn.Module, batch: Batch) -> Loss:
        loss = next_token(model, batch)
        return Loss(loss.total * bad, loss.count, loss.tokens)

    with pytest.raises(
        DivergedError, match=f"step 2: the loss is {bad}; the weights before this step are kept"
    ) as caught:
        train(run, spoilt, until=3, hooks=[lambda run: called.append(run.step)])
    assert isinstance(caught.value, ValueError)
    assert equal(weights(run.model), before)
    assert all(
        torch.equal(moments[i][k], v) for i, s in run.optimizer.state_dict()["state"].items() for k, v in s.items()
    )
    assert (run.step, called) == (2, [])
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_a_gradient_that_is_not_finite_leaves_the_weights() -> None:
    run = line(1.0)
    run.batches = Listed(points((1.0, 1.0)))

    def rooted(model: nn.Module, batch: Batch) -> Loss:
        # finite at 0, where its slope is not
        return Loss((model(batch["x"]) - batch["y"]).abs().sqrt().sum(), 1, 1)

    with pytest.raises(DivergedError, match=r"step 0: the gradient's norm is (nan|inf); the weights before this step"):
        train(run, rooted, until=1)
    assert run.model.weight.item() == 1.0
    assert run.model.weight.grad is None


def test_a_stream_that_ends_is_told_of() -> None:
    run = line()
    run.batches = Listed(points((1.0, 1.0)), endless=False)
    with pytest.raises(ValueError, match="the stream of batches ended; a stream must be endless"):
        train(run, squares, until=2)
    assert run.step == 1


def test_a_batch_without_a_target_is_told_of(tiny: Build) -> None:
    run = tiny()
    ids = next(iter(run.batches))["input_ids"]
    run.batches = Listed({"input_ids": ids, "labels": torch.full_like(ids, -100)})
    before = weights(run.model)
    with pytest.raises(ValueError, match="step 0: the batch holds no target; every label is ignored"):
        train(run, next_token, until=1)
    assert equal(weights(run.model), before)


@pytest.mark.parametrize("wrong", [{"until": -1}, {"accumulate": 0}, {"clip": 0.0}, {"clip": -1.0}])
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected until >= 0, accumulate >= 1, clip > 0, got"):
        train(line(), squares, **{"until": 1, **wrong})
