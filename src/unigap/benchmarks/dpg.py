"""DPG-Bench (arXiv 2403.05135): long prompts, and yes/no questions about what they ask for, read as they are.

    item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language

A row is a question; rows of one `item_id` are one item, whose prompt is `text`. `dependency` lists the questions
without whose yes this one does not count ("0": none). A folder of .txt files holds prompts alone, named by item;
without the table there are no questions, and a judge that reads language compares picture and prompt as a whole.

Every row counts here. The published script leaves out the first row of its table.
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from unigap.benchmarks.imported import check_plain, names_in
from unigap.errors import ItemFileError
from unigap.items import Check, Checklist, FreeText, Item

NEEDED: Final = ("item_id", "text", "proposition_id", "dependency", "question_natural_language")
EXPECTED: Final = f"expected a table with the columns {', '.join(NEEDED)}"
FAMILY: Final = "dpg"


def find_dpg(folder: Path) -> Path | None:
    """Where DPG-Bench lies in a folder: its table, or the folder of its prompts; None if it does not."""
    names = names_in(folder)
    tables = [path for name, path in names.items() if name.endswith(".csv")]
    if len(tables) == 1:
        return tables[0]
    for place in (folder, folder / "prompts"):
        if any(name.endswith(".txt") for name in names_in(place)):
            return place
    return None


def read_dpg(path: Path) -> list[Item]:
    """The items of a table of questions, or of a folder of prompts.

    Raises:
        ItemFileError: A column is missing, or a row is not of the format (file, line, what was expected).
    """
    return list(_of_prompts(path) if path.is_dir() else _of_table(path))


def _of_table(path: Path) -> Iterator[Item]:
    texts: dict[str, str] = {}
    checks: dict[str, dict[int, tuple[int, Check]]] = {}
    for line, row in _rows(path):
        try:
            name, check = _check(row)
            if texts.setdefault(name, row["text"]) != row["text"]:
                raise ValueError(f"item {name!r} has another text than before")
            if check.id in checks.setdefault(name, {}):
                raise ValueError(
                    f"item {name!r} already has a question {check.id}, on line {checks[name][check.id][0]}"
                )
        except ValueError as error:
            raise ItemFileError(f"{path}, line {line}: {error}; {EXPECTED}") from None
        checks[name][check.id] = line, check
    for name, rows in checks.items():
        for line, check in rows.values():
            if missing := [parent for parent in check.parents if parent not in rows]:
                raise ItemFileError(
                    f"{path}, line {line}: depends on question {missing[0]}, which item {name!r} does not have "
                    f"(it has: {', '.join(map(str, rows))})"
                )
        yield _item(path, name, texts[name], Checklist(checks=tuple(check for _, check in rows.values())))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line on which a row ends, and its cells by column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in NEEDED if name not in (reader.fieldnames or ())]:
                raise ItemFileError(f"{path}: no column {', '.join(missing)}; {EXPECTED}")
            empty = True
            for row in reader:
                empty = False
                if None in row or None in row.values():
                    raise ItemFileError(f"{path}, line {reader.line_num}: not as many cells as columns; {EXPECTED}")
                yield reader.line_num, row
    except csv.Error as error:
        raise ItemFileError(f"{path}: not a table ({error}); {EXPECTED}") from None
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ItemFileError(f"{path} is not UTF-8 text ({error}); {EXPECTED}") from None
    if empty:
        raise ItemFileError(f"{path} holds no questions; {EXPECTED}")


def _check(row: Mapping[str, str]) -> tuple[str, Check]:
    name, question = row["item_id"].strip(), row["question_natural_language"].strip()
    if not name or not row["text"].strip() or not question:
        raise ValueError("item_id, text and question_natural_language must not be empty")
    parents = tuple(number for number in map(_number, row["dependency"].split(",")) if number)
    # The broad category is also what stands first in the tuple, "entity - whole (table)".
    category = (row.get("category_broad") or row.get("tuple", "").partition("-")[0]).strip()
    return name, Check(id=_number(row["proposition_id"]), question=question, parents=parents, category=category)


def _number(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"{text!r} is no number of a question")
    return int(text)


def _of_prompts(folder: Path) -> Iterator[Item]:
    for name, path in names_in(folder).items():
        if not name.endswith(".txt"):
            continue
        try:
            check_plain(path)
            text = path.read_text(encoding="utf-8-sig").strip()
        except OSError as error:
            raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise ItemFileError(f"{path} is not UTF-8 text ({error}); expected one prompt") from None
        if not text:
            raise ItemFileError(f"{path} is empty; expected one prompt")
        yield _item(folder, path.stem, text, FreeText(text=text))


def _item(path: Path, name: str, text: str, answer: Checklist | FreeText) -> Item:
    return Item(
        id=f"{FAMILY}/{name}",
        family=FAMILY,
        unit=f"{FAMILY}/{name}",
        cluster=f"{FAMILY}/{name}",
        question="",
        prompt=text,
        caption=text,
        answer=answer,
        source=path.name,
    )


def inside(item: Item) -> str | None:
    """Why an item cannot be drawn and read in the sandbox's world: none can."""
    del item
    return "long prompts about things that the sandbox does not have"
