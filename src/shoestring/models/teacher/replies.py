"""What a server's answer says, or why it says nothing."""

from __future__ import annotations

import json
from typing import Any

from shoestring.models.teacher.bounds import unseen
from shoestring.models.teacher.words import Parameters, Question, Reply, Unanswered

_MOST = 2**53  # tokens that a number may say


def read(body: bytes, question: Question, parameters: Parameters, model: str, replayed: bool) -> Reply:
    """The reply in the body of a chat completion.

    Where the server does not say how many tokens it took, they are what the bytes allow at most, and the reply says so.
    Raises Unanswered on a body without an answer, with what was paid for it where it says so.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        raise Unanswered(f"the answer is no JSON: {one_line(body)}", maybe=True, replayed=replayed) from None
    usage = said.get("usage") if isinstance(said, dict) else None
    counted = _tokens(usage)
    choice = _first(said)
    message = choice.get("message") if choice else None
    text = message.get("content", "") if isinstance(message, dict) else None
    if isinstance(message, dict) and text is None:
        text = ""  # as of a model that was cut while it thought, or that refused: it was paid for, and is an answer
    if choice is None or not isinstance(text, str):
        what = f"the answer holds no text: {one_line(body)}"
        raise Unanswered(what, maybe=counted is None, paid=counted, replayed=replayed)
    prompt, completion = counted or (
        unseen(question),
        min(parameters.max_tokens, len(text.encode("utf-8", "replace")) + 1),
    )
    reason, served = choice.get("finish_reason"), said.get("model")
    return Reply(
        _whole(text),
        _whole(reason) if isinstance(reason, str) else "",
        prompt,
        completion,
        _whole(served) if isinstance(served, str) else model,
        counted=counted is not None,
        replayed=replayed,
    )


def _whole(text: str) -> str:
    """Halves of characters, which JSON may hold, put together where two make one, and replaced where they do not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def words_of(body: bytes) -> str:
    """What an error's body says, in one line."""
    try:
        said: Any = json.loads(body)
    except (ValueError, RecursionError):
        return one_line(body)
    for name in ("error", "message", "detail"):
        said = said.get(name, said) if isinstance(said, dict) else said
    return one_line((said if isinstance(said, str) else json.dumps(said)).encode("utf-8", "replace"))


def one_line(body: bytes, most: int = 200) -> str:
    """What a terminal may be shown: a server's control characters, which it would obey, are spaces."""
    said = body[: 4 * most].decode("utf-8", "replace")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in said).split())
    return text if len(text) <= most else text[:most] + "…"


def _first(said: Any) -> dict[str, Any] | None:
    choices = said.get("choices") if isinstance(said, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _tokens(usage: Any) -> tuple[int, int] | None:
    """The tokens of prompt and answer; None where they are not said, or cannot be."""
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return (prompt, completion) if 0 <= prompt < _MOST and 0 <= completion < _MOST else None
