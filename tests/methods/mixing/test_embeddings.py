"""What samples look like: on paper, against one sample at a time, properties, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.methods.mixing.clusters import cluster, recovery
from shoestring.methods.mixing.embeddings import pooled, token_counts
from shoestring.methods.mixing.trajectories import RaggedBatches, padded
from shoestring.models import presets

ROWS = [np.random.default_rng(size).integers(0, 50, size) for size in (2, 7, 16, 3)]


@pytest.fixture(scope="module")
def model():
    return presets.build(presets.configuration("neox-tiny", 50, 16), 0)


def test_counts_by_hand():
    batch = padded([np.array([1, 1, 1, 0, 0, 0, 0]), np.array([2, 3]), np.array([7, 7])])
    found = token_counts([batch], 8)
    assert found.tolist() == pytest.approx(
        np.array([[0.8, 0.6, 0, 0, 0, 0, 0, 0], [0, 0, 0.5**0.5, 0.5**0.5, 0, 0, 0, 0], [0] * 7 + [1]])
    )
    assert token_counts([batch], 4)[2].tolist() == [0, 0, 0, 1]  # 7 shares the bucket of 3


@given(st.lists(st.lists(st.integers(0, 30), min_size=2, max_size=9), min_size=1, max_size=6), st.integers(1, 40))
def test_counts_are_rows_of_length_one_whatever_the_order(rows, buckets):
    found = token_counts([padded([np.array(row) for row in rows])], buckets)
    turned = token_counts([padded([np.array(row[::-1])]) for row in rows], buckets)
    assert torch.allclose(found, turned)
    assert torch.allclose(found.norm(dim=1), torch.ones(len(rows)))


def test_the_embedding_layer_is_the_mean_of_rows_of_its_table(model):
    table = model.get_input_embeddings().weight.detach()
    found = pooled(model, RaggedBatches(ROWS, 2, 0).in_order(), layer=0)
    expected = torch.stack([table[row].mean(0) for row in ROWS])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layer", [-1, 1, 2])
def test_states_are_those_of_each_sample_by_itself(model, layer):
    with torch.no_grad():
        alone = [
            model.eval()(input_ids=torch.tensor(row)[None], output_hidden_states=True).hidden_states[layer][0].mean(0)
            for row in ROWS
        ]
    found = pooled(model, RaggedBatches(ROWS, 3, 0).in_order(), layer)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_a_mask_says_what_is_text_where_labels_do_not(model):
    batch = {"input_ids": torch.tensor([[4, 5, 6, 0]]), "labels": torch.tensor([[-100, -100, 6, -100]])}
    mask = torch.tensor([[1, 1, 1, 0]])
    whole = pooled(model, [padded([np.array([4, 5, 6])])], layer=0)
    torch.testing.assert_close(pooled(model, [{**batch, "attention_mask": mask}], layer=0), whole)
    torch.testing.assert_close(pooled(model, [{"input_ids": batch["input_ids"][:, :3]}], layer=0), whole)
    assert token_counts([{**batch, "attention_mask": mask}], 8).count_nonzero() == 3
    assert token_counts([batch], 8).count_nonzero() == 1


def test_the_model_is_left_as_it_was(model):
    model.train()
    pooled(model, RaggedBatches(ROWS, 2, 0).in_order())
    assert model.training


def test_texts_of_other_letters_are_told_apart(model):
    generator = np.random.default_rng(0)
    truth = [place % 3 for place in range(60)]
    batches = RaggedBatches([generator.integers(16 * skill, 16 * skill + 16, 12) for skill in truth], 20, 0).in_order()
    for features in (pooled(model, batches, layer=0), token_counts(batches, 50)):
        assert recovery(cluster(features.numpy(), 3, seed=0), truth) > 0.9


def test_what_is_refused(model):
    batches = RaggedBatches(ROWS, 2, 0).in_order()
    for layer in (3, -4):
        with pytest.raises(ValueError, match=f"layer {layer}: expected one from 0, the embedding, to 2"):
            pooled(model, batches, layer)
    with pytest.raises(ValueError, match="there is no sample"):
        pooled(model, [])
    with pytest.raises(ValueError, match="there is no sample"):
        token_counts([], 4)
    with pytest.raises(ValueError, match="buckets 0"):
        token_counts(batches, 0)
    nothing = {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[-100, -100]])}
    for call in (lambda: pooled(model, [*batches, nothing]), lambda: token_counts([*batches, nothing], 4)):
        with pytest.raises(ValueError, match="sample 4 has no token"):
            call()
