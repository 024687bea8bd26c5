"""A student: what it answers, in which words it is asked, what that costs, and that a folder gives it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shoestring import files
from shoestring.cost import flops
from shoestring.data.tokenizers import byte_tokenizer
from shoestring.methods.rationale import student as room
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import WAYS, Taught, Way, Wording
from shoestring.methods.rationale.student import Answer, Student
from shoestring.methods.rationale.write import likelihoods, write
from shoestring.models import presets, seq2seq

NAMES = ["t5", "neox", "gpt2"]
EXAMPLES = [
    Example("Is it?", "yes", ("yes", "no")),
    Example("Which of these three is it then?", "b", ("a", "b", "neither of these")),
    Example("Say something"),
    Example("Is it not?", "no", ("no", "yes")),
    Example("Short"),
]


def small(name: str, times: float | None = None) -> nn.Module:
    """With weights large enough that what it says hangs on all that it reads."""
    if name == "t5":
        shape = {"num_layers": 1, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}
        model = seq2seq.build(seq2seq.configuration("t5-tiny", 257, **shape), 0)
    elif name == "neox":
        shape = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48}
        model = presets.build(presets.configuration("neox-tiny", 257, 128, **shape), 0)
    else:
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 2}
        model = presets.build(presets.configuration("gpt2-small", 257, 128, **shape), 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(times or (3.0 if name == "t5" else 8.0))
    return model


def student(name: str = "t5", way: Way = "two-task", **told: Any) -> Student:
    told = {"source_tokens": 64, "target_tokens": 8, **told}
    return Student.of(small(name), byte_tokenizer(), Taught(way, **told))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a student is made to write, in turn; and what it reads is kept beside."""
    says: list[str] = []
    monkeypatch.setattr(room, "write", lambda _, __, sources, ___: [says.pop(0) for _ in sources])
    yield says
    assert not says


# by hand


def test_the_likeliest_option_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "likelihoods", lambda *_: [[-1.0, -3.0], [-2.0, -1.0, -1.5]])
    found = student().answers(EXAMPLES[:2])
    assert [answer.label for answer in found] == ["yes", "b"]
    assert found[0].probability == pytest.approx(1 / (1 + 2.718281828**-2))
    assert [answer.reason for answer in found] == [None, None]


def test_of_equals_it_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "likelihoods", lambda *_: [[-2.0, -1.0, -1.0]])
    (found,) = student().answers([EXAMPLES[1]])
    assert found == Answer("b", pytest.approx(1 / (2 + 2.718281828**-1)), None)


def test_options_that_are_one_to_the_student_are_refused() -> None:
    """It can write eight tokens, the end among them."""
    example = Example("Which?", options=("the sky is red", "the sky is blue"))
    assert len(student().answers([example], free=True)) == 1
    with pytest.raises(ValueError, match=r"the option 'the sky is blue' is the same to this student as 'the sky is r"):
        student().answers([example])


def test_very_unlikely_options_still_have_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "likelihoods", lambda *_: [[-4000.0, -4001.0]])
    (found,) = student().answers([EXAMPLES[0]])
    assert found.probability == pytest.approx(1 / (1 + 2.718281828**-1))


def test_labels_are_written_where_there_are_no_options_or_on_wish(written: list[str]) -> None:
    written += ["something", "else"]
    found = student().answers(EXAMPLES)
    assert [answer.label for answer in found][2] == "something"
    assert [answer.label for answer in found][4] == "else"
    assert [answer.probability is None for answer in found] == [False, False, True, False, True]
    written += ["1", "2", "3", "4", "5"]
    free = student().answers(EXAMPLES, free=True)
    assert [(answer.label, answer.probability) for answer in free] == [(str(place), None) for place in range(1, 6)]


def test_options_of_the_student_stand_in() -> None:
    (plain,) = student(options=("yes", "no")).answers([EXAMPLES[2]])
    (told,) = student().answers([Example("Say something", options=("yes", "no"))])
    assert plain == told
    assert plain.label in ("yes", "no")


def test_a_single_task_students_label_stands_after_the_last_marker(written: list[str]) -> None:
    written += ["so Answer: no, it is\nAnswer: yes ", "it is so", "\nAnswer: b", "because\nAnswer:"]
    found = student(way="single-task").answers(EXAMPLES[:4], reasons=True)
    assert found == [
        Answer("yes", None, "so Answer: no, it is"),
        Answer("", None, "it is so"),
        Answer("b", None, ""),
        Answer("", None, "because"),
    ]
    written += ["since\nAnswer: yes"]
    assert student(way="single-task").answers(EXAMPLES[:1]) == [Answer("yes", None, None)]
    written += ["since => yes"]
    words = Wording(answer=" => ")
    assert student(way="single-task", wording=words).reasons(EXAMPLES[:1]) == ["since"]


@pytest.mark.parametrize(
    ("way", "reads"),
    [
        ("standard", "[label] Is it?"),
        ("distilled", "[label] Is it?"),
        ("two-task", "[label] Is it?"),
        ("informed", "[label] Is it?\nReason: since"),
        ("single-task", "[label] Is it?"),
    ],
)
def test_it_is_asked_in_the_words_it_was_taught(way: Way, reads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    one = student(way=way)

    def writes(_: Any, coder: Any, sources: list[list[int]], tokens: int) -> list[str]:
        asked.extend(coder.text(source) for source in sources)
        assert tokens == 8
        return [""] * len(sources)

    monkeypatch.setattr(room, "write", writes)
    one.answers([Example("Is it?", rationale="since")])
    assert asked == [reads]
    if way == "two-task":
        one.reasons([Example("Is it?", rationale="since")])
        assert asked[1] == "[rationale] Is it?"


@pytest.mark.parametrize("way", ["standard", "distilled", "informed"])
def test_no_reason_is_had_of_who_never_learnt_to_give_one(way: Way) -> None:
    one = student(way=way)
    with pytest.raises(ValueError, match=rf"a student taught the way '{way}' gives no reasons: train one by two-task"):
        one.reasons(EXAMPLES)
    with pytest.raises(ValueError, match=r"gives no reasons"):
        one.answers(EXAMPLES, reasons=True)
    with pytest.raises(ValueError, match=r"gives no reasons"):
        next(one.stream(EXAMPLES, reasons=True))


@pytest.mark.parametrize("way", WAYS)
def test_nobody_asks(way: Way) -> None:
    assert student(way=way).answers([]) == []
    assert list(student(way=way).stream([])) == []


# against a reference: what the model finds likely and writes


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_the_models_own(name: str) -> None:
    one = student(name)
    found = one.answers(EXAMPLES, reasons=True)
    for example, answer in zip(EXAMPLES, found, strict=True):
        (source,) = one.coder.sources([f"[label] {example.text}"])
        if example.options:
            ((*line,),) = likelihoods(one.model, one.coder, [source], [one.coder.targets(example.options)])
            assert answer.label == example.options[line.index(max(line))]
            parts = torch.tensor(line).softmax(0)
            assert answer.probability == pytest.approx(float(parts.max()), rel=1e-3)
        else:
            assert answer == Answer(write(one.model, one.coder, [source], 8)[0], None, answer.reason)
        (source,) = one.coder.sources([f"[rationale] {example.text}"])
        assert answer.reason == write(one.model, one.coder, [source], 8)[0]
    assert one.reasons(EXAMPLES) == [answer.reason for answer in found]
    assert len({answer.reason for answer in found}) > 1


# property


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["two-task", "single-task"])
def test_a_stream_is_the_answers_in_order_whatever_its_batches(name: str, way: Way) -> None:
    one = student(name, way)
    whole = one.answers(EXAMPLES, reasons=True)
    for size in (1, 2, 5, 64):
        found = list(one.stream(iter(EXAMPLES), size, reasons=True))
        assert [(answer.label, answer.reason) for answer in found] == [
            (answer.label, answer.reason) for answer in whole
        ]
        assert [answer.probability for answer in found] == [
            pytest.approx(answer.probability, rel=1e-4) if answer.probability else None for answer in whole
        ]


def test_a_stream_reads_no_further_than_it_must() -> None:
    read = []

    def endless() -> Iterator[Example]:
        while True:
            read.append(len(read))
            yield Example(f"Is it {len(read)}?", options=("yes", "no"))

    answers = student().stream(endless(), batch_size=3)
    assert read == []
    next(answers)
    assert len(read) == 3
    assert len(list(islice(answers, 4))) == 4
    assert len(read) == 6


# what it costs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("free", [False, True])
def test_a_label_costs_a_two_task_student_no_more_than_a_standard_one(name: str, free: bool) -> None:
    """The promise of the method: reasons are for training."""
    standard, two_task = student(name, "standard"), student(name, "two-task")
    spent = flops.count(lambda: standard.answers(EXAMPLES, free=free))
    assert flops.count(lambda: two_task.answers(EXAMPLES, free=free)) == spent > 0
    assert flops.count(lambda: two_task.answers(EXAMPLES, reasons=True, free=free)) > spent


# to disk and back


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_answers_the_same(name: str, tmp_path: Path) -> None:
    one = student(name, options=("yes", "no"), wording=Wording("p: ", "e: "))
    folder = one.save(tmp_path / "student")
    assert folder == tmp_path / "student"
    again = Student.load(folder)
    assert again.taught == one.taught
    assert again.coder.family == one.coder.family
    assert again.answers(EXAMPLES, reasons=True) == one.answers(EXAMPLES, reasons=True)
    assert again.answers(EXAMPLES, free=True) == one.answers(EXAMPLES, free=True)


def test_a_student_is_saved_in_the_place_of_one(tmp_path: Path) -> None:
    """A run that was killed after it had saved its student saves it again."""
    student(way="standard").save(tmp_path / "student")
    student(way="two-task").save(tmp_path / "student")
    assert Student.load(tmp_path / "student").taught.way == "two-task"
    (tmp_path / "student" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"also holds mine\.txt, which saving would remove"):
        student().save(tmp_path / "student")
    assert Student.load(tmp_path / "student").taught.way == "two-task", "what was there is as it was"


def test_the_place_of_a_student_is_taken_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at any write or rename, what lies there is a whole student, the old or the new one."""
    folder = student(way="standard").save(tmp_path / "student")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    for place, name in ((files, "replace"), (Path, "rename")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, stopped)
            with pytest.raises(KeyboardInterrupt):
                student(way="two-task").save(folder)
        assert Student.load(folder).taught.way == "standard"


def test_how_rows_become_texts_stays_for_who_was_taught_the_same(tmp_path: Path) -> None:
    folder = student(way="standard").save(tmp_path / "student")
    (folder / "form.json").write_text("told")
    student(way="standard").save(folder)
    assert (folder / "form.json").read_text() == "told"
    student(way="two-task").save(folder)
    assert not (folder / "form.json").exists()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no rationale\.json is there"):
        Student.load(tmp_path / "nothing")
    student().save(tmp_path / "student")
    (tmp_path / "student" / "rationale.json").unlink()
    with pytest.raises(ValueError, match=r"no rationale\.json is there: expected the folder of a student"):
        Student.load(tmp_path / "student")
    student().save(tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"torn"):
        Student.load(tmp_path / "torn")
    student().save(tmp_path / "told")
    kept = tmp_path / "told" / "rationale.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "source_tokens": 1}))
    with pytest.raises(ValueError, match=r"1 source and 8 target tokens: expected 8 and 2 or more"):
        Student.load(tmp_path / "told")


# alone


def test_in_a_bare_loop(tmp_path: Path) -> None:
    """Taught, asked and put away in a few lines."""
    from shoestring.methods.rationale.encode import batch
    from shoestring.methods.rationale.lessons import lessons
    from shoestring.methods.rationale.loss import two_task_loss

    examples = [Example("up", "yes", ("yes", "no"), "it goes up"), Example("down", "no", ("yes", "no"), "it falls")]
    taught = Taught("two-task", source_tokens=64, target_tokens=16)
    one = Student.of(small("t5", 1.0), byte_tokenizer(), taught)
    made = lessons(examples, "two-task", one.taught.wording)
    some = {task: batch(one.coder.pairs(pairs), one.coder.family, one.coder.end) for task, pairs in made.items()}
    optimizer = torch.optim.AdamW(one.model.parameters(), lr=1e-2)
    for _ in range(120):
        two_task_loss(one.model, some, {"label": 1.0, "rationale": 1.0}).backward()
        optimizer.step()
        optimizer.zero_grad()
    found = Student.load(one.save(tmp_path / "student")).answers(examples, reasons=True)
    assert [(answer.label, answer.reason) for answer in found] == [("yes", "it goes up"), ("no", "it falls")]
    assert [answer.label for answer in one.answers(examples, free=True)] == ["yes", "no"]
