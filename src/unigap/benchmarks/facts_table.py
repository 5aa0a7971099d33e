"""A user's own facts, one a row of a CSV file, as items that are asked both ways.

    answer                what is right, in words
    question, prompt      the fact asked for in text, and as a picture; or, instead of both:
    subject, relation     "What is the RELATION of SUBJECT?", "Draw the RELATION of SUBJECT."; such items are `derived`
    caption               the answer as a plain order to draw, for the oracle arm; without it, the answer
    family, variant       rows of the report; without a family "facts"
    kind                  of the answer: "text", "count" ("3 cups") or "object" ("cup"); without one "text"
    other                 the tempting wrong answer, of the same kind
    id, cluster, lang     see `unigap.items.Item`

Rows of one subject are one cluster, as they are known or not known together; a column `cluster` overrides that. Without
an id, a row is named after what it asks: rows can be added, moved and sorted, and a run that is continued asks only
what is new. Cells are stripped; a cell of white space is an empty one. See docs/suites.md.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TextIO

from unigap.benchmarks.unisandbox_lines import answer_text
from unigap.errors import ItemFileError
from unigap.items import Answer, Count, FreeText, Item, Object
from unigap.scenes import FAMILIES
from unigap.scenes.vocabulary import NUM_CELLS, NUMBER_WORDS, counted, find_object

COLUMNS: Final = (
    "answer", "question", "prompt", "subject", "relation", "caption", "family", "variant", "kind", "other", "id",
    "cluster", "lang",
)  # fmt: skip
FAMILY: Final = "facts"
_NUMBERS: Final = tuple(map(str, range(1, NUM_CELLS + 1)))
_BY_FAMILY: Final = ("math", "mapping")
"""Beginnings of names by which judges know UniSandbox's families."""
_DELIMITERS: Final = (",", ";", "\t")
_ARTICLE: Final = re.compile(r"(the|a|an|his|her|its|their|our|my|your)\s", re.IGNORECASE)
_LOOKS: Final = re.compile(r"(?:the\s+)?looks(?:\s+of\s+(?P<part>.+))?", re.IGNORECASE | re.DOTALL)


def read_facts(path: Path) -> Iterator[Item]:
    """Read a table of facts, one item a row, without keeping them; commas, semicolons or tabs between cells.

    Raises:
        ItemFileError: After the last row: all that is wrong, each with line, column and what was expected. At once:
            the file cannot be read, is not UTF-8, or its header is not one of facts.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _Table(path).items(file)
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ItemFileError(_not_utf8(path)) from None


def sentences_of(subject: str, relation: str) -> tuple[str, str]:
    """Question and prompt about a subject's relation, by rule; English.

    "logo": "What is the logo of Zephyr?", "Draw the logo of Zephyr." A relation that has its article keeps it.
    "looks": "What does Zephyr look like?", "Draw Zephyr." "looks of the leaf": "What does the leaf of ginkgo look
    like?", "Draw the leaf of ginkgo."
    """
    looks = _LOOKS.fullmatch(relation)
    if looks and not looks["part"]:
        return f"What does {subject} look like?", f"Draw {subject}."
    part = looks["part"] if looks else relation
    named = f"{part if _ARTICLE.match(part) else f'the {part}'} of {subject}"
    return (f"What does {named} look like?" if looks else f"What is {named}?"), f"Draw {named}."


def names_answer(item: Item) -> bool:
    """Whether question or prompt contains the answer's own words: then little is left to know."""
    answer = re.escape(" ".join(answer_text(item.answer).casefold().split()).rstrip("."))
    return bool(answer) and any(
        re.search(rf"(?<!\w){answer}(?!\w)", " ".join(text.casefold().split())) for text in (item.question, item.prompt)
    )


class _RowError(Exception):
    """What is wrong with one row."""

    def __init__(self, column: str, what: str) -> None:
        super().__init__(f"column {column}: {what}")


class _Table:
    """One pass over one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors: list[str] = []
        self.seen: dict[bytes, int] = {}
        """Hash of what must not occur twice -> line where it did first."""

    def items(self, file: TextIO) -> Iterator[Item]:
        delimiter = _find_delimiter(file)
        file.seek(0)
        rows = self._rows(file, delimiter)
        line, header = next(rows, (1, []))
        header = [name.strip().lower() for name in header]
        self._check_header(line, header)
        num_rows = 0
        for line, cells in rows:
            num_rows += 1
            try:
                yield self._item(line, header, cells)
            except _RowError as error:
                self._complain(line, str(error))
        if self.errors:
            errors = "1 error" if len(self.errors) == 1 else f"{len(self.errors)} errors"
            raise ItemFileError("\n".join([f"{errors} in {self.path}; nothing was made of it:", *self.errors]))
        if not num_rows:
            raise ItemFileError(f"{self.path}, line {line}: a header and no facts; expected one fact a line")

    def _complain(self, line: int, what: str) -> None:
        self.errors.append(f"{self.path}, line {line}, {what}")

    def _rows(self, file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
        """Rows that hold anything, each with the line on which it begins."""
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                self._complain(
                    line,
                    f'broken from here on: {error}; expected a cell in quotes to end in ", and every "'
                    " inside it to be doubled",
                )
                return
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield line, cells

    def _check_header(self, line: int, header: list[str]) -> None:
        where = f"{self.path}, line {line}"
        expected = 'expected "answer" with "question" and "prompt", or with "subject" and "relation"'
        if not header:
            raise ItemFileError("\n".join([f"{self.path} holds no header; {expected}", *self.errors]))
        if unknown := [name for name in header if name not in COLUMNS]:
            raise ItemFileError(f"{where}: unknown column {', '.join(map(repr, unknown))}; known: {', '.join(COLUMNS)}")
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise ItemFileError(f"{where}: column {', '.join(map(repr, twice))} is there twice")
        if "answer" not in header or not ({"question", "prompt"} <= {*header} or {"subject", "relation"} <= {*header}):
            raise ItemFileError(f"{where}: the header has {', '.join(header)}; {expected}")

    def _item(self, line: int, header: list[str], cells: list[str]) -> Item:
        if len(cells) != len(header):
            extra = "; a cell with the delimiter inside needs quotes" if len(cells) > len(header) else ""
            raise _RowError(
                header[min(len(cells), len(header)) - 1],
                f"{len(cells)} cells{extra}; expected {len(header)} as in the header",
            )
        row = dict.fromkeys(COLUMNS, "") | dict(zip(header, map(str.strip, cells), strict=True))
        if not row["answer"]:
            raise _RowError("answer", "empty; expected what is right, in words")
        family = row["family"] or FAMILY
        if family in FAMILIES or family.startswith(_BY_FAMILY):
            raise _RowError(
                "family",
                f"{family!r} is named as a family of the sandbox or of UniSandbox, which judges read by rules of their "
                "own; expected another name",
            )
        question, prompt, derived = _sentences(row)
        self._check_new(line, "question", question, prompt)
        name = f"{family}/{_digest(family, question, prompt, row['answer']).hex()[:12]}"
        if row["id"]:
            name = row["id"]
            self._check_new(line, "id", name)
        answer = _answer(row["kind"], "answer", row["answer"])
        other = _answer(row["kind"], "other", row["other"]) if row["other"] else None
        if other == answer:
            raise _RowError("other", f"{row['other']!r} is the answer too; expected a wrong one, or nothing")
        subject = f"subject/{' '.join(row['subject'].casefold().split())}" if row["subject"] else ""
        return Item(
            id=name,
            family=family,
            unit=name,
            cluster=row["cluster"] or subject or name,
            question=question,
            prompt=prompt,
            caption=row["caption"]
            or (counted(answer.object, 1) if isinstance(answer, Object) else answer_text(answer)),
            answer=answer,
            other=other,
            variant=row["variant"],
            lang=row["lang"] or "en",
            source=self.path.name,
            derived=derived,
        )

    def _check_new(self, line: int, column: str, *what: str) -> None:
        first = self.seen.setdefault(_digest(column, *what), line)
        if first != line:
            raise _RowError(
                column,
                f"{what[0]!r} is asked already on line {first}; expected every fact once"
                if column == "question"
                else f"{what[0]!r} is taken by line {first}; expected another",
            )


def _sentences(row: Mapping[str, str]) -> tuple[str, str, bool]:
    """Question, prompt, and whether they were made by rule."""
    if row["question"] or row["prompt"]:
        for column, other in (("question", "prompt"), ("prompt", "question")):
            if not row[column]:
                raise _RowError(column, f"empty beside a {other}; expected both, or subject and relation instead")
        if row["relation"]:
            raise _RowError("relation", "beside a question and a prompt; expected one of the two ways to ask")
        return row["question"], row["prompt"], False
    for column in ("subject", "relation"):
        if not row[column]:
            raise _RowError(column, "empty; expected question and prompt, or subject and relation")
    if row["lang"] not in ("", "en"):
        raise _RowError(
            "lang",
            f"{row['lang']!r}, and sentences are made of subject and relation in English alone; "
            "expected question and prompt",
        )
    return *sentences_of(row["subject"], row["relation"]), True


def _answer(kind: str, column: str, text: str) -> Answer:
    """The answer that a cell says."""
    match kind.lower():
        case "" | "text":
            return FreeText(text=text)
        case "object":
            if name := find_object(re.sub(r"^(an?|the)\s+", "", text, flags=re.IGNORECASE)):
                return Object(object=name)
            raise _RowError(column, f"{text!r}; expected an object of the sandbox, or kind text")
        case "count":
            number, _, word = text.partition(" ")
            n = NUMBER_WORDS.index(number.lower()) if number.lower() in NUMBER_WORDS else number
            name = find_object(word)
            if name and str(n) in _NUMBERS:
                return Count(object=name, n=int(n))
            raise _RowError(
                column,
                f"{text!r}; expected a number from 1 to {NUM_CELLS} and an object of the sandbox, as in "
                '"3 cups", or kind text',
            )
    raise _RowError("kind", f"{kind!r}; expected text, count, object, or nothing")


def _find_delimiter(file: TextIO) -> str:
    """The mark between the cells, told from the first line: the one that makes most of the known columns."""
    line = next((line for line in file if line.strip()), "")

    def num_known(delimiter: str) -> int:
        return len({name.strip().strip('"').strip().lower() for name in line.split(delimiter)} & {*COLUMNS})

    return max(_DELIMITERS, key=num_known)


def _digest(*texts: str) -> bytes:
    return hashlib.sha256("\0".join(texts).encode()).digest()[:16]


def _not_utf8(path: Path) -> str:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = f"line {number}, byte {error.start + 1}"
                return f'{path}, {where}: not UTF-8; expected a file that was saved as "CSV UTF-8"'
    return f'{path} is not UTF-8; expected a file that was saved as "CSV UTF-8"'
