"""The exact judge on pictures and on texts: what is right, what is wrong, and under which code."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.fakes import make_item

from unigap.errors import CannotJudgeError, UnknownNameError
from unigap.items import Answer, Character, Composition, Count, Counts, FreeText, Object, Part, Portrait, Traits
from unigap.judges import find_judge
from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Judge
from unigap.records import Ruling
from unigap.scenes import FAMILIES, make_items
from unigap.scenes.places import arrange
from unigap.scenes.render import Scene, all_portraits, place, render, someone
from unigap.scenes.vocabulary import NUM_CELLS, NUMBER_WORDS, OBJECTS, counted, describe_portrait, plural

JUDGE = ExactJudge()
WOMAN = Portrait(gender="female", age="old", hair="red", skin="tan")
BOY = Portrait(gender="male", age="kid", hair="black", skin="dark")
ANNA, BORIS = Character(name="Anna", portrait=WOMAN), Character(name="Boris", portrait=BOY)

CUPS = Count(object="cup", n=2)
BOTH = Counts(counts={"cup": 2, "apple": 1})
CUP = Object(object="cup")


def read_text(answer: Answer, text: str, other: Answer | None = None) -> Ruling:
    return JUDGE.judge_text(make_item(0, answer=answer, other=other), text)


def read_scene(answer: Answer, scene: Scene | dict[str, int], other: Answer | None = None) -> Ruling:
    drawn = place(scene, random.Random(0)) if isinstance(scene, dict) else scene
    return JUDGE.judge_picture(make_item(0, answer=answer, other=other), render(drawn))


def said(ruling: Ruling) -> str:
    assert ruling.verdict == ("incorrect" if ruling.error else "correct")
    return ruling.error or "correct"


# ---- pictures --------------------------------------------------------------------------------------------------------

PICTURES: list[tuple[Answer, Any, str, str]] = [
    (CUPS, {"cup": 2}, "correct", ""),
    (CUPS, {"cup": 3}, "wrong_count", "3 cups, expected 2"),
    (CUPS, {"cup": 1}, "wrong_count", "1 cup, expected 2"),
    (CUPS, {"cup": 2, "apple": 1}, "extra_object", "1 apple and 2 cups, expected 2 cups"),
    (CUPS, {"apple": 2}, "wrong_object", "2 apples, expected 2 cups"),
    (CUPS, {}, "blank", "nothing is drawn, expected 2 cups"),
    (CUPS, WOMAN, "wrong_object", "a portrait, expected 2 cups"),
    (BOTH, {"cup": 2, "apple": 1}, "correct", ""),
    (BOTH, {"cup": 1, "apple": 2}, "wrong_split", "2 apples and 1 cup, expected 2 cups and 1 apple"),
    (BOTH, {"cup": 2, "apple": 2}, "wrong_count", "2 apples and 2 cups, expected 2 cups and 1 apple"),
    (BOTH, {"cup": 3}, "wrong_object", "3 cups, expected 2 cups and 1 apple"),
    (
        BOTH,
        {"cup": 2, "apple": 1, "pen": 1},
        "extra_object",
        "1 apple and 2 cups and 1 pen, expected 2 cups and 1 apple",
    ),
    (CUP, {"cup": 1}, "correct", ""),
    (CUP, {"cup": 9}, "correct", ""),
    (CUP, {"cup": 1, "pen": 1}, "extra_object", "1 cup and 1 pen, expected cup"),
    (CUP, {"pen": 1}, "wrong_object", "1 pen, expected cup"),
    (WOMAN, WOMAN, "correct", ""),
    (
        WOMAN,
        Portrait(gender="female", age="old", hair="black", skin="light"),
        "wrong_attribute",
        "hair black, skin light, expected an old tan-skinned woman with red hair",
    ),
    (WOMAN, {"cup": 1}, "wrong_object", "1 cup, expected an old tan-skinned woman with red hair"),
    (ANNA, WOMAN, "correct", ""),
    (
        ANNA,
        BOY,
        "wrong_attribute",
        "gender male, age kid, hair black, skin dark, expected an old tan-skinned woman with red hair",
    ),
]


@pytest.mark.parametrize(("answer", "scene", "code", "why"), PICTURES)
def test_pictures(answer: Answer, scene: Any, code: str, why: str):
    ruling = read_scene(answer, scene)
    assert (said(ruling), ruling.why) == (code, why)
    assert ruling.reading
    assert ruling.reading["kind"] in ("objects", "portrait", "blank")


def test_an_unreadable_picture_is_the_models_failure():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8))
    ruling = JUDGE.judge_picture(make_item(0, answer=CUPS), noise)
    assert said(ruling) == "unreadable"
    assert ruling.why.startswith("unreadable (none of the 9 cells shows")


@pytest.mark.parametrize(
    ("answer", "other", "scene"),
    [
        (CUP, Object(object="book"), {"book": 1}),
        (CUPS, Count(object="cup", n=3), {"cup": 3}),
        (WOMAN, BOY, BOY),
        (ANNA, BORIS, BOY),
    ],
)
def test_the_tempting_wrong_picture_has_a_code_of_its_own(answer: Answer, other: Answer, scene: Any):
    assert said(read_scene(answer, scene)) in ("wrong_object", "wrong_count", "wrong_attribute")
    ruling = read_scene(answer, scene, other)
    assert said(ruling) == "pair_other"
    assert ", the other answer, expected " in ruling.why
    assert said(read_scene(answer, {"pen": 1}, other)) == "wrong_object"


@given(st.dictionaries(st.sampled_from(OBJECTS), st.integers(1, 3), min_size=1, max_size=3), st.integers(0, 99))
def test_a_rendered_answer_is_correct_and_one_more_object_is_not(counts: dict[str, int], seed: int):
    answer: Answer = (
        Counts(counts=counts) if len(counts) > 1 else Count(object=next(iter(counts)), n=sum(counts.values()))
    )
    item, rng = make_item(0, answer=answer), random.Random(seed)
    changed = dict(counts)
    if sum(counts.values()) < NUM_CELLS:
        name = rng.choice(OBJECTS)
        changed[name] = changed.get(name, 0) + 1
    else:
        changed.popitem()
    right, wrong = JUDGE.judge_pictures([item] * 2, [render(place(what, rng)) for what in (counts, changed)])
    assert right.verdict == "correct"
    assert wrong.verdict == "incorrect"


def test_every_portrait_is_told_from_every_other_one():
    portraits = all_portraits()
    images = [render(portrait) for portrait in portraits]
    for portrait in portraits[::9]:
        rulings = JUDGE.judge_pictures([make_item(0, answer=portrait)] * len(images), images)
        assert [ruling.verdict == "correct" for ruling in rulings] == [portrait == other for other in portraits]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_familys_own_answers_are_right_and_the_others_are_not(family: str):
    for item in make_items([family], num_units=25, seed=1):
        text = item.answer.name if isinstance(item.answer, Character) else item.caption
        assert said(JUDGE.judge_text(item, text)) == "correct"
        assert said(JUDGE.judge_picture(item, render(scene_of(item.answer)))) == "correct"
        if item.other is not None:
            assert said(JUDGE.judge_picture(item, render(scene_of(item.other)))) == "pair_other"


def scene_of(answer: Answer) -> Scene:
    match answer:
        case Count(object=name, n=n):
            return place({name: n}, random.Random(0))
        case Counts(counts=counts):
            return place(counts, random.Random(0))
        case Object(object=name):
            return place({name: 1}, random.Random(0))
        case Character(portrait=portrait):
            return portrait
        case Portrait():
            return answer
        case Traits(traits=traits):
            return someone(traits, random.Random(0))
        case Composition():
            return arrange(answer, random.Random(0))
        case _:
            raise ValueError(f"an answer of kind {answer.kind} has no picture")


# ---- texts: a number -------------------------------------------------------------------------------------------------

THREE = Count(object="cup", n=3)


@pytest.mark.parametrize(
    "text",
    [
        "3", "three", "Three.", " 3 cups ", "three cups", "3 mugs", "3.0", "cups: 3", "cups (3)", "**3**", "\\boxed{3}",
        "There are 3 red cups on a table.", "3 + 1 = 4, 4 - 1 = 3", "2 + 1 = 3, so 3 cups", "The value of 2 + 1 is 3.",
        "Answer: 3", "The answer is 3 because 4 - 1 = 3.", "3 is the answer, not 4", "The answer is not 4 but 3",
        "Answer:\n3", "I thought 4. It is 3.", "Step 1: 2 + 2 = 4.\nStep 2: 4 - 1 = 3.", "answer: 3. Answer: 3 cups",
        "3 cups (three)", "3 cups, not 4", "3 cups instead of 4", "2 times 2 minus 1 gives 3", "3 orange cups",
        "3 objects", "4 -> 3", "There are three.", "The cups are 3 in number",
    ],
)  # fmt: skip
def test_texts_that_say_three_cups(text: str):
    ruling = read_text(THREE, text)
    assert ruling.verdict == "correct", ruling
    assert ruling.reading
    assert ruling.reading["n"] == 3


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("4", "wrong_count", "4, expected 3"),
        ("4 cups", "wrong_count", "4 cups, expected 3"),
        ("a cup", "wrong_count", "1 cup, expected 3"),
        ("no cups", "wrong_object", "nothing, expected 3 cups"),
        ("-3", "wrong_count", "-3, expected 3"),
        ("3.5 cups", "wrong_count", "3.5 cups, expected 3"),
        ("1,003", "wrong_count", "1003, expected 3"),
        ("3 apples", "wrong_object", "3 apples, expected 3 cups"),
        ("3 dragons", "wrong_object", "3 dragons, expected 3 cups"),
        ("3 cups and 1 apple", "extra_object", "3 cups and 1 apple, expected 3 cups"),
        ("3 or 4 cups", "conflicting", "'3 or 4 cups' holds more than one answer, expected 3 cups"),
        ("3-4 cups", "conflicting", "'3-4 cups' holds more than one answer, expected 3 cups"),
        ("2 + 1", "conflicting", "'2 + 1' holds more than one answer, expected 3 cups"),
        ("6/2", "conflicting", "'6/2' holds more than one answer, expected 3 cups"),
        ("first 4, no: 3.", "conflicting", "'first 4, no: 3' holds more than one answer, expected 3 cups"),
        ("answer: 3 ... answer: 4", "conflicting", "'3 ..' and '4', expected 3 cups"),
        ("answer: 4, answer: 3", "conflicting", "'4' and '3', expected 3 cups"),
        ("It is 3. So the answer is 4.", "wrong_count", "4, expected 3"),
        ("cups", "unreadable", "no number in 'cups', expected 3 cups"),
        ("", "unreadable", "empty, expected 3 cups"),
        ("I cannot say.", "unreadable", "no number in 'I cannot say.', expected 3 cups"),
    ],
)
def test_texts_that_do_not_say_three_cups(text: str, code: str, why: str):
    ruling = read_text(THREE, text)
    assert (said(ruling), ruling.why) == (code, why)


def test_worked_example_of_the_final_rule():
    assert said(read_text(Count(object="apple", n=4), "3 + 1 = 4, so 4 apples")) == "correct"


@pytest.mark.parametrize("n", range(1, 10))
def test_digits_and_words_are_the_same_number(n: int):
    for text in (f"{n}", NUMBER_WORDS[n], counted("cup", n), f"{NUMBER_WORDS[n]} {'cup' if n == 1 else 'cups'}."):
        assert said(read_text(Count(object="cup", n=n), text)) == "correct"
    assert said(read_text(Count(object="cup", n=1), "a cup")) == "correct"


def test_the_pairs_other_number_has_a_code_of_its_own():
    ruling = read_text(THREE, "4", Count(object="cup", n=4))
    assert (said(ruling), ruling.why) == ("pair_other", "4, the other answer, expected 3 cups")


# ---- texts: several numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "2 cups and 1 apple", "one apple, two cups", "There are 2 cups and there is an apple.", "cups: 2, apples: 1",
        "cups = 2; apples = 1, so cups = 2, apples = 1", "a apple and two mugs", "2 are cups and 1 is an apple",
        "- 2 cups\n- 1 apple", "2 cups and 1 apple, so 3 objects", "Answer: 2 cups and 1 apple",
        "2 cups, 1 apple and no pens",
    ],
)  # fmt: skip
def test_texts_that_say_two_cups_and_an_apple(text: str):
    ruling = read_text(BOTH, text)
    assert ruling.verdict == "correct", ruling


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1 cup and 2 apples", "wrong_split"),
        ("2 cups and 2 apples", "wrong_count"),
        ("3 cups", "wrong_object"),
        ("2 cups, 1 apple and 1 pen", "extra_object"),
        ("2 cups or 1 apple", "conflicting"),
        ("2 cups, 1 apple, 3 cups", "conflicting"),
        ("3 objects", "unreadable"),
        ("cups and apples", "unreadable"),
    ],
)
def test_texts_that_do_not_say_two_cups_and_an_apple(text: str, code: str):
    assert said(read_text(BOTH, text)) == code


# ---- texts: an object ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_is_read_in_every_form(name: str):
    for text in (
        name,
        name.upper(),
        f"a {name}",
        f"It is the {name}.",
        plural(name),
        f"3 {plural(name)}",
        f"**{name}**",
    ):
        assert said(read_text(Object(object=name), text)) == "correct"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A means book; book means cup", "correct"),
        ("A -> book -> cup", "correct"),
        ("A means book, so it is the cup", "correct"),
        ("cup, not book", "correct"),
        ("It is the cup because A is the book", "correct"),
        ("book? No. cup", "correct"),
        ("mug", "correct"),
        ("book", "pair_other"),
        ("pen", "wrong_object"),
        ("cup or book", "conflicting"),
        ("cup and book", "conflicting"),
        ("Answer: cup. Answer: book", "conflicting"),
        ("unicorn", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_texts_about_a_cup(text: str, code: str):
    assert said(read_text(CUP, text, Object(object="book"))) == code


# ---- texts: people ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", all_portraits())
def test_every_portrait_is_read_from_its_description(person: Portrait):
    ruling = read_text(person, f"It is {describe_portrait(person)}.")
    assert ruling.verdict == "correct", ruling


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("an elderly woman with tan skin and red hair", "correct"),
        ("Gender: female; age: old; hair: red; skin: tan", "correct"),
        ("Her hair is red. Her skin is tan. She is an old lady.", "correct"),
        ("an old, red-haired, tan-skinned woman", "correct"),
        ("an old tan woman", "wrong_attribute"),
        ("a tan-skinned woman with red hair", "wrong_attribute"),
        ("an old dark-skinned woman with red hair", "wrong_attribute"),
        ("a dark-skinned boy with black hair", "pair_other"),
        ("an old tan-skinned woman with red or black hair", "conflicting"),
        ("an old tan-skinned woman or man with red hair", "conflicting"),
        ("somebody", "unreadable"),
    ],
)
def test_texts_about_an_old_woman(text: str, code: str):
    assert said(read_text(WOMAN, text, BOY)) == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Anna", "correct"),
        ("it is ANNA.", "correct"),
        ("Anna, not Boris", "correct"),
        ("Anna or Boris? Anna.", "correct"),
        ("The one who likes cups is Anna", "correct"),
        ("Boris", "pair_other"),
        ("Anna or Boris", "conflicting"),
        ("Ann", "unreadable"),
        ("Annabel", "unreadable"),
    ],
)
def test_texts_about_anna(text: str, code: str):
    assert said(read_text(ANNA, text, BORIS)) == code


def test_why_a_wrong_attribute_is_wrong():
    ruling = read_text(WOMAN, "a tan-skinned woman with red hair")
    assert ruling.why == "age not said, expected an old tan-skinned woman with red hair"


@given(st.text(max_size=80))
def test_any_text_gets_a_ruling(text: str):
    for answer in (THREE, BOTH, CUP, WOMAN, ANNA):
        assert read_text(answer, text).verdict in ("correct", "incorrect")


# ---- the judge itself ------------------------------------------------------------------------------------------------


def test_free_text_is_refused():
    with pytest.raises(CannotJudgeError, match="exact reads only sandbox answers"):
        read_text(FreeText(text="it depends"), "it depends")


def test_a_place_of_another_benchmark_is_refused_with_the_places_that_are_known():
    cup = Composition(parts=(Part(object="cup", place="left part"),), only=False)
    with pytest.raises(CannotJudgeError, match="no place is called 'left part'; expected one of: top left, "):
        read_scene(cup, {"cup": 1})


def test_judges_are_found_by_name_or_class():
    assert isinstance(find_judge("exact"), ExactJudge)
    assert isinstance(find_judge("unigap.judges.exact:ExactJudge"), Judge)
    for name in ("exakt", "no.such.module:Class", "unigap.judges.exact:NoJudge", ""):
        with pytest.raises(UnknownNameError, match="known: exact, rubric, vlm, their.module:Class"):
            find_judge(name)
