"""UniSandbox's files written exactly: benchmark lines, picture folders and result files, and results read back.

So UniSandbox's own scripts can judge our pictures, and their results become verdicts here. Its judges need plain
integers as ids; which item each one is stands in a map beside the lines:

    OUT/math_1.jsonl                          the lines
    OUT/math_1.ids.json                       picture name -> item id, {"7": "math1/000007"} or {"7_A": ...}
    OUT/test/{normal,think}/math_1/7.png      pictures (7_A.png and 7_B.png of a pair)
    OUT/test/{normal,think}/math_1/evaluation_results.{csv,log}
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unigap.disk import explain_os_errors, write_files
from unigap.errors import ItemFileError
from unigap.items import Answer, Arm, Character, Count, Counts, FreeText, Item, Object, Portrait
from unigap.records import JudgeRef, Key, Ruling, RunFolder, Verdict
from unigap.scenes.vocabulary import counted, describe_portrait, list_counts

STEMS: Mapping[str, str] = {
    "math1": "math_1", "math2": "math_2", "math3": "math_3",
    "mapping1": "mapping1", "mapping2": "mapping2", "mapping3": "mapping3",
    "forward": "forward", "inverse": "inverse",
}  # fmt: skip
"""Family -> name of its file. UniSandbox's sampler takes a name with "mapping" in it for pairs."""

ARMS: tuple[Arm, ...] = ("normal", "think")
RESULTS, LOG = "evaluation_results.csv", "evaluation_results.log"

Kind = Literal["math", "mapping", "knowledge"]
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


def kind_of(stem: str) -> Kind:
    """The format of a file by its name, as UniSandbox's scripts tell them apart."""
    return "mapping" if "mapping" in stem else "math" if "math" in stem else "knowledge"


# ---- items to lines --------------------------------------------------------------------------------------------------


def export_unisandbox(items: Iterable[Item], folder: Path) -> list[Path]:
    """Write items as UniSandbox's JSON lines, one file per family, with the map of their ids beside each.

    An id is the number that ends the unit's own id ("math1/000007" is 7) if that is a different one for each unit of
    the family, else the units count from 1.

    Returns:
        The files of lines.

    Raises:
        ValueError: An item's family has no format of UniSandbox's.
        RunFolderError: The folder cannot be written.
    """
    families: dict[str, list[Item]] = {}
    for item in items:
        if item.family not in STEMS:
            raise ValueError(
                f"UniSandbox has no format for family {item.family!r} (item {item.id!r}); it has: {', '.join(STEMS)}"
            )
        families.setdefault(item.family, []).append(item)
    files: list[tuple[Path, bytes]] = []
    for family, members in families.items():
        stem, names = STEMS[family], picture_names(members)
        lines = [json.dumps(_line(kind_of(stem), names[item.id], item), ensure_ascii=False) for item in members]
        files.append((folder / f"{stem}.jsonl", ("\n".join(lines) + "\n").encode()))
        ids = {name: item_id for item_id, name in names.items()}
        files.append((_ids_path(folder, stem), (json.dumps(ids, ensure_ascii=False, indent=0) + "\n").encode()))
    with explain_os_errors(folder, safe="Nothing was lost"):
        write_files(files)
    return [path for path, _ in files if path.suffix == ".jsonl"]


def _ids_path(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.ids.json"


def picture_names(items: Sequence[Item]) -> dict[str, str]:
    """Item id -> the name of its picture without ".png", for the items of one family: "7", or "7_A" in a pair."""
    units = list(dict.fromkeys(item.unit for item in items))
    tails = [unit.rpartition("/")[2] for unit in units]
    own = all(tail.isascii() and tail.isdigit() for tail in tails) and len(set(map(int, tails))) == len(units)
    numbers = {unit: int(tail) if own else k for k, (unit, tail) in enumerate(zip(units, tails, strict=True), start=1)}
    return {item.id: f"{numbers[item.unit]}{f'_{half}' if (half := _half(item)) else ''}" for item in items}


def _half(item: Item) -> str:
    if not item.family.startswith("mapping"):
        return ""
    half = item.id.rpartition("/")[2]
    if half not in ("A", "B"):
        raise ValueError(f'item {item.id!r} is not half of a pair; UniSandbox\'s mapping ids end in "/A" or "/B"')
    return half


def _line(kind: Kind, name: str, item: Item) -> dict[str, Any]:
    number, _, half = name.partition("_")
    answer = answer_text(item.answer)
    match kind:
        case "math":
            return {"Question": item.prompt, "Answer": answer, "id": number}
        case "mapping":
            return {"ID": number, f"Question_{half}": item.prompt, "Answer": answer}
        case "knowledge":
            return {"ID": int(number), "Question": item.prompt, "Answer": answer}


def answer_text(answer: Answer) -> str:
    """An answer as UniSandbox's files say it: "2 cups", "lamp", "A dark-skinned girl with black hair."."""
    match answer:
        case Count(object=name, n=n):
            return counted(name, n)
        case Counts(counts=counts):
            return list_counts(dict(counts))
        case Object(object=name):
            return name
        case Character(portrait=portrait):
            return answer_text(portrait)
        case Portrait():
            text = describe_portrait(answer)
            return f"{text[0].upper()}{text[1:]}."
        case FreeText(text=text):
            return text


# ---- a run to folders ------------------------------------------------------------------------------------------------


def export_run(run: RunFolder, folder: Path, *, judge: str | None = None, sample: int = 0) -> list[Path]:
    """Write a run's lines and pictures in UniSandbox's layout and, if a judge is named, its result files.

    Families that UniSandbox has no format for are left out; so are the arms it does not have.

    Returns:
        The picture folders.

    Raises:
        RunFolderError: The folder cannot be written, or a picture of the run is missing or damaged.
    """
    families: dict[str, list[Item]] = {}
    for item in run.items():
        if item.family in STEMS:
            families.setdefault(item.family, []).append(item)
    export_unisandbox((item for members in families.values() for item in members), folder)
    records, verdicts = run.records(), run.verdicts(judge) if judge is not None else None
    folders = []
    for arm in ARMS:
        for family, members in families.items():
            names, where = picture_names(members), folder / "test" / arm / STEMS[family]
            files: list[tuple[Path, bytes]] = []
            rulings: dict[str, Ruling | None] = {}
            asked = False
            for item in members:
                key = Key(item.id, "generation", arm, sample)
                record = records.get(key)
                asked = asked or record is not None
                if record is not None and record.image is not None:
                    png = io.BytesIO()
                    run.load_image(record).save(png, "PNG")
                    files.append((where / f"{names[item.id]}.png", png.getvalue()))
                    verdict = verdicts.get(key) if verdicts is not None else None
                    rulings[item.id] = verdict or Ruling.unscored("not judged")
                else:
                    rulings[item.id] = None
            if not asked:
                continue
            with explain_os_errors(folder, safe="Nothing was lost"):
                write_files(files)
            if verdicts is not None:
                write_results(where, members, rulings)
            folders.append(where)
    return folders


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
        reading = ruling.reading if ruling is not None else None
        cells["Caption"] = json.dumps(reading, ensure_ascii=False) if reading else ""
    return given | {"Image_Path": str(image)} | cells


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


def read_ids(folder: Path, stem: str) -> dict[str, str]:
    """The map of ids that `export_unisandbox` wrote beside the lines of that name."""
    return json.loads(_ids_path(folder, stem).read_text(encoding="utf-8"))
