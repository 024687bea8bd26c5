"""What a server's answer says, or why it says nothing."""

from __future__ import annotations

import json

import pytest

from shoestring.models.teacher.replies import one_line, read, words_of
from shoestring.models.teacher.words import Parameters, Question, Reply, Unanswered

QUESTION, PARAMETERS = Question("q", (("user", "é" * 50),)), Parameters(max_tokens=20)
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def said(usage: object = USAGE, **message: object) -> bytes:
    choice = {"message": {"content": "four", **message}, "finish_reason": "stop"}
    return json.dumps({"model": "m-2024", "choices": [choice], "usage": usage}).encode()


def reply(body: bytes) -> Reply:
    return read(body, QUESTION, PARAMETERS, "m", False)


def test_an_answer():
    assert reply(said()) == Reply("four", "stop", 7, 3, "m-2024")


@pytest.mark.parametrize("usage", [None, "absent"])
def test_tokens_that_are_not_said_are_bounded_by_bytes(usage):
    body = json.loads(said(usage))
    if usage == "absent":
        del body["usage"]
    found = reply(json.dumps(body).encode())
    assert not found.counted
    assert found.prompt_tokens >= 100  # bytes of the prompt
    assert found.completion_tokens == len("four") + 1


def test_an_answer_has_no_more_tokens_than_it_may():
    body = json.loads(said(None, content="x" * 500))
    assert reply(json.dumps(body).encode()).completion_tokens == 20


def test_halves_of_characters_are_replaced_wherever_they_stand():
    body = {"model": "m\ud800", "choices": [{"message": {"content": "\ud83d\ude00\ud800"}, "finish_reason": "\udfff"}]}
    found = reply(json.dumps(body).encode())
    assert (found.model, found.text, found.finish_reason) == ("m\ufffd", "😀\ufffd", "\ufffd")


def test_what_else_is_not_said():
    body = json.dumps({"choices": [{"message": {"content": ""}}], "usage": USAGE}).encode()
    assert reply(body) == Reply("", "", 7, 3, "m")


def test_an_answer_that_was_thought_and_never_said_is_one():
    """A model cut while it thinks, or that refuses, sends null: it was paid for, and would send the same again."""
    assert reply(said(content=None)) == Reply("", "stop", 7, 3, "m-2024")
    body = json.dumps({"choices": [{"message": {"tool_calls": []}}], "usage": USAGE}).encode()
    assert reply(body).text == ""


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -7, "completion_tokens": 3},
        {"prompt_tokens": 7.5, "completion_tokens": 3},
        {"prompt_tokens": 10**30, "completion_tokens": 3},
        {"total_tokens": 3},
        {},
        [7, 3],
    ],
)
def test_a_count_that_is_none_costs_no_answer(usage):
    found = reply(said(usage))
    assert not found.counted
    assert found.text == reply(said()).text
    assert found.prompt_tokens == reply(said(None)).prompt_tokens


def test_halves_of_characters_are_replaced():
    assert reply(said(content="a\ud83d\ude00b\ud800c")).text == "a😀b\ufffdc"


@pytest.mark.parametrize(
    ("body", "why", "maybe", "paid"),
    [
        (b"<html>busy\n</html>", r"the answer is no JSON: <html>busy </html>", True, None),
        (b"", r"no JSON", True, None),
        (b"\xff\xfe\xfa", r"no JSON", True, None),
        (b"[" * 100_000, r"no JSON: \[\[", True, None),
        (b"3", r"the answer holds no text: 3", True, None),
        (b"{}", r"the answer holds no text", True, None),
        (json.dumps({"usage": USAGE}).encode(), r"no text", False, (7, 3)),
        (json.dumps({"usage": USAGE, "choices": []}).encode(), r"no text", False, (7, 3)),
        (json.dumps({"usage": USAGE, "choices": ["a"]}).encode(), r"no text", False, (7, 3)),
        (json.dumps({"usage": USAGE, "choices": [{"message": None}]}).encode(), r"no text", False, (7, 3)),
        (said(content=["a"]), r"no text", False, (7, 3)),
    ],
)
def test_what_is_no_answer_may_be_asked_again(body, why, maybe, paid):
    with pytest.raises(Unanswered, match=why) as raised:
        reply(body)
    assert (raised.value.maybe, raised.value.paid, raised.value.reached) == (maybe, paid, True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": {"message": "too\\nlong"}}', "too long"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"message": "no"}', "no"),
        (b'{"detail": [{"loc": 3}]}', '[{"loc": 3}]'),
        (b"plain   words", "plain words"),
        (b'{"error": {"message": "\\u001b[2J\\u001b]0;owned\\u0007no"}}', "[2J ]0;owned no"),
        (b"\x1b[31mred\x9b", "[31mred\ufffd"),
        (b"[3]", "[3]"),
        (b"", ""),
    ],
)
def test_an_errors_own_words(body, words):
    assert words_of(body) == words


def test_long_words_are_cut():
    assert one_line(b"x" * 10**6) == "x" * 200 + "…"
