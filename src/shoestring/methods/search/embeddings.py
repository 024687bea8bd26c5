"""Where the tokens of a language model become vectors, and which of its parameters only look them up."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from shoestring.methods.search.inputs import Inputs


@runtime_checkable
class _Embedded(Protocol):
    """What Hugging Face models say of themselves."""

    def get_input_embeddings(self) -> nn.Module: ...

    def get_output_embeddings(self) -> nn.Module | None: ...


def of_tokens(model: nn.Module) -> nn.Module:
    """The module that embeds the tokens: what the model says it is, else its first `nn.Embedding`.

    Raises ValueError on a model that has none.
    """
    named = model.get_input_embeddings() if isinstance(model, _Embedded) else None
    if isinstance(named, nn.Embedding):
        return named
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            return module
    raise ValueError(
        f"{type(model).__name__} has no embeddings of tokens: expected a language model with get_input_embeddings() "
        "or an nn.Embedding"
    )


def tables(model: nn.Module) -> list[nn.Module]:
    """The modules that turn tokens and places into vectors, and vectors into tokens.

    The embedding of the tokens, every other `nn.Embedding` (places, segments), and the head, where the model's
    `get_output_embeddings` names it; a head that is not named is part of the rest, unless it is tied.
    Raises ValueError on a model that embeds no tokens.
    """
    head = model.get_output_embeddings() if isinstance(model, _Embedded) else None
    others = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return [of_tokens(model), *others, *([] if head is None else [head])]


def are_tokens(inputs: Inputs) -> bool:
    """Whether a batch is looked up in a table: a tensor of whole numbers, or a dict with `input_ids`."""
    return "input_ids" in inputs if isinstance(inputs, dict) else not inputs.is_floating_point()


def real(inputs: Inputs) -> Tensor | None:
    """Which tokens of a batch of text are no padding (N, T), as floats; None where it does not say."""
    return inputs["attention_mask"].float() if isinstance(inputs, dict) and "attention_mask" in inputs else None
