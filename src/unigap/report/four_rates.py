"""A run as four joint rates per family or category, which is what the published Gap Score is computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unigap import scenes
from unigap.benchmarks.gapeval import CATEGORIES
from unigap.items import Arm, Item
from unigap.records import RunFolder
from unigap.report.scores import Scores, collect_scores
from unigap.report.summary import joint_of

By = Literal["family", "category"]

CATEGORY_OF: Mapping[str, str] = {**scenes.CATEGORY_OF, **CATEGORIES}
"""Family of the suite "bidirectional", or of GapEval -> category of GapEval."""


@dataclass(frozen=True, kw_only=True)
class FourRates:
    """One row of the Gap Score's input."""

    name: str
    """Family or category."""
    num_units: int
    """Units scored in both directions."""
    rates: tuple[float, float, float, float]
    """p11 (both right), p10 (understanding alone), p01 (generation alone), p00 (neither)."""


def four_rates(run: RunFolder, judge: str, *, arm: Arm = "normal", by: By = "family") -> list[FourRates]:
    """Joint rates over the units scored in both directions, each unit an average over its samples.

    A family without such a unit has no row.

    Raises:
        ValueError: No unit is scored in both directions of this arm, or a family is in no category.
    """
    scores = collect_scores(run.items(), run.records(), run.verdicts(judge))
    groups: dict[str, list[Item]] = {}
    for item in scores.items:
        groups.setdefault(_row_name(item.family, by), []).append(item)
    rows = [_row(scores, name, items, arm) for name, items in groups.items()]
    if not (kept := [row for row in rows if row.num_units]):
        raise ValueError(
            f"{run.path}: no unit is scored in both directions of the arm {arm!r} by {judge!r}; four joint rates need "
            "both. Ask the other direction, judge the run, or choose another --arm"
        )
    return kept


def _row_name(family: str, by: By) -> str:
    if by == "family":
        return family
    if family not in CATEGORY_OF:
        raise ValueError(f"family {family!r} is in no category of GapEval's; use --by family")
    return CATEGORY_OF[family]


def _row(scores: Scores, name: str, items: Sequence[Item], arm: Arm) -> FourRates:
    understanding = scores.units(items, ("understanding", arm))
    generation = scores.units(items, ("generation", arm))
    joint = joint_of(understanding, generation)
    p11, p10, p01, p00 = (cell.rate for cell in (joint.p11, joint.p10, joint.p01, joint.p00))
    return FourRates(name=name, num_units=joint.num_units, rates=(p11, p10, p01, p00))
