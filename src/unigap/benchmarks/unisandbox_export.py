"""A run in UniSandbox's layout, so that UniSandbox's own scripts can judge its pictures.

    OUT/math_1.jsonl, math_1.ids.json                           the lines (`unisandbox_lines`)
    OUT/test/{normal,think}/math_1/7.png                        pictures (7_A.png and 7_B.png of a pair)
    OUT/test/{normal,think}/math_1/evaluation_results.{csv,log} a judge's verdicts (`unisandbox_results`)

UniSandbox's sampler crops every picture to the box around its pixels that are not black before it saves it. So do we:
its judge then sees what it would have seen.
"""

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from unigap.benchmarks.unisandbox_lines import STEMS, export_unisandbox, picture_names
from unigap.benchmarks.unisandbox_results import write_results
from unigap.disk import KeyedLines, explain_os_errors, write_files
from unigap.errors import RunFolderError
from unigap.items import Arm, Item
from unigap.progress import show_progress
from unigap.records import Key, Record, Ruling, RunFolder, Verdict

ARMS: tuple[Arm, ...] = ("normal", "think")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written of a run."""

    folders: tuple[Path, ...]
    damaged: tuple[str, ...]
    """Pictures of the run that could not be read, with the reason; they are left out."""


def export_run(run: RunFolder, folder: Path, *, judge: str | None = None, sample: int = 0) -> Exported:
    """Write a run's lines and pictures in UniSandbox's layout and, if a judge is named, its result files.

    Families that UniSandbox has no format for are left out; so are the arms it does not have, texts and thoughts.

    Raises:
        RunFolderError: The folder cannot be written, or holds pictures that are not of this run.
    """
    families: dict[str, list[Item]] = {}
    for item in run.items():
        if item.family in STEMS:
            families.setdefault(item.family, []).append(item)
    export_unisandbox((item for members in families.values() for item in members), folder)
    records, verdicts = run.records(), run.verdicts(judge) if judge is not None else None
    folders: list[Path] = []
    damaged: list[str] = []
    for arm in ARMS:
        for family, members in families.items():
            keys = [Key(item.id, "generation", arm, sample) for item in members]
            drawn = [records.get(key) for key in keys]
            if not any(drawn):
                continue
            where, names = folder / "test" / arm / STEMS[family], picture_names(members)
            refuse_others(where, {f"{name}.png" for name in names.values()})
            rulings: dict[str, Ruling | None] = {}
            with show_progress(f"writing {where}", len(members), unit="pictures") as advance:
                for item, record in zip(members, drawn, strict=True):
                    png = _png(run, record, damaged)
                    if png is not None:
                        with explain_os_errors(folder, safe="Nothing was lost"):
                            write_files([(where / f"{names[item.id]}.png", png)])
                    rulings[item.id] = None if png is None or record is None else _ruling(verdicts, record.key)
                    advance(1)
            if verdicts is not None:
                write_results(where, members, rulings)
            folders.append(where)
    return Exported(folders=tuple(folders), damaged=tuple(damaged))


def _ruling(verdicts: KeyedLines[Verdict] | None, key: Key) -> Ruling:
    verdict = verdicts.get(key) if verdicts is not None else None
    return verdict or Ruling.unscored("not judged")


def _png(run: RunFolder, record: Record | None, damaged: list[str]) -> bytes | None:
    """The picture of a record as UniSandbox's sampler saves it; None if there is none that can be read."""
    if record is None or record.image is None:
        return None
    try:
        image = run.load_image(record)
    except RunFolderError as error:
        damaged.append(str(error))
        return None
    png = io.BytesIO()
    crop(image).save(png, "PNG")
    return png.getvalue()


def crop(image: Image.Image) -> Image.Image:
    """The part of a picture inside the box around its pixels that are not black; all of it if all are black."""
    return image.crop(image.getbbox())


def refuse_others(where: Path, names: set[str]) -> None:
    """Refuse a folder with pictures of other names.

    Raises:
        RunFolderError: There are some.
    """
    # Their judge scores what lies there, so pictures of an earlier export would be scored as this run's.
    others = sorted(path.name for path in where.glob("*.png") if path.name not in names)
    if others:
        raise RunFolderError(
            f"{where} holds {len(others)} pictures that are not of this run (first: {others[0]}); choose another --out"
        )
