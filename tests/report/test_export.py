"""Tables for other programs hold the numbers of the page, and read back as what they were."""

import csv
import sys

import pytest
from tests.fakes import make_item
from tests.report.runs import make_run, summary_of

from unigap.arms import CALLS, Question
from unigap.records import RunFolder
from unigap.report.export import ANSWERS, RATES, answer_rows, markdown, rate_rows, write_rows

TEXT: Question = ("understanding", "normal")
DRAW: Question = ("generation", "normal")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> RunFolder:
    items = [make_item(number) for number in range(5)]
    items += [make_item(5, prompt='Draw 1 lamp, "please"\nnow \ud800')]
    return make_run(tmp_path_factory.mktemp("run") / "run", items)


def test_rates_are_one_row_a_family_direction_and_arm_with_the_gap_of_that_arm(paper):
    # Text y y y n, drawing y n n n: 3/4, 1/4, gap 2/4.
    items = paper.add_items("math1", 4)
    paper.answer(items, TEXT, "yyyn")
    paper.answer(items, DRAW, "ynnn")
    paper.answer(items, ("generation", "oracle"), "yyyy")
    text, draw, oracle = rate_rows(paper.summary(math1="parts"))
    assert all(set(row) == set(RATES) for row in (text, draw, oracle))
    assert (text["family"], text["direction"], text["arm"], text["rate"]) == ("math1", "understanding", "normal", 0.75)
    assert (draw["rate"], draw["chance"], draw["trained"], draw["scored"]) == (0.25, 0.25, "parts", 4)
    assert text["gap"] == draw["gap"] == 0.5 and draw["gap_low"] < 0.5 < draw["gap_high"]
    assert oracle["gap"] is None and oracle["rate"] == 1


def test_variants_are_rows_of_their_own_after_their_family(paper):
    for variant in ("one", "two"):
        paper.answer(paper.add_items("plain", 2, variant=variant), DRAW, "yn")
    rows = list(rate_rows(paper.summary()))
    assert [(row["family"], row["variant"], row["units"]) for row in rows] == [
        ("plain", "", 4),
        ("plain", "one", 2),
        ("plain", "two", 2),
    ]


def test_csv_reads_back(folder, tmp_path):
    rows = list(rate_rows(summary_of(folder)))
    write_rows(tmp_path / "new" / "rates.csv", RATES, rows)
    with (tmp_path / "new" / "rates.csv").open(encoding="utf-8", newline="") as file:
        back = list(csv.DictReader(file))
    assert len(back) == len(rows) == 6
    for row, found in zip(back, rows):
        assert float(row["rate"]) == found["rate"] and row["gap"] == ("" if found["gap"] is None else str(found["gap"]))


def test_parquet_reads_back_with_its_types(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow (extra data) is not installed")
    for columns, rows in ((RATES, list(rate_rows(summary_of(folder)))), (ANSWERS, list(answer_rows(folder, "exact")))):
        write_rows(tmp_path / "table.parquet", columns, rows)
        table = parquet.read_table(tmp_path / "table.parquet")
        assert {field.name: str(field.type) for field in table.schema} == columns
        back = table.to_pylist()
        assert len(back) == len(rows)
        assert [row["arm"] for row in back] == [row["arm"] for row in rows]
        # A lone surrogate, which UTF-8 has not, comes back as its escape.
        assert back == [
            {
                name: value.replace("\ud800", r"\ud800") if isinstance(value, str) else value
                for name, value in row.items()
            }
            for row in rows
        ]
        assert ("ud800" in str(back)) == (columns is ANSWERS)


def test_answers_are_one_row_a_record_with_texts_and_verdict(folder):
    rows = list(answer_rows(folder, "exact"))
    assert len(rows) == 6 * 6
    think = next(row for row in rows if row["arm"] == "think" and row["direction"] == "generation")
    assert think["verdict"] == "correct" and think["thought"].startswith("<think>") and think["image"]
    assert {row["verdict"] for row in rows} == {"correct", "incorrect"}


def test_parquet_without_pyarrow_names_the_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r'pip install "unigap\[data\]"'):
        write_rows(tmp_path / "table.parquet", RATES, [])
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        write_rows(tmp_path / "table.xlsx", RATES, [])


def test_markdown_is_the_gap_table_and_no_name_breaks_it(paper):
    items = paper.add_items("a|b*<i>\n", 100)
    for question in CALLS:
        paper.answer(items, question, "y" * 54 + "n" * 46 if question[0] == "understanding" else "n" * 100)
    header, rule, row, *_ = markdown([paper.summary()]).splitlines()
    assert header.startswith("| family | text normal | text think | draw normal | draw think | draw refined |")
    assert header.count("|") == rule.count("|") == row.replace(r"\|", "").count("|")
    assert row.startswith(r"| a\|b\*&lt;i> | 54% (44–63) | 54% (44–63) | 0% (0–4) |") and "| +54 (" in row


def test_markdown_of_several_runs_names_each(folder):
    text = markdown([summary_of(folder), summary_of(folder)])
    assert text.count("## run\n") == 2 and text.count("| family |") == 2
