"""How the two directions of a unit fall together: both right, one alone, neither.

Two models with the same rates can differ entirely here: answers that are right on the same facts, or on unrelated
ones. The gap sees only the margins, so agreement and phi stand beside it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from unigap.gap.intervals import Interval, rate_interval

# U units, S samples


@dataclass(frozen=True)
class Joint:
    """Joint rates of understanding and generation over units scored in both."""

    p11: Interval
    """Both right."""
    p10: Interval
    """Understanding alone right."""
    p01: Interval
    """Generation alone right."""
    p00: Interval
    """Neither right."""
    agreement: Interval
    """p11 + p00."""
    phi: float
    """Correlation of the two verdicts, (p11 p00 - p10 p01) / sqrt(u (1-u) g (1-g)); NaN when a margin is constant."""
    num_units: int
    """Units scored in both directions in at least one common sample."""

    def __str__(self) -> str:
        cells = (f"{name} {getattr(self, name)}" for name in ("p11", "p10", "p01", "p00", "agreement"))
        return f"{', '.join(cells)}, phi {self.phi:.2f}"


def joint_rates(understanding_US: ArrayLike, generation_US: ArrayLike, clusters: Sequence[Hashable]) -> Joint:
    """Joint rates with intervals that respect clusters (docs/gap.md eq. 1).

    Sample k of the two directions belongs together. A unit's cell is its average over samples scored in both
    directions; a unit without such a sample is left out. phi is that of the pooled cells.

    Args:
        understanding_US: 1 right, 0 wrong, NaN not scored; (units, samples).
        generation_US: The same units and samples.
        clusters: The cluster of each unit.

    Raises:
        ValueError: Shapes differ, or a score is not 0, 1 or NaN.
    """
    u_US, g_US = paired_scores(understanding_US, generation_US, len(clusters))
    common_US = ~np.isnan(u_US) & ~np.isnan(g_US)
    num_common_U = common_US.sum(axis=1)
    kept_U = num_common_U > 0
    kept_clusters = [cluster for cluster, kept in zip(clusters, kept_U) if kept]

    def mean_over_samples(cell_US: np.ndarray) -> np.ndarray:
        return (cell_US & common_US).sum(axis=1)[kept_U] / num_common_U[kept_U]

    cells = {(u, g): mean_over_samples((u_US == u) & (g_US == g)) for u, g in ((1, 1), (1, 0), (0, 1), (0, 0))}
    p11, p10, p01, p00 = (rate_interval(cell.tolist(), kept_clusters) for cell in cells.values())
    agreement = rate_interval(mean_over_samples(u_US == g_US).tolist(), kept_clusters)
    return Joint(p11, p10, p01, p00, agreement, phi_of(p11.rate, p10.rate, p01.rate, p00.rate), int(kept_U.sum()))


def phi_of(p11: float, p10: float, p01: float, p00: float) -> float:
    """Correlation of two binary verdicts from their joint rates; NaN when a margin is constant."""
    spread = (p11 + p10) * (p01 + p00) * (p11 + p01) * (p10 + p00)
    # Rates that sum to 1 only up to rounding can leave a constant margin a spread of about 1e-17.
    return (p11 * p00 - p10 * p01) / sqrt(spread) if spread > 1e-12 else nan


def paired_scores(first: ArrayLike, second: ArrayLike, num_units: int) -> tuple[np.ndarray, np.ndarray]:
    """Two (units, samples) arrays of 0, 1 and NaN, checked to belong together.

    Raises:
        ValueError: Shapes differ, or a score is not 0, 1 or NaN.
    """
    first_US, second_US = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first_US.ndim != 2 or first_US.shape != second_US.shape or len(first_US) != num_units:
        raise ValueError(
            f"scores of shapes {first_US.shape} and {second_US.shape} for {num_units} clusters; give (units, samples) "
            "twice and one cluster per unit; pad samples that one direction lacks with NaN"
        )
    for scores_US in (first_US, second_US):
        if not np.all(np.isnan(scores_US) | (scores_US == 0) | (scores_US == 1)):
            raise ValueError("scores must be 1 (right), 0 (wrong) or NaN (not scored)")
    return first_US, second_US
