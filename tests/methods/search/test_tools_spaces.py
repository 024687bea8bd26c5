"""Spaces by name."""

from __future__ import annotations

from random import Random

import pytest

from shoestring.methods.search.tools_spaces import named, names


@pytest.mark.parametrize("name", names())
def test_a_space_is_found_by_its_name(name):
    space = named(name)
    drawn = space.draw(Random(0))
    assert space.decode(space.encode(drawn)) == drawn


def test_the_spaces_differ():
    assert len({type(named(name)) for name in names()}) == len(names())


def test_an_unknown_space_is_told_with_the_nearest():
    with pytest.raises(ValueError, match="no space is called 'nasbench-201'; did you mean 'nas-bench-201'"):
        named("nasbench-201")
    with pytest.raises(ValueError, match="no space is called 'x': expected one of nas-bench-201"):
        named("x")
