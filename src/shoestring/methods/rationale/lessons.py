"""The ways to teach: what of an example a student reads, and what it is to write, task by task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from shoestring import files
from shoestring.methods.rationale.examples import Example

Way = Literal["standard", "distilled", "two-task", "single-task", "informed"]
WAYS: tuple[Way, ...] = ("standard", "distilled", "two-task", "single-task", "informed")
REASONED: tuple[Way, ...] = ("two-task", "single-task", "informed")  # those that learn from reasons
LABEL, RATIONALE = "label", "rationale"
SHUFFLE = 1 << 63  # beside a seed, where streams have the number of an epoch
KEPT = "rationale.json"


class Lesson(NamedTuple):
    """What is read and what is to be written: `target`, of which too long an end is cut, and `ending`, which stays."""

    source: str
    target: str
    ending: str = ""


@dataclass(frozen=True)
class Wording:
    """The words by which a student knows its task. They are saved with the model: another wording is another task.

    label, rationale  prefixes of what is read, by task
    answer            what stands between a reason and its label, where both are written in one
    reason            what stands between a text and a reason that is read with it
    """

    label: str = "[label] "
    rationale: str = "[rationale] "
    answer: str = "\nAnswer: "
    reason: str = "\nReason: "

    def __post_init__(self) -> None:
        if self.label == self.rationale:
            raise ValueError(f"both tasks have the prefix {self.label!r}: expected two that differ")
        if not self.answer.strip() or not self.reason.strip():
            raise ValueError("expected words between a reason and its label, and between a text and its reason")


@dataclass(frozen=True)
class Taught:
    """How a student was taught, kept beside its weights.

    options  the labels that every example may have; none where they differ or any text may be the answer
    source_tokens, target_tokens   at most so many are read and written
    """

    way: Way
    wording: Wording = Wording()
    options: tuple[str, ...] = ()
    source_tokens: int = 512
    target_tokens: int = 128

    def __post_init__(self) -> None:
        check_way(self.way)

    def text(self) -> str:
        """As it is kept."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def load(cls, folder: Path) -> Taught:
        """Raises ValueError where the folder does not say how its model was taught."""
        path = folder / KEPT
        if not path.exists():
            raise ValueError(f"{folder}: no {KEPT} is there: expected the folder of a student that this room trained")
        kept = files.read_json(path, "copy it again from where the student was trained")
        try:
            words, options = kept.pop("wording"), kept.pop("options")
            found = cls(wording=Wording(**words), options=tuple(options), **kept)
        except KeyError as error:
            raise ValueError(f"{path}: not how a student was taught (no {error})") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not how a student was taught ({error})") from None
        texts = isinstance(options, list) and all(isinstance(text, str) for text in (*options, *words.values()))
        if not texts or not type(found.source_tokens) is type(found.target_tokens) is int:
            raise ValueError(f"{path}: not how a student was taught (texts and counts are not such)")
        return found


def lessons(examples: Sequence[Example], way: Way, wording: Wording) -> dict[str, list[Lesson]]:
    """What each task is taught, by task; examples that lack what a task needs are left out of it, as is a blank reason.

    standard      the label
    distilled     the teacher's label (standard task distillation)
    two-task      the label; and, as a task apart, the teacher's reason
    single-task   reason and label in one text
    informed      the label, of a text with the teacher's reason beside it: the reason is needed at prediction too
    The label is the gold one, or the teacher's where there is none: ways differ in the reasons alone.
    Hsieh et al. 2023, sections 3 and 4; "informed" is after their PINTO-tuning, without its counterfactual loss.
    Raises ValueError where it is another way, or a task has nothing to learn from.
    """
    check_way(way)
    found: dict[str, list[Lesson]] = {LABEL: []}
    for example in examples:
        answer, reason = _answer(example, way), (example.rationale or "").strip() and example.rationale
        if way == "two-task" and reason:
            source = wording.rationale + example.text
            found.setdefault(RATIONALE, []).append(Lesson(source, reason))
        if answer is None or (way in ("single-task", "informed") and not reason):
            continue
        source = source_of(example, way, wording)
        if way == "single-task":
            found[LABEL].append(Lesson(source, reason or "", wording.answer + answer))
        else:
            found[LABEL].append(Lesson(source, answer))
    for task, there in {**{RATIONALE: []}, **found}.items():
        if not there and (task == LABEL or way == "two-task"):
            both = f"{LABEL} and a {RATIONALE}"
            lacking = {"single-task": both, "informed": both, "distilled": f"{LABEL} of the teacher's"}.get(way, task)
            raise ValueError(
                f"{way}: no example has a {lacking}: expected some; see what was read, and what was filtered"
            )
    return found


def check_way(way: str) -> None:
    """Raises ValueError where it is none."""
    if way not in WAYS:
        raise ValueError(f"the way {way!r}: expected one of {', '.join(WAYS)}")


def _answer(example: Example, way: Way) -> str | None:
    return example.teacher_label if way == "distilled" or example.label is None else example.label


def source_of(example: Example, way: Way, wording: Wording) -> str:
    """What the student reads to give a label."""
    source = wording.label + example.text
    return source + wording.reason + example.rationale if way == "informed" and example.rationale else source


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """The same examples, each with the reason of another: a control. What gain is left is not of what reasons say.

    Raises ValueError where there are fewer than two reasons.
    """
    places = [place for place, example in enumerate(examples) if example.rationale]
    if len(places) < 2:
        raise ValueError(f"{len(places)} reasons cannot be shuffled: expected two or more")
    order = np.argsort(np.random.Philox(key=np.array([seed, SHUFFLE], dtype=np.uint64)).random_raw(len(places)))
    found = list(examples)
    # a ring: nobody keeps its own
    for place, after in zip(order, np.roll(order, 1), strict=True):
        found[places[place]] = replace(examples[places[place]], rationale=examples[places[after]].rationale)
    return found
