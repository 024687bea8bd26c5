"""One network scored: from a module of the current folder or a folder with a configuration, on each kind of batch."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from shoestring.data import tokenizers
from shoestring.methods.search.score import score
from shoestring.methods.search.tools_score import network, noise, pictures, said, shape, text
from shoestring.models import presets

MODULE = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 20), nn.ReLU(), nn.Linear(20, 10))

def sized(width, depth=2):
    return nn.Linear(width, depth)

def nothing():
    return 3

value = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's own module in the current folder."""
    (tmp_path / "mine.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import a_module_that_nobody_has")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine", "broken"):
        sys.modules.pop(name, None)


def test_a_function_of_the_current_folder_gives_the_network(mine):
    before = torch.get_rng_state()
    first, again, other = network("mine:small"), network("mine:small"), network("mine:small", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)


def test_every_proxy_has_its_say(mine):
    batch = noise((8, 3, 4, 4), None, 0)
    found = {one.proxy: one for one in said(network("mine:small"), batch)}
    assert next(iter(found)) == "naswot"
    assert found["naswot"].score == score(network("mine:small"), batch)
    assert found["naswot"].score.units == 20
    assert found["parameters"].score.value == 48 * 20 + 20 + 20 * 10 + 10
    assert found["grad_norm"].score is None
    assert "no labels" in found["grad_norm"].refused
    assert all(one.seconds > 0 for one in found.values() if one.score)


def test_images_bring_their_labels(mine):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    np.savez(mine / "a.npz", images=pixels, labels=np.arange(12) % 10)
    batch = pictures(network("mine:small"), mine / "a.npz", (8, 3, 4, 4), 0)
    assert set(batch) == {"input", "labels"}
    found = {one.proxy: one for one in said(network("mine:small"), batch)}
    assert found["grad_norm"].score is not None
    np.savez(mine / "a.npz", images=pixels)
    assert isinstance(pictures(network("mine:small"), mine / "a.npz", (8, 3, 4, 4), 0), torch.Tensor)


def test_a_language_model_from_a_folder_on_text_and_on_noise(mine):
    tokenizer = tokenizers.byte_tokenizer()
    presets.configuration("neox-tiny", len(tokenizer), 16).save_pretrained(mine / "model")
    tokenizer.save_pretrained(mine / "model")
    (mine / "text.txt").write_text("\n".join(f"{place} apples and {place**2} pears" for place in range(400)))
    model = network(str(mine / "model"))
    batch = text(str(mine / "model"), str(mine / "text.txt"), (4, 16), 0)
    assert batch["input_ids"].shape == (4, 16)
    found = {one.proxy: one for one in said(model, batch)}
    assert found["naswot"].score.units == 2 * 256
    assert found["decoder_parameters"].score is not None
    random = noise((4, 16), 257, 0)
    assert torch.equal(random["input_ids"], noise((4, 16), 257, 0)["input_ids"])
    assert said(model, random)[0].score is not None


def test_a_shape_by_hand():
    assert shape("128x3x32x32") == (128, 3, 32, 32)
    assert shape("8") == (8,)


@pytest.mark.parametrize("written", ["", "0x3", "3x", "x3", "3X3", "-1x3", "3 x 3", "a"])
def test_what_is_no_shape_is_told(written):
    with pytest.raises(ValueError, match="expected sizes with x between"):
        shape(written)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("mine", "'mine': expected module:function"),
        ("mine:", "expected module:function"),
        ("absent:small", "no module absent in"),
        ("mine.deep:small", "no module mine.deep in|not a package"),
        ("mine:absent", "has no function 'absent'"),
        ("mine:value", "has no function 'value'"),
        ("mine:sized", "mine:sized needs width: expected a function that is called with nothing"),
        ("mine:nothing", "mine:nothing returned int: expected a torch.nn.Module"),
    ],
)
def test_what_gives_no_network_is_told(mine, named, told):
    with pytest.raises(ValueError, match=told) as caught:
        network(named)
    assert "\n" not in str(caught.value)


def test_what_the_users_own_module_lacks_is_not_taken_for_the_module(mine):
    with pytest.raises(ModuleNotFoundError, match="a_module_that_nobody_has"):
        network("broken:small")


def test_a_network_in_the_place_of_a_function_is_told(mine):
    (mine / "made.py").write_text("from torch import nn\nready = nn.Linear(2, 2)\n")
    with pytest.raises(ValueError, match="made:ready is a network: expected a function that returns a new one"):
        network("made:ready")


def test_wrong_batches_are_told(mine):
    model = network("mine:small")
    for call, told in [
        (lambda: noise((8, 3, 4, 4), 257, 0), "tokens take two sizes"),
        (lambda: noise((10**15, 3, 4, 4), None, 0), "--batch 1000000000000000x3x4x4: memory does not hold it"),
        (lambda: pictures(model, mine, (8, 16), 0), "images take Nx3xSxS"),
        (lambda: text("mine:small", "python", (8, 16), 0), "give a folder as the model"),
        (lambda: text(".", "python", (8,), 0), "text takes two sizes"),
        (lambda: said(model, torch.zeros(1, 3, 4, 4)), "one sample"),
        (lambda: said(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), noise((8, 3, 4, 4), None, 0)), "no activation"),
        (lambda: said(model, noise((8, 1, 4, 4), None, 0)), "cannot take a batch of 8x1x4x4: "),
        (lambda: said(model.double(), noise((8, 3, 4, 4), None, 0)), "cannot take a batch of 8x3x4x4: "),
        (lambda: said(nn.Embedding(20, 4), noise((8, 16), 50, 0)), "Embedding cannot take a batch of input_ids 8x16: "),
    ]:
        with pytest.raises(ValueError, match=told):
            call()
