"""How far a long job is: a bar on a terminal, a plain line a minute elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_EVERY_S = 60.0

Advance = Callable[[int], None]
"""Told how many more are done."""


@contextlib.contextmanager
def show_progress(title: str, total: int, *, unit: str = "records") -> Iterator[Advance]:
    """Show progress on stderr while the context lasts; yields what to call with each number of steps done."""
    if sys.stderr.isatty():
        with _bar(title, total) as advance:
            yield advance
    else:
        yield _lines(title, total, unit)


@contextlib.contextmanager
def _bar(title: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


def _lines(title: str, total: int, unit: str) -> Advance:
    start = last = time.monotonic()
    done = 0

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            left_s = (now - start) / done * (total - done) if done else 0.0
            line = f"{title}: {done} of {total} {unit}, about {left_s / 60:.0f} min left"
            print(line, file=sys.stderr, flush=True)

    return advance
