"""GenEval's and GenEval++'s metadata: what becomes of each key, what is refused with its line, what tiny can draw."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigap.benchmarks.files import FileItems, read_item_file
from unigap.benchmarks.geneval import inside, read_geneval
from unigap.benchmarks.unisandbox_lines import answer_text
from unigap.errors import CannotAskError, ItemFileError
from unigap.items import Composition, Item, Part
from unigap.judges.exact import ExactJudge
from unigap.scenes.render import parse_scene, render

LINES = [
    {"tag": "single_object", "include": [{"class": "kite", "count": 1}], "prompt": "one kite"},
    {
        "tag": "counting", "include": [{"class": "kite", "count": 3}], "exclude": [{"class": "kite", "count": 4}],
        "prompt": "three kites",
    },
    {
        "tag": "position",
        "include": [{"class": "pen", "count": 1}, {"class": "cup", "count": 1, "position": ["left of", 0]}],
        "prompt": "a cup, and a pen to its right",
    },
    {
        "tag": "color_attr",
        "include": [{"class": "kite", "count": 1, "color": "red"}, {"class": "cup", "count": 1, "color": "blue"}],
        "prompt": "a red kite and a blue cup",
    },
]  # fmt: skip
PLUS = [
    {
        "tag": "spatial_count_attr",
        "include": [{"class": "kite", "count": 2, "region": "above"}, {"class": "cup", "count": 3, "region": "below"}],
        "prompt": "two kites above, three cups below",
    },
    {
        "tag": "size_spatial_attr",
        "include": [
            {"class": "kite", "count": 1, "size": "larger", "region": "left"},
            {"class": "cup", "count": 1, "size": "smaller", "region": "right"},
        ],
        "prompt": "a larger kite on the left and a smaller cup on the right",
    },
    {"tag": "color_attr", "include": [{"class": "kite", "count": 1, "color": "red"}], "prompt": "a red kite"},
]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_every_key_of_geneval_becomes_a_part(tmp_path: Path):
    items = read_geneval(write(tmp_path / "evaluation_metadata.jsonl", LINES))
    assert [item.id for item in items] == [f"evaluation_metadata/0000{n}" for n in range(4)]
    assert [item.family for item in items] == [
        f"geneval/{tag}" for tag in ("single_object", "counting", "position", "color_attr")
    ]
    assert all(item.question == "" and item.prompt == item.caption for item in items)
    assert [item.answer for item in items] == [
        Composition(parts=parts, only=False)
        for parts in (
            (Part(object="kite", at_least=True),),
            (Part(object="kite", n=3),),
            (Part(object="pen", at_least=True), Part(object="cup", at_least=True, relation="left of", to=0)),
            (Part(object="kite", at_least=True, color="red"), Part(object="cup", at_least=True, color="blue")),
        )
    ]
    assert [answer_text(item.answer) for item in items] == [
        "at least 1 kite",
        "3 kites",
        "at least 1 cup to the left of at least 1 pen",
        "at least 1 red kite and at least 1 blue cup",
    ]


def test_geneval_plus_plus_counts_exactly_and_has_regions_and_sizes(tmp_path: Path):
    items = read_geneval(write(tmp_path / "meta.jsonl", PLUS))
    assert {item.family.partition("/")[0] for item in items} == {"geneval++"}
    assert [answer_text(item.answer) for item in items] == [
        "2 kites in the upper part and 3 cups in the lower part",
        "a larger kite in the left part and a smaller cup in the right part",
        "a red kite",
    ]
    # A tag that both have is the one or the other by the file's name.
    both = PLUS[2:]
    assert read_geneval(write(tmp_path / "Geneval++.jsonl", both))[0].family == "geneval++/color_attr"
    assert read_geneval(write(tmp_path / "a.jsonl", both))[0].family == "geneval/color_attr"


def line(**changes: Any) -> dict[str, Any]:
    return {k: v for k, v in {**LINES[0], **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON list"),
        (line(tag=None), "tag None"),
        (line(prompt=" "), "prompt ' '"),
        (line(include=[]), '"include" is []'),
        (line(include="cup"), "\"include\" is 'cup'"),
        (line(include=[3]), "include[0] is 3"),
        (line(include=[{"count": 1}]), 'include[0]: "class" is None'),
        (line(include=[{"class": "kite", "count": 0}]), '"count" is 0, expected a whole number from 1 on'),
        (line(include=[{"class": "kite", "count": True}]), '"count" is True'),
        (line(include=[{"class": "kite", "count": 1, "shape": "round"}]), "asks for shape, which nothing here"),
        (line(include=[{"class": "kite", "count": 1, "color": 3}]), '"color" is 3'),
        (line(include=[{"class": "kite", "count": 1, "size": "huge"}]), "\"size\" is 'huge', expected one of: larger"),
        (line(include=[{"class": "kite", "count": 1, "position": ["left of", 0]}]), '"position" is'),
        (line(include=[{"class": "kite", "count": 1, "position": ["near", 0]}]), "expected [one of left of"),
        (line(exclude=[{"class": "kite", "count": 5}]), "does not fit 1 of it; expected 2"),
        (line(exclude=[{"class": "cup", "count": 2}]), "of which nothing is included; expected 1"),
    ],
)  # fmt: skip
def test_a_bad_line_is_refused_with_file_line_and_what_was_expected(tmp_path: Path, bad: Any, why: str):
    path = write(tmp_path / "m.jsonl", [LINES[0], bad])
    with pytest.raises(ItemFileError) as caught:
        read_geneval(path)
    assert why in str(caught.value) and "m.jsonl, line 2" in str(caught.value)
    assert 'expected {"tag"' in str(caught.value) or "expected" in why


def test_an_excluded_kind_must_not_be_there(tmp_path: Path):
    (item,) = read_geneval(
        write(
            tmp_path / "m.jsonl", [line(include=[{"class": "cup", "count": 1}], exclude=[{"class": "pen", "count": 1}])]
        )
    )
    judge = ExactJudge()
    verdicts = [
        judge.judge_picture(item, render(parse_scene(f"scene:grid:{cells}"))).verdict
        for cells in ("cup,.,.,.,.,.,.,.,.", "cup,cup,hat,.,.,.,.,.,.", "cup,pen,.,.,.,.,.,.,.")
    ]
    assert verdicts == ["correct", "correct", "incorrect"]


def test_the_format_is_told_from_the_first_line_and_the_sandbox_is_asked_what_it_can_draw(tmp_path: Path):
    path = write(tmp_path / "m.jsonl", LINES)
    file = read_item_file(path)
    assert file.coverage is not None and (file.coverage.inside, file.coverage.total) == (1, 4)
    items = FileItems.read([path]).inside()
    assert [item.family for item in items] == ["geneval/position"]
    assert dict(items.outside) == {
        "m/00000": "kite: not an object of the sandbox",
        "m/00001": "kite: not an object of the sandbox",
        "m/00003": "kite: not an object of the sandbox",
    }
    with pytest.raises(CannotAskError, match="all 1 items are outside"):
        FileItems.read([write(tmp_path / "one.jsonl", LINES[:1])]).inside()


def test_all_entries_count_towards_what_a_picture_holds_also_two_of_one_kind(tmp_path: Path):
    twice = {
        "tag": "counting",
        "prompt": "five cups and six more",
        "include": [{"class": "cup", "count": n} for n in (5, 6)],
    }
    (item,) = read_geneval(write(tmp_path / "m.jsonl", [twice]))
    assert inside(item) == "11 objects: a picture holds at most 9"


def test_prompts_without_metadata_are_refused_with_what_to_give_instead(tmp_path: Path):
    (tmp_path / "Geneval++.txt").write_text("one kite\n")
    with pytest.raises(ItemFileError, match="holds prompts alone.*give the .jsonl"):
        read_item_file(tmp_path / "Geneval++.txt")


KINDS = st.sampled_from(["kite", "cup", "pen", "traffic light"])
ENTRIES = st.fixed_dictionaries(
    {"class": KINDS, "count": st.integers(1, 12)},
    optional={"color": st.sampled_from(["red", "blue"]), "size": st.just("larger"), "region": st.just("above")},
)


@given(st.lists(ENTRIES, min_size=1, max_size=4, unique_by=lambda entry: entry["class"]), st.booleans())
def test_any_metadata_reads_and_survives_the_item_file(
    tmp_path_factory: pytest.TempPathFactory, include: list[dict[str, Any]], limited: bool
):
    exclude = [{"class": one["class"], "count": one["count"] + 1} for one in include] if limited else []
    path = tmp_path_factory.mktemp("g") / "m.jsonl"
    write(path, [{"tag": "counting", "include": include, "exclude": exclude, "prompt": "a picture"}])
    (item,) = read_geneval(path)
    assert Item.from_json(json.loads(json.dumps(item.to_json()))) == item
    assert isinstance(item.answer, Composition) and len(item.answer.parts) == len(include)
    for part, entry in zip(item.answer.parts, include, strict=True):
        assert (part.object, part.n, part.color) == (entry["class"], entry["count"], entry.get("color", ""))
        assert part.at_least == (not limited)
    known = all(set(one) == {"class", "count"} and one["class"] in ("cup", "pen") for one in include)
    fits = sum(one["count"] for one in include) <= 9
    assert (inside(item) is None) == (known and fits)
