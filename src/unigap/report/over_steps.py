"""Checkpoints of one training run: both directions and their gap against the step, and the lag between them.

Every checkpoint is a run of its own on the same items; `unigap.gap.lag` defines the lag.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from unigap.gap.intervals import Interval, difference_interval, rate_interval
from unigap.gap.lag import Lag, estimate_lag
from unigap.gap.outcomes import Outcomes
from unigap.items import ARMS_OF, Arm
from unigap.records import RunFolder
from unigap.report.comparable import LoadedRun, common_units, differences, load_run, refuse_incomparable
from unigap.report.estimate import write_json
from unigap.report.page import render
from unigap.report.together import outcomes_together

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Point:
    """One quantity at one checkpoint, with its 95% interval."""

    step: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A family in one arm, over the checkpoints."""

    family: str
    arm: Arm
    trained: str
    """What the last checkpoint says its drawing saw in training; "" if nothing."""
    understanding: tuple[Point, ...]
    generation: tuple[Point, ...]
    gap: tuple[Point, ...]
    lag: Lag

    @property
    def steps(self) -> list[int]:
        return [point.step for point in self.gap]

    @property
    def lag_words(self) -> str:
        """The lag in a sentence."""
        lag = self.lag
        if lag.why:
            return f"No lag can be dated: {lag.why}."
        words = (
            f"Text reaches half its final rate at step {lag.understanding:,.0f}, drawing at step {lag.generation:,.0f}"
        )
        if not np.isfinite(lag.low):
            return f"{words}: a lag of {lag.lag:+,.0f} steps, too uncertain for an interval."
        return f"{words}: a lag of {lag.lag:+,.0f} steps, 95% interval {lag.low:+,.0f} to {lag.high:+,.0f}."

    def to_json(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "arm": self.arm,
            "trained": self.trained,
            **{name: [vars(point) for point in getattr(self, name)] for name in ("understanding", "generation", "gap")},
            "lag": {name: None if value != value else value for name, value in vars(self.lag).items()},
        }


@dataclass(frozen=True)
class OverSteps:
    """What the template shows; nothing in it is markup."""

    curves: Sequence[Curve]
    runs: Sequence[LoadedRun]
    steps: Sequence[int]
    made: date

    @property
    def title(self) -> str:
        return f"{len(self.steps)} checkpoints, step {self.steps[0]:,} to {self.steps[-1]:,}"

    @property
    def ticks(self) -> list[int]:
        """About five round steps for the axis."""
        rough = self.steps[-1] / 5
        unit = 10 ** int(np.floor(np.log10(max(rough, 1))))
        width = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        return list(range(0, self.steps[-1] + 1, width))

    def x(self, step: float) -> float:
        """Where a step stands, in thousandths of the width; 0 is the start of training."""
        return round(1000 * step / self.steps[-1], 1)

    @staticmethod
    def y_rate(rate: float) -> float:
        return round(1000 * (1 - rate), 1)

    @staticmethod
    def y_gap(gap: float) -> float:
        return round(500 * (1 - gap), 1)


def load_steps(folders: Sequence[Path], steps: Sequence[int], judge: str | None) -> OverSteps:
    """Read runs of checkpoints.

    Args:
        folders: Run folders, one a checkpoint.
        steps: Their training steps, in the same order.
        judge: Whose verdicts; None if each run has one judge.

    Raises:
        RunFolderError: A folder cannot be read.
        UnknownNameError: The judge has not judged a run.
        ValueError: Not one step a run, a step twice, or runs that do not ask the same items in the same way.
    """
    if len(steps) != len(folders) or len(set(steps)) != len(steps) or len(steps) < 2:
        raise ValueError(f"{len(folders)} runs and {len(steps)} steps; name one step a run, each once, at least two")
    ordered = sorted(zip(steps, folders, strict=True))
    runs = [load_run(folder, judge) for _, folder in ordered]
    refuse_incomparable(runs[0], runs[1:], [differences(runs[0], other) for other in runs[1:]], ())
    common = set.intersection(*(common_units(runs[0], other) for other in runs[1:]))
    trained_on = RunFolder.open(runs[-1].path).run["config"].get("trained_on", {})
    curves = []
    for family in dict.fromkeys(item.family for item in runs[0].scores.items):
        units = {unit for name, unit in common if name == family}
        for arm in ARMS_OF["understanding"]:
            if outcomes := outcomes_together(runs, family, arm, units):
                curves.append(_curve(family, arm, [step for step, _ in ordered], outcomes, trained_on.get(family, "")))
    if not curves:
        raise ValueError("no family has verdicts of every checkpoint in both directions of one arm")
    return OverSteps(curves, runs, [step for step, _ in ordered], date.today())


def _curve(family: str, arm: Arm, steps: Sequence[int], outcomes: Outcomes, trained: str) -> Curve:
    def points(interval: Callable[[list[float], list[float], list[Hashable]], Interval]) -> tuple[Point, ...]:
        found = []
        for step, rates_UD in zip(steps, outcomes.rates, strict=True):
            scored_U = ~np.isnan(rates_UD).any(axis=-1)
            text, drawing = rates_UD[scored_U].T.tolist()
            one = interval(text, drawing, list(compress(outcomes.clusters, scored_U)))
            found.append(Point(step=step, rate=one.rate, low=one.low, high=one.high))
        return tuple(found)

    num_samples = outcomes.right.shape[-1]
    return Curve(
        family=family,
        arm=arm,
        trained=trained,
        understanding=points(lambda text, drawing, clusters: rate_interval(text, clusters)),
        generation=points(lambda text, drawing, clusters: rate_interval(drawing, clusters)),
        gap=points(
            lambda text, drawing, clusters: difference_interval(text, drawing, clusters, num_samples=num_samples)
        ),
        lag=estimate_lag(steps, outcomes),
    )


def write_page(page: OverSteps) -> str:
    """The page, as HTML."""
    return render("steps.html.j2", page=page)


def print_lags(page: OverSteps, console: Console) -> None:
    """One line a curve: the rates of the last checkpoint and the lag."""
    for curve in page.curves:
        text, drawing = curve.understanding[-1], curve.generation[-1]
        line = f"{curve.family} {curve.arm}: text {text.rate:.0%}, drawing {drawing.rate:.0%} at the last step. "
        console.print(line + curve.lag_words, highlight=False, markup=False, soft_wrap=True)


def write_curves(path: Path, page: OverSteps) -> None:
    """The numbers as JSON."""
    runs = [{"step": step, **run.to_json()} for step, run in zip(page.steps, page.runs, strict=True)]
    write_json(path, {"schema": SCHEMA, "runs": runs, "curves": [curve.to_json() for curve in page.curves]})
