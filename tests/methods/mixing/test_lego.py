"""LEGO and look-ups: every answer is that of a parser which knows nothing of how the question was made."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.mixing.lego import KINDS, LETTERS, lego, look_up
from shoestring.methods.mixing.samples import Pieces


def evaluated(given_as: dict[str, tuple[bool, str]], name: str) -> tuple[int, int]:
    """Value of a variable, and how many clauses it takes to say it."""
    negated, term = given_as[name]
    if term in "01":
        return int(term) ^ negated, 1
    value, depth = evaluated(given_as, term)
    return value ^ negated, depth + 1


def parsed(question: str, style: str) -> tuple[dict[str, tuple[bool, str]], list[str], str]:
    """What each variable is given as, the order of the clauses, and the variable asked for."""
    if style == "short":
        clauses, asked = question.split("?")
        found = re.findall(r"([a-z])([a-zA-Z01])", clauses)
        assert "".join(map("".join, found)) == clauses
        terms = [(name, term.isupper(), term.lower()) for name, term in found]
    else:
        whole = re.fullmatch(r"Input: (.+)\. Output: ([a-z]) = val", question)
        assert whole
        asked, terms = whole[2], []
        for clause in whole[1].split(" , "):
            name, equals, word, term = clause.split(" ")
            assert equals == "="
            terms.append((name, {"val": False, "not": True}[word], term))
    order = [name for name, _, _ in terms]
    assert len(set(order)) == len(order)
    return {name: (negated, term) for name, negated, term in terms}, order, asked


def asked_and_answered(sample: Pieces) -> tuple[str, str]:
    (question, first), (answer, second) = sample
    assert (first, second) == (False, True)
    return question, answer


# LEGO


@pytest.mark.parametrize("style", ["short", "sentence"])
@pytest.mark.parametrize(("clauses", "depth"), [(1, 1), (3, 1), (3, 3), (5, 2), (5, 4), (26, 26)])
def test_each_answer_is_that_of_the_chain(clauses: int, depth: int, style: Any) -> None:
    count = 20 if clauses == 1 else 60
    found = [asked_and_answered(sample) for sample in lego(clauses, depth, count, 3, style)]
    values, negations, orders = set(), set(), set()
    for question, answer in found:
        given_as, order, asked = parsed(question, style)
        assert len(given_as) == clauses
        roots = [name for name, (_, term) in given_as.items() if term in "01"]
        assert len(roots) == 1
        assert not given_as[roots[0]][0]
        # one chain: each other variable is asked of by at most one
        assert len({term for _, term in given_as.values()}) == clauses
        value, deep = evaluated(given_as, asked)
        assert deep == depth
        assert answer == (str(value) if style == "short" else f" {value}")
        values.add(value)
        negations |= {negated for negated, _ in given_as.values()}
        orders.add(order.index(asked))
    assert values == {0, 1}
    assert negations == ({False} if clauses == 1 else {False, True})
    assert len(orders) > 1 or clauses == 1
    assert len({question for question, _ in found}) == len(found) == count


def test_by_hand() -> None:
    question, answer = asked_and_answered(lego(2, 2, 1, 0)[0])
    assert re.fullmatch(r"[a-z][a-zA-Z01][a-z][a-zA-Z01]\?[a-z]", question)
    assert answer in "01"
    sentence, said = asked_and_answered(lego(2, 2, 1, 0, "sentence")[0])
    assert re.fullmatch(r"Input: [a-z] = (val|not) [a-z01] , [a-z] = (val|not) [a-z01]\. Output: [a-z] = val", sentence)
    assert said == f" {answer}"
    assert parsed(question, "short") == parsed(sentence, "sentence")  # the same question in both styles


def test_all_there_are_can_be_asked_and_not_one_more() -> None:
    assert len(lego(1, 1, 52, 0)) == 52
    with pytest.raises(ValueError, match="there are not 53 different questions of 1 clauses"):
        lego(1, 1, 53, 0)


@given(seed=st.integers(0, 10**9), clauses=st.integers(2, 8), data=st.data())
def test_any_question_is_answered_rightly(seed: int, clauses: int, data: st.DataObject) -> None:
    depth = data.draw(st.integers(1, clauses))
    for sample in lego(clauses, depth, 3, seed):
        question, answer = asked_and_answered(sample)
        given_as, _, asked = parsed(question, "short")
        assert evaluated(given_as, asked) == (int(answer), depth)


def test_seeds_and_depths_ask_other_questions() -> None:
    assert lego(5, 2, 50, 0) == lego(5, 2, 50, 0)
    assert lego(5, 2, 80, 0)[:50] == lego(5, 2, 50, 0)
    sets = [{sample[0][0] for sample in lego(5, depth, 50, seed)} for depth in (2, 3) for seed in (0, 1)]
    assert len(set.union(*sets)) == 200


@pytest.mark.parametrize(("clauses", "depth"), [(3, 0), (3, 4), (27, 1), (0, 0)])
def test_depths_that_cannot_be(clauses: int, depth: int) -> None:
    with pytest.raises(ValueError, match=f"depth {depth} of {clauses} clauses: expected from 1"):
        lego(clauses, depth, 1, 0)


# look-ups


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clauses", [1, 4, 26])
def test_each_look_up_is_what_stands_in_the_context(kind: str, clauses: int) -> None:
    seen: set[str] = set()
    orders = set()
    for sample in look_up(clauses, kind, 20, 1):
        context, questions = sample[0][0], sample[1:]
        assert sample[0][1] is False
        terms = re.findall(r"([a-z])([a-zA-Z01])", context)
        assert "".join(map("".join, terms)) == context
        given_as = dict(terms)
        assert len(given_as) == clauses
        asked = [text for text, scored in questions if not scored]
        answers = [text for text, scored in questions if scored]
        assert sorted(mark[1:] for mark in asked) == sorted(given_as)
        assert {mark[0] for mark in asked} == {{"read": "#", "value": "?"}[kind]}
        orders.add(tuple(list(given_as).index(mark[1:]) for mark in asked))
        for mark, answer in zip(asked, answers, strict=True):
            assert answer == given_as[mark[1:]]
            assert kind == "read" or answer in "01"
            seen.add(answer)
    assert {"0", "1"} <= seen
    assert kind == "value" or clauses == 1 or (seen & set(LETTERS) and seen & set(LETTERS.upper()))
    assert len(orders) > 1 or clauses == 1


def test_look_ups_come_again_with_their_seed() -> None:
    assert look_up(4, "read", 9, 0) == look_up(4, "read", 9, 0)
    assert look_up(4, "read", 9, 0) != look_up(4, "read", 9, 1)


def test_look_ups_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="kind 'find': expected one of read, value"):
        look_up(4, "find", 1, 0)
    for clauses in (0, 27):
        with pytest.raises(ValueError, match=f"{clauses} clauses: expected from 1 to 26"):
            look_up(clauses, "read", 1, 0)
