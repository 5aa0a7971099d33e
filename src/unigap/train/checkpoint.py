"""What a killed run needs to go on, as one safetensors file that is always whole; and folders written the same way."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unigap.disk import sync_folder
from unigap.errors import TrainingError

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], *, step: int, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint: to a temporary file first, which takes the old one's place when it is safely on disk.

    Args:
        step: How many steps it has behind it. The data and the random numbers of a step are functions of (seed, step),
            so this is their position too.
        identity: What decides the run's result; see `load_checkpoint`.

    Raises:
        TrainingError: It cannot be written (disk full, say); the checkpoint before is whole.
    """
    path = folder / CHECKPOINT
    partial = folder / (CHECKPOINT + ".partial")
    metadata = {"step": str(step), "identity": json.dumps(identity, sort_keys=True)}
    with explain_unsaved(f"the checkpoint of step {step}", path, partial):
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=metadata)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(folder)


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> tuple[int, dict[str, Tensor]]:
    """The steps a folder's checkpoint has behind it and its tensors; (0, {}) if there is none.

    Raises:
        TrainingError: It is damaged, or of a run with another identity; the message says what differs.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0, {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        theirs, step = json.loads(metadata["identity"]), int(metadata["step"])
        tensors = load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path} is not a checkpoint of this trainer ({error}); name another --out") from error
    if differs := list(_differences(theirs, json.loads(json.dumps(identity)))):
        more = f" and {len(differs) - 5} more" if len(differs) > 5 else ""
        raise TrainingError(f"{path} is of another run ({'; '.join(differs[:5])}{more}); name another --out")
    return step, tensors


def _differences(theirs: Any, ours: Any, name: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            yield from _differences(theirs.get(key), ours.get(key), f"{name}.{key}" if name else key)
    elif theirs != ours:
        yield f"{name}: {theirs} there, {ours} here"


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Have a whole folder written under another name, then put it in its place, and in that of an older one.

    Raises:
        TrainingError: It cannot be written; an older one is whole.
    """
    partial = folder.with_name(folder.name + ".partial")
    old = folder.with_name(folder.name + ".old")
    with explain_unsaved("the model", folder, partial):
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        for path in partial.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def explain_unsaved(what: str, path: Path, partial: Path) -> Iterator[None]:
    """Turn a failed write into an error that says what is safe, and give back the space that the attempt took."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
        before = "what was saved before is whole" if path.exists() else "nothing was saved before"
        why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise TrainingError(
            f"cannot save {what} to {path}: {why}; {before}. Make room, then run the same command again to go on."
        ) from error
