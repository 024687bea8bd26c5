"""The comparison of our body with transformers' own on one folder's weights, and the folder that is written then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, XLNetConfig, XLNetModel

from shoestring.methods.permutation import tools_opened
from shoestring.methods.permutation.backbone import TwoStream
from shoestring.methods.permutation.convert import from_transformers, to_transformers
from shoestring.methods.permutation.orders import perm_mask
from shoestring.methods.permutation.tools_out import save
from shoestring.models import folders
from shoestring.models.modes import evaluating

TOLERANCE = 1e-4
_Given: TypeAlias = dict[str, Tensor]
_ROWS, _LENGTH, _TARGETS, _BATCHES = 2, 24, 5, 3


class Converted(NamedTuple):
    """What was written. difference: the largest between the bodies; largest, the largest number of theirs.

    what      is compared: logits of a language model, states of the last layer of others
    left_out  that it has no tokenizer, where it has none
    """

    difference: float
    largest: float
    what: str
    kind: str
    parameters: int
    dtype: str
    left_out: str


def converted(named: str, out: Path, dtype: str | None) -> Converted:
    """Compare and write. Raises ValueError where the bodies differ by more than the tolerance, or it is no XLNet."""
    folder = tools_opened.folder_of(named)
    model = tools_opened.model_of(folder)
    told = folders.has_tokenizer(folder)
    # of a half-precision folder transformers keeps some weights in fp32, but never these
    stored = model.get_input_embeddings().weight.dtype
    tokenizer = tools_opened.tokenizer_of(folder, model) if told else None
    difference, largest, what = compared(model.to(torch.float32))
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ValueError(
            f"{folder}: the bodies differ by {difference:.2g} in {what}, of magnitudes up to {largest:.2g}: expected "
            f"{TOLERANCE:g} of that at most; nothing was written"
        )
    wanted = stored if dtype is None else getattr(torch, dtype)
    model.to(wanted)
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise ValueError(f"--dtype {dtype}: weights of {folder} are beyond its range: give bfloat16 or float32")
    save(model, tokenizer, out)
    count = sum(weight.numel() for weight in model.parameters())
    left_out = "" if told else "; it holds no tokenizer"
    name = str(wanted).removeprefix("torch.")
    return Converted(difference, largest, what, type(model).__name__, count, name, left_out)


def compared(model: PreTrainedModel) -> tuple[float, float, str]:
    """The largest difference between the bodies on a model's weights, the largest number, and what was compared.

    Batches are read one after the other, each with what the body remembers of those before it. A body that reads from
    left to right alone is given no other order. Raises ValueError where it is of a kind that is not computed by ours.
    """
    generator = torch.Generator().manual_seed(0)
    batches = [_batch(model.config, generator) for _ in range(_BATCHES)]
    told = type(model).__name__ == tools_opened.LANGUAGE
    head = model.lm_loss if told else nn.Identity()
    with evaluating(model):
        theirs = torch.stack([*_read(model.base_model, head, [shared | own for shared, own, _ in batches])])
        own = TwoStream(model).eval() if isinstance(model, XLNetModel) else from_transformers(model).base_model
        ours = torch.stack([*_read(own, head, [shared | own for shared, _, own in batches])])
    if not isinstance(model, XLNetModel):
        to_transformers(model)
    return float((theirs - ours).abs().max()), float(theirs.abs().max()), "logits" if told else "the last states"


def _read(body: nn.Module, head: nn.Module, batches: list[_Given]) -> Iterator[Tensor]:
    mems = None
    for batch in batches:
        found = body(**batch, mems=mems, use_mems=True)
        mems = found.mems
        yield head(found.last_hidden_state)


def _batch(config: XLNetConfig, generator: torch.Generator) -> tuple[_Given, _Given, _Given]:
    """What both bodies are given, and a random order with its targets, as transformers has it and as we do."""
    shape = (_ROWS, _LENGTH)
    ids = torch.randint(config.vocab_size, shape, generator=generator)
    shared = {"input_ids": ids, "token_type_ids": torch.randint(3, shape, generator=generator)}
    if config.attn_type != "bi":
        return shared, {}, {}
    targets = torch.rand(shape, generator=generator).argsort(1)[:, :_TARGETS].sort(1).values
    turns = torch.rand(targets.shape, generator=generator).argsort(1)
    rank = torch.full(shape, -1).scatter(1, targets, turns)
    sees = torch.zeros(shape, dtype=torch.int64).scatter(1, targets, turns)
    mapping = nn.functional.one_hot(targets, _LENGTH).float()
    theirs = {"perm_mask": perm_mask(rank, sees), "target_mapping": mapping}
    return shared, theirs, {"rank": rank, "sees": sees, "targets": targets}
