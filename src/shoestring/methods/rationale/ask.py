"""Ask a teacher about examples: reasons and labels, read by a prompt's rules, voted on where several are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from shoestring.methods.rationale import labels, prompts, rows
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.parse import Parsed, counts
from shoestring.methods.rationale.vote import vote
from shoestring.models.teacher.answers import Answers
from shoestring.models.teacher.asking import Asked, ask
from shoestring.models.teacher.words import Parameters, Question, Reply, Teacher


@dataclass(frozen=True)
class Read:
    """What a teacher said, read.

    examples   those given, with the teacher's reason and label where they could be read, and as they were where no
               reply came; parsed, by example, what its samples said, None where no reply came
    problems   how many samples went wrong, by problem
    asked      what came of asking
    """

    examples: list[Example]
    parsed: list[list[Parsed | None]]
    problems: dict[str, int]
    asked: Asked

    @property
    def answered(self) -> int:
        """Examples of which some sample came."""
        return sum(any(samples) for samples in self.parsed)


def ask_about(
    examples: Sequence[Example],
    prompt: prompts.Prompt,
    teacher: Teacher,
    store: Answers,
    *,
    samples: int = 1,
    temperature: float | None = None,
    told: bool = False,
    seed: int | None = None,
    **options: Any,
) -> Read:
    """The examples with a teacher's reasons and labels; each answer is kept in the store the moment it arrives.

    samples      of each example; of more than one the majority's label is taken, and the reason of the first that gave
                 it (Wang et al. 2022, self-consistency)
    temperature  in place of the prompt's own; several samples need one above zero
    told         tells the teacher the gold label: its reasons then speak for it, and are marked so
    options      of `models.teacher.ask`: concurrency, limits, budget, ledger, tell
    Raises ValueError, before anything is asked, where an example does not fit the prompt, its gold label is none of the
    options, the question names no option, or several samples would all be one.
    """
    chosen = prompt.parameters
    warmth = chosen.temperature if temperature is None else temperature
    if samples < 1 or (samples > 1 and warmth == 0):
        raise ValueError(f"{samples} samples at temperature {warmth:g}: expected one, or a temperature above zero")
    _answerable(examples, prompt)
    if not told and prompt.rules.label == "option" and examples:
        _check_shown(examples[0], prompt)
    parameters = Parameters(chosen.max_tokens, warmth, stop=chosen.stop, seed=seed)
    questions = [
        Question(named(place, example), prompts.messages(prompt, example, told), sample)
        for place, example in enumerate(examples)
        for sample in range(samples)
    ]
    asked = ask(questions, teacher, parameters, store, **options)
    found, every = [], []
    for place, example in enumerate(examples):
        replies = asked.replies[place * samples : (place + 1) * samples]
        parsed = [_parsed(prompt, example, reply) for reply in replies]
        every.append(parsed)
        found.append(_taught(example, [one for one in parsed if one is not None], prompt, samples, told))
    return Read(found, every, counts(one for parsed in every for one in parsed if one is not None), asked)


def _answerable(examples: Sequence[Example], prompt: prompts.Prompt) -> None:
    """Refuse before anything is paid for what no answer could be read of, or no answer could be right about."""
    if prompt.rules.label != "option":
        return
    for place, example in enumerate(examples):
        options = prompts.choices(prompt, example)
        if not options:
            raise ValueError(
                f"{named(place, example)} has no options, of which the prompt {prompt.name} reads one: name the column "
                "that lists them, or the options of all rows"
            )
        if example.label is not None and labels.match(example.label, options) is None:
            raise ValueError(
                f"{named(place, example)} has the gold label {rows.shown(example.label)}, which is none of the options "
                f"of the prompt {prompt.name}: {', '.join(options)}"
            )


def _check_shown(example: Example, prompt: prompts.Prompt) -> None:
    """Refuse a question that names none of its options: a teacher would have to guess what they are called."""
    options = prompts.choices(prompt, example)
    ((_, sent),) = prompts.messages(prompt, example)
    if not any(labels.folded(option) in labels.folded(sent) for option in options):
        raise ValueError(
            f"the prompt {prompt.name} tells the teacher none of the options ({', '.join(options)}): "
            "put {{options}} into its question"
        )


def _taught(example: Example, parsed: Sequence[Parsed], prompt: prompts.Prompt, samples: int, told: bool) -> Example:
    if not parsed:
        return example
    if samples == 1:
        said = parsed[0]
        read = said.problem is None
        reason, label = (said.rationale, said.label) if read else (None, None)
        return replace(example, rationale=reason, teacher_label=label, agreement=None, told=told)
    expression = prompt.rules.label == "expression"
    voted = vote(parsed, prompts.choices(prompt, example), asked=samples, expression=expression)
    agreement = voted.agreement if voted.votes else None
    return replace(example, rationale=voted.rationale, teacher_label=voted.label, agreement=agreement, told=told)


def _parsed(prompt: prompts.Prompt, example: Example, reply: Reply | None) -> Parsed | None:
    return None if reply is None else prompts.read(prompt, example, reply.text, reply.finish_reason)


def named(place: int, example: Example) -> str:
    """What a question about an example is called."""
    held = (example.record.get(key) for key in ("id", "uid", "name"))
    own = next((one for one in held if one not in (None, "")), None)
    return f"row {place + 1}" if own is None else f"row {place + 1} ({own})"
