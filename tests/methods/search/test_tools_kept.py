"""What is kept survives a kill, and is not mixed with another search's."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.methods.search.score import Score
from shoestring.methods.search.tools_kept import Kept

FOUND = {"naswot": Score(-math.inf, 3.5, -math.inf, 7), "parameters": Score(12.0)}


def same(one: Score, other: Score) -> bool:
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one, other, strict=True))


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "new" / "out", {"seed": 1})
    kept.add_seconds("a", 0.25)
    kept.add_scores("a", FOUND)
    again = Kept(tmp_path / "new" / "out", {"seed": 1})
    assert again.seconds == {"a": 0.25}
    assert again.scores.keys() == {"a"}
    assert all(same(again.scores["a"][name], FOUND[name]) for name in FOUND)


def test_lines_are_plain_json(tmp_path: Path) -> None:
    """No Infinity or NaN, which other readers refuse."""
    Kept(tmp_path / "out", {}).add_scores("a", FOUND)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    line = (tmp_path / "out" / "scores.jsonl").read_text()
    assert json.loads(line, parse_constant=refuse)["scores"]["naswot"]["value"] == "-inf"


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 200))
def test_a_torn_line_is_as_if_it_was_not_there(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    out = tmp_path_factory.mktemp("kept") / "out"
    kept = Kept(out, {})
    kept.add_scores("a", FOUND)
    kept.add_scores("b", FOUND)
    path = out / "scores.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    left = Kept(out, {})
    assert left.scores.keys() == ({"a", "b"} if cut == 1 else {"a"})
    left.add_scores("c", FOUND)
    assert Kept(out, {}).scores.keys() == {*left.scores, "c"}


def test_other_options_are_refused(tmp_path: Path) -> None:
    Kept(tmp_path / "out", {"seed": 1, "length": 8})
    with pytest.raises(ValueError, match="out: begun with length 8, now 16: give another --out"):
        Kept(tmp_path / "out", {"seed": 1, "length": 16})


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds files that are no search's: give another --out"):
        Kept(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_torn_claim_is_refused(tmp_path: Path) -> None:
    Kept(tmp_path / "out", {})
    (tmp_path / "out" / "search.json").write_text("{")
    with pytest.raises(ValueError, match=r"search\.json: torn or changed"):
        Kept(tmp_path / "out", {})
