"""Places, relations, attributes and yes or no in texts: what is read, what conflicts, and what is unreadable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigap.items import Composition, Part
from unigap.judges.text_places import read_layout, read_relation, read_traits, read_yes_no
from unigap.scenes.places import CELLS, OPPOSITE, PLACES, RELATIONS, describe
from unigap.scenes.vocabulary import AGES, GENDERS, HAIRS, OBJECTS, SKINS, describe_traits

CUP = {"cup": 1}


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("top left", {"top left": {}}),
        ("In the upper left corner.", {"top left": {}}),
        ("left, top", {"top left": {}}),
        ("Row: top, column: left", {"top left": {}}),
        ("the top row and the left column", {"top left": {}}),
        ("The cup is in the bottom-right corner.", {"bottom right": CUP}),
        ("top middle", {"top center": {}}),
        ("the middle of the top row", {"top center": {}}),
        ("middle left", {"middle left": {}}),
        ("left center", {"middle left": {}}),
        ("center", {"center": {}}),
        ("the middle row, center column", {"center": {}}),
        ("middle center", {"center": {}}),
        ("the top row", {"top row": {}}),
        ("top", {"top row": {}}),
        ("the middle row", {"middle row": {}}),
        ("the middle column", {"center column": {}}),
        ("**Bottom row**, right column", {"bottom right": {}}),
        ("I first thought top left. It is bottom right, so the answer is bottom right.", {"bottom right": {}}),
        ("The cup is in the top left and the pen in the bottom right.", {"top left": CUP, "bottom right": {"pen": 1}}),
        ("The cup is in the top left. The pen is in the center.", {"top left": CUP, "center": {"pen": 1}}),
        ("cup: top left\npen: bottom center", {"top left": CUP, "bottom center": {"pen": 1}}),
        ("top left: cup, bottom right: pen", {"top left": CUP, "bottom right": {"pen": 1}}),
        ("2 cups in the top row and 3 pens in the middle row", {"top row": {"cup": 2}, "middle row": {"pen": 3}}),
        ("The left column has 2 cups, the right one 1 pen.", {"left column": {"cup": 2}, "right column": {"pen": 1}}),
    ],
)  # fmt: skip
def test_places_that_are_read(text: str, places: dict[str, dict[str, float]]):
    reading = read_layout(text)
    assert (reading.problem, dict(reading.places)) == ("", places), reading


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unreadable"),
        ("1 cup", "unreadable"),
        ("somewhere", "unreadable"),
        ("top left or bottom right", "conflicting"),
        ("The answer is top left. The answer is top right.", "conflicting"),
        ("a cup in the top left and a pen in the top left", "conflicting"),
    ],
)
def test_texts_that_name_no_place_or_too_many(text: str, problem: str):
    assert read_layout(text).problem == problem


@given(st.lists(st.sampled_from(OBJECTS), min_size=2, max_size=2, unique=True), st.data())
def test_any_description_of_places_reads_back(names: list[str], data: st.DataObject):
    group = data.draw(st.sampled_from(["cells", "rows", "columns"]))
    known = {"cells": CELLS, "rows": [p for p in PLACES if "row" in p], "columns": [p for p in PLACES if "col" in p]}
    places = data.draw(st.lists(st.sampled_from(known[group]), min_size=2, max_size=2, unique=True))
    numbers = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))
    zipped = list(zip(names, numbers, places, strict=True))
    for some in (zipped, zipped[:1]):
        answer = Composition(parts=tuple(Part(object=name, n=n, place=at) for name, n, at in some))
        for text in (describe(answer), f"The answer is {describe(answer)}.", f"I see {describe(answer)}."):
            assert dict(read_layout(text).places) == {at: {name: n} for name, n, at in some}, text


# ---- relations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ("left", "left of"),
        ("Left.", "left of"),
        ("to the left of the pen", "left of"),
        ("The cup is to the left of the pen.", "left of"),
        ("It is on the right.", "right of"),
        ("The cup is above the pen", "above"),
        ("on top of the pen", "above"),
        ("underneath", "below"),
        ("The pen is to the right of the cup.", "left of"),
        ("The pen is below the cup.", "above"),
        ("Seen from the pen, the cup is on the left.", "left of"),
        ("Seen from the pen, it is on the left.", "left of"),
        ("not above but below", "below"),
        ("The cup is left of the pen. So the answer is left of.", "left of"),
        ("left or right", "conflicting"),
        ("next to the pen", "unreadable"),
        ("1 cup", "unreadable"),
    ],
)
def test_where_a_cup_is_seen_from_a_pen(text: str, relation: str):
    reading = read_relation(text, "pen")
    assert (reading.relation or reading.problem) == relation, reading


@given(st.lists(st.sampled_from(OBJECTS), min_size=2, max_size=2, unique=True), st.sampled_from(RELATIONS))
def test_any_relation_reads_back_and_so_does_the_sentence_turned_around(names: list[str], relation: str):
    first, second = names
    said = describe(Composition(parts=(Part(object=second), Part(object=first, relation=relation, to=0))))
    turned = describe(Composition(parts=(Part(object=first), Part(object=second, relation=OPPOSITE[relation], to=0))))
    assert read_relation(said, second).relation == relation
    assert read_relation(f"The answer is {turned}.", second).relation == relation


# ---- attributes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked", "found"),
    [
        ("red", ["hair"], {"hair": "red"}),
        ("The hair is blonde.", ["hair"], {"hair": "blond"}),
        ("a girl with red hair", ["gender", "age", "hair"], {"gender": "female", "age": "kid", "hair": "red"}),
        ("an old man, black hair", ["gender", "age", "hair"], {"gender": "male", "age": "old", "hair": "black"}),
        ("Age: old\nHair: red", ["age", "hair"], {"age": "old", "hair": "red"}),
    ],
)  # fmt: skip
def test_attributes_that_are_read(text: str, asked: list[str], found: dict[str, str]):
    reading = read_traits(text, asked)
    assert reading.attributes == found and not reading.problem


@pytest.mark.parametrize(
    ("text", "problem"), [("red or brown", "conflicting"), ("a cup", "unreadable"), ("", "unreadable")]
)
def test_attributes_that_are_not_there_or_twice(text: str, problem: str):
    assert read_traits(text, ["hair"]).problem == problem


@given(st.sampled_from(GENDERS), st.sampled_from(AGES), st.sampled_from(HAIRS), st.sampled_from(SKINS))
def test_any_description_of_a_person_reads_back(gender: str, age: str, hair: str, skin: str):
    traits = {"gender": gender, "age": age, "hair": hair, "skin": skin}
    for asked in (["gender", "age", "hair"], list(traits)):
        some = {name: traits[name] for name in asked}
        assert read_traits(describe_traits(some), asked).attributes == some


# ---- yes or no -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("yes", True),
        ("Yes, there is a dog in the image.", True),
        ("Yes, there is no doubt.", True),
        ("No.", False),
        ("No, there is not.", False),
        ("**No**", False),
        ("There is no dog in the image.", False),
        ("The image does not show a dog.", False),
        ("I would say yes", True),
        ("The answer is: no", False),
        ("I see a tail and ears.\nAnswer: yes", True),
        ("Yes. The dog is not on the sofa.", True),
        ("Yes. No other dogs are visible.", True),
        ("No.\nYes is what one might think at first.", False),
        ("There is no cat. Yes, a dog.", True),
    ],
)
def test_yes_and_no(text: str, yes: bool):
    assert read_yes_no(text).yes is yes


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "unreadable"),
        ("a dog", "unreadable"),
        ("Yes. No.", "conflicting"),
        ("yes\nno", "conflicting"),
        ("Yes. The answer is no", "conflicting"),
        ("No, none. Yes, one.", "conflicting"),
    ],
)
def test_neither_and_both(text: str, problem: str):
    reading = read_yes_no(text)
    assert reading.yes is None and reading.problem == problem
