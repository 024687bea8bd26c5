"""One network of the user's own, scored: what builds it, what it is shown, and every proxy's say on it."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from shoestring import runtime
from shoestring.data import tokenizers
from shoestring.data.batches import TokenBatches
from shoestring.data.tokens import packed
from shoestring.methods.search.images import images, labelled
from shoestring.methods.search.inputs import Inputs, checked, device_of, moved
from shoestring.methods.search.proxies import PROXIES
from shoestring.methods.search.score import Score
from shoestring.methods.search.untouched import passed, untouched
from shoestring.models import presets

NASWOT = "naswot"
SINGULAR = "-inf: too few units to tell the samples apart, or a network that is cut off from its inputs"


@dataclass(frozen=True)
class Said:
    """What a proxy says of a network, in how many seconds; why it says nothing where it refuses."""

    proxy: str
    score: Score | None
    seconds: float
    refused: str = ""


def said(model: nn.Module, inputs: Inputs) -> list[Said]:
    """Every proxy's score.

    Raises ValueError where the batch cannot be compared or does not fit the network, or NASWOT refuses the network.
    """
    checked(inputs)
    fitting(model, inputs)
    found = []
    for name, proxy in PROXIES.items():
        since = time.perf_counter()
        try:
            value = proxy(model, inputs)
        except ValueError as error:
            if name == NASWOT:
                raise
            found.append(Said(name, None, 0.0, str(error)))
        else:
            found.append(Said(name, value, time.perf_counter() - since))
    return found


def fitting(model: nn.Module, inputs: Inputs) -> None:
    """Raises ValueError, with the shapes, where the network cannot take the batch."""
    try:
        with torch.no_grad(), untouched(model):
            passed(model, moved(inputs, device_of(model)))
    except (RuntimeError, IndexError, TypeError, KeyError, AttributeError, AssertionError) as error:
        given = {"": inputs} if isinstance(inputs, Tensor) else inputs
        shapes = ", ".join(f"{name} {'x'.join(map(str, value.shape))}".strip() for name, value in given.items())
        said = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{type(model).__name__} cannot take a batch of {shapes}: {said}") from error


def network(named: str, seed: int = 0) -> nn.Module:
    """The untrained network that `module:function` of the current folder returns, or of a folder with a config.json."""
    if (Path(named) / "config.json").is_file():
        config = AutoConfig.from_pretrained(named, local_files_only=True)
        return _placed(presets.build(config, seed))
    module, colon, function = named.partition(":")
    if not colon or not module or not function:
        raise ValueError(
            f"{named!r}: expected module:function, which returns a network, or a folder with a config.json"
        )
    build = _found(module, function)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = build()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{named} returned {type(model).__name__}: expected a torch.nn.Module")
    return _placed(model)


def _placed(model: nn.Module) -> nn.Module:
    return model.to(runtime.current().device)


def _found(module: str, function: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"{module}:{function}: no module {error.name} in {here} or installed") from None
    build = getattr(loaded, function, None)
    if isinstance(build, nn.Module):
        raise ValueError(f"{module}:{function} is a network: expected a function that returns a new one each time")
    if not callable(build):
        raise ValueError(f"{module}:{function}: {loaded.__file__} has no function {function!r}")
    needed = [
        name
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(
            f"{module}:{function} needs {', '.join(needed)}: expected a function that is called with nothing"
        )
    return build


def shape(text: str) -> tuple[int, ...]:
    """128x3x32x32 as numbers. Raises ValueError on all else."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise ValueError(f"--batch {text!r}: expected sizes with x between, such as 128x3x32x32")
    return tuple(map(int, text.split("x")))


def noise(sizes: tuple[int, ...], vocabulary: int | None, seed: int) -> Inputs:
    """Gaussian noise of a shape; with a vocabulary, random tokens (texts, length), given as `input_ids`."""
    generator = torch.Generator().manual_seed(seed)
    if vocabulary is None:
        try:
            return torch.randn(sizes, generator=generator)
        except RuntimeError as error:
            raise ValueError(f"--batch {'x'.join(map(str, sizes))}: memory does not hold it") from error
    if len(sizes) != 2:
        raise ValueError(f"--batch {'x'.join(map(str, sizes))}: tokens take two sizes, texts and length, such as 8x128")
    return {"input_ids": torch.randint(vocabulary, sizes, generator=generator)}


def pictures(model: nn.Module, source: Path, sizes: tuple[int, ...], seed: int) -> Inputs:
    """So many images of that size; where they have labels, with these, under the name of the network's argument."""
    if len(sizes) != 4 or sizes[1] != 3 or sizes[2] != sizes[3]:
        raise ValueError(f"--batch {'x'.join(map(str, sizes))}: images take Nx3xSxS, such as 128x3x32x32")
    try:
        drawn, labels = labelled(source, sizes[0], sizes[2], seed)
    except ValueError:
        return images(source, sizes[0], sizes[2], seed)
    return {next(iter(inspect.signature(model.forward).parameters)): drawn, "labels": labels}


def text(folder: str, source: str, sizes: tuple[int, ...], seed: int) -> Inputs:
    """Windows of a text, packed with the tokenizer of a model's folder."""
    if len(sizes) != 2:
        raise ValueError(f"--batch {'x'.join(map(str, sizes))}: text takes two sizes, texts and length, such as 8x128")
    if not Path(folder).is_dir():
        raise ValueError(f"--data {source}: text is packed with a model's tokenizer: give a folder as the model")
    tokens = packed(source, "train", tokenizers.load(folder))
    return next(iter(TokenBatches(tokens, sizes[0], sizes[1], seed)))
