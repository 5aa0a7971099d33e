"""UniSandbox's files are read as they are, and what is outside the sandbox's world is said, never dropped."""

import json
from collections import Counter
from pathlib import Path

import pytest

from unigap.benchmarks.unisandbox import INCOMPLETE, coverage, derive_question, inside, read_unisandbox
from unigap.errors import ItemFileError
from unigap.items import Count, FreeText, Item, Object

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "unisandbox" / "benchmark"
needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="UniSandbox's published files are not at ../shared/data/unisandbox"
)


def write(path: Path, *objects: object, end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(data, ensure_ascii=False) for data in objects) + end, encoding="utf-8")
    return path


RULES = "Rule 1: The symbol # represents clocks. Rule 2: The symbol $ represents lamps. "
ASK = "Please generate the object represented by the symbol {}."


def pair(name: str = "3") -> tuple[dict[str, str], dict[str, str]]:
    return (
        {"ID": name, "Question_A": RULES + ASK.format("#"), "Answer": "Clocks"},
        {"ID": name, "Question_B": RULES + ASK.format("$"), "Answer": "Lamps"},
    )


def test_a_math_line_is_an_item_with_its_published_answer(tmp_path: Path):
    line = {"Question": "Provide as many pens as 10 % 3 + 1.", "Answer": "4 pens.", "id": "9"}  # the label is wrong
    (item,) = read_unisandbox(write(tmp_path / "math_2.jsonl", line))
    assert item == Item(
        id="math_2/9",
        family="math2",
        unit="math_2/9",
        cluster="math_2/9",
        question='How many objects does this prompt ask for: "Provide as many pens as 10 % 3 + 1."',
        prompt="Provide as many pens as 10 % 3 + 1.",
        caption="4 pens",
        answer=Count(object="pen", n=4),
        source="math_2.jsonl",
        derived=True,
    )
    assert inside(item) is None


def test_two_mapping_lines_are_a_pair(tmp_path: Path):
    a, b = read_unisandbox(write(tmp_path / "mapping1.jsonl", *pair()))
    assert (a.id, b.id, a.unit, a.cluster, b.unit) == ("mapping1/3/A", "mapping1/3/B", *["mapping1/3"] * 3)
    assert (a.answer, a.other, b.answer, b.other) == (Object(object="clock"), b.answer, Object(object="lamp"), a.answer)
    assert a.question == RULES + "Which object is represented by the symbol #?"
    assert (a.family, a.variant, a.derived, inside(a), inside(b)) == ("mapping1", "", True, None, None)


@pytest.mark.parametrize("name", ["id", "ID", "Question_id"])
def test_every_name_of_the_id_is_accepted(tmp_path: Path, name: str):
    line = {"Question": "Draw as many cups as 1 + 1.", "Answer": "2 cups", name: 7}
    (item,) = read_unisandbox(write(tmp_path / "math_1.jsonl", line))
    assert item.id == "math_1/7"


def test_files_joined_without_a_final_newline_are_read_whole(tmp_path: Path):
    lines = [{"Question": f"Draw as many cups as {n} + 1.", "Answer": f"{n + 1} cups", "id": n} for n in (1, 2, 3)]
    joined = "".join(json.dumps(line) for line in lines[:2]) + "\n\n" + json.dumps(lines[2])
    path = tmp_path / "math_1.jsonl"
    path.write_text(joined, encoding="utf-8")
    assert [item.unit for item in read_unisandbox(path)] == ["math_1/1", "math_1/2", "math_1/3"]


def test_a_line_with_both_questions_is_half_a_and_is_reported(tmp_path: Path):
    a, b = pair()
    both = {**a, "Question_B": b["Question_B"]}
    alone = write(tmp_path / "mapping1.jsonl", both)
    (item,) = read_unisandbox(alone)
    assert (item.id, item.variant, inside(item)) == ("mapping1/3/A", INCOMPLETE, INCOMPLETE)
    found = coverage(alone)
    assert (found.inside, found.total, found.outside) == (0, 1, {INCOMPLETE: 1})
    assert [note.split(";")[0] for note in found.notes] == [
        "line 1: ID 3 carries Question_A and Question_B",
        "ID 3: only one half",
    ]
    followed = coverage(write(tmp_path / "mapping2.jsonl", both, b))
    assert (followed.inside, len(followed.notes)) == (1, 1)


@pytest.mark.parametrize(
    ("stem", "prompt", "family"),
    [
        ("math_3", "Draw as many cups as 1 + 1.", "math3"),
        ("anything", "Draw as many cups as 1 + 1.", "math1"),
        ("anything", "Draw as many cups as √9 - 1.", "math2"),
        ("anything", "Draw as many cups as 9 minus 1 minus 2 minus 3 minus 1.", "math3"),
        ("forward", "Draw Someone.", "forward"),
        ("inverse", "Draw Someone.", "inverse"),
        ("Zefyria", "Generate a photorealistic portrait of character Zefyria from WhyUni Lab.", "forward"),
        ("Both", "From the characters Nyx and Zef from WhyUni Lab, generate a portrait of the one whose x.", "inverse"),
    ],
)
def test_the_family_comes_from_the_name_or_else_from_the_question(tmp_path: Path, stem: str, prompt: str, family: str):
    (item,) = read_unisandbox(write(tmp_path / f"{stem}.jsonl", {"Question": prompt, "Answer": "x", "ID": 1}))
    assert item.family == family


def test_mapping_without_a_level_in_the_name_has_half_as_many_hops_as_rules(tmp_path: Path):
    six = " ".join(f"Rule {k}: {k} means cup." for k in range(1, 7)) + " Draw what 1 means."
    lines = (
        {"ID": 1, "Question_A": six, "Answer": "cup"},
        {"ID": 2, "Question_A": pair()[0]["Question_A"], "Answer": "x"},
    )
    assert [item.family for item in read_unisandbox(write(tmp_path / "x.jsonl", *lines))] == ["mapping3", "mapping1"]


@pytest.mark.parametrize(
    ("family", "prompt", "question"),
    [
        ("math1", "Draw 1 + 1 things.", 'How many objects does this prompt ask for: "Draw 1 + 1 things."'),
        (
            "math1",
            "Draw as many cups as the result of 1 + 1.",
            "How many cups are as many as the result of 1 + 1?",
        ),
        (
            "mapping1",
            "Rule 1: # is lamp. Please generate the device '#' is.",
            "Rule 1: # is lamp. What is the device '#' is?",
        ),
        ("mapping1", "Rule 1: # is lamp. Sketch #.", "Rule 1: # is lamp. Sketch #. Which object is that?"),
        (
            "forward",
            "Generate a photorealistic portrait of character Zefyria from WhyUni Lab.",
            "Describe character Zefyria from WhyUni Lab: gender, age group, hair color and skin color.",
        ),
        (
            "forward",
            "Generate a photorealistic image of the favorite fruit of character Zefyria from WhyUni Lab.",
            "What is the favorite fruit of character Zefyria from WhyUni Lab?",
        ),
        (
            "inverse",
            "From the characters A and B from WhyUni Lab, generate a portrait of the one whose favorite fruit is figs.",
            "From the characters A and B from WhyUni Lab, describe the one whose favorite fruit is figs: "
            "gender, age group, hair color and skin color.",
        ),
        ("forward", "Paint Zefyria.", 'What does this prompt ask to draw: "Paint Zefyria."'),
    ],
)
def test_questions_are_derived_by_the_documented_rules(family: str, prompt: str, question: str):
    assert derive_question(family, prompt) == question


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("2 dog", Count(object="dog", n=2)),
        ("Three Mugs.", Count(object="cup", n=3)),
        ("0 cups", Count(object="cup", n=0)),
        ("10 cups", FreeText(text="10 cups")),
        ("4 pairs of socks", FreeText(text="4 pairs of socks")),
        ("undefined", FreeText(text="undefined")),
    ],
)
def test_a_count_is_typed_if_the_sandbox_can_show_it(tmp_path: Path, answer: str, expected: Count | FreeText):
    line = {"Question": "Draw as many cups as 1 + 1.", "Answer": answer, "id": 1}
    (item,) = read_unisandbox(write(tmp_path / "math_1.jsonl", line))
    assert item.answer == expected
    assert (inside(item) is None) == isinstance(expected, Count)


def test_characters_of_others_are_outside_and_named(tmp_path: Path):
    line = {
        "ID": 1,
        "Question": "Generate a photorealistic portrait of character Zefyria from W.",
        "Answer": "A woman.",
    }
    (item,) = read_unisandbox(write(tmp_path / "Zefyria.jsonl", line))
    assert inside(item) == "Zefyria: not among the characters that the sandbox knows"
    assert (item.cluster, item.variant) == ("forward/Zefyria", "portrait")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"Question": "Draw", "Answer": "1 cup", "id": "1"}\n{"Question": ', "line 2: not JSON"),
        ('{"Question": "Draw", "Answer": "1 cup"}', "line 1: no id (fields: Question, Answer)"),
        ('{"Answer": "1 cup", "id": "1"}', "line 1: no question"),
        ('{"Question": "Draw", "id": "1"}', 'line 1: "Answer" is None'),
        ("[1]", "line 1: a JSON list"),
        ("\n\n", "holds no items"),
        (
            '{"Question": "a", "Answer": "b", "id": 1}\n{"Question": "a", "Answer": "b", "id": "1"}',
            "line 2: id '1' is already",
        ),
    ],
)
def test_a_malformed_line_is_named_with_what_was_expected(tmp_path: Path, text: str, expected: str):
    path = tmp_path / "math_1.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ItemFileError) as error:
        read_unisandbox(path)
    assert expected in str(error.value)
    assert str(path) in str(error.value)
    assert "expected" in str(error.value)


# ---- the published files ---------------------------------------------------------------------------------------------


@needs_published
def test_all_published_files_are_read_unchanged():
    files = sorted(PUBLISHED.rglob("*.jsonl"))
    assert len(files) == 21
    families: Counter[str] = Counter()
    for path in files:
        items = read_unisandbox(path)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        prompts = [line.get("Question_A") or line.get("Question") or line.get("Question_B") for line in lines]
        assert [item.prompt for item in items] == prompts
        assert [item.id.split("/")[1] for item in items] == [str(line.get("ID", line.get("id"))) for line in lines]
        for item, line in zip(items, lines, strict=True):
            families[item.family] += 1
            if isinstance(item.answer, FreeText):
                assert item.answer.text == line["Answer"]
            assert item.derived
            assert item.source == path.name
    assert families == {
        **{f"math{level}": 100 for level in (1, 2, 3)},
        **{f"mapping{level}": 200 for level in (1, 2, 3)},
        "forward": 30,
        "inverse": 20,
    }


@needs_published
@pytest.mark.parametrize(
    ("name", "least"),
    [("math_1", 50), ("math_2", 50), ("math_3", 50), ("mapping1", 25), ("mapping2", 25), ("mapping3", 25)],
)
def test_enough_of_the_published_files_is_inside(name: str, least: int):
    found = coverage(PUBLISHED / "test_reasoning" / f"{name}.jsonl")
    assert found.total == 100
    assert found.inside >= least
    assert found.inside + sum(found.outside.values()) == found.total


@needs_published
def test_the_one_line_with_both_questions_is_reported():
    found = coverage(PUBLISHED / "test_reasoning" / "mapping2.jsonl")
    assert found.notes == ("line 71: ID 36 carries Question_A and Question_B; read as half A",)
    assert found.outside["no query after the rules"] == 1
