"""The gap we lead with: understanding minus generation, in logits and as a difference of rates, with intervals.

Positive: understands more than it draws. The two directions of an item share its difficulty, so that drawing is the
harder task is part of the gap, by definition. One model: a difficulty-averaged logit (`unigap.gap.logit`). Several: one
Rasch model of them all (`unigap.gap.irt`). Definitions, assumptions and measured coverage are in docs/gap.md.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
from scipy import stats

from unigap.gap.bootstrap import NUM_RESAMPLES, critical_values
from unigap.gap.compare import Test, sign_flip
from unigap.gap.intervals import MIN_CLUSTERS, Interval, Method, cluster_indices, difference_interval, rate_interval
from unigap.gap.irt import ItemFit, Rasch
from unigap.gap.joint import Joint, joint_rates
from unigap.gap.logit import averaged_logit, logit_gap
from unigap.gap.outcomes import Missing, Outcomes

# M models, U units, D directions (understanding, generation), S samples, G clusters

THETA_WIDTH = 2.5
"""Standard deviation of the prior of abilities, logits: 95% of it are rates of .007 to .993 on an average item."""
B_WIDTH = 1.5
"""Standard deviation of the prior of difficulties, logits."""

Scale = Literal["difficulty-averaged logit", "Rasch logit"]


@dataclass(frozen=True, kw_only=True)
class LogitInterval:
    """A gap in logits with its interval. Printing it shows both."""

    logit: float
    low: float
    high: float
    num_clusters: int
    method: Method

    def __str__(self) -> str:
        mark = f" (few clusters: {self.num_clusters})" if self.method == "few clusters" else ""
        return f"{self.logit:+.2f} logit [{self.low:+.2f}, {self.high:+.2f}]{mark}"


@dataclass(frozen=True, kw_only=True)
class PriorPull:
    """The gap in logits under a prior of another width. Near the estimate: the prior hardly matters."""

    half: float
    twice: float


@dataclass(frozen=True, kw_only=True)
class Variance:
    """Where the variance of the difference of rates comes from (docs/gap.md eq. 15)."""

    items: float
    """Which items were asked; more samples do not reduce it."""
    sampling: float
    """Which answers were drawn of the model; more samples reduce it."""


@dataclass(frozen=True, kw_only=True)
class ModelGap:
    """The gap of one model, understanding minus generation. Printing it shows the intervals."""

    model: str
    rate: Interval
    """Difference of rates over units scored in both directions."""
    logit: LogitInterval
    understanding: Interval
    """Rates on the same units."""
    generation: Interval
    joint: Joint
    p: float
    """Two-sided, of no gap: the directions are swapped at random within clusters."""
    test: Test
    theta_pull: PriorPull
    """At half and twice the width of the prior of abilities."""
    b_pull: PriorPull | None
    """The same of difficulties; None with one model, whose gap has no such prior."""
    variance: Variance | None
    """None with one sample an item, which cannot tell the two apart."""
    coverage: tuple[float, float]
    """Share of answers (units x samples) that are scored: understanding, generation."""

    def __str__(self) -> str:
        return f"{self.model}: gap {self.rate}; {self.logit}; p = {self.p:.2g}"


@dataclass(frozen=True, kw_only=True)
class GapResult:
    """Gaps of one or more models on the same units. Printing it shows the intervals."""

    gaps: tuple[ModelGap, ...]
    scale: Scale
    theta_width: float
    b_width: float | None
    """None with one model: no model of difficulties is claimed."""
    num_dropped: int
    """Units left out because no model has a scored answer in one direction."""
    item_fit: ItemFit | None
    """None with one model."""

    def __str__(self) -> str:
        return "\n".join([f"understanding minus generation, {self.scale}", *map(str, self.gaps)])


def gap_score(
    outcomes: Outcomes,
    *,
    missing: Missing = "raise",
    theta_width: float = THETA_WIDTH,
    b_width: float = B_WIDTH,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> GapResult:
    """Understanding minus generation of each model.

    One model: logits of the rates, averaged over difficulty (docs/gap.md eq. 8 to 10). Several: differences of the
    abilities of one Rasch model, P(right) = sigmoid(theta_md - b_i), b shared by the directions (eq. 11 to 14; Rasch
    1960). Normal priors keep all-right and all-wrong rows finite; `theta_pull` and `b_pull` say how much they matter.
    Intervals are at 95%.

    Args:
        outcomes: Unscored cells leave the likelihood; they are not counted as wrong.
        missing: What to do about units without a scored answer in a direction: "raise" or "drop".
        theta_width: Standard deviation of the prior of abilities, logits.
        b_width: Of difficulties; unused with one model.
        num_resamples: Bootstrap resamples of clusters for several models; a unit keeps both its directions.
        seed: Drives that bootstrap only; the estimates are deterministic.

    Raises:
        NotComparableError: Units lack a direction and `missing` is "raise", or a model lacks one altogether. The
            message says how many, and which first.

    Note: GapEval's "gap" (`unigap.gap.published`) is a function of the joint cells: another quantity.
    """
    used = outcomes.in_both_directions(missing)
    single = len(used.models) == 1
    rasch = None if single else Rasch(theta_width=theta_width, b_width=b_width).fit(used)
    if rasch is None:
        logits = [_averaged(used, theta_width)]
        half, twice = (_averaged(used, width).logit for width in (theta_width / 2, theta_width * 2))
        pulls = [(PriorPull(half=half, twice=twice), None)]
    else:
        logits = _rasch_intervals(rasch, used, num_resamples, seed)
        pulls = _rasch_pulls(used, theta_width, b_width)
    return GapResult(
        gaps=tuple(_model_gap(used, m, logits[m], *pulls[m]) for m in range(len(used.models))),
        scale="difficulty-averaged logit" if single else "Rasch logit",
        theta_width=theta_width,
        b_width=None if single else b_width,
        num_dropped=len(outcomes.units) - len(used.units),
        item_fit=rasch.item_fit_ if rasch else None,
    )


def _model_gap(
    outcomes: Outcomes, m: int, logit: LogitInterval, theta_pull: PriorPull, b_pull: PriorPull | None
) -> ModelGap:
    kept_U, clusters, rate_UD = _paired(outcomes, m)
    first, second = rate_UD[:, 0].tolist(), rate_UD[:, 1].tolist()
    joint = joint_rates(outcomes.right[m, kept_U, 0], outcomes.right[m, kept_U, 1], clusters)
    owner_U, _ = cluster_indices(clusters)
    p, test = sign_flip(np.bincount(owner_U, weights=rate_UD[:, 0] - rate_UD[:, 1]))
    return ModelGap(
        model=outcomes.models[m],
        rate=difference_interval(first, second, clusters, num_samples=_num_samples(outcomes, m)),
        logit=logit,
        understanding=rate_interval(first, clusters),
        generation=rate_interval(second, clusters),
        joint=joint,
        p=p,
        test=test,
        theta_pull=theta_pull,
        b_pull=b_pull,
        variance=_variance(outcomes.right[m, kept_U], owner_U),
        coverage=tuple((~np.isnan(outcomes.right[m])).mean(axis=(0, 2)).tolist()),
    )


def _paired(outcomes: Outcomes, m: int) -> tuple[np.ndarray, list[Hashable], np.ndarray]:
    """Units that a model has scored in both directions: which, their clusters, and their rates (units, 2)."""
    rate_UD = outcomes.rates[m]
    kept_U = ~np.isnan(rate_UD).any(axis=1)
    return kept_U, [cluster for cluster, kept in zip(outcomes.clusters, kept_U) if kept], rate_UD[kept_U]


def _num_samples(outcomes: Outcomes, m: int) -> int:
    """Samples that every paired unit has in the direction with more of them."""
    scored_UD = outcomes.num_scored[m]
    return int(scored_UD[(scored_UD > 0).all(axis=1)].max(axis=1).max())


def _variance(right_UDS: np.ndarray, owner_U: np.ndarray) -> Variance | None:
    """Variance of the difference of rates by source, from samples nested in units nested in clusters (eq. 15)."""
    num_UD = (~np.isnan(right_UDS)).sum(axis=-1)
    if not (num_UD > 1).any(axis=0).all():
        return None
    rate_UD = np.nansum(right_UDS, axis=-1) / num_UD
    again_UD = num_UD > 1
    # Unbiased within a unit: S p (1 - p) / (S - 1). Units with one sample are taken to vary as the others do.
    within_UD = rate_UD * (1 - rate_UD) * num_UD / np.maximum(num_UD - 1, 1)
    within_D = (within_UD * again_UD).sum(axis=0) / again_UD.sum(axis=0)
    n, num_clusters = len(num_UD), int(owner_U.max()) + 1
    sampling = float((within_D * (1 / num_UD).sum(axis=0)).sum() / n**2)
    if num_clusters == 1:
        return Variance(items=inf, sampling=sampling)
    difference_U = rate_UD[:, 0] - rate_UD[:, 1]
    sums_G = np.bincount(owner_U, weights=difference_U - difference_U.mean())
    total = num_clusters / (num_clusters - 1) * float((sums_G**2).sum()) / n**2
    return Variance(items=max(0.0, total - sampling), sampling=sampling)


# ---- one model -------------------------------------------------------------------------------------------------------


def _averaged(outcomes: Outcomes, width: float) -> LogitInterval:
    """Difficulty-averaged logit gap; its critical value is that of the difference of rates."""
    _, clusters, rate_UD = _paired(outcomes, 0)
    num_samples = _num_samples(outcomes, 0)
    rate = difference_interval(rate_UD[:, 0].tolist(), rate_UD[:, 1].tolist(), clusters, num_samples=num_samples)
    if rate.num_clusters == 1:
        thetas_D = averaged_logit(rate_UD.mean(axis=0), np.ones(2), width)
        gap, low, high = thetas_D[0] - thetas_D[1], -inf, inf
    else:
        owner_U, _ = cluster_indices(clusters)
        gap, low, high = (
            value_B[0]
            for value_B in logit_gap(
                np.stack([np.bincount(owner_U, weights=rate_U) for rate_U in rate_UD.T])[None],
                np.bincount(owner_U)[None].astype(float),
                np.array([rate.critical]),
                independent=rate.method == "independent units",
                width=width,
                least=1 / num_samples,
            )
        )
    return LogitInterval(
        logit=float(gap), low=float(low), high=float(high), num_clusters=rate.num_clusters, method=rate.method
    )


# ---- several models --------------------------------------------------------------------------------------------------


def _rasch_intervals(rasch: Rasch, outcomes: Outcomes, num_resamples: int, seed: int) -> list[LogitInterval]:
    owner_U, num_clusters = cluster_indices(outcomes.clusters)
    gap_M = rasch.theta_[:, 0] - rasch.theta_[:, 1]
    method: Method = "few clusters" if num_clusters < MIN_CLUSTERS else "cluster bootstrap"
    if num_clusters == 1:
        reach_M = np.full(len(gap_M), inf)
    elif method == "few clusters":
        reach_M = stats.t.ppf(0.975, num_clusters - 1) * rasch.gap_errors(owner_U)
    else:
        pivots_MR = rasch.gap_pivots(owner_U, num_resamples=num_resamples, seed=seed)
        reach_M = critical_values(pivots_MR, num_clusters, 0.95) * rasch.gap_errors(owner_U)
    return [
        LogitInterval(
            logit=float(gap), low=float(gap - reach), high=float(gap + reach), num_clusters=num_clusters, method=method
        )
        for gap, reach in zip(gap_M, reach_M)
    ]


def _rasch_pulls(outcomes: Outcomes, theta_width: float, b_width: float) -> list[tuple[PriorPull, PriorPull]]:
    def gaps(theta_factor: float, b_factor: float) -> list[float]:
        theta = Rasch(theta_width=theta_width * theta_factor, b_width=b_width * b_factor).fit(outcomes).theta_
        return (theta[:, 0] - theta[:, 1]).tolist()

    theta_pulls = [PriorPull(half=half, twice=twice) for half, twice in zip(gaps(0.5, 1), gaps(2, 1))]
    b_pulls = [PriorPull(half=half, twice=twice) for half, twice in zip(gaps(1, 0.5), gaps(1, 2))]
    return list(zip(theta_pulls, b_pulls))
