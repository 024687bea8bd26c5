import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig

from shoestring.cost import flops, formulas
from shoestring.models import presets, seq2seq

# by hand


def test_formula_of_one_layer_is_the_sum_of_its_products():
    config = presets.configuration(
        "neox-tiny", 10, 8, num_hidden_layers=1, hidden_size=4, num_attention_heads=1, intermediate_size=16
    )
    qkv, dense, up, down, head = 2 * 3 * 4 * 12, 2 * 3 * 4 * 4, 2 * 3 * 4 * 16, 2 * 3 * 16 * 4, 2 * 3 * 4 * 10
    scores, values = 2 * 3 * 4 * 3, 2 * 3 * 3 * 4
    forward = qkv + dense + up + down + head + scores + values
    assert formulas.formula(config, 1, 3, backward=False) == forward
    assert formulas.formula(config, 1, 3) == 3 * forward + scores
    assert formulas.formula(config, 5, 3) == 5 * formulas.formula(config, 1, 3)
    assert formulas.formula(config, 5, 3, scored=2) == 5 * (3 * forward + scores - 3 * head) + 3 * head * 2 // 3


def test_formula_of_an_encoder_decoder_is_the_sum_of_its_products():
    shape = {"num_layers": 1, "d_model": 4, "num_heads": 1, "d_kv": 5, "d_ff": 16}
    config = seq2seq.configuration("t5-tiny", 10, **shape)
    read, written = 7, 3
    square, inner = 2 * 4 * 5, 3 * 2 * 4 * 16
    encoder = read * (4 * square + inner) + 2 * (2 * read * read * 5)
    crossing = written * 2 * square + read * 2 * square + 2 * (2 * written * read * 5)
    decoder = written * (4 * square + inner) + 2 * (2 * written * written * 5) + crossing + written * 2 * 4 * 10
    assert formulas.formula(config, 1, read, False, target=written) == encoder + decoder
    again = 2 * written * read * 5
    assert formulas.formula(config, 1, read, target=written) == 3 * (encoder + decoder) + again
    one = 3 * 2 * 4 * 10
    assert formulas.formula(config, 1, read, target=written, scored=1) == 3 * (encoder + decoder) + again - 2 * one


# against a reference: torch's counter

SMALL = {"num_layers": 2, "d_model": 32, "num_heads": 2, "d_kv": 8, "d_ff": 48}


def read_and_write(model: torch.nn.Module, rows: int, length: int, target: int, padded: bool = False) -> None:
    inputs = torch.arange(rows * length).reshape(rows, length) % 50
    labels = torch.arange(rows * target).reshape(rows, target) % 50
    mask = torch.ones_like(inputs)
    if padded:
        mask[0, length // 2 :] = 0
    out = model(input_ids=inputs, attention_mask=mask, labels=labels, use_cache=False)
    if torch.is_grad_enabled():
        out.loss.backward()


@pytest.mark.parametrize("name", seq2seq.names())
def test_formula_equals_the_counter_on_every_encoder_decoder(name):
    """On fake tensors, which have shapes and no numbers."""
    config = seq2seq.configuration(name, 32128)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = seq2seq.build(config, seed=0)
        inputs, labels = torch.zeros(2, 96, dtype=torch.long), torch.zeros(2, 40, dtype=torch.long)
        counted = flops.count(lambda: model(input_ids=inputs, labels=labels, use_cache=False).loss.backward())
        assert flops.StepFlops(model)({"input_ids": inputs, "labels": labels}) == counted
    assert formulas.formula(config, 2, 96, target=40) == counted


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padded", [True, False])
def test_formula_equals_the_counter_in_either_precision(precision, padded):
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 257), seed=0)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        counted = flops.count(lambda: read_and_write(model, 2, 33, 9, padded))
        with torch.no_grad():
            forward = flops.count(lambda: read_and_write(model, 2, 33, 9, padded))
    assert formulas.formula(model.config, 2, 33, target=9) == counted
    assert formulas.formula(model.config, 2, 33, backward=False, target=9) == forward


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 40),
    target=st.integers(1, 40),
    decoder=st.integers(1, 3),
    tied=st.booleans(),
    activation=st.sampled_from(["relu", "gated-gelu"]),
    attention=st.sampled_from(["sdpa", "eager"]),
)
def test_formula_equals_the_counter_at_any_shape(rows, length, target, decoder, tied, activation, attention):
    changes = {"num_decoder_layers": decoder, "tie_word_embeddings": tied, "feed_forward_proj": activation}
    model = seq2seq.build(seq2seq.configuration("t5-tiny", 50, **SMALL, **changes), 0, attention)
    counted = flops.count(lambda: read_and_write(model, rows, length, target))
    assert formulas.formula(model.config, rows, length, target=target) == counted


@pytest.mark.parametrize("name", ["neox-tiny", "t5-tiny"])
def test_a_head_over_some_positions_costs_as_many(name):
    t5 = name == "t5-tiny"
    model = (
        seq2seq.build(seq2seq.configuration(name, 50), seed=0)
        if t5
        else presets.build(presets.configuration(name, 50, 16), seed=0)
    )
    inputs, scored = torch.zeros(3, 8, dtype=torch.long), torch.tensor([2, 5, 7, 20])
    arguments = {"input_ids": inputs} | ({"decoder_input_ids": inputs} if t5 else {})
    base = model.get_decoder() if not t5 else None

    def some() -> None:
        if t5:
            read = model.encoder(input_ids=inputs).last_hidden_state
            hidden = model.decoder(input_ids=inputs, encoder_hidden_states=read, use_cache=False).last_hidden_state
        else:
            hidden = base(**arguments, use_cache=False).last_hidden_state
        model.get_output_embeddings()(hidden.flatten(0, 1)[scored]).logsumexp(-1).sum().backward()

    batch = {"input_ids": inputs, "labels": inputs, "scored": scored}
    counted = flops.count(some)
    assert flops.StepFlops(model)(batch) == counted
    assert flops.StepFlops(model)({"input_ids": inputs, "labels": inputs}) > counted


# misuse


def test_an_unknown_architecture_is_refused():
    config = LlamaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    with pytest.raises(ValueError, match=r"known for gpt_neox, gpt2, t5, not 'llama': use flops\.count"):
        formulas.formula(config, 1, 8)


def test_a_target_is_for_encoder_decoders():
    with pytest.raises(ValueError, match="the target of a gpt_neox is 4: expected none"):
        formulas.formula(presets.configuration("neox-tiny", 50, 16), 1, 8, target=4)
    with pytest.raises(ValueError, match="the target of a t5 is None: expected the length of its decoder's tokens"):
        formulas.formula(seq2seq.configuration("t5-tiny", 50), 1, 8)
