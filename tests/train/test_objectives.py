"""The objectives: by hand, against torch and against the loss Hugging Face models return."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from shoestring.models import presets, seq2seq
from shoestring.train.objectives import next_token, sequence_to_sequence, summed_cross_entropy


class Fixed(nn.Module):
    """Answers with given logits, and keeps what it was asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.asked: dict[str, Tensor] = {}

    def forward(self, **asked: Tensor) -> SimpleNamespace:
        self.asked = asked
        return SimpleNamespace(logits=self.logits)


@pytest.fixture(params=["neox-tiny", "gpt2-small"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2} if request.param == "gpt2-small" else {}
    return presets.build(presets.configuration(request.param, 50, 16, **small), 0)


def ids(*shape: int) -> Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(1))


# by hand


def test_even_odds_cost_the_logarithm_of_the_vocabulary() -> None:
    loss = next_token(Fixed(torch.zeros(2, 3, 8)), {"input_ids": torch.zeros(2, 3, dtype=torch.int64)})
    assert loss.total.item() == pytest.approx(4 * math.log(8))
    assert (loss.count, loss.tokens) == (4, 6)


def test_each_position_is_scored_on_the_token_after_it() -> None:
    # odds 3 : 1 for token 1 at both places; the tokens that follow are 1 and then 0
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)], [50.0, -50.0]]])
    loss = next_token(Fixed(logits), {"input_ids": torch.tensor([[0, 1, 0]])})
    assert loss.total.item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 4))


def test_labels_choose_the_targets_and_the_first_is_never_one() -> None:
    batch = {"input_ids": torch.tensor([[0, 1, 0, 1]]), "labels": torch.tensor([[0, -100, 1, -100]])}
    logits = torch.tensor([[[0.0, math.log(3)]] * 4])
    loss = next_token(Fixed(logits), batch)
    assert loss.total.item() == pytest.approx(-math.log(3 / 4))
    assert (loss.count, loss.tokens) == (1, 4)


def test_no_target_is_a_count_of_nothing() -> None:
    batch = {"input_ids": torch.zeros(1, 3, dtype=torch.int64), "labels": torch.full((1, 3), -100)}
    loss = next_token(Fixed(torch.zeros(1, 3, 4)), batch)
    assert (loss.total.item(), loss.count, loss.tokens) == (0, 0, 3)


def test_the_mask_reaches_the_model_and_labels_do_not() -> None:
    fixed = Fixed(torch.zeros(1, 3, 4))
    batch = {"input_ids": torch.zeros(1, 3, dtype=torch.int64), "attention_mask": torch.ones(1, 3)}
    next_token(fixed, {**batch, "labels": batch["input_ids"]})
    assert fixed.asked["attention_mask"] is batch["attention_mask"]
    assert "labels" not in fixed.asked
    assert fixed.asked["use_cache"] is False


def test_half_precision_logits_are_summed_in_fp32() -> None:
    logits = torch.randn(4, 300, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    targets = torch.zeros(4, 300, dtype=torch.int64)
    total = summed_cross_entropy(logits, targets)
    assert total.dtype == torch.float32
    exact = nn.functional.cross_entropy(logits.double().reshape(-1, 64), targets.reshape(-1), reduction="sum")
    assert total.item() == pytest.approx(exact.item(), rel=1e-6)


def test_an_answer_is_scored_token_by_token_from_what_starts_it() -> None:
    # odds 3 : 1 for token 1 at both places of the first row; the second row's last place is padding
    fixed = Fixed(torch.tensor([[[0.0, math.log(3)]] * 2] * 2))
    fixed.prepare_decoder_input_ids_from_labels = lambda labels: nn.functional.pad(labels, (1, -1), value=7)
    inputs, labels = torch.zeros(2, 5, dtype=torch.int64), torch.tensor([[1, 0], [1, -100]])
    mask = torch.ones(2, 5)
    batch = {"input_ids": inputs, "attention_mask": mask, "labels": labels}
    for model in (torch.compile(fixed, backend="eager"), fixed):
        loss = sequence_to_sequence(model, batch)
        assert loss.total.item() == pytest.approx(-2 * math.log(3 / 4) - math.log(1 / 4))
        assert (loss.count, loss.tokens) == (3, 14)
    assert fixed.asked["decoder_input_ids"].tolist() == [[7, 1], [7, 1]]
    assert fixed.asked["attention_mask"] is mask
    assert "labels" not in fixed.asked


# against a reference


@pytest.mark.parametrize("tied", [True, False])
def test_an_answers_loss_is_the_one_hugging_face_returns(tied: bool) -> None:
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 50, tie_word_embeddings=tied), 0)
    labels, mask = ids(3, 6), torch.ones(3, 9, dtype=torch.int64)
    labels[0, 4:] = -100
    mask[2, 5:] = 0
    for batch in ({"labels": labels}, {"labels": labels, "attention_mask": mask}):
        batch["input_ids"] = ids(3, 9)
        theirs = model(**batch).loss
        ours = sequence_to_sequence(model, batch)
        assert (ours.total / ours.count).item() == pytest.approx(theirs.item(), rel=1e-6)
        assert (ours.count, ours.tokens) == (16, 45)


def test_it_is_the_loss_hugging_face_returns(model: nn.Module) -> None:
    inputs = ids(3, 16)
    labels = inputs.clone()
    labels[0, :5] = -100
    labels[2, 9:] = -100
    for batch in ({"input_ids": inputs}, {"input_ids": inputs, "labels": labels}):
        theirs = model(input_ids=inputs, labels=batch.get("labels", inputs)).loss
        ours = next_token(model, batch)
        assert (ours.total / ours.count).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_gradients_are_those_of_the_plain_shifted_loss(model: nn.Module) -> None:
    inputs = ids(2, 12)
    logits = model(input_ids=inputs).logits[:, :-1]
    plain = nn.functional.cross_entropy(logits.reshape(-1, 50), inputs[:, 1:].reshape(-1), reduction="sum")
    expected = torch.autograd.grad(plain, list(model.parameters()))
    found = torch.autograd.grad(next_token(model, {"input_ids": inputs}).total, list(model.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# property


def test_padding_on_the_right_changes_nothing(model: nn.Module) -> None:
    model.eval()
    inputs = ids(2, 10)
    padded = nn.functional.pad(inputs, (0, 4))
    mask = nn.functional.pad(torch.ones_like(inputs), (0, 4))
    labels = nn.functional.pad(inputs, (0, 4), value=-100)
    alone = next_token(model, {"input_ids": inputs})
    beside = next_token(model, {"input_ids": padded, "attention_mask": mask, "labels": labels})
    assert beside.total.item() == pytest.approx(alone.total.item(), rel=1e-6)
    assert beside.count == alone.count
    assert beside.tokens == 28


def test_two_halves_add_up_to_the_whole(model: nn.Module) -> None:
    model.eval()
    inputs = ids(4, 10)
    whole = next_token(model, {"input_ids": inputs})
    halves = [next_token(model, {"input_ids": half}) for half in inputs.split([1, 3])]
    assert sum(half.total.item() for half in halves) == pytest.approx(whole.total.item(), rel=1e-6)
    assert sum(half.count for half in halves) == whole.count
