"""What a student says: how likely each option is, and what it writes by itself.

B rows, S source tokens, K options, T option tokens, V vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shoestring.methods.rationale.encode import IGNORED, Coder, language_model, padded
from shoestring.methods.rationale.together import Ids, Size, batches, scored
from shoestring.models.modes import evaluating

_ROUND = 16  # tokens that all rows write until those that ended drop out


class NotFiniteError(ValueError):
    """What a student computes is not finite: its weights, or what comes of them, overflowed."""


def likelihoods(
    model: nn.Module, coder: Coder, sources: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
) -> list[list[float]]:
    """The log-likelihood of each option of each source, its end of text included, in nats.

    sources  token ids, as `coder.sources` gives them; options, by source, as `coder.targets` does
    Each source is read once, save where its options' logits are too many to hold at once. Raises ValueError where one
    is not finite.
    """
    of = _encoded if coder.family == "encoder-decoder" else _continued

    def score(some: list[Ids], written: list[Sequence[Ids]]) -> list[list[float]]:
        lines: list[list[float]] = of(model, coder, some, written).tolist()
        for line in lines:
            if not all(value == value and abs(value) < float("inf") for value in line):
                raise NotFiniteError(f"a student's log-likelihoods are {line}: its weights or activations overflowed")
        return lines

    with evaluating(model):
        return scored(sources, options, language_model(model).get_input_embeddings().weight.shape[0], score)


def write(model: nn.Module, coder: Coder, sources: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """What the student writes, greedily, up to the end of text or so many tokens."""
    found = [""] * len(sources)
    inner = language_model(model)
    vocabulary = inner.get_input_embeddings().weight.shape[0]
    with evaluating(model), _plainly(inner, coder, tokens):
        for rows in batches([Size(len(source)) for source in sources], vocabulary):
            ids, mask = _padded(coder, [sources[row] for row in rows], _device(model))
            if coder.family == "encoder-decoder":
                lines = inner.generate(input_ids=ids, attention_mask=mask)[:, 1:].tolist()
            else:
                lines = _in_rounds(inner, ids, mask, coder.end, tokens)
            for row, line in zip(rows, lines, strict=True):
                found[row] = coder.text(line)
    return found


def _in_rounds(inner: Any, ids: Tensor, mask: Tensor, end: int, tokens: int) -> list[list[int]]:
    """What a decoder writes after each row, a few tokens at a time: after each round, rows that have ended drop out.

    `generate` alone goes on with all rows until the last has ended, and one that never does would hold them all.
    """
    from transformers import DynamicCache

    found: list[list[int]] = [[] for _ in ids]
    width, rows, seen = ids.shape[1], torch.arange(len(ids), device=ids.device), dict[str, DynamicCache]()
    while len(rows) and ids.shape[1] < width + tokens:
        some = min(_ROUND, width + tokens - ids.shape[1])
        output = inner.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=some, return_dict_in_generate=True, **seen
        )
        ids, mask = output.sequences, nn.functional.pad(mask, (0, output.sequences.shape[1] - mask.shape[1]), value=1)
        for row, line in zip(rows.tolist(), ids[:, width:].tolist(), strict=True):
            found[row] = line
        going = (ids[:, width:] != end).all(dim=1).nonzero().flatten()
        rows, ids, mask = rows[going], ids[going], mask[going]
        if isinstance(output.past_key_values, DynamicCache):  # else what was read is read again
            output.past_key_values.batch_select_indices(going)
            seen = {"past_key_values": output.past_key_values}
    return found


@contextmanager
def _plainly(inner: Any, coder: Coder, tokens: int) -> Iterator[None]:
    """Without the penalties and beams that a model's folder may ask for, which a student was not taught with.

    `generate` would take what a configuration passed to it leaves out from the model's own.
    """
    from transformers import GenerationConfig

    own, start = inner.generation_config, getattr(inner.config, "decoder_start_token_id", None)
    ends = {"eos_token_id": coder.end, "pad_token_id": coder.end, "decoder_start_token_id": start}
    inner.generation_config = GenerationConfig(max_new_tokens=tokens, do_sample=False, num_beams=1, **ends)
    try:
        yield
    finally:
        inner.generation_config = own


def _encoded(
    model: nn.Module, coder: Coder, sources: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
) -> Tensor:
    """(B, K): an encoder-decoder's; the encoder runs once."""
    inner = language_model(model)
    ids, mask = _padded(coder, sources, _device(model))
    encoded = inner.get_encoder()(input_ids=ids, attention_mask=mask)
    each = len(options[0])
    labels = padded([option for line in options for option in line], IGNORED).to(ids.device)
    output = inner(
        encoder_outputs=(encoded[0].repeat_interleave(each, dim=0),),
        attention_mask=mask.repeat_interleave(each, dim=0),
        labels=labels,
        use_cache=False,
    )
    return _summed(output.logits, labels).reshape(len(sources), each)


def _continued(
    model: nn.Module, coder: Coder, sources: Sequence[Sequence[int]], options: Sequence[Sequence[Sequence[int]]]
) -> Tensor:
    """(B, K): a decoder's; its cache of the source is shared by the options."""
    inner = language_model(model)
    ids, mask = _padded(coder, sources, _device(model))
    places = (mask.cumsum(dim=1) - 1).clamp(min=0)
    read = inner(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1)
    each = len(options[0])
    labels = padded([option for line in options for option in line], IGNORED).to(ids.device)
    first = read.logits.repeat_interleave(each, dim=0)
    if labels.shape[1] == 1:  # nothing but ends of text
        return _summed(first, labels).reshape(len(sources), each)
    cache = read.past_key_values
    cache.batch_repeat_interleave(each)
    inputs = labels[:, :-1].clamp(min=0)
    seen = torch.cat([mask.repeat_interleave(each, dim=0), (labels[:, :-1] != IGNORED).long()], dim=1)
    after = places[:, -1:].repeat_interleave(each, dim=0) + torch.arange(1, labels.shape[1], device=ids.device)
    going = inner(
        input_ids=inputs, attention_mask=seen, position_ids=after, past_key_values=cache, use_cache=True
    ).logits
    return _summed(torch.cat([first, going], dim=1), labels).reshape(len(sources), each)


def _summed(logits: Tensor, labels: Tensor) -> Tensor:
    """(rows,): the log-likelihood of each row's labels. logits (rows, T, V), labels (rows, T)."""
    flat = logits.flatten(0, 1).float()  # rows of a matrix: several times as fast as logits with the vocabulary between
    nats = nn.functional.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="none")
    return -nats.reshape(labels.shape).double().sum(dim=1)


def _padded(coder: Coder, rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows (B, S) and their mask: a decoder's end together, as what is written goes on from the last column.

    An encoder's begin together, as in training: BART's, say, takes each column for a position, whatever the mask.
    """
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), coder.end, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        first = 0 if coder.family == "encoder-decoder" else width - len(row)
        ids[place, first : first + len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[place, first : first + len(row)] = 1
    return ids.to(device), mask.to(device)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
