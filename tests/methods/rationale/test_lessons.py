"""The five ways to teach, the shuffled control, and how a folder says how its student was taught."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale.encode import Pair
from shoestring.methods.rationale.examples import Example
from shoestring.methods.rationale.lessons import (
    LABEL,
    WAYS,
    Lesson,
    Taught,
    Way,
    Wording,
    lessons,
    shuffled,
    source_of,
)
from shoestring.methods.rationale.stream import Lessons

WORDS = Wording()
BOTH = Example("x", "yes", ("yes", "no"), "since", "no")
UNREAD = Example("y", "no", ("yes", "no"))  # the teacher's answer could not be read
UNLABELLED = Example("z", None, ("yes", "no"), "because", "yes")
ALL = [BOTH, UNREAD, UNLABELLED]

# by hand


def test_ways_differ_in_the_reasons_alone() -> None:
    """Where nobody gave a gold label, the teacher's stands in for it, with the twin as with the method."""
    labels = [Lesson("[label] x", "yes"), Lesson("[label] y", "no"), Lesson("[label] z", "yes")]
    assert lessons(ALL, "standard", WORDS) == {"label": labels}
    assert lessons(ALL, "two-task", WORDS)["label"] == labels


def test_distilled_is_of_the_teachers_labels() -> None:
    assert lessons(ALL, "distilled", WORDS) == {"label": [Lesson("[label] x", "no"), Lesson("[label] z", "yes")]}


def test_two_tasks_of_one_text() -> None:
    assert lessons(ALL, "two-task", WORDS) == {
        "label": [Lesson("[label] x", "yes"), Lesson("[label] y", "no"), Lesson("[label] z", "yes")],
        "rationale": [Lesson("[rationale] x", "since"), Lesson("[rationale] z", "because")],
    }


def test_a_single_task_is_reason_and_label_in_one() -> None:
    assert lessons(ALL, "single-task", WORDS) == {
        "label": [Lesson("[label] x", "since", "\nAnswer: yes"), Lesson("[label] z", "because", "\nAnswer: yes")]
    }
    for way in WAYS:
        for some in lessons(ALL, way, WORDS).values():
            assert all(bool(lesson.ending) is (way == "single-task") for lesson in some)


def test_informed_reads_the_reason() -> None:
    assert lessons(ALL, "informed", WORDS) == {
        "label": [Lesson("[label] x\nReason: since", "yes"), Lesson("[label] z\nReason: because", "yes")]
    }
    assert source_of(UNREAD, "informed", WORDS) == "[label] y", "at prediction, where the teacher gave none"
    assert source_of(BOTH, "two-task", WORDS) == "[label] x"


def test_a_blank_reason_is_none() -> None:
    blank = replace(BOTH, rationale=" \n")
    made = lessons([BOTH, blank], "two-task", WORDS)
    assert [len(some) for some in made.values()] == [2, 1]
    assert len(lessons([BOTH, blank], "single-task", WORDS)["label"]) == 1


def test_another_way_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the way 'twotask': expected one of standard, distilled, two-task"):
        lessons([BOTH], "twotask", WORDS)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the way 'twotask': expected one of"):
        Taught("twotask")  # type: ignore[arg-type]


def test_other_words() -> None:
    words = Wording("predict: ", "explain: ", " => ", " as ")
    found = lessons([BOTH], "two-task", words)
    assert found == {"label": [Lesson("predict: x", "yes")], "rationale": [Lesson("explain: x", "since")]}
    assert lessons([BOTH], "single-task", words)["label"] == [Lesson("predict: x", "since", " => yes")]
    assert lessons([BOTH], "informed", words)["label"] == [Lesson("predict: x as since", "yes")]


@pytest.mark.parametrize(
    ("way", "example", "lacks"),
    [
        ("standard", replace(BOTH, label=None, teacher_label=None), "label"),
        ("distilled", UNREAD, "label of the teacher's"),
        ("two-task", UNREAD, "rationale"),
        ("two-task", replace(BOTH, label=None, teacher_label=None), "label"),
        ("two-task", replace(BOTH, rationale=""), "rationale"),
        ("single-task", UNREAD, "label and a rationale"),
        ("informed", UNREAD, "label and a rationale"),
    ],
)
def test_a_task_without_examples_is_refused(way: Way, example: Example, lacks: str) -> None:
    with pytest.raises(ValueError, match=rf"^{way}: no example has a {lacks}: expected some"):
        lessons([example], way, WORDS)
    with pytest.raises(ValueError, match=rf"^{way}: no example has a (label|rationale)"):
        lessons([], way, WORDS)


@pytest.mark.parametrize(
    ("wording", "said"),
    [
        ({"label": "a", "rationale": "a"}, r"both tasks have the prefix 'a'"),
        ({"answer": "  "}, r"expected words between a reason and its label"),
        ({"reason": "\n"}, r"and between a text and its reason"),
    ],
)
def test_words_that_tell_nothing_apart(wording: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Wording(**wording)


# the control


def test_shuffled_by_hand() -> None:
    first, second = shuffled([BOTH, UNREAD, UNLABELLED], 0)[::2]
    assert (first, second) == (replace(BOTH, rationale="because"), replace(UNLABELLED, rationale="since"))


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 2**63))
def test_each_has_the_reason_of_another_and_all_else_of_its_own(given_one: list[bool], seed: int) -> None:
    examples = [
        Example(str(place), str(place), rationale=f"r{place}" if reason else None, record={"row": place})
        for place, reason in enumerate(given_one)
    ]
    if sum(given_one) < 2:
        with pytest.raises(ValueError, match=r"reasons cannot be shuffled: expected two or more"):
            shuffled(examples, seed)
        return
    found = shuffled(examples, seed)
    assert [replace(example, rationale=None) for example in found] == [
        replace(example, rationale=None) for example in examples
    ]
    assert [example.record for example in found] == [example.record for example in examples]
    before, after = ([example.rationale for example in some] for some in (examples, found))
    assert sorted(filter(None, before)) == sorted(filter(None, after))
    assert not any(old == new for old, new in zip(before, after, strict=True) if old is not None)
    assert [new is None for new in after] == [not reason for reason in given_one]
    assert found == shuffled(examples, seed)


def test_another_seed_shuffles_otherwise() -> None:
    examples = [Example(str(place), rationale=f"r{place}") for place in range(50)]
    assert shuffled(examples, 0) != shuffled(examples, 1)


@pytest.mark.parametrize("seed", [0, 1, 1000])
def test_it_is_not_the_order_of_any_epoch(seed: int) -> None:
    """Else who has whose reason would go with when both are learnt."""
    examples = [Example(str(place), rationale=f"r{place}") for place in range(50)]
    found = [example.rationale for example in shuffled(examples, seed)]
    stream = Lessons({LABEL: [Pair([1], [2])]}, {LABEL: 1.0}, 1, family="decoder", pad=0, seed=seed)
    for epoch in range(4):
        order = [int(place) for place in stream._order(50, epoch)]
        assert found != [f"r{order[order.index(place) - 1]}" for place in range(50)], epoch


# beside the weights


@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_is_loaded(way: Way, tmp_path: Path) -> None:
    taught = Taught(way, Wording("p: ", "e: ", "\n→ ", "\n∵ "), ("ja", "nein “é”"), 77, 33)
    (tmp_path / "rationale.json").write_text(taught.text(), encoding="utf-8")
    assert Taught.load(tmp_path) == taught


def test_a_folder_that_does_not_say_how_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no rationale\.json is there: expected the folder of a student"):
        Taught.load(tmp_path)


GOOD = {
    "way": "two-task",
    "wording": {"label": "a", "rationale": "b", "answer": "c", "reason": "d"},
    "options": [],
    "source_tokens": 8,
    "target_tokens": 2,
}


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (json.dumps(GOOD)[:-9], r"rationale\.json: torn"),
        ("", r"rationale\.json: torn"),
        ("[1]", r"rationale\.json: not how a student was taught"),
        ("7", r"rationale\.json: not how a student was taught"),
        ("{}", r"rationale\.json: not how a student was taught"),
        ({**GOOD, "way": "three-task"}, r"rationale\.json: not how .*the way 'three-task': expected one of standard, "),
        ({**GOOD, "more": 1}, r"rationale\.json: not how a student was taught .*more"),
        ({**GOOD, "wording": None}, r"rationale\.json: not how a student was taught"),
        ({**GOOD, "wording": {"labl": "a"}}, r"rationale\.json: not how a student was taught .*labl"),
        ({**GOOD, "wording": {"label": "a", "rationale": "a"}}, r"rationale\.json: .*both tasks have the prefix 'a'"),
        ({**GOOD, "wording": {"label": 1}}, r"rationale\.json: not how a student was taught"),
        ({**GOOD, "options": "yes"}, r"rationale\.json: not how a student was taught"),
        ({**GOOD, "options": [1, 2]}, r"rationale\.json: not how a student was taught"),
        ({**GOOD, "source_tokens": "8"}, r"rationale\.json: not how a student was taught"),
        ({**GOOD, "target_tokens": None}, r"rationale\.json: not how a student was taught"),
    ],
)
def test_a_torn_or_foreign_file_is_refused_by_name(held: str | dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "rationale.json").write_text(held if isinstance(held, str) else json.dumps(held))
    with pytest.raises(ValueError, match=said):
        Taught.load(tmp_path)


def test_what_is_not_utf_8_is_torn(tmp_path: Path) -> None:
    (tmp_path / "rationale.json").write_bytes(b'{"way": "\xff"}')
    with pytest.raises(ValueError, match=r"rationale\.json: torn"):
        Taught.load(tmp_path)
