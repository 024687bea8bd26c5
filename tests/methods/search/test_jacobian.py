"""The correlation of per-sample Jacobians."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shoestring.methods.search.cells201 import Cells201
from shoestring.methods.search.jacobian import jacob_cov
from shoestring.models import presets

SMALL = 1e-5


def of_values(*values: float) -> float:
    return -sum(math.log(value + SMALL) + 1 / (value + SMALL) for value in values)


class Squares(nn.Module):
    """Its Jacobian is twice the inputs."""

    def forward(self, images: Tensor) -> Tensor:
        return images.square()


def test_by_hand_correlated_and_not():
    apart = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
    assert jacob_cov(Squares(), apart).value == pytest.approx(of_values(1, 1))
    alike = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    assert jacob_cov(Squares(), alike).value == pytest.approx(of_values(0, 2), rel=1e-6)


def test_against_a_loop_over_samples_and_numpys_correlation():
    model = nn.Sequential(nn.Linear(9, 40), nn.GELU(), nn.Linear(40, 5))
    images = torch.randn(6, 9, generator=torch.manual_seed(0))
    rows = []
    for image in images:
        leaf = image.clone().requires_grad_()
        model(leaf[None]).sum().backward()
        rows.append(leaf.grad.double().numpy())
    values = np.linalg.eigvalsh(np.corrcoef(np.array(rows)))
    assert jacob_cov(model, images).value == pytest.approx(of_values(*values), rel=1e-3)


def test_norms_take_the_batchs_statistics():
    model = nn.Sequential(nn.Linear(9, 40), nn.BatchNorm1d(40), nn.ReLU(inplace=True), nn.Linear(40, 5))
    model[1].running_mean.fill_(100.0)
    images = torch.randn(6, 9, generator=torch.manual_seed(0))
    leaf = images.clone().requires_grad_()
    model.train()(leaf).sum().backward()
    values = np.linalg.eigvalsh(np.corrcoef(leaf.grad.double().numpy()))
    model.eval()
    assert jacob_cov(model, images).value == pytest.approx(of_values(*values), rel=1e-3)


@pytest.mark.parametrize("preset", ["neox-tiny", "gpt2-small"])
def test_of_text_by_the_embedded_tokens_without_padding(preset):
    changes = {"n_layer": 1, "n_embd": 16, "n_head": 2} if preset == "gpt2-small" else {}
    model = presets.build(presets.configuration(preset, 19, 8, **changes), 0)
    ids = torch.randint(19, (3, 8), generator=torch.manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    rows = []
    for row, kept in zip(ids, mask, strict=True):
        length = int(kept.sum())
        leaf = model.get_input_embeddings()(row[None, :length]).detach().requires_grad_()
        model.eval()(inputs_embeds=leaf).logits.sum().backward()
        rows.append(nn.functional.pad(leaf.grad[0], (0, 0, 0, 8 - length)).flatten().double().numpy())
    values = np.linalg.eigvalsh(np.corrcoef(np.array(rows)))
    found = jacob_cov(model, {"input_ids": ids, "attention_mask": mask}).value
    assert found == pytest.approx(of_values(*values), rel=1e-3)
    padded = ids.masked_fill(mask == 0, 3)
    assert jacob_cov(model, {"input_ids": padded, "attention_mask": mask}).value == pytest.approx(found, rel=1e-6)


def test_classes_are_not_taken_for_tokens_where_they_are_as_many():
    class Classifier(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.words = nn.Embedding(19, 4)
            self.head = nn.Linear(4, classes)
            nn.init.constant_(self.head.weight, 1.0)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            found: Tensor = self.head(self.words(input_ids).sin().mean(1))
            return found

    batch = {"input_ids": torch.arange(12).reshape(3, 4), "attention_mask": torch.ones(3, 4, dtype=torch.int64)}
    batch["attention_mask"][1, 2:] = 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = torch.randn(19, 4)
    found = []
    for classes in (4, 5):  # of equal weights each, so that the gradients differ in their length alone
        model = Classifier(classes)
        model.words.weight = nn.Parameter(words)
        found.append(jacob_cov(model, batch).value)
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_the_order_of_the_samples_plays_no_part():
    model = nn.Sequential(nn.Linear(9, 40), nn.ReLU(), nn.Linear(40, 5))
    images = torch.randn(6, 9, generator=torch.manual_seed(0))
    assert jacob_cov(model, images.flip(0)).value == pytest.approx(jacob_cov(model, images).value, rel=1e-6)


def test_a_constant_row_is_the_worst_score():
    assert jacob_cov(nn.Linear(1, 3), torch.tensor([[1.0], [2.0]])).value == -math.inf
    cut_off = Cells201(channels=2, cells=1).build(("none",) * 6, 0)
    assert jacob_cov(cut_off, torch.randn(3, 3, 8, 8)).value == -math.inf


class Writing(nn.Module):
    """Writes to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        found: Tensor = self.inner(pixels)
        return found


def test_a_network_that_writes_to_its_inputs():
    images = torch.randn(3, 4, generator=torch.manual_seed(0))
    before = images.clone()
    assert math.isfinite(jacob_cov(Writing(), {"pixels": images}).value)
    assert torch.equal(images, before)
    assert not images.requires_grad


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Linear(2, 2), torch.ones(1, 2), "holds one sample"),
        (nn.Linear(2, 2), torch.ones(2, 2), "rows 0 and 1 of the batch are equal"),
        (nn.Linear(2, 2), torch.tensor([[1, 2], [3, 4]]), "Linear has no embeddings of tokens"),
        (nn.Linear(2, 2), {"input": torch.tensor([[1, 2], [3, 4]])}, "the batch holds input: expected input_ids"),
        (Squares(), torch.tensor([[3e38, 1.0], [1.0, 2.0]]), "Squares has gradients that are not finite"),
    ],
)
def test_bad_input(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        jacob_cov(model, inputs)


def test_equal_texts_and_a_single_one_are_refused():
    model = presets.build(presets.configuration("neox-tiny", 19, 8), 0)
    tokens = torch.randint(19, (3, 8), generator=torch.manual_seed(0))
    with pytest.raises(ValueError, match="rows 0 and 3 of the batch are equal"):
        jacob_cov(model, {"input_ids": torch.cat([tokens, tokens])})
    with pytest.raises(ValueError, match="holds one sample"):
        jacob_cov(model, {"input_ids": tokens[:1]})


def test_an_embedding_that_is_not_called_is_refused():
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(5, 2)

        def forward(self, input_ids: Tensor) -> Tensor:
            return input_ids.float()

    with pytest.raises(ValueError, match="Unused did not call its embedding of the tokens"):
        jacob_cov(Unused(), {"input_ids": torch.tensor([[1, 2], [3, 4]])})
