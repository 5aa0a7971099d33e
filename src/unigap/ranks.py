"""Several processes on one run, told apart by RANK and WORLD_SIZE as torchrun and others set them.

Ranks share nothing but the run folder: rank r asks the items r, r + WORLD_SIZE, ... and writes a records file of its
own, so no process group is needed, and a run can be continued by another number of ranks. They meet twice, at the
start: once when rank 0 has made the folder, and once when each holds the lock of its own records file. At the end rank
0 waits for those locks, which a rank that dies gives up too.
"""

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from unigap.disk import explain_os_errors, is_locked
from unigap.errors import RunFolderError

MEET_TIMEOUT_S = 1800.0
"""Ranks load their models at different speeds."""
_POLL_S = 0.05


def world_from_env(env: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, world size); (0, 1) where nothing is set.

    Raises:
        ValueError: The variables contradict each other.
    """
    rank, size = int(env.get("RANK", "0")), int(env.get("WORLD_SIZE", "1"))
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} does not fit WORLD_SIZE={size}")
    return rank, size


def meet(path: Path, rank: int, size: int, *, timeout_s: float = MEET_TIMEOUT_S) -> None:
    """Return on rank r > 0 once rank 0 is here, and on rank 0 once all ranks are.

    Args:
        path: The run folder; files beside it announce who has come.

    Raises:
        RunFolderError: Somebody did not come in time.
    """
    if size == 1:
        return
    with explain_os_errors(path.parent):
        if rank == 0:
            _wait_for_all(path, size, timeout_s)
        else:
            _announce(path, rank, timeout_s)


def _sign(path: Path, rank: int) -> Path:
    return path.with_name(f".{path.name}.rank-{rank:05d}")


def _announce(path: Path, rank: int, timeout_s: float) -> None:
    """Keep touching a file until rank 0 takes it away."""
    sign = _sign(path, rank)
    sign.parent.mkdir(parents=True, exist_ok=True)
    sign.touch()
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            time.sleep(_POLL_S)
            try:
                os.utime(sign)
            except FileNotFoundError:
                return
    finally:
        with contextlib.suppress(OSError):
            sign.unlink(missing_ok=True)
    raise RunFolderError(f"rank {rank}: rank 0 did not come to {path} within {timeout_s:.0f} s")


def _wait_for_all(path: Path, size: int, timeout_s: float) -> None:
    """Take away the files that are being touched; one left over from a dead process never changes."""
    seen: dict[int, int] = {}
    missing = set(range(1, size))
    deadline = time.monotonic() + timeout_s
    while missing and time.monotonic() < deadline:
        for rank in sorted(missing):
            with contextlib.suppress(FileNotFoundError):
                changed = _sign(path, rank).stat().st_mtime_ns
                if seen.setdefault(rank, changed) != changed:
                    _sign(path, rank).unlink()
                    missing.discard(rank)
        time.sleep(_POLL_S / 2)
    if missing:
        raise RunFolderError(f"ranks {sorted(missing)} of {size} did not come to {path} within {timeout_s:.0f} s")


def wait_until_unlocked(paths: list[Path]) -> None:
    """Return once no living process holds any of these files as its JsonLog."""
    for path in paths:
        while is_locked(path):
            time.sleep(_POLL_S)
