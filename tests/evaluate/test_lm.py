import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.evaluate import lm
from shoestring.models import presets

VOCABULARY = 40


class Table(nn.Module):
    """Logits that depend on the current token alone: what the loss must be can be worked out."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.logits[input_ids])


def batch(ids: list[list[int]], unscored: int = 0) -> dict[str, torch.Tensor]:
    inputs = torch.tensor(ids)
    labels = inputs.clone()
    labels[:, labels.shape[1] - unscored :] = -100
    return {"input_ids": inputs, "labels": labels}


@pytest.fixture(scope="module")
def model():
    return presets.build(presets.configuration("neox-tiny", VOCABULARY, 32, initializer_range=0.3), seed=0)


def random_batch(rows: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return batch(torch.randint(0, VOCABULARY, (rows, length), generator=generator).tolist())


# by hand


def test_an_even_guess_costs_the_logarithm_of_the_vocabulary():
    score = lm.loss(Table(torch.zeros(8, 8)), [batch([[1, 2, 3, 4], [5, 6, 7, 0]])], text_bytes=3)
    assert score.loss == pytest.approx(math.log(8))
    assert score.tokens == 6
    assert score.bits_per_byte == pytest.approx(6 * 3 / 3)


def test_each_token_is_scored_by_the_one_before_it():
    logits = torch.full((3, 3), -math.inf).fill_diagonal_(0.0).roll(1, dims=1)  # after 0 comes 1, after 1 comes 2
    assert lm.loss(Table(logits), [batch([[0, 1, 2, 0]])]).loss == 0
    with pytest.raises(ValueError, match="the loss of batch 0 is inf"):
        lm.loss(Table(logits), [batch([[0, 2, 1, 0]])])


def test_labels_of_minus_100_are_not_scored():
    logits = torch.tensor([[0.0, 5.0], [0.0, 0.0]])
    score = lm.loss(Table(logits), [batch([[1, 0, 0, 0]], unscored=2)])
    assert score == (pytest.approx(math.log(2)), None, 1)


def test_batches_weigh_by_their_tokens():
    table = Table(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    batches = [batch([[0, 1, 0, 0]]), batch([[1, 1]])]
    one, other = (lm.loss(table, [some]) for some in batches)
    assert lm.loss(table, batches).loss == pytest.approx((3 * one.loss + other.loss) / 4)


# against a reference: the model's own loss, and a slow sum


def test_it_equals_the_models_own_loss(model):
    some = random_batch(3, 20)
    with torch.no_grad():
        expected = model.eval()(**some).loss.item()
    assert lm.loss(model, [some]).loss == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("elements", [1, 100, 10**9])
def test_chunks_of_any_size_give_the_same(model, monkeypatch, elements):
    expected = lm.loss(model, [random_batch(3, 20)])
    monkeypatch.setattr(lm, "_CHUNK_ELEMENTS", elements)
    score = lm.loss(model, [random_batch(3, 20)])
    assert score.loss == pytest.approx(expected.loss, abs=1e-6)
    assert score.tokens == expected.tokens


def test_padding_that_is_masked_changes_nothing(model):
    whole = random_batch(1, 12)
    padded = {name: nn.functional.pad(tensor, (0, 5)) for name, tensor in whole.items()}
    padded["labels"][:, 12:] = -100
    padded["attention_mask"] = (torch.arange(17) < 12).long()[None]
    expected, score = lm.loss(model, [whole]), lm.loss(model, [padded])
    assert score.loss == pytest.approx(expected.loss, abs=1e-6)
    assert score.tokens == expected.tokens


def test_autocast_is_used_and_the_sum_stays_precise(model):
    full = lm.loss(model, [random_batch(4, 30)])
    half = lm.loss(model, [random_batch(4, 30)], autocast=torch.autocast("cpu", torch.bfloat16))
    assert half.loss != full.loss
    assert half.loss == pytest.approx(full.loss, rel=0.01)


# property


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(2, 9)), min_size=1, max_size=4), st.randoms())
def test_order_and_grouping_do_not_matter(model, shapes, random):
    batches = [random_batch(rows, length, seed) for seed, (rows, length) in enumerate(shapes)]
    apart = [
        {name: tensor[row : row + 1] for name, tensor in some.items()}
        for some in batches
        for row in range(len(some["labels"]))
    ]
    random.shuffle(apart)
    one, other = lm.loss(model, batches), lm.loss(model, apart)
    assert one.loss == pytest.approx(other.loss, abs=1e-5)
    assert one.tokens == other.tokens


def test_every_module_is_left_in_its_own_mode(model):
    model.train()
    model.gpt_neox.layers[0].eval()
    before = [module.training for module in model.modules()]
    lm.loss(model, [random_batch(1, 4)])
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ValueError, match="no 'labels'"):
        lm.loss(model, [{"input_ids": torch.zeros(1, 4, dtype=torch.long)}])
    assert [module.training for module in model.modules()] == before


def test_dropout_is_off_while_scoring():
    dropping = presets.build(presets.configuration("neox-tiny", VOCABULARY, 32, hidden_dropout=0.5), seed=0)
    scores = {lm.loss(dropping, [random_batch(2, 8)]).loss for _ in range(3)}
    assert len(scores) == 1
    assert dropping.training


def test_no_gradient_is_kept(model):
    lm.loss(model, [random_batch(1, 4)])
    assert all(parameter.grad is None for parameter in model.parameters())


# misuse


def test_a_loss_that_is_not_finite_names_the_batch():
    table = Table(torch.zeros(4, 4))
    table.logits.data[3] = torch.nan
    with pytest.raises(ValueError, match="the loss of batch 1 is nan"):
        lm.loss(table, [batch([[0, 1]]), batch([[3, 1]])])


@pytest.mark.parametrize("batches", [[], [batch([[1, 2, 3]], unscored=3)]])
def test_nothing_to_score_is_an_error(batches):
    with pytest.raises(ValueError, match="no token was scored"):
        lm.loss(Table(torch.zeros(4, 4)), batches)
