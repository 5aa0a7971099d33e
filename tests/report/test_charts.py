"""Charts: every mark stands where its number says, and says its number to who cannot see it."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import date
from html import unescape
from itertools import pairwise

import pytest

from unigap.arms import CALLS, Question
from unigap.report.gallery import Gallery
from unigap.report.page import RUNGS, Page, correlation, limits, percent, points, render
from unigap.report.summary import Summary

TEXT: Question = ("understanding", "normal")
DRAW: Question = ("generation", "normal")


def drawn(summary: Summary) -> str:
    data = {"questions": [], "families": [], "fields": (), "pictures": [""], "units": []}
    gallery = Gallery(data=data, num_units=0, decisive=DRAW)
    return render("report.html.j2", page=Page(summary, [("model", "paper")], [], gallery, date(2026, 1, 2)), data="{}")


def rows(page: str, kind: str) -> dict[str, ElementTree.Element]:
    """The SVG of each row of a chart, by what its title starts with."""
    found = (
        ElementTree.fromstring(svg)
        for svg in re.findall(rf'<svg class="{kind}" height="\d+" role="img">.*?</svg>\n  ?(?=<)', page, re.DOTALL)
    )
    return {
        title.text.partition(":")[0]: svg for svg in found if (title := svg.find("title")) is not None and title.text
    }


@pytest.fixture
def page(paper) -> str:
    # Text 54 of 100, drawing 23 of 100, of which 14 on the same units.
    items = paper.add_items("math1", 100)
    text, draw = "y" * 54 + "n" * 46, "y" * 14 + "n" * 40 + "y" * 9 + "n" * 37
    for question in CALLS:
        paper.answer(items, question, text if question[0] == "understanding" else draw)
    return drawn(paper.summary())


def test_rates_intervals_and_chance_stand_where_their_numbers_say(page):
    svg = rows(page, "rates")["math1, normal"]
    (circle,) = svg.iter("circle")
    assert circle.get("cx") == "54.00%"
    (diamond,) = (inner for inner in svg.iter("svg") if inner.get("x"))
    assert diamond.get("x") == "23.00%"
    chance = next(line for line in svg.iter("line") if line.get("class") == "chance")
    assert chance.get("x1") == chance.get("x2") == "25.00%"
    # Wilson: 54 of 100 is 44.26 to 63.44, 23 of 100 is 15.84 to 32.15.
    whiskers = [(line.get("x1"), line.get("x2")) for line in svg.iter("line") if line.get("class") == "whisker"]
    assert whiskers == [("44.26%", "63.44%"), ("15.84%", "32.15%")]


def test_the_gap_stands_on_an_axis_from_minus_to_plus_100_points(page):
    svg = rows(page, "gaps")["math1, normal"]
    (circle,) = svg.iter("circle")
    assert circle.get("cx") == "65.50%"  # (0.31 + 1) / 2
    assert svg.findtext("title") == "math1, normal: gap +31 points (+18 to +43)"
    assert '<span class="value understands"><b>+31</b> <span class="interval">+18, +43</span></span>' in page


def test_stacked_shares_fill_the_bar_and_name_their_parts(page):
    bars = [
        ElementTree.fromstring(svg)
        for svg in re.findall(r'<svg class="stack" height="28" role="img">.*?</svg>', page, re.DOTALL)
    ]
    assert len(bars) == 3  # the ladder; joint rates of normal and think
    for bar in bars:
        parts = [(float(r.get("x", "")[:-1]), float(r.get("width", "")[:-1])) for r in bar.iter("rect")]
        assert parts[0][0] == 0 and sum(width for _, width in parts) == pytest.approx(100, abs=0.05)
        for (start, width), (following, _) in pairwise(parts):
            assert start + width == pytest.approx(following, abs=0.02)
    assert bars[1].findtext("title") == (
        "math1: 14% both right; 40% only the text right; 9% only the drawing right; 37% neither right"
    )


def test_ladder_shares_stand_in_a_table_with_their_intervals(page):
    table = unescape(page).partition("The ladder as a table")[2].partition("</table>")[0]
    for words in RUNGS.values():
        assert words in table
    # The oracle draws no better than the normal drawing: 77 of 100 cannot be drawn; Wilson 67.85 to 84.16.
    cells = re.findall(r'<span class="rate">(.*?)</span>\s*<span class="interval">(.*?)</span>', table)
    assert cells[:2] == [("23%", "16\N{EN DASH}32"), ("77%", "68\N{EN DASH}84")]


def test_a_family_nothing_is_scored_of_has_no_row_and_no_wrong_number(paper):
    items = paper.add_items("theirs", 2)
    for question in CALLS:
        paper.answer(items, question, "uu")
    page = drawn(paper.summary())
    assert ">nan" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not rows(page, "rates") and 'class="stack" height="28"' not in page


def test_a_marked_interval_is_explained_where_it_is_marked(paper):
    # Two units are fewer than 20 clusters.
    items = paper.add_items("math1", 2)
    paper.answer(items, TEXT, "yy")
    paper.answer(items, DRAW, "yn")
    page = drawn(paper.summary())
    assert "<b>+50<sup>*</sup></b>" in page and "* wider, for units that depend" in page
    many = paper.add_items("math2", 30)
    paper.answer(many, TEXT, "y" * 30)
    paper.answer(many, DRAW, "n" * 30)
    assert "* wider" not in drawn(replace(paper.summary(), families=paper.summary().families[1:]))


def test_numbers_in_words(paper):
    assert (percent(None), percent(float("nan")), percent(0.125)) == ("-", "-", "12%")
    assert (points(-0.13), points(0.304)) == ("\N{MINUS SIGN}13", "+30")
    assert (correlation(float("nan")), correlation(-0.1)) == ("-", "\N{MINUS SIGN}0.10")
    items = paper.add_items("math1", 100)
    paper.answer(items, TEXT, "y" * 54 + "n" * 46)
    assert limits(paper.summary().families[0].cells[TEXT]) == "44\N{EN DASH}63"
