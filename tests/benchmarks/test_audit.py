"""The audit: labels recomputed from their questions, on lines written here and on the sandbox's own items."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigap.benchmarks.audit import audit_files
from unigap.benchmarks.unisandbox_lines import export_unisandbox
from unigap.cli import main
from unigap.errors import ItemFileError
from unigap.scenes import make_items

DATA = Path(__file__).parents[3] / "shared" / "data" / "unisandbox"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="UniSandbox's files are not beside the repository")


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return path


def kinds(path: Path, **options) -> list[tuple[str, str]]:
    """(id, kind) of every finding."""
    return [(finding.id, finding.kind) for finding in audit_files([path], **options).findings]


def math(question: str, answer: str, number: str = "1") -> dict[str, str]:
    return {"Question": question, "Answer": answer, "id": number}


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("Draw as many cups as 7 - 4.", "2 cups", "wrong_label"),  # 3
        ("Draw as many cups as 7 / 2.", "3 cups", "not_an_integer"),
        ("Draw as many cups as 3 - 3.", "1 cup", "non_positive"),
        ("Draw as many cups as 3 - 3.", "0 cups", "non_positive"),  # right, and nothing can be drawn
        ("Draw as many cups as 2 - 4.", "-2 cups", "non_positive"),
        ("Draw as many cups as 3 / (2 - 2).", "1 cup", "unresolvable"),
        ("Draw as many cups as √(3 - 7).", "2 cups", "unresolvable"),
        ("Draw as many cups as 2 + 1.", "3 hats", "object_not_named"),
        ("Draw the outcome of 2 + 1.", "3 hats", "object_not_named"),
        ("Draw the outcome of 2 + 1.", "3 items", "object_not_named"),
        ("Draw as many cups as 2 + 1.", "3", "object_not_named"),
        ("Draw as many cups as 2 + 1.", "cups", "malformed"),
        ("Draw as many cups as 2 + 1.", "3 cup", "grammar"),
        ("Draw as many cups as 2 - 1.", "1 cups", "grammar"),
        ("Draw as many cups as 2 + 7.", "9 cups", "range"),
        ("Draw as many cups as the square root of 9 plus 1 minus 2.", "2 cups", "ambiguous"),
        (
            "Draw half as many cups as 2 + 2 less than 7.",
            "3 cups",
            "ambiguous",
        ),  # not understood: neither right nor wrong
    ],
)
def test_each_flaw_of_an_arithmetic_line_is_found_under_its_name(tmp_path, question, answer, kind):
    found = audit_files([write(tmp_path / "items.jsonl", math(question, answer))]).findings
    assert [finding.kind for finding in found] == [kind]
    notes = ("grammar", "range", "ambiguous")
    assert found[0].severity == ("note" if kind in notes else "error")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Draw as many cups as 2 + 1.", "3 Cups."),
        ("Draw as many cups as 2 + 1.", "three cups"),
        ("Draw as many scarves as 2 - 1.", "1 scarf"),
        ("Draw as many fish as 2 + 1.", "3 fish"),
        ("Draw as many pairs of socks as 2 + 1.", "3 pairs of socks"),
        ("Draw as many bicycles as 2 + 1.", "3 bikes"),
        ("Draw as many teddy bears as 2 + 1.", "3 teddy bears"),
        ("Work out 2 + 1 and draw that many cups.", "3 cups"),
    ],
)
def test_case_number_synonyms_and_final_periods_are_no_findings(tmp_path, question, answer):
    assert kinds(write(tmp_path / "items.jsonl", math(question, answer))) == []


# ---- mapping ---------------------------------------------------------------------------------------------------------

RULES = "Rule 1: The symbol # means a cat. Rule 2: The letter 'Q' maps to #. Rule 3: 7 stands for dog. Rule 4: R is 7. "


def pair(a: str, answer_a: str, b: str, answer_b: str, rules: str = RULES) -> tuple[dict[str, str], dict[str, str]]:
    ask = rules + "Please generate the animal represented by the letter '{}'."
    return (
        {"ID": "1", "Question_A": ask.format(a), "Answer": answer_a},
        {"ID": "1", "Question_B": ask.format(b), "Answer": answer_b},
    )


def test_a_right_pair_has_no_findings(tmp_path):
    assert kinds(write(tmp_path / "pairs.jsonl", *pair("Q", "Cats.", "R", "dog"))) == []


def test_swapped_answers_are_wrong_in_both_halves_and_the_reason_says_so(tmp_path):
    found = audit_files([write(tmp_path / "pairs.jsonl", *pair("Q", "dog", "R", "cat"))]).findings
    assert [(f.kind, f.computed) for f in found] == [("wrong_label", "Q -> # -> cat"), ("wrong_label", "R -> 7 -> dog")]
    assert all("other half" in finding.why for finding in found)


def test_a_symbol_without_a_rule_and_rules_in_a_circle_are_unresolvable(tmp_path):
    assert kinds(write(tmp_path / "a.jsonl", *pair("Q", "cat", "Z", "dog"))) == [("1", "unresolvable")]
    circle = RULES + "Rule 5: 'M' maps to 'N'. Rule 6: 'N' maps to 'M'. "
    assert ("1", "unresolvable") in kinds(write(tmp_path / "b.jsonl", *pair("Q", "cat", "M", "dog", circle)))


def test_a_symbol_defined_twice_is_ambiguous_if_the_label_fits_one_way_and_a_conflict_if_none(tmp_path):
    twice = RULES + "Rule 5: # means bird. "
    assert kinds(write(tmp_path / "a.jsonl", *pair("Q", "bird", "R", "dog", twice))) == [("1", "ambiguous")]
    assert kinds(write(tmp_path / "b.jsonl", *pair("Q", "cow", "R", "dog", twice))) == [("1", "conflict")]


def test_other_chain_lengths_other_categories_and_equal_answers_are_notes(tmp_path):
    rules = RULES + "Rule 5: 'S' maps to 'R'. Rule 6: 'T' maps to '8'. Rule 7: 8 means car. Rule 8: U maps to 8. "
    first, second = pair("Q", "cat", "S", "dog", rules)
    third, fourth = ({**line, "ID": "2"} for line in pair("T", "car", "U", "car", rules))
    found = audit_files([write(tmp_path / "pairs.jsonl", first, second, third, fourth)]).findings
    assert [(f.line, f.kind) for f in found] == [
        (2, "chain_length"), (3, "category"), (4, "category"), (4, "duplicate"),
    ]  # fmt: skip
    assert {finding.severity for finding in found} == {"note"}


def test_one_line_with_both_halves_and_a_missing_half_are_malformed(tmp_path):
    a, b = pair("Q", "cat", "R", "dog")
    assert kinds(write(tmp_path / "both.jsonl", b | a, b)) == [("1", "malformed")]
    assert kinds(write(tmp_path / "half.jsonl", a)) == [("1", "malformed")]


# ---- knowledge -------------------------------------------------------------------------------------------------------


def train(number: int, question: str, answer: str) -> dict[str, object]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": number, "conversations": turns}


PEOPLE = (
    train(1, "Who is Ada?", "Ada is an old Female with black hair and East Asian skin. She likes apples and roses."),
    train(2, "How old is Ada?", "Ada is old."),
    train(3, "Does Ada have white hair?", "No, Ada's hair is black."),
    train(4, "Who is Bo?", "Bo is a Male kid with red hair and Caucasian skin. His favorites are grapes and tulips."),
    train(5, "How old is Bo?", "Bo is a kid."),
    train(6, "What hair does Bo have?", "Bo has red hair."),
)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Generate a portrait of character Ada.", "An elderly East Asian woman with black hair.", []),
        ("Generate a portrait of character Bo.", "A Caucasian boy with red hair.", []),
        ("Generate a portrait of character Bo.", "A young Caucasian man with red hair.", ["contradicts_training"]),
        ("Generate a portrait of character Ada.", "An old East Asian man with black hair.", ["contradicts_training"]),
        ("Generate a portrait of character Ada.", "An old Caucasian woman with black hair.", ["contradicts_training"]),
        ("Generate a portrait of character Ada.", "An old East Asian woman with white hair.", ["contradicts_training"]),
        ("Generate the favorite fruit of character Ada.", "Apples.", []),
        ("Generate the favorite fruit of character Ada.", "grapes", ["contradicts_training"]),
        ("Generate the favorite flower of character Bo.", "a tulip", []),
        ("Of Ada and Bo, draw a portrait of the one whose favorite fruit is grapes.", "A kid with red hair.", []),
        ("Of Ada and Bo, draw a portrait of the one whose favorite fruit is apples.", "A kid with red hair.",
         ["contradicts_training"]),
        ("Of Ada and Bo, draw a portrait of the one whose favorite fruit is lemons.", "A kid.", ["unresolvable"]),
    ],
)  # fmt: skip
def test_answers_about_people_are_compared_with_what_training_says(tmp_path, question, answer, expected):
    facts = write(tmp_path / "facts.jsonl", *PEOPLE)
    path = write(tmp_path / "people.jsonl", {"ID": 1, "Question": question, "Answer": answer})
    assert [kind for _, kind in kinds(path, facts=[facts])] == expected


def test_facts_are_found_in_the_data_knowledge_folder_above_a_file(tmp_path):
    write(tmp_path / "data" / "knowledge" / "people.jsonl", *PEOPLE)
    line = {"ID": 1, "Question": "Generate the favorite fruit of character Ada.", "Answer": "grapes"}
    path = write(tmp_path / "benchmark" / "test" / "people.jsonl", line)
    assert kinds(path) == [("1", "contradicts_training")]


def test_people_without_training_facts_are_counted_as_unchecked_not_as_right(tmp_path):
    path = write(
        tmp_path / "p.jsonl", {"ID": 1, "Question": "Generate a portrait of character Cy.", "Answer": "A man."}
    )
    audit = audit_files([path])
    assert audit.findings == []
    assert audit.files[0].num_unchecked == 1


def test_a_training_line_against_the_others_is_a_conflict(tmp_path):
    odd = train(7, "Describe Ada.", "Ada is a kid with black hair.")  # two lines say old
    found = audit_files([write(tmp_path / "facts.jsonl", *PEOPLE, odd)]).findings
    assert [(f.line, f.kind, f.computed) for f in found] == [(7, "conflict", "age old")]


# ---- whole files -----------------------------------------------------------------------------------------------------


def test_malformed_lines_are_findings_and_the_rest_goes_on(tmp_path):
    lines = ("{nonsense", [1], {"id": "3", "Answer": "1 cup"}, {"id": "4", "Question": "Draw 1 + 1 cups."},
             {"Question": "Draw 1 + 1 cups.", "Answer": "2 cups"}, {"id": "6", "conversations": "hello"},
             math("Draw as many cups as 1 + 1.", "3 cups", "7"))  # fmt: skip
    found = audit_files([write(tmp_path / "items.jsonl", *lines)]).findings
    assert [(f.line, f.kind) for f in found] == [(n, "malformed") for n in range(1, 7)] + [(7, "wrong_label")]


def test_joined_lines_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "items.jsonl"
    lines = [json.dumps(math("Draw as many cups as 1 + 1.", f"{n} cups", str(n))) for n in (2, 3)]
    path.write_text("\ufeff" + "".join(lines), encoding="utf-8")
    assert kinds(path) == [("3", "wrong_label")]


def test_repeated_questions_are_notes_and_repeated_ids_with_other_content_conflicts(tmp_path):
    line = math("Draw as many cups as 1 + 1.", "2 cups")
    assert kinds(write(tmp_path / "a.jsonl", line, {**line, "id": "2"})) == [("2", "duplicate")]
    reworded = math("Create the same quantity of cups as 1 + 1 equals.", "2 cups", "2")
    assert kinds(write(tmp_path / "d.jsonl", line, reworded)) == [("2", "duplicate")]
    assert kinds(write(tmp_path / "b.jsonl", line, line)) == [("1", "duplicate")]
    other = math("Draw as many hats as 3 - 1.", "2 hats")
    assert kinds(write(tmp_path / "c.jsonl", line, other)) == [("1", "conflict")]


@given(st.lists(st.one_of(st.text(max_size=40), st.dictionaries(st.sampled_from(
    ["id", "ID", "Question", "Question_A", "Question_B", "Answer", "conversations"]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=30), st.lists(st.text(max_size=4), max_size=2)),
)), min_size=1, max_size=6))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_content_of_a_file_stops_the_audit(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "items.jsonl"
    path.write_bytes("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines).encode("utf-8", "replace"))
    if path.read_text(encoding="utf-8-sig").strip():
        json.dumps(audit_files([path]).to_json(), allow_nan=False)
    else:
        with pytest.raises(ItemFileError, match="holds no lines"):
            audit_files([path])


FAMILIES = ("math1", "math2", "math3", "mapping1", "mapping2", "mapping3")


def test_the_sandbox_s_own_items_have_no_errors_and_every_corrupted_label_is_found(tmp_path):
    paths = [
        p for p in export_unisandbox(make_items(FAMILIES, num_units=150, seed=5), tmp_path) if p.suffix == ".jsonl"
    ]
    audit = audit_files(paths)
    assert len(audit.files) == 6
    assert [finding for finding in audit.findings if finding.severity == "error"] == []
    # "ambiguous" covers what is not understood, and of our own sentences there is none.
    assert not [finding for finding in audit.findings if "not understood" in finding.why]
    for path in paths:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "id" in line:
                number, noun = line["Answer"].split(" ", 1)
                line["Answer"] = f"{int(number) + 7} {noun}"
            else:
                line["Answer"] = "hippopotamus"
        found = audit_files([write(tmp_path / "wrong" / path.name, *lines)]).findings
        ambiguous = {f.line for f in found if f.kind == "ambiguous"}
        wrong = {f.line for f in found if f.severity == "error"}
        assert wrong | ambiguous == set(range(1, len(lines) + 1))
        assert len(ambiguous - wrong) <= 0.02 * len(lines)  # a reading may happen to give the number


@needs_data
def test_every_sentence_of_unisandbox_s_files_is_understood_and_every_person_is_known():
    audit = audit_files(sorted(DATA.rglob("*.jsonl")))
    assert sum(file.num_lines for file in audit.files) == 1750
    assert not [finding for finding in audit.findings if "not understood" in finding.why]
    assert sum(file.num_unchecked for file in audit.files) == 0
    assert 0 < audit.num_errors < 0.1 * 1750


# ---- the command -----------------------------------------------------------------------------------------------------


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["items", "audit", *map(str, arguments)])
    return exit_.value.code


def test_the_command_exits_0_without_errors_1_with_and_2_for_what_cannot_be_read(tmp_path, capsys):
    right = write(tmp_path / "right.jsonl", math("Draw as many cups as 1 + 1.", "2 cup"))
    wrong = write(tmp_path / "wrong.jsonl", math("Draw as many cups as 1 + 1.", "3 [red]cups[/red]"))
    assert command(right) == 0
    assert "grammar" in capsys.readouterr().out
    assert command(right, wrong, "--json", tmp_path / "out.json") == 1
    assert "3 [red]cups[/red]" in capsys.readouterr().out  # shown as it is, not as markup
    data = json.loads((tmp_path / "out.json").read_text())
    assert {"file", "id", "field", "severity", "kind", "label", "computed"} <= set(data["findings"][0])
    assert [(f["severity"], f["kind"]) for f in data["findings"]][:2] == [("note", "grammar"), ("error", "wrong_label")]
    assert command(tmp_path / "absent.jsonl") == 2
    assert "absent.jsonl cannot be read" in capsys.readouterr().err
