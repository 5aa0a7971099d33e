"""Training data in other people's files, read and written as they are.

Prompt-image parquet (pictures to be drawn) has one row a picture: `image`, the bytes of its file, and `captions`, the
JSON text of an object whose values are prompts. That is the layout of the text-to-image reader of BAGEL's trainer
(ByteDance-Seed/Bagel, data/t2i_dataset.py, which takes one of the captions at random each time); UniSandbox's reasoning
sets are such files. Conversations (text answers) are JSON lines `{"id", "conversations": [{"from": "human", "value"},
{"from": "gpt", "value"}]}`, as in UniSandbox's knowledge data.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, UnidentifiedImageError

from unigap.disk import explain_os_errors, write_files
from unigap.errors import ItemFileError
from unigap.models.trainable import Example

if TYPE_CHECKING:
    from pyarrow import parquet

ROWS_PER_GROUP = 256
"""Rows that a reader holds at once; workers of BAGEL-style trainers resume at a group's beginning."""


def read_folder(folder: Path) -> tuple[list[Example], str]:
    """Every example of a folder's .parquet and .jsonl files, subfolders included, in the order of their names.

    Returns:
        The examples, and the sha256 of the files' names and bytes.

    Raises:
        ItemFileError: There is no such file, or a row or line is not what the format says.
        ValueError: There is parquet, and pyarrow is not installed.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".jsonl") and path.is_file())
    if not paths:
        raise ItemFileError(
            f"{folder} holds no training data; expected .parquet (image, captions) or .jsonl (conversations) files"
        )
    examples: list[Example] = []
    digest = hashlib.sha256()
    for path in paths:
        name = path.relative_to(folder).as_posix()
        read = read_prompt_images if path.suffix == ".parquet" else read_conversations
        examples += read(path, name=name)
        with path.open("rb") as file:
            digest.update(f"{name}\n{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return examples, digest.hexdigest()


# ---- prompt-image parquet --------------------------------------------------------------------------------------------


def read_prompt_images(path: Path, *, name: str = "") -> Iterator[Example]:
    """One example for each caption of each row: the caption is given, the picture is to be drawn.

    Every picture is decoded once, to be sure that it can be, and kept as the bytes it came in.

    Args:
        name: Of the file in the examples' ids; its own by default.

    Raises:
        ItemFileError: Not parquet, a column is missing, or a row is not what the format says (row counted from 0).
        ValueError: pyarrow is not installed.
    """
    number = 0
    with _open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=["image", "captions"]):
            for row in batch.to_pylist():
                try:
                    captions, image = _captions(row["captions"]), _picture(row["image"])
                except ValueError as error:
                    raise ItemFileError(f"{path}, row {number}: {error}") from None
                for key, caption in captions.items():
                    of_caption = f"/{key}" if len(captions) > 1 else ""
                    yield Example(id=f"{name or path.name}#{number}{of_caption}", content=(caption,), image=image)
                number += 1
    if number == 0:
        raise ItemFileError(f"{path} has no rows; expected at least one (image, captions)")


def _open_parquet(path: Path) -> "parquet.ParquetFile":
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ValueError('reading .parquet needs pyarrow; install it with: pip install "unigap[data]"') from None
    try:
        file = parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ItemFileError(f"{path} is not a parquet file: {error}") from None
    wanted = {"image": pyarrow.types.is_binary, "captions": pyarrow.types.is_string}
    large = {"image": pyarrow.types.is_large_binary, "captions": pyarrow.types.is_large_string}
    for column, is_right in wanted.items():
        if column not in file.schema_arrow.names:
            found = ", ".join(file.schema_arrow.names)
            file.close()
            raise ItemFileError(f'{path} has no column "{column}" (found: {found}); expected image and captions')
        kind = file.schema_arrow.field(column).type
        if not (is_right(kind) or large[column](kind)):
            file.close()
            expected = "the bytes of a picture file" if column == "image" else "JSON text"
            raise ItemFileError(f'{path}: column "{column}" is of type {kind}; expected {expected}')
    return file


def _captions(text: str | None) -> dict[str, str]:
    try:
        captions = json.loads(text or "")
    except ValueError:
        captions = None
    if not isinstance(captions, dict) or not captions:
        raise ValueError(
            f'"captions" must be the JSON text of an object with at least one caption, found {_short(text)}'
        )
    for key, caption in captions.items():
        if not isinstance(caption, str) or not caption.strip():
            raise ValueError(f'caption "{key}" must be a text that is not empty, found {_short(caption)}')
    return captions


def _picture(data: bytes | None) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise ValueError(f'"image" must be the bytes of a whole picture file, found {_short(data)}{why}') from None
    return Image.open(io.BytesIO(data or b""))


def write_prompt_images(path: Path, pairs: Iterable[tuple[str, Image.Image]]) -> int:
    """Write (prompt, picture) pairs as parquet; returns how many.

    Raises:
        ValueError: pyarrow is not installed.
        RunFolderError: The file cannot be written; an older one is whole.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ValueError('writing .parquet needs pyarrow; install it with: pip install "unigap[data]"') from None
    schema = pyarrow.schema([("image", pyarrow.binary()), ("captions", pyarrow.string())])
    partial = path.with_name(path.name + ".tmp")
    count = 0
    with explain_os_errors(path.parent, safe="Nothing was lost"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            with parquet.ParquetWriter(file, schema) as writer:
                for group in _groups(pairs):
                    rows = [{"image": _png(image), "captions": json.dumps({"prompt": text})} for text, image in group]
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                    count += len(rows)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    return count


def _groups(pairs: Iterable[tuple[str, Image.Image]]) -> Iterator[list[tuple[str, Image.Image]]]:
    group: list[tuple[str, Image.Image]] = []
    for pair in pairs:
        group.append(pair)
        if len(group) == ROWS_PER_GROUP:
            yield group
            group = []
    if group:
        yield group


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG")
    return buffer.getvalue()


# ---- conversations ---------------------------------------------------------------------------------------------------


def read_conversations(path: Path, *, name: str = "") -> Iterator[Example]:
    """One example for each answer: everything said before it is given, the answer is to be learned.

    Args:
        name: Of the file in the examples' ids; its own by default.

    Raises:
        ItemFileError: A line is not such a conversation, or there are none.
    """
    empty = True
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                empty = False
                try:
                    turns = _turns(json.loads(line))
                except ValueError as error:  # JSONDecodeError is a ValueError
                    raise ItemFileError(f"{path}, line {number}: not a conversation: {error}") from None
                for last in range(1, len(turns), 2):
                    turn = f"/{last // 2}" if len(turns) > 2 else ""
                    yield Example(
                        id=f"{name or path.name}:{number}{turn}", content=tuple(turns[:last]), answer=turns[last]
                    )
        except UnicodeDecodeError as error:
            raise ItemFileError(f"{path} is not UTF-8: {error}") from None
    if empty:
        raise ItemFileError(f"{path} holds no conversations; expected one JSON object a line")


def _turns(data: Any) -> list[str]:
    """The texts of a conversation: human, model, human, ..., model."""
    turns = data.get("conversations") if isinstance(data, dict) else None
    if not isinstance(turns, list) or len(turns) < 2 or len(turns) % 2:
        raise ValueError(f'"conversations" must list human and gpt in turns, ending with gpt; found {_short(turns)}')
    if extra := {"image", "images", "video"} & data.keys():
        raise ValueError(f'"{min(extra)}": conversations about pictures are not read')
    texts = []
    for turn, speaker in zip(turns, ("human", "gpt") * (len(turns) // 2), strict=True):
        text = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(text, str) or not text.strip() or turn.get("from") != speaker:
            raise ValueError(
                f'turn {len(texts) + 1} must be {{"from": "{speaker}", "value": TEXT}}, found {_short(turn)}'
            )
        texts.append(text)
    return texts


def write_conversations(path: Path, pairs: Iterable[tuple[str, str]]) -> int:
    """Write (question, answer) pairs as conversations; returns how many.

    Raises:
        RunFolderError: The file cannot be written; an older one is whole.
    """
    lines = [
        json.dumps(
            {
                "id": number,
                "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
            },
            ensure_ascii=False,
        )
        for number, (question, answer) in enumerate(pairs, start=1)
    ]
    with explain_os_errors(path.parent, safe="Nothing was lost"):
        write_files([(path, "".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace"))])
    return len(lines)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
