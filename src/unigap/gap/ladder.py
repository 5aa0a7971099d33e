"""The ladder: where drawings that fail are lost, from not being able to draw up to what nothing here explains.

Five answers of the same unit and sample decide. The first line that applies is the rung:

    drawn_right                 the normal drawing is right
    cannot_draw                 wrong even from the true caption (oracle)
    does_not_know               else: wrong in text
    reasoning_does_not_reach    else: right with the thought in context (think)
    thought_disturbs            else: right from the thought's last line alone (refined)
    unexplained                 else

The rungs are a partition: their shares sum to 1, and those of the failing ones to the loss 1 - rate(normal drawing).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from unigap.gap.intervals import Interval, rate_interval

RUNGS = (
    "drawn_right",
    "cannot_draw",
    "does_not_know",
    "reasoning_does_not_reach",
    "thought_disturbs",
    "unexplained",
)

Statuses = Sequence[Sequence[bool | None]]
"""Per unit, per sample: right, wrong, or None for unscored or missing."""


@dataclass(frozen=True)
class Rung:
    """One cause, and how much of the units it takes."""

    cause: str
    """One of `RUNGS`."""
    count: float
    """Units; a unit whose samples fall on several rungs is divided among them."""
    share: Interval
    """Of the complete units."""


@dataclass(frozen=True)
class Ladder:
    """How complete units divide among the rungs."""

    num_units: int
    """Complete ones: all five answers are scored in at least one sample."""
    rungs: tuple[Rung, ...]
    """All of `RUNGS`, in that order; without complete units their shares are NaN in [0, 1]."""
    incomplete: int
    """Units without a complete sample. They are on no rung."""
    drawn_right_text_wrong: float
    """Complete units (counted as in `Rung`) whose normal drawing is right although the text is wrong. They are part
    of drawn_right; many of them say that the text, not the drawing, is what fails."""


def climb(
    *,
    normal: Statuses,
    oracle: Statuses,
    text: Statuses,
    think: Statuses,
    refined: Statuses,
    clusters: Sequence[Hashable],
) -> Ladder:
    """Place every unit on the ladder, with a 95% interval for each rung's share (docs/compare.md eq. 1).

    Sample k of the five belongs together. A unit counts by its complete samples, each with the same weight; samples
    that one of the five lacks are incomplete. All five must be scored even where fewer decide: units whose normal
    drawing is right would otherwise stay where others are left out, and the loss come out too small.

    Args:
        normal: Of the normal drawing.
        oracle: Of the drawing from the true caption.
        text: Of the answer in text, with a thought where that was asked.
        think: Of the drawing with the thought in context.
        refined: Of the drawing from the thought's last line alone.
        clusters: The cluster of each unit; intervals respect them as `rate_interval` does.

    Raises:
        ValueError: The five and the clusters differ in length.
    """
    deciding = (normal, oracle, text, think, refined)
    if any(len(statuses) != len(clusters) for statuses in deciding):
        raise ValueError(f"{[len(statuses) for statuses in deciding]} units for {len(clusters)} clusters")
    shares, owners, surprises = [], [], 0.0
    for cluster, *unit in zip(clusters, *deciding):
        complete = [sample for sample in zip_longest(*unit) if None not in sample]
        if not complete:
            continue
        causes = [_rung(*sample) for sample in complete]
        shares.append([causes.count(rung) / len(complete) for rung in RUNGS])
        owners.append(cluster)
        surprises += sum(right and not knows for right, _, knows, _, _ in complete) / len(complete)
    shares_UR = np.array(shares).reshape(-1, len(RUNGS))
    rungs = tuple(
        Rung(cause, float(column_U.sum()), rate_interval(column_U.tolist(), owners))
        for cause, column_U in zip(RUNGS, shares_UR.T)
    )
    return Ladder(len(owners), rungs, len(clusters) - len(owners), surprises)


def _rung(normal: bool, oracle: bool, text: bool, think: bool, refined: bool) -> str:
    if normal:
        return "drawn_right"
    if not oracle:
        return "cannot_draw"
    if not text:
        return "does_not_know"
    if think:
        return "reasoning_does_not_reach"
    return "thought_disturbs" if refined else "unexplained"
