"""Items from wherever they come: made from a suite, or read from files of unigap's own format or of another's."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from unigap.benchmarks.gapeval import read_gapeval
from unigap.benchmarks.unisandbox import Coverage, coverage, inside, read_unisandbox
from unigap.errors import CannotAskError, ItemFileError, UnknownNameError
from unigap.items import Item, read_items
from unigap.scenes import make_items


@dataclass(frozen=True, kw_only=True)
class ItemFile:
    """The items of one file, or of GapEval's directories."""

    path: Path
    items: tuple[Item, ...]
    coverage: Coverage | None
    """How much of a file of UniSandbox's the sandbox's world holds; None for others."""

    @property
    def image_root(self) -> Path:
        """Folder that the items' pictures are relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    def coverage_lines(self, *, most: int = 5) -> Iterator[str]:
        """How much is inside, and the most frequent reasons why the rest is not."""
        if self.coverage is None:
            return
        yield f"{self.coverage} the sandbox's world"
        reasons = list(self.coverage.outside.items())
        for reason, count in reasons[:most]:
            yield f"  {count} outside: {reason}"
        if rest := reasons[most:]:
            yield f"  {sum(count for _, count in rest)} outside for {len(rest)} other reasons"
        for note in self.coverage.notes:
            yield f"  note: {note}"


def read_item_file(path: Path) -> ItemFile:
    """Read a file of items, its format told from its first line; a folder holds GapEval's directories.

    Raises:
        ItemFileError: It cannot be read, is empty, or a line is malformed (file, line number, what was expected).
    """
    try:
        if path.is_dir():
            return ItemFile(path=path, items=tuple(read_gapeval(path)), coverage=None)
        if _is_unisandbox(path):
            return ItemFile(path=path, items=tuple(read_unisandbox(path)), coverage=coverage(path))
        return ItemFile(path=path, items=tuple(read_items(path)), coverage=None)
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ItemFileError(f"{path} is not UTF-8 text ({error}); expected one JSON object a line") from None


def _is_unisandbox(path: Path) -> bool:
    with path.open(encoding="utf-8-sig") as file:
        line = next((line for line in file if line.strip()), "")
    try:
        first, _ = json.JSONDecoder().raw_decode(line.strip())
    except ValueError:
        return False
    return isinstance(first, Mapping) and "Answer" in first and any(name.startswith("Question") for name in first)


@dataclass(frozen=True, kw_only=True)
class MadeItems:
    """Items of the sandbox's families, made anew each time they are gone through, so that none stays in memory."""

    families: tuple[str, ...]
    num_units: int
    seed: int

    def __iter__(self) -> Iterator[Item]:
        return make_items(self.families, num_units=self.num_units, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class FileItems:
    """Items read from files, without those that cannot be asked."""

    files: tuple[ItemFile, ...]
    kept: tuple[Item, ...]
    outside: Mapping[str, str]
    """Item id -> why it is not asked."""

    @classmethod
    def read(cls, paths: Sequence[Path], families: Sequence[str] = ()) -> Self:
        """Read files and keep these families; all of them, if none is named.

        Raises:
            ItemFileError: As `read_item_file`.
            UnknownNameError: No item is of a family named.
        """
        files = tuple(read_item_file(path) for path in paths)
        found = dict.fromkeys(item.family for file in files for item in file.items)
        for family in families:
            if family not in found:
                raise UnknownNameError("family of these files", family, found)
        wanted = families or tuple(found)
        kept = tuple(item for file in files for item in file.items if item.family in wanted)
        return cls(files=files, kept=kept, outside={})

    def inside(self) -> Self:
        """Set aside what a benchmark asks beyond the sandbox's world.

        A pair with a half outside is outside whole, as it could never score.

        Raises:
            CannotAskError: Nothing is left.
        """
        foreign = {item.id for file in self.files if file.coverage for item in file.items}
        reasons: dict[str, str] = {}
        for item in self.kept:
            if item.id in foreign and (why := inside(item)) is not None:
                reasons.setdefault(item.unit, why)
        outside = {item.id: reasons[item.unit] for item in self.kept if item.unit in reasons}
        kept = tuple(item for item in self.kept if item.id not in outside)
        if not kept:
            first = next(iter(outside.values()))
            raise CannotAskError(f"all {len(outside)} items are outside the sandbox's world (first: {first})")
        return replace(self, kept=kept, outside=outside)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.kept)

    @property
    def image_root(self) -> Path | None:
        """Folder that the items' pictures are relative to; None if the files lie in several."""
        roots = {file.image_root for file in self.files}
        return roots.pop() if len(roots) == 1 else None
