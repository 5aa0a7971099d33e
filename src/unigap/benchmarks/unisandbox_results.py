"""UniSandbox's result files, `evaluation_results.csv` and `.log` in a picture folder, written and read.

A row says YES, NO, ERROR (the judge failed) or IMAGE_NOT_FOUND, with the score 1 or 0 and an analysis; a pair scores if
both halves are right. Its accuracy counts everything but YES as 0.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unigap.benchmarks.unisandbox_lines import Kind, answer_text, kind_of, picture_names
from unigap.disk import explain_os_errors, write_files
from unigap.errors import ItemFileError
from unigap.items import Arm, Item
from unigap.records import JudgeRef, Key, Ruling, Verdict

RESULTS, LOG = "evaluation_results.csv", "evaluation_results.log"

Result = Literal["YES", "NO", "ERROR", "IMAGE_NOT_FOUND"]

COLUMNS: Mapping[Kind, tuple[str, ...]] = {
    "math": ("ID", "Question", "Answer", "Image_Path", "Result", "Score", "Analysis"),
    "knowledge": ("ID", "Question", "Answer", "Image_Path", "Caption", "Result", "Score", "Analysis"),
    "mapping": (
        "ID",
        *(f"{name}_A" for name in ("Question", "Answer")), "Image_A_Path", "A_Result", "A_Score", "A_Analysis",
        *(f"{name}_B" for name in ("Question", "Answer")), "Image_B_Path", "B_Result", "B_Score", "B_Analysis",
        "Both_Correct", "Final_Score",
    ),
}  # fmt: skip


def write_results(where: Path, items: Sequence[Item], rulings: Mapping[str, Ruling | None]) -> None:
    """Write `evaluation_results.csv` and `.log` for one picture folder, as UniSandbox's judge does with --overwrite.

    Its files have no word for "the judge failed": unscored becomes ERROR, which its accuracy counts as 0.

    Args:
        where: The folder; its name tells the format.
        items: The items of one family, in order.
        rulings: By item id; None if there is no picture.
    """
    kind, names = kind_of(where.name), picture_names(items)
    rows: dict[str, dict[str, Any]] = {}
    for item in items:
        number, _, half = names[item.id].partition("_")
        row = rows.setdefault(number, {"ID": number})
        row |= _cells(kind, half, item, where / f"{names[item.id]}.png", rulings[item.id])
    if kind == "mapping":
        for row in rows.values():
            row["Both_Correct"] = row.get("A_Score") == 1 and row.get("B_Score") == 1
            row["Final_Score"] = int(row["Both_Correct"])
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS[kind])
    writer.writeheader()
    writer.writerows(rows.values())
    correct = sum(row["Final_Score" if kind == "mapping" else "Score"] for row in rows.values())
    with explain_os_errors(where, safe="Nothing was lost"):
        write_files(
            [
                (where / RESULTS, text.getvalue().encode("utf-8", "backslashreplace")),
                (where / LOG, _log(kind, len(rows), correct, where / RESULTS).encode()),
            ]
        )


def _cells(kind: Kind, half: str, item: Item, image: Path, ruling: Ruling | None) -> dict[str, Any]:
    result, analysis = _result(ruling)
    cells = {"Result": result, "Score": int(result == "YES"), "Analysis": analysis}
    given = {"Question": item.prompt, "Answer": answer_text(item.answer)}
    if kind == "mapping":
        ours = {f"{half}_{name}": value for name, value in cells.items()}
        return {f"{name}_{half}": value for name, value in given.items()} | {f"Image_{half}_Path": str(image)} | ours
    if kind == "knowledge":
        cells["Caption"] = _caption(ruling)
    return given | {"Image_Path": str(image)} | cells


def _caption(ruling: Ruling | None) -> str:
    """What the judge saw: its caption if it made one, else its reading as JSON."""
    reading = ruling.reading if ruling is not None else None
    if not reading:
        return ""
    caption = reading.get("caption")
    return caption if isinstance(caption, str) else json.dumps(reading, ensure_ascii=False)


def _result(ruling: Ruling | None) -> tuple[Result, str]:
    if ruling is None:
        return "IMAGE_NOT_FOUND", "Image file not found"
    match ruling.verdict:
        case "correct":
            return "YES", ruling.why
        case "incorrect":
            return "NO", ruling.why
        case "unscored":
            return "ERROR", f"Error: {ruling.why}"


def _log(kind: Kind, total: int, correct: int, path: Path) -> str:
    what = " IDs" if kind == "mapping" else ""
    lines = [
        "=" * 60,
        "Evaluation finished!",
        f"Total{what}: {total}",
        f"Correct{what}: {correct}",
        f"Accuracy: {correct / total if total else 0:.2%}",
        *(["Duration: 0.00s"] if kind == "math" else []),
        f"CSV: {path}",
        "=" * 60,
    ]
    return "\n".join(lines) + "\n"


# ---- results read back -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """What UniSandbox's judge wrote about one picture."""

    picture: str
    """Its name without ".png": "7", or "7_A"."""
    question: str
    answer: str
    result: Result
    analysis: str
    caption: str = ""
    """What its judge saw; knowledge only."""

    @property
    def ruling(self) -> Ruling | None:
        """The row as a ruling; None if there was no picture to judge.

        Its judge writes NO when it failed itself; the analysis then starts with "Error:", and here it is unscored.
        """
        if self.result == "IMAGE_NOT_FOUND":
            return None
        if self.result == "ERROR" or self.analysis.startswith("Error:"):
            return Ruling.unscored(self.analysis.removeprefix("Error:").strip() or "the judge failed")
        reading = {"caption": self.caption} if self.caption else None
        if self.result == "YES":
            return Ruling.correct(self.analysis, reading=reading)
        return Ruling.incorrect("judged_no", self.analysis, reading=reading)


def read_results(path: Path) -> list[ResultRow]:
    """Read an `evaluation_results.csv`; of rows about the same picture (its judge appends) the last counts.

    Raises:
        ItemFileError: Not such a file, or a result that is none.
    """
    try:
        return _read_results(path)
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ItemFileError(f"{path} is not a csv file in UTF-8 ({error}); expected UniSandbox's {RESULTS}") from None


def _read_results(path: Path) -> list[ResultRow]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = tuple(reader.fieldnames or ())
        if columns not in COLUMNS.values():
            expected = " or ".join(",".join(names) for names in COLUMNS.values())
            raise ItemFileError(f"{path}, line 1: columns are {','.join(columns)!r}; expected {expected}")
        rows: dict[str, ResultRow] = {}
        for cells in reader:
            for half in ("A", "B") if "Question_A" in columns else ("",):
                row = _row(path, reader.line_num, cells, half)
                if row is not None:
                    rows[row.picture] = row
    return list(rows.values())


def _row(path: Path, number: int, cells: Mapping[str, str | None], half: str) -> ResultRow | None:
    before, after = (f"{half}_", f"_{half}") if half else ("", "")
    result = cells[f"{before}Result"]
    if half and not result:  # a pair whose other half alone is in the file
        return None
    match result:
        case "YES" | "NO" | "ERROR" | "IMAGE_NOT_FOUND":
            return ResultRow(
                picture=f"{cells['ID']}{after}",
                question=cells[f"Question{after}"] or "",
                answer=cells[f"Answer{after}"] or "",
                result=result,
                analysis=cells[f"{before}Analysis"] or "",
                caption=cells.get("Caption") or "",
            )
        case _:
            raise ItemFileError(f"{path}, line {number}: result {result!r}; expected YES, NO, ERROR or IMAGE_NOT_FOUND")


def read_verdicts(path: Path, ids: Mapping[str, str], judge: JudgeRef, *, arm: Arm, sample: int = 0) -> list[Verdict]:
    """The verdicts in an `evaluation_results.csv`. Pictures that were not found have none.

    Args:
        path: The file.
        ids: Picture name -> item id, as in the `.ids.json` that `export_unisandbox` wrote.
        judge: Who judged; the file does not say.
        arm: What the pictures are; the file does not say.
        sample: Index of the sample that was exported.

    Raises:
        ItemFileError: Not such a file, or about a picture that `ids` does not name.
    """
    verdicts = []
    for row in read_results(path):
        if row.picture not in ids:
            raise ItemFileError(f"{path}: picture {row.picture!r} is not in the map of ids ({len(ids)} entries)")
        if (ruling := row.ruling) is not None:
            verdicts.append(Verdict.of(Key(ids[row.picture], "generation", arm, sample), ruling, judge))
    return verdicts
