"""Differences between two runs on the same units: interval, exact test, Holm's correction, equivalence.

A difference is other minus first, positive where the other run is higher, on units scored in both runs. A difference
of gaps compares (understanding - generation) of the two. Equations are numbered in docs/compare.md.

U units, S samples, G clusters, V distinct sizes, N draws.

References:
    McNemar (1947), Note on the sampling error of the difference between correlated proportions. Psychometrika 12.
    Fisher (1935), The Design of Experiments, section 21 (sign-flip test); Phipson & Smyth (2010), Permutation p-values
        should never be zero. Statistical Applications in Genetics and Molecular Biology 9 (the +1).
    Holm (1979), A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6; Shaffer
        (1986), Modified sequentially rejective multiple test procedures. JASA 81.
    Schuirmann (1987), A comparison of the two one-sided tests procedure and the power approach. Journal of
        Pharmacokinetics and Biopharmaceutics 15 (TOST).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from unigap.gap.intervals import Interval, difference_interval, rate_interval

MAX_PATTERNS = 2**20
"""Sign patterns (those that flip as many clusters of each size counted once) up to which a sign-flip test is exact."""

NUM_DRAWS = 99_999
"""Sign patterns drawn where there are more."""

Test = Literal["McNemar exact", "sign-flip exact", "sign-flip Monte Carlo"]


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Whether a difference is smaller than a margin, by two one-sided tests (docs/compare.md eq. 7)."""

    margin: float
    interval: Interval
    """Of the difference, at 90%; inside (-margin, margin) iff p < 0.05."""
    p: float
    """The smallest level at which both tests reject; 1 if the estimate itself is not inside the margin."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Other minus first, on units scored in both. Printing it shows the interval."""

    first: float
    """Rate of the first run, or its gap, on these units."""
    other: float
    interval: Interval
    """Of the difference, at 95%."""
    p: float
    """Two-sided, of no difference."""
    test: Test
    discordance: Interval
    """Mean size of a unit's difference, as a share of the largest possible (1 for a rate, 2 for a gap). For single
    answers the share of units that one run alone has right."""
    equivalence: Equivalence | None = None

    def __str__(self) -> str:
        return f"{self.interval}, p = {self.p:.3g} ({self.test})"


def compare_rates(
    first: ArrayLike, other: ArrayLike, clusters: Sequence[Hashable], *, margin: float | None = None, seed: int = 0
) -> Difference | None:
    """Compare a rate of two runs (docs/compare.md eq. 2).

    McNemar's exact test where units are their own clusters and have one sample, a sign-flip test over clusters
    otherwise. A unit scores its average over the samples that both runs have scored; without one it is left out.

    Args:
        first: 1 right, 0 wrong, NaN not scored; (units, samples).
        other: The same units and samples.
        clusters: The cluster of each unit.
        margin: Also test that the difference is smaller than this; in (0, 1).
        seed: Of the Monte Carlo draws, which only large tables of dependent units need.

    Returns:
        The difference, or None if no unit is scored in both.

    Raises:
        ValueError: Shapes differ, a score is not 0, 1 or NaN, or the margin is outside (0, 1).
    """
    return _compare([first], [other], clusters, margin, seed)


def compare_gaps(
    first: tuple[ArrayLike, ArrayLike],
    other: tuple[ArrayLike, ArrayLike],
    clusters: Sequence[Hashable],
    *,
    margin: float | None = None,
    seed: int = 0,
) -> Difference | None:
    """Compare the gap of two runs, by a sign-flip test over clusters (docs/compare.md eq. 3).

    Args:
        first: Scores of (understanding, generation) of the first run, each as in `compare_rates`.
        other: The same units and samples of the other run.
        clusters: As in `compare_rates`; so are `margin`, `seed`, what is returned and what is raised.
    """
    return _compare(first, other, clusters, margin, seed)


def _compare(
    first: Sequence[ArrayLike],
    other: Sequence[ArrayLike],
    clusters: Sequence[Hashable],
    margin: float | None,
    seed: int,
) -> Difference | None:
    """A rate is one array, a gap two: understanding, which counts positive, and generation, which counts negative."""
    if margin is not None and not 0 < margin < 1:
        raise ValueError(f"the margin must lie between 0 and 1 (0.05 is five points), got {margin}")
    arrays = _checked([*first, *other], len(clusters))
    common_US = ~np.isnan(np.sum(arrays, axis=0))
    kept_U = common_US.any(axis=1)
    if not kept_U.any():
        return None
    owners = [cluster for cluster, kept in zip(clusters, kept_U) if kept]
    counts_U = common_US.sum(axis=1)[kept_U]
    rates = [np.where(common_US, scores_US, 0).sum(axis=1)[kept_U] / counts_U for scores_US in arrays]
    is_gap = len(first) == 2
    first_U, other_U = (rates[0] - rates[1], rates[2] - rates[3]) if is_gap else rates
    differences_U = other_U - first_U
    num_samples, widest = int(counts_U.max()), 2 if is_gap else 1

    # A gap difference is twice one of rates: x = (u' + 1 - g')/2 against y = (u + 1 - g)/2, averages of two answers.
    x_U, y_U = ((value_U + widest - 1) / widest for value_U in (other_U, first_U))

    def interval(level: float) -> Interval:
        found = difference_interval(x_U.tolist(), y_U.tolist(), owners, level=level, num_samples=widest * num_samples)
        return replace(found, rate=widest * found.rate, low=widest * found.low, high=widest * found.high)

    independent = len(set(owners)) == len(owners)
    if independent and not is_gap and num_samples == 1:
        p, test = mcnemar(int((differences_U < 0).sum()), int((differences_U > 0).sum())), "McNemar exact"
    else:
        p, test = sign_flip(_cluster_sums(differences_U, owners), seed=seed)
    return Difference(
        first=float(first_U.mean()),
        other=float(other_U.mean()),
        interval=interval(0.95),
        p=p,
        test=test,
        discordance=rate_interval((np.abs(differences_U) / widest).tolist(), owners),
        equivalence=None if margin is None else _equivalence(interval, margin),
    )


def _checked(scores: Sequence[ArrayLike], num_units: int) -> list[np.ndarray]:
    arrays = [np.asarray(each, dtype=float) for each in scores]
    if any(array.ndim != 2 or array.shape != arrays[0].shape or len(array) != num_units for array in arrays):
        raise ValueError(
            f"scores of shapes {[array.shape for array in arrays]} for {num_units} clusters; give (units, samples) "
            "each time, padded with NaN, and one cluster per unit"
        )
    if not all(np.all(np.isnan(array) | (array == 0) | (array == 1)) for array in arrays):
        raise ValueError("scores must be 1 (right), 0 (wrong) or NaN (not scored)")
    return arrays


def _cluster_sums(values_U: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    names = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    return np.bincount([names[name] for name in clusters], weights=values_U, minlength=len(names))


def _equivalence(interval: Callable[[float], Interval], margin: float) -> Equivalence:
    """The level is found by bisection; the interval of level 1 - 2 alpha is that of two tests of level alpha."""

    def rejects(alpha: float) -> bool:
        found = interval(1 - 2 * alpha)
        return -margin < found.low and found.high < margin

    low, high = 0.0, 0.5
    if not rejects(high - 1e-6):
        return Equivalence(margin=margin, interval=interval(0.9), p=1.0)
    for _ in range(16):  # to 1e-5
        middle = (low + high) / 2
        low, high = (low, middle) if rejects(middle) else (middle, high)
    return Equivalence(margin=margin, interval=interval(0.9), p=high)


# ---- tests -----------------------------------------------------------------------------------------------------------


def mcnemar(only_first: int, only_other: int) -> float:
    """Exact two-sided p of McNemar's test (docs/compare.md eq. 4).

    Without a difference a unit that one run alone has right is either run's with probability 1/2:
    p = min(1, 2 P(Binomial(b + c, 1/2) <= min(b, c))), and 1 if there is no such unit.
    """
    return min(1.0, 2 * float(stats.binom.cdf(min(only_first, only_other), only_first + only_other, 0.5)))


def sign_flip(sums: ArrayLike, *, seed: int = 0) -> tuple[float, Test]:
    """Two-sided p of a sign-flip test over clusters (docs/compare.md eq. 5).

    If the two runs do not differ, swapping them within a cluster changes the sign of its sum and nothing else. Clusters
    whose sums have the same size are alike, so it is enough to go through how many of each size are positive: all of
    these counts if there are at most `MAX_PATTERNS`; else `NUM_DRAWS` are drawn, and p = (1 + hits) / (1 + draws).

    Args:
        sums: Sum of the differences of each cluster's units; (clusters,).
        seed: Of the draws.
    """
    # Sums of averages over samples that are equal on paper may differ in the last bits.
    sums_G = np.asarray(sums, dtype=float).round(9)
    sizes_V, counts_V = np.unique(np.abs(sums_G[sums_G != 0]), return_counts=True)
    at_least = abs(float(sums_G.sum())) - 1e-6
    if prod(int(count) + 1 for count in counts_V) > MAX_PATTERNS:
        rng, hits, step = np.random.default_rng(seed), 0, 1 + 1_000_000 // len(counts_V)
        for start in range(0, NUM_DRAWS, step):
            positive_NV = rng.binomial(counts_V, 0.5, size=(min(step, NUM_DRAWS - start), len(counts_V)))
            hits += int((np.abs((2 * positive_NV - counts_V) @ sizes_V) >= at_least).sum())
        return (1 + hits) / (1 + NUM_DRAWS), "sign-flip Monte Carlo"
    totals, chances = np.zeros(1), np.ones(1)
    for size, count in zip(sizes_V, counts_V):
        positive = np.arange(count + 1)
        totals = np.add.outer(totals, size * (2 * positive - count)).ravel()
        chances = np.multiply.outer(chances, stats.binom.pmf(positive, count, 0.5)).ravel()
    return min(1.0, float(chances[np.abs(totals) >= at_least].sum())), "sign-flip exact"


def holm(ps: Sequence[float], *, max_true: int | None = None) -> list[float]:
    """Holm's adjusted p-values, in the order given (docs/compare.md eq. 6).

    Of m p-values sorted upwards, the j-th (from 0) is multiplied by m - j; none is then below an earlier one or over 1.

    Args:
        ps: p-values of everything that is tested.
        max_true: How many of the hypotheses can be true at the same time, if not all; no factor is above it
            (Shaffer 1986).
    """
    most = len(ps) if max_true is None else max_true
    adjusted, reached = [1.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        reached = max(reached, min(1.0, min(most, len(ps) - rank) * ps[index]))
        adjusted[index] = reached
    return adjusted
