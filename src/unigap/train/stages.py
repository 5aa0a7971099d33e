"""Parts of a long job, several at a time in processes of their own, each done once and never half.

A part is done when its result lies in its folder; what it left behind when it was killed is for it to go on with.

    OUT/NAME/stage.json       the result of a part that is done: its numbers, minutes, commit and processor
    OUT/NAME/session/         who works on it, and how often it was begun
    OUT/NAME/log.txt          what its processes printed
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigap.disk import JsonLog, hold_folder, read_json_lines, write_files
from unigap.environment import describe_environment
from unigap.errors import TrainingError

RESULT, LOG = "stage.json", "log.txt"
NUM_LINES = 8
"""How much of a failed part's output is shown."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A part, as far as its place in the job goes."""

    what: str
    minutes: float
    """Of CPU time, expected: for the estimate of what remains."""
    needs: str | None = None
    """Another part that must be done before."""


def is_done(folder: Path) -> bool:
    return (folder / RESULT).exists()


def read_result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RESULT).read_text(encoding="utf-8"))


def do_once(folder: Path, work: Callable[[], Any]) -> None:
    """Do a part unless it is done; of two processes that want to, one works and the other waits.

    Args:
        folder: The part's. `work` may use all of it but `session` and the files named above.
        work: Gives what can be written as JSON, for "numbers" of the result.
    """
    with hold_folder(folder / "session", waiting=f"another process works on {folder}; waiting for it"):
        if is_done(folder):
            return
        sessions = folder / "session" / "sessions.jsonl"
        with JsonLog(sessions) as log:
            log.append([{"began": time.time()}])
        began, cpu_began = time.monotonic(), time.process_time()
        numbers = work()
        environment = describe_environment()
        result = {
            "minutes": (time.monotonic() - began) / 60,
            "cpu_minutes": (time.process_time() - cpu_began) / 60,
            "sessions": sum(1 for _ in read_json_lines(sessions)),
            "commit": environment["git_commit"],
            "cpu": environment["machine"]["cpu"],
            "numbers": numbers,
        }
        write_files([(folder / RESULT, json.dumps(result, indent=1).encode() + b"\n")])


def do_all(
    parts: Mapping[str, Planned],
    out: Path,
    *,
    jobs: int,
    here: Callable[[str], None],
    command: Callable[[str], Sequence[str]],
    on_done: Callable[[], None],
) -> None:
    """Do what is not done yet, in the order of `parts` as far as their needs allow; a line on stdout after each.

    Args:
        out: Each part's folder is in it, by its name.
        jobs: How many at a time. 1: in this process, by `here`; more: each by a process of its own.
        here: Does a part by name.
        command: Starts such a process. It is given a pipe for standard input, which closes when this process ends,
            however that happens; see `end_with_stdin`.
        on_done: Called after each part.

    Raises:
        TrainingError: A part failed; the message has the end of its output. The others are stopped.
    """
    left = [name for name in parts if not is_done(out / name)]
    total, began = len(left), time.monotonic()
    print(f"{total} of {len(parts)} parts to do, {jobs} at a time", flush=True)

    def tell(name: str, unfinished: Sequence[str]) -> None:
        on_done()
        elapsed = (time.monotonic() - began) / 60
        expected = sum(parts[other].minutes for other in unfinished) / jobs
        print(
            f"{total - len(unfinished)} of {total}: {name} done; {elapsed:.1f} min so far, about {expected:.0f} CPU "
            "minutes a process left",
            flush=True,
        )

    def take(busy: Sequence[str]) -> str | None:
        """The next part whose need is met, off the list."""
        name = next((name for name in left if parts[name].needs not in (*left, *busy)), None)
        if name is not None:
            left.remove(name)
        return name

    if jobs == 1:
        while name := take(()):
            here(name)
            tell(name, left)
        return
    children: list[subprocess.Popen[bytes]] = []
    running: dict[Future[None], str] = {}
    with ThreadPoolExecutor(max_workers=jobs) as executor:
        try:
            while left or running:
                while len(running) < jobs and (name := take(list(running.values()))):
                    running[executor.submit(_run_child, command(name), out / name, children)] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    future.result()
                    tell(name, [*left, *running.values()])
        except BaseException:
            for child in children:
                child.terminate()  # nothing, for one that has ended
            raise


def _run_child(command: Sequence[str], folder: Path, children: list[subprocess.Popen[bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG).open("ab") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
        children.append(child)
        code = child.wait()
    assert child.stdin is not None
    child.stdin.close()
    if code:
        lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-NUM_LINES:]
        raise TrainingError(
            f"{folder.name} ended with code {code}; the same command goes on with it. The end of {folder / LOG}:\n"
            + "\n".join(lines)
        )


def end_with_stdin() -> None:
    """End this process when its standard input closes: a part must not outlive the command that started it."""

    def watch() -> None:
        # Not sys.stdin: a thread that waits in it holds a lock that Python wants when it ends.
        while os.read(0, 1):
            pass
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()
