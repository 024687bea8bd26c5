"""For all tests: no network, an accelerator only where one is named, one thread, a cache and a runtime of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from shoestring.data.tokens import Tokens
    from shoestring.types import Run

with warnings.catch_warnings():
    # typer 0.20 takes names from click 8.5 that click deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    import typer  # noqa: F401

settings.register_profile("busy", deadline=None)  # on a busy machine an example's time tells nothing
settings.load_profile("busy")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # tests compare tensors of the CPU
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SHOESTRING_TRACEBACK"):
    os.environ.pop(name, None)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    """`shoestring …` in this process: command(words…, columns=200) returns code, out and err."""
    from shoestring import __main__ as door

    def called(*words: Any, columns: int = 200) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["shoestring", *map(str, words)])
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()  # what was shown before
        code = 0
        try:
            door.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return SimpleNamespace(code=code, **capsys.readouterr()._asdict())

    return called


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all tests of this call, those in other workers of pytest-xdist too."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def cache(shared: Path) -> Iterator[Path]:
    """What is packed once is found again by the tests after it, and nothing goes to the user's own cache."""
    folder = shared / "cache"
    before = os.environ.get("SHOESTRING_CACHE")
    os.environ["SHOESTRING_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SHOESTRING_CACHE"]
    else:
        os.environ["SHOESTRING_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_runtime() -> Iterator[None]:
    yield
    runtime = sys.modules.get("shoestring.runtime")
    if runtime is not None:
        runtime._current = None  # type: ignore[attr-defined]


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script's text in a process of its own: python(text, *arguments, processes=1)."""

    def start(text: str, *arguments: Any, processes: int = 1) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(text, encoding="utf-8")
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [*launcher, str(script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)

    return start


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    """Some 12 000 tokens of made-up text, packed as bytes: 256 bytes and the end of text."""
    from shoestring.data import tokenizers
    from shoestring.data.splits import Document
    from shoestring.data.tokens import Tokens, pack

    folder = tmp_path_factory.getbasetemp() / "corpus"
    if not folder.exists():
        texts = [" ".join(f"{(start * step) % 97} of {step}" for step in range(60)) for start in range(1, 21)]
        documents = [Document(text, "numbers", str(place)) for place, text in enumerate(texts)]
        return pack(documents, tokenizers.resolve("bytes", ()), folder)
    return Tokens.load(folder)


@pytest.fixture
def tiny(corpus: Tokens) -> Callable[..., Run]:
    """A small run at its start: tiny(rows=4, seed=0, rate=1e-3, **changes of the configuration)."""
    from shoestring.data.batches import TokenBatches
    from shoestring.models import presets
    from shoestring.train import optim
    from shoestring.types import Run

    def build(rows: int = 4, seed: int = 0, rate: float = 1e-3, preset: str = "neox-tiny", **changes: Any) -> Run:
        model = presets.build(presets.configuration(preset, 257, 16, **changes), seed)
        return Run(model, optim.adamw(model, rate), TokenBatches(corpus, rows, 16, seed))

    return build
