"""A GvU run as a page: the reward that is trained on beside what outside readers say, step by step."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from unigap.disk import explain_os_errors, write_files
from unigap.gap.intervals import rate_interval
from unigap.report.over_steps import Point
from unigap.report.page import render

PAGE = "page.html"
LOG, MONITOR = "log.jsonl", "monitor.jsonl"
SMOOTH = 10
"""Steps that a point of the training reward averages."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One quantity over the run."""

    name: str
    kind: str
    """Which color the template gives it."""
    points: tuple[Point, ...]
    """Of rates with their 95% interval over prompts; else `low` and `high` equal the value."""


@dataclass(frozen=True)
class RewardCurves:
    """What the template shows; nothing in it is markup."""

    name: str
    facts: Sequence[tuple[str, str]]
    outside: Sequence[Line]
    """Reward and judges, all shares of 1."""
    inside: Sequence[tuple[str, Line, float]]
    """How the policy changes: name, line, and the top of its axis."""
    num_steps: int
    num_watched: int
    made: date

    @property
    def title(self) -> str:
        return f"{self.name}: reward and outside readers"

    @property
    def ticks(self) -> list[int]:
        return sorted({round(self.num_steps * part / 4) for part in range(5)})

    def x(self, step: float) -> float:
        """Where a step stands, in thousandths of the width."""
        return round(1000 * step / max(1, self.num_steps), 1)

    @staticmethod
    def y(value: float, top: float) -> float:
        return round(1000 * (1 - min(max(value / top, 0.0), 1.0)), 1)


def read_curves(folder: Path) -> RewardCurves:
    """The logs of a run of `unigap.train.gvu`, finished or not.

    Raises:
        ValueError: The folder has no such logs.
    """
    log, monitor = (_lines(folder / name) for name in (LOG, MONITOR))
    if not log or not monitor:
        raise ValueError(f"{folder} has no {LOG} and {MONITOR} of a GvU run")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    names = list(dict.fromkeys(name for line in monitor for name in line["values"] if name != "reward"))
    trained, watched = tuple(_smoothed(log, "reward")), tuple(_rates(monitor, "reward", share=False))
    outside = _in_shares(
        [
            Line(name="training reward", kind="soft", points=trained),
            Line(name="reward of the watched prompts", kind="gap-mark", points=watched),
        ]
    )
    for number, name in enumerate(names):
        which = " other" if number else ""
        right, unread = tuple(_rates(monitor, name)), tuple(_plain(monitor, f"monitor/{name} unreadable"))
        outside += [
            Line(name=f"right by {name}{_unscored(monitor, name)}", kind="g" + which, points=right),
            Line(name=f"unreadable by {name}", kind="u" + which, points=unread),
        ]
    inside = []
    # Only tokens have an entropy: that of a path's steps is fixed by the noise level.
    unit, entropy = ("token", [("entropy, nats a token", "entropy")]) if "entropy" in log[0] else ("value", [])
    for name, key in [(f"divergence from the start, nats a {unit}", "kl"), *entropy]:
        line = Line(name=name, kind="soft", points=tuple(_smoothed(log, key)))
        inside.append((name, line, max((p.rate for p in line.points), default=1.0) or 1.0))
    distinct = Line(name="distinct", kind="soft", points=tuple(_smoothed(log, "distinct")))
    inside.append(("share of distinct drawings", distinct, 1.0))
    config = run["config"]
    facts = [("reward", run["reward"]), ("policy", f"sha256 {run['base'][:12]}...")]
    shown = ("group_size", "prompts_per_step", "updates_per_rollout", "advantage", "kl_coef", "lr", "seed")
    facts += [(name.replace("_", " "), str(config[name])) for name in shown]
    steps = max(log[-1]["step"] + 1, monitor[-1]["step"])
    return RewardCurves(folder.name, facts, outside, inside, steps, len(monitor[0]["values"]["reward"]), date.today())


def write_reward_page(folder: Path) -> Path:
    """Write the page of a run into its folder.

    Raises:
        ValueError: As `read_curves`.
        RunFolderError: It cannot be written.
    """
    page = render("reward.html.j2", page=read_curves(folder))
    with explain_os_errors(folder, safe="Nothing was lost"):
        write_files([(folder / PAGE, page.encode("utf-8", "backslashreplace"))])
    return folder / PAGE


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _smoothed(log: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    found = []
    for start in range(0, len(log), SMOOTH):
        values = [line[key] for line in log[start : start + SMOOTH] if math.isfinite(line[key])]
        if values:
            mean = sum(values) / len(values)
            found.append(Point(step=log[start]["step"] + len(values) // 2, rate=mean, low=mean, high=mean))
    return found


def _in_shares(lines: Sequence[Line]) -> list[Line]:
    """Lines as they are if all are within 0 and 1; else all on one scale of their own, which their names state."""
    values = [p.rate for line in lines for p in line.points]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low >= 0 and high <= 1:
        return list(lines)
    span = high - low or 1.0
    stated = f" (0% is {low:.3g}, 100% is {high:.3g})"
    return [
        replace(
            line,
            name=line.name + stated,
            points=tuple(
                replace(p, rate=(p.rate - low) / span, low=(p.low - low) / span, high=(p.high - low) / span)
                for p in line.points
            ),
        )
        for line in lines
    ]


def _plain(monitor: Sequence[Mapping[str, Any]], key: str) -> list[Point]:
    return [Point(step=line["step"], rate=line[key], low=line[key], high=line[key]) for line in monitor if key in line]


def _unscored(monitor: Sequence[Mapping[str, Any]], name: str) -> str:
    """How many drawings a judge could not score; they are in no rate."""
    values = [value for line in monitor for value in line["values"].get(name, ())]
    return f" ({values.count(None):,} of {len(values):,} unscored)" if None in values else ""


def _rates(monitor: Sequence[Mapping[str, Any]], name: str, *, share: bool = True) -> list[Point]:
    """Means over the watched prompts: a share's interval is Wilson's, any other mean has two standard errors."""
    found = []
    for line in monitor:
        values = [value for value in line["values"].get(name, ()) if value is not None]
        if not values:
            continue
        if share:
            one = rate_interval(values, range(len(values)))
            found.append(Point(step=line["step"], rate=one.rate, low=one.low, high=one.high))
        else:
            mean, error = float(np.mean(values)), float(np.std(values)) / math.sqrt(len(values))
            found.append(Point(step=line["step"], rate=mean, low=mean - 2 * error, high=mean + 2 * error))
    return found
