"""GapEval's Hub dataset, written as GapEval's directories, which `unigap.benchmarks.gapeval` reads.

The dataset's columns are documented nowhere. Those called as the keys of prompt.json, `image` and `ref` are taken as
they are; if there are others, the reader stops and lists all of them, and goes on once it is told which is which.

    category, gen_prompt, reference, und_prompt (or problem)     texts; a reference may be a list of them
    subcategory                                                  text, may be absent
    image, ref                                                   a picture or a list of them, may be absent or null:
                                                                 encoded bytes, or {"bytes": ..., "path": ...}
"""

import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from unigap.benchmarks.gapeval import IMAGE_FOLDERS, PROMPT, REF_FOLDER, is_gapeval, is_multi_hop
from unigap.disk import explain_os_errors, write_files
from unigap.errors import ItemFileError, RunFolderError
from unigap.progress import show_progress

if TYPE_CHECKING:
    import pyarrow

NEEDED = ("category", "und_prompt", "gen_prompt", "reference")
OPTIONAL = ("subcategory", "image", "ref")
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.+))?")
_ROWS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of a dataset's rows."""

    num_rows: int
    unreadable: tuple[str, ...]
    """Rows that have no folder, with the reason."""


def write_directories(source: str, out: Path, *, columns: Mapping[str, str] | None = None) -> Written:
    """Write row n of a dataset as OUT/data_<n>.

    A row that cannot be read is reported and the rest goes on. Rows whose folder is complete are not written again, so
    the same command goes on where it stopped.

    Args:
        source: A parquet file, a folder with some, or the name of a Hub dataset ("owner/name", or
            "owner/name@revision"), which is downloaded into the Hub's cache.
        out: The root to write.
        columns: Field -> column, for fields whose column has another name. Columns that are named nowhere are then
            left out.

    Raises:
        ItemFileError: No parquet file, columns that are not known, or no row that can be read.
        RunFolderError: `out` holds something else, or cannot be written.
    """
    paths = _parquet_files(source)
    names = _match_columns(paths, columns or {})
    _refuse_others(out)
    number = 0
    unreadable: list[str] = []
    with show_progress(f"writing {out}", _num_rows(paths), unit="rows") as advance:
        for number, (where, row) in enumerate(_rows(paths, names), start=1):
            advance(1)
            folder = out / f"data_{number}"
            if (folder / PROMPT).exists():
                continue
            try:
                files = _files(where, row)
            except ItemFileError as error:
                unreadable.append(str(error))
                continue
            with explain_os_errors(out):
                # prompt.json comes last: a folder that has one is complete.
                for name, data in files.items():
                    write_files([(folder / name, data)])
    if number == len(unreadable):
        raise ItemFileError(unreadable[0] if unreadable else f"{source} holds no rows")
    return Written(num_rows=number, unreadable=tuple(unreadable))


def _refuse_others(out: Path) -> None:
    others = [path.name for path in out.iterdir() if not path.name.startswith("data_")] if out.is_dir() else []
    if others:
        raise RunFolderError(
            f"{out} holds something else than data folders (first: {min(others)}); choose another --out"
        )


# ---- where the rows are ----------------------------------------------------------------------------------------------


def _parquet_files(source: str) -> list[Path]:
    path = Path(source)
    if not path.exists():
        if (name := _HUB_NAME.fullmatch(source)) is None:
            raise ItemFileError(f"{source} is no file, no folder, and no name of a Hub dataset (owner/name)")
        from huggingface_hub import snapshot_download

        path = Path(snapshot_download(name[1], repo_type="dataset", revision=name[2], allow_patterns=["*.parquet"]))
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not paths and is_gapeval(path):
        raise ItemFileError(f"{path} holds GapEval's directories already; read them with --format gapeval")
    if not paths:
        raise ItemFileError(
            f"{source} has no .parquet file. Of a Hub dataset stored otherwise, the Hub keeps a converted copy: "
            "owner/name@refs/convert/parquet"
        )
    return paths


def _schema(path: Path) -> "pyarrow.Schema":
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ItemFileError('reading .parquet needs pyarrow; install it with: pip install "unigap[data]"') from None
    try:
        return pyarrow.parquet.read_schema(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ItemFileError(f"{path} is not a parquet file: {error}") from None


def _match_columns(paths: Sequence[Path], columns: Mapping[str, str]) -> dict[str, str]:
    """Field -> column, the same in all files."""
    schema = _schema(paths[0])
    for path in paths[1:]:
        if _schema(path).names != schema.names:
            raise ItemFileError(f"{path} has other columns than {paths[0]}; read them one by one, or name one split")
    there = ", ".join(f"{field.name} ({field.type})" for field in schema)
    how = "say which is which with --columns FIELD=COLUMN ..., e.g. --columns und_prompt=question image=picture"
    for field, column in columns.items():
        if field not in (*NEEDED, *OPTIONAL):
            raise ItemFileError(f"--columns: unknown field {field!r}; known: {', '.join((*NEEDED, *OPTIONAL))}")
        if column not in schema.names:
            raise ItemFileError(f"--columns: no column {column!r} in {paths[0]}. Columns: {there}")
    names = {field: field for field in (*NEEDED, *OPTIONAL) if field in schema.names}
    if "und_prompt" not in names and "problem" in schema.names:
        names["und_prompt"] = "problem"
    names |= columns
    missing = [field for field in NEEDED if field not in names]
    unknown = [name for name in schema.names if name not in names.values()]
    if missing or (unknown and not columns):
        lacks = f"no column for {', '.join(missing)}; " if missing else f"unknown columns {', '.join(unknown)}; "
        raise ItemFileError(f"{paths[0]}: {lacks}{how}. Columns: {there}")
    return names


def _num_rows(paths: Sequence[Path]) -> int:
    import pyarrow.parquet

    return sum(pyarrow.parquet.read_metadata(path).num_rows for path in paths)


def _rows(paths: Sequence[Path], names: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    for path in paths:
        number = 0
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[*dict.fromkeys(names.values())]):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}, row {number}", {field: row[column] for field, column in names.items()}
        except (OSError, pyarrow.ArrowException) as error:
            raise ItemFileError(f"{path} is damaged after row {number}: {error}") from None


# ---- one row ---------------------------------------------------------------------------------------------------------


def _files(where: str, row: Mapping[str, Any]) -> dict[str, bytes]:
    """Name in the data folder -> content, prompt.json last."""
    prompt = _prompt(where, row)
    problem, ref = _pngs(where, "image", row), _pngs(where, "ref", row)
    if not problem and not is_multi_hop(prompt["category"]):
        raise ItemFileError(f"{where}: no picture; category {prompt['category']!r} edits one")
    files = {f"{IMAGE_FOLDERS[0]}/{k}.png": png for k, png in enumerate(problem)}
    files |= {f"{REF_FOLDER}/{k}.png": png for k, png in enumerate(ref)}
    text = json.dumps(prompt, ensure_ascii=False, indent=1) + "\n"
    return files | {PROMPT: text.encode("utf-8", "backslashreplace")}


def _prompt(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    prompt: dict[str, Any] = {}
    for field in ("category", "subcategory", "und_prompt", "gen_prompt"):
        value = row.get(field)
        if not (isinstance(value, str) and value.strip()) and not (field == "subcategory" and not value):
            raise ItemFileError(f'{where}: "{field}" is {repr(value)[:80]}; expected a non-empty text')
        prompt[field] = value or ""
    value = row["reference"]
    if not value or not isinstance(value, str | list | dict):
        raise ItemFileError(f'{where}: "reference" is {repr(value)[:80]}; expected a text, or a list of them')
    return prompt | {"reference": value}


def _pngs(where: str, field: str, row: Mapping[str, Any]) -> list[bytes]:
    value = row.get(field)
    cells = value if isinstance(value, list) else [] if value is None else [value]
    return [_png(f"{where}, {field}", cell) for cell in cells]


def _png(where: str, cell: Any) -> bytes:
    data = cell.get("bytes") if isinstance(cell, Mapping) else cell
    if not isinstance(data, bytes):
        # A path alone would name a file on somebody else's disk.
        raise ItemFileError(f"{where}: no bytes of a picture in {repr(cell)[:80]}")
    png = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.convert("RGB").save(png, "PNG")
    except Exception as error:  # noqa: BLE001 (PIL raises SyntaxError, struct.error and more on damaged files)
        raise ItemFileError(f"{where}: picture cannot be read: {error}") from None
    return png.getvalue()
