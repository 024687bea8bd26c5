"""The most tokens a prompt may have, before a server has counted them."""

from __future__ import annotations

from collections import deque

from shoestring.models.teacher.words import Question

# what a server's chat template may write around a prompt, tokens: a few a message, and a system prompt of its own
_TEMPLATE, _MESSAGE = 128, 16
_SEAM = 16  # tokens by which a text may be cut otherwise where it goes on otherwise
_REFERENCES = 8


class Bounds:
    """The most tokens a prompt may have. A token is a byte or more, so a prompt has no more tokens than bytes; where it
    begins like one whose tokens are known, only the bytes from there on may add to them."""

    def __init__(self) -> None:
        self._known: deque[tuple[bytes, int, int]] = deque(maxlen=_REFERENCES)

    @property
    def known(self) -> bool:
        """Whether a server has counted a prompt: until then nobody knows what it writes around one."""
        return bool(self._known)

    def most(self, question: Question) -> int:
        text, messages = _flat(question), len(question.messages)
        most = unseen(question)
        for before, tokens, count in self._known:
            more = len(text) - _common(text, before) + _MESSAGE * max(0, messages - count)
            most = min(most, tokens + more + _SEAM)
        return most

    def learn(self, question: Question, prompt_tokens: int) -> None:
        self._known.append((_flat(question), prompt_tokens, len(question.messages)))


def unseen(question: Question) -> int:
    """The most tokens of a prompt of which nothing is known but its bytes."""
    return len(_flat(question)) + _TEMPLATE + _MESSAGE * len(question.messages)


def _flat(question: Question) -> bytes:
    return "".join(f"{role}\n{text}\n" for role, text in question.messages).encode("utf-8", "replace")


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
