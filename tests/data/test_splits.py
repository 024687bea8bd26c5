import hashlib
from itertools import chain, combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.splits import SPLITS, choose, hashed_split, named_split, without_split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("wikitext_train.txt.gz", "train"),
        ("wikitext_dev.txt.gz", "dev"),
        ("valid/0001.jsonl", "dev"),
        ("en-validation-00000-of-00002.parquet", "dev"),
        ("TEST.txt", "test"),
        ("train/last_test.txt", "test"),
        ("pretrained.txt", None),
        ("device.txt", None),
        ("contest.txt", None),
        ("book.txt", None),
    ],
)
def test_a_name_states_its_split_only_as_a_whole_word(path, split):
    assert named_split(path) == split


@pytest.mark.parametrize(
    ("stem", "rest"),
    [("wiki_train", "wiki"), ("wiki-train-00000-of-00002", "wiki"), ("train", ""), ("0017", ""), ("book", "book")],
)
def test_the_name_less_its_split(stem, rest):
    assert without_split(stem) == rest


def test_the_hash_cuts_at_nine_tenths_and_nineteen_twentieths():
    for key in map(str, range(300)):
        fraction = int(hashlib.sha256(key.encode()).hexdigest()[:16], 16) / 16**16
        expected = "train" if fraction < 0.9 else "dev" if fraction < 0.95 else "test"
        assert hashed_split(key) == expected


def test_the_hash_gives_about_the_shares():
    sides = [hashed_split(f"text {number}") for number in range(20_000)]
    assert sides.count("train") == pytest.approx(18_000, abs=150)
    assert sides.count("dev") == pytest.approx(1_000, abs=120)


NAMED = [set(names) for names in chain.from_iterable(combinations(SPLITS, count) for count in range(4))]


@pytest.mark.parametrize("named", NAMED, ids=lambda named: " ".join(sorted(named)))
@given(text=st.text())
def test_each_text_of_each_kind_of_file_is_in_at_most_one_split(named, text):
    for kind in (*named, None):
        keepers = [split for split in SPLITS if (rule := choose(split, named).get(kind)) and rule(text)]
        assert len(keepers) == 1


@pytest.mark.parametrize(
    ("named", "kind", "shares"),
    [
        ({"train", "dev", "test"}, "dev", {"dev": 1.0}),
        ({"train", "dev"}, "train", {"train": 1.0}),
        ({"train", "dev"}, "dev", {"dev": 0.5, "test": 0.5}),
        ({"train", "test"}, "train", {"train": 0.95, "dev": 0.05}),
        ({"train", "test"}, "test", {"test": 1.0}),
        ({"train"}, "train", {"train": 0.9, "dev": 0.05, "test": 0.05}),
        ({"train", "dev"}, None, {"train": 0.9, "dev": 0.05, "test": 0.05}),
    ],
)
def test_what_no_file_is_named_after_is_cut_from_another(named, kind, shares):
    texts = [f"text {number}" for number in range(4000)]
    for split in SPLITS:
        rule = choose(split, named).get(kind)
        kept = sum(map(rule, texts)) if rule else 0
        assert kept / len(texts) == pytest.approx(shares.get(split, 0), abs=0.03)
