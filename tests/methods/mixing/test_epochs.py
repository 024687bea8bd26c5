"""The course of all batches: counts, caps, changes of weights in their place, and what it takes to go on."""

import json

import pytest

from shoestring.methods.mixing.epochs import Course


def course(**more: object) -> Course:
    given = {"lengths": {"a": 4, "b": 8, "c": None}, "weights": [0.25, 0.25, 0.5], "size": 4} | more
    return Course(**given)  # type: ignore[arg-type]


def test_a_batch_by_hand() -> None:
    """Of four samples two are of the half, one of each quarter; numbers count on by source."""
    one = course()
    for batch in range(3):
        sources, numbers = one.advance()
        assert sorted(sources) == [0, 1, 2, 2]
        assert [numbers[sources.index(source)] for source in (0, 1, 2)] == [batch, batch, 2 * batch]
    assert (one.batch, one.drawn, one.counts) == (3, 12, [3, 3, 6])


def test_a_source_ends_with_its_cap_and_the_others_share_in_proportion() -> None:
    one = course(lengths={"a": 4, "b": 8, "c": 100}, weights=[0.5, 0.3, 0.2], size=10, caps={"a": 7})
    drawn = [source for _ in range(4) for source in one.advance()[0]]
    assert drawn.count(0) == 7
    assert one.exhausted == [0]
    after = 40 - 1 - max(place for place, source in enumerate(drawn) if source == 0)
    rest = drawn[-after:]
    assert abs(rest.count(1) - 0.6 * after) <= 1.5
    assert abs(rest.count(2) - 0.4 * after) <= 1.5


def test_the_end_of_all_that_may_be_drawn_is_told_and_leaves_the_course_where_it_was() -> None:
    one = course(lengths={"a": 4, "b": 8, "c": 9}, weights=[0.5, 0.5, 0], caps={"a": 4, "b": 5})
    one.advance(), one.advance()
    before = one.state_dict()
    with pytest.raises(ValueError, match="all sources with a weight are exhausted after 8 samples: a, b do not fill"):
        one.advance()
    assert one.state_dict() == before
    one.change(2, [0, 0, 1.0])
    assert one.advance()[0] == [2] * 4


def test_weights_by_tokens() -> None:
    """Samples of a are three times as long: for half of the tokens it takes a quarter of the samples."""
    one = course(lengths={"a": 4, "b": 4}, weights=[0.5, 0.5], tokens=[30, 10])
    assert [sorted(one.advance()[0]) for _ in range(5)] == [[0, 1, 1, 1]] * 5
    assert one.weights == [0.5, 0.5]


def test_changes_take_effect_in_their_place() -> None:
    one = course()
    one.change(2, [1, 0, 0])
    one.change(3, [0, 1, 0])
    one.change(3, [0, 0, 1])  # instead of the one before
    seen = []
    for _ in range(4):
        weights, (sources, _) = one.weights, one.advance()
        seen.append((weights, sorted(sources)))
    assert seen[0] == seen[1] == ([0.25, 0.25, 0.5], [0, 1, 2, 2])
    assert seen[2] == ([1, 0, 0], [0] * 4)
    assert seen[3] == ([0, 0, 1], [2] * 4)
    with pytest.raises(ValueError, match="weights for batch 3 came when 4 were drawn: give Mixture a larger delay"):
        one.change(3, [1, 0, 0])


def test_what_each_shard_read_of_a_stream_is_counted() -> None:
    one = course(world=2)
    one.split(2)
    for _ in range(3):
        one.advance()  # batches 0 and 2 by the first worker of each process, batch 1 by the second
    read = [one.read(2, shard) for shard in range(4)]
    assert sum(read) == one.counts[2] == 6
    assert read[0] + read[2] == 4
    assert read[1] + read[3] == 2
    with pytest.raises(ValueError, match="read by 2 workers in each of 2 processes: go on with as many, not 3"):
        one.split(3)


def test_it_goes_on_from_its_state() -> None:
    one = course(caps={"a": 9})
    one.change(5, [0.75, 0.25, 0])
    for _ in range(9):
        state, twin = json.loads(json.dumps(one.state_dict())), one.copy()
        other = course(caps={"a": 9})
        other.load_state_dict(state)
        assert other.advance() == twin.advance() == one.advance()
        assert other.state_dict() == twin.state_dict() == one.state_dict()


def test_a_state_of_another_course_is_refused() -> None:
    one, other = course(), course(world=2)
    one.advance()
    with pytest.raises(ValueError, match=r"read by 1 shards \(processes x workers\), these by 2: resume with the same"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="have drawn 4 samples: expected a multiple of 3"):
        course(size=3).load_state_dict(one.state_dict())
