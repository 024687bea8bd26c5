"""Few-shot prompts that ask a teacher for a reason and a label: how an example is put, and how the answer is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shoestring.methods.rationale import datasets, labels
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.parse import Parsed, Rules, parse

PLACES = ("text", "options", "rationale", "label", "option")  # all others are columns
PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True)
class Demonstration:
    """A question with the reason and the label that the teacher is to imitate.

    columns  what templates may name beside `text`
    options  what it may be answered with; none where any text may be the answer
    """

    text: str
    rationale: str
    label: str
    options: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameters:
    """How the teacher is to sample; `stop` ends a completion where a teacher would go on with questions of its own."""

    max_tokens: int = 256
    temperature: float = 0.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A prompt, as `prompts_reading.load` reads it from YAML.

    instruction  what stands above the demonstrations
    question     the template of a question; its places are `{{text}}`, `{{options}}` and the demonstrations' columns
    answer       the template of a demonstration's answer; its places are `{{rationale}}`, `{{label}}` and `{{option}}`,
                 which is the label behind its letter
    told         the template of a question that tells the gold label, as `{{label}}` or `{{option}}`; None where there
                 is no such form
    options      the labels of all questions; none where each has its own, or any text may be the answer
    rules        how completions are read
    """

    name: str
    question: str
    answer: str
    rules: Rules
    demonstrations: tuple[Demonstration, ...] = ()
    instruction: str = ""
    told: str | None = None
    options: tuple[str, ...] = ()
    parameters: Parameters = Parameters()


def messages(prompt: Prompt, example: Example, told: bool = False) -> tuple[tuple[str, str], ...]:
    """What to send to the teacher, as (role, text): one user message, which every server takes, those of models that
    never learnt to converse too.

    told  whether it is told the gold label, for which it then finds a reason (Zelikman et al. 2022, STaR, call it
          rationalization); such reasons may give the label away, so mark the example as told
    Raises ValueError where a template names a column that the example's record lacks, or there is no label to tell.
    """
    if told and prompt.told is None:
        raise ValueError(f"prompt {prompt.name}: has no form 'told', which tells the gold label: add it to the file")
    if told and example.label is None:
        raise ValueError(f"prompt {prompt.name}: no gold label to tell of {example.text[:40]!r}: ask without telling")
    template = prompt.told if told and prompt.told is not None else prompt.question
    shown = [(question(template, one), answer(prompt, one)) for one in prompt.demonstrations]
    held = places(example.text, _columns(prompt, template, example), choices(prompt, example), example.label)
    if missing := sorted(set(PLACE.findall(template)) - set(held)):
        raise ValueError(
            f"prompt {prompt.name}: shows {{{{{missing[0]}}}}}, and {example.text[:40]!r} has no options: name the "
            "column that lists them, or the options of all rows"
        )
    asked = fill(template, held)
    begin = [prompt.instruction] if prompt.instruction else []
    return (("user", "\n\n".join([*begin, *(f"{put} {given}" for put, given in shown), asked])),)


def read(prompt: Prompt, example: Example, completion: str, finish: str | None = None) -> Parsed:
    """What the teacher answered, by the prompt's own rules. finish: the server's reason to stop."""
    return parse(completion, prompt.rules, choices(prompt, example), finish)


def choices(prompt: Prompt, example: Example) -> tuple[str, ...]:
    """The options of an example. Raises ValueError where they are not those that the prompt speaks of."""
    if prompt.options and example.options and set(prompt.options) != set(example.options):
        raise ValueError(
            f"prompt {prompt.name}: asks for one of {', '.join(prompt.options)}, and the examples' labels are "
            f"{', '.join(example.options)}: take a prompt for these labels"
        )
    return example.options or prompt.options


def question(template: str, one: Demonstration) -> str:
    """A demonstration's question as a template puts it."""
    return fill(template, places(one.text, one.columns, one.options, one.label))


def answer(prompt: Prompt, one: Demonstration) -> str:
    """A demonstration's answer as the prompt writes it."""
    return fill(prompt.answer, places(one.text, {"rationale": one.rationale}, one.options, one.label))


def fill(template: str, held: Mapping[str, str]) -> str:
    """A template with its places filled, in one pass: what is filled in is text, whatever braces it holds."""
    return PLACE.sub(lambda place: held[place.group(1)], template)


def places(text: str, columns: Mapping[str, str], options: Sequence[str], label: str | None) -> dict[str, str]:
    """What the places of a template stand for."""
    held = {**columns, "text": text}
    if options:
        held["options"] = datasets.lettered(options)
    if label is not None:
        held["label"] = label
        if label in options:
            held["option"] = f"({datasets.letter(options.index(label))}) {label}"
    return held


def _columns(prompt: Prompt, template: str, example: Example) -> dict[str, str]:
    """What the example's record holds of the columns that a template names."""
    found = {}
    for name in set(PLACE.findall(template)) - set(PLACES):
        held = example.record.get(name)
        if held is None:
            there = ", ".join(map(repr, example.record)) or "no columns"
            raise ValueError(f"prompt {prompt.name}: asks for the column {name!r}, and the example has {there}")
        listed = isinstance(held, list | tuple)
        found[name] = datasets.lettered(labels.distinct([str(one) for one in held])) if listed else str(held)
    return found
