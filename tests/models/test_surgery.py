import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.models import presets
from shoestring.models.surgery import replace


class Scaled(nn.Module):
    def __init__(self, inner: nn.Module, factor: float = 2.0) -> None:
        super().__init__()
        self.inner = inner
        self.factor = factor

    def forward(self, x):
        return self.factor * self.inner(x)


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))


def scaled(name: str, module: nn.Module) -> nn.Module:
    return Scaled(module)


# by hand


def test_a_pattern_replaces_by_name():
    model = two_layers()
    assert replace(model, "2.*", scaled) == ["2.0", "2.1"]
    assert isinstance(model[2][0], Scaled)
    assert isinstance(model[0], nn.Linear)


def test_a_test_replaces_by_name_and_module():
    model = two_layers()
    assert replace(model, lambda name, module: isinstance(module, nn.Linear) and name != "0", scaled) == ["2.0", "2.1"]


def test_build_is_told_the_name_and_the_old_module_once():
    model, seen = two_layers(), []

    def build(name: str, module: nn.Module) -> nn.Module:
        seen.append((name, module))
        return nn.Identity()

    old = model[1]
    assert replace(model, "1", build) == ["1"]
    assert seen == [("1", old)]
    assert isinstance(model[1], nn.Identity)


def test_what_lies_inside_a_replaced_module_is_left_to_build():
    model = two_layers()
    assert replace(model, "*", scaled) == ["0", "1", "2"]
    assert isinstance(model[2].inner[0], nn.Linear)


def test_a_language_models_projections_are_replaced():
    model = presets.build(presets.configuration("neox-tiny", 50, 16), seed=0).eval()
    ids = torch.arange(8)[None]
    before = model(ids).logits
    names = replace(model, "*.attention.dense", lambda _, module: Scaled(module, factor=1.0))
    assert names == [f"gpt_neox.layers.{layer}.attention.dense" for layer in range(2)]
    assert torch.equal(model(ids).logits, before)
    assert all(not module.training for module in model.modules())


# shared


def test_a_module_shared_under_two_names_stays_shared():
    model = two_layers()
    model.add_module("again", model[2][0])
    assert replace(model, "2.0", scaled) == ["2.0", "again"]
    assert model[2][0] is model.again
    assert isinstance(model.again, Scaled)


def test_a_name_that_only_the_second_place_has_replaces_both():
    model = two_layers()
    model.add_module("again", model[0])
    assert replace(model, "again", scaled) == ["0", "again"]
    assert model[0] is model.again


def test_a_module_inside_a_shared_parent_is_replaced_under_both_names():
    model = two_layers()
    model.add_module("again", model[2])
    assert replace(model, "2.0", scaled) == ["2.0", "again.0"]
    assert isinstance(model.again[0], Scaled)
    assert isinstance(model.again[0].inner, nn.Linear)


# property


@given(st.sets(st.sampled_from(["0", "1", "2.0", "2.1"]), min_size=1))
def test_what_is_returned_is_what_was_replaced(wanted):
    model = two_layers()
    names = replace(model, lambda name, module: name in wanted, scaled)
    assert set(names) == wanted == {name for name, module in model.named_modules() if isinstance(module, Scaled)}


@given(st.sets(st.sampled_from(["0", "2.0", "2.1"]), min_size=1), st.floats(-4, 4))
def test_wrapping_scales_the_output_as_it_must(wanted, factor):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.Identity(), nn.Sequential(*(nn.Linear(2, 2, bias=False),) * 2)
    )
    model[2][1] = nn.Linear(2, 2, bias=False)
    x = torch.randn(5, 2)
    before = model(x)
    replace(model, lambda name, _: name in wanted, lambda _, module: Scaled(module, factor))
    assert torch.allclose(model(x), before * factor ** len(wanted), atol=1e-4)


# misuse


def test_none_matched_is_an_error_that_shows_names():
    with pytest.raises(ValueError, match=r"the pattern 'layers\.\*' matches no module of Sequential: .* 0, 1, 2"):
        replace(two_layers(), "layers.*", scaled)
    with pytest.raises(ValueError, match="the test matches no module"):
        replace(two_layers(), lambda name, module: False, scaled)


def test_the_model_itself_is_never_replaced():
    with pytest.raises(ValueError, match="matches no module"):
        replace(two_layers(), "", scaled)


def test_build_must_return_a_module_and_nothing_is_replaced_before():
    model = two_layers()
    with pytest.raises(ValueError, match="build returned NoneType for 2"):
        replace(model, "*", lambda name, module: None if name == "2" else Scaled(module))
    assert not any(isinstance(module, Scaled) for module in model.modules())
