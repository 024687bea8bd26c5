"""The mode of a model that is looked at: each module is afterwards as it was, whatever happens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shoestring.models.modes import evaluating


def look(model: nn.Module) -> None:
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        raise KeyError


def test_every_module_is_afterwards_in_the_mode_it_was_in() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    model[1].eval()  # frozen apart
    with pytest.raises(KeyError):
        look(model)
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()
