"""Prompts from YAML: the shipped ones, one's own, and what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoestring.methods.rationale import datasets, labels, prompts, prompts_reading
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.parse import Rules
from shoestring.methods.rationale.prompts import Demonstration, Parameters

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data")) / "rationale"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there: set SHOESTRING_DATA")
OWN: dict[str, Any] = {
    "name": "own",
    "instruction": "Say why.",
    "options": ["spam", "ham"],
    "demonstrations": [
        {"subject": "Win!", "body": "Click {{here}}.", "rationale": "It lures.", "label": "Spam"},
        {"subject": "Lunch", "body": "At noon?", "rationale": "A friend asks.", "label": "ham"},
    ],
    "question": "Mail:\n{{subject}} / {{ body }}\nWhy?",
    "answer": "{{rationale}} Verdict: {{label}}",
    "told": "Mail:\n{{text}}\nIt is {{option}}. Why?",
    "parse": {"cut": ["Mail:"], "split": ["Verdict:"], "label": "option"},
    "parameters": {"max_tokens": 64, "temperature": 1, "stop": ["Mail:"]},
}


def write(folder: Path, **change: Any) -> Path:
    file = folder / "own.yaml"
    held = {key: value for key, value in {**OWN, **change}.items() if value is not ...}
    file.write_text(yaml.safe_dump(held, allow_unicode=True, sort_keys=False))
    return file


@pytest.mark.parametrize("name", prompts_reading.SHIPPED)
def test_the_shipped_prompts(name: str) -> None:
    prompt = prompts_reading.load(name)
    assert prompt.name == name
    assert len(prompt.demonstrations) <= 8
    ((_, sent),) = prompts.messages(prompt, Example("text"))
    assert prompts.PLACE.search(sent) is None


@pytest.mark.parametrize("name", datasets.FORMS)
def test_the_prompts_of_the_papers_data_sets(name: str) -> None:
    prompt = prompts_reading.load(name)
    assert len(prompt.demonstrations) >= 5
    assert prompt.told
    said = [one.label for one in prompt.demonstrations]
    if prompt.options:
        assert {said.count(option) for option in prompt.options} == {2}
    else:
        assert len({one.options.index(one.label) if one.options else one.label for one in prompt.demonstrations}) >= 5


@needs_data
@pytest.mark.parametrize(("name", "file"), [("cqa", "cqa"), ("svamp", "svamp"), ("esnli", "esnli"), ("anli", "anli1")])
def test_demonstrations_are_of_no_data_set(name: str, file: str) -> None:
    for split in ("train", "dev"):
        rows = datasets.read(DATA / f"{file}_{split}.jsonl.gz", datasets.FORMS[name])
        lines = {labels.folded(line) for row in rows for line in row.text.split("\n")} - {"answer choices:"}
        for one in prompts_reading.load(name).demonstrations:
            own = [line for line in one.text.split("\n") if not line.startswith("(")]
            assert not lines & set(map(labels.folded, own))


def test_one_of_ones_own(tmp_path: Path) -> None:
    prompt = prompts_reading.load(write(tmp_path))
    assert prompt.demonstrations[0] == Demonstration(
        "Subject: Win!\nBody: Click {{here}}.",
        "It lures.",
        "spam",
        ("spam", "ham"),
        {"subject": "Win!", "body": "Click {{here}}."},
    )
    assert prompt.parameters == Parameters(64, 1.0, ("Mail:",))
    ((_, sent),) = prompts.messages(prompt, Example("x", record={"subject": "S", "body": "B"}))
    assert sent.startswith("Say why.\n\nMail:\nWin! / Click {{here}}.\nWhy? It lures. Verdict: spam\n\nMail:\nLunch / ")
    assert sent.endswith("Mail:\nS / B\nWhy?")


def test_the_one_on_the_card(tmp_path: Path) -> None:
    card = Path(prompts_reading.__file__).with_name("README.md").read_text(encoding="utf-8")
    (tmp_path / "mails.yaml").write_text(card.split("```yaml\n")[1].split("```")[0])
    prompt = prompts_reading.load(tmp_path / "mails.yaml")
    ((_, sent),) = prompts.messages(prompt, Example("Buy now", "spam"), told=True)
    assert sent.endswith("A friend asks. So the answer is ham.\n\nMail: Buy now\nIt is spam. Why?")
    assert prompt.parameters.stop == ("\nMail:",)


def test_little_is_needed(tmp_path: Path) -> None:
    few = write(tmp_path, instruction=..., demonstrations=..., told=..., parameters=..., question="{{text}}")
    prompt = prompts_reading.load(str(few))
    assert prompts.messages(prompt, Example("x")) == (("user", "x"),)
    assert prompt.parameters == Parameters()
    absent: dict[str, Any] = dict.fromkeys(OWN.keys() - {"name", "answer"}, ...)
    prompt = prompts_reading.load(write(tmp_path, **{**absent, "question": "{{text}} {{options}}"}))
    assert prompt.rules == Rules()
    assert prompts.messages(prompt, Example("x", options=("a", "b"))) == (("user", "x (a) a\n(b) b"),)


def demonstration(**change: Any) -> list[dict[str, Any]]:
    held = {**OWN["demonstrations"][0], **change}
    return [OWN["demonstrations"][1], {key: value for key, value in held.items() if value is not ...}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ...}, r"own\.yaml: name is missing$"),
        ({"qestion": "x"}, r"own\.yaml: has the unknown key 'qestion'; did you mean 'question'\?$"),
        ({"name": 5}, r"own\.yaml: name holds 5, expected text"),
        ({"told": None}, r"told holds nothing, expected text"),
        ({"demonstrations": "x"}, r"demonstrations holds text, expected a list"),
        ({"demonstrations": ["x"]}, r"demonstrations\[1\] holds text, expected keys and values"),
        (
            {"demonstrations": demonstration(rationale=...)},
            r"demonstrations\[2\]\.rationale holds nothing, expected text",
        ),
        ({"demonstrations": demonstration(label=True)}, r"demonstrations\[2\]\.label holds True, expected text: quote"),
        ({"demonstrations": demonstration(label="no")}, r"\[2\]\.label is 'no', expected one of spam, ham"),
        ({"demonstrations": demonstration(text="x")}, r"\[2\] needs either a text or columns"),
        ({"demonstrations": demonstration(subject=..., body=...)}, r"\[2\] needs either a text or columns"),
        ({"options": ["spam", "Spam"]}, r"options lists one option twice"),
        ({"options": ...}, r"\[1\]\.label is 'Spam', expected one of options, here or for all"),
        (
            {"question": "{{sender}}"},
            r"question has the unknown place \{\{sender\}\}; expected one of body, options, subject",
        ),
        ({"question": "{{text}} {{label}}"}, r"question has the unknown place \{\{label\}\}; expected"),
        ({"question": "{text}"}, r"question lacks a place for what it is to show: add \{\{body\}\} or"),
        ({"answer": "{{label}}"}, r"answer lacks a place .*: add \{\{rationale\}\}"),
        ({"answer": "{{rationale}}"}, r"answer lacks a place .*: add \{\{label\}\} or \{\{option\}\}"),
        ({"answer": "{{rationale}} {{label}} {{text}}"}, r"answer has the unknown place \{\{text\}\}"),
        ({"told": "{{text}}"}, r"told lacks a place .*: add \{\{label\}\}"),
        ({"told": "{{label}}"}, r"told lacks a place .*: add \{\{body\}\}"),
        ({"demonstrations": demonstration(sender="x")}, None),  # a column of one alone is none of the question's
        ({"name": ..., "question": ...}, r"own\.yaml: name, question are missing$"),
        ({"parse": {"split": [], "label": "text"}}, r"parse\.split is empty"),
        (
            {"parse": {"split": ["x"], "label": "choice"}},
            r"parse\.label is 'choice', expected one of option, expression",
        ),
        (
            {"parse": {"split": ["x"], "label": "text", "cuts": []}},
            r"parse has the unknown key 'cuts'; did you mean 'cut'",
        ),
        ({"parse": {"split": ["Answer:"], "label": "option"}}, r"parse does not read demonstrations\[1\] .*no marker"),
        ({"parse": {**OWN["parse"], "cut": ["Next:"]}}, r"parse\.cut holds \['Next:'\], with which no line"),
        ({"demonstrations": demonstration(rationale="Verdict: it lures")}, None),
        (
            {"demonstrations": demonstration(rationale="It\nMail: lures")},
            r"parse does not read demonstrations\[2\] back",
        ),
        ({"parse": {**OWN["parse"], "label": "expression"}}, r"demonstrations\[1\]\.label is no expression: 'Spam'"),
        ({"parameters": {"max_tokens": 0}}, r"parameters\.max_tokens is 0, expected a whole number from 1 up"),
        ({"parameters": {"temperature": -1}}, r"parameters\.temperature is -1, expected a number from 0 up"),
        ({"parameters": {"top_p": 1}}, r"parameters has the unknown key 'top_p'"),
        ({"parameters": {"stop": "Q"}}, r"parameters\.stop holds text, expected a list"),
    ],
)
def test_prompts_that_are_refused(tmp_path: Path, change: dict[str, Any], message: str | None) -> None:
    file = write(tmp_path, **change)
    if message is None:
        prompts_reading.load(file)
        return
    with pytest.raises(ValueError, match=message) as refused:
        prompts_reading.load(file)
    assert "\n" not in str(refused.value)


def test_options_that_a_template_shows_and_an_example_lacks(tmp_path: Path) -> None:
    """Of free labels, which need no options of their own."""
    listed = [{"text": "x", "rationale": "r", "label": "a", "options": ["a", "b"]}]
    told = {"options": ..., "demonstrations": listed, "parse": {"split": ["Verdict:"], "label": "text"}}
    prompt = prompts_reading.load(write(tmp_path, **told, question="{{text}} {{options}}", told="{{text}} {{option}}"))
    with pytest.raises(ValueError, match=r"^prompt own: shows \{\{options\}\}, and 'why' has no options: name the col"):
        prompts.messages(prompt, Example("why"))
    with pytest.raises(ValueError, match=r"^prompt own: shows \{\{option\}\}, and 'why' has no options"):
        prompts.messages(prompt, Example("why", "a"), told=True)


def test_names_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^'esnly': no such prompt; did you mean 'esnli'\?; expected"):
        prompts_reading.load("esnly")
    with pytest.raises(ValueError, match=r"no\.yaml: no such file"):
        prompts_reading.load(tmp_path / "no.yaml")


def test_braces_are_harmless(tmp_path: Path) -> None:
    for harmless in ('Mail: {{subject}} :} then give {"a": {"b": 1}}', r"Mail: $x={{1}\over 2}$ of {{subject}}"):
        prompts_reading.load(write(tmp_path, question=harmless))
    question = 'Mail: { {{subject}} } as {"a": {"b": {"c": 1}}} and a }{ b'
    prompt = prompts_reading.load(write(tmp_path, question=question))
    ((_, sent),) = prompts.messages(prompt, Example("x", record={"subject": "{{S}}"}))
    assert sent.endswith('Mail: { {{S}} } as {"a": {"b": {"c": 1}}} and a }{ b')


@pytest.mark.parametrize(
    ("key", "template", "at"),
    [
        ("question", "Mail: {{subject}} {{topic} Why?", "'{{topic} Why?'"),
        ("question", "Mail: {{subject}} for {topic}} Why?", "for {topic}}'"),
        ("question", "Mail: {{subject}}}}", "…}}'"),
        ("question", "Mail: {{subject}} of {{my-topic}}", "'{{my-topic}}'"),
        ("question", "Mail: {{subject}} {{text} {x} {text}}", "{x} {text}}'"),
        ("question", "Mail: {{ {{subject}} }}", "'{{ … }}'"),
        ("instruction", "Of {{one-sided, say", "'{{one-sided, say'"),
    ],
)
def test_what_was_meant_as_a_place_and_is_none_is_refused(key: str, template: str, at: str, tmp_path: Path) -> None:
    path = write(tmp_path, **{key: template})
    with pytest.raises(ValueError, match=re.escape(f"{key} has braces that are no place, at ")) as refused:
        prompts_reading.load(path)
    assert at in str(refused.value)


def test_an_instruction_has_no_places(tmp_path: Path) -> None:
    path = write(tmp_path, instruction="Say {{label}} in the end.")
    with pytest.raises(ValueError, match=r"instruction has the place \{\{label\}\}, which nothing fills there"):
        prompts_reading.load(path)
