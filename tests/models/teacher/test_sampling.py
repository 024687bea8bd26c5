"""Drawing a token, and where an answer ends."""

from __future__ import annotations

import pytest
import torch

from shoestring.data.tokenizers import byte_tokenizer
from shoestring.models.teacher.sampling import Draws, Stops, ended
from shoestring.models.teacher.words import Parameters

SCORES = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def drawn(parameters: Parameters, times: int) -> list[float]:
    """How often each of four tokens is drawn."""
    draws = Draws(parameters, range(times))
    left = draws(torch.zeros(times, 1), SCORES.expand(times, 4))
    assert (left == 0).sum(-1).eq(1).all()
    assert left.isinf().sum() == 3 * times
    return (left == 0).float().mean(0).tolist()


@pytest.mark.parametrize(
    ("temperature", "top_p", "chances"),
    [
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (0.5, 1.0, [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        (1.0, 0.7, [0.5 / 0.8, 0.3 / 0.8, 0, 0]),
        (1.0, 0.85, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        (1.0, 0.01, [1, 0, 0, 0]),
        (1e-4, 1.0, [1, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_their_chance_says(temperature, top_p, chances):
    found = drawn(Parameters(temperature=temperature, top_p=top_p), 4000)
    assert found == pytest.approx(chances, abs=0.03)
    assert [share == 0 for share in found] == [chance == 0 for chance in chances]


def test_a_row_is_drawn_alike_whatever_stands_beside_it():
    parameters = Parameters(temperature=1.0)
    alone, beside = Draws(parameters, [7]), Draws(parameters, [3, 7, 9])
    for _ in range(50):
        one = alone(torch.zeros(1, 1), torch.zeros(1, 100))
        several = beside(torch.zeros(3, 1), torch.zeros(3, 100))
        assert torch.equal(one[0], several[1])


def test_a_row_ends_once_its_text_holds_a_stop():
    tokenizer = byte_tokenizer()
    stops = Stops(["END", "é"], tokenizer, 3)
    rows = [tokenizer.encode(text) for text in ("ENDxxEN ", "ab xxEND", "ab xEND ", "ab xxx\u00e9")]
    assert stops(torch.tensor(rows), None).tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("written", "stop", "found"),
    [
        ("four", (), ("four", "length", 7, 4)),
        ("four<end>", (), ("four", "stop", 7, 5)),
        ("four<end><end><end>", (), ("four", "stop", 7, 5)),
        ("four\nfive", ("\n",), ("four", "stop", 7, 9)),
        ("fo. ur\n<end><end>", ("\n", "."), ("fo", "stop", 7, 7)),
        ("<end>", (), ("", "stop", 7, 1)),
        ("", (), ("", "length", 7, 0)),
    ],
)
def test_where_an_answer_ends(written, stop, found):
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(written.replace("<end>", tokenizer.eos_token))
    assert ended(ids, {256}, Parameters(stop=stop), tokenizer, 7) == found
