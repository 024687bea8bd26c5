"""The report of a ranked table, from scores made up so that each figure can be read off."""

from __future__ import annotations

import math

import pytest

from shoestring.methods.search.tools_rank import Ranked
from shoestring.methods.search.tools_ranked import report

TEXTS = [f"cell {place}" for place in range(12)]


def ranked(**scores: list[float]) -> Ranked:
    """Accuracies that rise by one; parameters that are equal in threes."""
    sizes = [float(place // 3) for place in range(12)]
    values = {name: dict(zip(TEXTS, found, strict=True)) for name, found in (scores | {"parameters": sizes}).items()}
    truth = {
        "c10": {text: 80.0 + place for place, text in enumerate(TEXTS)},
        "c100": {text: -float(place) for place, text in enumerate(TEXTS)},
    }
    return Ranked(values, truth, dict.fromkeys(values, 0.5), {"decoder_parameters": "no embeddings."})


def test_a_group_a_column_a_row_a_proxy_a_panel_each():
    found = report(ranked(naswot=[float(place) for place in range(12)]), {"command": "shoestring search rank"})
    assert (found.room, found.recipe, found.metric, found.lower_is_better) == ("search", "rank", "τ", False)
    assert found.groups() == ["c10", "c100"]
    assert [(row.label, row.group, row.twin) for row in found.rows] == [
        ("naswot", "c10", False),
        ("parameters", "c10", True),
        ("naswot", "c100", False),
        ("parameters", "c100", True),
    ]
    values = {metric: score.mean for metric, score in found.rows[0].scores.items()}
    assert values == {"τ": 1, "from": 1, "to": 1}  # of a dozen, the best tenth is too few to order
    assert found.rows[2].scores["τ"].mean == -1
    assert found.rows[1].scores["τ"].mean == pytest.approx(54 / math.sqrt(54 * 66))
    assert found.rows[0].cost.seconds == 6
    assert [(panel.y, panel.x) for panel in found.scatters] == [
        ("c10", "naswot"),
        ("c10", "parameters"),
        ("c100", "naswot"),
        ("c100", "parameters"),
    ]
    assert found.scatters[0].title == "naswot: τ 1.000 [1.000, 1.000]"
    assert found.scatters[0].points[2] == ("", 2.0, 82.0)
    assert found.facts == {"command": "shoestring search rank"}


def test_the_notes_hold_it_against_size():
    told = " ".join(report(ranked(naswot=[float(place) for place in range(12)]), {}).notes)
    assert "c10: τ of naswot less that of parameters: +0.095" in told
    assert "c10: among networks of equal size, τ of naswot is 1.000 [1.000, 1.000], over 12 architectures." in told
    assert "decoder_parameters is not in the table: no embeddings." in told
    backwards = [float(3 * (place // 3) - place % 3) for place in range(12)]
    assert "equal size, τ of naswot is -1.000" in " ".join(report(ranked(naswot=backwards), {}).notes)


def test_what_is_singular_has_a_rank_and_no_place_and_what_was_refused_has_neither():
    scores = [-math.inf, -math.inf, math.nan, *(float(place) for place in range(3, 12))]
    found = report(ranked(naswot=scores), {})
    panel = found.scatters[0]
    assert len(panel.points) == 9
    assert "c10 against naswot, 11 architectures" in panel.says
    assert panel.says.endswith("2 score -inf and have no place.")
    assert found.rows[0].scores["τ"].mean == pytest.approx(54 / math.sqrt(54 * 55))
    assert "naswot refused 1 networks, which it is not counted on." in found.notes


def test_a_proxy_that_orders_nothing_is_a_note():
    found = report(ranked(naswot=[1.0] * 12), {})
    assert [row.label for row in found.rows] == ["parameters", "parameters"]
    assert "c10: naswot is not in the table: all 12 scores are 1.0: they order nothing." in found.notes
    with pytest.raises(ValueError, match="no proxy orders anything") as caught:
        report(ranked(naswot=[1.0] * 12)._replace(truth={"c10": dict.fromkeys(TEXTS, 5.0)}), {})
    assert "\n" not in str(caught.value)
