"""Recipes: YAML and `key=value` into a frozen model, strictly."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml.constructor import ConstructorError


class Recipe(BaseModel):
    """What a room's schema derives from: frozen, and no key it does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


R = TypeVar("R", bound=Recipe)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but `1e-3` is a number and a key given twice is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"expected a name before ':', got {key!r}", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would take for a number, and spells the line break that it takes for another one."""

    def text(self, value: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\x85" in value else None)


_Dumper.add_representer(str, _Dumper.text)

for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def load(path: Path, schema: type[R], overrides: Sequence[str] = ()) -> R:
    """Read a recipe and lay `key=value` overrides (dots reach inside) over it.

    Raises ValueError naming the file, the key, what was expected, and the nearest name where the key is unknown.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected keys and values, got {_kind(data)}")
    for override in overrides:
        _override(data, override)
    return check(data, schema, str(path))


def check(data: Mapping[str, Any], schema: type[R], where: str) -> R:
    """Build a recipe from plain values; errors speak of `where`."""
    try:
        text = json.dumps(data, default=_refuse)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from None
    try:
        # JSON mode is strict about types ("3" is not 3, true is not 1) yet reads a list as a tuple
        return schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(f"{where}: " + "; ".join(_sentences(error, schema))) from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every field spelled out."""
    return yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> Any:
    """Read a YAML file with the safe loader. Raises ValueError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{path}: not a YAML text file ({error})") from None
    return _parse(text, str(path))


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no name is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{where}{line}: {error.problem or 'not YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from None


def _refuse(value: Any) -> Any:
    kind = type(value).__name__
    raise TypeError(f"{value} is a {kind}: expected numbers, text, lists and mappings; quote it if it is text")


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"{override!r}: expected key=value, such as steps=200")
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.get(parent, {})
        if not isinstance(inner, dict):
            raise ValueError(f"{override!r}: {parent} is {_kind(inner)} and has no keys")
        data[parent] = dict(inner)  # a YAML alias may stand for the same mapping elsewhere
        data = data[parent]
    data[last] = _parse(text, repr(override))


def _sentences(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    sentences = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "(the whole)"
        if problem["type"] == "extra_forbidden":
            fields = _fields_at(schema, problem["loc"][:-1])
            hint = nearest(str(problem["loc"][-1]), fields) or f"; expected one of {', '.join(fields)}"
            sentences.append(f"unknown key {key!r}{hint}")
        elif problem["type"] == "missing":
            sentences.append(f"the key {key!r} is missing")
        elif isinstance(problem["input"], dict):  # of several keys together: the sentence names them
            sentences.append((f"{key}: " if problem["loc"] else "") + _plain(problem["msg"]))
        else:
            sentences.append(f"{key}: {_plain(problem['msg'])}, got {_shown(problem['input'])}")
    return sentences


def _fields_at(schema: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        field = schema.model_fields.get(str(part))
        schema = _model_in(field.annotation if field else None) or schema
    return list(schema.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None` and `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner))), None)


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return message if message.startswith("expected") else f"expected {message}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}.get(type(value), repr(value))
