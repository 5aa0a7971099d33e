"""Options at the end of a question, and answers that name one by its letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigap.items import SUITES
from unigap.judges.options import read_options, spell_options
from unigap.scenes import make_items

CUPS = {"A": "3 cups", "B": "1 cup", "C": "5 cups"}
THINGS = {"A": "banana", "B": "cup"}


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which? A: 3 cups. B: 1 cup. C: 5 cups.", CUPS),
        ("Which? (A) 3 cups, (B) 1 cup, (C) 5 cups", CUPS),
        ("Which one?\nA) 3 cups\nB) 1 cup\nC) 5 cups\n", CUPS),
        ("Which? B: 3 cups. A: 1 cup.", {}),
        ("Which? A: 3 cups. C: 1 cup.", {}),
        ("Which? A: 3 cups.", {}),
        ("Rule 1: A means cup. Rule 2: B means pen. What does A mean?", {}),
        ("", {}),
    ],
)
def test_options_are_read_where_their_letters_run_from_a(question: str, options: dict[str, str]):
    assert read_options(question) == options


def test_no_other_family_of_the_sandbox_seems_to_have_options():
    for item in make_items(SUITES["sandbox"].families, num_units=60, seed=3):
        assert read_options(item.question) == {}


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("B", "1 cup"),
        ("b", "1 cup"),
        (" (b). ", "1 cup"),
        ("**C**", "5 cups"),
        ("B: 1 cup", "1 cup: 1 cup"),
        ("The answer is A.", "The answer is 3 cups."),
        ("the answer is c", "the answer is 5 cups"),
        ("A is right", "3 cups is right"),
        ("A cup", "A cup"),
        ("A small cup", "A small cup"),
        ("a cup", "a cup"),
        ("D", "D"),
        ("Because", "Because"),
        ("C'est la vie", "C'est la vie"),
        ("", ""),
    ],
)
def test_letters_are_replaced_where_they_stand_for_an_option(text: str, spelled: str):
    assert spell_options(text, CUPS) == spelled


def test_an_article_is_no_letter():
    assert spell_options("A banana", THINGS) == "A banana"
    assert spell_options("A", THINGS) == "banana"


@given(st.text(max_size=60))
def test_without_options_a_text_stays_as_it_is(text: str):
    assert spell_options(text, {}) == text
    assert isinstance(spell_options(text, CUPS), str)
