"""A teacher's completion, read into its reason and its label; what could not be read is named, never left blank."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from shoestring.methods.rationale import arithmetic, labels

Kind = Literal["option", "expression", "text"]
PROBLEMS = (
    "empty completion",
    "cut off",
    "no marker",
    "empty reason",
    "empty label",
    "label outside the options",
    "no expression",
)
CHARACTERS = 2000  # of a line, that a label is looked for in
_UNSEEN = str.maketrans("", "", "\u200b\u2060\ufeff\u00ad")  # joiners stay: scripts and emoji are written with them
_THOUGHT = re.compile(r"</?(?:think|thinking|reasoning)>", re.IGNORECASE)
_JOINED = re.compile(r"(?:^|(?<=[\s.!?;:,*_]))(?:and so|so|thus|hence|therefore)[,:]?[*_]*$", re.IGNORECASE)
_OPENING = re.compile(r"(?:^|(?<=\s))(?:[*_]{1,3}|#{1,6}|>)$")
_MARKUP = "*_`#> \t"
_LETTERED = re.compile(r"[*_]*(?:\(([a-z])\)|([a-z])[).:](?=[\s*_]|$)|([a-z])$)[*_]*\s*(.*)", re.IGNORECASE | re.DOTALL)
_WORDS = re.compile(r"(?:[^\W_]|[\s.,;:!?'’*`])*")  # beside an expression; neither code nor other signs
_LETTER = re.compile(r"\([a-z]\)", re.IGNORECASE)
_RUN = re.compile(r"(?:[-+*/()×·÷−0-9.,]|(?<=[0-9)\s])x(?=[\s0-9(])|\s)+")


@dataclass(frozen=True)
class Rules:
    """How completions are read.

    cut    a line that begins with one of these begins another question: all from there on is left out
    split  what stands between reason and label; the first of them that occurs counts
    label  "option" (one of the options, or its letter), "expression" (arithmetic) or "text"
    """

    cut: tuple[str, ...] = ()
    split: tuple[str, ...] = ("So the answer is", "The answer is")
    label: Kind = "option"


@dataclass(frozen=True)
class Parsed:
    """What a completion says.

    rationale  None where none could be told from the rest
    label      as the options or `arithmetic.normalised` write it; as the teacher wrote it where it is none of them
    problem    what went wrong, one of `PROBLEMS`, or None: only then both hold what they should
    """

    rationale: str | None
    label: str | None
    problem: str | None = None


def parse(completion: str, rules: Rules, options: Sequence[str] = (), finish: str | None = None) -> Parsed:
    """Read a completion.

    finish  the server's reason to stop; "length" tells that it ran out of tokens
    The last occurrence of the marker counts, for a reason may quote it, weigh an answer and change its mind. What a
    model thinks in `<think>` tags is draft: markers in it do not count, and it is the reason only where nothing is said
    between it and the label.
    """
    thought, said = _without_thought(completion.translate(_UNSEEN))
    said, following = _until(said, rules.cut)
    ran_out = finish == "length" and not following
    if not said and not thought:
        return Parsed(None, None, "cut off" if ran_out else "empty completion")
    found = _marker(said, rules.split)
    if found is None:
        return Parsed(said or thought or None, None, "cut off" if ran_out else "no marker")
    reason = _unjoined(said[: found.start()]) or thought
    rest = said[found.end() :].strip()
    written, _, later = rest.partition("\n")
    label, problem = _label(written.strip(), rules.label, options)
    if ran_out and not later.strip() and not written.rstrip(_MARKUP).endswith("."):
        problem = "cut off"
    elif not reason:
        problem = problem or "empty reason"
    return Parsed(reason or None, label, problem)


def counts(parsed: Iterable[Parsed]) -> dict[str, int]:
    """How many completions went wrong, by problem, in the order of `PROBLEMS`; what did not occur is left out."""
    found = Counter(one.problem for one in parsed)
    return {problem: found[problem] for problem in PROBLEMS if found[problem]}


def _without_thought(text: str) -> tuple[str, str]:
    """What was thought, without its tags, and what was said."""
    tags = list(_THOUGHT.finditer(text))
    if not tags:
        return "", text.strip()
    closed = [tag for tag in tags if tag.group().startswith("</")]
    # servers that put the opening tag into the prompt return the closing one alone; one never closed hides all after it
    start = 0 if tags[0].group().startswith("</") else tags[0].start()
    end = closed[-1].end() if closed else len(text)
    return _THOUGHT.sub(" ", text[start:end]).strip(), (text[:start] + text[end:]).strip()


def _until(text: str, cut: Sequence[str]) -> tuple[str, bool]:
    """The text up to the next question, and whether one followed."""
    found = (found for mark in cut for found in re.finditer(rf"^[ \t]*{re.escape(mark)}", text, re.MULTILINE))
    # not at the very start: a model may begin by saying its question again
    start = min((mark.start() for mark in found if mark.start()), default=None)
    return (text, False) if start is None else (text[:start].strip(), True)


def _marker(text: str, split: Sequence[str]) -> re.Match[str] | None:
    """The last occurrence of the first marker that occurs at all."""
    for mark in split:
        words = r"\s+".join(map(re.escape, mark.split()))
        before = r"(?<!\w)" if mark[:1].isalnum() else ""
        after = r"(?![\w'’])" if mark.rstrip()[-1:].isalnum() else ""
        found = list(re.finditer(rf"{before}{words}{after}:?", text, re.IGNORECASE))
        if found:
            return found[-1]
    return None


def _unjoined(reason: str) -> str:
    """A reason without what belonged to the marker: a `Therefore,` before it, and opening markup before either."""
    end = len(reason.rstrip())
    for pattern in (_OPENING, _JOINED, _OPENING):
        found = pattern.search(reason[max(0, end - 20) : end])
        end = len(reason[: end - len(found.group())].rstrip()) if found else end
    return reason[:end].strip()


def _label(written: str, kind: Kind, options: Sequence[str]) -> tuple[str | None, str | None]:
    """A label and what is wrong with it."""
    bare = written.strip(_MARKUP)
    if not bare.strip("."):
        return None, "empty label"
    if kind == "option":
        option = _option(written, options)
        return (written.removesuffix("."), "label outside the options") if option is None else (option, None)
    if kind == "expression":
        expression = _expression(bare)
        return (written.removesuffix("."), "no expression") if expression is None else (expression, None)
    return bare.removesuffix(".").rstrip(_MARKUP), None


def _option(written: str, options: Sequence[str]) -> str | None:
    """The option that is meant: by its text first, then by its letter, then by the text that the label begins with."""
    found = labels.match(written, options)
    lettered = _LETTERED.fullmatch(written.strip(_MARKUP).removesuffix("."))
    if found is not None or lettered is None:
        return found or _begun(written, options)
    letter, rest = next(filter(None, lettered.groups()[:3])).lower(), lettered.group(4)
    found = labels.match(rest, options) or _begun(rest, options)
    place, named = ord(letter) - ord("a"), _named(rest, options)
    # "(c)", or "(c), because …" with no other answer in it
    alone = rest.strip(_MARKUP)[:1] in ("", *".,;:") and not _LETTER.search(rest) and not named
    return options[place] if found is None and alone and place < len(options) else found


def _begun(text: str, options: Sequence[str]) -> str | None:
    """The option that a text begins with and then explains; None where another is named beside it."""
    named = _named(text, options)
    begun = [option for option, places in named.items() if places[0] == 0]
    if not begun:
        return None
    first = max(begun, key=lambda option: len(labels.tokens(option)))
    inside = labels.tokens(first)
    others = [option for option in named if option != first and not _places(inside, labels.tokens(option))]
    return None if others or _LETTER.search(text) else first


def _named(text: str, options: Sequence[str]) -> dict[str, list[int]]:
    """Where the text names which options, in words."""
    words = labels.tokens(text[:CHARACTERS])
    return {option: found for option in options if (found := _places(words, labels.tokens(option)))}


def _places(words: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where a row of words stands among others."""
    size = len(wanted)
    return [at for at in range(len(words) - size + 1) if size and list(words[at : at + size]) == list(wanted)]


def _expression(text: str) -> str | None:
    """The one expression in a line, before any `=`; None where there is none, several, or words are part of it."""
    before = text.replace("$", "").replace("**", " ").partition("=")[0][:CHARACTERS]
    runs = [run for run in _RUN.finditer(before) if re.search("[0-9]", run.group())]
    if len(runs) != 1:
        return None
    start, end = runs[0].span()
    written = runs[0].group().strip().rstrip(".,")
    if before[:start].strip() and written.startswith(tuple("-+*/×·÷−")):  # as in "some - 5"
        return None
    glued = before[end : end + 1].isalnum() and not runs[0].group()[-1].isspace()  # as in "3a"
    if glued or not _WORDS.fullmatch(before[:start] + " " + before[end:]):
        return None
    try:
        return arithmetic.normalised(written)
    except ValueError:
        return None
