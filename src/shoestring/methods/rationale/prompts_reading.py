"""Prompts from YAML, strictly: what is not as it should be is refused with its file and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from shoestring.methods.rationale import arithmetic, datasets, document, labels, rows
from shoestring.methods.rationale.document import Part
from shoestring.methods.rationale.parse import Kind, Rules, parse
from shoestring.methods.rationale.prompts import PLACE, PLACES, Demonstration, Parameters, Prompt, answer, question

FOLDER = Path(__file__).parent / "prompts"
SHIPPED = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))
KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}

# of braces left over: two around what is no word, two before a word, two behind a word in braces, two behind a place
_BROKEN = r"\{\{[^{}]*\}\}|\{\{\s*(?:WORD)\b.{0,20}|.{0,20}\{\s*(?:WORD)\s*\}\}|\0\s*\}\}"

_TOP = ("name", "instruction", "options", "demonstrations", "question", "answer", "told", "parse", "parameters")


def load(name: str | Path) -> Prompt:
    """A prompt that comes with the room, by its name, or one's own, by the path of its file (.yaml, .yml).

    Raises ValueError naming file and key. A prompt whose own rules do not read its own demonstrations is refused.
    """
    path = Path(name)
    if str(name) in SHIPPED:
        path = FOLDER / f"{name}.yaml"
    elif path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"{str(name)!r}: no such prompt{rows.nearest(str(name), SHIPPED)}; "
            f"expected one of {', '.join(SHIPPED)}, or the path of a .yaml file"
        )
    found = _prompt(document.read(path))
    _check_places(found, str(path))
    _check_answers(found, str(path))
    return found


def _prompt(top: Part) -> Prompt:
    top.only(_TOP, ("name", "question", "answer"))
    options = top.options()
    listed = top.held.get("demonstrations", [])
    if not isinstance(listed, list):
        raise top.error("demonstrations", f"holds {document.kind(listed)}, expected a list")
    parts = [Part(one, top.file, f"demonstrations[{number}]") for number, one in enumerate(listed, start=1)]
    rules, sampling = top.part("parse"), top.part("parameters")
    rules.only(("cut", "split", "label"), ())
    sampling.only(("max_tokens", "temperature", "stop"), ())
    usual = Rules()
    kind = rules.text("label", usual.label)
    if kind not in KINDS:
        raise rules.error("label", f"is {kind!r}, expected one of {', '.join(KINDS)}")
    split = rules.texts("split") if "split" in rules.held else usual.split
    if not split:
        raise rules.error("split", "is empty, expected what stands between the reason and the label")
    return Prompt(
        top.text("name"),
        top.text("question"),
        top.text("answer"),
        Rules(rules.texts("cut"), split, KINDS[kind]),
        tuple(_demonstration(part, options, kind) for part in parts),
        top.text("instruction", default=""),
        top.text("told") if "told" in top.held else None,
        options,
        Parameters(
            int(sampling.number("max_tokens", 256, 1, whole=True)),
            float(sampling.number("temperature", 0.0, 0, whole=False)),
            sampling.texts("stop"),
        ),
    )


def _demonstration(part: Part, options: tuple[str, ...], kind: str) -> Demonstration:
    """Options of its own are listed below its text, as `datasets.read` lists those of a row; those of all are not."""
    columns = {name: part.text(name) for name in part.held if name not in PLACES}
    if ("text" in part.held) == bool(columns):
        raise part.error("", "needs either a text or columns that make it, beside rationale and label")
    own = part.options()
    label = part.text("label")
    if kind == "option" and labels.match(label, own or options) is None:
        expected = ", ".join(own or options) or "options, here or for all"
        raise part.error("label", f"is {label!r}, expected one of {expected}")
    if kind == "expression":
        try:
            label = arithmetic.normalised(label)
        except ValueError as error:
            raise part.error("label", f"is no expression: {error}") from None
    text = datasets.text(columns or {"text": part.text("text")}, own)
    return Demonstration(
        text, part.text("rationale"), labels.match(label, own or options) or label, own or options, columns
    )


def _check_places(prompt: Prompt, file: str) -> None:
    """Refuse places that nothing would stand for, and templates that leave out what they are for."""
    shared = [set(one.columns) for one in prompt.demonstrations]
    listed = [bool(one.options) for one in prompt.demonstrations] or [prompt.rules.label == "option"]
    optional = bool(prompt.options) or all(listed)
    asked = {"text", *(["options"] if optional else []), *(set.intersection(*shared) if shared else ())}
    label = {"label", *(["option"] if optional else [])}
    if place := PLACE.search(prompt.instruction):
        raise ValueError(f"{file}: instruction has the place {place.group()}, which nothing fills there: write it out")
    _check_braces(file, "instruction", prompt.instruction)
    _check(file, "question", prompt.question, [asked])
    _check(file, "answer", prompt.answer, [{"rationale"}, label])
    if prompt.told is not None:
        _check(file, "told", prompt.told, [asked, label])


def _check(file: str, key: str, template: str, groups: list[set[str]]) -> None:
    """A template may name the places of all groups, and must name one of each."""
    _check_braces(file, key, template)
    named = set(PLACE.findall(template))
    known = sorted({name for group in groups for name in group})
    if unknown := sorted(named - set(known)):
        raise ValueError(
            f"{file}: {key} has the unknown place {{{{{unknown[0]}}}}}; expected one of {', '.join(known)}"
        )
    for group in groups:
        if not group & named:
            wanted = " or ".join(f"{{{{{name}}}}}" for name in sorted(group))
            raise ValueError(f"{file}: {key} lacks a place for what it is to show: add {wanted}")


def _check_braces(file: str, key: str, template: str) -> None:
    """Refuse what was meant as a place and is none: it would be sent as it stands, and paid for."""
    left = PLACE.sub("\0", template)
    # those of JSON and of LaTeX, which a teacher may be asked for, are even, and none is a word's alone
    words = r"[^\W\d]\w*" if left.count("{") != left.count("}") else "|".join(PLACES)
    if broken := re.search(_BROKEN.replace("WORD", words), left):
        shown = rows.shown(broken.group().replace("\0", "…"))
        raise ValueError(f"{file}: {key} has braces that are no place, at {shown}: a place is {{{{name}}}}")


def _check_answers(prompt: Prompt, file: str) -> None:
    """Refuse a prompt that teaches a layout which its own rules do not read."""
    cut = prompt.rules.cut
    for number, one in enumerate(prompt.demonstrations, start=1):
        written = answer(prompt, one)
        following = question(prompt.question, one)
        if cut and not any(line.lstrip().startswith(cut) for line in following.split("\n")):
            raise ValueError(
                f"{file}: parse.cut holds {rows.shown(list(cut))}, with which no line of a question begins"
            )
        for completion in (written, f"{written}\n\n{following}")[: 2 if cut else 1]:
            found = parse(completion, prompt.rules, one.options)
            if (found.rationale, found.label, found.problem) != (one.rationale, one.label, None):
                what = found.problem or f"reason {rows.shown(found.rationale)} and label {rows.shown(found.label)}"
                raise ValueError(
                    f"{file}: parse does not read demonstrations[{number}] back from its answer, or from one that the "
                    f"next question follows ({what}): make cut, split and label fit question and answer"
                )
