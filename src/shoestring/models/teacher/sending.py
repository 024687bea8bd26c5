"""One attempt: noted before it is sent, kept when it is answered, and paid for by what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.budget import Purse, Taken
from shoestring.models.teacher.words import Parameters, Question, Refused, Reply, Teacher, Unanswered


class Sending:
    """Attempts of one call.

    flying  the tasks whose request is on its way
    """

    def __init__(self, teacher: Teacher, parameters: Parameters, store: Answers, purse: Purse) -> None:
        self.flying: set[asyncio.Task[None] | None] = set()
        self._teacher, self._parameters, self._store, self._purse = teacher, parameters, store, purse

    async def attempt(
        self, key: str, question: Question, most: Taken, correct: Callable[[float], None]
    ) -> tuple[Reply, asyncio.Future[None]]:
        """The reply, and what is done when it is on the disk, which the next attempt need not wait for.

        most     what the purse holds for it; of its prompt 0 where nobody counts
        correct  takes how many tokens it really was
        Raises what `complete` of the teacher does.
        """
        number = self._store.note(key)
        task = asyncio.current_task()
        self.flying.add(task)
        try:
            reply = await self._teacher.complete(question, self._parameters, key)
        except Unanswered as failure:
            self._lost(key, number, failure, most, correct)
            raise
        except (Refused, ValueError):
            correct(0)
            self._store.drop(number)
            raise
        except BaseException:
            self._purse.lose(key, most, known=False)  # and its note stays
            raise
        finally:
            self.flying.discard(task)
        if not reply.counted and most.prompt:  # what the bytes allow may be more than what is known of prompts like it
            reply = replace(reply, prompt_tokens=min(reply.prompt_tokens, most.prompt))
        self._purse.pay(key, reply)
        correct(reply.tokens)
        return reply, self._store.keep(number, key, question.name, reply)

    def _lost(self, key: str, number: int, failure: Unanswered, most: Taken, correct: Callable[[float], None]) -> None:
        if failure.replayed:
            self._purse.forget(key)
            self._store.forget(key, number)
        if failure.paid is not None and failure.replayed and self._purse.paid_before(key):
            correct(0)
            self._store.waste(number, *failure.paid)
        elif failure.paid is not None:
            self._purse.lose(key, Taken(*failure.paid), known=True)
            correct(sum(failure.paid))
            self._store.waste(number, *failure.paid)
        elif failure.maybe:
            self._purse.lose(key, most, known=False)
        else:
            correct(0)
            self._store.drop(number)
