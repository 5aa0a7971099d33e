"""Several runs on one page."""

import re
from datetime import date

import pytest

from unigap.arms import Question
from unigap.report.side_by_side import side_by_side
from unigap.report.summary import Summary

TEXT: Question = ("understanding", "normal")
DRAW: Question = ("generation", "normal")


def run_json(**identity: object) -> dict:
    return {
        "identity": {"model": {"name": "paper", "sha256": "0" * 64}, "sampling": {"t": 0}, "seed": 0} | identity,
        "config": {"suite": "sandbox"},
    }


def summary(paper_class, draw: str, folder: str, family: str = "math1") -> Summary:
    paper = paper_class()
    items = paper.add_items(family, len(draw))
    paper.answer(items, TEXT, "y" * len(draw))
    paper.answer(items, DRAW, draw)
    found = paper.summary()
    return Summary(run={"folder": folder}, families=found.families)


@pytest.fixture
def page(paper) -> str:
    make = type(paper)
    first = summary(make, "y" * 10 + "n" * 30, "one")
    second = summary(make, "y" * 30 + "n" * 10, "<two>")
    return side_by_side([(first, run_json(), "exact"), (second, run_json(seed=7), "exact")], made=date(2026, 1, 2))


def test_each_run_has_its_own_row_and_column(page):
    # Drawn 10 of 40 and 30 of 40, all texts right: gaps +75 and +25.
    assert re.findall(r"<title>(math1, run \w, normal: gap \S+ points)", page) == [
        "math1, run A, normal: gap +75 points",
        "math1, run B, normal: gap +25 points",
    ]
    cells = re.findall(r'<span class="rate">(\S+?)</span>', page.partition('id="numbers-title"')[2])
    assert cells == ["100%", "100%", "25%", "75%", "+75", "+25"]


def test_what_differs_is_marked_and_names_are_escaped(page):
    differing = re.findall(r'<tr class="differs"><th scope="row">(.*?)</th>', page)
    assert differing == ["seed"]
    assert "&lt;two&gt;" in page and "<two>" not in page


def test_a_family_of_one_run_leaves_the_other_empty(paper):
    make = type(paper)
    runs = [
        (summary(make, "yn", "one"), run_json(), "exact"),
        (summary(make, "yn", "two", "math2"), run_json(), "exact"),
    ]
    page = side_by_side(runs, made=date(2026, 1, 2))
    assert len(re.findall(r"<title>math\d, run \w, normal: gap", page)) == 2


def test_one_run_is_refused(paper):
    with pytest.raises(ValueError, match="give 2 to 26"):
        side_by_side([(summary(type(paper), "yn", "one"), run_json(), "exact")], made=date(2026, 1, 2))


def test_chance_that_differs_between_runs_is_shown_for_each(paper):
    # Five distinct answers: a constant one is right in 1 of 5; two: in 1 of 2.
    make = type(paper)
    five, two = summary(make, "ynyny", "five", "plain"), summary(make, "yn", "two", "plain")
    page = side_by_side([(five, run_json(), "exact"), (two, run_json(), "exact")], made=date(2026, 1, 2))
    assert "20% / 50%" in page and "guessing 20%<" in page and "guessing 50%<" in page
