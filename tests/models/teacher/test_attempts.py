"""The loop, by a teacher that does as the test says: retries, pauses, the budget, and when to give up."""

from __future__ import annotations

import asyncio
import itertools
import re
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.asking import ask
from shoestring.models.teacher.attempts import Standing
from shoestring.models.teacher.budget import Budget
from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.words import Forbidden, Parameters, Question, Refused, Reply, Unanswered

PARAMETERS = Parameters(max_tokens=20)
FAST = Limits(first_wait=0.001, longest_wait=0.004, attempts=4)


def raising(error):
    def answer(question, before):
        raise error

    return answer


# failures


def test_each_question_is_asked_until_it_is_answered(scripted, store, questions):
    def answer(question, before):
        if before < int(question.name[1:]) % 4:
            raise Unanswered("busy")
        return before

    teacher = scripted(answer)
    asked = ask(questions(20), teacher, PARAMETERS, store, limits=FAST)
    assert [reply.text for reply in asked.replies] == [str(number % 4) for number in range(20)]
    assert teacher.asked == {f"q{number}": number % 4 + 1 for number in range(20)}
    assert (asked.failed, asked.stopped, asked.paid.requests) == ({}, None, 20)


def test_no_more_are_in_flight_than_may_be(scripted, store, questions):
    teacher = scripted(lambda question, before: "yes", seconds=0.1)
    ask(questions(40), teacher, PARAMETERS, store, concurrency=7)
    assert (teacher.most, teacher.closed) == (7, 1)


def test_a_question_that_is_refused_fails_alone_and_is_not_asked_again(scripted, store, questions):
    def answer(question, before):
        if question.name == "q3":
            raise Refused("HTTP 400: too long")
        return "yes"

    teacher = scripted(answer)
    asked = ask(questions(6), teacher, PARAMETERS, store, limits=FAST)
    assert asked.failed == {"q3": "HTTP 400: too long"}
    assert [reply is None for reply in asked.replies] == [False, False, False, True, False, False]
    assert teacher.asked["q3"] == 1


def test_where_all_are_refused_the_rest_is_not_sent(scripted, store, questions):
    def refusing(question, before):
        raise Refused("HTTP 400: no parameter top_p")

    teacher = scripted(refusing)
    with pytest.raises(
        ValueError, match=r"^HTTP 400: no parameter top_p: none of 100 questions, one after the other, was answered"
    ):
        ask(questions(300), teacher, PARAMETERS, store, limits=FAST, concurrency=4)
    assert 100 <= len(teacher.sent) < 110
    asked = ask(questions(99), scripted(refusing), PARAMETERS, store, limits=FAST)
    assert len(asked.failed) == 99


def test_a_key_that_is_forbidden_under_way_ends_it_and_one_question_that_is_does_not(scripted, store, questions):
    def answer(question, before):
        number = int(question.name[1:])
        if number % 3 == 0 or number >= 60:
            raise Forbidden("HTTP 403: no")
        return "yes"

    asked = ask(questions(60), scripted(answer), PARAMETERS, store, limits=FAST, concurrency=1)
    assert len(asked.failed) == 20
    teacher = scripted(answer)
    with pytest.raises(ValueError, match=r"^HTTP 403: no: none of 100 questions, one after the other, was answered"):
        ask(questions(1000), teacher, PARAMETERS, store, limits=FAST, concurrency=4)
    assert len(teacher.sent) < 110


def test_an_answer_of_no_use_that_the_server_gives_again_is_paid_for_once(scripted, store, questions):
    """Of a server that heeds the key: the first attempt's answer was lost on its way, or came; it is charged once."""

    def answer(question, before):
        if question.name == "q0":
            return "yes"
        if before == 0 and question.name == "q2":
            raise Unanswered("the connection broke", maybe=True)
        raise Unanswered("the answer holds no text", paid=(10, 5), replayed=before > 0)

    teacher = scripted(answer)
    asked = ask(questions(3), teacher, PARAMETERS, store, limits=FAST, budget=Budget(tokens=10**6))
    assert teacher.asked["q1"] == teacher.asked["q2"] > 2
    assert asked.failed.keys() == {"q1", "q2"}
    assert (asked.paid.tokens, asked.total.tokens, asked.unknown) == (45, 45, 0)
    again = ask(questions(3), teacher, PARAMETERS, store, limits=FAST, budget=Budget(tokens=10**6))
    assert (again.paid.tokens, again.total.tokens, again.unknown) == (0, 45, 0)


def test_a_question_that_fails_again_and_again_fails_alone(scripted, store, questions):
    def answer(question, before):
        if question.name == "q3":
            raise Unanswered("HTTP 500")
        return "yes"

    teacher = scripted(answer, seconds=0.002)
    asked = ask(questions(80), teacher, PARAMETERS, store, limits=FAST, concurrency=2)
    assert asked.failed == {"q3": "HTTP 500 (4 attempts)"}
    assert teacher.asked["q3"] == 4
    assert asked.paid.requests == 79


@pytest.mark.parametrize(("reached", "most"), [(False, 1), (True, 10)])
def test_a_server_that_answers_nothing_ends_it_in_one_line(scripted, store, questions, reached, most):
    teacher = scripted(raising(Unanswered("http://x: no", reached=reached)))
    said = (
        r"^http://x: no \(4 attempts\), and nothing was answered while it was tried: is the server up\? The same comm"
    )
    with pytest.raises(ValueError, match=said):
        ask(questions(1000), teacher, PARAMETERS, store, limits=FAST, concurrency=4)
    assert sum(count == 4 for count in teacher.asked.values()) <= most + 4
    assert len(teacher.asked) < 30


def test_hard_questions_in_a_row_do_not_end_it(scripted, store, questions):
    """As those that the server fails on again and again, one after the other, while it is well."""

    def answer(question, before):
        if question.name in ("q2", "q3", "q4", "q5"):
            raise Unanswered("HTTP 500")
        return "yes"

    for _ in range(2):
        asked = ask(questions(8), scripted(answer), PARAMETERS, store, limits=FAST, concurrency=1)
        assert list(asked.failed) == ["q2", "q3", "q4", "q5"]
        assert len(store) == 4


@pytest.mark.parametrize("hard", [1, 9, 30])
def test_hard_questions_hold_up_no_others_and_do_not_hide_what_is_answered(scripted, store, questions, hard):
    """As those on which a server cuts the connection each time, one at a time: also where they alone are left."""

    def answer(question, before):
        if int(question.name[1:]) < hard:
            raise Unanswered("http://x: the connection broke", maybe=True)
        return "yes"

    for _ in range(2):
        asked = ask(questions(60), scripted(answer), PARAMETERS, store, limits=FAST, concurrency=1)
        assert sum(reply is None for reply in asked.replies) == 60 - len(store) == hard
        assert (asked.stopped is None) == (hard < 10), "of so many in a row, the server may as well be down"
    assert len(asked.failed) == min(hard, 9)


def test_a_few_questions_that_all_fail_are_told_one_by_one(scripted, store, questions):
    asked = ask(questions(2), scripted(raising(Unanswered("HTTP 500"))), PARAMETERS, store, limits=FAST)
    assert asked.failed == {"q0": "HTTP 500 (4 attempts)", "q1": "HTTP 500 (4 attempts)"}


def test_a_server_that_goes_down_under_way_ends_it_and_what_came_is_kept(scripted, store, questions):
    teacher = scripted(lambda question, before: "yes")

    def answer(question, before):
        if len(store) >= 30:
            raise Unanswered("gone", reached=False)
        return "yes"

    teacher.answer = answer
    asked = ask(questions(100), teacher, PARAMETERS, store, limits=FAST, concurrency=4)
    said = (
        r"gone \(4 attempts\), and nothing was answered while it was tried: is the server up\? (\d+) of 100 questions "
    )
    found = re.match(said, asked.stopped or "")
    assert found is not None, asked.stopped
    assert int(found[1]) == 100 - len(store)
    assert sum(reply is not None for reply in asked.replies) == len(store)
    assert 30 <= len(store) < 40


def test_what_is_wrong_for_all_ends_it_at_once_and_keeps_what_is_in_flight(scripted, store, questions):
    def answer(question, before):
        if question.name == "q5":
            raise ValueError("http://x refuses the API key")
        return "yes"

    teacher = scripted(answer, seconds=0.1)
    with pytest.raises(ValueError, match=r"^http://x refuses the API key$"):
        ask(questions(1000), teacher, PARAMETERS, store, concurrency=8)
    assert 7 <= len(store) == len(teacher.asked) - 1 < 30
    assert teacher.closed == 1


def test_a_bug_is_not_hidden(scripted, store, questions):
    with pytest.raises(ZeroDivisionError):
        ask(questions(3), scripted(lambda question, before: 1 // 0), PARAMETERS, store)


def test_a_teacher_that_cancels_itself_is_not_hidden(scripted, store, questions):
    teacher = scripted(raising(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        ask(questions(3), teacher, PARAMETERS, store)


def test_the_users_own_bug_is_not_hidden(scripted, store, questions):
    def tell(standing):
        if standing.done:
            raise KeyError("my bug")

    with pytest.raises(KeyError, match=r"my bug"):
        ask(questions(3), scripted(lambda question, before: "yes"), PARAMETERS, store, tell=tell)


# pauses


def test_a_pause_that_a_server_asks_for_is_for_all(scripted, store, questions):
    def answer(question, before):
        if question.name == "q0" and not before:
            raise Unanswered("HTTP 429", wait=0.3)
        return "yes"

    teacher = scripted(answer, seconds=0.01)
    ask(questions(60), teacher, PARAMETERS, store, limits=FAST, concurrency=4)
    times = [when for when, _ in teacher.sent]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert max(gaps) >= 0.25
    assert sum(gap >= 0.25 for gap in gaps) == 1
    assert gaps.index(max(gaps)) < 20


def test_being_asked_to_wait_is_no_failure_while_others_are_answered(scripted, store, questions):
    def answer(question, before):
        if question.name == "q0" and len(store) < 50:
            raise Unanswered("HTTP 429", wait=0.001)
        return "yes"

    teacher = scripted(answer)
    asked = ask(questions(60), teacher, PARAMETERS, store, limits=FAST, concurrency=2)
    assert asked.failed == {}
    assert teacher.asked["q0"] > FAST.attempts


def test_being_asked_to_wait_for_ever_is_a_failure(scripted, store, questions):
    teacher = scripted(raising(Unanswered("HTTP 429: your money is spent", wait=0.0)))
    with pytest.raises(ValueError, match=r"your money is spent \([0-9]+ attempts\)"):
        ask(questions(30), teacher, PARAMETERS, store, limits=replace(FAST, patience=0.1))
    assert teacher.sent[-1][0] - teacher.sent[0][0] >= 0.1


def test_a_very_long_pause_is_left_to_the_user(scripted, store, questions):
    teacher = scripted(raising(Unanswered("HTTP 429: come back", wait=7200)))
    with pytest.raises(ValueError, match=r"come back: it asks to wait 7,200 s, then the same command goes on"):
        ask(questions(9), teacher, PARAMETERS, store, limits=FAST)


# the budget


def words(question: Question) -> int:
    return 4 + sum(len(text.split()) for _, text in question.messages)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 20), st.sampled_from(["", "", "", "busy", "cut", "paid"])),
        max_size=25,
    ),
    st.integers(0, 2500),
    st.integers(1, 8),
    st.booleans(),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_budget_is_never_passed(scripted, drawn, most, concurrency, money):
    """Whatever a question takes, whatever is lost on its way and was paid for all the same."""
    questions = [
        Question(f"q{n}", (("user", "few shots " * 5 + "x " * size + f"{n}?"),)) for n, (size, _, _) in enumerate(drawn)
    ]
    paid: list[int] = []
    lock = threading.Lock()

    def answer(question, before):
        _, completion, fault = drawn[int(question.name[1:])]
        if before or fault == "":
            paid.append(words(question) + completion)
            return Reply("yes", "stop", words(question), completion, "m")
        with lock:
            paid.append(0 if fault == "busy" else words(question) + completion)
        raise Unanswered(fault, maybe=fault == "cut", paid=(words(question), completion) if fault == "paid" else None)

    budget = Budget(money=most / 100, price_in=1e4, price_out=1e4) if money else Budget(tokens=most)
    with tempfile.TemporaryDirectory() as folder, Answers(Path(folder) / "a") as store:
        teacher = scripted(answer, seconds=0)
        asked = ask(questions, teacher, PARAMETERS, store, budget=budget, limits=FAST, concurrency=concurrency)
    assert sum(paid) <= most
    cut = sum(fault == "cut" and teacher.asked[f"q{n}"] > 0 for n, (_, _, fault) in enumerate(drawn))
    assert asked.unknown == cut
    assert asked.paid.tokens <= sum(paid)
    assert asked.paid == asked.total
    assert all("more than the whole budget" in why for why in asked.failed.values())
    left = sum(reply is None for reply in asked.replies)
    assert (asked.stopped is None) == (left == len(asked.failed))
    if asked.stopped is not None:
        assert f"{left:,} of {len(questions):,} questions are left" in asked.stopped


def test_a_budget_is_used_up_to_what_the_next_may_take(scripted, store):
    """Few-shot prompts of 3,000 bytes and 30 tokens: by bytes alone, a third of the budget would do for one."""
    questions = [Question(f"q{number}", (("user", "x" * 3000 + f" {number:03}"),)) for number in range(200)]
    teacher = scripted(lambda question, before: Reply("yes", "stop", 30, 5, "m"))
    budget = Budget(tokens=3200)
    asked = ask(questions, teacher, PARAMETERS, store, budget=budget, concurrency=8)
    assert asked.paid.tokens == 35 * asked.paid.requests
    assert 3200 - (30 + 3 + 16 + 20) < asked.paid.tokens <= 3200
    assert re.fullmatch(
        rf"the budget is spent \(the next question may take 6[789] tokens\): {asked.paid.tokens:,} of 3,200 tokens "
        rf"are paid, {200 - asked.paid.requests} of 200 questions are left without an answer",
        asked.stopped or "",
    )


def test_what_the_store_holds_costs_nothing_and_teaches_the_bounds(scripted, store):
    questions = [Question(f"q{number}", (("user", "x" * 3000 + f" {number:02}"),)) for number in range(90)]
    teacher = scripted(lambda question, before: Reply("yes", "stop", 30, 5, "m"))
    ask(questions[:5], teacher, PARAMETERS, store)
    asked = ask(questions, teacher, PARAMETERS, store, budget=Budget(tokens=200))
    assert asked.paid.requests == 4  # 140 tokens, and another might take 68: fewer than one by bytes alone
    assert asked.total.requests == 9


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_question_too_large_for_the_whole_budget_is_set_aside_and_the_others_are_asked(scripted, store, concurrency):
    questions = [Question(f"row {n}", (("user", "x" * (100_000 if n == 3 else 30) + f" {n}"),)) for n in range(1, 9)]
    teacher = scripted(lambda question, before: Reply("yes", "stop", len(question.messages[0][1]), 5, "m"))
    for budget in (Budget(tokens=3000), Budget(money=3.0, price_in=1000, price_out=1000)):
        asked = ask(questions, teacher, PARAMETERS, store, budget=budget, concurrency=concurrency)
        assert [reply is None for reply in asked.replies] == [n == 3 for n in range(1, 9)]
        assert asked.stopped is None
        assert re.match(
            r"row 3 may take 100,\d+ tokens.*, more than the whole budget: give a larger one$", asked.failed["row 3"]
        )


def test_a_question_that_is_too_large_by_bytes_alone_is_asked_once_tokens_are_known(scripted, store):
    shared = "x" * 8000
    questions = [Question(f"row {n}", (("user", shared + "y" * (3000 if n == 1 else 30)),)) for n in range(1, 4)]
    counted = {question.name: 2000 + len(question.messages[0][1]) - 8000 for question in questions}
    teacher = scripted(lambda question, before: Reply("yes", "stop", counted[question.name], 5, "m"))
    asked = ask(questions, teacher, PARAMETERS, store, budget=Budget(tokens=10_000))
    assert None not in asked.replies
    asked = ask(questions[:1], teacher, replace(PARAMETERS, seed=1), store, budget=Budget(tokens=10_000))
    assert asked.failed.keys() == {"row 1"}, "alone, nothing is known of it"


def test_a_budget_that_lost_attempts_used_up_says_how_they_ended(scripted, store, questions):
    teacher = scripted(raising(Unanswered("HTTP 502", maybe=True)))
    asked = ask(questions(3), teacher, PARAMETERS, store, limits=FAST, budget=Budget(tokens=700), concurrency=1)
    assert re.match(r"the budget is spent \(.*; the last that was lost: HTTP 502\): ", asked.stopped or "")


def test_a_budget_of_nothing_asks_nothing(scripted, store, questions):
    teacher = scripted(lambda question, before: "yes")
    asked = ask(questions(3), teacher, PARAMETERS, store, budget=Budget(tokens=0))
    assert (teacher.sent, asked.paid.requests) == ([], 0)
    assert "0 of 0 tokens are paid, 3 of 3 questions are left" in (asked.stopped or "")


def test_prices_alone_are_no_limit(scripted, store, questions):
    teacher = scripted(lambda question, before: Reply("", "stop", 10**6, 10**5, "m"))
    asked = ask(questions(3), teacher, PARAMETERS, store, budget=Budget(price_in=2, price_out=10))
    assert (asked.stopped, asked.paid.money) == (None, 9.0)


def test_a_server_that_does_not_count_one_answer_is_not_said_to_have_counted_much(scripted, store, questions):
    def answer(question, before):
        return Reply("yes", "stop", 160, 5, "m", counted=False) if question.name == "q4" else "yes"

    asked = ask(questions(9), scripted(answer), PARAMETERS, store, budget=Budget(tokens=100_000), concurrency=1)
    assert (asked.stopped, asked.failed, asked.uncounted) == (None, {}, 1)
    assert asked.replies[4] is not None
    assert asked.replies[4].prompt_tokens < 40  # as a prompt like those that were counted


def test_what_was_paid_in_vain_is_told_at_once(scripted, store, questions):
    told: list[Standing] = []

    def answer(question, before):
        if not before:
            raise Unanswered("no text", paid=(70, 10))
        return "yes"

    asked = ask(questions(2), scripted(answer), PARAMETERS, store, limits=FAST, concurrency=1, tell=told.append)
    assert [(standing.done, standing.tokens) for standing in told[:2]] == [(0, 0), (0, 80)]
    assert (told[-1].done, told[-1].tokens) == (2, asked.paid.tokens)


def test_a_server_that_counts_more_than_can_be_is_told(scripted, store, questions):
    def answer(question, before):
        return Reply("yes", "stop", 10, 500 if question.name == "q2" else 5, "m")

    asked = ask(questions(9), scripted(answer), PARAMETERS, store, budget=Budget(tokens=900), concurrency=1)
    assert asked.stopped == (
        "q2: the server counted 10 tokens of prompt and 500 of answer, where at most 28 and 20 were expected, so that "
        "the budget cannot be kept to: 540 of 900 tokens are paid, 6 of 9 questions are left without an answer"
    )
    assert asked.replies[2] is not None


def test_limits_a_minute_hold_back(scripted, store, questions):
    """Two may pass at once; the third would come a minute later, and is stopped before."""
    teacher = scripted(lambda question, before: "yes")
    limits = Limits(requests_per_minute=2)

    def tell(standing):
        if standing.done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        ask(questions(9), teacher, PARAMETERS, store, limits=limits, tell=tell)
    assert len(teacher.sent) == 2
