import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.cost import CURRENCIES, Cost, Ledger, spent
from shoestring.cost.ledger import peak_bytes, reset_peak_bytes

# by hand


def test_costs_add_save_the_peak():
    one = Cost(flops=1, tokens=2, labels=3, teacher_tokens=4, bytes_sent=5, seconds=6, peak_bytes=70)
    other = Cost(flops=10, tokens=10, labels=10, teacher_tokens=10, bytes_sent=10, seconds=10, peak_bytes=7)
    assert one + other == Cost(11, 12, 13, 14, 15, 16, 70)


def test_there_are_seven_currencies():
    assert CURRENCIES == ("flops", "tokens", "labels", "teacher_tokens", "bytes_sent", "seconds", "peak_bytes")
    assert Cost().as_dict() == dict.fromkeys(CURRENCIES, 0)


def test_charges_are_booked_under_the_open_phase():
    ledger = Ledger()
    ledger.charge(labels=1)
    with ledger.phase("compress"):
        ledger.charge(tokens=2)
        with ledger.phase("prune"):
            ledger.charge(tokens=3, flops=4)
        ledger.charge(tokens=5)
    assert list(ledger.phases()) == ["", "compress", "compress/prune"]
    assert ledger.total("compress/prune").tokens == 3
    assert ledger.total("compress").tokens == 10
    assert ledger.total().labels == 1
    assert ledger.total().flops == 4


def test_a_total_is_of_a_phase_and_not_of_one_whose_name_begins_alike():
    ledger = Ledger()
    for name in ("train", "trainer"):
        with ledger.phase(name):
            ledger.charge(tokens=1)
    assert ledger.total("train").tokens == 1
    assert ledger.total("absent") == Cost()


def test_nested_seconds_count_once():
    ledger = Ledger()
    since = time.perf_counter()
    with ledger.phase("outer"):
        time.sleep(0.02)
        with ledger.phase("inner"):
            time.sleep(0.04)
        time.sleep(0.02)
    wall = time.perf_counter() - since
    assert ledger.total().seconds == pytest.approx(wall, abs=2e-3)
    assert ledger.phases()["outer"].seconds >= 0.04
    assert 0.04 <= ledger.phases()["outer/inner"].seconds < wall - 0.039


def test_time_outside_of_a_phase_is_nobodys():
    ledger = Ledger()
    time.sleep(0.02)
    with ledger.phase("work"):
        pass
    time.sleep(0.02)
    assert ledger.total().seconds < 0.01


def test_an_open_phase_is_settled_when_it_is_asked_for():
    ledger = Ledger()
    with ledger.phase("work"):
        time.sleep(0.01)
        assert ledger.total("work").seconds >= 0.01
        assert ledger.phases()["work"].seconds >= 0.01
        assert ledger.state_dict()["work"]["seconds"] >= 0.01


def test_a_phase_that_fails_is_booked_and_closed():
    ledger = Ledger()

    def fail() -> None:
        with ledger.phase("work"):
            ledger.charge(tokens=1)
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        fail()
    ledger.charge(tokens=2)
    assert ledger.phases()["work"].tokens == 1
    assert ledger.phases()[""].tokens == 2


def test_each_phase_has_its_own_peak():
    ledger = Ledger()
    with ledger.phase("large"):
        block = bytearray(b"x" * 80_000_000)
    del block
    with ledger.phase("small"):
        pass
    large, small = ledger.total("large").peak_bytes, ledger.total("small").peak_bytes
    if not resets():
        pytest.skip("this system cannot reset the peak of a process")
    assert large - small > 70_000_000
    assert ledger.total().peak_bytes == large


def resets() -> bool:
    block = bytearray(b"x" * 50_000_000)
    before = peak_bytes()
    del block
    reset_peak_bytes()
    return peak_bytes() < before - 40_000_000


# property


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a/b"]), st.integers(0, 10**15)), max_size=20))
def test_the_whole_is_the_sum_of_its_phases(charges):
    ledger = Ledger()
    for path, amount in charges:
        with ledger.phase(path):
            ledger.charge(flops=amount)
    assert ledger.total().flops == sum(amount for _, amount in charges)
    assert ledger.total("a").flops == sum(amount for path, amount in charges if path.startswith("a"))


def test_a_saved_ledger_goes_on():
    ledger = Ledger()
    with ledger.phase("train"):
        ledger.charge(tokens=5, flops=1e18)
    state = json.loads(json.dumps(ledger.state_dict()))
    resumed = Ledger()
    resumed.load_state_dict(state)
    assert resumed.phases() == ledger.phases()
    with resumed.phase("train"):
        resumed.charge(tokens=5)
    assert resumed.total().tokens == 10


def test_what_phases_themselves_took():
    state = {"": Cost(labels=3), "train": Cost(flops=5), "train/evaluate": Cost(flops=9), "x": Cost(flops=1)}
    told = {phase: cost.as_dict() for phase, cost in state.items()}
    assert spent(told, "train") == Cost(flops=5)
    assert spent(told, "", "train") == Cost(flops=5, labels=3)
    assert spent({}, "train") == Cost()


def test_a_workers_ledger_is_absorbed_below_a_phase_or_beside():
    worker = Ledger()
    worker.charge(labels=1)
    with worker.phase("train"):
        worker.charge(tokens=5)
    ledger = Ledger()
    ledger.absorb(worker.state_dict(), under="seed-0")
    ledger.absorb(worker.state_dict(), under="seed-0")
    ledger.absorb(worker.state_dict(), under="")
    assert set(ledger.phases()) == {"seed-0", "seed-0/train", "", "train"}
    assert ledger.total("seed-0").tokens == 10
    assert ledger.total("train").tokens == 5


# misuse


@pytest.mark.parametrize("amount", [-1, float("nan"), float("inf")])
def test_a_bad_amount_is_refused_and_nothing_booked(amount):
    ledger = Ledger()
    with pytest.raises(ValueError, match=r"cannot be charged .* flops"):
        ledger.charge(tokens=1, flops=amount)
    assert ledger.total() == Cost()


def test_an_unknown_currency_is_refused_by_name():
    with pytest.raises(ValueError, match="no currency 'dollars': expected one of flops, tokens"):
        Ledger().charge(dollars=1)


def test_a_phase_needs_a_name():
    with pytest.raises(ValueError, match="needs a name"), Ledger().phase(""):
        pass
