"""Intervals for a rate and for a paired difference of rates, also when units are not independent.

A rate has Wilson's score interval (1927); a paired difference has Tango's (1998), with the n / (n - 1) of Miettinen &
Nurminen (1985). Both compare an estimate with the variance that a candidate value would imply, so neither has zero
width, not even when every unit is right.

Dependent units (several items of one fictional character) enter through Kish's design effect: n / deff units carry as
much as independent ones. The critical value is then that of a studentised cluster bootstrap for a difference, and of
Student's t with G - 1 degrees for a rate. With fewer than `MIN_CLUSTERS` clusters it is always Student's t, and the
interval says so when printed.

Unit scores lie in [0, 1]. Scores strictly between (averages over samples) vary at most as much as 0/1 scores of the
same mean, so the intervals are then conservative, unless `num_samples` says how many were averaged.

Symbols: n units, G clusters, p rate, q = 1 - p, c the critical value, V variance. Equations are in docs/gap.md.

References:
    Wilson (1927), Probable inference, the law of succession, and statistical inference. JASA 22.
    Tango (1998), Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design. Statistics in Medicine 17.
    Miettinen & Nurminen (1985), Comparative analysis of two rates. Statistics in Medicine 4.
    Kish (1965), Survey Sampling, section 8.2 (design effect); Korn & Graubard (1998), Confidence intervals for
        proportions with small expected number of positive counts estimated from survey data (effective sample size
        with a t reference).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from unigap.gap.bootstrap import NUM_RESAMPLES, critical_values, resample_sums

# B datasets, G clusters, C columns, R resamples

MIN_CLUSTERS = 20
"""With fewer clusters than this an interval uses Student's t and carries a mark."""

Method = Literal["independent units", "cluster-adjusted", "cluster bootstrap", "few clusters"]


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
    """Variance relative to independent units."""
    critical: float = nan
    """How many standard errors off a difference its limits lie; NaN for a rate, infinite for one cluster."""

    @property
    def adjusted(self) -> bool:
        """Units depend on each other, or clusters are few."""
        return self.method != "independent units"

    def __str__(self) -> str:
        marks = {"independent units": "", "few clusters": f", few clusters: {self.num_clusters}"}
        mark = marks.get(self.method, f", {self.method}: {self.num_clusters}")
        return f"{self.rate:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.num_units}{mark})"


def rate_interval(scores: Sequence[float], clusters: Sequence[Hashable], *, level: float = 0.95) -> Interval:
    """Mean of unit scores with an interval that respects clusters (docs/gap.md eq. 2 and 3).

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
    scores_U = _checked(scores, clusters)
    n = len(scores_U)
    if not n:
        return Interval(float("nan"), 0.0, 1.0, 0, 0, "independent units")
    owner_U, num_clusters = cluster_indices(clusters)
    rate, independent = float(scores_U.mean()), num_clusters == n
    method = _method(independent, num_clusters, "cluster-adjusted")
    if num_clusters == 1:
        return Interval(rate, 0.0, 1.0, n, 1, method, float(n))
    sums_G, units_G = np.bincount(owner_U, weights=scores_U), np.bincount(owner_U).astype(float)
    low, high, effect = (float(value) for value in rate_limits(sums_G, units_G, method, level=level))
    return Interval(rate, low, high, n, num_clusters, method, effect)


def rate_limits(
    sums_BG: np.ndarray, units_BG: np.ndarray, method: Method, *, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Limits and design effects of rates, from sums of scores and numbers of units by cluster, at least two."""
    n_B = units_BG.sum(axis=-1)
    effect_B = np.ones_like(n_B) if method == "independent units" else rate_design_effect(sums_BG, units_BG)
    critical = _reference(method, units_BG.shape[-1], level)
    low_B, high_B = wilson(sums_BG.sum(axis=-1) / n_B, n_B / effect_B, critical)
    return low_B, high_B, effect_B


def rate_design_effect(sums_BG: np.ndarray, units_BG: np.ndarray, least: float = 1.0) -> np.ndarray:
    """deff = max(least, V / (p q / n)) from sums of scores and units by cluster; n / G if all units agree."""
    n_B, num_clusters = units_BG.sum(axis=-1), units_BG.shape[-1]
    rate_B = sums_BG.sum(axis=-1) / n_B
    residuals_BG = sums_BG - rate_B[..., None] * units_BG
    variance_B = num_clusters / (num_clusters - 1) * (residuals_BG**2).sum(axis=-1) / n_B**2
    return _design_effect(variance_B, rate_B * (1 - rate_B) / n_B, n_B, num_clusters, least)


def wilson(rate_B: np.ndarray, n: np.ndarray | float, critical: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Limits of Wilson's score interval (docs/gap.md eq. 2); `n` may be an effective sample size."""
    square = critical * critical / n
    centre_B = (rate_B + square / 2) / (1 + square)
    half_B = np.sqrt(square * (rate_B * (1 - rate_B) + square / 4)) / (1 + square)
    # At p = 0 and p = 1 the limits are 0 and 1 exactly; rounding must not put them beside the estimate.
    low_B = np.where(rate_B == 0, 0.0, np.clip(centre_B - half_B, 0.0, rate_B))
    high_B = np.where(rate_B == 1, 1.0, np.clip(centre_B + half_B, rate_B, 1.0))
    return low_B, high_B


def difference_interval(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    num_samples: int = 1,
) -> Interval:
    """First rate minus second rate on the same units, with an interval that uses the pairing (docs/gap.md eq. 4 to 7).

    Independent units: Tango's score interval for a paired difference. Dependent units: the same with n / deff units and
    the critical values of a studentised cluster bootstrap. Fewer than `MIN_CLUSTERS` clusters: with those of Student's
    t with G - 1 degrees. If no two clusters differ, each counts as one unit. A single cluster: [-1, 1].

    The order of units does not matter, and swapping `first` and `second` negates the interval: the bootstrap has a
    fixed seed and meets the clusters in an order, and the directions in a sense, that the data decide.

    Args:
        first: One score in [0, 1] per unit; understanding, for a gap.
        second: The same units in the same order; generation, for a gap.
        clusters: The cluster of each unit.
        level: Coverage.
        num_samples: Samples that a score averages. More than 1 lets the interval be as narrow as they make it, and
            otherwise treats units as dependent samples.

    Raises:
        ValueError: Lengths differ, or a score is outside [0, 1].
    """
    first_U, second_U = _checked(first, clusters), _checked(second, clusters)
    n = len(first_U)
    if not n:
        return Interval(float("nan"), -1.0, 1.0, 0, 0, "independent units")
    owner_U, num_clusters = cluster_indices(clusters)
    method = _method(num_clusters == n and num_samples == 1, num_clusters, "cluster bootstrap")
    rate = float(first_U.mean() - second_U.mean())
    if num_clusters == 1:
        return Interval(rate, -1.0, 1.0, n, 1, method, float(n), inf)
    sums_CG, swapped = _canonical(owner_U, first_U - second_U)
    limits = difference_limits(sums_CG[None], method, level=level, num_samples=num_samples)
    low, high = float(limits.low[0]), float(limits.high[0])
    if swapped:
        low, high = -high, -low
    # The estimate is 1 or -1 exactly at the edge; bisection ends beside it.
    low, high = max(-1.0, min(low, rate)), min(1.0, max(high, rate))
    return Interval(rate, low, high, n, num_clusters, method, float(limits.effect[0]), float(limits.critical[0]))


def _canonical(owner_U: np.ndarray, difference_U: np.ndarray) -> tuple[np.ndarray, bool]:
    """Units, surplus of the first and surplus of the second by cluster, in an order that names and rows do not affect.

    Returns:
        (3, G), and whether first and second are swapped, so that a mirrored table gives the same array.
    """
    units_G = np.bincount(owner_U).astype(float)
    ahead_G = np.bincount(owner_U, weights=np.maximum(difference_U, 0.0))
    behind_G = np.bincount(owner_U, weights=np.maximum(-difference_U, 0.0))
    both = [(units_G, ahead_G, behind_G), (units_G, behind_G, ahead_G)]
    tables = [np.array(rows)[:, np.lexsort(rows)] for rows in both]
    swapped = tables[1].tolist() > tables[0].tolist()
    return tables[swapped], swapped


class Limits(NamedTuple):
    """Of B paired differences; each (B,)."""

    low: np.ndarray
    high: np.ndarray
    effect: np.ndarray
    """Design effects."""
    critical: np.ndarray


def difference_limits(sums_BCG: np.ndarray, method: Method, *, level: float = 0.95, num_samples: int = 1) -> Limits:
    """Limits of a paired difference for B datasets of G clusters at once.

    Args:
        sums_BCG: For each cluster: units, sum of max(x - y, 0), sum of max(y - x, 0).
        method: Decides the critical values.
        num_samples: As in `difference_interval`.
    """
    num_clusters = sums_BCG.shape[-1]
    n_B, ahead_B, behind_B = np.moveaxis(sums_BCG.sum(axis=-1), -1, 0)
    ahead_B, behind_B = ahead_B / n_B, behind_B / n_B
    moments_BCG = _with_squares(sums_BCG)
    variance_B, unpaired_B = _variances(moments_BCG.sum(axis=-1), num_clusters)
    effect_B = _design_effect(variance_B, unpaired_B, n_B, num_clusters, 1 / num_samples)
    if method == "cluster bootstrap":
        totals_BCR = resample_sums(moments_BCG, num_resamples=NUM_RESAMPLES, seed=0)
        pivots_BR = _score_pivots(totals_BCR, ahead_B - behind_B, num_clusters, 1 / num_samples)
        critical_B = critical_values(pivots_BR, num_clusters, level)
    else:
        critical_B = np.full(len(n_B), _reference(method, num_clusters, level))
    low_B = _tango_low(ahead_B, behind_B, n_B / effect_B, critical_B)
    high_B = -_tango_low(behind_B, ahead_B, n_B / effect_B, critical_B)
    return Limits(low_B, high_B, effect_B, critical_B)


def _with_squares(sums_BCG: np.ndarray) -> np.ndarray:
    units, ahead, behind = np.moveaxis(sums_BCG, -2, 0)
    difference = ahead - behind
    return np.stack([units, ahead, behind, difference**2, difference * units, units**2], axis=-2)


def _variances(totals: np.ndarray, num_clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the difference: cluster-robust, and of as many independent units; from totals (B, 6) or (B, 6, R)."""
    n, ahead, behind, square, cross, units_square = np.moveaxis(totals, 1, 0)
    d = (ahead - behind) / n
    robust = (square - 2 * d * cross + d**2 * units_square) / n**2
    return num_clusters / (num_clusters - 1) * np.maximum(robust, 0.0), ((ahead + behind) / n - d**2) / n


def _score_pivots(totals_BCR: np.ndarray, true_B: np.ndarray, num_clusters: int, least_effect: float) -> np.ndarray:
    """The statistic that `_tango_low` inverts, of each resample at the estimate it was drawn around; (B, R)."""
    n_BR = totals_BCR[:, 0]
    ahead_BR, behind_BR = totals_BCR[:, 1] / n_BR, totals_BCR[:, 2] / n_BR
    variance_BR, unpaired_BR = _variances(totals_BCR, num_clusters)
    effect_BR = _design_effect(variance_BR, unpaired_BR, n_BR, num_clusters, least_effect)
    error_BR = _null_spread(ahead_BR, behind_BR, true_B[:, None]) * np.sqrt(effect_BR / n_BR)
    # Nothing disagrees in the data, so nothing does in any resample: there is no error to speak of.
    return np.divide(ahead_BR - behind_BR - true_B[:, None], error_BR, where=error_BR > 0, out=np.zeros_like(error_BR))


def _tango_low(ahead_B: np.ndarray, behind_B: np.ndarray, n_B: np.ndarray, critical_B: np.ndarray) -> np.ndarray:
    """The least difference delta with sqrt(n) (d - delta) <= c s(delta), by bisection (docs/gap.md eq. 5)."""
    d_B = ahead_B - behind_B
    low_B, high_B = np.full(d_B.shape, -1.0), d_B
    for _ in range(50):
        delta_B = (low_B + high_B) / 2
        rejected_B = np.sqrt(n_B) * (d_B - delta_B) > critical_B * _null_spread(ahead_B, behind_B, delta_B)
        low_B, high_B = np.where(rejected_B, delta_B, low_B), np.where(rejected_B, high_B, delta_B)
    return low_B


def _null_spread(ahead: np.ndarray, behind: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """s(delta): standard deviation of a unit's difference were delta true (docs/gap.md eq. 4).

    s^2 = 2 q + delta - delta^2, with q the likeliest share of "second alone right" given delta, the larger root of
    2 q^2 + B q + C = 0.
    """
    b = (2 - ahead + behind) * delta - ahead - behind
    c = -behind * delta * (1 - delta)
    q = (np.sqrt(np.maximum(b**2 - 8 * c, 0.0)) - b) / 4
    return np.sqrt(np.maximum(2 * q + delta - delta**2, 0.0))


def _design_effect(
    variance: np.ndarray, independent: np.ndarray, n: np.ndarray, num_clusters: int, least: float
) -> np.ndarray:
    # Without any spread nothing is known of how clusters differ, so each counts once. 1e-12: rounding of a zero.
    known = independent * n > 1e-12
    ratio = np.divide(variance, independent, where=known, out=np.ones_like(independent))
    return np.where(known, np.maximum(ratio, least), n / num_clusters)


def _method(independent: bool, num_clusters: int, otherwise: Method) -> Method:
    if num_clusters < MIN_CLUSTERS:
        return "few clusters"
    return "independent units" if independent else otherwise


def _reference(method: Method, num_clusters: int, level: float) -> float:
    quantile = (1 + level) / 2
    return float(stats.norm.ppf(quantile) if method == "independent units" else stats.t.ppf(quantile, num_clusters - 1))


def cluster_indices(clusters: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """The index of each unit's cluster, counted as they appear, and how many clusters there are."""
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    return np.array([names[name] for name in clusters], dtype=int), len(names)


def _checked(scores: Sequence[float], clusters: Sequence[Hashable]) -> np.ndarray:
    scores_U = np.asarray(scores, dtype=float)
    if len(scores_U) != len(clusters):
        raise ValueError(f"{len(scores_U)} scores for {len(clusters)} clusters; give one per unit")
    if not np.all((scores_U >= 0) & (scores_U <= 1)):
        raise ValueError("unit scores must lie in [0, 1]")
    return scores_U
