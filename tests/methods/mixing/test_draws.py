"""Draws of sources: the quotas hold at every moment, and what is owed is carried over."""

import json
import math
from collections import Counter
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.mixing import draws as module
from shoestring.methods.mixing.draws import Draws, checked


def normalised(raw: list[float]) -> list[float]:
    total = sum(raw)
    return [weight / total for weight in raw]


# by hand


def test_equal_weights_go_round() -> None:
    drawn = Draws([0.25] * 4, seed=3).take(12)
    assert sorted(drawn[:4]) == [0, 1, 2, 3]
    assert drawn == drawn[:4] * 3


def test_a_half_and_two_quarters() -> None:
    """Deadlines 2, 4, 4: the half goes at draws 1 and 3, when its target passes 0 and 1."""
    drawn = Draws([0.5, 0.25, 0.25], seed=0).take(8)
    assert drawn[0] == drawn[2] == drawn[4] == drawn[6] == 0
    assert {drawn[1], drawn[3]} == {drawn[5], drawn[7]} == {1, 2}


def test_one_source_takes_all() -> None:
    assert Draws([0.0, 1.0, 0.0]).take(5) == [1] * 5


def test_the_seed_orders_what_is_due_alike() -> None:
    assert len({tuple(Draws([0.25] * 4, seed).take(4)) for seed in range(20)}) > 5


# against a slow obvious one


def plain(weights: list[float], count: int, ranks: list[int]) -> list[int]:
    """The quota rule in exact numbers: all sources are looked at for each draw."""
    exact = [Fraction(weight) for weight in weights]
    exact = [weight / sum(exact) for weight in exact]
    counts, drawn = [0] * len(weights), []
    for number in range(1, count + 1):
        allowed = [i for i, weight in enumerate(exact) if counts[i] < weight * number]
        source = min(allowed, key=lambda i: ((counts[i] + 1) / exact[i], ranks[i]))
        counts[source] += 1
        drawn.append(source)
    return drawn


@pytest.mark.parametrize("parts", [[1, 1, 2], [1, 2, 4, 8, 1], [3, 3, 1, 1], [16], [1, 15], [5, 7, 2, 1, 1]])
def test_against_the_plain_rule(parts: list[int]) -> None:
    """Sixteenths, of which floats and fractions are the same numbers."""
    weights = [part / sum(parts) for part in parts]
    drawn = Draws(weights, seed=7)
    assert drawn.take(200) == plain(weights, 200, drawn._ranks)


# what holds


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=12), st.integers(0, 99), st.integers(1, 300))
def test_every_count_keeps_within_one_of_its_target(raw: list[float], seed: int, count: int) -> None:
    weights = normalised(raw)
    exact = [Fraction(weight) for weight in weights]
    exact = [weight / sum(exact) for weight in exact]
    counts = [0] * len(weights)
    for number, source in enumerate(Draws(weights, seed).take(count), 1):
        counts[source] += 1
        assert all(abs(n - weight * number) < 1 for n, weight in zip(counts, exact, strict=True))


def test_a_thousand_sources_keep_to_their_targets() -> None:
    rng = Random(0)
    weights = normalised([rng.random() ** 6 for _ in range(1000)])
    drawn, counts = Draws(weights), Counter[int]()
    for number in range(1, 31):
        counts.update(drawn.take(500))
        assert all(abs(counts[i] - weight * 500 * number) < 1 for i, weight in enumerate(weights))


def test_time_counted_anew_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteenths again: no rounding, so that the stretch of time does not show."""
    weights = [1 / 16, 5 / 16, 3 / 16, 7 / 16]
    long = Draws(weights, 1).take(1000)
    monkeypatch.setattr(module, "STRETCH", 32)
    assert Draws(weights, 1).take(1000) == long


def test_many_draws_in_short_stretches_keep_to_the_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH", 3)
    weights = normalised([0.1, 0.7, 0.03, 1 / 3])
    counts = Counter(Draws(weights).take(20_000))
    assert all(abs(counts[i] - weight * 20_000) < 1 + 1e-6 for i, weight in enumerate(weights))


weighings = st.lists(
    st.tuples(st.lists(st.floats(1e-4, 1), min_size=5, max_size=5), st.integers(1, 4)), min_size=1, max_size=80
)


@given(weighings)
def test_under_changing_weights_counts_follow_the_sum_of_the_weights(history: list[tuple[list[float], int]]) -> None:
    drawn, counts, targets = Draws([0.2] * 5), [0] * 5, [0.0] * 5
    furthest = 1 + sum(1 / k for k in range(1, 6))
    for raw, count in history:
        weights = normalised(raw)
        drawn.set_weights(weights)
        for source in drawn.take(count):
            counts[source] += 1
            targets = [target + weight for target, weight in zip(targets, weights, strict=True)]
            assert all(n < target + 1 for n, target in zip(counts, targets, strict=True))
            assert all(n > target - furthest for n, target in zip(counts, targets, strict=True))


@pytest.mark.parametrize("sources", [3, 10, 50])
def test_a_spiteful_history_leaves_none_further_behind_than_said(sources: int) -> None:
    """All weight on those that were not drawn yet, over and over: the worst there is for the last of them."""
    drawn, furthest, behind = Draws([1 / sources] * sources), sum(1 / k for k in range(1, sources + 1)), 0.0
    for _ in range(20):
        left = set(range(sources))
        while left:
            drawn.set_weights([1 / len(left) if i in left else 0.0 for i in range(sources)])
            left.discard(drawn.take(1)[0])
            behind = max(behind, *drawn.lags)
            assert min(drawn.lags) > -1
    assert behind < furthest - 1 + 1e-9
    if sources > 3:
        assert behind > 1  # so it is spiteful


def test_a_small_source_that_is_re_weighed_after_every_draw_is_not_starved() -> None:
    drawn, counts, target, rng = Draws([0.5, 0.49, 0.01]), Counter[int](), 0.0, Random(0)
    for _ in range(20_000):
        small = 0.01 + 0.005 * rng.random()
        drawn.set_weights([(1 - small) * 0.5, (1 - small) * 0.5, small])
        counts.update(drawn.take(1))
        target += small
        assert abs(counts[2] - target) < 1


def test_what_is_owed_to_a_source_without_weight_is_dropped() -> None:
    drawn = Draws([0.5, 0.45, 0.05])
    before = Counter(drawn.take(11))[2]
    assert before == 0
    assert drawn.lags[2] == pytest.approx(0.55)
    drawn.set_weights([0.5, 0.5, 0])
    assert drawn.lags[2] == 0
    assert math.fsum(drawn.lags) == pytest.approx(0, abs=1e-12)
    assert 2 not in drawn.take(200)


# kept and resumed


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.integers(0, 200), st.integers(0, 60))
def test_resumed_draws_are_the_same(raw: list[float], before: int, between: int) -> None:
    weights = normalised(raw)
    drawn = Draws(weights, 5)
    drawn.take(before)
    drawn.set_weights(weights[::-1])
    drawn.take(between)
    other = Draws(weights, 5)
    other.load_state_dict(json.loads(json.dumps(drawn.state_dict())))
    twin = drawn.copy()
    following = drawn.take(100)
    assert other.take(100) == twin.take(100) == following
    assert other.state_dict() == twin.state_dict() == drawn.state_dict()


def test_other_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="saved draws have seed 1, these 2"):
        Draws([1.0], 2).load_state_dict(Draws([1.0], 1).state_dict())
    with pytest.raises(ValueError, match="number of sources 2, these 1"):
        Draws([1.0]).load_state_dict(Draws([0.5, 0.5]).state_dict())


# weights


def test_weights_are_put_in_the_order_of_the_names() -> None:
    assert checked({"b": 0.75, "a": 0.25}, ["a", "b"]) == [0.25, 0.75]
    assert checked([0.25, 0.75], ["a", "b"]) == [0.25, 0.75]
    assert checked({"a": 1 / 3 + 1e-7, "b": 2 / 3}, ["a", "b"]) == [1 / 3 + 1e-7, 2 / 3]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"a": 1.0, "c": 0.0}, "unknown 'c'; missing 'b': expected one for each of a, b"),
        ({"a": 1.0}, "missing 'b'"),
        ([1.0], "1 weights for 2 sources"),
        ({"a": 1.5, "b": -0.5}, "weight of 'b' is -0.5"),
        ({"a": float("nan"), "b": 1.0}, "weight of 'a' is nan"),
        ({"a": float("inf"), "b": 1.0}, "weight of 'a' is inf"),
        ({"a": 0.0, "b": 0.0}, "all weights are zero"),
        ({"a": 0.5, "b": 0.6}, r"sum to 1\.1: expected 1; divide each by their sum"),
    ],
)
def test_weights_that_are_none_are_refused(weights: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked(weights, ["a", "b"])  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [0.14, 0.28, 0.56, 0.07])
def test_a_weight_that_is_lost_while_all_is_even_but_for_rounding(weight: float) -> None:
    draws = Draws([weight, 1 - weight])
    draws.take(100)
    draws.set_weights([0.0, 1.0])
    assert set(draws.take(50)) == {1}
