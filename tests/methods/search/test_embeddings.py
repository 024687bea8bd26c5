"""Which modules of a language model are tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from shoestring.methods.search.embeddings import are_tokens, of_tokens, tables
from shoestring.models import presets


class Bare(nn.Module):
    """A language model that says nothing of itself."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 6), nn.Embedding(8, 6)
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(input_ids.shape[1])
        found: torch.Tensor = self.head(torch.relu(self.inner(self.words(input_ids) + self.places(places))))
        return found


def test_a_hugging_face_model_says_which_they_are():
    model = presets.build(presets.configuration("neox-tiny", 11, 8), 0)
    assert of_tokens(model) is model.gpt_neox.embed_in
    assert model.lm_head in tables(model)
    other = presets.build(presets.configuration("gpt2-small", 11, 8, n_layer=1, n_embd=8, n_head=2), 0)
    assert of_tokens(other) is other.transformer.wte
    assert other.transformer.wpe in tables(other)


def test_of_any_other_the_first_embedding_is_that_of_the_tokens():
    model = Bare()
    assert of_tokens(model) is model.words
    assert set(tables(model)) == {model.words, model.places}


def test_a_model_without_any_is_refused():
    with pytest.raises(ValueError, match=r"Linear has no embeddings of tokens: expected .*nn\.Embedding"):
        tables(nn.Linear(2, 2))


def test_what_is_looked_up():
    assert are_tokens(torch.zeros(2, 3, dtype=torch.int64))
    assert are_tokens({"input_ids": torch.zeros(2, 3, dtype=torch.int64)})
    assert not are_tokens(torch.zeros(2, 3))
    assert not are_tokens({"images": torch.zeros(2, 3)})
