"""The house: floors and walls, the shape of a room, and the habits that a machine can see.

Limits on length are alarms, above the lengths that are aimed at (200 lines a file, 40 a function).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from shoestring import rooms

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "shoestring"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [room.folder for room in rooms.every()]
FILE_LINES, FUNCTION_LINES, DOOR_LINES = 300, 60, 15

FLOORS = {
    "__init__": 0,
    "types": 0,
    "config": 0,
    "runtime": 0,
    "files": 0,
    "processes": 0,
    "cost": 0,
    "data": 1,
    "models": 1,
    "train": 2,
    "evaluate": 3,
    "methods": 4,
    "road": 5,
    "__main__": 6,
    "rooms": 6,
}
# on one floor, a part imports no other, save these
BESIDE = {
    ("__main__", "rooms"): "the door asks for the rooms it opens",
    ("cost", "types"): "flops.py names the batch it counts, for the type checker",
}
# what of a room knows the engine: the experiment and the tools. The algorithm is to be lifted out as it is
ENGINE = {"train", "evaluate", "cost", "config", "runtime", "rooms", "__main__", "road"}
KNOWS_ENGINE = re.compile(r"(recipe|tools)(_\w+)?\.py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in a file, also inside functions and for the type checker alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[tuple[str, ...]]:
    """What a file imports of shoestring: ("train", "loop", "train") for `from shoestring.train.loop import train`."""
    found = (name.split(".") for name in imports(ast.parse(path.read_text(encoding="utf-8"))))
    return {tuple(parts[1:]) for parts in found if parts[0] == "shoestring" and len(parts) > 1}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in FILES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


# floors and walls


def test_the_reading_of_imports(tmp_path: Path) -> None:
    """Without this, all the tests below could pass by seeing nothing."""
    file = tmp_path / "a.py"
    file.write_text(
        "import torch\nimport shoestring.train.loop\n"
        "from shoestring import cost\nfrom shoestring.data import tokens as t\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from shoestring.models.presets import build\n"
        "def f():\n    def g():\n        import shoestring.evaluate\n"
    )
    found = {".".join(parts) for parts in ours(file)}
    assert found == {"train.loop", "cost", "data.tokens", "models.presets.build", "evaluate"}


def test_every_part_has_a_floor() -> None:
    assert {part(path) for path in FILES} <= set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_down(path: Path) -> None:
    here = part(path)
    for found in ours(path):
        there = found[0]
        if there == here or there == "__version__":
            continue
        assert there in FLOORS, f"{there} is no part of the house"
        allowed = FLOORS[there] < FLOORS[here] or (here, there) in BESIDE
        assert allowed, f"{name_of(path)} (floor {FLOORS[here]}) imports {'.'.join(found)} (floor {FLOORS[there]})"


def test_what_is_allowed_beside_is_still_needed() -> None:
    seen = {(part(path), found[0]) for path in FILES for found in ours(path)}
    assert set(BESIDE) <= seen


@pytest.mark.parametrize("path", [path for path in FILES if part(path) == "methods"], ids=name_of)
def test_rooms_never_import_each_other(path: Path) -> None:
    parts = path.relative_to(PACKAGE / "methods").parts
    for found in ours(path):
        if found[0] == "methods" and len(parts) > 1:
            assert found[1] == parts[0], f"{name_of(path)} imports {'.'.join(found)}"


@pytest.mark.parametrize("path", [path for room in ROOMS for path in sorted(room.rglob("*.py"))], ids=name_of)
def test_only_the_experiment_and_the_tools_know_the_engine(path: Path) -> None:
    engine = {".".join(found) for found in ours(path) if found[0] in ENGINE}
    assert not engine or KNOWS_ENGINE.fullmatch(path.name), f"{name_of(path)} imports {sorted(engine)}"


@pytest.mark.parametrize("path", [path for room in ROOMS for path in sorted(room.rglob("*.py"))], ids=name_of)
def test_the_algorithm_does_not_import_the_experiment(path: Path) -> None:
    """Else the engine came in by the back door."""
    if KNOWS_ENGINE.fullmatch(path.name):
        return
    inside = {found[2] for found in ours(path) if found[0] == "methods" and len(found) > 2}
    assert not {name for name in inside if KNOWS_ENGINE.fullmatch(f"{name}.py")}


# the shape of a room


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_has_its_shape(room: Path) -> None:
    for name in ("README.md", "__init__.py", "recipe.py", "tools.py"):
        assert (room / name).is_file(), name
    assert len((room / "__init__.py").read_text(encoding="utf-8").splitlines()) <= DOOR_LINES
    assert {"smoke", "cpu", "paper"} <= {path.stem for path in (room / "recipes").glob("*.yaml")}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_card_has_its_front_matter_and_chapters(room: Path) -> None:
    text = (room / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front.keys() >= {"name", "paper", "sentence", "state"}
    assert front["name"] == room.name
    chapters = [
        "In one sentence",
        "Use it when, not when",
        "Alone",
        "In a run",
        "On your own files",
        "What it costs and saves",
        "How it works",
        "Where it differs from the paper",
        "Source",
    ]
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == chapters


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_rooms_public_names_are_said(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in tree.body)


def test_every_folder_in_methods_is_a_room() -> None:
    found = {path.name for path in (PACKAGE / "methods").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found == {room.name for room in ROOMS}


# names and lengths


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_names(path: Path) -> None:
    for folder in path.relative_to(PACKAGE).parts:
        assert not re.fullmatch(r"(utils?|common|helpers?|misc)(\.py)?", folder)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            assert not re.search(r"(Manager|Helper|Handler|Base)$", node.name), f"{name_of(path)}: class {node.name}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_lengths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{name_of(path)}: {node.name} has {lines} lines"


# habits


def faults(tree: ast.AST) -> Iterator[str]:
    """What the house forbids, as far as it can be seen."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else ""
            # what it does not know, or only cleans up after, goes on its way
            passes_on = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            if caught == "" or (caught in ("Exception", "BaseException") and not passes_on):
                yield f"except {caught}"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in ("hasattr", "eval", "exec", "__import__", "os.system", "os.popen"):
                yield name
            if re.fullmatch(r"(pickle|cPickle|dill|marshal|joblib)\.loads?", name) or name.endswith("Unpickler"):
                yield name
            if name == "yaml.load" and given.get("Loader") != "_Loader":
                yield "yaml.load without the safe loader"
            if (
                name.startswith("yaml.")
                and re.search("unsafe|full_load|load_all$", name)
                and "safe_load_all" not in name
            ):
                yield name
            if name == "torch.load" and given.get("weights_only") != "True":
                yield "torch.load without weights_only=True"
            if given.get("trust_remote_code", "False") != "False":
                yield "trust_remote_code"
            if given.get("shell", "False") != "False":
                yield "shell"
            if given.get("allow_pickle", "False") != "False":
                yield "allow_pickle"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("hasattr(a, 'b')", "hasattr"),
        ("try:\n    pass\nexcept:\n    pass", "except "),
        ("try:\n    pass\nexcept Exception:\n    pass", "except Exception"),
        ("try:\n    pass\nexcept BaseException:\n    pass", "except BaseException"),
        ("eval('1')", "eval"),
        ("exec('1')", "exec"),
        ("pickle.load(f)", "pickle.load"),
        ("pickle.loads(f)", "pickle.loads"),
        ("yaml.load(f, Loader=yaml.Loader)", "yaml.load without the safe loader"),
        ("yaml.unsafe_load(f)", "yaml.unsafe_load"),
        ("torch.load(f, weights_only=False)", "torch.load without weights_only=True"),
        ("torch.load(f)", "torch.load without weights_only=True"),
        ("AutoModel.from_pretrained(f, trust_remote_code=True)", "trust_remote_code"),
        ("subprocess.run(f, shell=True)", "shell"),
        ("np.load(f, allow_pickle=True)", "allow_pickle"),
    ],
)
def test_faults_are_seen(source: str, fault: str) -> None:
    assert fault in list(faults(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    pass\nexcept BaseException:\n    stop()\n    raise",
        "yaml.load(f, Loader=_Loader)",
        "yaml.safe_load(f)",
        "torch.load(f, weights_only=True)",
        "AutoModel.from_pretrained(f, trust_remote_code=False)",
        "model.eval()",
    ],
)
def test_what_is_no_fault(source: str) -> None:
    assert list(faults(ast.parse(source))) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_habits(path: Path) -> None:
    assert list(faults(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_tests_mirror_the_sources() -> None:
    """Every test file of a part stands for a source file, or for a check across files that is named here."""
    across = {
        "test_architecture.py": "this page",
        "test_rooms.py": "the contract of all rooms",
        "test_rooms_index.py": "rooms.py, whose own name the contract has",
        "test_cards.py": "docs/cards.py",
        "test_benchmarks.py": "benchmarks/",
        "test_main.py": "__main__.py",
        "train/test_processes.py": "several processes against one",
        "train/test_kill.py": "killed and resumed against never stopped",
    }
    tests = Path(__file__).resolve().parent
    for file in sorted(tests.rglob("test_*.py")):
        name = file.relative_to(tests)
        source = PACKAGE / name.with_name(name.name.removeprefix("test_"))
        assert str(name) in across or source.exists(), f"{name} stands for no source file"


def test_the_types_are_shipped() -> None:
    assert (PACKAGE / "py.typed").is_file()
