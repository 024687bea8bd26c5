"""What may be paid: money by hand, and holding what a request may take at most."""

from __future__ import annotations

import asyncio

import pytest

from shoestring.models.teacher.budget import NOTHING, Budget, Purse, Taken
from shoestring.models.teacher.words import Reply


def reply(prompt: int, completion: int, replayed: bool = False) -> Reply:
    return Reply("", "stop", prompt, completion, "m", replayed=replayed)


def hold(purse: Purse, prompt: int, completion: int) -> Taken | None:
    return asyncio.run(purse.hold(lambda: Taken(prompt, completion), lambda: False))


def test_money_by_hand():
    budget = Budget(price_in=2.5, price_out=10)
    assert budget.cost(Taken(1_000_000, 100_000)) == 3.5


def test_a_request_holds_the_most_it_may_take_until_it_is_paid():
    purse = Purse(Budget(tokens=100))
    held = hold(purse, 40, 20)
    assert held == Taken(40, 20)
    assert not purse.fits(Taken(40, 1))
    assert purse.fits(Taken(40, 0))
    purse.pay("a", reply(10, 5))
    purse.release(held)
    assert (purse.paid, purse.held, purse.spent.tokens) == (Taken(10, 5), NOTHING, 15)
    assert purse.fits(Taken(85, 0))
    assert not purse.fits(Taken(86, 0))


def test_money_is_held_too():
    purse = Purse(Budget(money=1.0, price_in=1e6, price_out=0))
    assert purse.fits(Taken(1, 10**9))
    assert not purse.fits(Taken(2, 0))


def test_the_next_waits_for_those_in_flight_and_not_for_nobody():
    purse = Purse(Budget(tokens=100))

    async def all_of_it() -> list[str]:
        told: list[str] = []
        held = await purse.hold(lambda: Taken(90, 0), lambda: False)
        assert held is not None
        bound = [50]

        async def second() -> None:
            got = await purse.hold(lambda: Taken(bound[0], 0), lambda: False)
            told.append(f"second got {got}")

        task = asyncio.create_task(second())
        await asyncio.sleep(0)
        told.append("first is paid")
        bound[0] = 40  # what the first took tells more about the second
        purse.pay("a", reply(60, 0))
        purse.release(held)
        await task
        purse.release(Taken(40, 0))
        told.append(str(await purse.hold(lambda: Taken(41, 0), lambda: False)))
        return told

    assert asyncio.run(all_of_it()) == ["first is paid", f"second got {Taken(40, 0)}", "None"]


def test_what_was_lost_on_its_way_counts_until_it_turns_out_to_be_the_same():
    purse = Purse(Budget(tokens=100))
    purse.lose("a", Taken(30, 10), known=False)
    purse.lose("a", Taken(3, 2), known=True)
    purse.lose("b", Taken(7, 0), known=False)
    assert (purse.doubtful, purse.vain, purse.spent.tokens) == (Taken(37, 10), Taken(3, 2), 5)
    assert purse.requests == 1
    assert not purse.fits(Taken(49, 0))
    purse.pay("a", reply(20, 10, replayed=True))
    assert (purse.doubtful, purse.vain, purse.spent.tokens) == (Taken(7, 0), NOTHING, 30)
    assert purse.requests == 1
    purse.pay("b", reply(20, 10))
    assert purse.doubtful == Taken(7, 0)


def test_what_an_earlier_call_paid_for_is_not_paid_again_when_it_comes():
    purse = Purse(Budget(), {"a", "b"})
    purse.pay("a", reply(20, 10, replayed=True))
    assert (purse.paid, purse.requests) == (NOTHING, 0)
    purse.pay("b", reply(20, 10))  # another answer, of a server that does not know the first
    purse.pay("c", reply(20, 10, replayed=True))
    assert (purse.paid, purse.requests) == (Taken(40, 20), 2)


def test_it_says_where_it_stands():
    purse = Purse(Budget(tokens=2000, money=0.5, price_in=10, price_out=100))
    purse.pay("a", reply(1000, 200))
    purse.lose("b", Taken(300, 0), known=False)
    assert purse.standing() == [
        "1,200 of 2,000 tokens are paid",
        "0.03 of 0.5 in money is paid",
        "up to 300 tokens may be paid besides, for answers that were lost on their way",
    ]
    assert purse.need(Taken(1000, 1000)) == "may take 2,000 tokens (0.11 in money)"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tokens": -1}, r"the budget's tokens is -1: expected zero or more"),
        ({"money": float("inf"), "price_in": 1}, r"the budget's money is inf"),
        ({"money": 2.0}, r"the budget limits money and has no prices: give price_in and price_out"),
        ({"price_out": -1}, r"the budget's price_out is -1: expected the price of a million tokens"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        Budget(**values)
