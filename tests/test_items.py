"""Items round-trip through JSON lines, and a bad line is named with file, number and what was expected."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigap.errors import ItemFileError, UnknownNameError
from unigap.items import (
    Character,
    Check,
    Checklist,
    Composition,
    Count,
    Counts,
    FreeText,
    Item,
    Object,
    Part,
    Portrait,
    Traits,
    YesNo,
    find_suite,
    items_sha256,
    read_items,
    write_items,
)
from unigap.scenes import FAMILIES, make_items

PORTRAIT = Portrait(gender="female", age="old", hair="red", skin="light")
ANSWERS = [
    Count(object="cup", n=2),
    Counts(counts={"cup": 2, "apple": 1}),
    Object(object="rose"),
    PORTRAIT,
    Character(name="Zamiro", portrait=PORTRAIT),
    Traits(traits={"hair": "red"}),
    Composition(parts=(Part(object="pen"), Part(object="cup", n=2, color="red", relation="left of", to=0)), only=False),
    Checklist(checks=(Check(id=1, question="A door?"), Check(id=2, question="Is it red?", parents=(1,), category="x"))),
    YesNo(yes=False),
    FreeText(text="a whale"),
]


def an_item(**changes: object) -> Item:
    names = {"id": "x/1", "family": "x", "unit": "x/1", "cluster": "x/1"}
    texts = {"question": "q", "prompt": "p", "caption": "c"}
    return Item(**{**names, **texts, "answer": ANSWERS[0], **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.kind)
def test_every_kind_of_answer_survives_json(answer: object):
    item = an_item(answer=answer, other=answer, images=("scene:grid:.",))
    assert Item.from_json(json.loads(json.dumps(item.to_json()))) == item


@pytest.mark.parametrize("way", ["question", "prompt"])
def test_an_item_may_be_asked_one_way_alone(way: str):
    item = an_item(**{way: ""})
    assert Item.from_json(json.loads(json.dumps(item.to_json()))) == item


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_any_text_survives_json(identity: str, question: str, prompt: str):
    item = an_item(id=identity, question=question, prompt=prompt)
    assert Item.from_json(json.loads(json.dumps(item.to_json()))) == item


def test_every_family_survives_a_file(tmp_path: Path):
    items = list(make_items(FAMILIES, num_units=3, seed=4))
    assert write_items(tmp_path / "items.jsonl", items) == len(items)
    assert list(read_items(tmp_path / "items.jsonl")) == items


IN_A_CIRCLE = [
    {"object": "cup", "relation": "left of", "to": 1},
    {"object": "pen", "relation": "left of", "to": 0},
]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{not json", "line 2: not an item: Expecting property name"),
        ("[1, 2]", "line 2: not an item: expected a JSON object, found list"),
        ('{"id": "a"}', 'line 2: not an item: "family" must be a non-empty string, found None'),
        (json.dumps(an_item().to_json() | {"answer": 3}), '"answer" must be an object with a "kind", found 3'),
        (
            json.dumps(an_item().to_json() | {"answer": {"kind": "smell"}}),
            "answer \"kind\" is 'smell', expected one of",
        ),
        (json.dumps(an_item().to_json() | {"answer": {"kind": "count"}}), "answer of kind 'count'"),
        (json.dumps(an_item().to_json() | {"images": "a.png"}), '"images" must be a list of strings'),
        (json.dumps(an_item().to_json() | {"question": "", "prompt": ""}), '"question" must be a non-empty string'),
        (json.dumps(an_item().to_json() | {"answer": {"kind": "composition"}}), "has no 'parts'"),
        (json.dumps(an_item().to_json() | {"answer": {"kind": "composition", "parts": []}}), "at least one part"),
        (
            json.dumps(
                an_item().to_json() | {"answer": {"kind": "composition", "parts": [{"object": "cup", "to": 0}]}}
            ),
            'part 0: "relation" and "to" belong together',
        ),
        (
            json.dumps(an_item().to_json() | {"answer": {"kind": "composition", "parts": IN_A_CIRCLE}}),
            'part 0: "to" leads back to a part it came from',
        ),
        (
            json.dumps(an_item().to_json() | {"answer": {"kind": ["count"]}}),
            "answer \"kind\" is ['count'], expected one of",
        ),
        (json.dumps(an_item().to_json() | {"answer": {"kind": "checklist", "checks": []}}), "at least one question"),
        (json.dumps(an_item().to_json() | {"colour": "red"}), "unexpected keyword argument 'colour'"),
        (json.dumps(an_item().to_json() | {"schema": 9}), '"schema" is 9; this version reads 1'),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_what_was_expected(tmp_path: Path, line: str, expected: str):
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(an_item().to_json()) + "\n" + line + "\n")
    with pytest.raises(ItemFileError) as caught:
        list(read_items(path))
    assert expected in str(caught.value) and "items.jsonl, line 2" in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "none.jsonl").write_text("\n\n")
    with pytest.raises(ItemFileError, match="holds no items"):
        list(read_items(tmp_path / "none.jsonl"))


def test_the_hash_of_items_sees_order_and_content():
    a, b = an_item(id="a"), an_item(id="b")
    assert items_sha256([a, b]) == items_sha256([a, b]) != items_sha256([b, a])


def test_an_unknown_suite_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="unknown suite 'nope'; known: sandbox"):
        find_suite("nope")
