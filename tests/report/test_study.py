"""Tables of a study: what is counted among the drawable, words for changes, and the three ways to write a table."""

import json
import math

from unigap.gap.intervals import rate_interval
from unigap.gap.repeats import OverRepeats, rate_over_repeats
from unigap.report.repeated import Answers, change, drawable, in_a_word, rate
from unigap.report.study import StudyCell, StudyPage, StudyRow, StudyTable, row


def right(*units: str, wrong: str = "") -> Answers:
    return {unit: (unit, float(unit not in wrong)) for unit in (*units, *wrong)}


def test_a_model_that_draws_less_is_counted_on_what_it_draws():
    # It draws a, b and c from the caption, not d and e; at once it gets a, and e by luck, which says nothing.
    oracle, given = right("a", "b", "c", wrong="de"), right("a", "e", wrong="bcd")
    assert rate([given]).rate == 2 / 5
    assert rate([drawable(given, oracle)]).rate == 1 / 3
    # A unit whose caption was never drawn, or not scored, is not known to be drawable.
    assert set(drawable(right("x"), oracle)) == set()


def test_a_change_is_on_the_units_that_both_have():
    after, before = right("a", "b", wrong="c"), right("b", wrong="acd")
    # On a, b, c: 2/3 after, 1/3 before; d has no after.
    found = change([after], [before])
    assert math.isclose(found.rate, 1 / 3) and found.items.num_units == 3


def test_a_change_is_called_none_only_if_both_intervals_stay_below_the_margin():
    def found(low: float, high: float, repeats: tuple[float, float] | None) -> OverRepeats:
        items = rate_interval([0.0, 1.0], "ab")
        return OverRepeats((0.0, 0.02), repeats, type(items)(0.01, low, high, 99, 99, "independent units"))

    assert in_a_word(found(-0.05, 0.07, (-0.02, 0.04))) == "no, +1 points [-5, +7]"
    assert in_a_word(found(-0.05, 0.07, (-0.20, 0.22))).startswith("can't tell, +1 points [-20, +22]")
    assert in_a_word(found(0.01, 0.07, (0.02, 0.04))).startswith("yes")
    assert in_a_word(found(0.01, 0.07, (-0.02, 0.04))).startswith("no")
    assert in_a_word(rate_over_repeats([[]], [[]])).startswith("can't tell")


def table() -> StudyTable:
    three = rate_over_repeats([[1.0, 1.0, 0.0, 0.0], [1.0] * 4], [["a", "b", "c", "d"], ["e", "f", "g", "h"]])
    nowhere = StudyCell(value=1.2, low=-math.inf, high=math.inf)
    rows = [row("said | so", [three, rate_over_repeats([], [])]), StudyRow("<b>", [nowhere, None])]
    return StudyTable(title="T", note="N", columns=["one", "two"], rows=rows)


def test_a_cell_shows_both_intervals_and_an_empty_one_nothing():
    # Repeats .5 and 1: mean .75, s = .354, t with one degree 12.7: cut at 0 and 1.
    assert table().text(table().rows[0].cells[0])[0] == ".75"
    assert table().text(table().rows[0].cells[0])[1].endswith("] (.00, 1.00)")
    assert table().text(None) == ("", "")
    assert "all alike" in table().text(StudyCell.of(rate_over_repeats([[1.0]] * 3, ["a", "b", "c"])))[1]


def test_markdown_json_and_page_say_the_same_and_escape_what_they_show():
    page = StudyPage(title="Study", readings=["a & b"], facts={"tiny": "<i>"}, tables=[table()])
    markdown, html = page.markdown(), page.html()
    assert "| said \\| so | .75 [" in markdown and "| <b> | +1.20 [-inf, +inf] |" not in markdown
    assert "| <b> | 1.20 [-inf, +inf] |  |" in markdown
    assert "&lt;i&gt;" in html and "&lt;b&gt;" in html and "<b>" not in html and "a &amp; b" in html
    data = json.loads(json.dumps(page.to_json(), allow_nan=False))
    cells = data["tables"][0]["rows"][1]["cells"]
    assert cells[1] is None and (cells[0]["value"], cells[0]["low"], cells[0]["high"]) == (1.2, None, None)
