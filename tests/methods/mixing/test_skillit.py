"""The hook of Skill-It: what it measures when, the weights of each round, and going on in the midst of one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.methods.mixing.graph import Graph
from shoestring.methods.mixing.mixture import Mixture
from shoestring.methods.mixing.skillit import SkillIt, Switches
from shoestring.methods.mixing.weights import first_weights, skill_weights, tempered
from shoestring.train import state
from shoestring.types import Run, memory

NAMES = ("a", "b", "c")
EDGES = [[1.0, 0.0, 0.5], [0.25, 1.0, 0.0], [0.0, 0.0, 1.0]]
GRAPH = Graph.of(EDGES, NAMES)


class Noted:
    """A mixture that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, float]] = []

    def set_weights(self, weights: Mapping[str, float]) -> None:
        self.told.append(dict(weights))


class Falling:
    """Losses by step, each falling at its own pace; notes the steps at which it was asked."""

    def __init__(self, run: Run, names: tuple[str, ...] = NAMES) -> None:
        self.run, self.names, self.steps = run, names, list[int]()

    def __call__(self, model: nn.Module) -> dict[str, float]:
        self.steps.append(self.run.step)
        return self.at(self.run.step)

    def at(self, step: int) -> dict[str, float]:
        return {name: 4.0 / (1 + 0.05 * step * (place + 1)) for place, name in enumerate(self.names)}

    def row(self, step: int) -> list[float]:
        return list(self.at(step).values())


def at_start(step: int = 0) -> Run:
    return Run(nn.Linear(1, 1), None, None, step)  # type: ignore[arg-type]


def hooked(run: Run, mixture: Any = None, graph: Graph = GRAPH, evaluate: Any = None, **changes: Any) -> SkillIt:
    given: dict[str, Any] = {"rate": 0.5, "round_steps": 6, "until": 24, "measured_every": 2} | changes
    mixture = Noted() if mixture is None else mixture
    return SkillIt(mixture, graph, Falling(run, graph.evaluated) if evaluate is None else evaluate, **given)


def go(hook: SkillIt, run: Run, until: int) -> None:
    while run.step < until:
        run.step += 1
        hook(run)


def named(weights: torch.Tensor, names: tuple[str, ...] = NAMES) -> Any:
    return pytest.approx(dict(zip(names, weights.tolist(), strict=True)))


# by hand


def test_it_measures_within_rounds_and_weighs_at_their_ends() -> None:
    run, mixture = at_start(), Noted()
    hook = hooked(run, mixture)
    hook.begin(run)
    evaluate: Any = hook.evaluate
    assert evaluate.steps == []
    go(hook, run, 24)
    assert evaluate.steps == list(range(2, 24, 2))  # not at the last step: nothing is drawn after it
    assert [step for step, _ in hook.history] == [0, 6, 12, 18]
    assert [weights for _, weights in hook.history] == mixture.told
    assert hook.weights == mixture.told[-1]
    assert all(sum(weights.values()) == pytest.approx(1, abs=1e-15) for weights in mixture.told)


def test_each_round_has_the_weights_of_its_window() -> None:
    run = at_start()
    hook = hooked(run)
    hook.begin(run)
    go(hook, run, 24)
    rows = hook.evaluate.row  # type: ignore[attr-defined]
    edges = torch.tensor(EDGES)
    assert hook.history[0][1] == named(first_weights(edges, 0.5))
    for step, weights in hook.history[1:]:
        window = torch.tensor([rows(step - 4), rows(step - 2), rows(step)])
        assert weights == named(skill_weights(edges, window, 0.5))


def test_once_a_round_it_measures_where_nothing_else_is_said_and_the_window_grows() -> None:
    run = at_start()
    hook = hooked(run, measured_every=None, window=2)
    hook.begin(run)
    go(hook, run, 24)
    evaluate: Any = hook.evaluate
    assert evaluate.steps == [6, 12, 18]
    edges, row = torch.tensor(EDGES), evaluate.row
    assert hook.history[1][1] == named(skill_weights(edges, torch.tensor([row(6)]), 0.5))
    assert hook.history[2][1] == named(skill_weights(edges, torch.tensor([row(6), row(12)]), 0.5))
    assert hook.history[3][1] == named(skill_weights(edges, torch.tensor([row(12), row(18)]), 0.5))


def test_one_round_is_a_static_mixture() -> None:
    run = at_start()
    hook = hooked(run, round_steps=24, measured_every=None)
    hook.begin(run)
    go(hook, run, 24)
    assert len(hook.history) == 1
    assert hook.evaluate.steps == []  # type: ignore[attr-defined]


def test_it_may_begin_in_the_middle_of_a_run() -> None:
    run = at_start(step=7)
    hook = hooked(run)
    hook.begin(run)
    go(hook, run, 13)
    assert [step for step, _ in hook.history] == [7, 12]
    assert hook.history[0][1] == named(first_weights(torch.tensor(EDGES), 0.5))


def test_a_floor_holds_in_every_round() -> None:
    run = at_start()
    hook = hooked(run, rate=5.0, floor=0.2)
    hook.begin(run)
    go(hook, run, 24)
    for _, weights in hook.history:
        assert min(weights.values()) >= 0.2 - 1e-12
    assert hook.history[0][1] == named(tempered(first_weights(torch.tensor(EDGES), 5.0), 0.2))


# the three settings


@pytest.mark.parametrize("evaluated", [NAMES, ("c", "a"), ("x", "y", "z", "w")])
def test_the_same_skills_some_of_them_or_others(evaluated: tuple[str, ...]) -> None:
    edges = torch.rand(3, len(evaluated), generator=torch.Generator().manual_seed(1))
    edges[0] = 1.2  # so that skills do not help alike
    run = at_start()
    hook = hooked(run, graph=Graph.of(edges, NAMES, evaluated), measured_every=None)
    hook.begin(run)
    go(hook, run, 7)
    row = hook.evaluate.row  # type: ignore[attr-defined]
    assert hook.history[1][1] == named(skill_weights(edges, torch.tensor(row(6)), 0.5))
    assert tuple(hook.weights) == NAMES


def test_losses_that_are_not_asked_for_do_not_matter() -> None:
    run = at_start()
    plain = hooked(run, measured_every=None)
    more = hooked(run, evaluate=lambda model: {"z": math.nan, **dict(reversed(plain.evaluate(model).items()))})
    for hook in (plain, more):
        hook.begin(run)
    go(plain, run, 6)
    run.step = 0
    go(more, run, 5)
    more.losses.rows.clear()
    go(more, run, 6)
    assert more.weights == plain.weights


# the switches of the released code


@pytest.mark.parametrize(
    ("switches", "keywords"),
    [
        (Switches(mean=True), {"mean": True}),
        (Switches(normalize_loss=True), {"normalize_loss": True}),
        (Switches(eta_schedule=True), {"eta_schedule": True}),
        (Switches(ignore_lone_nodes=True), {"ignore_lone_nodes": True}),
        (Switches(prior={"c": 0.5, "a": 0.2, "b": 0.3}), {"prior": torch.tensor([0.2, 0.3, 0.5])}),
    ],
)
def test_a_switch_is_that_of_the_weights(switches: Switches, keywords: dict[str, Any]) -> None:
    run = at_start()
    hook = hooked(run, switches=switches)
    hook.begin(run)
    evaluate: Any = hook.evaluate
    before = switches.normalize_loss or switches.eta_schedule
    assert evaluate.steps == ([0] if before else [])
    go(hook, run, 12)
    first = torch.tensor(evaluate.row(0))
    keywords = {name: first if value is True and before else value for name, value in keywords.items()}
    edges = torch.tensor(EDGES)
    window = torch.tensor([evaluate.row(step) for step in (8, 10, 12)])
    assert hook.history[2][1] == named(skill_weights(edges, window, 0.5, **keywords))
    kept = {name: value for name, value in keywords.items() if name in ("prior", "ignore_lone_nodes")}
    assert hook.history[0][1] == named(first_weights(edges, 0.5, **kept))


def test_a_window_that_begins_with_equal_losses() -> None:
    """The mean of the losses before training stands first, until the window has moved on."""
    run = at_start()
    hook = hooked(run, measured_every=None, switches=Switches(initialize_loss=True))
    hook.begin(run)
    go(hook, run, 18)
    row, edges = hook.evaluate.row, torch.tensor(EDGES)  # type: ignore[attr-defined]
    assert row(0) == [4.0, 4.0, 4.0]
    assert hook.history[1][1] == named(skill_weights(edges, torch.tensor([[4.0] * 3, row(6)]), 0.5))
    assert hook.history[3][1] == named(skill_weights(edges, torch.tensor([row(6), row(12), row(18)]), 0.5))


def test_edges_between_skills_are_halved_after_each_round() -> None:
    run = at_start()
    graph = Graph.of([[1.0, -0.5], [0.8, 0.6], [0.4, 0.2]], NAMES, ("b", "a"))
    hook = hooked(run, graph=graph, switches=Switches(dynamic_lambda=True), measured_every=None)
    hook.begin(run)
    go(hook, run, 18)
    row = hook.evaluate.row  # type: ignore[attr-defined]
    second = torch.tensor([[0.5, -0.5], [0.8, 0.3], [0.2, 0.1]])  # a -> a and b -> b stay, and what is below zero
    assert hook.history[1][1] == named(skill_weights(graph.edges, torch.tensor([row(6)]), 0.5))
    assert hook.history[2][1] == named(skill_weights(second, torch.tensor([row(6), row(12)]), 0.5))
    assert graph.edges[0, 0] == 1.0


def test_given_first_weights_are_taken_over_their_sum() -> None:
    run = at_start()
    hook = hooked(run, switches=Switches(init={"b": 2.0, "a": 1.0, "c": 1.0}))
    hook.begin(run)
    assert hook.weights == {"a": 0.25, "b": 0.5, "c": 0.25}


# going on


ALL = Switches(True, True, True, True, False, True, MappingProxyType({"a": 1.0, "b": 2.0, "c": 3.0}))


@settings(max_examples=25)
@given(stop=st.integers(0, 23), switches=st.sampled_from([Switches(), ALL, Switches(dynamic_lambda=True)]))
def test_stopped_and_resumed_anywhere_it_weighs_alike(
    tmp_path_factory: pytest.TempPathFactory, stop: int, switches: Switches
) -> None:
    run = at_start()
    whole = hooked(run, switches=switches)
    whole.begin(run)
    go(whole, run, 24)

    run = at_start()
    first = hooked(run, switches=switches)
    first.begin(run)
    go(first, run, stop)
    stem = tmp_path_factory.mktemp("state") / "hook"
    state.write(first.state_dict(), stem)
    mixture = Noted()
    second = hooked(run, mixture, switches=switches)
    second.load_state_dict(state.read(stem))
    second.begin(run)  # nothing: it went on
    assert mixture.told == []
    go(second, run, 24)
    assert second.history == whole.history
    assert second.losses.rows == whole.losses.rows
    assert torch.equal(second.edges, whole.edges)
    assert mixture.told == [weights for step, weights in whole.history if step > stop]


def test_a_kept_state_does_not_move_with_the_hook() -> None:
    run = at_start()
    hook = hooked(run, switches=Switches(dynamic_lambda=True))
    assert memory(hook) is hook
    hook.begin(run)
    go(hook, run, 7)
    kept = hook.state_dict()
    before = copy.deepcopy(kept)
    hook.load_state_dict(kept)
    go(hook, run, 24)
    assert str(kept) == str(before)


@pytest.mark.parametrize(
    "changes",
    [
        {"rate": 0.4},
        {"round_steps": 12},
        {"window": 2},
        {"measured_every": 3},
        {"floor": 0.1},
        {"switches": Switches(mean=True)},
        {"switches": Switches(prior={"a": 1.0, "b": 1.0, "c": 2.0})},
        {"graph": Graph.of([[1.0, 0.0, 0.5], [0.25, 1.0, 0.0], [0.1, 0.0, 1.0]], NAMES)},
        {"graph": Graph.of(EDGES, ("a", "b", "d"))},
    ],
)
def test_the_state_of_another_is_refused(changes: dict[str, Any]) -> None:
    run = at_start()
    hook = hooked(run)
    hook.begin(run)
    with pytest.raises(ValueError, match=r"the saved sampler has .*, this one .*: resume with the same"):
        hooked(run, **changes).load_state_dict(hook.state_dict())
    hooked(run, until=48).load_state_dict(hook.state_dict())  # a longer run may go on from it


# graphs that tell nothing


@pytest.mark.parametrize(
    ("edges", "said"), [(torch.eye(3), "nearly empty"), (torch.full((3, 3), 0.5), "nearly complete")]
)
def test_a_graph_that_tells_nothing_is_left_for_stratified_with_a_warning(edges: torch.Tensor, said: str) -> None:
    run = at_start()
    with pytest.warns(UserWarning, match=f"the graph is {said}: .*falls back to stratified"):
        hook = hooked(run, graph=Graph.of(edges, NAMES), switches=Switches(normalize_loss=True, init={"a": 1.0}))
    hook.begin(run)
    go(hook, run, 24)
    assert hook.history == [(0, pytest.approx(dict.fromkeys(NAMES, 1 / 3)))]
    assert hook.evaluate.steps == []  # type: ignore[attr-defined]
    kept = hooked(run, graph=Graph.of(edges, NAMES), fall_back=False)
    kept.begin(run)
    with pytest.raises(ValueError, match="the saved sampler has stratified True, this one False"):
        kept.load_state_dict(hook.state_dict())


def test_such_a_graph_is_followed_where_one_insists() -> None:
    run = at_start()
    hook = hooked(run, graph=Graph.identity(NAMES), fall_back=False)
    hook.begin(run)
    go(hook, run, 6)
    assert hook.weights["a"] > hook.weights["c"]  # whose loss falls faster


# what is refused


def failing(at: int, losses: Mapping[str, float], run: Run) -> Callable[[nn.Module], Mapping[str, float]]:
    good = Falling(run)
    return lambda model: losses if run.step == at else good(model)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"a": 1.0, "b": math.nan, "c": 1.0}, "step 4: the loss of 'b' is nan: the weights stay as they are"),
        ({"a": math.inf, "b": 1.0, "c": 1.0}, "step 4: the loss of 'a' is inf"),
        ({"a": 1.0, "b": 1.0}, "step 4: the skill 'c' was not evaluated; it gave losses of a, b"),
        ({}, "was not evaluated; it gave losses of none"),
    ],
)
def test_a_measurement_that_is_none_leaves_the_weights_as_they_are(losses: Any, said: str) -> None:
    run, mixture = at_start(), Noted()
    hook = hooked(run, mixture, evaluate=failing(4, losses, run))
    hook.begin(run)
    with pytest.raises(ValueError, match=said):
        go(hook, run, 24)
    assert len(mixture.told) == len(hook.history) == len(hook.losses.rows) == 1
    go(hook, run, 6)  # one that goes on regardless has what was measured
    assert len(hook.losses.rows) == len(mixture.told) == 2


def test_a_first_measurement_that_fails_can_be_made_again() -> None:
    run = at_start()
    broken = {"a": math.nan, "b": 1.0, "c": 1.0}
    evaluate = iter([broken, dict.fromkeys(NAMES, 1.0)])
    hook = hooked(run, evaluate=lambda model: next(evaluate), switches=Switches(normalize_loss=True))
    with pytest.raises(ValueError, match="step 0: the loss of 'a' is nan"):
        hook.begin(run)
    hook.begin(run)
    assert len(hook.history) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round_steps": 0}, "round_steps=0"),
        ({"until": 0}, "until=0"),
        ({"window": 0}, "window=0"),
        ({"measured_every": 4}, "measured_every=4: expected .* rounds of whole measurements"),
        ({"measured_every": 0}, "measured_every=0"),
        (
            {"graph": Graph.of(EDGES, NAMES, ("b", "c", "a")), "switches": Switches(ignore_lone_nodes=True)},
            "ignore_lone_nodes: expected a graph whose evaluated skills are its skills",
        ),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hooked(at_start(), **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"floor": 0.5}, "a floor of 0.5 for 3 skills"),
        ({"rate": math.nan}, "rate is nan"),
        ({"switches": Switches(prior={"a": 1.0, "b": 1.0})}, "prior names .*'a', 'b'.* expected each of .*'c'"),
        ({"switches": Switches(init={"a": 1.0, "b": 1.0, "d": 1.0})}, "init names"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_the_first_step(changes: dict[str, Any], said: str) -> None:
    run = at_start()
    with pytest.raises(ValueError, match=said):
        hooked(run, **changes).begin(run)


def test_one_that_was_not_begun_is_refused() -> None:
    run = at_start(1)
    with pytest.raises(ValueError, match=r"SkillIt was not begun: call its begin\(run\)"):
        hooked(run)(run)


# alone


def test_alone_in_a_bare_loop() -> None:
    """One scalar a skill, drawn from a real mixture: the skill that helps the other is drawn more."""
    mixture = Mixture({"x": [0], "y": [1]}, batch_size=4)
    model = nn.Linear(2, 2, bias=False)
    run = Run(model, torch.optim.SGD(model.parameters(), lr=0.1), mixture)
    target = torch.eye(2)

    def losses(model: nn.Module) -> dict[str, float]:
        return {name: (model(row) - row).square().mean().item() for name, row in zip("xy", target, strict=True)}

    hook = SkillIt(
        mixture, Graph.of([[1, 1], [0, 1]], "xy"), losses, rate=0.5, round_steps=5, until=20, fall_back=False
    )
    hook.begin(run)
    for batch in mixture:
        (model(target[batch]) - target[batch]).square().mean().backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.step += 1
        hook(run)
        if run.step == 20:
            break
    assert mixture.weights == hook.weights
    assert mixture.counts()["x"] > mixture.counts()["y"]


def test_a_single_skill_that_is_all_that_is_drawn_is_told_of_once() -> None:
    run = at_start()
    edges = torch.zeros(3, 3)
    edges[0] = 30
    hook = hooked(run, graph=Graph.of(edges, NAMES), measured_every=None, fall_back=False)
    with pytest.warns(UserWarning, match=r"step 0: 1\.0000 of what is drawn is .*: lower the rate, or give a floor"):
        hook.begin(run)
    go(hook, run, 7)  # a second warning would be an error
    assert len(hook.history) == 2
