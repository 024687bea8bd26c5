"""The mean of state dicts, the weights that imitate a cool-down, and batch normalisation after it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shoestring.methods.averaging.average import average, decay_weights, recompute_batchnorm, shares


def state(*values: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {"w": torch.tensor(values, dtype=dtype)}


# by hand


def test_the_mean_of_three() -> None:
    assert average([state(1, 10), state(2, 20), state(6, 60)])["w"].tolist() == [3, 30]


def test_weights_are_taken_over_their_sum() -> None:
    assert average([state(0.0), state(8.0)], weights=[3, 1])["w"].tolist() == [2.0]
    assert shares([3, 1], 2) == [0.75, 0.25]
    assert shares(None, 4) == [0.25] * 4


def test_it_is_cast_once_at_the_end() -> None:
    bf16 = torch.bfloat16
    states = [state(256, dtype=bf16), state(1, dtype=bf16), state(1, dtype=bf16), state(1, dtype=bf16)]
    # 259 / 4 = 64.75, in bfloat16 65; a sum in bfloat16 would stay at 256 and give 64
    assert average(states)["w"].tolist() == [65]
    assert average(states)["w"].dtype == bf16
    assert average(states, dtype=torch.float32)["w"].dtype == torch.float32


def test_float64_on_request() -> None:
    states = [state(2.0**25, dtype=torch.float64), state(1.0, dtype=torch.float64), state(1.0, dtype=torch.float64)]
    assert average(states, accumulate=torch.float64)["w"].item() == pytest.approx((2**25 + 2) / 3, rel=1e-15)
    assert average(states)["w"].item() != pytest.approx((2**25 + 2) / 3, rel=1e-15)


def test_float8_is_averaged_through_float32() -> None:
    states = [state(1.0, dtype=torch.float8_e4m3fn), state(2.0, dtype=torch.float8_e4m3fn)]
    assert average(states)["w"].dtype == torch.float8_e4m3fn
    assert average(states)["w"].to(torch.float32).tolist() == [1.5]


def test_integers_booleans_and_masks_come_from_the_newest() -> None:
    def one(seen: int) -> dict[str, Tensor]:
        mask = torch.tensor([[0.0, -math.inf], [0.0, 0.0]])
        return {"seen": torch.tensor(seen), "used": torch.tensor([seen > 1]), "mask": mask, "w": torch.ones(1) * seen}

    states = [one(1), one(3)]
    mean = average(states)
    assert mean["seen"].item() == 3
    assert mean["used"].item() is True
    assert torch.equal(mean["mask"], states[1]["mask"])
    assert mean["w"].item() == 2
    assert all(mean[name].data_ptr() != states[1][name].data_ptr() for name in mean)


def test_tied_tensors_stay_tied() -> None:
    def tied(value: float) -> dict[str, Tensor]:
        shared = torch.full((2, 2), value)
        return {"embed": shared, "head": shared, "other": shared.clone()}

    mean = average([tied(1.0), tied(3.0)])
    assert mean["embed"].data_ptr() == mean["head"].data_ptr() != mean["other"].data_ptr()
    assert mean["head"].tolist() == [[2, 2], [2, 2]]


def test_what_is_tied_in_one_state_only_is_averaged_apart() -> None:
    shared = torch.ones(2)
    mean = average([{"a": torch.zeros(2), "b": torch.full((2,), 3.0)}, {"a": shared, "b": shared}])
    assert mean["a"].tolist() == [0.5, 0.5]
    assert mean["b"].tolist() == [2, 2]


def test_cooldown_shapes() -> None:
    assert decay_weights(5, "linear") == [0.2] * 5
    # w = (1 + cos(pi j / 2)) / 2 = 1, 1/2, 0
    assert decay_weights(2, "cosine") == pytest.approx([0.5, 0.5])
    assert decay_weights(3, "cosine") == pytest.approx([0.25, 0.5, 0.25])
    # w = 1 - sqrt(j / 4) = 1, 1/2, 1 - sqrt(1/2), 1 - sqrt(3/4), 0
    assert decay_weights(4, "1-sqrt")[0] == pytest.approx(0.5)
    assert decay_weights(1, "cosine") == [1.0]


# against a reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_the_stated_sum_bit_for_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    states = [{"w": torch.randn(7, 5).to(dtype)} for _ in range(5)]
    weights = [1.0, 2.0, 0.5, 3.0, 0.25]
    total = torch.zeros(7, 5)
    for one, weight in zip(states, weights, strict=True):
        total.add_(one["w"].to(torch.float32), alpha=weight / sum(weights))
    assert torch.equal(average(states, weights)["w"], total.to(dtype))


def test_it_is_the_mean_that_torch_keeps() -> None:
    from torch.optim.swa_utils import AveragedModel

    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    averaged, states = AveragedModel(model), []
    for _ in range(4):
        with torch.no_grad():
            model.weight.add_(torch.randn(3, 4))
        averaged.update_parameters(model)
        states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    theirs = averaged.module.state_dict()
    for name, tensor in average(states).items():
        torch.testing.assert_close(tensor, theirs[name])


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt"])
def test_a_cooldown_of_sgd_with_fixed_gradients_is_exactly_the_weighted_mean(shape: str) -> None:
    count, rate = 6, 0.1
    gradients = torch.randn(count, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = decay_weights(count, shape)  # type: ignore[arg-type]
    trunk = [{"w": -rate * gradients[: j + 1].sum(dim=0)} for j in range(count)]
    rates = [rate * sum(weights[i:]) for i in range(count)]
    cooled = -sum(r * g for r, g in zip(rates, gradients, strict=True))
    torch.testing.assert_close(average(trunk, weights, accumulate=torch.float64)["w"], cooled)


def test_batchnorm_is_measured_as_by_one_full_pass() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[1].eval()
    batches = [torch.randn(16, 3) for _ in range(3)]
    recompute_batchnorm(model, batches)
    hidden = [model[0](batch) for batch in batches]
    torch.testing.assert_close(model[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
    assert model.training
    assert not model[1].training
    assert model[1].momentum == 0.1


# property


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=6),
    st.integers(0, 2**31),
)
def test_the_mean_lies_between_and_changes_nothing(rows: list[list[float]], seed: int) -> None:
    states = [state(*row) for row in rows]
    before = [one["w"].clone() for one in states]
    weights = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed)).add(0.01).tolist()
    mean = average(states, weights)["w"]
    stacked = torch.stack(before)
    assert bool((mean >= stacked.amin(0) - 1e-3).all())
    assert bool((mean <= stacked.amax(0) + 1e-3).all())
    mean.fill_(7)
    assert all(torch.equal(one["w"], kept) for one, kept in zip(states, before, strict=True))


@given(st.integers(1, 60), st.sampled_from(["linear", "cosine", "1-sqrt"]))
def test_cooldown_weights_are_shares(count: int, shape: str) -> None:
    weights = decay_weights(count, shape)  # type: ignore[arg-type]
    assert len(weights) == count
    assert all(weight > 0 for weight in weights)
    assert sum(weights) == pytest.approx(1)


# alone, sharded, and misused


def test_dict_batches_of_a_hugging_face_model() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Embedding(8, 4), nn.BatchNorm1d(4)

        def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Tensor:
            return self.norm(self.embed(input_ids).mean(dim=1))

    model = Classifier().eval()
    recompute_batchnorm(model, [{"input_ids": torch.randint(8, (6, 5)), "labels": torch.zeros(6)} for _ in range(2)])
    assert model.norm.num_batches_tracked == 2
    assert not model.norm.training


def test_without_batchnorm_nothing_is_read() -> None:
    def explode() -> object:
        raise AssertionError("read")

    recompute_batchnorm(nn.Linear(2, 2), iter(explode, None))


def test_modes_come_back_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    with pytest.raises(RuntimeError):
        recompute_batchnorm(model, [torch.randn(2, 5)])
    assert not any(module.training for module in model.modules())
    assert model[1].momentum == 0.1


def test_shards_are_averaged_where_they_lie(tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        whole = [{"w": torch.randn(4, 2)} for _ in range(3)]
        sharded = [{"w": distribute_tensor(one["w"], mesh, [Shard(0)])} for one in whole]
        mean = average(sharded)["w"]
        assert isinstance(mean, DTensor)
        assert mean.placements == (Shard(0),)
        assert torch.equal(mean.to_local(), average(whole)["w"])
    finally:
        dist.destroy_process_group()


NAN = {"w": torch.tensor([1.0, math.nan])}


@pytest.mark.parametrize(
    ("states", "keywords", "said"),
    [
        ([], {}, "no states to average"),
        ([{"v": torch.ones(1)}, state(1)], {}, "no w in state 0 and no v in the newest state"),
        ([state(1), state(1, 2)], {}, r"w has shape \(2,\) in the newest state and \(1,\) in state 0"),
        ([state(1, 2), NAN], {}, "w of state 1 holds NaN or an infinity"),
        ([NAN, state(1, 2)], {}, "w of state 0 holds NaN or an infinity"),
        ([state(math.inf), state(1)], {}, "w of state 0 holds NaN or an infinity"),
        ([state(1), state(1, dtype=torch.int64)], {}, "w is torch.float32 in state 0 and torch.int64 in the newest"),
        ([state(1), state(2, dtype=torch.complex64)], {}, "w is"),
        ([state(1j, dtype=torch.complex64), state(2, dtype=torch.complex64)], {}, "only real weights are averaged"),
        ([state(1), state(1)], {"weights": [1]}, "1 weights for 2 states"),
        ([state(1), state(1)], {"weights": [1, math.nan]}, "expected finite numbers"),
        ([state(1), state(1)], {"weights": [1, -1]}, "sum to 0.0"),
        ([state(1), state(1)], {"accumulate": torch.bfloat16}, "accumulate is torch.bfloat16"),
        ([state(1), state(1)], {"dtype": torch.int8}, "dtype is torch.int8"),
        ([state(1e6), state(1e6)], {"dtype": torch.float16}, "the mean of w is beyond what torch.float16 can hold"),
        ([{"w": 3.0}], {}, "w of state 0 is a float"),
    ],
)
def test_what_cannot_be_averaged_is_refused_in_a_line(states: list, keywords: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        average(states, **keywords)
    assert "\n" not in str(caught.value)


def test_unknown_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="'linear', 'cosine' or '1-sqrt'"):
        decay_weights(3, "square")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        decay_weights(0, "linear")
