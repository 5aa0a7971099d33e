"""A rate, or a difference of rates, of several repeats of one training: two intervals, for two questions.

- Over repeats: what would another repeat give? Student's t with S - 1 degrees over the S repeats' own rates,
  m +- t s / sqrt(S) (docs/architectures.md eq. 1). With three repeats t is 4.30: wide on purpose. It knows nothing but
  the spread it saw: where all repeats give the same number it has no width, which is not certainty, so there is none.
- Over items: what would other items give, of these very models? The interval of `unigap.gap.intervals` over the scores
  of all repeats together, in which scores of one cluster (an item asked of every repeat, a character) depend.

Whoever reads off a conclusion takes what both allow: `OverRepeats.low` and `high`.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from scipy import stats

from unigap.gap.intervals import Interval, difference_interval, rate_interval


@dataclass(frozen=True)
class OverRepeats:
    """A rate, or a difference of two, over repeats. Printing it shows both intervals."""

    values: tuple[float, ...]
    """Of each repeat that has scored units."""
    repeats: tuple[float, float] | None
    """95% limits over repeats; None with fewer than two, or where all are the same."""
    items: Interval
    """Over the clusters of all repeats."""

    @property
    def rate(self) -> float:
        """Mean of the repeats, each counted once; NaN without any."""
        return float(np.mean(self.values)) if self.values else nan

    @property
    def low(self) -> float:
        """The lower of the two intervals' lower ends."""
        return min(self.items.low, self.repeats[0]) if self.repeats else self.items.low

    @property
    def high(self) -> float:
        return max(self.items.high, self.repeats[1]) if self.repeats else self.items.high

    def __str__(self) -> str:
        over = f"[{self.repeats[0]:.3f}, {self.repeats[1]:.3f}]" if self.repeats else "none"
        return (
            f"{self.rate:.3f}, {len(self.values)} repeats {over}, items [{self.items.low:.3f}, {self.items.high:.3f}]"
        )


def rate_over_repeats(scores: Sequence[Sequence[float]], clusters: Sequence[Sequence[Hashable]]) -> OverRepeats:
    """Mean of unit scores.

    Args:
        scores: Of each repeat, one score in [0, 1] a unit; a repeat without units is left out.
        clusters: Their clusters. Clusters of the same name in two repeats are one.

    Raises:
        ValueError: Lengths differ, or a score is outside [0, 1].
    """
    values = tuple(float(np.mean(one)) for one in scores if len(one))
    return OverRepeats(values, _limits(values, 0.0, 1.0), rate_interval(_joined(scores), _joined(clusters)))


def difference_over_repeats(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], clusters: Sequence[Sequence[Hashable]]
) -> OverRepeats:
    """First minus second, paired by unit within a repeat; otherwise as `rate_over_repeats`."""
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if len(a)]
    values = tuple(float(np.mean(a) - np.mean(b)) for a, b in pairs)
    items = difference_interval(_joined(first), _joined(second), _joined(clusters))
    return OverRepeats(values, _limits(values, -1.0, 1.0), items)


def _limits(values: Sequence[float], least: float, most: float) -> tuple[float, float] | None:
    if len(values) < 2 or np.ptp(values) < 1e-12:
        return None
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / sqrt(len(values)))
    mean = float(np.mean(values))
    return max(least, mean - half), min(most, mean + half)


def _joined(rows: Sequence[Sequence]) -> list:
    return [value for row in rows for value in row]
