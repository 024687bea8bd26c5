"""FLOPs by formula, from a configuration: GPT-NeoX, GPT-2 and T5 language models. A multiply-add counts two."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# only matrix products are counted, as torch's counter does: norms, activations and softmax are below one percent


class Weights(NamedTuple):
    """How many weights a language model's matrix products have, and how many are in tables, which are looked up.

    body    for every token of the sequence; of an encoder-decoder, of its encoder's
    target  for every token of its decoder's; none of a decoder alone
    head    for every position that is scored
    """

    body: int
    target: int
    head: int
    tables: int


def _gpt_neox(config: PretrainedConfig) -> Weights:
    width, vocabulary = config.hidden_size, config.vocab_size * config.hidden_size
    body = config.num_hidden_layers * (4 * width**2 + 2 * width * config.intermediate_size)
    return Weights(body, 0, vocabulary, 0 if config.tie_word_embeddings else vocabulary)


def _gpt2(config: PretrainedConfig) -> Weights:
    width, vocabulary, positions = config.n_embd, config.vocab_size * config.n_embd, config.n_positions * config.n_embd
    inner = 4 * width if config.n_inner is None else config.n_inner
    body = config.n_layer * (4 * width**2 + 2 * width * inner)
    return Weights(body, 0, vocabulary, positions + (0 if config.tie_word_embeddings else vocabulary))


def _t5(config: PretrainedConfig) -> Weights:
    """The keys and values that the decoder reads of the encoder are made once for each token of the encoder's."""
    attention = 4 * config.d_model * config.num_heads * config.d_kv
    inner = (3 if config.is_gated_act else 2) * config.d_model * config.d_ff
    encoder = config.num_layers * (attention + inner) + config.num_decoder_layers * attention // 2
    decoder = config.num_decoder_layers * (attention + attention // 2 + inner)
    vocabulary = config.vocab_size * config.d_model
    positions = 2 * config.relative_attention_num_buckets * config.num_heads
    return Weights(encoder, decoder, vocabulary, positions + (0 if config.scale_decoder_outputs else vocabulary))


_KNOWN: dict[str, tuple[str, Callable[[PretrainedConfig], Weights]]] = {
    "gpt_neox": ("GPTNeoXForCausalLM", _gpt_neox),
    "gpt2": ("GPT2LMHeadModel", _gpt2),
    "t5": ("T5ForConditionalGeneration", _t5),
}


def classes() -> set[str]:
    """The names of the classes of transformers whose FLOPs are known by formula."""
    return {name for name, _ in _KNOWN.values()}


def weights(config: PretrainedConfig) -> Weights:
    """The weights of a configuration. Raises ValueError for an architecture without a formula."""
    if config.model_type not in _KNOWN:
        known = ", ".join(_KNOWN)
        raise ValueError(f"FLOPs by formula are known for {known}, not {config.model_type!r}: use flops.count instead")
    return _KNOWN[config.model_type][1](config)


def formula(
    config: PretrainedConfig,
    batch: int,
    length: int,
    backward: bool = True,
    *,
    target: int | None = None,
    scored: int | None = None,
) -> int:
    """FLOPs of one pass of a GPT-NeoX, GPT-2 or T5 language model over (batch, length) tokens, the head included.

    target      tokens a row of T5's decoder, where `length` is its encoder's
    scored      how many positions of the whole batch go through the head; all of them where None
    Attention is counted over all pairs of positions, also those a mask hides. Backward takes two products for each of
    forward's, and one more for the scores, which fused attention computes again. "Eager" attention does not, nor does
    T5's to itself: its bias has a gradient, which the CPU's fused attention does not give (a GPU's does, at one product
    more). All parameters are trained. Raises ValueError for another architecture, which `flops.count` can count, and
    where a target is given to a decoder alone or not given to T5.
    """
    products = weights(config)
    if (target is None) == (config.model_type == "t5"):
        expected = "the length of its decoder's tokens" if target is None else "none, as it has one sequence"
        raise ValueError(f"the target of a {config.model_type} is {target}: expected {expected}")
    positions = batch * (length if target is None else target)
    matrices = batch * length * products.body + positions * products.target
    matrices += (positions if scored is None else scored) * products.head
    fused, plain = _pairs(config, length, target)
    attention = batch * (fused * (7 if backward else 2) + plain * (6 if backward else 2))
    return int(2 * (matrices * (3 if backward else 1) + attention))


def _pairs(config: Any, length: int, target: int | None) -> tuple[int, int]:
    """Multiply-adds a row of one product of scores or values, where attention is fused backward and where it is not."""
    if target is None:
        fused, plain = config.num_hidden_layers * length**2 * config.hidden_size, 0
    else:
        inner, layers = config.num_heads * config.d_kv, config.num_decoder_layers
        fused, plain = layers * length * target * inner, (config.num_layers * length**2 + layers * target**2) * inner
    return (0, fused + plain) if config._attn_implementation == "eager" else (fused, plain)
