"""Learning rates that fall from the top layer down, for fine-tuning."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedModel, XLNetModel

from shoestring.methods.permutation.backbone import TwoStream


def parameter_groups(
    model: PreTrainedModel, learning_rate: float, decay: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimizer: `torch.optim.AdamW(parameter_groups(model, 3e-5, 0.75))`.

    Of L layers, layer l learns at learning_rate * decay ** (L - 1 - l), the top one and the head at learning_rate, and
    the embeddings and the query stream's vector as the lowest layer. Matrices decay by weight_decay; vectors, which are
    biases and norms, do not. Each group has a name, `layer 3` or `head`, and its own `lr`, which a schedule multiplies.
    A weight that the head shares is trained once, as the body's. Raises ValueError where a number is out of range,
    nothing is to be trained, or the model is no XLNet.

    Yang et al. 2019 (XLNet), appendix, at table 8. The official code (model_utils.py) multiplies gradients, not rates,
    which Adam divides out again but for its epsilon, and leaves the embeddings as they are.
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay {decay} a layer: expected above 0 and at most 1")
    if not learning_rate > 0 or not weight_decay >= 0:
        raise ValueError(f"learning_rate {learning_rate}, weight_decay {weight_decay}: expected above 0, and 0 or more")
    body = getattr(model, model.base_model_prefix, model)
    if not isinstance(body, TwoStream | XLNetModel):
        raise ValueError(f"a {type(model).__name__}: expected an XLNet, such as with_head gives")
    depths = _depths(body)
    top = len(body.layer) - 1
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            depth = depths.get(parameter)
            name, decays = "head" if depth is None else f"layer {depth}", parameter.ndim >= 2
            rate = learning_rate * decay ** (top - (top if depth is None else depth))
            empty = {"name": name, "params": [], "lr": rate, "weight_decay": weight_decay if decays else 0.0}
            groups.setdefault((name, decays), empty)["params"].append(parameter)
    if not groups:
        raise ValueError("the model has no trainable parameter: every requires_grad is False")
    return list(groups.values())


def _depths(body: TwoStream | XLNetModel) -> dict[nn.Parameter, int]:
    """The layer of each parameter of a body; what stands below the layers goes with the lowest."""
    inside = {parameter: place for place, layer in enumerate(body.layer) for parameter in layer.parameters()}
    return {parameter: inside.get(parameter, 0) for parameter in body.parameters()}
