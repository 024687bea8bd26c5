import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM

from shoestring.cost import Ledger
from shoestring.cost.formulas import formula
from shoestring.data.tokenizers import byte_tokenizer
from shoestring.models import pretrained, seq2seq
from shoestring.train import checkpoint, optim
from shoestring.train.loop import train
from shoestring.train.objectives import sequence_to_sequence
from shoestring.types import Run

SMALL = ["t5-tiny", "t5-1m", "t5-3m", "t5-8m"]


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(seed))


# by hand


def test_parameters_of_a_tiny_shape():
    config = seq2seq.configuration("t5-tiny", 300, num_layers=1, num_decoder_layers=2)
    attention, inner, norm = 4 * 96 * 96, 3 * 96 * 256, 96
    encoder = attention + inner + 2 * norm
    decoder = 2 * attention + inner + 3 * norm
    assert seq2seq.parameters(config) == 2 * 300 * 96 + 2 * 32 * 4 + encoder + 2 * decoder + 2 * norm


# against a reference: the counts published with the models


@pytest.mark.parametrize(
    ("name", "published"),
    [("t5-v1.1-small", 76_961_152), ("t5-v1.1-base", 247_577_856), ("t5-v1.1-large", 783_150_080)],
)
def test_parameters_are_those_published(name, published):
    config = seq2seq.configuration(name, 32128)
    assert seq2seq.parameters(config) == published
    with torch.device("meta"):
        model = seq2seq.build(config, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize(("name", "millions"), list(zip(SMALL, [0.5, 1.0, 3.1, 7.9], strict=True)))
def test_small_shapes_are_as_large_as_their_names_say(name, millions):
    config = seq2seq.configuration(name, 257)
    assert seq2seq.parameters(config) == seq2seq.build(config, seed=0).num_parameters()
    without_embeddings = seq2seq.parameters(config) - 2 * 257 * config.d_model
    assert without_embeddings == pytest.approx(millions * 1e6, rel=0.05)


def test_the_shape_is_that_of_v1_1():
    config = seq2seq.configuration("t5-v1.1-small", 32128)
    assert config.feed_forward_proj == "gated-gelu"
    assert config.dense_act_fn == "gelu_new"
    assert not config.scale_decoder_outputs
    assert (config.relative_attention_num_buckets, config.relative_attention_max_distance) == (32, 128)


def test_one_token_ends_pads_and_starts():
    config = seq2seq.configuration("t5-tiny", 257)
    assert config.pad_token_id == config.eos_token_id == config.decoder_start_token_id == 256
    assert seq2seq.configuration("t5-tiny", 257, end=3).decoder_start_token_id == 3
    model = seq2seq.build(config, seed=0)
    shifted = model.prepare_decoder_input_ids_from_labels(torch.tensor([[5, 6, 256, -100, -100]]))
    assert shifted.tolist() == [[256, 5, 6, 256, 256]]
    assert model.generation_config.decoder_start_token_id == model.generation_config.pad_token_id == 256


# property


@settings(max_examples=10, deadline=None)
@given(
    layers=st.integers(1, 2),
    decoder=st.integers(1, 3),
    tied=st.booleans(),
    activation=st.sampled_from(["relu", "gated-gelu"]),
    heads=st.integers(1, 3),
    inner=st.integers(1, 40),
    vocabulary=st.integers(1, 50),
)
def test_parameters_agree_with_the_built_model(layers, decoder, tied, activation, heads, inner, vocabulary):
    config = seq2seq.configuration(
        "t5-tiny",
        vocabulary,
        num_layers=layers,
        num_decoder_layers=decoder,
        tie_word_embeddings=tied,
        feed_forward_proj=activation,
        num_heads=heads,
        d_ff=inner,
    )
    model = seq2seq.build(config, seed=0)
    assert seq2seq.parameters(config) == seq2seq.parameters(model.config) == model.num_parameters()


def test_same_seed_same_weights_and_the_global_generator_is_untouched():
    config = seq2seq.configuration("t5-tiny", 300)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = seq2seq.build(config, seed=7)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    other, third = seq2seq.build(config, seed=7), seq2seq.build(config, seed=8)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.lm_head.weight, third.lm_head.weight)
    assert not torch.equal(one.shared.weight, third.shared.weight)


@pytest.mark.parametrize("name", SMALL)
def test_the_first_loss_is_that_of_guessing(name):
    """Logits of deviation one add one half to the logarithm of the vocabulary."""
    model = seq2seq.build(seq2seq.configuration(name, 257), seed=0)
    with torch.no_grad():
        loss = model(input_ids=ids(16, 32), labels=ids(16, 16, 1)).loss.item()
    assert loss == pytest.approx(math.log(257) + 0.5, abs=0.15)


def test_a_tiny_one_learns_to_copy_what_it_reads():
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = ids(8, 6)
    first, loss = None, torch.tensor(0.0)
    for _ in range(60):
        loss = model(input_ids=batch, labels=batch).loss
        first = loss.item() if first is None else first
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.3 * first


def test_dropout_is_off_and_attention_fused():
    config = seq2seq.configuration("t5-tiny", 300)
    model = seq2seq.build(config, seed=0)
    assert all(module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert model.config is not config
    assert model.dtype == torch.float32


def test_attention_may_be_eager_with_the_same_weights():
    config = seq2seq.configuration("t5-tiny", 300)
    fused, eager = seq2seq.build(config, seed=0), seq2seq.build(config, 0, "eager")
    assert eager.config._attn_implementation == "eager"
    batch = {"input_ids": ids(2, 9), "labels": ids(2, 5, 1)}
    torch.testing.assert_close(eager(**batch).logits, fused(**batch).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_embedding_is_shared_and_the_head_only_if_asked(tied):
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 300, tie_word_embeddings=tied), seed=0)
    for same in (model, copy.deepcopy(model), seq2seq.build(model.config, seed=1)):
        same.tie_weights()
        assert same.encoder.embed_tokens.weight is same.shared.weight is same.decoder.embed_tokens.weight
        assert (same.lm_head.weight is same.shared.weight) is tied
        assert same.config.scale_decoder_outputs is same.config.tie_word_embeddings is tied
    assert model.lm_head.weight.std().item() == pytest.approx(1 if tied else 96**-0.5, rel=0.05)


@pytest.mark.parametrize("padded", [True, False])
def test_what_the_mask_hides_changes_nothing(padded):
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257), seed=0).eval()
    inputs, labels = ids(2, 10), ids(2, 4, 1)
    end = torch.full((2, 5), 256 if padded else 7)
    mask = torch.cat([torch.ones_like(inputs), torch.zeros_like(end)], 1)
    alone = model(input_ids=inputs, labels=labels).logits
    beside = model(input_ids=torch.cat([inputs, end], 1), attention_mask=mask, labels=labels).logits
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)


def test_it_generates_to_its_end():
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257), seed=0).eval()
    inputs = ids(2, 5)
    found = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=4, do_sample=False)
    assert found[:, 0].tolist() == [256, 256]
    assert found.shape[1] <= 5


class Lines:
    """An endless stream of made-up batches that knows where it is."""

    def __init__(self):
        self.drawn = 0

    def __iter__(self):
        while True:
            self.drawn += 1
            yield {"input_ids": ids(4, 8, self.drawn), "labels": ids(4, 5, -self.drawn)}

    def state_dict(self):
        return {"drawn": self.drawn}

    def load_state_dict(self, state):
        self.drawn = state["drawn"]


@pytest.mark.parametrize("tied", [True, False])
def test_a_resumed_run_is_the_run_that_never_stopped(tied, tmp_path):
    config = seq2seq.configuration("t5-tiny", 257, tie_word_embeddings=tied)

    def begin():
        model = seq2seq.build(config, seed=0)
        return Run(model, optim.adamw(model, 0.003), Lines())

    ledgers = [Ledger(), Ledger()]
    whole = train(begin(), sequence_to_sequence, until=4, ledger=ledgers[0])
    half = train(begin(), sequence_to_sequence, until=2, ledger=ledgers[1])
    saved = checkpoint.save(tmp_path, half, ledger=ledgers[1], tokenizer=byte_tokenizer())
    loaded, _ = pretrained.load(saved, kind="seq2seq")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(saved)
    for one in (loaded, theirs):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), half.model.parameters(), strict=True))
        assert (one.lm_head.weight is one.shared.weight) is tied
    resumed = checkpoint.load(saved, begin(), ledger=ledgers[1])
    resumed = train(resumed, sequence_to_sequence, until=4, ledger=ledgers[1])
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert ledgers[0].total().flops == ledgers[1].total().flops == 4 * formula(config, 4, 8, target=5)


# misuse


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"no preset is called 't5-v1.1-smal' \(nearest: 't5-v1.1-small'\)"):
        seq2seq.configuration("t5-v1.1-smal", 300)


def test_an_unknown_field_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"T5Config has no field 'dropout_rat' \(nearest: 'dropout_rate'\)"):
        seq2seq.configuration("t5-tiny", 300, dropout_rat=3)


@pytest.mark.parametrize(
    ("vocabulary", "end", "message"),
    [
        (0, None, "vocab_size of t5-tiny is 0: expected one or more"),
        (8, 8, "end of t5-tiny is 8: expected a token of the vocabulary, 0 to 7"),
        (8, -1, "end of t5-tiny is -1"),
    ],
)
def test_a_size_that_cannot_be_is_refused(vocabulary, end, message):
    with pytest.raises(ValueError, match=message):
        seq2seq.configuration("t5-tiny", vocabulary, end=end)


def test_values_that_do_not_fit_are_refused_on_one_line():
    with pytest.raises(ValueError, match="t5-tiny cannot be built so") as refused:
        seq2seq.configuration("t5-tiny", 300, feed_forward_proj="gated-gelu-twice")
    assert "\n" not in str(refused.value)
