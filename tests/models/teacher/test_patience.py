"""When a question is given up, and when the server is: by hand, failure by failure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.patience import Open, Patience
from shoestring.models.teacher.words import Question, Unanswered

LIMITS = Limits(attempts=3, patience=0.0)
BROKE, AWAY = Unanswered("HTTP 500"), Unanswered("cannot be reached", reached=False)
PUT_OFF = Unanswered("HTTP 429", wait=0.0)


def sent(began: float = 0.0) -> Open:
    return Open("key", Question("q", (("user", "?"),)), began=began)


def test_a_question_has_so_many_attempts():
    item, patience = sent(), Patience(LIMITS)
    assert [patience.ends(item, BROKE) for _ in range(3)] == [False, False, True]
    assert item.attempts == 3


def test_being_put_off_is_no_failure_while_others_are_answered():
    item, patience = sent(), Patience(LIMITS)
    for _ in range(9):
        assert not patience.ends(item, PUT_OFF)
        patience.answered()
    assert [patience.ends(item, PUT_OFF) for _ in range(3)] == [False, False, True]


def test_being_put_off_is_borne_for_a_time():
    item, patience = sent(), Patience(replace(LIMITS, patience=60.0))
    assert not any(patience.ends(item, PUT_OFF) for _ in range(99))


@pytest.mark.parametrize(("failure", "most"), [(BROKE, 10), (AWAY, 1)])
def test_the_server_is_down_where_it_is_away_or_so_many_are_given_up(failure, most):
    patience = Patience(LIMITS)
    assert [patience.server_is_down(sent(), failure) for _ in range(most)] == [False] * (most - 1) + [True]
    patience.answered()
    assert patience.given_up == 0
    assert not patience.server_is_down(sent(), failure), "it answered another after this was first sent"
