"""What the same backbone can be pretrained to do: permutation, masked and autoregressive language modelling."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from shoestring.data.batches import NOT_SCORED
from shoestring.methods.permutation.backbone import check_body
from shoestring.methods.permutation.layout import blockwise, left_to_right
from shoestring.methods.permutation.memory import Memory
from shoestring.types import Batch, Loss

Kind = Literal["permutation", "mpnet", "masked", "autoregressive"]
OBJECTIVE = "pretraining_objective"  # the field of a configuration that says which one a model learnt
_SWAPPED, _KEPT = 0.1, 0.1  # of the masked positions: Devlin et al. 2019 (BERT), section 3.1


class Pretraining:
    """The summed loss of a batch of `PermutationBatches`, in nats.

        memory = Memory(config)
        train(run, Pretraining("permutation", memory, block=64, bidirectional=True), until=1000, hooks=[memory])

    kind  permutation     each target given the tokens before it in the order: Yang et al. 2019 (XLNet), equation 5
          mpnet           the same, with masked positions for what is yet to come: Song et al. 2020 (MPNet), section 2
          masked          each target given all that is no target; in its own place 80 % read a mask, 10 % another token
                          and 10 % the token itself: Devlin et al. 2019 (BERT). With a memory it is the arm "DAE +
                          Transformer-XL" of XLNet's table 6: a block then sees no later one, as the memory would tell
          autoregressive  each token given those before it: Dai et al. 2019 (Transformer-XL)
    memory         carried from batch to batch where its length is not 0
    block          positions a block of the order: the stream's reuse, and with a memory the configuration's
                   `reuse_len`, or ValueError is raised; without a memory the sequence is one block
    bidirectional  whether half of each batch's rows are read from right to left
    Raises ValueError, called, where the model has transformers' own body.
    The mask is the learned vector w of the query stream: the vocabulary needs no token for it.
    """

    def __init__(self, kind: Kind, memory: Memory, block: int, bidirectional: bool = False) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"objective {kind!r}: expected one of {', '.join(get_args(Kind))}")
        if memory.length and kind != "autoregressive" and memory.reuse != block:
            raise ValueError(
                f"blocks of {block} positions, of a configuration whose reuse_len is {memory.reuse}: expected the "
                "same, the stream's reuse; a memory of more would tell what the next batch predicts"
            )
        self.kind, self.memory, self.block, self.bidirectional = kind, memory, block, bidirectional

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        check_body(model)
        inputs, labels = batch["input_ids"], batch.get("labels")
        given: dict[str, Any] = {"token_type_ids": batch.get("token_type_ids"), "bidirectional": self.bidirectional}
        if self.memory.length:
            given |= {"mems": self.memory.before(inputs), "context": batch["context"], "use_mems": True}
        if self.kind == "autoregressive":
            rank, sees = left_to_right(inputs)
            given |= {"input_ids": inputs, "rank": rank, "sees": sees}
            labels = nn.functional.pad(inputs[:, 1:], (0, 1), value=NOT_SCORED)
        elif self.kind == "masked":
            given |= self._masked(inputs, batch["targets"])
        else:
            given |= {"input_ids": inputs} | {name: batch[name] for name in ("rank", "sees", "targets")}
            given |= {"compensate": self._block(inputs)} if self.kind == "mpnet" else {}
        found = model(**given)
        if self.memory.length:
            self.memory.keep(list(found.mems))
        assert labels is not None
        flat = found.logits.reshape(-1, found.logits.shape[-1]).float()
        total = nn.functional.cross_entropy(flat, labels.reshape(-1), ignore_index=NOT_SCORED, reduction="sum")
        return Loss(total, int((labels != NOT_SCORED).sum()), inputs.numel())

    def _block(self, inputs: Tensor) -> int:
        return self.block if self.memory.length else inputs.shape[1]

    def _masked(self, inputs: Tensor, targets: Tensor) -> dict[str, Any]:
        places = torch.arange(inputs.shape[1], device=inputs.device)
        chosen = (targets[:, :, None] == places).any(1)
        draw = torch.rand(inputs.shape, device=inputs.device)
        # another token is one that stands somewhere in the batch: frequent ones more often, none that is never used
        other = inputs.flatten()[torch.randint(inputs.numel(), inputs.shape, device=inputs.device)]
        rank, sees = blockwise(inputs, self._block(inputs))
        return {
            "input_ids": torch.where(chosen & (draw < _SWAPPED), other, inputs),
            "masked": chosen & (draw >= _SWAPPED + _KEPT),
            "rank": rank,
            "sees": sees,
            "targets": targets,
            "stream": "content",
        }
