"""A table of facts becomes items that are asked both ways; a bad table becomes a list of all that is wrong with it."""

import csv
import hashlib
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.test_cli import run

from unigap.benchmarks.facts_table import COLUMNS, names_answer, read_facts, sentences_of
from unigap.errors import ItemFileError
from unigap.items import Count, FreeText, Item, Object, read_items, write_items

HEAD = "answer,question,prompt"


def table(tmp_path: Path, *lines: str, encoding: str = "utf-8", end: str = "\n") -> Path:
    path = tmp_path / "facts.csv"
    path.write_bytes("".join(line + end for line in lines).encode(encoding))
    return path


def read(tmp_path: Path, *lines: str) -> list[Item]:
    return list(read_facts(table(tmp_path, *lines)))


def errors(tmp_path: Path, *lines: str) -> list[str]:
    """The lines of the message, without the file's name."""
    with pytest.raises(ItemFileError) as caught:
        read(tmp_path, *lines)
    return str(caught.value).replace(f"{tmp_path / 'facts.csv'}, ", "").splitlines()


# ---- what a row becomes ----------------------------------------------------------------------------------------------


def test_a_row_with_question_and_prompt_is_taken_as_it_is(tmp_path: Path):
    (item,) = read(tmp_path, HEAD, " a blue kite ,What is on it?,Draw what is on it.")
    # The name is made of what is asked, so that it outlives a sorted table.
    digest = hashlib.sha256(b"facts\0What is on it?\0Draw what is on it.\0a blue kite").hexdigest()[:12]
    name = f"facts/{digest}"
    assert item == Item(
        id=name,
        family="facts",
        unit=name,
        cluster=name,
        question="What is on it?",
        prompt="Draw what is on it.",
        caption="a blue kite",
        answer=FreeText(text="a blue kite"),
        source="facts.csv",
    )


@pytest.mark.parametrize(
    ("subject", "relation", "question", "prompt"),
    [
        ("Zephyrine", "logo", "What is the logo of Zephyrine?", "Draw the logo of Zephyrine."),
        ("Zamiro", "favorite fruit", "What is the favorite fruit of Zamiro?", "Draw the favorite fruit of Zamiro."),
        ("Zamiro", "a friend", "What is a friend of Zamiro?", "Draw a friend of Zamiro."),
        ("Zamiro", "anthem", "What is the anthem of Zamiro?", "Draw the anthem of Zamiro."),
        ("Zamiro", "looks", "What does Zamiro look like?", "Draw Zamiro."),
        ("ginkgo", "looks of the leaf", "What does the leaf of ginkgo look like?", "Draw the leaf of ginkgo."),
        ("ginkgo", "Looks of leaf", "What does the leaf of ginkgo look like?", "Draw the leaf of ginkgo."),
    ],
)
def test_sentences_are_made_of_subject_and_relation(
    tmp_path: Path, subject: str, relation: str, question: str, prompt: str
):
    assert sentences_of(subject, relation) == (question, prompt)
    (item,) = read(tmp_path, "subject,relation,answer", f"{subject},{relation},x")
    assert (item.question, item.prompt, item.derived) == (question, prompt, True)


def test_rows_about_one_subject_are_one_cluster_unless_a_cluster_is_named(tmp_path: Path):
    items = read(
        tmp_path,
        "subject,relation,answer,question,prompt,cluster",
        "Zamiro,looks,x,,,",
        "zamiro ,fruit,y,,,",
        "Zamiro,,z,Where is he?,Draw where he is.,",
        "Zamiro,pet,z,,,pets",
        ",,z,What?,Draw it.,",
    )
    assert [item.cluster for item in items[:4]] == ["subject/zamiro"] * 3 + ["pets"]
    assert items[4].cluster == items[4].id == items[4].unit
    assert [item.derived for item in items] == [True, True, False, True, False]


def test_answers_of_the_sandbox_are_typed(tmp_path: Path):
    lines = ("count,3 cups,1 cup,q1,p1", "count,Two mugs,,q2,p2", "object,a bike,the cat,q3,p3", "text,3 cups,,q4,p4")
    items = read(tmp_path, "kind,answer,other,question,prompt", *lines)
    assert [item.answer for item in items] == [
        Count(object="cup", n=3),
        Count(object="cup", n=2),
        Object(object="bicycle"),
        FreeText(text="3 cups"),
    ]
    assert [item.other for item in items] == [Count(object="cup", n=1), None, Object(object="cat"), None]
    assert [item.caption for item in items] == ["3 cups", "2 cups", "1 bicycle", "3 cups"]


def test_rows_may_be_moved_and_added_without_a_change_to_the_others(tmp_path: Path):
    first = read(tmp_path, HEAD, "a,q1,p1", "b,q2,p2")
    later = read(tmp_path, HEAD, "c,q3,p3", "b,q2,p2", "a,q1,p1")
    assert later[1:] == first[::-1]
    (changed,) = read(tmp_path, HEAD, "another answer,q1,p1")
    assert changed.id != first[0].id  # its old answers do not count for it


@pytest.mark.parametrize(
    ("answer", "prompt", "found"),
    [
        ("red", "Draw the red one.", True),
        ("red", "Draw Fred.", False),
        ("a Blue kite", "Draw  a blue Kite!", True),
        ("C++ (2x)", "Draw C++ (2x)", True),
        (".", "Draw it.", False),
    ],
)
def test_a_prompt_that_gives_its_answer_away_is_found(answer: str, prompt: str, found: bool):
    item = Item(
        id="x",
        family="x",
        unit="x",
        cluster="x",
        question="?",
        prompt=prompt,
        caption="c",
        answer=FreeText(text=answer),
    )
    assert names_answer(item) == found
    assert names_answer(replace(item, question=prompt, prompt="?")) == found


# ---- the format ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, encoding: str, delimiter: str, end: str):
    lines = [
        delimiter.join(cells)
        for cells in (
            ("Answer", '"Question"', " prompt "),
            ('"one, two; three\tand ""four"""', '"two' + end + 'lines"', "Zeichne Äpfel."),
            ("", "", ""),
            ("x", "q", "p"),
        )
    ]
    items = list(read_facts(table(tmp_path, *lines, encoding=encoding, end=end)))
    assert [item.caption for item in items] == ['one, two; three\tand "four"', "x"]
    assert (items[0].question, items[0].prompt) == (f"two{end}lines", "Zeichne Äpfel.")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(str.strip).filter(bool)
FACT = st.fixed_dictionaries(
    {"answer": TEXT, "question": TEXT, "prompt": TEXT},
    optional={"caption": TEXT, "variant": TEXT, "cluster": TEXT, "subject": TEXT, "lang": TEXT},
)


@given(
    facts=st.lists(FACT, min_size=1, max_size=6, unique_by=lambda fact: (fact["question"], fact["prompt"])),
    columns=st.permutations(COLUMNS),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(("utf-8", "utf-8-sig")),
)
@settings(deadline=None, max_examples=60)
def test_any_text_survives_table_and_item_file(
    tmp_path_factory: pytest.TempPathFactory,
    facts: Sequence[Mapping[str, str]],
    columns: Sequence[str],
    delimiter: str,
    encoding: str,
):
    folder = tmp_path_factory.mktemp("facts")
    with (folder / "facts.csv").open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(facts)
    items = list(read_facts(folder / "facts.csv"))
    for fact, item in zip(facts, items, strict=True):
        assert item.answer == FreeText(text=fact["answer"])
        assert (item.question, item.prompt) == (fact["question"], fact["prompt"])
        assert item.caption == fact.get("caption", fact["answer"])
        assert (item.variant, item.lang) == (fact.get("variant", ""), fact.get("lang", "en"))
        assert "cluster" not in fact or item.cluster == fact["cluster"]
    write_items(folder / "facts.jsonl", items)
    assert list(read_items(folder / "facts.jsonl")) == items


def test_ten_thousand_rows_are_not_kept_in_memory(tmp_path: Path):
    path = table(tmp_path, HEAD, *(f"{'x' * 1000} {n},q{n},p{n}" for n in range(10_000)))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_facts(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 10_000
    # The file has 10 MB. A hash of 16 bytes in a dict is some 150 bytes, 1.5 MB in all.
    assert peak < 4e6


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_listed_with_its_line_and_column(tmp_path: Path):
    found = errors(
        tmp_path,
        "answer,question,prompt,subject,relation,family,kind,other,id,lang",
        ",q2,p2,,,,,,,",
        '"two\nlines",,p3,,,,,,,',
        "a,q5,,,,,,,,",
        "a,,,Zamiro,,,,,,",
        "a,,,,looks,,,,,",
        "a,q8,p8,,looks,,,,,",
        "a,,,Zamiro,looks,,,,,de",
        "a,q10,p10,,,math1,,,,",
        "a,q11,p11,,,,number,,,",
        "12 cups,q12,p12,,,,count,,,",
        "3 trains,q13,p13,,,,count,,,",
        "a train,q14,p14,,,,object,,,",
        "a,q15,p15,,,,,a,,",
        "a,q16,p16,,,,,,one,",
        "a,q17,p17,,,,,,one,",
        "b,q16,p16,,,,,,,",
        "a,q19,p19",
        "a,q20,p20,,,,,,,,extra",
        "a,fine,fine,,,,,,,",
        "a,q22,p22,,,mappings,,,,",
        '"a,q23',
    )
    assert found[0].startswith("19 errors in ") and found[0].endswith("; nothing was made of it:")
    expected = (
        (2, "answer", "empty"),
        (3, "question", "empty beside a prompt"),  # of two lines
        (5, "prompt", "empty beside a question"),
        (6, "relation", "empty"),
        (7, "subject", "empty"),
        (8, "relation", "beside a question"),
        (9, "lang", "'de'"),
        (10, "family", "'math1' is named as a family of the sandbox"),
        (11, "kind", "'number'; expected text, count, object"),
        (12, "answer", "'12 cups'; expected a number from 1 to 9"),
        (13, "answer", "'3 trains'"),
        (14, "answer", "'a train'"),
        (15, "other", "'a' is the answer too"),
        (17, "id", "'one' is taken by line 16"),
        (18, "question", "'q16' is asked already on line 16"),
        (19, "prompt", "3 cells; expected 10"),
        (20, "lang", "11 cells; a cell with the delimiter inside needs quotes"),
        (22, "family", "'mappings'"),
    )
    for (line, column, what), message in zip(expected, found[1:], strict=False):
        assert message.startswith(f"line {line}, column {column}: {what}"), message
        assert "expected" in message
    assert found[-1].startswith("line 23, broken from here on: ")
    assert len(found) == len(expected) + 2


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ((), "holds no header"),
        (("", " "), "holds no header"),
        ((HEAD,), "a header and no facts"),
        (
            ("answer,question", "a,q"),
            'expected "answer" with "question" and "prompt", or with "subject" and "relation"',
        ),
        (("question,prompt", "a,q"), 'expected "answer"'),
        (("answer,question,promt", "a,q,p"), "unknown column 'promt'; known: answer, question, prompt"),
        (("answer,question,prompt,answer", "a,q,p,a"), "column 'answer' is there twice"),
    ],
)
def test_a_header_that_is_none_of_facts_is_refused(tmp_path: Path, lines: Sequence[str], what: str):
    with pytest.raises(ItemFileError) as caught:
        read(tmp_path, *lines)
    assert what in str(caught.value) and str(tmp_path / "facts.csv") in str(caught.value)


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 3), ("utf-16", 1)])
def test_another_encoding_is_named_with_its_line(tmp_path: Path, encoding: str, line: int):
    path = table(tmp_path, HEAD, "x,q,p", "Äpfel,q2,p2", encoding=encoding)
    with pytest.raises(ItemFileError, match=rf'line {line}, byte 1: not UTF-8; expected .*"CSV UTF-8"'):
        list(read_facts(path))
    with pytest.raises(ItemFileError, match="cannot be read"):
        list(read_facts(tmp_path / "nothing.csv"))


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_all_items_or_none(tmp_path: Path, capsys):
    out = tmp_path / "made" / "facts.jsonl"
    path = table(tmp_path, "subject,relation,answer", "Zamiro,looks,x", "Zamiro,fruit,the fruit", "Zelu,looks,y")
    code, shown, notes = run(capsys, "items", "make", "--from", path, "--out", out)
    assert code == 0
    assert f"{out}: 3 items of 1 families in 2 clusters, 3 asked by rule, sha256 " in shown
    assert "1 name their answer" in notes and "'What is the fruit of Zamiro?'" in notes
    before = out.read_bytes()
    assert list(read_items(out)) == list(read_facts(path))
    bad = table(tmp_path, "subject,relation,answer", "Zamiro,looks,x", "Zamiro,fruit,")
    code, _, notes = run(capsys, "items", "make", "--from", bad, "--out", out)
    assert code == 2
    assert "line 3, column answer: empty" in notes
    assert out.read_bytes() == before
    assert [file.name for file in out.parent.iterdir()] == ["facts.jsonl"]


def test_the_command_refuses_flags_of_the_sandbox_and_its_own_table_as_output(tmp_path: Path, capsys):
    path = table(tmp_path, HEAD, "x,q,p")
    code, _, notes = run(capsys, "items", "make", "--from", path, "--out", tmp_path / "out.jsonl", "--num-units", 3)
    assert code == 2 and "--num-units cannot be carried out" in notes
    code, _, notes = run(capsys, "items", "make", "--from", path, "--out", path)
    assert code == 2 and "is the table of facts itself" in notes
    assert path.read_text() == f"{HEAD}\nx,q,p\n"
