"""A student's model as functions of tensors alone, its caches among them: what can be traced into a graph.

R rows, S source tokens, T target tokens, P target tokens before them, H heads, D of a head, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Reads(nn.Module):
    """An encoder-decoder's encoder, up to the keys and values that its decoder looks at: (R, H, S, D) each."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        from transformers.cache_utils import DynamicCache, EncoderDecoderCache

        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        begin = torch.zeros_like(input_ids[:, :1])
        # what the decoder computes beyond them goes nowhere, and is no part of the graph
        self.model(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=begin, past_key_values=cache)
        return held(cache.cross_attention_cache)


class Writes(nn.Module):
    """Its decoder: logits (R, T, V), and the keys and values of all that was written, (R, H, P + T, D) each."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, decoder_input_ids: Tensor, attention_mask: Tensor, past: list[Tensor], cross: list[Tensor]
    ) -> tuple[Tensor, ...]:
        from transformers.cache_utils import EncoderDecoderCache

        cache = EncoderDecoderCache(cached(past), cached(cross))
        # the keys are there: of what was read only the shape is looked at
        read = attention_mask[:, :, None].to(cross[0].dtype).expand(-1, -1, self.model.config.hidden_size)
        found = self.model(
            encoder_outputs=(read,),
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return (found.logits, *held(cache.self_attention_cache))


class Goes(nn.Module):
    """A decoder: logits (R, kept, V) at the places to keep, and the keys and values, (R, H, P + T, D) each."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, keep: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        cache = cached(past)
        found = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return (found.logits, *held(cache))


def cached(tensors: Sequence[Tensor]) -> Any:
    """Keys and values by turns, a pair a layer, as transformers holds them."""
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache()
    for layer, (keys, values) in enumerate(zip(tensors[::2], tensors[1::2], strict=True)):
        cache.update(keys, values, layer)
    return cache


def held(cache: Any) -> tuple[Tensor, ...]:
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
