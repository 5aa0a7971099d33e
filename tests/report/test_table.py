"""The table on a terminal of any width and kind."""

import io

from rich.console import Console

from unigap.arms import Question
from unigap.report.table import FULL_WIDTH, print_summary

QUESTIONS: tuple[Question, ...] = (
    ("understanding", "normal"),
    ("understanding", "think"),
    ("generation", "normal"),
    ("generation", "think"),
    ("generation", "refined"),
    ("generation", "oracle"),
)


def fill(paper, family: str, letters: str = "y" * 60 + "n" * 40) -> None:
    items = paper.add_items(family, len(letters))
    for question in QUESTIONS:
        paper.answer(items, question, letters if question[0] == "generation" else "y" * len(letters))


def printed(paper, width: int = FULL_WIDTH, encoding: str = "utf-8", variants: bool = False, **trained: str) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=file, width=width, force_terminal=False)
    print_summary(paper.summary(**trained), console, variants=variants)
    return raw.getvalue().decode(encoding)


def test_row_shows_rates_over_intervals_gap_chance_and_training(paper):
    fill(paper, "mapping1")
    text = printed(paper, mapping1="parts")
    lines = text.splitlines()
    row = next(number for number, line in enumerate(lines) if line.split()[:1] == ["mapping1"])
    # 60 of 100: Wilson 50-69. All right: 96-100. d = .4: text 1.0, limits by Tango's score.
    assert lines[row].split() == ["mapping1", "100%", "100%", *["60%"] * 4, "+40", "+40", "25%", "parts", "0%"]
    assert lines[row + 1].split() == ["96-100", "96-100", *["50-69"] * 4, "+31,+50", "+31,+50"]
    assert "positive: understands more than it draws" in " ".join(text.split())
    assert "coin flip between the two objects, per picture (mapping1)" in text


def test_the_longest_row_fits_120_columns(paper):
    fill(paper, "mapping1")
    assert max(map(len, printed(paper, mapping1="direct").splitlines())) <= 120


def test_a_narrow_terminal_gets_two_tables_and_loses_no_column(paper):
    fill(paper, "math1")
    text = printed(paper, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert sum(line.split()[:1] == ["math1"] for line in text.splitlines()) == 2
    assert "oracle" in text and "chance" in text


def test_a_terminal_without_unicode_gets_ascii(paper):
    fill(paper, "math1")
    assert printed(paper, encoding="ascii").isascii()


def test_marks_stand_only_where_they_apply_and_are_explained(paper):
    fill(paper, "math1")
    plain = printed(paper)
    assert not any(mark in plain.replace("> ", "") for mark in ("*", "~", "!"))
    fill(paper, "math2", "yyynnur")
    text = printed(paper)
    assert "~!*50%" in text  # 3 of 6 scored, one of them refused; 7 clusters
    assert "* interval widened" in text
    assert "! answers left out of the rate: 4 the judge could not score, 0 without" in text
    assert "~ 4 answers were refused" in text


def test_variants_and_names_that_look_like_markup(paper):
    for variant in ("one", "two"):
        paper.answer(paper.add_items("[red]theirs", 3, variant=variant), QUESTIONS[2], "yyn")
    assert "[red]theirs/two" not in printed(paper)
    text = printed(paper, variants=True)
    assert "[red]theirs " in text and "[red]theirs/two" in text and "not known" in text


def test_an_unscored_family_shows_a_dash(paper):
    items = paper.add_items("math1", 2)
    paper.answer(items, QUESTIONS[2], "uu")
    assert "!-" in printed(paper)
