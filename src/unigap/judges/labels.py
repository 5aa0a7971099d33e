"""What people said of a run's own pictures, and a judge's error rates from it.

`labels.csv`, one picture a line: `item_id`, `arm`, `label` (right, wrong, skip, or empty: not labelled yet), and where
known `sample` (0), `judge` (by whose verdicts the pictures were drawn) and `image_sha256` (of the pixels labelled). A
file made by hand needs the first three. Pictures are drawn evenly from the strata, family by verdict, and each label
then counts for as many pictures of its stratum as it stands for.
"""

import csv
import io
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from unigap.disk import explain_os_errors, write_files
from unigap.errors import ItemFileError, RunFolderError
from unigap.gap.correction import LabelledGroup, LabelledRates
from unigap.items import ARMS_OF
from unigap.judges.card import ALL, Side
from unigap.records import Key, RunFolder

LABELS_FILE = "labels.csv"
COLUMNS = ("item_id", "arm", "sample", "label", "judge", "image_sha256")

Label = Literal["right", "wrong", "skip", ""]
LABELS: tuple[Label, ...] = get_args(Label)
Stratum = tuple[str, bool]
"""Family, and whether the judge accepted the picture."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """One picture to be labelled, or labelled."""

    key: Key
    label: Label = ""
    judge: str = ""
    """Whose verdicts it was drawn by; "" if by none."""
    image_sha256: str = ""


def picture_strata(folder: RunFolder, judge: str) -> dict[Key, Stratum]:
    """Every picture that a judge has ruled on, with its stratum."""
    verdicts, strata = folder.verdicts(judge), {}
    for record in folder.records():
        verdict = verdicts.get(record.key) if record.image else None
        if verdict and verdict.settled:
            strata[record.key] = (folder.item(record.item_id).family, verdict.verdict == "correct")
    return strata


def draw_pictures(
    folder: RunFolder, judge: str, drawn: Sequence[Labelled] = (), *, num: int = 50, seed: int = 0
) -> list[Labelled]:
    """Pictures to label: those drawn before, and more up to `num`, evenly from the strata, in random order.

    Raises:
        RunFolderError: The judge has ruled on no picture of the run.
        ValueError: Those drawn before were drawn by another judge's verdicts.
    """
    if others := {row.judge for row in drawn} - {judge}:
        raise ValueError(
            f"the labels so far were drawn by verdicts of {', '.join(map(repr, sorted(others)))}, not {judge}"
        )
    strata = picture_strata(folder, judge)
    if not strata:
        raise RunFolderError(f"{folder.path} has no picture with a verdict of {judge}; there is nothing to label")
    rng = random.Random(f"labels/{seed}")
    taken = {row.key for row in drawn}
    counts = Counter(dict.fromkeys(strata.values(), 0))
    counts.update(strata[key] for key in taken if key in strata)
    left: dict[Stratum, list[Key]] = defaultdict(list)
    for key in sorted(strata.keys() - taken):
        left[strata[key]].append(key)
    for keys in left.values():
        rng.shuffle(keys)
    fresh: list[Labelled] = []
    records = folder.records()
    while len(fresh) < num - len(drawn) and left:
        # Strata with as few are taken in random order, or the first families would be ahead when labels run out.
        stratum = min(left, key=lambda stratum: (counts[stratum], rng.random()))
        key = left[stratum].pop()
        counts[stratum] += 1
        if not left[stratum]:
            del left[stratum]
        record = records.get(key)
        assert record is not None
        fresh.append(Labelled(key=key, judge=judge, image_sha256=record.image_sha256 or ""))
    rng.shuffle(fresh)
    return [*drawn, *fresh]


def write_labels(path: Path, rows: Sequence[Labelled]) -> None:
    """Write the file anew; at any moment it is the old one or the whole new one.

    Raises:
        RunFolderError: It cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow((row.key.item_id, row.key.arm, row.key.sample, row.label, row.judge, row.image_sha256))
    with explain_os_errors(path.parent):
        write_files([(path, text.getvalue().encode("utf-8", "backslashreplace"))])


def read_labels(path: Path) -> list[Labelled]:
    """Read a file of labels, ours or made by hand.

    Raises:
        ItemFileError: It cannot be read, or a line is not what the format says; the message names it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ItemFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if missing := {"item_id", "arm", "label"} - set(reader.fieldnames or ()):
        raise ItemFileError(f"{path} lacks the columns {', '.join(sorted(missing))}; expected {', '.join(COLUMNS)}")
    rows: dict[Key, Labelled] = {}
    for line in reader:
        row = _row(line, f"{path}, line {reader.line_num}")
        if row.key in rows:
            raise ItemFileError(f"{path}, line {reader.line_num}: {row.key.item_id[:80]!r} is labelled twice")
        rows[row.key] = row
    return list(rows.values())


def _row(line: Mapping[str | None, str | None], where: str) -> Labelled:
    arm, label, sample = line.get("arm"), (line.get("label") or "").strip().lower(), line.get("sample") or "0"
    if arm not in ARMS_OF["generation"]:
        raise ItemFileError(f'{where}: "arm" is {arm!r}, expected one of: {", ".join(ARMS_OF["generation"])}')
    if label not in LABELS:
        raise ItemFileError(f'{where}: "label" is {label!r}, expected right, wrong, skip or nothing')
    if not (sample.isascii() and sample.isdigit()):
        raise ItemFileError(f'{where}: "sample" is {sample!r}, expected a number from 0')
    key = Key(line.get("item_id") or "", "generation", arm, int(sample))
    return Labelled(key=key, label=label, judge=line.get("judge") or "", image_sha256=line.get("image_sha256") or "")


# ---- error rates -----------------------------------------------------------------------------------------------------


def label_side(folder: RunFolder, judge: str, rows: Sequence[Labelled], *, pictures: str) -> Side:
    """A judge's error rates on a run's pictures, from labels of some of them (docs/judge_card.md eq. 2).

    A label of a stratum with N pictures and n labels counts N / n times. Rates are given by family, and for all
    families together in the run's own mix.

    Args:
        folder: The run.
        judge: Who is measured; may be another than the one whose verdicts the pictures were drawn by.
        rows: The labels; those that say nothing ("skip" or none) are left out.
        pictures: Domain of the run's pictures.

    Raises:
        ItemFileError: A label is of no picture of this run, or of other pixels; or drawn by several judges.
    """
    check_rows(folder, rows)
    strata = picture_strata(folder, judge)
    by = {row.judge for row in rows}
    if len(by) > 1:
        raise ItemFileError(f"the labels were drawn by verdicts of several judges: {', '.join(sorted(map(repr, by)))}")
    drawn_by = next(iter(by), "") or judge
    drawn_strata = strata if drawn_by == judge else picture_strata(folder, drawn_by)
    used = [row for row in rows if row.label in ("right", "wrong")]
    ruled = [row for row in used if row.key in strata and row.key in drawn_strata]
    size, labelled = Counter(drawn_strata.values()), Counter(drawn_strata[row.key] for row in ruled)
    groups: dict[Stratum, list[tuple[bool, float]]] = defaultdict(list)
    for row in ruled:
        stratum = drawn_strata[row.key]
        weighted = (row.label == "wrong", size[stratum] / labelled[stratum])
        family, accepted = strata[row.key]
        groups[family, accepted].append(weighted)
        groups[ALL, accepted].append(weighted)
    sizes = Counter(strata.values())
    sizes.update((ALL, accepted) for _, accepted in strata.values())
    families = [*dict.fromkeys(family for family, _ in strata.values()), ALL]
    notes = []
    if empty := [stratum for stratum in size if not labelled[stratum]]:
        share = sum(size[stratum] for stratum in empty) / sum(size.values())
        notes.append(f"{len(empty)} of {len(size)} strata, {share:.0%} of the pictures, have no label")
    return Side(
        direction="generation",
        source="labels",
        pictures=pictures,
        families={
            family: LabelledRates(
                accepted=_group(sizes[family, True], groups[family, True]),
                rejected=_group(sizes[family, False], groups[family, False]),
            )
            for family in families
        },
        kinds={},
        num_unscored=len(used) - len(ruled),
        notes=tuple(notes),
    )


def check_rows(folder: RunFolder, rows: Sequence[Labelled]) -> None:
    """Make sure that labels are of this run's pictures.

    Raises:
        ItemFileError: One is of no picture of the run, or of other pixels.
    """
    records = folder.records()
    for row in rows:
        record = records.get(row.key)
        if record is None or record.image is None:
            raise ItemFileError(
                f"the run has no picture of {row.key.item_id[:80]!r}, arm {row.key.arm}, sample {row.key.sample}; are "
                "these labels of another run?"
            )
        if row.image_sha256 and row.image_sha256 != record.image_sha256:
            raise ItemFileError(f"the label of {row.key.item_id[:80]!r}, arm {row.key.arm}, is of another picture")


def _group(size: int, labels: Sequence[tuple[bool, float]]) -> LabelledGroup:
    if not labels:
        return LabelledGroup(size=size)
    total = sum(weight for _, weight in labels)
    return LabelledGroup(
        size=size,
        num_right=sum(not wrong for wrong, _ in labels),
        num_wrong=sum(wrong for wrong, _ in labels),
        wrong_share=sum(weight for wrong, weight in labels if wrong) / total,
        effective=total**2 / sum(weight**2 for _, weight in labels),
    )
