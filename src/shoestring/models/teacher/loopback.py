"""An OpenAI-compatible endpoint on this machine that answers by a Python function: for tests, and to try a recipe."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[list[dict[str, str]], dict[str, Any]], str]
_TOKEN = re.compile(r"\s*\S+|\s+$")
_LARGEST = 64 * 2**20  # bytes of a request


@dataclass
class Served:
    """Where it answers, and what it has counted.

    url                ends in /v1, for a client's base URL
    requests           completions that were made, each once: a repeated Idempotency-Key makes none
    received           requests for a completion that came in, all of them
    """

    url: str
    requests: int = 0
    received: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def came(self) -> None:
        with self._lock:
            self.received += 1

    def made(self, prompt: int, completion: int) -> None:
        with self._lock:
            self.requests += 1
            self.prompt_tokens += prompt
            self.completion_tokens += completion


def tokens(text: str) -> int:
    """How many tokens this server takes a text for: one a word, with the white space before it."""
    return len(_TOKEN.findall(text))


def prompt_tokens(messages: list[dict[str, str]]) -> int:
    """Those of the texts, and four for each message."""
    return sum(4 + tokens(message["content"]) for message in messages)


def completion(text: str, body: dict[str, Any]) -> tuple[str, str, int]:
    """The text as a server gives it back, why it ends, and its tokens, the one that ends it included."""
    stops = body.get("stop") or []
    places = [text.find(stop) for stop in ([stops] if isinstance(stops, str) else stops)]
    text = text[: min((place for place in places if place >= 0), default=len(text))]
    most = body.get("max_tokens") or body.get("max_completion_tokens")
    words = _TOKEN.findall(text)
    if most is not None and len(words) >= most:
        return "".join(words[:most]), "length" if len(words) > most else "stop", most
    return text, "stop", len(words) + 1


@contextmanager
def serving(
    answer: Answer, *, model: str = "loopback", host: str = "127.0.0.1", exchange: type[Exchange] | None = None
) -> Iterator[Served]:
    """Serve `/v1/chat/completions` and `/v1/models` while the context is open, on a port of the system's choosing.

    answer    of (messages, the request's other fields) makes the text; it is called in several threads at once. What it
              raises is this server's 500
    exchange  how a request is dealt with, to let a test's server fail
    A request that repeats an Idempotency-Key gets the first one's answer, with `Idempotent-Replayed: true`, and counts
    nothing. Raises ValueError where the host is not this machine's loopback.
    """
    if not _loopback(host):
        raise ValueError(f"host {host!r}: expected a loopback address such as 127.0.0.1: this server asks for no key")
    server = _Server((host, 0), exchange or Exchange)
    server.answer, server.model = answer, model
    name = f"[{host}]" if ":" in host else host
    server.served = Served(f"http://{name}:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.served
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 512  # clients connect all at once
    answer: Answer
    model: str
    served: Served

    def __init__(self, address: tuple[str, int], exchange: type[Exchange]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.lock = threading.Lock()
        self.kept: dict[str, tuple[Any, Future[bytes]]] = {}
        self.connections: set[socket.socket] = set()
        super().__init__(address, exchange)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self.lock:
            self.connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End the connections that clients keep open: their threads wait for a next request."""
        with self.lock:
            for connection in self.connections:
                with _gone():
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news."""

    def make(self, body: dict[str, Any]) -> bytes:
        messages = body["messages"]
        text, reason, count = completion(self.answer(messages, body), body)
        prompt = prompt_tokens(messages)
        self.served.made(prompt, count)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        usage = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
        made = {"id": "loopback", "object": "chat.completion", "created": 0, "model": body["model"]}
        return json.dumps({**made, "choices": [choice], "usage": usage}).encode()


@contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


class Exchange(BaseHTTPRequestHandler):
    """One connection's requests and their answers."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("/models"):
            listed = [{"id": self.server.model, "object": "model", "created": 0, "owned_by": "you"}]
            self.give(200, json.dumps({"object": "list", "data": listed}).encode())
        else:
            self.refuse(404, f"nothing is at {self.path}")

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        if size > _LARGEST:
            self.close_connection = True
            self.refuse(413, f"a request of {size} bytes: expected at most {_LARGEST}")
            return
        read = self.rfile.read(size)
        if self.path != "/v1/chat/completions":
            self.refuse(404, f"nothing is at {self.path}: expected /v1/chat/completions")
            return
        try:
            body = json.loads(read)
            _check(body)
        except ValueError as error:
            self.refuse(400, str(error))
            return
        self.server.served.came()
        self.complete(body)

    def complete(self, body: dict[str, Any]) -> None:
        """Answer a request that was understood."""
        future, replayed = self.once(body)
        if future is None:
            self.refuse(422, "another request came under the same Idempotency-Key")
        elif (error := future.exception()) is not None:
            self.refuse(500, f"{type(error).__name__}: {error}")
        else:
            self.give(200, future.result(), {"Idempotent-Replayed": "true"} if replayed else {})

    def once(self, body: dict[str, Any]) -> tuple[Future[bytes] | None, bool]:
        """The answer to a request, made once for each Idempotency-Key, and whether it was made before; None where the
        key came with another request."""
        name = self.headers.get("Idempotency-Key")
        mine: Future[bytes] = Future()
        with self.server.lock:
            asked, future = self.server.kept.setdefault(name, (body, mine)) if name else (body, mine)
        if asked != body:
            return None, False
        if future is mine:
            try:
                mine.set_result(self.server.make(body))
            except BaseException as error:
                with self.server.lock:
                    self.server.kept.pop(name or "", None)  # it may do better the next time
                mine.set_exception(error)
                self.close_connection = True  # what is raised ends it
                self.refuse(500, f"{type(error).__name__}: {error}")
                raise
        return future, future is not mine

    def refuse(self, status: int, message: str) -> None:
        self.give(status, json.dumps({"error": {"message": message, "type": "loopback"}}).encode())

    def give(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        told = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        if self.close_connection:
            told["Connection"] = "close"  # else the next request might be sent on it
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        reason = self.responses.get(status, ("",))[0]
        # in one piece: head and body apart would wait for each other's acknowledgement
        self.wfile.write(f"HTTP/1.1 {int(status)} {reason}\r\n{lines}\r\n".encode("latin-1") + body)


def _check(body: Any) -> None:
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages: expected a list of one or more")
    for message in messages:
        if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("role", "content")):
            raise ValueError("messages: expected role and content of each, both texts")
    if not isinstance(body.get("model"), str):
        raise ValueError("model: expected a name")
    if body.get("stream"):
        raise ValueError("stream: this server answers in one piece")
