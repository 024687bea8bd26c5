"""Named encoder-decoders: the published shapes of T5 v1.1, and smaller ones for a CPU."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from shoestring.models.presets import made, nearest

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


class _Shape(NamedTuple):
    layers: int  # of the encoder, and as many of the decoder
    width: int
    heads: int
    head: int
    inner: int


# the published: https://github.com/google-research/text-to-text-transfer-transformer, released_checkpoints.md
_T5 = {
    "t5-tiny": _Shape(2, 96, 4, 24, 256),
    "t5-1m": _Shape(2, 128, 4, 32, 384),
    "t5-3m": _Shape(3, 192, 6, 32, 512),
    "t5-8m": _Shape(4, 256, 8, 32, 768),
    "t5-v1.1-small": _Shape(8, 512, 6, 64, 1024),
    "t5-v1.1-base": _Shape(12, 768, 12, 64, 2048),
    "t5-v1.1-large": _Shape(24, 1024, 16, 64, 2816),
}


def names() -> list[str]:
    """All names that `configuration` knows, small to large; a small one's size is without its embeddings."""
    return list(_T5)


def configuration(name: str, vocab_size: int, *, end: int | None = None, **changes: Any) -> PretrainedConfig:
    """The Hugging Face configuration of a named shape of T5 v1.1: gated GELU, a head of its own, relative positions.

    A preset's dropout is off, as it was when v1.1 was pretrained.
    end         the token that ends a text, pads, and starts the decoder: where None the last one, as our own
                tokenizers have it. It may be all three: labels are padded by -100, and a mask hides what pads the input
    changes     values of the configuration's own fields, by their own names, such as dropout_rate=0.1;
                tie_word_embeddings=True shares the head with the embedding and scales, as the first T5 did
    Raises ValueError on an unknown name or field, naming the nearest, and on values that do not fit together.
    """
    if name not in _T5:
        raise ValueError(f"no preset is called {name!r}{nearest(name, names())}: expected one of {', '.join(names())}")
    if vocab_size < 1:
        raise ValueError(f"vocab_size of {name} is {vocab_size}: expected one or more")
    end = vocab_size - 1 if end is None else end
    if not 0 <= end < vocab_size:
        raise ValueError(f"end of {name} is {end}: expected a token of the vocabulary, 0 to {vocab_size - 1}")
    from transformers import T5Config

    shape = _T5[name]
    values = {
        "vocab_size": vocab_size,
        "d_model": shape.width,
        "d_kv": shape.head,
        "d_ff": shape.inner,
        "num_layers": shape.layers,
        "num_heads": shape.heads,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "dropout_rate": 0.0,
        "pad_token_id": end,
        "eos_token_id": end,
        "decoder_start_token_id": end,
        "attn_implementation": "sdpa",
    }
    return made(T5Config, name, values, changes)


def parameters(config: PretrainedConfig) -> int:
    """How many parameters a T5 configuration gives, shared ones once, without building the model."""
    width, attention = config.d_model, 4 * config.d_model * config.num_heads * config.d_kv
    inner = (3 if config.is_gated_act else 2) * width * config.d_ff
    encoder = config.num_layers * (attention + inner + 2 * width)
    decoder = config.num_decoder_layers * (2 * attention + inner + 3 * width)
    positions = 2 * config.relative_attention_num_buckets * config.num_heads
    embeddings = config.vocab_size * width * (1 if shares_head(config) else 2)
    return int(embeddings + positions + encoder + decoder + 2 * width)


def shares_head(config: PretrainedConfig) -> bool:
    """Whether a T5's head is its embedding: transformers keeps that here, and says `tie_word_embeddings` of both."""
    return bool(config.scale_decoder_outputs)


def build(config: PretrainedConfig, seed: int, attention: Literal["sdpa", "eager"] = "sdpa") -> PreTrainedModel:
    """A new T5 with the architecture's own initialisation: same seed, same weights; torch's generator is untouched.

    The weights are drawn on the CPU, in fp32; the model is in training mode.
    attention   torch's fused, or "eager": on a CPU that is as fast in fp32, and in bf16 a quarter faster (2.13)
    Where the head is its own, it is drawn with a deviation of 1/sqrt(width), as T5X draws it. transformers (5.23) would
    share it with the embedding all the same, whose deviation of 1 makes the first loss of t5-tiny on bytes 57 nats
    where ln V is 5.5.
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM

    mine = copy.deepcopy(config)
    mine.tie_word_embeddings = True  # that is how transformers knows that encoder and decoder share the embedding
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(mine, attn_implementation=attention)
        if not shares_head(config):
            head = torch.empty(config.vocab_size, config.d_model).normal_(std=config.d_model**-0.5)
            model.get_output_embeddings().weight = torch.nn.Parameter(head)
            note_own_head(model)
    return model.train()


def note_own_head(model: Any) -> None:
    """Tell transformers that a model's head is not its embedding, so that it neither ties nor drops it later."""
    model.all_tied_weights_keys.pop("lm_head.weight", None)
    model.config.tie_word_embeddings = False
