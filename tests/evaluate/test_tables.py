"""Tables: cells by hand, one hundred columns, nothing lost, nothing taken for markup."""

import io

import pytest
from rich.console import Console, Group

from shoestring.cost import Cost
from shoestring.evaluate.scores import Report, Row, Score
from shoestring.evaluate.tables import BLANK, compare, grid, grids, table, terminal_width


def shown(drawn: Group, width: int = 100) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(drawn)
    return text.getvalue()


def report(*rows: Row, room: str = "averaging", metric: str = "dev loss") -> Report:
    return Report(room, "cpu", rows, (), (), metric)


RAW = Row("raw", True, {"dev loss": Score.of([2.0, 2.02]), "accuracy": Score.of([0.5])}, Cost(flops=2e15, seconds=100))
LAWA = Row("lawa", False, {"dev loss": Score.of([1.9, 1.92])}, Cost(flops=3e15, seconds=50), label="LAWA")


def test_cells_by_hand():
    found = grid(report(RAW, LAWA))
    assert found.metrics == ("dev loss", "accuracy")
    assert found.currencies == ("PFLOP", "s")
    assert [line.title for line in found.lines] == ["raw", "LAWA"]
    assert found.lines[0].scores == ("2.010 ± 0.014", "0.5000")
    assert found.lines[1].scores == ("1.910 ± 0.014", BLANK)
    assert [line.costs for line in found.lines] == [("2.00", "100"), ("3.00", "50.0")]


def test_rows_of_a_group_stand_together():
    rows = [Row(name, False, LAWA.scores, Cost(), group=name[0]) for name in ("a1", "b1", "a2")]
    assert [line.title for line in grid(report(*rows)).lines] == ["a1", "a2", "b1"]
    text = shown(table(report(*rows)))
    assert text.index("a1") < text.index("a2") < text.index("b1")


def test_groups_that_share_no_score_stand_in_grids_of_their_own():
    ranks = Row("naswot", False, {"τ": Score.of([0.5])}, Cost(seconds=3), group="ranks")
    first, second = (Row(name, False, LAWA.scores, Cost(flops=2e9), group=name) for name in ("one", "two"))
    both = Row("raw", True, RAW.scores, Cost(flops=1e9), group="two")
    found = grids(report(first, ranks, second, both))
    assert [part.metrics for part in found] == [("dev loss", "accuracy"), ("τ",)]
    assert [[line.title for line in part.lines] for part in found] == [["one", "two", "raw"], ["naswot"]]
    assert [part.currencies for part in found] == [("GFLOP",), ("s",)]
    assert grids(report(RAW, LAWA)) == [grid(report(RAW, LAWA))]


def test_the_twin_is_marked_and_currencies_nobody_spent_are_left_out():
    text = shown(table(report(RAW, LAWA)))
    assert "raw †" in text
    assert "† twin" in text
    assert "LAWA †" not in text
    assert "teacher" not in text
    assert "†" not in shown(table(report(LAWA)))


@pytest.mark.parametrize("draw", [table, lambda found: compare({"one": found, "two": found})])
def test_a_full_report_fits_one_hundred_columns(draw):
    scores = {name: Score.of([2.1234, 2.1256, 2.1301]) for name in ("dev loss", "test loss", "bits per byte")}
    cost = Cost(flops=1.2e15, tokens=4e6, seconds=321, peak_bytes=8e8)
    rows = [Row(f"r{i}", i == 0, scores, cost, "peak learning rate 6e-3", f"a row of long name {i}") for i in range(3)]
    lines = shown(draw(report(*rows))).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("…" in line for line in lines)
    for word in ("2.126", "± 0.003", "1.20", "4.00", "321", "800"):
        assert any(word in line for line in lines), word


def test_too_much_for_one_hundred_columns_is_folded_and_not_lost():
    scores = {f"score {i}": Score.of([2.1234, 2.1256]) for i in range(9)} | {"dev loss": Score.of([1.0])}
    text = shown(table(report(Row("raw", True, scores, Cost(1, 1, 1, 1, 1, 1, 1)))))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("±") == 9


@pytest.mark.parametrize(("width", "of_one", "of_two"), [(200, 2, 2), (100, 2, 2), (80, 2, 3), (60, 3, 4), (40, 6, 6)])
@pytest.mark.parametrize("runs", [1, 2])
def test_what_has_no_room_stands_below(runs, width, of_one, of_two, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    scores = {f"score {i}": Score.of([2.1234, 2.1256]) for i in range(6)} | {"dev loss": Score.of([1.0])}
    rows = [Row(name, name == "raw", scores, Cost(1, 1, 1, 1, 1, 1, 1)) for name in ("raw", "a row of long name")]
    drawn = table(report(*rows)) if runs == 1 else compare({"one": report(*rows), "two": report(*rows)})
    text = shown(drawn, width)
    assert max(map(len, text.splitlines())) <= width
    parts = of_one if runs == 1 else of_two
    assert text.count("raw †") == text.count("a row of") == parts * runs
    assert text.count("± 0.0016") == 12 * runs
    assert text.count("† twin") == 1


def test_runs_that_share_nothing_are_named_all_the_same():
    free = [report(Row(name, False, {name: Score.of([1.0])}, Cost()), metric=name) for name in ("one", "other")]
    text = shown(compare({"a": free[0], "b": free[1]}))
    assert "a (averaging)" in text
    assert "other" in text


def test_what_is_no_terminal_is_as_wide_as_a_table_may_be(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width() == 100
    monkeypatch.setenv("COLUMNS", "63")
    assert terminal_width() == 63


def test_names_are_not_markup():
    assert "[red]x[/red]" in shown(table(report(Row("[red]x[/red]", False, LAWA.scores, Cost()))))


def test_runs_side_by_side_by_hand():
    text = shown(compare({"first": report(RAW), "second": report(LAWA)}))
    assert "first (averaging)" in text
    assert "second (averaging)" in text
    for ratio in ("×1.00", "×1.50", "×0.500"):
        assert ratio in text
    assert "accuracy" not in text


def test_runs_of_different_rooms_share_their_costs_and_the_scores_they_have_in_common():
    ranker = Row("bm25", True, {"ndcg": Score.of([0.4])}, Cost(labels=5, seconds=1))
    text = shown(compare({"lm": report(RAW), "rank": report(ranker, room="recommendation", metric="ndcg")}))
    assert "rank (recommendation)" in text
    assert "ndcg" not in text
    assert "dev loss" not in text
    assert "labels" in text
    assert f"5.00\n{BLANK}".split("\n")[0] in text


def test_one_run_keeps_all_its_scores():
    assert "accuracy" in shown(compare({"only": report(RAW, LAWA)}))
