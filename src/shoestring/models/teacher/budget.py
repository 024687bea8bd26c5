"""How much may be paid in a call, so that asking stops before that is passed and not after."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from shoestring.models.teacher.words import Reply


@dataclass(frozen=True)
class Budget:
    """What may be paid in one call. What the store holds already was paid by an earlier one and counts nothing here.

    tokens               of prompts and answers together; no limit where None
    money                in the unit of the prices; no limit where None
    price_in, price_out  of a million tokens of prompts, and of answers
    """

    tokens: int | None = None
    money: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0

    def __post_init__(self) -> None:
        for name in ("tokens", "money"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"the budget's {name} is {value}: expected zero or more, or none at all")
        for name in ("price_in", "price_out"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"the budget's {name} is {getattr(self, name)}: expected the price of a million tokens"
                )
        if self.money is not None and not self.price_in and not self.price_out:
            raise ValueError(
                "the budget limits money and has no prices: give price_in and price_out, per million tokens"
            )

    def never_fits(self, most: Taken) -> bool:
        """Whether a request that may take this much is too large for the whole of it, if nothing else were asked."""
        if 0 in (self.tokens, self.money):
            return False  # nothing is to be asked
        over_tokens = self.tokens is not None and most.tokens > self.tokens
        return over_tokens or (self.money is not None and self.cost(most) > self.money)

    def cost(self, taken: Taken) -> float:
        """The money that tokens cost."""
        return (taken.prompt * self.price_in + taken.completion * self.price_out) / 1e6


class Taken(NamedTuple):
    """Tokens of prompts and of answers."""

    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion

    def plus(self, other: Taken) -> Taken:
        return Taken(self.prompt + other.prompt, self.completion + other.completion)

    def minus(self, other: Taken) -> Taken:
        return Taken(self.prompt - other.prompt, self.completion - other.completion)


NOTHING = Taken(0, 0)


class Purse:
    """What one call has paid, what it holds for the requests in flight, and what it may have paid in vain.

    A request holds the most that it may take, which shrinks to what it took. One that was lost on its way, so that
    nobody knows whether it was paid for, keeps what it held: the budget is not passed even if it was.

    paid      for answers
    vain      for what came and could not be used
    doubtful  the most that requests of unknown fate may have taken
    requests  how many `paid` and `vain` are of
    before    keys whose answer an earlier call paid for in vain
    """

    def __init__(self, budget: Budget, before: Collection[str] = ()) -> None:
        self.budget = budget
        self._before = before
        self.paid, self.held = NOTHING, NOTHING
        self.vain, self.doubtful = NOTHING, NOTHING
        self.requests = 0
        self._in_flight = 0
        self._lost: dict[str, list[tuple[Taken, bool]]] = {}
        self._changed = asyncio.Event()

    @property
    def spent(self) -> Taken:
        """What was paid: for answers, and for what came and could not be used."""
        return self.paid.plus(self.vain)

    def fits(self, most: Taken) -> bool:
        total = self.spent.plus(self.doubtful).plus(self.held).plus(most)
        tokens, money = self.budget.tokens, self.budget.money
        return (tokens is None or total.tokens <= tokens) and (money is None or self.budget.cost(total) <= money)

    async def hold(self, most: Callable[[], Taken], alone: Callable[[], bool]) -> Taken | None:
        """Hold what a request may take at most, once enough of what others hold comes free; None where it does not fit
        beside none.

        most   is asked again each time: what others took may tell more about it
        alone  whether it is to have no other beside it, asked again each time too
        """
        while not self.fits(needed := most()) or (alone() and self._in_flight):
            if not self._in_flight:
                return None
            self._changed.clear()
            await self._changed.wait()
        self.held = self.held.plus(needed)
        self._in_flight += 1
        return needed

    def release(self, most: Taken) -> None:
        """A request that held this much is over."""
        self.held = self.held.minus(most)
        self._in_flight -= 1
        self._changed.set()

    def pay(self, key: str, reply: Reply) -> None:
        """An answer came. One that the server had given before is what the lost attempts of its key were for."""
        if not (reply.replayed and self.paid_before(key)):
            self.paid = self.paid.plus(Taken(reply.prompt_tokens, reply.completion_tokens))
            self.requests += 1
        if reply.replayed:
            self.forget(key)

    def paid_before(self, key: str) -> bool:
        """Whether an earlier call paid in vain for what is asked by this key."""
        return key in self._before

    def forget(self, key: str) -> None:
        """The server gave again what it had given to the lost attempts of a key: they cost nothing of their own."""
        for taken, known in self._lost.pop(key, []):
            self._add(Taken(-taken.prompt, -taken.completion), known, -1)

    def lose(self, key: str, taken: Taken, known: bool) -> None:
        """An attempt brought nothing and was paid for (known), or may have been."""
        self._lost.setdefault(key, []).append((taken, known))
        self._add(taken, known, 1)

    def need(self, most: Taken) -> str:
        """What a request may take at most, in words."""
        money = "" if self.budget.money is None else f" ({self.budget.cost(most):.4g} in money)"
        return f"may take {most.tokens:,} tokens{money}"

    def standing(self) -> list[str]:
        """What is paid of the budget, in words."""
        parts = []
        if self.budget.tokens is not None:
            parts.append(f"{self.spent.tokens:,} of {self.budget.tokens:,} tokens are paid")
        if self.budget.money is not None:
            parts.append(f"{self.budget.cost(self.spent):.4g} of {self.budget.money:.4g} in money is paid")
        if self.doubtful.tokens:
            parts.append(
                f"up to {self.doubtful.tokens:,} tokens may be paid besides, for answers that were lost on their way"
            )
        return parts

    def _add(self, taken: Taken, known: bool, requests: int) -> None:
        if known:
            self.vain = self.vain.plus(taken)
            self.requests += requests
        else:
            self.doubtful = self.doubtful.plus(taken)
