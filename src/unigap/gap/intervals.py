"""Intervals for a rate and for a paired difference of rates, also when units are not independent.

Two cases, one pair of formulas. Independent units: Wilson's score interval (1927) for a rate, and Newcombe's method 10
(1998) for the paired difference. Dependent units (several items of one fictional character), or so few clusters that
the normal approximation is optimistic: the same formulas with the effective sample size n / deff, where deff is Kish's
design effect from a cluster-robust variance, and Student's t with G - 1 degrees instead of z.

Unit scores lie in [0, 1]. Scores strictly between (averages over samples) vary at most as much as 0/1 scores of the
same mean, so the intervals are then conservative. No interval has zero width.

Symbols: n units, G clusters, p rate, q = 1 - p, z (or t) the critical value, V variance of the rate.

References:
    Wilson (1927), Probable inference, the law of succession, and statistical inference. JASA 22.
    Newcombe (1998), Improved confidence intervals for the difference between binomial proportions based on paired
        data. Statistics in Medicine 17 (method 10). Zou & Donner (2008) derive the same form for any two intervals.
    Kish (1965), Survey Sampling, section 8.2 (design effect); Korn & Graubard (1998), Confidence intervals for
        proportions with small expected number of positive counts estimated from survey data (effective sample size
        with a t reference).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

import numpy as np
from scipy import stats

MIN_CLUSTERS = 20
"""With fewer clusters than this an interval is always cluster-adjusted."""

Method = Literal["independent units", "cluster-adjusted"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. Printing it shows both."""

    rate: float
    """A proportion, or a difference of two. NaN when there are no units."""
    low: float
    high: float
    num_units: int
    num_clusters: int
    method: Method
    design_effect: float = 1.0
    """Variance relative to independent units; the larger of the two for a difference."""

    @property
    def adjusted(self) -> bool:
        return self.method == "cluster-adjusted"

    def __str__(self) -> str:
        mark = f", {self.method}" if self.adjusted else ""
        return f"{self.rate:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.num_units}{mark})"


def wilson(rate: float, n: float, critical: float) -> tuple[float, float]:
    """Limits of Wilson's score interval; `n` may be an effective sample size.

    (p + c^2/2n -+ c sqrt(p q / n + c^2/4n^2)) / (1 + c^2/n)
    """
    square = critical * critical / n
    centre = (rate + square / 2) / (1 + square)
    half = sqrt(square * (rate * (1 - rate) + square / 4)) / (1 + square)
    # At p = 0 and p = 1 the limits are 0 and 1 exactly; rounding must not put them beside the estimate.
    low = 0.0 if rate == 0 else max(0.0, centre - half)
    high = 1.0 if rate == 1 else min(1.0, centre + half)
    return low, high


def rate_interval(scores: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95) -> Interval:
    """Mean of unit scores with an interval that respects clusters.

    Independent units and at least `MIN_CLUSTERS`: Wilson. Otherwise Wilson with n / deff units and t of G - 1 degrees:
    V = G/(G-1) sum_g (sum_{i in g} (x_i - p))^2 / n^2, deff = max(1, V / (p q / n)). If all units agree, V says nothing
    and each cluster counts as one unit. A single cluster says nothing about others: the interval is [0, 1].

    Args:
        scores: One score in [0, 1] per unit.
        clusters: The cluster of each unit.
        level: Coverage.

    Raises:
        ValueError: Lengths differ, or a score is outside [0, 1].
    """
    means = _Means([scores], clusters, level)
    if not means.n:
        return Interval(float("nan"), 0.0, 1.0, 0, 0, "independent units")
    low, high = means.limits(0)
    return Interval(means.rates[0], low, high, means.n, means.num_clusters, means.method, means.design_effects[0])


def difference_interval(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95
) -> Interval:
    """First rate minus second rate on the same units, with an interval that uses the pairing.

    Newcombe's method 10: with Wilson limits (l1, u1), (l2, u2) of the two rates and their correlation phi,

        low  = d - sqrt((p1 - l1)^2 - 2 phi (p1 - l1)(u2 - p2) + (u2 - p2)^2)
        high = d + sqrt((u1 - p1)^2 - 2 phi (u1 - p1)(p2 - l2) + (p2 - l2)^2)

    phi = cov(p1, p2) / sqrt(V1 V2). A positive phi is reduced by the continuity correction 1 / (2 n sqrt(p1 q1 p2 q2)),
    though not below 0 (n is the smaller effective sample size); phi is 0 when a rate is 0 or 1. Cluster-adjusted in the
    same cases and by the same variances as `rate_interval`. Swapping `first` and `second` negates the interval.

    Args:
        first: One score in [0, 1] per unit; understanding, for a gap.
        second: The same units in the same order; generation, for a gap.
        clusters: The cluster of each unit.
        level: Coverage.

    Raises:
        ValueError: Lengths differ, or a score is outside [0, 1].
    """
    means = _Means([first, second], clusters, level)
    if not means.n:
        return Interval(float("nan"), -1.0, 1.0, 0, 0, "independent units")
    p1, p2 = means.rates
    (l1, u1), (l2, u2) = means.limits(0), means.limits(1)
    phi = means.correlation()
    low = p1 - p2 - _square_and_add(p1 - l1, u2 - p2, phi)
    high = p1 - p2 + _square_and_add(u1 - p1, p2 - l2, phi)
    effect = max(means.design_effects)
    return Interval(p1 - p2, max(-1.0, low), min(1.0, high), means.n, means.num_clusters, means.method, effect)


def _square_and_add(a: float, b: float, phi: float) -> float:
    return sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))


class _Means:
    """One or two rates on the same units, with their variances and what they share."""

    def __init__(self, scores: Sequence[Sequence[float]], clusters: Sequence[Hashable], level: float) -> None:
        scores_DN = np.asarray(scores, dtype=float)  # D directions, N units
        if any(len(row) != len(clusters) for row in scores):
            raise ValueError(f"{[len(row) for row in scores]} scores for {len(clusters)} clusters; give one per unit")
        if not np.all((scores_DN >= 0) & (scores_DN <= 1)):
            raise ValueError("unit scores must lie in [0, 1]")
        self.n = len(clusters)
        names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
        self.num_clusters = len(names)
        if not self.n:
            return
        adjusted = self.num_clusters < max(MIN_CLUSTERS, self.n)
        self.method: Method = "cluster-adjusted" if adjusted else "independent units"
        self.rates = [float(rate) for rate in scores_DN.mean(axis=1)]
        residuals_DN = scores_DN - scores_DN.mean(axis=1, keepdims=True)
        self.critical = float(stats.norm.ppf((1 + level) / 2))
        self.covariance = residuals_DN @ residuals_DN.T / self.n**2
        self.effective = [float(self.n)] * len(scores)
        if adjusted:
            owner_N = np.array([names[name] for name in clusters])
            self._adjust(residuals_DN, owner_N, level)
        self.design_effects = [self.n / effective for effective in self.effective]

    def _adjust(self, residuals_DN: np.ndarray, owner_N: np.ndarray, level: float) -> None:
        num = self.num_clusters
        if num == 1:
            self.critical, self.effective = inf, [1.0] * len(self.rates)
            return
        sums_DG = np.stack([np.bincount(owner_N, weights=row, minlength=num) for row in residuals_DN])
        self.covariance = sums_DG @ sums_DG.T * num / (num - 1) / self.n**2
        self.critical = float(stats.t.ppf((1 + level) / 2, num - 1))
        for index, rate in enumerate(self.rates):
            independent = rate * (1 - rate) / self.n
            # A rate of 0 or 1 hides how clusters differ, so each cluster counts once.
            effect = self.covariance[index, index] / independent if independent > 0 else self.n / num
            self.effective[index] = self.n / max(1.0, float(effect))

    def limits(self, index: int) -> tuple[float, float]:
        if self.critical == inf:
            return 0.0, 1.0
        return wilson(self.rates[index], self.effective[index], self.critical)

    def correlation(self) -> float:
        """Correlation of the two rates, reduced towards 0 as Newcombe does; below 1, so no width vanishes."""
        spread = sqrt(np.prod([rate * (1 - rate) for rate in self.rates]))
        if spread == 0 or self.critical == inf:
            return 0.0
        phi = float(self.covariance[0, 1]) * sqrt(self.effective[0] * self.effective[1]) / spread
        if phi > 0:
            phi = max(0.0, phi - 1 / (2 * min(self.effective) * spread))
        return max(-1.0, phi)
