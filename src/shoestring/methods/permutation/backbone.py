"""Two-stream attention with a memory, in the place of transformers' XLNetModel: its weights, under its names."""
# B rows of the batch, S tokens a sequence, M memory, P predicted positions, T = M + S keys, N heads, D width of a head

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import XLNetConfig, XLNetModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.xlnet.modeling_xlnet import XLNetLayer, XLNetModelOutput, XLNetRelativeAttention

from shoestring.methods.permutation.attention import View, attend
from shoestring.methods.permutation.layout import Layout, Stream, blockwise, distances, left_to_right
from shoestring.methods.permutation.orders import HIDDEN, check

_USUAL = ("perm_mask", "target_mapping", "input_mask", "output_attentions")  # of transformers', often passed as None


def check_body(model: nn.Module) -> None:
    """Raises ValueError where a model has transformers' own body, which ignores an order and says nothing."""
    if any(isinstance(part, XLNetModel) for part in model.modules()):
        raise ValueError("the model's body is transformers' own, not two-stream: pass it to from_transformers first")


class TwoStream(nn.Module):
    """The body of an XLNet: predicted positions are rows beside the sequence's own, in every layer, and only they.

    It holds the modules of the body that it stands for, so that weights, names and what is tied stay as they were.
    """

    def __init__(self, body: XLNetModel) -> None:
        super().__init__()
        self.config: XLNetConfig = body.config
        self.word_embedding = body.word_embedding
        self.mask_emb = body.mask_emb
        self.layer = nn.ModuleList(Layer(layer) for layer in body.layer)
        self.dropout = body.dropout
        self.train(body.training)

    def get_input_embeddings(self) -> nn.Module:
        embedding: nn.Module = self.word_embedding
        return embedding

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        self.word_embedding = embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        mems: list[Tensor] | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        use_mems: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        rank: Tensor | None = None,
        sees: Tensor | None = None,
        targets: Tensor | None = None,
        stream: Stream = "query",
        masked: Tensor | None = None,
        context: Tensor | None = None,
        bidirectional: bool | None = None,
        compensate: int | None = None,
        **others: Any,
    ) -> XLNetModelOutput:
        """States of the last layer, as transformers' own body gives them, and the new memory.

        input_ids       (B, S); or inputs_embeds (B, S, width)
        attention_mask  (B, S): 0 where a token is padding
        mems            of each layer (M, B, width), as an earlier call gave it for the same rows
        rank, sees      (B, S) integers, the order: see `Layout`. Without them all is seen, or what comes before, where
                        the configuration's `attn_type` is "uni"
        targets         (B, P) positions to give states of, -1 for none: (B, P, width); without it (B, S, width)
        stream          whether those are of the query stream, which does not know the token at its position, or of the
                        content stream, whose inputs may be `masked`
        masked          (B, S) bool: tokens in whose place the learned vector w is read
        context         (B,): how much of the memory each row may see, from its end; all of it without
        bidirectional   whether the second half of the rows is read from right to left; without, the configuration's
                        `bi_data`
        compensate      MPNet's position compensation: see `Layout`
        Which states the memory keeps, the configuration's `mem_len` and `reuse_len` say. Raises ValueError where shapes
        do not fit together, and for what only transformers' own body can do.
        """
        _refuse(others)
        states = self._embedded(input_ids, inputs_embeds, masked)
        rank, sees = self._order(states, attention_mask, rank, sees)
        both = bool(self.config.bi_data if bidirectional is None else bidirectional)
        memory = _memory(self.config, states, mems)
        layout = Layout(rank, sees, targets, stream, token_type_ids, memory, context, compensate)
        if both and len(states) % 2:
            raise ValueError(f"bidirectional with {len(states)} rows: expected an even number, half of them backward")
        if layout.extra:
            states = torch.cat([states, self.mask_emb.to(states.dtype).expand(len(states), layout.extra, -1)], 1)
        far = distances(self.config.d_model, layout.length, memory, both, self.config.clamp_len, states.device)
        states, far = self.dropout(states), self.dropout(far.to(states.dtype))
        remembers = self.config.use_mems_train if self.training else self.config.use_mems_eval
        shows = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return self._through(states, far, layout, mems, remembers if use_mems is None else use_mems, shows)

    def _through(
        self, states: Tensor, far: Tensor, layout: Layout, mems: list[Tensor] | None, remembers: bool, shows: bool
    ) -> XLNetModelOutput:
        """All rows through all layers, the rows that predict alone through the last."""
        view, kept, seen = layout.view(), [], []
        for index, layer in enumerate(self.layer):
            own, past = states[:, : layout.length], None if mems is None else mems[index].transpose(0, 1)
            if remembers:
                kept.append(_kept(own, past, self.config.reuse_len, self.config.mem_len))
            if shows:
                seen.append(own)
            asking = states
            if layout.targets is not None and index == len(self.layer) - 1:
                view, asking = layout.last(layout.targets), layout.asking(states, layout.targets)
            states = layer(asking, states, past, far, view)
        if shows:
            seen.append(states)
        return XLNetModelOutput(
            last_hidden_state=self.dropout(states), mems=kept or None, hidden_states=tuple(seen) or None
        )

    def _embedded(self, input_ids: Tensor | None, inputs_embeds: Tensor | None, masked: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("expected either input_ids or inputs_embeds")
        states = self.word_embedding(input_ids) if inputs_embeds is None else inputs_embeds
        if states.dim() != 3 or not states.shape[1]:
            raise ValueError(f"the input is of shape {tuple(states.shape[:-1])}: expected rows of one token or more")
        if masked is None:
            return states
        if masked.shape != states.shape[:2] or masked.dtype != torch.bool:
            found = f"{masked.dtype} {tuple(masked.shape)}"
            raise ValueError(f"masked is {found}: expected torch.bool {tuple(states.shape[:2])}, as the input")
        return torch.where(masked[..., None], self.mask_emb.to(states.dtype), states)

    def _order(
        self, states: Tensor, attention_mask: Tensor | None, rank: Tensor | None, sees: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rows, length = states.shape[:2]
        if (rank is None) != (sees is None):
            raise ValueError("expected both of rank and sees, or neither")
        if rank is None or sees is None:
            rank, sees = left_to_right(states) if self.config.attn_type == "uni" else blockwise(states, length)
        check(rank, sees, (rows, length))
        if attention_mask is not None:
            if attention_mask.shape != rank.shape:
                shapes = f"{tuple(attention_mask.shape)}: expected {tuple(rank.shape)}"
                raise ValueError(f"attention_mask is {shapes}, as the input")
            rank = rank.masked_fill(attention_mask == 0, HIDDEN)
        return rank, sees


class Layer(GradientCheckpointingLayer):  # type: ignore[misc]
    """Attention and feed-forward over all rows at once, whichever stream they are of."""

    def __init__(self, layer: XLNetLayer) -> None:
        super().__init__()
        self.rel_attn: XLNetRelativeAttention = layer.rel_attn
        self.ff: nn.Module = layer.ff

    def forward(self, asking: Tensor, states: Tensor, past: Tensor | None, far: Tensor, view: View) -> Tensor:
        """(B, Q, width): what becomes of the rows that ask.

        asking  (B, Q, width), the rows of `view`
        states  (B, rows, width), whose first rows are the keys after the memory's, `past` (B, M, width)
        far     (G, L, width): sinusoids of the distances
        """
        attention = self.rel_attn
        keyed = states[:, : view.rank.shape[1] - (0 if past is None else past.shape[1])]
        keyed = keyed if past is None else torch.cat([past.to(keyed.dtype), keyed], 1)
        keys, values = _headed(keyed, attention.k), _headed(keyed, attention.v)
        queries = _headed(asking, attention.q)
        segment = None
        if view.segments is not None:
            apart = attention.seg_embed[1] - attention.seg_embed[0]
            segment = torch.einsum("bnqd,nd->bnq", _biased(queries, attention.r_s_bias), apart.to(queries.dtype))
            segment = segment * attention.scale
        read = attend(
            _biased(queries, attention.r_w_bias) * attention.scale,
            _biased(queries, attention.r_r_bias) * attention.scale,
            segment,
            keys,
            values,
            _headed(far, attention.r),
            view,
            attention.dropout.p if self.training else 0.0,
        )
        read = nn.functional.linear(read.transpose(1, 2).flatten(2), attention.o.to(read.dtype).flatten(1))
        states = attention.layer_norm(attention.dropout(read) + asking)
        fed: Tensor = self.ff(states)
        return fed


def _headed(states: Tensor, weight: Tensor) -> Tensor:
    """(B, N, rows, D) of (B, rows, width), by a weight (width, N, D).

    A half-precision checkpoint has this weight in fp32, too, as transformers loads it.
    """
    flat = nn.functional.linear(states, weight.to(states.dtype).flatten(1).t())
    return flat.view(*flat.shape[:2], *weight.shape[1:]).transpose(1, 2).contiguous()


def _biased(queries: Tensor, bias: Tensor) -> Tensor:
    return queries + bias.to(queries.dtype)[:, None]


def _kept(own: Tensor, past: Tensor | None, reuse: int | None, memory: int | None) -> Tensor:
    """(M, B, width): the latest states that go into a layer, of all there were; without gradients."""
    own = own[:, :reuse] if reuse else own
    every = own if past is None else torch.cat([past.to(own.dtype), own], 1)
    return (every[:, -memory:] if memory else every).detach().transpose(0, 1)


def _refuse(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if name == "perm_mask" and value is not None:
            raise ValueError("perm_mask: expected rank and sees, the order as integers; see orders.perm_mask")
        if name == "target_mapping" and value is not None:
            raise ValueError("target_mapping: expected targets, the positions that are predicted")
        if value is not None and value is not False:
            done = "turn it back by to_transformers" if name in _USUAL else "no such argument"
            raise ValueError(f"{name}: a two-stream body has none: {done}")


def _memory(config: XLNetConfig, states: Tensor, mems: list[Tensor] | None) -> int:
    """How long the memory is. Raises ValueError where it is not of such a batch and model."""
    if mems is None:
        return 0
    if len(mems) != config.n_layer:
        raise ValueError(f"mems are of {len(mems)} layers: expected {config.n_layer}")
    for memory in mems:
        expected = (mems[0].shape[0], len(states), config.d_model)
        if memory.shape != expected:
            shapes = f"{tuple(memory.shape)}: expected {expected}"
            raise ValueError(f"mems hold {shapes}, length, rows and width: of another batch? begin with none")
    return int(mems[0].shape[0])
