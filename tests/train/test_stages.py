"""Parts of a long job: real processes, really killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unigap.errors import TrainingError
from unigap.train.stages import Planned, do_all, do_once, is_done, read_result

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "three_papers.py"
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

CHILD = """
import sys, time
from pathlib import Path
from unigap.train.stages import do_once, end_with_stdin
folder, sleep_s = Path(sys.argv[1]), float(sys.argv[2])
end_with_stdin()
def work():
    (folder / "begun").write_text("here")
    time.sleep(sleep_s)
    return {"slept": sleep_s}
do_once(folder, work)
"""


def child_command(out: Path, name: str, sleep_s: float) -> list[str]:
    return [sys.executable, "-c", CHILD, str(out / name), str(sleep_s)]


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 250
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        # A zombie is dead, whoever has not waited for it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_part_is_done_once_and_keeps_its_numbers(tmp_path: Path):
    calls: list[int] = []
    for number in (1, 2):
        do_once(tmp_path / "part", lambda number=number: calls.append(number) or {"found": number})
    result = read_result(tmp_path / "part")
    assert calls == [1] and result["numbers"] == {"found": 1} and result["sessions"] == 1
    assert result["minutes"] >= 0 and result["cpu_minutes"] >= 0 and "commit" in result


def test_a_part_that_failed_is_not_done(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        do_once(tmp_path / "part", lambda: 1 / 0)
    assert not is_done(tmp_path / "part")
    do_once(tmp_path / "part", dict)
    assert read_result(tmp_path / "part")["sessions"] == 2  # begun twice


def test_a_killed_part_is_not_done_and_the_next_one_does_it(tmp_path: Path):
    folder = tmp_path / "part"
    child = subprocess.Popen(child_command(tmp_path, "part", 600), env=ENV, stdin=subprocess.PIPE)
    wait_until((folder / "begun").exists, "the part to begin")
    child.kill()
    child.communicate()
    assert not is_done(folder)
    do_once(folder, lambda: {"by": "another"})
    assert read_result(folder)["numbers"] == {"by": "another"} and read_result(folder)["sessions"] == 2


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_children_end_when_the_command_that_started_them_is_killed(tmp_path: Path):
    parent_code = f"""
import sys
from pathlib import Path
from unigap.train.stages import Planned, do_all
out = Path(sys.argv[1])
do_all({{"a": Planned(what="", minutes=1), "b": Planned(what="", minutes=1)}}, out, jobs=2, here=print,
       command=lambda name: [sys.executable, "-c", {CHILD!r}, str(out / name), "600"], on_done=print)
"""
    parent = subprocess.Popen([sys.executable, "-c", parent_code, str(tmp_path)], env=ENV, stdout=subprocess.PIPE)
    wait_until(lambda: all((tmp_path / name / "begun").exists() for name in "ab"), "both parts to begin")
    children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    children += [
        int(pid)
        for task in Path(f"/proc/{parent.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    assert len(set(children)) == 2 and all(map(is_alive, children))
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    wait_until(lambda: not any(map(is_alive, children)), "the children to end")
    assert not any(is_done(tmp_path / name) for name in "ab")


@pytest.mark.parametrize("jobs", [1, 2])
def test_parts_wait_for_what_they_need_and_what_is_done_is_left(
    tmp_path: Path, jobs: int, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", ENV["PYTHONPATH"])
    parts = {
        "late": Planned(what="", minutes=1, needs="early"),
        "early": Planned(what="", minutes=3),
        "there": Planned(what="", minutes=9),
    }
    do_once(tmp_path / "there", lambda: {"by": "an earlier run"})
    told: list[float] = []
    do_all(
        parts,
        tmp_path,
        jobs=jobs,
        here=lambda name: do_once(tmp_path / name, dict),
        command=lambda name: child_command(tmp_path, name, 0.0),
        on_done=lambda: told.append(time.monotonic()),
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"2 of 3 parts to do, {jobs} at a time"
    assert printed[1].startswith("1 of 2: early done") and f"about {1 / jobs:.0f} CPU minutes" in printed[1]
    assert printed[2].startswith("2 of 2: late done") and len(told) == 2
    assert all(is_done(tmp_path / name) for name in parts)
    assert read_result(tmp_path / "there")["numbers"] == {"by": "an earlier run"}


def test_a_part_that_fails_says_what_it_printed_last(tmp_path: Path):
    code = "print('first words'); raise SystemExit('the disk is full')"
    with pytest.raises(TrainingError, match="(?s)part ended with code 1.*first words.*the disk is full"):
        do_all(
            {"part": Planned(what="", minutes=1)},
            tmp_path,
            jobs=2,
            here=print,
            command=lambda name: [sys.executable, "-u", "-c", code],
            on_done=lambda: None,
        )


@pytest.mark.slow
def test_a_part_of_the_recipe_that_was_killed_goes_on_where_it_was(tmp_path: Path):
    command = [sys.executable, str(RECIPE), "--smoke", "--stage", "edit", "--out", str(tmp_path)]
    folder = tmp_path / "edit"

    log = tmp_path / "printed.txt"

    def start() -> subprocess.Popen:
        # Its standard input stays open: that it closes is what ends a part.
        with log.open("ab") as file:
            return subprocess.Popen(command, env=ENV, stdin=subprocess.PIPE, stdout=file, stderr=file)

    killed = start()
    trained = folder / "seed-0" / "understanding" / "training" / "model"
    wait_until(lambda: trained.is_dir() or killed.poll() is not None, "the first arm's training")
    killed.kill()
    killed.communicate()
    assert trained.is_dir() and not is_done(folder)
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    again = start()
    assert again.wait(timeout=300) == 0, log.read_text()
    again.communicate()
    result = read_result(folder)
    assert result["sessions"] == 2 and set(result["numbers"]) == {"edit_text", "edit_pictures"}
    assert {path: path.stat().st_mtime_ns for path in trained.iterdir()} == before, (
        "what was trained is not trained again"
    )
