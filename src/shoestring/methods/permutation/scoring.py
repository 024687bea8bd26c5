"""How likely a span is as a whole: under any order by permutation, and as near as the other objectives come."""
# B rows, S tokens a row, n tokens a span, V vocabulary

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from shoestring.methods.permutation.backbone import check_body
from shoestring.methods.permutation.layout import blockwise, left_to_right
from shoestring.methods.permutation.objectives import OBJECTIVE
from shoestring.methods.permutation.orders import HIDDEN
from shoestring.models.modes import evaluating

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Direction = Literal["left-to-right", "right-to-left"]
Past = dict[str, Any] | None
# whatever a configuration says of its pretraining
_PLAIN: dict[str, Any] = {"use_mems": False, "bidirectional": False}


def permuted(
    model: nn.Module, input_ids: Tensor, places: Tensor, block: int | None = None, past: Past = None
) -> Tensor:
    """(B, n) log-probabilities, in nats, of the tokens at `places`, each given all else and those before it there.

    input_ids  (B, S) with the real tokens at the places
    places     (B, n): in the order in which they are told; their sum is the joint log-probability
    block      of positions, as the model was pretrained: a block sees none after it, so that of several blocks the
               earlier is told first. The whole row where None
    past       what a row looks back on besides: `mems`, as `memories` gives them, and the `context` of each row
    """
    return _of(model(input_ids, **_told(input_ids, places, block), **(past or {})).logits, input_ids, places)


def compensated(
    model: nn.Module, input_ids: Tensor, places: Tensor, block: int | None = None, past: Past = None
) -> Tensor:
    """As `permuted`, of a model pretrained with MPNet's position compensation."""
    given = _told(input_ids, places, block)
    logits = model(input_ids, **given, **(past or {}), compensate=block or input_ids.shape[1]).logits
    return _of(logits, input_ids, places)


def independent(
    model: nn.Module, input_ids: Tensor, places: Tensor, block: int | None = None, past: Past = None
) -> Tensor:
    """As `permuted`, but none of the places is told to another: their sum is of a product of marginals."""
    rank, sees = blockwise(input_ids, block or input_ids.shape[1])
    given = {**_PLAIN, "rank": rank.scatter(1, places, HIDDEN), "sees": sees, "targets": places}
    return _of(model(input_ids, **given, **(past or {})).logits, input_ids, places)


def masked(model: nn.Module, input_ids: Tensor, places: Tensor, block: int | None = None, past: Past = None) -> Tensor:
    """As `independent`, of a model pretrained on masked inputs: all places read the mask at once."""
    hidden = torch.zeros_like(input_ids, dtype=torch.bool).scatter(1, places, True)
    rank, sees = blockwise(input_ids, block or input_ids.shape[1])
    given = {**_PLAIN, "masked": hidden, "stream": "content", "rank": rank, "sees": sees, "targets": places}
    return _of(model(input_ids, **given, **(past or {})).logits, input_ids, places)


def masked_in_turn(
    model: nn.Module, input_ids: Tensor, places: Tensor, block: int | None = None, past: Past = None
) -> Tensor:
    """As `permuted`, of a model pretrained on masked inputs: one place after the other is unmasked, in n passes."""
    turns = range(places.shape[1])
    return torch.cat([masked(model, input_ids, places[:, turn:], block, past)[:, :1] for turn in turns], 1)


def causal(model: nn.Module, input_ids: Tensor, places: Tensor, block: int | None = None, past: Past = None) -> Tensor:
    """As `permuted`, of an autoregressive model, which sees what stands before a place and nothing after it.

    places  ascending and not the first; `block` means nothing here
    """
    rank, sees = left_to_right(input_ids)
    given = {**_PLAIN, "rank": rank, "sees": sees, "targets": places - 1, "stream": "content"}
    return _of(model(input_ids, **given, **(past or {})).logits, input_ids, places)


def memories(model: nn.Module, before: Tensor, step: int, causal: bool = False) -> list[Tensor]:
    """The memory that a model has when it has read what stands before a row, in steps as it was pretrained.

    before  (B, M): tokens; step, how many are read at once, of which the configuration's `reuse_len` keeps as many
    causal  whether a token sees none after it
    """
    mems: list[Tensor] | None = None
    for part in torch.split(before, step, dim=1):
        rank, sees = left_to_right(part) if causal else blockwise(part, part.shape[1])
        given = {**_PLAIN, "use_mems": True, "rank": rank, "sees": sees, "mems": mems}
        # of the head nothing is wanted: one place is enough
        first = torch.zeros_like(part[:, :1])
        mems = model(part, **given, targets=first, stream="content").mems
    assert mems is not None
    return mems


def _told(input_ids: Tensor, places: Tensor, block: int | None) -> dict[str, Any]:
    rank, sees = blockwise(input_ids, block or input_ids.shape[1])
    first = sees.gather(1, places)
    before = (first[:, :, None] == first[:, None]).tril(-1).sum(-1)  # in the same block
    turns = first + before.to(sees.dtype)
    order = {"rank": rank.scatter(1, places, turns), "sees": sees.scatter(1, places, turns)}
    return {**_PLAIN, **order, "targets": places}


def _of(logits: Tensor, input_ids: Tensor, places: Tensor) -> Tensor:
    likely = torch.log_softmax(logits.float() if logits.dtype != torch.float64 else logits, -1)
    return likely.gather(2, input_ids.gather(1, places)[..., None])[..., 0]


class SpanScore(NamedTuple):
    """tokens, and the log-probability of each in nats, in the order in which they were told; their sum is `total`."""

    text: str
    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]

    @property
    def total(self) -> float:
        return sum(self.log_probabilities)


def span_log_prob(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    spans: Sequence[tuple[int, int]],
    order: Direction | Sequence[Sequence[int]] = "left-to-right",
) -> list[SpanScore]:
    """The joint log-probability of each span of a text, given all the rest of it.

    model   a two-stream language model; its configuration says by which objective we pretrained it, permutation unless
            said. One pretrained on masks is told a span token by token, in as many passes
    spans   characters, from and to: the tokens that overlap are scored, whole
    order   in which a span's tokens are told; or of each span its own, as places in it (0 its first token)
    The tokens' log-probabilities sum to the span's in any order; a model's sums differ a little from order to order.
    All of the text is seen, however long, also where pretraining cut it into blocks: much beyond the length that the
    model was pretrained at, it meets distances that it never saw. Raises ValueError where a span is empty, lies outside
    the text, holds no token or an unknown one, where an order does not name each token of its span once, and for an
    autoregressive model or one with transformers' own body.
    """
    check_body(model)
    if model.config.attn_type == "uni":
        raise ValueError(
            "the model sees nothing after a token (attn_type 'uni'): expected one pretrained by permutation"
        )
    objective = getattr(model.config, OBJECTIVE, "permutation")
    if objective not in _JOINT:
        raise ValueError(f"the configuration's {OBJECTIVE} is {objective!r}: expected one of {', '.join(_JOINT)}")
    told_by = _JOINT[objective]
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    device = next(model.parameters()).device
    input_ids = torch.tensor([encoded["input_ids"]], device=device)
    scores = []
    with evaluating(model):
        for index, (start, end) in enumerate(spans):
            if not 0 <= start < end <= len(text):
                raise ValueError(f"span {start} to {end} of a text of {len(text)} characters: expected one inside it")
            covered = [place for place, (first, last) in enumerate(offsets) if first < end and last > start]
            if not covered:
                raise ValueError(f"span {start} to {end}, {text[start:end]!r}, holds no token: expected text")
            if tokenizer.unk_token_id in {encoded["input_ids"][place] for place in covered}:
                raise ValueError(f"span {start} to {end}, {text[start:end]!r}, has what the tokenizer does not know")
            told = [covered[place] for place in _turns(order, index, len(covered))]
            likely = told_by(model, input_ids, torch.tensor([told], device=device))[0].tolist()
            tokens = tuple(text[slice(*offsets[place])] for place in told)
            scores.append(SpanScore(text[start:end], tokens, tuple(likely)))
    return scores


# as good as each objective allows
_JOINT: dict[str, Callable[..., Tensor]] = {"permutation": permuted, "mpnet": compensated, "masked": masked_in_turn}


def _turns(order: Direction | Sequence[Sequence[int]], index: int, count: int) -> list[int]:
    if order == "left-to-right":
        return list(range(count))
    if order == "right-to-left":
        return list(reversed(range(count)))
    own = list(order[index]) if index < len(order) else []
    if sorted(own) != list(range(count)):
        raise ValueError(f"the order {own} of span {index}: expected each of its {count} tokens once, from 0")
    return own
