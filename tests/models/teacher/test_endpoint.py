"""One attempt at an endpoint, and what became of it."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from shoestring.models.teacher.endpoint import Endpoint
from shoestring.models.teacher.limits import retry_after
from shoestring.models.teacher.loopback import Exchange, serving
from shoestring.models.teacher.words import Parameters, Question, Refused, Reply, Unanswered, key

QUESTION = Question("q", (("system", "be brief"), ("user", "naïve {braces} 😀?")), sample=2)
PARAMETERS = Parameters()
SECRET = "sk-this-is-never-shown"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def complete(teacher: Endpoint, question: Question = QUESTION, parameters: Parameters = PARAMETERS) -> Reply:
    async def one() -> Reply:
        try:
            return await teacher.complete(question, parameters, key(question, teacher.model, parameters))
        finally:
            await teacher.close()

    return asyncio.run(one())


def saying(status: int, body: bytes, **headers: str) -> type[Exchange]:
    """A server that says this to every request, and keeps what it was sent."""

    class Saying(Exchange):
        got: ClassVar[list[Any]] = []

        def complete(self, sent: dict[str, Any]) -> None:
            self.got.append((sent, dict(self.headers)))
            self.give(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    return Saying


def test_a_reply_and_what_was_sent_for_it():
    exchange = saying(200, b"{}")
    parameters = Parameters(max_tokens=9, temperature=0.5, top_p=0.9, stop=("\n",), seed=40)
    with serving(lambda messages, body: messages[-1]["content"].upper()) as served:
        assert complete(Endpoint("m", served.url)) == Reply("NAÏVE {BRACES} 😀?", "stop", 13, 4, "m")
    with serving(lambda messages, body: "", exchange=exchange) as served, pytest.raises(Unanswered):
        complete(Endpoint("m", served.url, SECRET), QUESTION, parameters)
    ((sent, headers),) = exchange.got
    assert sent == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "naïve {braces} 😀?"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 42,
    }
    assert headers["Idempotency-Key"] == key(QUESTION, "m", parameters)
    assert headers["Authorization"] == f"Bearer {SECRET}"


def test_without_a_key_none_is_sent():
    exchange = saying(200, b"{}")
    with serving(lambda messages, body: "", exchange=exchange) as served, pytest.raises(Unanswered):
        complete(Endpoint("m", served.url, length_field="max_completion_tokens"))
    ((sent, headers),) = exchange.got
    assert "Authorization" not in headers
    assert sent.keys() == {"model", "messages", "max_completion_tokens", "temperature", "top_p"}


def test_url_and_key_come_from_the_environment(monkeypatch):
    exchange = saying(200, b"{}")
    with serving(lambda messages, body: "", exchange=exchange) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.url + "/")
        monkeypatch.setenv("OPENAI_API_KEY", SECRET + "\n")
        with pytest.raises(Unanswered):
            complete(Endpoint("m"))
    assert exchange.got[0][1]["Authorization"] == f"Bearer {SECRET}"


def test_a_hundred_kilobytes_go_there_and_come_back():
    text = "lorem ipsum " * 8500
    with serving(lambda messages, body: messages[0]["content"]) as served:
        parameters = Parameters(max_tokens=50_000)
        assert complete(Endpoint("m", served.url), Question("q", (("user", text),)), parameters).text == text


def test_a_replayed_answer_is_known():
    with serving(lambda messages, body: "yes") as served:
        teacher = Endpoint("m", served.url)
        assert [complete(teacher).replayed for _ in range(2)] == [False, True]  # and in event loops of their own


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529])
def test_errors_that_pass(status):
    exchange = saying(status, b'{"error": {"message": "busy"}}', Retry_After="7")
    with (
        serving(lambda messages, body: "", exchange=exchange) as served,
        pytest.raises(Unanswered, match=rf"v1: HTTP {status}: busy") as raised,
    ):
        complete(Endpoint("m", served.url))
    assert raised.value.wait == (7 if status in (429, 503) else None)
    assert raised.value.reached
    assert raised.value.maybe == (status in (502, 504, 520, 524))


@pytest.mark.parametrize("status", [400, 403, 413, 418, 422])
def test_errors_of_one_question(status):
    exchange = saying(status, b'{"error": {"message": "the prompt is\\n too long"}}')
    with (
        serving(lambda messages, body: "", exchange=exchange) as served,
        pytest.raises(Refused, match=rf"^HTTP {status}: the prompt is too long$"),
    ):
        complete(Endpoint("m", served.url))


@pytest.mark.parametrize(
    ("status", "given", "said"),
    [
        (401, SECRET, r"v1 refuses the API key \(HTTP 401: wrong \(the key\)\): is the API key one of this server\?$"),
        (401, None, r"v1 refuses the API key \(HTTP 401: .*\): set OPENAI_API_KEY to a key of this server$"),
        (402, SECRET, r"v1 does not offer model 'm' to this account \(HTTP 402: .*\)"),
        (404, SECRET, r"v1 has no model 'm', or is no such server \(HTTP 404: .*\): are URL and name right\?$"),
        (405, SECRET, r"v1 has no model 'm', or is no such server \(HTTP 405"),
        (301, SECRET, r"v1 moves to http://elsewhere/v1: give that URL$"),
    ],
)
def test_errors_of_all_questions_are_one_line(status, given, said):
    body = json.dumps({"error": {"message": f"wrong {SECRET}"}}).encode()
    exchange = saying(status, body, Location="http://elsewhere/v1")
    with (
        serving(lambda messages, body: "", exchange=exchange) as served,
        pytest.raises(ValueError, match=said) as raised,
    ):
        complete(Endpoint("m", served.url, given))
    assert "\n" not in str(raised.value)
    assert given is None or SECRET not in str(raised.value)


@pytest.fixture
def closed() -> str:
    """A port where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_nobody_there(closed):
    with pytest.raises(Unanswered, match=r"v1 cannot be reached \(Connection refused\)") as raised:
        complete(Endpoint("m", closed))
    assert (raised.value.reached, raised.value.maybe) == (False, False)


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that connects and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}/v1"


def test_no_answer_in_time(silent):
    with pytest.raises(Unanswered, match=r"v1: no answer within 0\.2 s") as raised:
        complete(Endpoint("m", f"http://{silent}", timeout=0.2))
    assert (raised.value.reached, raised.value.maybe) == (True, True)


def test_https_where_there_is_none():
    with (
        serving(lambda messages, body: "") as served,
        pytest.raises(ValueError, match=r"no secure connection .*: is it https, and its certificate known\?"),
    ):
        complete(Endpoint("m", served.url.replace("http:", "https:")))


@pytest.mark.parametrize("fault", ["too long", "half a chunk", "hang up", "reset"])
def test_a_connection_that_breaks(failing, fault):
    with (
        serving(lambda messages, body: "yes", exchange=failing(1.0, faults=(fault,))) as served,
        pytest.raises(Unanswered, match=r"v1: the connection broke \(.+\)") as raised,
    ):
        complete(Endpoint("m", served.url))
    assert raised.value.maybe


def test_a_text_that_cannot_be_sent_fails_alone(closed):
    with pytest.raises(Refused, match=r"its text holds half a character"):
        complete(Endpoint("m", closed), Question("q", (("user", "a\ud800"),)))


@pytest.mark.parametrize("url", ["127.0.0.1:8000/v1", "ftp://a/v1", "http://", "http://a/v1?key=3", "nonsense"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=r"is no server's URL: expected one such as http://127\.0\.0\.1:8000/v1"):
        Endpoint("m", url)


def test_a_url_with_its_end_is_understood():
    assert Endpoint("m", " http://a/v1/chat/completions/ ").url == "http://a/v1"


def test_a_key_that_is_none_is_refused_and_not_shown():
    with pytest.raises(ValueError, match=r"the API key holds characters that no key has") as raised:
        Endpoint("m", "http://a/v1", "sk-ä\nb")
    assert "sk-" not in str(raised.value)


def test_proxies_are_for_other_machines(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "near.example")
    proxies = {host: Endpoint("m", f"http://{host}/v1")._proxy for host in ("far.example", "near.example", "[::1]:80")}
    assert proxies == {"far.example": "http://127.0.0.1:9", "near.example": None, "[::1]:80": None}
    with serving(lambda messages, body: "yes") as served:
        assert complete(Endpoint("m", served.url)).text == "yes"


def test_without_its_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'shoestring\[rationale\]'$"):
        Endpoint("m", "http://127.0.0.1:1/v1")


def test_connections_are_used_again():
    connections = set()

    class Watched(Exchange):
        def complete(self, sent: dict[str, Any]) -> None:
            connections.add(self.client_address)
            super().complete(sent)

    async def several(teacher: Endpoint) -> None:
        for number in range(5):
            await teacher.complete(QUESTION, Parameters(), str(number))
        await teacher.close()
        await teacher.close()

    with serving(lambda messages, body: "yes", exchange=Watched) as served:
        asyncio.run(several(Endpoint("m", served.url)))
    assert len(connections) == 1


def test_a_date_to_wait_for_is_understood():
    assert retry_after("Thu, 01 Jan 1970 00:00:10 GMT", now=3.0) == 7
