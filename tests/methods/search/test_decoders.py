"""The space of language models: what is in it, and that nothing leaves its budget."""

from __future__ import annotations

import pickle
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.methods.search.decoders import Decoder, Decoders

SMALL = Decoders(50, 16, layers=(1, 2), widths=(16, 32), heads=(2, 4), ratios=(1.0, 2.0))


# by hand


def test_the_members_of_a_small_space_by_hand() -> None:
    """A width of 16 has two heads of 8, and none of 4; a width of 32 has two of 16 or four of 8."""
    shapes = [(16, 2), (32, 2), (32, 4)]
    expected = {Decoder(n, w, h, w * r) for n in (1, 2) for w, h in shapes for r in (1, 2)}
    assert set(SMALL.members) == expected
    assert len(SMALL.members) == 12


def test_the_parameters_of_one_by_hand() -> None:
    attention, feed_forward = 4 * (16 * 16 + 16), 16 * 32 + 32 + 32 * 16 + 16
    norms = 2 * 2 * 16
    expected = 2 * 50 * 16 + 2 * (attention + feed_forward + norms) + 2 * 16
    assert SMALL.parameters(Decoder(2, 16, 2, 32)) == expected


def test_the_neighbours_of_one_by_hand() -> None:
    """One choice differs each; with the width the feed-forward part grows, and four heads of 4 are too narrow."""
    found = list(SMALL.neighbours(Decoder(1, 16, 2, 32)))
    assert set(found) == {Decoder(2, 16, 2, 32), Decoder(1, 32, 2, 64), Decoder(1, 16, 2, 16)}
    assert len(found) == 3


def test_the_text_of_one() -> None:
    assert SMALL.encode(Decoder(4, 128, 4, 512)) == "layers=4,width=128,heads=4,inner=512"
    assert SMALL.decode(" layers=4, width=128, heads=4, inner=512\n") == Decoder(4, 128, 4, 512)


# against a reference: every architecture built, or every one looked at


def test_what_is_counted_is_what_is_built() -> None:
    for decoder in SMALL.members:
        model = SMALL.build(decoder, seed=0)
        assert SMALL.parameters(decoder) == sum(parameter.numel() for parameter in model.parameters())


def test_a_budget_keeps_those_that_fit_it() -> None:
    counts = {decoder: SMALL.parameters(decoder) for decoder in SMALL.members}
    least, most = sorted(counts.values())[2], sorted(counts.values())[8]
    budget = Decoders(50, 16, (1, 2), (16, 32), (2, 4), (1.0, 2.0), max_parameters=most, min_parameters=least)
    assert set(budget.members) == {decoder for decoder, count in counts.items() if least <= count <= most}
    assert 0 < len(budget.members) < len(SMALL.members)


def test_neighbours_are_all_that_differ_in_one_choice() -> None:
    """By comparing each two: the choices are layers, width, heads and ratio."""
    space = Decoders(50, 16, (1, 2, 3), (48, 96), (2, 3, 4), (0.5, 1.0, 8 / 3), max_parameters=100_000)

    def choices(decoder: Decoder) -> tuple[float, ...]:
        (ratio,) = (ratio for ratio in space.ratios if round(ratio * decoder.width) == decoder.inner)
        return decoder.layers, decoder.width, decoder.heads, ratio

    for one in space.members:
        expected = {
            other
            for other in space.members
            if sum(a != b for a, b in zip(choices(one), choices(other), strict=True)) == 1
        }
        assert set(space.neighbours(one)) == expected


def test_the_untrained_model_runs() -> None:
    for decoder in Decoders(50, 16, (1,), (16, 24, 48), (2, 3), (1.0,)).members:
        logits = SMALL.build(decoder, seed=0)(input_ids=torch.arange(16)[None]).logits
        assert logits.shape == (1, 16, 50)
        assert bool(torch.isfinite(logits).all())


def test_the_configuration_is_a_hugging_face_one() -> None:
    config = SMALL.configuration(Decoder(2, 32, 4, 64))
    assert config.model_type == "gpt_neox"
    found = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads, config.intermediate_size)
    assert found == (2, 32, 4, 64)
    assert (config.vocab_size, config.max_position_embeddings) == (50, 16)


# properties


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), most=st.integers(25_000, 20_000_000))
def test_nothing_leaves_the_budget(seed: int, most: int) -> None:
    space = Decoders(257, 128, max_parameters=most)
    random = Random(seed)
    found = space.draw(random)
    for _ in range(5):
        assert space.parameters(found) <= most
        assert space.decode(space.encode(found)) == found
        near = set(space.neighbours(found))
        assert found not in near
        before, found = found, space.mutate(found, random)
        assert found in near
        assert before in set(space.neighbours(found))


def test_draws_are_even_over_the_members() -> None:
    random = Random(0)
    drawn = [SMALL.draw(random) for _ in range(2400)]
    assert all(150 < drawn.count(member) < 250 for member in SMALL.members)


def test_the_default_choices_reach_from_a_laptop_to_a_gpu() -> None:
    space = Decoders(257, 128)
    counts = [space.parameters(member) for member in (space.members[0], space.members[-1])]
    assert counts[0] < 100_000
    assert counts[1] > 150_000_000


def test_same_seed_same_draws_and_weights() -> None:
    assert SMALL.draw(Random(3)) == SMALL.draw(Random(3))
    decoder = SMALL.members[0]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = SMALL.build(decoder, 7), SMALL.build(decoder, 7)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_space_is_small_to_send() -> None:
    """Each job of many carries one."""
    space = Decoders(257, 128, max_parameters=5_000_000)
    assert len(space.members) > 1000
    assert len(pickle.dumps(space)) < 1000
    assert pickle.loads(pickle.dumps(space)) == space  # noqa: S301  # just packed here


# misuse


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"max_parameters": 9}, r"no decoder has at most 9 parameters: .* 50 .*, the least possible is 3,328$"),
        ({"min_parameters": 10**9}, r"no decoder has at least 1,000,000,000 .*, the most possible is 20,352$"),
        ({"min_parameters": 3329, "max_parameters": 3330}, r"has 3,329 to 3,330 .*, the nearest are 3,328 and 3,856$"),
        ({"min_parameters": 9, "max_parameters": 8}, r"expected min_parameters=9 of at most max_parameters=8"),
    ],
)
def test_an_empty_budget_says_what_there_is(budget: dict[str, int], message: str) -> None:
    counts = sorted({SMALL.parameters(member) for member in SMALL.members})
    assert (counts[0], counts[1], counts[-1]) == (3328, 3856, 20352)
    with pytest.raises(ValueError, match=message):
        Decoders(50, 16, (1, 2), (16, 32), (2, 4), (1.0, 2.0), **budget)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ()}, r"layers to choose from are \(\)"),
        ({"widths": (0, 16)}, r"widths to choose from are \(0, 16\): expected"),
        ({"ratios": (float("nan"),)}, r"ratios to choose from are \(nan,\)"),
        ({"heads": (5,), "widths": (32,)}, r"no heads of \(5,\) divide a width of \(32,\)"),
        ({"heads": (2,), "widths": (18,)}, r"no heads of \(2,\) divide a width of \(18,\)"),
        ({"vocabulary": 0}, "vocabulary is 0: expected one or more"),
    ],
)
def test_choices_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decoders(**{"vocabulary": 50, "length": 16, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a decoder is written layers=4,width=128,heads=4,inner=512"),
        ("layers=4,width=128,inner=512,heads=4", "in this order"),
        ("layers=4,width=128,heads=4", "with these four"),
        ("layers=4,width=x,heads=4,inner=512", "width is 'x': expected a positive whole number"),
        ("layers=0,width=128,heads=4,inner=512", "layers is '0'"),
        ("layers=4,width=128,heads=3,inner=512", "3 heads do not fit a width of 128"),
        ("layers=4,width=16,heads=4,inner=512", "4 heads do not fit a width of 16"),
    ],
)
def test_a_bad_text_is_refused_on_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        SMALL.decode(text)
    assert "\n" not in str(refused.value)


def test_one_alone_has_nowhere_to_go() -> None:
    space = Decoders(50, 16, (1,), (16,), (2,), (1.0,))
    with pytest.raises(ValueError, match="has no neighbour within the budget"):
        space.mutate(space.draw(Random(0)), Random(0))
