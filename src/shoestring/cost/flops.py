"""FLOPs, known twice: by formula from a configuration, and by counting what ran. A multiply-add counts two."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

    from shoestring.types import Batch

# only matrix products are counted, as torch's counter does: norms, activations and softmax are below one percent


class _Products(NamedTuple):
    """What decides the cost of a decoder: `weights` of its matrix products, `tables` looked up, layers, width."""

    weights: int
    tables: int
    layers: int
    width: int


def _gpt_neox(config: PretrainedConfig) -> _Products:
    width, layers, vocabulary = config.hidden_size, config.num_hidden_layers, config.vocab_size * config.hidden_size
    weights = layers * (4 * width**2 + 2 * width * config.intermediate_size) + vocabulary
    return _Products(weights, 0 if config.tie_word_embeddings else vocabulary, layers, width)


def _gpt2(config: PretrainedConfig) -> _Products:
    width, layers, vocabulary = config.n_embd, config.n_layer, config.vocab_size * config.n_embd
    inner = 4 * width if config.n_inner is None else config.n_inner
    weights = layers * (4 * width**2 + 2 * width * inner) + vocabulary
    positions = config.n_positions * width
    return _Products(weights, positions if config.tie_word_embeddings else positions + vocabulary, layers, width)


_KNOWN: dict[str, tuple[str, Callable[[PretrainedConfig], _Products]]] = {
    "gpt_neox": ("GPTNeoXForCausalLM", _gpt_neox),
    "gpt2": ("GPT2LMHeadModel", _gpt2),
}


def formula(config: PretrainedConfig, batch: int, length: int, backward: bool = True) -> int:
    """FLOPs of one pass of a GPT-NeoX or GPT-2 language model over (batch, length) tokens, the head included.

    Attention is counted over all length x length pairs, also those a causal mask hides. Backward takes two products for
    each of forward's, and one more for the scores, which fused attention computes again. All parameters are trained.
    Raises ValueError for another architecture: `count` knows every one.
    """
    if config.model_type not in _KNOWN:
        known = ", ".join(_KNOWN)
        raise ValueError(f"FLOPs by formula are known for {known}, not {config.model_type!r}: use flops.count instead")
    products = _KNOWN[config.model_type][1](config)
    weights = 2 * batch * length * products.weights
    pairs = 2 * batch * length**2 * products.width * products.layers  # one product of heads x (T, T): scores or values
    return weights * (3 if backward else 1) + pairs * (7 if backward else 2)


@dataclass
class Count:
    """What `counting` has counted: complete once its context is left."""

    flops: int = 0


@contextmanager
def counting() -> Iterator[Count]:
    """Count the FLOPs of all that runs within, in any thread of autograd's; compiled models run eagerly meanwhile.

    The results are those of an uncounted run; on shapes torch's counter has no rule for, nothing is counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False, custom_mapping=_cpu_attention())
    counted = Count()
    with _eagerly(), counter:
        yield counted
    counted.flops = int(counter.get_total_flops())


def count(function: Callable[[], object]) -> int:
    """The FLOPs of one call of a function, which is run."""
    with counting() as counted:
        function()
    return counted.flops


def _cpu_attention() -> dict[Any, Callable[..., int]]:
    """Rules for fused attention on the CPU, which torch's counter (2.13) passes over as if it cost nothing."""
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_backward_flop_count(gradient, query, key, value))  # type: ignore[no-untyped-call]

    return {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }


@contextmanager
def _eagerly() -> Iterator[None]:
    """Run compiled code eagerly: the counter cannot see into it. Costs nothing where nothing was compiled."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # the counter's own hooks only follow module names, so that they fire twice does no harm
        warnings.filterwarnings("ignore", message=r"Using `torch.compile\(module\)` when there are global hooks")
        yield


class StepFlops:
    """FLOPs of one forward and backward of a model on a batch: by formula where it fits, else counted once per shape.

        with step_flops.counting(batch):    # counts where it must, else does nothing
            loss.backward()
        ledger.charge(flops=step_flops(batch))

    The formula fits an unaltered GPT-NeoX or GPT-2 language model whose parameters are all trained, on batches of
    `input_ids` (and `labels`) alone. It is the model's cost: an objective that also runs another model, or the same
    model twice, is to be counted by `flops.counting`. After surgery on the model, make a new one.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = list(model.parameters())
        self._config = _fitting(model)
        self._counted: dict[tuple[Any, ...], int] = {}

    def __call__(self, batch: Batch) -> int:
        """The FLOPs of a step on a batch of these shapes. Raises KeyError where they had to be counted and were not."""
        if self._by_formula(batch):
            assert self._config is not None
            rows, length = batch["input_ids"].shape
            return formula(self._config, rows, length)
        return self._counted[self._key(batch)]

    @contextmanager
    def counting(self, batch: Batch) -> Iterator[None]:
        """Wrap the real forward and backward on a batch: counts them if these shapes are new and no formula fits."""
        if self._by_formula(batch) or self._key(batch) in self._counted:
            yield
            return
        with counting() as counted:
            yield
        self._counted[self._key(batch)] = counted.flops

    def _by_formula(self, batch: Batch) -> bool:
        plain = "input_ids" in batch and not batch.keys() - {"input_ids", "labels"} and batch["input_ids"].dim() == 2
        return self._config is not None and plain and all(parameter.requires_grad for parameter in self._parameters)

    def _key(self, batch: Batch) -> tuple[Any, ...]:
        """A frozen parameter has no gradient to compute, so what is trained is part of the key."""
        shapes = tuple(sorted((name, tuple(tensor.shape)) for name, tensor in batch.items()))
        return shapes, tuple(parameter.requires_grad for parameter in self._parameters)


def _fitting(model: nn.Module) -> PretrainedConfig | None:
    """The configuration whose formula is this model's cost, or None: other classes, other weights, other attention."""
    inner = _language_model(model)
    if inner is None:
        return None
    config: Any = inner.config
    products = _KNOWN[config.model_type][1](config)
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    foreign = {type(module).__module__.split(".")[0] for module in inner.modules()} - {"torch", "transformers"}
    dropout = config.attn_pdrop if config.model_type == "gpt2" else config.attention_dropout
    # with dropout or eager attention, backward keeps the scores on some devices and computes them again on others
    fused = config._attn_implementation in ("sdpa", "flash_attention_2", "flash_attention_3") and dropout == 0
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in inner.modules())
    return (
        config if matrices == products.weights + products.tables and fused and not foreign and not recomputes else None
    )


def _language_model(model: nn.Module) -> Any | None:
    """The GPT-NeoX or GPT-2 language model inside wrappers such as DDP, FSDP2 and torch.compile, or None."""
    names = {name for name, _ in _KNOWN.values()}
    for module in model.modules():
        if names & {base.__name__ for base in type(module).__mro__}:
            return module
    return None
