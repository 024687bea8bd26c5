"""Filters of reasons: what each takes out, counts and shows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.rationale import datasets, filters
from shoestring.methods.rationale.examples import Example

DATA = Path(os.environ.get("SHOESTRING_DATA", Path(__file__).parents[4] / "shared" / "data")) / "rationale"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there: set SHOESTRING_DATA")
CHOICES = ("bridge", "sea", "park")
GOOD = Example("t1", "bridge", CHOICES, "Trolls like dark places.", "bridge")
WRONG = Example("t2", "sea", CHOICES, "Trolls like stone.", "bridge")
BARE = Example("t3", "sea", CHOICES)

# by hand


def test_agreement_with_gold() -> None:
    kept, removed = filters.agrees([GOOD, WRONG, BARE, replace(GOOD, teacher_label=None)])
    assert kept == [GOOD, BARE]
    assert removed == filters.Removed("agrees", 3, 2, (WRONG, replace(GOOD, teacher_label=None)))
    assert removed.share == 2 / 3


def test_agreement_of_expressions_is_by_value() -> None:
    sum_ = Example("t", "((17 + 15) + 2)", (), "r", "(17 + (15 + 2))", expression=True)
    assert filters.agrees([sum_])[0] == [sum_]
    assert filters.agrees([replace(sum_, teacher_label="(17 + x)")])[0] == []
    assert filters.agrees([replace(sum_, expression=False)])[0] == []
    date = Example("t", "2014", (), "r", "2020-01-05")
    assert filters.agrees([date])[0] == []


def test_without_a_gold_label_nothing_disagrees() -> None:
    unlabelled = replace(GOOD, label=None)
    kept, removed = filters.agrees([unlabelled, WRONG])
    assert kept == [unlabelled]
    assert (removed.judged, removed.count) == (1, 1), "there is nothing to judge it by"


def test_who_was_told_passes_and_stays_marked() -> None:
    told = replace(GOOD, told=True)
    kept = filters.apply([told], ["agrees", "consistent", "leak", "length", "duplicates"]).examples
    assert kept == [told]
    assert kept[0].told
    assert filters.agrees([replace(WRONG, told=True)])[0] == []


def test_consistency() -> None:
    sure, unsure = replace(GOOD, agreement=0.6), replace(GOOD, agreement=0.4)
    kept, removed = filters.consistent([sure, unsure, GOOD], threshold=0.5)
    assert kept == [sure, GOOD]
    assert removed.count == 1
    assert filters.consistent([sure], threshold=0.6)[0] == [sure]


def test_leaks() -> None:
    stated = replace(GOOD, rationale="Dark places. So the answer is (a) bridge.")
    naming = replace(GOOD, rationale="Only the bridge is dark.")
    empty = replace(GOOD, rationale="So the answer is (a).")
    kept, removed = filters.leak([stated, naming, empty, BARE])
    assert kept == [replace(GOOD, rationale="Dark places."), naming, BARE]
    assert removed == filters.Removed("leak", 3, 1, (empty,), changed=1, holding=1)
    kept, removed = filters.leak([stated, naming, empty, BARE], remove=True)
    assert kept == [replace(GOOD, rationale="Dark places."), BARE]
    assert (removed.count, removed.holding) == (2, 0)


def test_who_reads_a_reason_does_not_read_the_answer_whoever_gave_a_label_or_none() -> None:
    yes = Example("x", "yes", ("yes", "no"), "It rains. So the answer is yes.", "yes")
    given = [
        yes,
        replace(yes, rationale="The answer is no.", label="no"),
        replace(yes, rationale=None),
        Example("w", "(84 / 2)", (), "Halve it. The answer is (84 / 2).", "(84 / 2)", expression=True),
        Example("v", "a park", (), "Trees. The answer is the park.", "a park"),
    ]
    for examples in (given, [replace(one, label=None, teacher_label=None) for one in given]):
        found = [filters.unanswered(one) for one in examples]
        assert [one.rationale for one in found] == ["It rains.", None, None, "Halve it.", "Trees."]
        assert [one.text for one in found] == ["x", "x", "x", "w", "v"]


def test_lengths() -> None:
    def words(count: int) -> Example:
        return replace(GOOD, rationale="w " * count)

    assert filters.length([words(2), words(3), words(5), words(6), BARE], 3, 5)[0] == [words(3), words(5), BARE]
    chinese = replace(GOOD, rationale="因为桥下很暗")
    assert filters.length([chinese], 6, 6)[0] == [chinese]
    assert filters.length([replace(GOOD, rationale="")])[0] == []


def test_duplicates() -> None:
    again = replace(GOOD, text=" T1 ", rationale="Another reason.")
    other = replace(GOOD, label="sea", rationale="A third.")
    kept, removed = filters.duplicates([GOOD, again, other, BARE, BARE])
    assert kept == [GOOD, other, BARE, BARE]
    assert removed.examples == (again,)
    assert (removed.count, removed.again) == (1, 1)
    same = [replace(GOOD, text=f"x{number}", rationale="It fits.") for number in range(4)]
    assert filters.duplicates(same, texts=3)[0] == []
    assert filters.duplicates(same, texts=4)[0] == same
    told = filters.apply([*same, GOOD, again], ["duplicates"]).table()
    assert "1 of an example there before, 4 given for many texts" in told


# several


def test_examples_are_kept_for_their_labels() -> None:
    done = filters.apply([GOOD, WRONG, BARE], ["agrees", "length"])
    assert done.examples == [GOOD, replace(WRONG, rationale=None), BARE]
    assert [(one.name, one.judged, one.count) for one in done.removed] == [("agrees", 2, 1), ("length", 1, 0)]
    assert filters.apply([GOOD, WRONG, BARE], ["agrees"], drop="example").examples == [GOOD, BARE]
    assert filters.apply([GOOD], []).examples == [GOOD]
    assert filters.apply([], ["agrees"]).removed[0].share == 0


def test_the_table() -> None:
    done = filters.apply([GOOD, WRONG, replace(GOOD, text="t4", rationale="The bridge.")], ["agrees", "leak"])
    assert done.table() == (
        "filter        judged     out   share\n"
        "agrees             3       1   33.3%\n"
        "    gold 'sea', teacher 'bridge': Trolls like stone.\n"
        "leak               2       0    0.0%  1 still name the label"
    )


def test_options_are_handed_on() -> None:
    options = {"length": {"least": 9}, "consistent": {"threshold": 1}}
    done = filters.apply([GOOD], ["length", "consistent"], options=options)
    assert [one.count for one in done.removed] == [1, 0]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["agree"], {}, r"^filter 'agree': expected one of agrees, consistent, leak, length, duplicates"),
        (["length"], {"length": {"min": 1}}, r"^filter 'length' has no option 'min': expected least, most"),
        (["agrees"], {"agrees": {"x": 1}}, r"has no option 'x': expected none"),
        (["length"], {"length": {"least": 1.5}}, r"^filter 'length': least is 1\.5, expected a value such as 1"),
        (["length"], {"length": {"least": True}}, r"least is True"),
        (["leak"], {"leak": {"remove": 1}}, r"remove is 1, expected a value such as False"),
        (["consistent"], {"consistent": {"threshold": 2.0}}, r"^threshold: 2\.0, expected a part"),
        (["length"], {"length": {"least": 9, "most": 3}}, r"^least 9 and most 3: expected"),
        (["agrees"], {"length": {"least": 9}}, r"^options of the filter 'length', which is not applied"),
    ],
)
def test_what_is_refused(names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        filters.apply([GOOD], names, options=options)
    with pytest.raises(ValueError, match=r"^drop: 'all', expected 'rationale' or 'example'"):
        filters.apply([GOOD], [], drop="all")  # type: ignore[arg-type]


EXAMPLES = st.lists(
    st.builds(
        Example,
        st.sampled_from("xyz"),
        st.sampled_from([None, *CHOICES]),
        st.just(CHOICES),
        st.sampled_from([None, "", "A reason.", "The bridge.", "So the answer is sea."]),
        st.sampled_from([None, *CHOICES]),
        st.sampled_from([None, 0.2, 0.8]),
    ),
    max_size=9,
)
NAMES = st.permutations(["agrees", "consistent", "leak", "length", "duplicates"])


@given(EXAMPLES, NAMES)
def test_nobody_is_lost(examples: list[Example], names: list[str]) -> None:
    kept = filters.apply(examples, names)
    assert [(one.text, one.label) for one in kept.examples] == [(one.text, one.label) for one in examples]
    fewer = filters.apply(examples, names, drop="example")
    assert len(fewer.examples) == len(examples) - sum(one.count for one in fewer.removed)
    reasons = [one for one in kept.examples if one.rationale is not None]
    assert reasons == [one for one in fewer.examples if one.rationale is not None]


# the real data


@needs_data
@pytest.mark.parametrize(
    ("name", "file", "disagree", "shortened", "naming", "repeated"),
    [
        ("cqa", "cqa_train", 2407, 52, 5672, 0),
        ("svamp", "svamp_train", 207, 0, 386, 0),
        ("esnli", "esnli_train", 2641, 0, 0, 193),
        ("anli", "anli1_train", 280, 7, 0, 0),
    ],
)
def test_the_reasons_of_the_papers_teacher(
    name: str, file: str, disagree: int, shortened: int, naming: int, repeated: int
) -> None:
    examples = datasets.read(DATA / f"{file}.jsonl.gz", datasets.FORMS[name])
    alone = {one: filters.apply(examples, [one]).removed[0] for one in ("agrees", "leak", "length", "duplicates")}
    assert {key: one.count for key, one in alone.items()} == {
        "agrees": disagree,
        "leak": 0,
        "length": 0,
        "duplicates": repeated,
    }
    assert (alone["leak"].changed, alone["leak"].holding) == (shortened, naming)
