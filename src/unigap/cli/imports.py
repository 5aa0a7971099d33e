"""`unigap items import`: what others made, as a run folder to judge and report here."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from unigap.cli.common import ArgumentError, Folder, Name, UnfinishedError

if TYPE_CHECKING:
    from unigap.benchmarks.imported import Found, ImportReport
    from unigap.records import JudgeRef


@dataclass(frozen=True, kw_only=True)
class ImportImages:
    """Read pictures and answers that a model made elsewhere into a run folder, which "unigap judge" and "unigap report"
    take.

    unisandbox: --items are its benchmark files, --images holds test/{normal,think}/STEM/ID.png. gapeval: --items is the
    folder of data_<n> with the model's folders inside. gapeval-hub: --items is a dataset (parquet file, folder, or
    owner/name on the Hub), and OUT becomes a folder of data_<n>; there is no model yet.
    """

    items: Annotated[tuple[str, ...], arg(metavar="FILE ...")]
    """What was asked."""
    out: Folder
    """Run folder to write; the same import again adds what was missing. Of gapeval-hub: folder for data_<n>."""
    format: Literal["unisandbox", "gapeval", "gapeval-hub"] = "unisandbox"
    """Whose format."""
    model: Name = None
    """Who made it; of gapeval the name of its folders. Its weights are recorded as unknown."""
    images: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Of unisandbox: folder of the pictures."""
    judge: Name = None
    """Read their judge's result files too, as verdicts of a judge of this name."""
    pictures: Literal["photo", "sandbox"] = "photo"
    """What kind of pictures they are. The exact judge reads only the sandbox's."""
    columns: Annotated[tuple[str, ...], arg(metavar="FIELD=COLUMN ...")] = ()
    """Of gapeval-hub: the dataset's columns, where they have other names than the keys of prompt.json."""
    overwrite: bool = False
    """Move an existing run folder aside instead of adding to it."""

    def run(self) -> None:
        if self.format == "gapeval-hub":
            _import_table(self)
            return
        from unigap.benchmarks.imported import import_found, imported_judge

        if self.columns:
            raise ArgumentError("--columns is for --format gapeval-hub alone")
        if self.model is None:
            raise ArgumentError("say with --model who made the pictures")
        judge = imported_judge(self.judge) if self.judge is not None else None
        found = _find(self, self.model, judge)
        report = import_found(
            found,
            self.out,
            model=self.model,
            source=self.format,
            judge=judge,
            pictures=self.pictures,
            config={
                "items": [Path(item).name for item in self.items],
                # Judges look there for the items' own pictures.
                **({"image_root": self.items[0]} if self.format == "gapeval" else {}),
            },
            overwrite=self.overwrite,
        )
        _print(found, report)


def _find(command: ImportImages, model: str, judge: "JudgeRef | None") -> "Found":
    from unigap.benchmarks.gapeval import find_answers
    from unigap.benchmarks.unisandbox_images import find_pictures

    paths = [Path(item) for item in command.items]
    for path in paths:
        if not path.exists():
            raise ArgumentError(f"--items: no such file or folder: {path}")
    if command.format == "unisandbox":
        if command.images is None:
            raise ArgumentError("say with --images which folder holds test/normal or test/think")
        return find_pictures(paths, command.images, judge=judge)
    if command.images is not None:
        raise ArgumentError("--images is for --format unisandbox alone; GapEval's pictures lie in its data folders")
    if len(paths) != 1 or not paths[0].is_dir():
        raise ArgumentError(f"--items: expected one folder of data_<n>, got {', '.join(map(str, paths))}")
    return find_answers(paths[0], model, judge=judge)


def _print(found: "Found", report: "ImportReport") -> None:
    for (direction, arm), count in sorted(report.imported.items()):
        print(f"{direction} {arm}: {count} imported")
    if report.num_before:
        print(f"{report.num_before} imported before")
    if report.num_verdicts:
        print(f"{report.num_verdicts} verdicts")
    print(f"run: {report.folder.path}")
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print_some("belongs to no item, not read", found.unmatched)
    print_some("missing", found.missing)
    print_some("unreadable", report.unreadable)
    print_some("changed since it was imported; the earlier one was kept", report.changed)
    lists = (("missing", found.missing), ("unreadable", report.unreadable), ("changed", report.changed))
    if left := [f"{len(things)} {what}" for what, things in lists if things]:
        raise UnfinishedError(
            f"{', '.join(left)}; the rest is in {report.folder.path}, and the same command adds to it"
        )


def _import_table(command: ImportImages) -> None:
    from unigap.benchmarks.gapeval_table import write_directories

    if len(command.items) != 1:
        raise ArgumentError(f"--items: expected one dataset, got {len(command.items)}")
    if unused := [name for name in ("model", "images", "judge") if getattr(command, name) is not None]:
        raise ArgumentError(f"--{unused[0]} is not for --format gapeval-hub, which writes items alone")
    columns: dict[str, str] = {}
    for pair in command.columns:
        field, equals, column = pair.partition("=")
        if not equals or field in columns:
            raise ArgumentError(f"--columns: {pair!r}; expected FIELD=COLUMN, each field once")
        columns[field] = column
    written = write_directories(command.items[0], command.out, columns=columns)
    print(f"{command.out}: {written.num_rows - len(written.unreadable)} items in folders data_<n>")
    print_some("unreadable", written.unreadable)
    if written.unreadable:
        raise UnfinishedError(f"{len(written.unreadable)} of {written.num_rows} rows are unreadable and were left out")


def print_some(what: str, lines: Sequence[str], *, most: int = 5) -> None:
    """The first few of a list, and how many more there are."""
    for line in lines[:most]:
        print(f"{what}: {line}", file=sys.stderr)
    if len(lines) > most:
        print(f"{what}: {len(lines) - most} more", file=sys.stderr)
