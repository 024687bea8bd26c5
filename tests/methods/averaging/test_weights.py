"""The weights of a model in place: which, by what names, and how others stand in for them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from shoestring.methods.averaging.weights import replaced, unwrap, weights_in_place


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head, self.norm = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False), nn.BatchNorm1d(3)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.ones(2), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.embed(ids)))


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_held() -> None:
    model = Tied()
    model.norm.bias.requires_grad_(False)
    names = ["embed.weight", "norm.weight", "norm.running_mean", "norm.running_var"]
    assert list(weights_in_place(model)) == names
    assert weights_in_place(model)["embed.weight"].data_ptr() == model.embed.weight.data_ptr()


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_wrappers_leave_no_trace_in_the_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    plain = list(weights_in_place(model))
    assert list(weights_in_place(torch.compile(model))) == plain
    assert unwrap(torch.compile(nn.DataParallel(model))) is model
    model[1] = torch.compile(model[1])
    assert list(weights_in_place(model)) == plain


def test_others_stand_in_and_the_live_ones_come_back_bit_for_bit() -> None:
    model = Tied()
    live = bits(model)
    values = {name: torch.randn_like(tensor) for name, tensor in weights_in_place(model).items()}
    with replaced(model, values):
        assert same({name: tensor.clone() for name, tensor in weights_in_place(model).items()}, values)
        assert torch.equal(model.head.weight, values["embed.weight"])
        assert model.head.weight is model.embed.weight
    assert same(bits(model), live)


def test_the_live_ones_come_back_after_an_error() -> None:
    model = Tied()
    live, values = bits(model), {name: tensor + 1 for name, tensor in weights_in_place(model).items()}
    with pytest.raises(KeyboardInterrupt), replaced(model, values):
        raise KeyboardInterrupt
    assert same(bits(model), live)


def test_training_goes_on_as_if_nothing_had_been() -> None:
    torch.manual_seed(0)
    model = Tied()
    other = copy.deepcopy(model)
    for one, swaps in ((model, True), (other, False)):
        optimizer = torch.optim.AdamW(one.parameters(), 0.1)
        for step in range(4):
            one(torch.tensor([0, 1, 2])).square().sum().backward()
            optimizer.step()
            if swaps and step == 1:
                values = {name: tensor * 0 for name, tensor in weights_in_place(one).items()}
                with replaced(one, values), torch.no_grad():
                    one.eval()
                    one(torch.tensor([0]))
                    one.train()
    assert same(bits(model), bits(other))


def test_misuse_is_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match="Linear has no trainable parameter"):
        weights_in_place(nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(ValueError, match="no bias, weight in the weights to put in"), replaced(nn.Linear(2, 2), {}):
        pass
    values = {"weight": torch.ones(3, 2), "bias": torch.ones(2)}
    with pytest.raises(ValueError, match=r"weight has shape \(2, 2\) in the model"), replaced(nn.Linear(2, 2), values):
        pass
