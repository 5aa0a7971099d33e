"""Item files of either format, and what is set aside as outside the sandbox's world."""

import json
from pathlib import Path

import pytest
from tests.fakes import make_item

from unigap.benchmarks.files import FileItems, MadeItems, read_item_file
from unigap.errors import CannotAskError, ItemFileError, UnknownNameError
from unigap.items import write_items


def write(path: Path, *objects: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(data) + "\n" for data in objects), encoding="utf-8")
    return path


def test_format_is_told_from_the_first_line(tmp_path):
    write_items(tmp_path / "ours.jsonl", [make_item(0), make_item(1)])
    ours = read_item_file(tmp_path / "ours.jsonl")
    assert ours.items == (make_item(0), make_item(1)) and ours.coverage is None
    theirs = read_item_file(
        write(tmp_path / "math_1.jsonl", {"Question": "Draw 1 + 1 cups.", "Answer": "2 cups", "id": "1"})
    )
    assert [item.id for item in theirs.items] == ["math_1/1"] and theirs.coverage is not None


@pytest.mark.parametrize("text", ["", "\n\n", "{", "[1]\n", "3\n"])
def test_files_that_hold_no_items_are_refused(tmp_path, text):
    (tmp_path / "items.jsonl").write_text(text)
    with pytest.raises(ItemFileError, match=r"items\.jsonl"):
        read_item_file(tmp_path / "items.jsonl")


def test_a_pair_with_one_half_outside_is_outside_whole(tmp_path):
    half = {"ID": "1", "Answer": "dragon", "Question_A": "Rule 1: A = dragon. Please generate A."}
    other = {"ID": "1", "Answer": "cat", "Question_B": "Rule 1: A = cat. Please generate A."}
    math = {"Question": "Draw 1 + 1 cups.", "Answer": "2 cups", "id": "1"}
    items = FileItems.read([write(tmp_path / "mapping1.jsonl", half, other), write(tmp_path / "math_1.jsonl", math)])
    inside = items.inside()
    assert set(inside.outside) == {"mapping1/1/A", "mapping1/1/B"}
    assert len(set(inside.outside.values())) == 1


def test_own_items_are_never_set_aside(tmp_path):
    write_items(tmp_path / "ours.jsonl", [make_item(0, family="theirs", source="somewhere")])
    items = FileItems.read([tmp_path / "ours.jsonl"]).inside()
    assert len(items.kept) == 1 and not items.outside


def test_families_are_kept_by_name_and_unknown_ones_named(tmp_path):
    write_items(tmp_path / "ours.jsonl", [make_item(0), make_item(1, family="theirs")])
    assert [item.family for item in FileItems.read([tmp_path / "ours.jsonl"], ["theirs"])] == ["theirs"]
    with pytest.raises(UnknownNameError, match="known: plain, theirs"):
        FileItems.read([tmp_path / "ours.jsonl"], ["math1"])


def test_nothing_inside_is_refused(tmp_path):
    path = write(tmp_path / "math_1.jsonl", {"Question": "Draw 2 dragons.", "Answer": "2 dragons", "id": "1"})
    with pytest.raises(CannotAskError, match="all 1 items are outside"):
        FileItems.read([path]).inside()


def test_coverage_says_how_much_is_inside_and_why_the_rest_is_not(tmp_path):
    math = [
        {"Question": f"Draw 1 + 1 {name}.", "Answer": f"2 {name}", "id": str(number)}
        for number, name in enumerate(("cups", "dragons", "elves", "orcs"))
    ]
    file = read_item_file(write(tmp_path / "math_1.jsonl", *math))
    lines = list(file.coverage_lines(most=1))
    assert lines[0].startswith("math_1.jsonl: 1 of 4 items inside")
    assert lines[1].startswith("  1 outside: ") and lines[2] == "  2 outside for 2 other reasons"


def test_pictures_are_looked_for_beside_the_files_if_they_lie_together(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_items(tmp_path / name / "items.jsonl", [make_item(0)])
    assert FileItems.read([tmp_path / "a" / "items.jsonl"]).image_root == tmp_path / "a"
    assert FileItems.read([tmp_path / "a" / "items.jsonl", tmp_path / "b" / "items.jsonl"]).image_root is None


def test_made_items_can_be_gone_through_again():
    items = MadeItems(families=("math1",), num_units=3, seed=0)
    assert list(items) == list(items) and len(list(items)) == 3
