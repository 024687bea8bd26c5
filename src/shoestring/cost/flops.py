"""FLOPs, known twice: by formula from a configuration, and by counting what ran. A multiply-add counts two."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoestring.cost import formulas
from shoestring.cost.foretold import Foretold, Sizes
from shoestring.cost.formulas import formula as formula

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

    from shoestring.types import Batch

_FREE = {"labels", "attention_mask", "scale"}
_DROPOUT = {"gpt_neox": "attention_dropout", "gpt2": "attn_pdrop", "t5": "dropout_rate"}


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

    counter = FlopCounterMode(display=False, custom_mapping=_rules())
    counted = Count()
    with _eagerly(), counter:
        yield counted
    counted.flops = int(counter.get_total_flops())


def count(function: Callable[[], object]) -> int:
    """The FLOPs of one call of a function, which is run."""
    with counting() as counted:
        function()
    return counted.flops


def _rules() -> dict[Any, Callable[..., int]]:
    """Rules, by shapes, for what torch's counter passes over as if it cost nothing or, in some versions, fails on.

    Fused attention, of a query (rows, heads, length, width), over all pairs of positions: torch 2.13 passes the CPU's
    over, and 2.11 fails where several heads of the query share one of the keys. Backward computes the scores again.
    The products of experts, to each of which some tokens go: of (tokens, in) with (experts, in, out), and backward of
    (in, tokens) with (tokens, out) as well.
    """
    import torch

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(2 * math.prod(query[:3]) * key[2] * (query[3] + value[3]))

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(2 * math.prod(query[:3]) * key[2] * (3 * query[3] + 2 * value[3]))

    def grouped(left: Any, right: Any, *_: Any, **__: Any) -> int:
        return int(2 * math.prod(left) * right[-1])

    rules: dict[Any, Callable[..., int]] = {}
    experts = getattr(torch.ops.aten, "_grouped_mm", None)  # early versions of torch 2 have none
    if experts is not None:
        rules[experts] = grouped
    for kernel in ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention"):
        operation = f"_scaled_dot_product_{kernel}"
        rules[getattr(torch.ops.aten, operation)] = forward
        rules[getattr(torch.ops.aten, f"{operation}_backward")] = backward
    return rules


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
    """FLOPs of one forward and backward of a model on a batch: by formula where it fits, else counted.

        with step_flops.counting(batch):    # counts where it must, else does nothing
            loss.backward()
        ledger.charge(flops=step_flops(batch))

    The formula fits an unaltered GPT-NeoX, GPT-2 or T5 language model whose parameters are all trained, on batches of
    `input_ids` (B, T) and, of T5, `labels` (B, T of the decoder), with no other keys than
        labels, attention_mask, scale   which change no product
        scored                          (N,) the positions, of all flattened, that the objective puts through the head
    Of other models some shapes are counted, on such batches until those of the next are `foretold`. It is the model's
    cost: an objective that also runs another model, or the same model twice, is to be counted by `flops.counting`.
    After surgery on the model, make a new one.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = list(model.parameters())
        self._config = _fitting(model)
        self._counted: dict[tuple[Any, ...], int] = {}
        self._foretold: dict[tuple[Any, ...], Foretold] = {}

    def __call__(self, batch: Batch) -> int:
        """The FLOPs of a step on a batch of these shapes. Raises KeyError where they had to be counted and were not."""
        if not self._by_formula(batch):
            found = self._known(batch)
            if found is None:
                raise KeyError(self._key(batch))
            return found
        assert self._config is not None
        rows, length = batch["input_ids"].shape
        target = batch["labels"].shape[1] if self._config.is_encoder_decoder else None
        scored = len(batch["scored"]) if "scored" in batch else None
        return formula(self._config, rows, length, target=target, scored=scored)

    @contextmanager
    def counting(self, batch: Batch) -> Iterator[None]:
        """Wrap the real forward and backward on a batch: counts them where their FLOPs are not known without."""
        if self._by_formula(batch) or self._known(batch) is not None:
            yield
            return
        with counting() as counted:
            yield
        self._counted[self._key(batch)] = counted.flops
        sizes, kind = self._sizes(batch)
        if sizes is not None:
            self._foretold.setdefault(kind, Foretold()).learn(sizes, counted.flops)

    def _known(self, batch: Batch) -> int | None:
        """What was counted on these shapes, or is foretold by what was counted on others."""
        found = self._counted.get(self._key(batch))
        if found is not None:
            return found
        sizes, kind = self._sizes(batch)
        return self._foretold[kind](sizes) if sizes is not None and kind in self._foretold else None

    def _sizes(self, batch: Batch) -> tuple[Sizes | None, tuple[Any, ...]]:
        """A batch's sizes, None where there is more in it, and what else its FLOPs hang on."""
        plain = batch.keys() <= {"input_ids", "scored"} | _FREE
        kind = (tuple(sorted(batch)), self._trained())
        return (Sizes.of(batch) if plain else None), kind

    def _by_formula(self, batch: Batch) -> bool:
        if self._config is None or not all(parameter.requires_grad for parameter in self._parameters):
            return False
        needed = {"input_ids", "labels"} if self._config.is_encoder_decoder else {"input_ids"}
        plain = needed <= batch.keys() <= needed | _FREE | {"scored"}
        return plain and all(batch[name].dim() == 2 for name in needed)

    def _key(self, batch: Batch) -> tuple[Any, ...]:
        """A frozen parameter has no gradient to compute, so what is trained is part of the key."""
        shapes = tuple(sorted((name, tuple(tensor.shape)) for name, tensor in batch.items()))
        return shapes, self._trained()

    def _trained(self) -> tuple[bool, ...]:
        return tuple(parameter.requires_grad for parameter in self._parameters)


def _fitting(model: nn.Module) -> PretrainedConfig | None:
    """The configuration whose formula is this model's cost, or None: other classes, other weights, other attention."""
    inner = _language_model(model)
    if inner is None:
        return None
    config: Any = inner.config
    weights = formulas.weights(config)
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    foreign = {type(module).__module__.split(".")[0] for module in inner.modules()} - {"torch", "transformers"}
    # with dropout, backward of fused attention keeps the scores on some devices and computes them again on others
    dropped = getattr(config, _DROPOUT[config.model_type]) != 0
    attention = config._attn_implementation
    known = attention == "eager" or (attention in ("sdpa", "flash_attention_2", "flash_attention_3") and not dropped)
    recomputes = any(getattr(module, "gradient_checkpointing", False) for module in inner.modules())
    return config if matrices == sum(weights) and known and not foreign and not recomputes else None


def _language_model(model: nn.Module) -> Any | None:
    """The language model known by formula inside wrappers such as DDP, FSDP2 and torch.compile, or None."""
    names = formulas.classes()
    for module in model.modules():
        if names & {base.__name__ for base in type(module).__mro__}:
            return module
    return None
