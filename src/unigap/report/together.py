"""Several runs in one Rasch model for each family and arm, for `unigap gap RUN RUN ...`.

Statistics are those of `unigap.gap.score`. A unit enters when it asks the same items in every run.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from unigap.gap.outcomes import Outcomes
from unigap.gap.score import GapResult, gap_score
from unigap.items import ARMS_OF, DIRECTIONS, Arm
from unigap.report.comparable import Aspect, LoadedRun, common_units, differences, load_run, refuse_incomparable
from unigap.report.estimate import FULL_WIDTH, SCHEMA, FamilyGap, both_directions, print_gaps, write_json
from unigap.report.scores import UnitScore


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """The unit of a family and arm whose two directions differ most, beyond the gap that all units share."""

    family: str
    arm: Arm
    unit: str
    residuals: tuple[float, float]
    """Standardised: right minus expected right in understanding, in generation."""

    def __str__(self) -> str:
        text, drawing = self.residuals
        return f"{self.family}, {self.arm}: {self.unit} (text {text:+.1f}, drawing {drawing:+.1f} standard deviations)"


def estimate_runs(
    folders: Sequence[Path], judge: str | None, *, allow: Collection[Aspect] = (), json_path: Path | None = None
) -> None:
    """Print the gaps of several runs, on one scale for each family and arm.

    Args:
        folders: Run folders, at least two.
        judge: Whose verdicts; None if each run has one judge.
        allow: What the runs may differ in, beside their models.
        json_path: Where to write the numbers too.

    Raises:
        RunFolderError: A folder cannot be read, or the file not written.
        UnknownNameError: The judge has not judged a run.
        ValueError: The runs differ in what is not allowed, have no unit in common, or none that every model has scored
            answers to in both directions of an arm.
    """
    runs = [load_run(folder, judge) for folder in folders]
    refuse_incomparable(runs[0], runs[1:], [differences(runs[0], other) for other in runs[1:]], allow)
    gaps, misfits = models_together(runs)
    if not gaps:
        raise ValueError("no family has verdicts of every run in both directions of one arm on units they share")
    print_gaps(gaps, console := Console(width=None if sys.stdout.isatty() else FULL_WIDTH))
    for misfit in misfits:
        console.print(f"furthest from the common gap: {misfit}", style="dim", highlight=False, markup=False)
    if json_path is not None:
        data: dict[str, Any] = {"schema": SCHEMA, "runs": [run.to_json() for run in runs]}
        data |= {"gaps": [gap.to_json() for gap in gaps], "misfits": [vars(misfit) for misfit in misfits]}
        write_json(json_path, data)


def models_together(runs: Sequence[LoadedRun]) -> tuple[list[FamilyGap], list[Misfit]]:
    """The gap of every run in every family and arm that all of them have, and the units that fit worst."""
    common = set.intersection(*(common_units(runs[0], other) for other in runs[1:]))
    if not common:
        raise ValueError(f"{', '.join(str(run.path) for run in runs)} have no unit with the same items in all of them")
    gaps: list[FamilyGap] = []
    misfits: list[Misfit] = []
    for family in dict.fromkeys(item.family for item in runs[0].scores.items):
        units = {unit for name, unit in common if name == family}
        for arm in ARMS_OF["understanding"]:
            outcomes = outcomes_together(runs, family, arm, units)
            if outcomes is None:
                continue
            # What no model has scored in a direction must not hide the rest; how many are left is shown.
            used = outcomes.in_both_directions("drop")
            result = gap_score(used)
            gaps += [
                FamilyGap(family=family, arm=arm, gap=gap, result=result, num_asked=len(units)) for gap in result.gaps
            ]
            misfits.append(_misfit(family, arm, used, result))
    return gaps, misfits


def outcomes_together(runs: Sequence[LoadedRun], family: str, arm: Arm, units: Collection[str]) -> Outcomes | None:
    """What every run got right of some units of a family; None unless each has one scored in both directions."""
    asked: list[list[list[UnitScore]]] = []
    for run in runs:
        items = [item for item in run.scores.items if item.family == family and item.unit in units]
        units_D = [
            sorted(run.scores.units(items, (direction, arm)), key=lambda unit: unit.unit) for direction in DIRECTIONS
        ]
        if not any(u.scored and g.scored for u, g in zip(*units_D, strict=True)):
            return None
        asked.append(units_D)
    num_samples = max(len(unit.statuses) for units_D in asked for units in units_D for unit in units)
    return Outcomes(
        models=_names(runs),
        units=tuple(unit.unit for unit in asked[0][0]),
        clusters=tuple(unit.cluster for unit in asked[0][0]),
        right=np.stack([both_directions(units_D, num_samples) for units_D in asked]),
    )


def _names(runs: Sequence[LoadedRun]) -> tuple[str, ...]:
    """What tells the runs apart: their models' names, else their folders'."""
    for names in ([run.identity.model.name for run in runs], [run.path.name for run in runs]):
        if len(set(names)) == len(names):
            return tuple(names)
    return tuple(str(run.path) for run in runs)


def _misfit(family: str, arm: Arm, used: Outcomes, result: GapResult) -> Misfit:
    assert result.item_fit is not None
    residual_UD = result.item_fit.residual
    worst = int(np.nanargmax(np.abs(residual_UD[:, 0] - residual_UD[:, 1])))
    text, drawing = residual_UD[worst].tolist()
    return Misfit(family=family, arm=arm, unit=used.units[worst], residuals=(text, drawing))
