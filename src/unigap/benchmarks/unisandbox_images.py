"""Pictures that others made for UniSandbox's lines, found where UniSandbox's sampler puts them.

    DIR/test/{normal,think}/STEM/7.png                       of the line with id 7 in STEM.jsonl
    DIR/test/{normal,think}/STEM/7_A.png                     of half A of pair 7
    DIR/test/{normal,think}/STEM/evaluation_results.csv      its judge's results

DIR may be the folder "test" itself. The folder's name is the arm. A picture's record is of sample 0.
"""

from collections.abc import Sequence
from pathlib import Path

from unigap.benchmarks.imported import Found, Made, check_plain, names_in
from unigap.benchmarks.unisandbox import read_unisandbox
from unigap.benchmarks.unisandbox_export import ARMS
from unigap.benchmarks.unisandbox_results import LOG, RESULTS, read_verdicts
from unigap.errors import ItemFileError
from unigap.items import Item
from unigap.records import JudgeRef, Key, Verdict


def find_pictures(files: Sequence[Path], folder: Path, *, judge: JudgeRef | None = None) -> Found:
    """Match pictures to the lines of benchmark files.

    A file whose folder is absent from an arm was not drawn in that arm; a picture that is absent from a folder is
    missing. Links are listed as files that belong to no item.

    Args:
        files: Benchmark files; the stem of each names its picture folders.
        folder: What holds "test", or "test" itself.
        judge: Set: read their result files as verdicts of this judge.

    Raises:
        ItemFileError: A line is malformed, two files have one stem, there is no picture folder, or a result file is
            about pictures that no line names.
    """
    items: dict[str, list[Item]] = {}
    for path in files:
        if path.stem in items:
            raise ItemFileError(
                f"{path}: a file called {path.stem!r} was named before; picture folders go by that name"
            )
        items[path.stem] = read_unisandbox(path)
    root = folder / "test" if (folder / "test").is_dir() else folder
    made: list[Made] = []
    missing: list[str] = []
    unmatched: list[str] = []
    notes: list[str] = []
    verdicts: list[Verdict] = []
    num_folders = 0
    for arm in ARMS:
        stems = names_in(root / arm)
        unmatched += [str(path) for name, path in stems.items() if name not in items]
        for stem, members in items.items():
            where = stems.get(stem)
            if where is None or where.is_symlink() or not where.is_dir():
                notes.append(f"no folder {root / arm / stem}: {stem} has no {arm} arm")
                continue
            num_folders += 1
            inside = names_in(where)
            ids = {picture_name(item): item.id for item in members}
            for name, item_id in ids.items():
                path = inside.pop(f"{name}.png", None)
                if path is None:
                    missing.append(f"{where}: {name}.png")
                else:
                    made.append(Made(key=Key(item_id, "generation", arm, 0), picture=path))
            if judge is not None and RESULTS in inside:
                check_plain(inside[RESULTS])
                verdicts += read_verdicts(inside[RESULTS], ids, judge, arm=arm)
            unmatched += [str(path) for name, path in inside.items() if name not in (RESULTS, LOG)]
    if not num_folders:
        raise ItemFileError(
            f"{folder} has no pictures of {', '.join(items)}: expected {root / ARMS[0] / next(iter(items))}/ID.png, "
            f"or the same in {ARMS[1]}"
        )
    return Found(
        items=tuple(item for members in items.values() for item in members),
        made=tuple(made),
        missing=tuple(missing),
        unmatched=tuple(unmatched),
        notes=tuple(notes),
        verdicts=tuple(verdicts),
    )


def picture_name(item: Item) -> str:
    """The name of an item's picture without ".png", for items that `read_unisandbox` read: "7", or "7_A"."""
    _, _, name = item.unit.partition("/")
    return f"{name}_{item.id.rpartition('/')[2]}" if item.id != item.unit else name
