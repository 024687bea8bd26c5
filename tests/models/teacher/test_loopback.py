"""The server on this machine: what it counts, and that it ends."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest

from shoestring.models.teacher.loopback import Served, completion, prompt_tokens, serving, tokens

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "two and two?"}]


def post(
    served: Served, body: Any, path: str = "/v1/chat/completions", **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """One request on a connection of its own: status, body, headers."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=10)
    try:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, sent, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read()), dict(response.getheaders())
    finally:
        connection.close()


def test_tokens_are_words_with_the_space_before_them():
    assert tokens("") == 0
    assert tokens("four") == tokens(" four") == 1
    assert tokens("the cat\n sat ") == 4
    assert prompt_tokens(MESSAGES) == 4 + 2 + 4 + 3


@pytest.mark.parametrize(
    ("text", "body", "found"),
    [
        ("one two three", {}, ("one two three", "stop", 4)),
        ("one two three", {"max_tokens": 2}, ("one two", "length", 2)),
        ("one two three", {"max_completion_tokens": 2}, ("one two", "length", 2)),
        ("one two three", {"max_tokens": 3}, ("one two three", "stop", 3)),
        ("one\n\ntwo three", {"stop": ["three", "\n"]}, ("one", "stop", 2)),
        ("one two", {"stop": " two"}, ("one", "stop", 2)),
        ("", {"max_tokens": 1}, ("", "stop", 1)),
    ],
)
def test_an_answer_ends_where_it_is_told_to(text, body, found):
    assert completion(text, body) == found


def test_it_answers_and_counts():
    with serving(lambda messages, body: f"{messages[-1]['content']} {body['seed']}") as served:
        status, said, _ = post(served, {"model": "m", "messages": MESSAGES, "seed": 3})
        assert status == 200
        assert said["choices"][0] == {
            "index": 0,
            "message": {"role": "assistant", "content": "two and two? 3"},
            "finish_reason": "stop",
        }
        assert said["usage"] == {"prompt_tokens": 13, "completion_tokens": 5, "total_tokens": 18}
        assert (served.requests, served.received, served.tokens) == (1, 1, 18)


def test_a_repeated_key_gets_the_same_body_and_is_not_counted():
    calls = iter(range(9))
    with serving(lambda messages, body: str(next(calls))) as served:
        body = {"model": "m", "messages": MESSAGES}
        first = post(served, body, Idempotency_Key="a")
        again = post(served, body, Idempotency_Key="a")
        other = post(served, body, Idempotency_Key="b")
        without = post(served, body)
        assert [one[1]["choices"][0]["message"]["content"] for one in (first, again, other, without)] == list("0012")
        assert [one[2].get("Idempotent-Replayed") for one in (first, again, other)] == [None, "true", None]
        assert (served.requests, served.received) == (3, 4)
        assert post(served, {**body, "seed": 1}, Idempotency_Key="a")[0] == 422


def test_a_key_that_comes_twice_at_once_is_answered_once():
    begun, go = threading.Event(), threading.Event()

    def answer(messages: Any, body: Any) -> str:
        begun.set()
        assert go.wait(10)
        return "yes"

    with serving(answer) as served:
        found: list[Any] = []
        threads = [
            threading.Thread(
                target=lambda: found.append(post(served, {"model": "m", "messages": MESSAGES}, Idempotency_Key="a"))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        assert begun.wait(10)
        go.set()
        for thread in threads:
            thread.join()
        assert [one[0] for one in found] == [200] * 4
        assert served.requests == 1


def test_an_answer_that_raises_is_a_500_and_may_come_again():
    failing = [True]

    def answer(messages: Any, body: Any) -> str:
        if failing:
            raise KeyError(failing.pop())
        return "yes"

    with serving(answer) as served:
        body = {"model": "m", "messages": MESSAGES}
        status, said, headers = post(served, body, Idempotency_Key="a")
        assert (status, said["error"]["message"]) == (500, "KeyError: True")
        assert headers["Connection"] == "close", "it ends, and a client is not to send the next request on it"
        status, _, headers = post(served, body, Idempotency_Key="a")
        assert (status, "Connection" in headers) == (200, False)
        assert served.requests == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        [],
        {"messages": MESSAGES},
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "user"}]},
        {"model": "m", "messages": [{"role": "user", "content": None}]},
        {"model": "m", "messages": MESSAGES, "stream": True},
    ],
)
def test_what_it_does_not_understand_is_a_400(body):
    with serving(lambda messages, body: "") as served:
        status, said, _ = post(served, body)
        assert (status, served.received) == (400, 0)
        assert said["error"]["message"]


def test_models_and_other_paths():
    with serving(lambda messages, body: "", model="teacher") as served:
        connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=10)
        for path, status in (("/v1/models", 200), ("/v1/other", 404)):
            connection.request("GET", path)  # the second on the same connection
            response = connection.getresponse()
            said = json.loads(response.read())
            assert response.status == status
            assert "error" in said or said["data"][0]["id"] == "teacher"
        connection.close()
        assert post(served, {}, path="/chat/completions")[0] == 404


def test_it_ends_while_a_client_keeps_its_connection():
    threads = threading.active_count()
    with serving(lambda messages, body: "") as served:
        connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=10)
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        assert threading.active_count() > threads
    assert threading.active_count() == threads
    connection.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.org", "", "::"])
def test_other_machines_are_not_served(host):
    refused = serving(lambda messages, body: "", host=host)
    with pytest.raises(ValueError, match=r"expected a loopback address"):
        refused.__enter__()
