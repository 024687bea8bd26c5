"""Surgery: put modules in the place of others, by name. No model is subclassed for a method."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable

from torch import nn

Match = str | Callable[[str, nn.Module], bool]


def replace(model: nn.Module, match: Match, build: Callable[[str, nn.Module], nn.Module]) -> list[str]:
    """Replace each module that matches by what `build` makes of it; returns the names replaced, in the model's order.

    match   a pattern for the dotted name (`*.attention.dense`; `*` also spans dots), or a test of name and module
    build   makes the new module from the name and the old one, which it may keep inside; called once a module
    A module shared under several names is replaced under all of them and stays shared. What lies inside a replaced
    module is left to `build`. The model itself is never replaced. Raises ValueError if none matched.
    """
    matches = _by_pattern(match) if isinstance(match, str) else match
    places = [(name, module) for name, module in model.named_modules(remove_duplicate=False) if module is not model]
    chosen: dict[nn.Module, str] = {}
    for name, module in places:
        if module not in chosen and not _inside(name, chosen.values()) and matches(name, module):
            chosen[module] = name
    if not chosen:
        wanted = f"the pattern {match!r}" if isinstance(match, str) else "the test"
        examples = ", ".join(name for name, _ in places[:3])
        raise ValueError(f"{wanted} matches no module of {type(model).__name__}: its names are such as {examples}")
    made = {module: _made(build, name, module) for module, name in chosen.items()}
    replaced: list[str] = []
    for name, module in places:
        if module in made and not _inside(name, replaced):
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, made[module])
            replaced.append(name)
    return replaced


def _by_pattern(pattern: str) -> Callable[[str, nn.Module], bool]:
    return lambda name, module: fnmatch.fnmatchcase(name, pattern)


def _inside(name: str, outer: Iterable[str]) -> bool:
    return any(name.startswith(f"{other}.") for other in outer)


def _made(build: Callable[[str, nn.Module], nn.Module], name: str, module: nn.Module) -> nn.Module:
    """What `build` made, in the old module's mode: one built in training mode would drop out during evaluation."""
    new = build(name, module)
    if not isinstance(new, nn.Module):
        raise ValueError(f"build returned {type(new).__name__} for {name}: expected a module")
    return new.train(module.training)
