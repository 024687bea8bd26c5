r"""Questions a second of a teacher behind an endpoint: ours, and the bare `openai` client. Ratios come last.

    python benchmarks/asking.py --json results/benchmarks/asking.json

A server in a process of its own answers each request after a delay, any number at once. Ours keeps every answer on the
disk before it counts as done, in a store that is new each round and open when the clock starts. The peer is
`openai.AsyncOpenAI` without retries, under `asyncio.gather` and a semaphore, and keeps nothing. The ideal is the
requests over the concurrency, times the delay. Contenders take turns, the first another each round; seconds are the
median over the rounds, and so are ratios; CPU time is of this process, without the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from shoestring.evaluate.facts import gather
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.asking import ask
from shoestring.models.teacher.endpoint import Endpoint
from shoestring.models.teacher.words import Parameters, Question

MODEL, TEXT = "teacher", "The answer is four, for two and two are four."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="each asks all questions once by every contender")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=32, help="requests in flight")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds until the server answers")
    parser.add_argument(
        "--folder", type=Path, help="for the store; the system's folder for temporary files unless said"
    )
    parser.add_argument("--json", type=Path, help="keep the rows here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name in ("rounds", "requests", "concurrency"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} is {getattr(arguments, name)}: expected one or more")
    if not 0 < arguments.delay < 60:
        parser.error(f"--delay is {arguments.delay}: expected seconds, more than 0")
    if arguments.serve:
        asyncio.run(serve(arguments.delay))
        return
    rows = compare(arguments)
    show(rows)
    if arguments.json:
        told = gather(" ".join(["python", "benchmarks/asking.py", *sys.argv[1:]]))
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"benchmark": "asking", **told, "rows": rows}, indent=1) + "\n")


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each contender, and the ideal."""
    contenders: dict[str, Callable[[str, argparse.Namespace], Found]] = {"ours": ours, "openai": peer}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    busy: dict[str, list[float]] = {name: [] for name in contenders}
    with served(arguments.delay) as url:
        for number in range(arguments.rounds + 1):  # the first is a warm-up
            names = list(contenders)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                found = contenders[name](url, arguments)
                if found.answers != arguments.requests:
                    raise RuntimeError(f"void: {name} has {found.answers} answers of {arguments.requests}")
                if number:
                    seconds[name].append(found.seconds)
                    busy[name].append(found.busy)
            print(f"round {number} of {arguments.rounds}", file=sys.stderr, flush=True)
    ideal = arguments.requests / arguments.concurrency * arguments.delay
    rows = [row(name, seconds[name], seconds["ours"], ideal, arguments) for name in contenders]
    for one in rows:
        one["CPU ms/request"] = round(1000 * statistics.median(busy[one["measured"]]) / arguments.requests, 2)
    return [*rows, row("ideal", [ideal] * arguments.rounds, seconds["ours"], ideal, arguments)]


def row(name: str, times: list[float], own: list[float], ideal: float, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "measured": name,
        "rounds": len(times),
        "requests": arguments.requests,
        "concurrency": arguments.concurrency,
        "delay ms": 1000 * arguments.delay,
        "seconds": round(statistics.median(times), 3),
        "requests/s": round(arguments.requests / statistics.median(times)),
        "of the ideal": round(statistics.median(ideal / one for one in times), 3),
        "ours / it": round(statistics.median(one / mine for one, mine in zip(times, own, strict=True)), 3),
    }


def ours(url: str, arguments: argparse.Namespace) -> Found:
    questions = [Question(str(number), (("user", prompt(number)),)) for number in range(arguments.requests)]
    teacher = Endpoint(MODEL, url)
    with (
        tempfile.TemporaryDirectory(dir=arguments.folder) as folder,
        Answers(Path(folder) / "answers.sqlite") as store,
    ):
        clock = Clock()
        asked = ask(questions, teacher, Parameters(), store, concurrency=arguments.concurrency)
        taken, busy = clock.read()
        right = sum(reply is not None and reply.text == TEXT for reply in asked.replies)
        return Found(min(asked.paid.requests, len(store), right), taken, busy)


def peer(url: str, arguments: argparse.Namespace) -> Found:
    import openai

    async def ask_all() -> Found:
        free = asyncio.Semaphore(arguments.concurrency)
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

            async def ask_one(number: int) -> str | None:
                async with free:
                    reply = await client.chat.completions.create(
                        model=MODEL,
                        messages=[{"role": "user", "content": prompt(number)}],
                        max_tokens=256,
                        temperature=0.0,
                        top_p=1.0,
                    )
                    return reply.choices[0].message.content

            clock = Clock()
            texts = await asyncio.gather(*map(ask_one, range(arguments.requests)))
            return Found(sum(text == TEXT for text in texts), *clock.read())

    return asyncio.run(ask_all())


class Found(NamedTuple):
    """Right answers, and what they took: seconds, and of these on a processor."""

    answers: int
    seconds: float
    busy: float


class Clock:
    def __init__(self) -> None:
        self.started, self.worked = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.started, time.process_time() - self.worked


def prompt(number: int) -> str:
    return f"Question {number}: how much are two and two? Think step by step, then give the number."


# the server


@contextmanager
def served(delay: float) -> Iterator[str]:
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", "--delay", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def serve(delay: float) -> None:
    """Answer until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Exchange(delay), "127.0.0.1", 0, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


class Exchange(asyncio.Protocol):
    """One connection, whose requests come one after the other. `loopback` serves each in a thread, which costs more."""

    def __init__(self, delay: float) -> None:
        self.delay, self.read = delay, b""
        choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
        made = {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL}
        body = json.dumps({**made, "choices": [choice], "usage": usage}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.answer = head.encode() + body

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.read += data
        head, end, body = self.read.partition(b"\r\n\r\n")
        if end:
            size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(body) >= size:
                self.read = b""
                asyncio.get_running_loop().call_later(self.delay, self.transport.write, self.answer)


def show(rows: list[dict[str, Any]]) -> None:
    for one in rows:
        print(", ".join(f"{key} {value}" for key, value in one.items()))
    own, other, _ = rows
    print("\nratios")
    print(
        f"ours: {own['of the ideal']:.2f} of the ideal, {other['ours / it']:.2f}x as fast as the bare openai client "
        f"({other['of the ideal']:.2f} of the ideal)"
    )


if __name__ == "__main__":
    main()
