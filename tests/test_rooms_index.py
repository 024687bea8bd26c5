"""The rooms as `list` and `run` find them, by folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring import rooms

CARD = """---
name: pruning
paper: A Paper (2020)
sentence: Cut what is not needed.
state: built
---
# pruning
---
"""


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two rooms, and another folder that is none."""
    for name in ("pruning", "baking"):
        (tmp_path / name / "recipes").mkdir(parents=True)
        (tmp_path / name / "README.md").write_text(CARD)
        for recipe in ("smoke", "cpu"):
            (tmp_path / name / "recipes" / f"{recipe}.yaml").touch()
    (tmp_path / "__pycache__").mkdir()
    monkeypatch.setattr(rooms, "_METHODS", tmp_path)
    rooms.every.cache_clear()
    yield tmp_path
    rooms.every.cache_clear()


def test_a_room_is_what_its_card_says(two: Path) -> None:
    baking, pruning = rooms.every()
    assert (baking.name, pruning.name) == ("baking", "pruning")
    assert pruning.paper == "A Paper (2020)"
    assert pruning.sentence == "Cut what is not needed."
    assert pruning.state == "built"
    assert pruning.folder == two / "pruning"
    assert pruning.recipes == ("cpu", "smoke")
    assert rooms.find("baking") is baking


def test_a_recipe_by_name_or_a_file_of_ones_own(two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = rooms.find("pruning")
    assert room.recipe("smoke") == two / "pruning" / "recipes" / "smoke.yaml"
    monkeypatch.chdir(tmp_path)
    Path("mine.yml").touch()
    assert room.recipe("mine.yml") == Path("mine.yml")


def test_unknown_names_are_refused_with_the_nearest(two: Path) -> None:
    with pytest.raises(ValueError, match=r"called 'prunning'; did you mean 'pruning'\?: the rooms are baking, pruning"):
        rooms.find("prunning")
    with pytest.raises(ValueError, match="called 'zzz': the rooms are baking, pruning"):
        rooms.find("zzz")
    room = rooms.find("pruning")
    with pytest.raises(ValueError, match=r"has no recipe 'smok'; did you mean 'smoke'\?: expected cpu, smoke, or a"):
        room.recipe("smok")
    with pytest.raises(ValueError, match=r"absent\.yaml: no such file"):
        room.recipe("absent.yaml")


def test_the_rooms_of_this_repository() -> None:
    """Whatever rooms stand, each has a card with its front matter, and a recipe to begin with."""
    assert "averaging" in [room.name for room in rooms.every()]
    for room in rooms.every():
        assert room.paper
        assert room.sentence.endswith(".")
        assert room.state
        assert "smoke" in room.recipes
