"""Any task of EleutherAI's LM Evaluation Harness, the user's own task files included, on any saved model folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from shoestring.models.folders import one_line
from shoestring.models.pretrained import load


def harness(
    folder: str | Path,
    tasks: Sequence[str],
    include: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    device: str = "cpu",
    run_code: bool = False,
) -> dict[str, dict[str, float]]:
    """Scores by task and metric, as the harness computes them.

    folder      of a model, or its name, as `models.pretrained.load` takes it
    tasks       names of tasks or groups, or paths of task files (.yaml)
    include     a folder of task files, whose names `tasks` may then use
    limit       questions a task, the first ones; all where None
    run_code    let the user's own task files run Python (`!function`, metrics of `evaluate`): only files you trust
    Where every task is the user's own, nothing is asked of the network. A metric has its filter's name appended where
    the task has other filters than `none`. Raises ValueError where a task is unknown, or its files want to run code.
    """
    evaluator, manager_class, model_class = _library()
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    own = _own_files(names, include)
    if not run_code:
        for path, content in own.items():
            _refuse_code(path, content)
    model, tokenizer = load(folder)
    local = _all_local(names, own.values())
    with _offline(local), _sandboxed_templates(not run_code):
        # indexing the harness's own thousands of task files takes seconds
        manager = manager_class(include_path=None if include is None else str(include), include_defaults=not local)
        for name in names:
            if not _is_file(name) and not manager.match_tasks([name]):
                raise ValueError(f"the harness knows no task {name!r}: name one of its own, a .yaml file, or `include`")
        wrapped = model_class(pretrained=model.to(device), tokenizer=tokenizer, batch_size=batch_size, device=device)
        found = _evaluated(evaluator, manager, wrapped, names, limit)
    return {task: _scores(metrics) for task, metrics in found.items()}


def _evaluated(
    evaluator: Any, manager: Any, model: Any, names: list[str], limit: int | None
) -> dict[str, dict[str, Any]]:
    """The harness's own results, by task, with its defaults but without its seeding of the global generators."""
    import datasets.exceptions
    import jinja2

    foreign = (OSError, KeyError, ValueError, jinja2.TemplateError, datasets.exceptions.DatasetsError)
    try:
        loaded = manager.load(names)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        found = evaluator.evaluate(model, loaded, limit=limit, bootstrap_iters=0, log_samples=False)
    except foreign as error:
        said = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"the tasks {', '.join(names)} cannot be run: {said}") from error
    results: dict[str, dict[str, Any]] = found["results"]
    return results


_FEWSHOT_SEED = 1234  # the harness's own default, so that figures compare
_FILE_FORMATS = ("json", "csv", "parquet", "arrow", "text")  # what `datasets` reads from files without the Hub


def _library() -> tuple[Any, Any, Any]:
    try:
        from lm_eval import evaluator
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ValueError(
            f"the LM Evaluation Harness cannot be imported ({error}): pip install 'shoestring[harness]'"
        ) from error
    return evaluator, TaskManager, HFLM


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    found = {}
    for key, value in metrics.items():
        metric, _, chosen = key.partition(",")
        if isinstance(value, int | float) and chosen and not metric.endswith("_stderr"):
            found[metric if chosen == "none" else key] = float(value)
    return found


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _own_files(names: Sequence[str], include: str | Path | None) -> dict[Path, Any]:
    """Every task file of the user's that may be read, with those they include, and what it says."""
    waiting = [Path(name) for name in names if _is_file(name)]
    if include is not None:
        if not Path(include).is_dir():
            raise ValueError(f"{include}: there is no such folder of task files")
        waiting += sorted(path for path in Path(include).rglob("*") if _is_file(path.name))
    found: dict[Path, Any] = {}
    while waiting:
        path = waiting.pop().resolve()
        if path not in found:
            found[path] = _read(path)
            waiting += [path.parent / other for other in _included(found[path])]
    return found


class _Loader(yaml.SafeLoader):
    """Plain values; what the harness would make a function of becomes a `_Function`."""


class _Function(str):
    pass


_Loader.add_constructor("!function", lambda loader, node: _Function(node.value))


def _read(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=_Loader)  # a SafeLoader with one more tag, read as text
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"task file {path} cannot be read: {one_line(error)}") from error


def _included(content: Any) -> list[str]:
    found = content.get("include", []) if isinstance(content, dict) else []
    return [found] if isinstance(found, str) else [str(other) for other in found]


def _refuse_code(path: Path, content: Any) -> None:
    """Raise ValueError where a task file would run Python, or fetch a metric that is Python."""
    from lm_eval.api.registry import metric_registry

    for value in _values(content):
        if isinstance(value, _Function):
            raise ValueError(f"task file {path} would run {value}: if you trust it, pass run_code=True")
        if isinstance(value, dict):
            metric = value.get("metric")
            if value.get("hf_evaluate") or (isinstance(metric, str) and metric not in metric_registry):
                raise ValueError(f"task file {path} wants the metric {metric!r}, which is code: pass run_code=True")


def _values(content: Any) -> Iterator[Any]:
    yield content
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    for value in inner:
        yield from _values(value)


def _all_local(names: Sequence[str], own: Iterable[Any]) -> bool:
    """Whether every task asked for is defined in the user's own files, and all their data lies on this machine."""
    files = [content for content in own if isinstance(content, dict)]
    groups = [content for content in files if isinstance(content.get("task"), list)]
    members = [member for group in groups for member in _texts(group["task"])]
    defined = {content["task"] for content in files if isinstance(content.get("task"), str)}
    defined |= {name for content in files for key in ("group", "tag") for name in _texts(content.get(key))}
    sources = [str(content["dataset_path"]) for content in files if "dataset_path" in content]
    on_disk = all(source in _FILE_FORMATS or Path(source).exists() for source in sources)
    return on_disk and all(_is_file(name) or name in defined for name in [*names, *members])


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [item for item in value or () if isinstance(item, str)]


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keep the libraries from asking the Hub: without a network each question would wait for its retries."""
    if not wanted:
        yield
        return
    import datasets.config
    import huggingface_hub.constants

    modules: tuple[Any, ...] = (huggingface_hub.constants, datasets.config)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


@contextmanager
def _sandboxed_templates(wanted: bool) -> Iterator[None]:
    """A task file's Jinja templates can reach any Python object unless rendered in a sandbox."""
    if not wanted:
        yield
        return
    import jinja2
    import lm_eval.utils as library
    from jinja2.sandbox import SandboxedEnvironment

    before = library.env
    library.env = SandboxedEnvironment(
        loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    library.env.filters.update(before.filters)
    try:
        yield
    finally:
        library.env = before
