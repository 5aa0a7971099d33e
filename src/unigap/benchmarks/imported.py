"""What a model made elsewhere, put into a run folder so that it can be judged and reported here.

Others' files say little about how they were made. What is not known is said so: the weights' hash and the think
prompt's are "unknown", the sampling settings are {"imported": FORMAT}, and seeds are 0.
"""

import json
import re
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from unigap.errors import ItemFileError
from unigap.items import Arm, Direction, Item
from unigap.progress import show_progress
from unigap.records import JudgeRef, Key, ModelRef, Record, RunFolder, RunIdentity, Verdict, pixels_sha256
from unigap.scenes.render import parse_scene, render

UNKNOWN = "unknown"
MAX_JSON_BYTES = 16 * 2**20
_BATCH = 16

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Made:
    """One answer, or one picture, of a model."""

    key: Key
    text: str | None = None
    picture: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies in another project's folders. Nothing of it has been decoded yet but JSON."""

    items: tuple[Item, ...]
    made: tuple[Made, ...]
    missing: tuple[str, ...] = ()
    """What should be there and is not, for people: "test/normal/math_1: 7.png"."""
    unmatched: tuple[str, ...] = ()
    """Files that belong to no item."""
    unreadable: tuple[str, ...] = ()
    """Answers whose file cannot be read, with the reason."""
    notes: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    """Of their judge, if it was named."""

    @classmethod
    def joined(cls, parts: Sequence["Found"]) -> "Found":
        """Several as one."""
        return cls(**{f.name: tuple(x for part in parts for x in getattr(part, f.name)) for f in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What one import did."""

    folder: RunFolder
    imported: Counter[tuple[Direction, Arm]]
    num_before: int
    """Records that an earlier import had made."""
    changed: tuple[str, ...]
    """Files that are not what an earlier import took from there; its records were kept."""
    unreadable: tuple[str, ...]
    num_verdicts: int


def imported_judge(name: str) -> JudgeRef:
    """A judge known by name alone."""
    return JudgeRef(name=name, version="imported")


def import_found(
    found: Found,
    out: Path,
    *,
    model: str,
    source: str,
    judge: JudgeRef | None = None,
    pictures: Literal["sandbox", "photo"] = "photo",
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> ImportReport:
    """Write a run folder, or add to one that an earlier import of the same model and format made.

    A picture that cannot be read is reported and has no record; the rest goes on. An answer without any text is
    recorded as malformed: that is the model's doing.

    Args:
        found: What to import.
        out: The run folder.
        model: Name of whoever made it.
        source: The format it was found in.
        judge: Whose verdicts `found.verdicts` are.
        pictures: What kind of pictures they are; a judge that reads only the other refuses them.
        config: What run.json keeps besides.
        overwrite: Move an existing run aside.

    Raises:
        ItemFileError: There is nothing to import.
        IdentityError: The folder holds another run.
        RunFolderError: The folder cannot be written; what was imported before is safe.
    """
    if not found.made:
        first = next(iter((*found.unreadable, *found.missing)), "none was expected")
        raise ItemFileError(f"nothing to import: {len(found.missing)} answers are missing (first: {first})")
    ref = ModelRef(name=model, sha256=UNKNOWN)
    identity = RunIdentity(model=ref, sampling={"imported": source}, think_prompt_sha256=UNKNOWN, seed=0)
    kept = {"imported": source, "pictures": pictures, "num_missing": len(found.missing), **(config or {})}
    folder = RunFolder.start(out, identity, config=kept, overwrite=overwrite)
    folder.add_items(found.items)
    families = {item.id: item.family for item in found.items}
    before = folder.records()
    imported, num_before = Counter[tuple[Direction, Arm]](), 0
    changed, unreadable = [], list(found.unreadable)
    bar = show_progress(f"importing {model}", len(found.made))
    with folder.record_writer() as writer, bar as advance:
        for batch in _batches(found.made, _BATCH):
            records: list[Record] = []
            images: list[Image.Image | None] = []
            for made, image in _decode(batch, unreadable):
                record = _record(made, identity)
                if (old := before.get(made.key)) is None:
                    records.append(record)
                    images.append(image)
                    continue
                num_before += 1
                if not _same(old, record, image):
                    changed.append(str(made.picture or made.key.item_id))
            writer.write(records, images, [families[record.item_id] for record in records])
            imported.update((record.direction, record.arm) for record in records)
            advance(len(batch))
    return ImportReport(
        folder=folder,
        imported=imported,
        num_before=num_before,
        changed=tuple(changed),
        unreadable=tuple(unreadable),
        num_verdicts=_add_verdicts(folder, judge, found.verdicts) if judge is not None else 0,
    )


def _decode(batch: Iterable[Made], unreadable: list[str]) -> Iterator[tuple[Made, Image.Image | None]]:
    for made in batch:
        try:
            yield made, None if made.picture is None else read_picture(made.picture)
        except ItemFileError as error:
            unreadable.append(str(error))


def _record(made: Made, identity: RunIdentity) -> Record:
    empty = made.picture is None and not (made.text or "").strip()
    return Record(
        **made.key._asdict(),
        seed=identity.seed,
        model=identity.model,
        sampling=identity.sampling,
        outcome="malformed" if empty else "ok",
        text=None if empty else made.text,
        usage={},
        detail="the answer is empty" if empty else "",
    )


def _same(old: Record, new: Record, image: Image.Image | None) -> bool:
    sha256 = None if image is None else pixels_sha256(image)
    return (old.text, old.outcome, old.image_sha256) == (new.text, new.outcome, sha256)


def _add_verdicts(folder: RunFolder, judge: JudgeRef, verdicts: Iterable[Verdict]) -> int:
    """Verdicts on what has a record and is not settled yet; returns how many."""
    folder.prepare_verdicts(judge)
    with folder.verdict_log(judge.name) as log:
        records, done = folder.records(), folder.verdicts(judge.name)
        new = [verdict for verdict in verdicts if verdict.key in records and done.get(verdict.key) != verdict]
        log.append(verdict.to_json() for verdict in new)
    return len(new)


def _batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(things)
    while batch := list(islice(iterator, size)):
        yield batch


# ---- files of others -------------------------------------------------------------------------------------------------


def item_picture(item: Item, ref: str, root: Path | None) -> Image.Image:
    """A picture of an item: rendered, or read from a file, which has to lie inside the root.

    Raises:
        ItemFileError: It cannot be; the message says which folder to name.
    """
    shows = f"item {item.id[:80]!r} shows"
    if ref.startswith("scene:"):
        try:
            return render(parse_scene(ref))
        except ValueError as error:
            raise ItemFileError(f"{shows} {ref[:80]!r}: {error}") from None
    if root is None:
        raise ItemFileError(f"{shows} the file {ref!r}; say with --images which folder it is in")
    path = root / ref
    try:
        inside, there = path.resolve().is_relative_to(root.resolve()), path.exists()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a zero byte, a loop of links
        raise ItemFileError(f"{shows} {ref[:80]!r}, which is no path: {error}") from None
    if not inside:
        raise ItemFileError(f"{shows} {ref!r}, which is outside {root}; it was not read")
    if not there:
        raise ItemFileError(f"{shows} {ref!r}, which is not in {root}; name another folder with --images")
    return read_picture(path)


def read_picture(path: Path) -> Image.Image:
    """A picture as RGB. Links are not followed, and nothing that Pillow takes for a decompression bomb is decoded.

    Raises:
        ItemFileError: It cannot be read; the message says why.
    """
    try:
        check_plain(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                return file.convert("RGB")
    except ItemFileError:
        raise
    except Exception as error:  # noqa: BLE001 (PIL raises SyntaxError, struct.error and more on damaged files)
        raise ItemFileError(f"{path}: picture cannot be read: {error}") from None


def read_json(path: Path) -> Any:
    """A JSON file of others.

    Raises:
        ItemFileError: It is missing, a link, larger than 16 MiB, or not JSON.
    """
    try:
        size = check_plain(path)
        if size > MAX_JSON_BYTES:
            raise ItemFileError(f"{path} has {size} bytes; files over {MAX_JSON_BYTES} are not read")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # also text that is not UTF-8
        raise ItemFileError(f"{path}: not JSON ({error}); expected one JSON object") from None


def check_plain(path: Path) -> int:
    """Its size, if it is a file and no link."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise ItemFileError(f"{path} is a link or no file, and is not followed; put the file itself there")
    return status.st_size


def names_in(folder: Path) -> dict[str, Path]:
    """What lies in a folder, by name, in order of name ("2.png" before "10.png"); {} if there is no such folder.

    Looking names up here, instead of building paths, keeps ids that say "../" inside.

    Raises:
        ItemFileError: The folder cannot be read.
    """
    if folder.is_symlink() or not folder.is_dir():
        return {}
    try:
        return {path.name: path for path in sorted(folder.iterdir(), key=_natural)}
    except OSError as error:
        raise ItemFileError(f"{folder} cannot be read: {error.strerror or error}") from None


def _natural(path: Path) -> tuple[str, str]:
    return re.sub("[0-9]+", lambda digits: digits[0].zfill(12), path.name), path.name
