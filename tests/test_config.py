"""Recipes: what is read, and what is refused by file, key and nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from shoestring import config


class Text(config.Recipe):
    length: int = 128
    source: str = "python"


class Plan(config.Recipe):
    steps: int
    rate: Annotated[float, Field(gt=0)] = 1e-3
    free: float = 0.0
    shape: Literal["linear", "cosine"] = "linear"
    seeds: tuple[int, ...] = (0,)
    text: Text = Text()
    spike: Text | None = None
    parts: tuple[Text, ...] = ()
    name: str = ""
    even: bool = True

    @model_validator(mode="after")
    def _enough(self) -> Plan:
        if self.steps == 13:
            raise ValueError("expected any steps but 13")
        return self


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def written(text: str) -> Path:
        Path("plan.yaml").write_text(text, encoding="utf-8")
        return Path("plan.yaml")

    return written


# by hand


def test_values_defaults_and_nested_keys(write: Any) -> None:
    path = write("steps: 20\nseeds: [1, 2]\ntext: {length: 64}\nparts: [{length: 1}]\n")
    found = config.load(path, Plan)
    assert found == Plan(steps=20, seeds=(1, 2), text=Text(length=64), parts=(Text(length=1),))
    assert found.seeds == (1, 2)
    assert found.text.source == "python"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("+.5e1", 5.0), ("2.e3", 2e3), ("6.0e-3", 6e-3), ("3", 3.0), ("1_0e1", 100.0)],
)
def test_numbers_with_an_exponent_are_numbers(write: Any, text: str, expected: float) -> None:
    assert config.load(write(f"steps: 1\nrate: {text}"), Plan).rate == expected


def test_overrides_reach_inside_and_the_last_one_holds(write: Any) -> None:
    overrides = ["steps=30", "text.length=7", "seeds=[3,4]", "name=a=b", "spike.source=x", "rate=2e-4", "steps=31"]
    found = config.load(write("steps: 20\ntext: {source: here}"), Plan, overrides)
    assert (found.steps, found.seeds, found.name, found.rate) == (31, (3, 4), "a=b", 2e-4)
    assert found.text == Text(length=7, source="here")
    assert found.spike == Text(source="x")


def test_an_override_changes_no_other_use_of_an_alias(write: Any) -> None:
    found = config.load(write("steps: 2\ntext: &same {length: 1}\nspike: *same"), Plan, ["text.length=5"])
    assert found.text.length == 5
    assert found.spike == Text(length=1)


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Plan(steps=1).steps = 2  # type: ignore[misc]


def test_nearest_names_one_or_nothing() -> None:
    assert config.nearest("stepz", ["steps", "seeds"]) == "; did you mean 'steps'?"
    assert config.nearest("qqq", ["steps", "seeds"]) == ""


# property

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WHOLE = st.integers(-(10**20), 10**20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.builds(
    Text, length=WHOLE, source=PLAIN | st.sampled_from(["1e5", "+2e-3", "null", "yes", "2024-01-01", "~"])
)


@example(Plan(steps=0, name="the next line\x85of old machines"))
@given(
    st.builds(
        Plan,
        steps=WHOLE.filter(lambda steps: steps != 13),
        rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        free=NUMBER,
        seeds=st.lists(WHOLE, max_size=3).map(tuple),
        text=TEXTS,
        spike=st.none() | TEXTS,
        parts=st.lists(TEXTS, max_size=2).map(tuple),
        name=PLAIN,
        even=st.booleans(),
    )
)
def test_what_is_dumped_is_loaded_again(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(config.dump(plan), encoding="utf-8")
    assert config.load(path, Plan) == plan


# misuse

REFUSED = {
    "unknown key": ("steps: 1\nstepz: 3", "plan.yaml: unknown key 'stepz'; did you mean 'steps'?"),
    "key like none": ("steps: 1\nqqqq: 3", "plan.yaml: unknown key 'qqqq'; expected one of steps, rate, free, "),
    "nested key": ("steps: 1\ntext: {lenght: 3}", "plan.yaml: unknown key 'text.lenght'; did you mean 'length'?"),
    "optional key": ("steps: 1\nspike: {sourze: 3}", "unknown key 'spike.sourze'; did you mean 'source'?"),
    "key in a list": ("steps: 1\nparts: [{lenght: 3}]", "unknown key 'parts.0.lenght'; did you mean 'length'?"),
    "missing key": ("rate: 1", "plan.yaml: the key 'steps' is missing"),
    "word for int": ("steps: three", "plan.yaml: steps: expected a valid integer, got 'three'"),
    "text for int": ('steps: "3"', "plan.yaml: steps: expected a valid integer, got '3'"),
    "bool for int": ("steps: true", "plan.yaml: steps: expected a valid integer, got True"),
    "float for int": ("steps: 3.0", "plan.yaml: steps: expected a valid integer, got 3.0"),
    "int for bool": ("steps: 3\neven: 1", "plan.yaml: even: expected a valid boolean, got 1"),
    "int for text": ("steps: 3\nname: 1", "plan.yaml: name: expected a valid string, got 1"),
    "nothing for int": ("steps:", "plan.yaml: steps: expected a valid integer, got None"),
    "scalar for list": ("steps: 3\nseeds: 4", "plan.yaml: seeds: expected a valid array, got 4"),
    "member of a list": ("steps: 3\nseeds: [0, x]", "plan.yaml: seeds.1: expected a valid integer, got 'x'"),
    "other choice": ("steps: 3\nshape: round", "plan.yaml: shape: expected 'linear' or 'cosine', got 'round'"),
    "out of range": ("steps: 3\nrate: 0", "plan.yaml: rate: expected greater than 0, got 0"),
    "own rule": ("steps: 13", "expected any steps but 13"),
    "two faults": ("stepz: 1\nrate: x", "the key 'steps' is missing; rate: expected a valid number, got 'x'; unknown"),
    "infinite": ("steps: 3\nfree: .inf", "plan.yaml: free: expected a finite number, got inf"),
    "not a number": ("steps: 3\nfree: .nan", "plan.yaml: free: expected a finite number, got nan"),
    "too large": ("steps: 3\nfree: 5e400", "plan.yaml: free: expected a finite number, got inf"),
    "too long": ("steps: " + "9" * 5000, "plan.yaml: Exceeds the limit"),
    "date": ("steps: 3\nname: 2024-01-31", "plan.yaml: 2024-01-31 is a date: expected numbers, text, lists and "),
    "no date": ("steps: 3\nname: 2024-13-45", "plan.yaml: month must be in 1..12"),
    "bytes": ("steps: 3\nname: !!binary aGk=", "plan.yaml: b'hi' is a bytes: expected"),
    "key of a number": ("steps: 3\n1: 3", "plan.yaml, line 2: expected a name before ':', got 1"),
    "key of a list": ("steps: 3\n? [1]\n: 3", "plan.yaml, line 2: expected a name before ':', got [1]"),
    "key twice": ("steps: 3\nrate: 1\nsteps: 4", "plan.yaml, line 3: the key 'steps' is given twice"),
    "nested twice": ("steps: 3\ntext:\n  length: 1\n  length: 1", "plan.yaml, line 4: the key 'length' is given twice"),
    "not YAML": ("steps: 3\ntext: {length: 1", "plan.yaml, line 2: expected ',' or '}'"),
    "control sign": ("steps: 3\0", "plan.yaml: unacceptable character"),
    "too deep": ("steps: " + "[" * 2000, "plan.yaml: maximum recursion depth"),
    "in a circle": ("steps: &a [*a]", "plan.yaml: Circular reference"),
    "two documents": ("steps: 3\n---\nsteps: 4", "plan.yaml, line 2: but found another document"),
    "code": ("steps: !!python/object/apply:os.getpid []", "plan.yaml, line 1: could not determine a constructor"),
    "empty": ("", "plan.yaml: expected keys and values, got nothing"),
    "a list": ("- steps", "plan.yaml: expected keys and values, got a list"),
    "a word": ("steps", "plan.yaml: expected keys and values, got text"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(write: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.load(write(text), Plan)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "'steps': expected key=value, such as steps=200"),
        ("=3", "'=3': expected key=value"),
        ("steps.x=3", "'steps.x=3': steps is 1 and has no keys"),
        ("text.source.x=3", "'text.source.x=3': source is text and has no keys"),
        ("text=3", "text: expected"),
        ("stepz=3", "unknown key 'stepz'; did you mean 'steps'?"),
        ("text.lenght=3", "unknown key 'text.lenght'; did you mean 'length'?"),
        ("steps=3.5", "steps: expected a valid integer, got 3.5"),
        ("steps=", "steps: expected a valid integer, got None"),
        ("seeds=[1", "'seeds=[1', line 1: expected ',' or ']'"),
        ("text={length: 3, length: 4}", "line 1: the key 'length' is given twice"),
        ("rate=nan", "rate: expected a valid number, got 'nan'"),
        ("free=.inf", "free: expected a finite number, got inf"),
    ],
)
def test_refused_overrides(write: Any, override: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        config.load(write("steps: 1\ntext: {source: here}"), Plan, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"absent\.yaml: no such file"):
        config.load(tmp_path / "absent.yaml", Plan)
    with pytest.raises(ValueError, match=r"not a YAML text file \(.*directory"):
        config.load(tmp_path, Plan)
    with pytest.raises(ValueError, match=r"binary\.yaml: not a YAML text file"):
        config.load(binary, Plan)


def test_values_built_in_code_are_checked_alike() -> None:
    with pytest.raises(ValueError, match="my plan: steps: expected a valid integer, got '3'"):
        config.check({"steps": "3"}, Plan, "my plan")
