"""What one sequence holds: contiguous tokens, or a reused half and two segments.

S tokens a sequence, R reused ones

The record of the official code (Yang et al. 2019, arXiv 1906.08237, section 2.5): R contiguous tokens, whose states the
next sequence finds in the memory, then segment A, SEP, segment B, SEP, CLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoestring.methods.permutation.vocabulary import Vocabulary

FUNCTIONAL = 3  # two separators and the class token
CONTINUES = 0.5  # how often B is what follows A


class Text(NamedTuple):
    """Contiguous tokens in the order of reading, each (length,).

    starts_word    the token is the first of its word that is read
    ends_sentence  a sentence ends after it, in the order of reading
    """

    ids: NDArray[np.int64]
    starts_word: NDArray[np.bool_]
    ends_sentence: NDArray[np.bool_]

    def part(self, start: int, stop: int) -> Text:
        return Text(self.ids[start:stop], self.starts_word[start:stop], self.ends_sentence[start:stop])


class Record(NamedTuple):
    """One sequence, each (S,).

    segments    0 the reused tokens, A and its separator; 1 B and its separator; 2 CLS
    functional  separators and CLS, which are never predicted
    """

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    functional: NDArray[np.bool_]
    starts_word: NDArray[np.bool_]


def read(ids: NDArray[np.integer], vocabulary: Vocabulary, backward: bool = False) -> Text:
    """Tokens (length,) of the corpus with the marks of the vocabulary, from right to left if `backward`.

    What only a neighbour beyond the text would tell counts as inside of a word and of a sentence. Raises ValueError for
    an id that the vocabulary does not have.
    """
    if len(ids) and int(ids.max()) >= vocabulary.size:
        raise ValueError(
            f"token {int(ids.max())} in a vocabulary of {vocabulary.size}: the text was packed by another tokenizer"
        )
    own = ids.astype(np.int64)
    starts, ends = vocabulary.starts_word[own], vocabulary.ends_sentence[own]
    starts[1:] |= vocabulary.closes_word[own[:-1]]
    if not backward:
        return Text(own, starts, ends)
    # read from its other end, a word starts with its last token, and a sentence ends with its first
    starts = np.concatenate([starts[1:], vocabulary.closes_word[own[-1:]]])
    ends = np.concatenate([np.zeros_like(ends[:1]), ends[:-1]])
    return Text(own[::-1], starts[::-1], ends[::-1])


def needed(length: int, segments: str) -> int:
    """How many contiguous tokens a sequence of `length` may take from its stream."""
    return length - FUNCTIONAL if segments == "two" else length


def plain(text: Text) -> Record:
    """All tokens in one segment, none of them functional."""
    none = np.zeros(len(text.ids), dtype=np.bool_)
    return Record(text.ids, np.zeros_like(text.ids), none, text.starts_word)


def pack(
    text: Text,
    reuse: int,
    elsewhere: Callable[[int], Text],
    vocabulary: Vocabulary,
    generator: np.random.Generator,
) -> Record:
    """A sequence of two segments from contiguous tokens, three shorter than the record.

    reuse      R: so many tokens come first, as they are
    elsewhere  gives a text of so many tokens, for B where it does not follow
    A ends with a sentence, drawn from those that end in what is left of the text, and anywhere where none does. B goes
    on from there as often as not. Raises ValueError where fewer than two tokens are left for A and B.
    """
    room = len(text.ids) - reuse
    if room < 2:
        raise ValueError(f"{room} tokens after {reuse} reused ones: expected two or more, for two segments")
    split, follow = generator.random(2).tolist()
    cuts = np.flatnonzero(text.ends_sentence[reuse:-1]) + 1
    cut = reuse + (int(cuts[int(split * len(cuts))]) if len(cuts) else 1 + int(split * (room - 1)))
    follows = follow < CONTINUES
    second = text.part(cut, len(text.ids)) if follows else elsewhere(len(text.ids) - cut)
    first, length = text.part(0, cut), len(text.ids) + FUNCTIONAL
    ids = np.concatenate([first.ids, [vocabulary.sep], second.ids, [vocabulary.sep, vocabulary.cls]])
    functional = np.zeros(length, dtype=np.bool_)
    functional[[cut, length - 2, length - 1]] = True
    segments = np.zeros(length, dtype=np.int64)
    segments[cut + 1 :], segments[-1] = 1, 2
    one, two = np.ones(1, dtype=np.bool_), np.ones(2, dtype=np.bool_)
    starts_word = np.concatenate([first.starts_word, one, second.starts_word, two])
    return Record(ids, segments, functional, starts_word)
