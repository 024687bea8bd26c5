"""Asking about examples, against a server on this machine whose answers are a program's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shoestring.cost import Ledger
from shoestring.methods.rationale import prompts_reading
from shoestring.methods.rationale.ask import Read, ask_about, named
from shoestring.methods.rationale.chains import DIGITS, Shape, asked, chains, solve, taught
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.parse import Parsed, Rules
from shoestring.methods.rationale.prompts import Parameters, Prompt
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.budget import Budget
from shoestring.models.teacher.endpoint import Endpoint
from shoestring.models.teacher.limits import Limits
from shoestring.models.teacher.loopback import Served, serving

PROMPT = prompts_reading.load("chains")
CHAINS = chains(Shape(2, 1), 6, 0)
Answer = Callable[[list[dict[str, str]], dict[str, Any]], str]


def right(messages: list[dict[str, str]], _: dict[str, Any]) -> str:
    reason, label = taught(asked(messages[-1]["content"]))
    return f" {reason} So the answer is {label}."


def about(
    answer: Answer, store: Path, examples: list[Example] = CHAINS, prompt: Prompt = PROMPT, **told: Any
) -> tuple[Read, Served]:
    with serving(answer) as server, Answers(store) as kept:
        return ask_about(examples, prompt, Endpoint("teacher", server.url, api_key="none"), kept, **told), server


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


# by hand


def test_a_teacher_that_knows(store: Path) -> None:
    found, server = about(right, store)
    assert server.requests == len(CHAINS)
    assert found.problems == {}
    assert found.answered == len(CHAINS)
    for before, after in zip(CHAINS, found.examples, strict=True):
        reason, label = solve(before.text)
        assert after == replace(before, rationale=reason, teacher_label=label)
        assert (after.agreement, after.told) == (None, False)
    assert found.parsed == [[Parsed(one.rationale, one.teacher_label)] for one in found.examples]
    assert found.asked.paid.tokens == found.asked.total.tokens == server.tokens > 0


def test_what_the_teacher_is_sent(store: Path) -> None:
    seen: list[tuple[list[dict[str, str]], dict[str, Any]]] = []

    def answer(messages: list[dict[str, str]], parameters: dict[str, Any]) -> str:
        seen.append((messages, parameters))
        return right(messages, parameters)

    about(answer, store, CHAINS[:1])
    (((message,), sent),) = seen
    assert message["role"] == "user"
    assert message["content"].endswith(f"Q: {CHAINS[0].text}\nA:")
    assert (sent["max_tokens"], sent["temperature"], sent["stop"]) == (96, 0.0, ["\nQ:"])
    assert sent.get("seed") is None
    about(answer, store, CHAINS[:1], temperature=0.5, seed=7)
    assert (seen[1][1]["temperature"], seen[1][1]["seed"]) == (0.5, 7)


def test_problems_are_counted_and_give_no_reason(store: Path) -> None:
    says = {
        CHAINS[0].text: "",
        CHAINS[1].text: " I do not know.",
        CHAINS[2].text: " It is so. So the answer is twelve.",
        CHAINS[3].text: " word" * 200,
        CHAINS[4].text: " So the answer is 3.",
    }

    def answer(messages: list[dict[str, str]], told: dict[str, Any]) -> str:
        text = asked(messages[-1]["content"])
        return says[text] if text in says else right(messages, told)

    found, _ = about(answer, store)
    assert found.problems == {
        "empty completion": 1,
        "no marker": 1,
        "label outside the options": 1,
        "cut off": 1,
        "empty reason": 1,
    }
    assert found.examples[:5] == CHAINS[:5], "neither reason nor label"
    assert found.examples[5].teacher_label == CHAINS[5].label
    assert found.answered == len(CHAINS)


def test_a_teacher_that_says_nothing(store: Path) -> None:
    found, _ = about(lambda *_: "", store)
    assert found.problems == {"empty completion": len(CHAINS)}
    assert found.examples == CHAINS


def test_an_earlier_reason_that_the_teacher_does_not_give_again_is_gone(store: Path) -> None:
    before = [replace(CHAINS[0], rationale="old", teacher_label="1")]
    found, _ = about(lambda *_: " I do not know.", store, before)
    assert found.examples == [CHAINS[0]]


# votes


def voting(*said: str) -> Answer:
    """A teacher whose samples differ by the seed that each is sent with."""
    return lambda _, parameters: said[int(parameters["seed"]) - 5]


def test_the_majority_is_taken_with_the_reason_of_the_first(store: Path) -> None:
    answer = voting(
        " first So the answer is 3.", " second So the answer is 4.", " third So the answer is 4.", " no marker"
    )
    found, server = about(answer, store, CHAINS[:2], samples=4, temperature=0.7, seed=5)
    assert server.requests == 8
    for before, after in zip(CHAINS[:2], found.examples, strict=True):
        assert after == replace(before, rationale="second", teacher_label="4", agreement=0.5)
    assert [[one and one.label for one in samples] for samples in found.parsed] == [["3", "4", "4", None]] * 2
    assert found.problems == {"no marker": 2}


def test_of_equal_votes_the_first_is_taken(store: Path) -> None:
    answer = voting(" one So the answer is 3.", " two So the answer is 4.")
    found, _ = about(answer, store, CHAINS[:1], samples=2, temperature=1.0, seed=5)
    (example,) = found.examples
    assert (example.rationale, example.teacher_label, example.agreement) == ("one", "3", 0.5)


def test_where_no_sample_can_vote_there_is_no_agreement(store: Path) -> None:
    found, _ = about(lambda *_: "Who knows?", store, CHAINS[:1], samples=3, temperature=1.0)
    (example,) = found.examples
    assert (example.rationale, example.teacher_label, example.agreement) == (None, None, None)
    assert found.problems == {"no marker": 3}


def test_votes_beat_a_teacher_that_slips(store: Path) -> None:
    def slipping(messages: list[dict[str, str]], parameters: dict[str, Any]) -> str:
        reason, label = taught(asked(messages[-1]["content"]), 0.3, int(parameters.get("seed") or 0))
        return f" {reason} So the answer is {label}."

    some = chains(Shape(2, 1), 60, 0)
    once, _ = about(slipping, store, some, seed=0)
    voted, _ = about(slipping, store, some, samples=7, temperature=1.0, seed=0)

    def errors(found: Read) -> int:
        return sum(one.teacher_label != one.label for one in found.examples)

    assert errors(voted) < errors(once)
    assert errors(once) > 8


@pytest.mark.parametrize(("samples", "temperature"), [(0, 1.0), (2, 0.0), (2, None)])
def test_samples_that_would_all_be_one_are_refused(samples: int, temperature: float | None, store: Path) -> None:
    with pytest.raises(ValueError, match=rf"{samples} samples at temperature .: expected one, or a temperature above"):
        about(right, store, samples=samples, temperature=temperature)


# told


def test_a_teacher_that_is_told_speaks_for_it_and_is_marked(store: Path) -> None:
    def obliging(messages: list[dict[str, str]], _: dict[str, Any]) -> str:
        content = messages[-1]["content"]
        told = content.rpartition("The right answer is ")[2][0]
        return f" because So the answer is {told}."

    wrong = [replace(example, label="7") for example in CHAINS[:2]]
    found, _ = about(obliging, store, wrong, told=True)
    assert [(one.rationale, one.teacher_label, one.told) for one in found.examples] == [("because", "7", True)] * 2
    unreadable, _ = about(lambda *_: "?", store.with_name("other"), wrong, told=True)
    assert [one.told for one in unreadable.examples] == [True, True]
    with pytest.raises(ValueError, match=r"no gold label to tell of"):
        about(obliging, store, [replace(CHAINS[0], label=None)], told=True)


# what is paid


def test_asking_again_pays_for_nothing(store: Path) -> None:
    first, server = about(right, store)
    ledger = Ledger()
    again, silent = about(right, store, ledger=ledger)
    assert again.examples == first.examples
    assert (silent.received, again.asked.paid.tokens, ledger.total().teacher_tokens) == (0, 0, 0)
    assert again.asked.total == first.asked.total
    more, server = about(right, store, chains(Shape(2, 1), 8, 0), ledger=ledger)
    assert (server.requests, ledger.total().teacher_tokens) == (2, server.tokens)
    assert more.examples[:6] == first.examples
    _, server = about(right, store, told=True)
    assert server.requests == 6, "another question"


def test_rows_without_an_answer_are_left_as_they_were(store: Path) -> None:
    before = [replace(example, rationale="old", teacher_label="1", agreement=0.3) for example in CHAINS]
    found, server = about(right, store, before, budget=Budget(tokens=5))
    assert (server.requests, found.answered) == (0, 0)
    assert len(found.asked.failed) == len(CHAINS)
    assert found.examples == before
    assert found.parsed == [[None]] * len(CHAINS)
    about(right, store, before[2:4])
    found, _ = about(right, store, before, budget=Budget(tokens=5))
    assert found.answered == 2, "those in the store were paid before"
    for place, (earlier, example) in enumerate(zip(before, found.examples, strict=True)):
        reason, label = solve(earlier.text)
        asked_once = Example(earlier.text, label, DIGITS, reason, label)
        assert example == (asked_once if place in (2, 3) else earlier)


def test_a_question_that_the_server_refuses_is_named_and_left(store: Path) -> None:
    def answer(messages: list[dict[str, str]], parameters: dict[str, Any]) -> str:
        if asked(messages[-1]["content"]) == CHAINS[1].text:
            raise RuntimeError("no")
        return right(messages, parameters)

    some = [replace(CHAINS[0], record={"id": "first"}), replace(CHAINS[1], record={"id": "", "uid": 17}), CHAINS[2]]
    found, _ = about(answer, store, some, limits=Limits(attempts=1))
    assert list(found.asked.failed) == ["row 2 (17)"]
    assert found.examples[1] == some[1]
    assert found.parsed[1] == [None]
    assert found.answered == 2


def test_some_samples_of_a_row_are_enough_to_vote(store: Path) -> None:
    def answer(_: Any, parameters: dict[str, Any]) -> str:
        if parameters["seed"] == 1:
            raise RuntimeError("no")
        return f" since So the answer is {'3' if parameters['seed'] else '4'}."

    found, _ = about(answer, store, CHAINS[:1], samples=4, temperature=1.0, seed=0, limits=Limits(attempts=1))
    (example,) = found.examples
    assert (example.teacher_label, example.agreement) == ("3", 0.5), "of four that were asked for"
    assert [one is None for one in found.parsed[0]] == [False, True, False, False]


def test_one_sample_of_five_is_a_fifth_agreement(store: Path) -> None:
    """The first was paid before; the budget allows no more."""

    def answer(*_: Any) -> str:
        return " since So the answer is 3."

    about(answer, store, CHAINS[:1], temperature=1.0, seed=0)
    found, server = about(answer, store, CHAINS[:1], samples=5, temperature=1.0, seed=0, budget=Budget(tokens=1))
    assert server.received == 0
    assert [one is None for one in found.parsed[0]] == [False, True, True, True, True]
    assert found.examples == [replace(CHAINS[0], rationale="since", teacher_label="3", agreement=0.2)]


# what could not be read whatever the answer


@pytest.mark.parametrize("samples", [1, 3])
def test_options_that_nobody_named_are_missed_before_anything_is_asked(samples: int, store: Path) -> None:
    prompt = prompts_reading.load("cqa")
    some = [Example("Where?", "sea", ("sea", "park")), Example("When?", "soon", record={"id": "q7"})]
    with serving(right) as server, Answers(store) as kept:
        endpoint = Endpoint("teacher", server.url, api_key="none")
        with pytest.raises(ValueError, match=r"^row 2 \(q7\) has no options, of which the prompt cqa reads one: name"):
            ask_about(some, prompt, endpoint, kept, samples=samples, temperature=1.0)
    assert server.received == 0


def refused(examples: list[Example], prompt: Prompt, store: Path, message: str) -> None:
    with serving(right) as server, Answers(store) as kept:
        endpoint = Endpoint("teacher", server.url, api_key="none")
        with pytest.raises(ValueError, match=message):
            ask_about(examples, prompt, endpoint, kept)
    assert server.received == 0


def test_a_gold_label_that_no_answer_can_agree_with_is_missed_before_anything_is_asked(store: Path) -> None:
    some = [Example("A", "spam"), Example("B", "spim", record={"id": 7})]
    prompt = Prompt("mine", "{{text}} {{options}}", "{{rationale}} {{label}}", Rules(), options=("spam", "ham"))
    refused(some, prompt, store, r"^row 2 \(7\) has the gold label 'spim', which is none .* prompt mine: spam, ham$")


def test_a_question_that_names_no_option_is_missed_before_anything_is_asked(store: Path) -> None:
    prompt = Prompt("mine", "{{text}}", "{{rationale}} {{label}}", Rules())
    some = [Example("Mail A", options=("spam", "ham"))]
    refused(some, prompt, store, r"^the prompt mine tells the teacher none of the options \(spam, ham\): put \{\{opt")
    told = replace(prompt, told="{{text}} is {{label}}")
    found, _ = about(lambda *_: "Why? The answer is spam", store, [replace(some[0], label="spam")], told, told=True)
    assert found.examples[0].rationale == "Why?"


def test_a_prompts_own_options_are_enough_and_other_labels_need_none(store: Path) -> None:
    found, server = about(right, store, [replace(CHAINS[0], options=())])
    assert (server.requests, found.answered, found.examples[0].teacher_label) == (1, 1, CHAINS[0].label)
    svamp = prompts_reading.load("svamp")
    found, server = about(lambda *_: "x", store, [Example("How many?", "(1 + 1)", expression=True)], svamp)
    assert (server.requests, found.answered) == (1, 1)


def test_samples_of_one_value_are_one_party(store: Path) -> None:
    """svamp's labels are expressions, as its prompt says."""
    prompt = prompts_reading.load("svamp")
    said = ["(4 + 2)", "(84 / 2)", "(21 * 2)"]

    def answer(_: Any, parameters: dict[str, Any]) -> str:
        return f"So it is. The answer is {said[int(parameters['seed'])]}."

    example = Example("How many?", "42", expression=True)
    found, _ = about(answer, store, [example], prompt, samples=3, temperature=1.0, seed=0)
    assert found.problems == {}
    assert (found.examples[0].teacher_label, found.examples[0].agreement) == ("(84 / 2)", pytest.approx(2 / 3))


def test_a_reason_stays_with_its_example_whatever_the_order_of_answers(store: Path) -> None:
    some = chains(Shape(3, 2), 80, 0)
    found, _ = about(right, store, [*some, *some], concurrency=16)
    assert [one.rationale for one in found.examples] == [solve(one.text)[0] for one in (*some, *some)]


# nothing that is read is run


@pytest.mark.parametrize(
    "reason",
    [
        "{{text}} {{label}} {0} {example.record} %s %(label)s ${HOME}",
        "__import__('os').system('true') # {{ 7 * 7 }}",
        'eval("1/0"); \x00 \u202e \\u0041 \\n </s> <|endoftext|>',
        "[label] x\nAnswer: no {{rationale}}",
    ],
)
def test_what_a_teacher_says_is_only_text(reason: str, store: Path) -> None:
    plain = replace(PROMPT, parameters=Parameters())
    found, _ = about(lambda *_: f" {reason} So the answer is 3.", store, CHAINS[:1], plain)
    assert (found.examples[0].rationale, found.examples[0].teacher_label) == (reason, "3")


def test_what_an_example_says_is_only_text(store: Path) -> None:
    seen = []

    def answer(messages: list[dict[str, str]], _: dict[str, Any]) -> str:
        seen.append(messages[-1]["content"])
        return " x So the answer is 3."

    text = "{{label}} {text} %s __import__('os') {{options}}"
    about(answer, store, [Example(text, "9", DIGITS)])
    assert seen[0].endswith(f"Q: {text}\nA:")


@pytest.mark.parametrize(
    ("record", "name"),
    [({"id": 0}, "row 3 (0)"), ({"id": "", "uid": "u"}, "row 3 (u)"), ({"id": None}, "row 3"), ({}, "row 3")],
)
def test_a_row_is_called_by_its_place_and_its_own_name(record: dict[str, Any], name: str) -> None:
    assert named(2, Example("text", record=record)) == name
