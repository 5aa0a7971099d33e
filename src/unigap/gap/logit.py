"""The gap of a single model in logits, averaged over the difficulty of the items.

One model answers each item once in each direction, which cannot separate how hard items are from how able the model
is. So difficulty is averaged out: theta_d is the logit of the direction's mean probability of being right, whatever the
items' difficulties are (docs/gap.md eq. 8). It is no ability in the sense of item response theory, and is nearer to
zero than one when items differ (Zeger, Liang & Albert 1988). A normal prior keeps it finite when all or none is right.

The interval combines one score interval for each direction by their correlation, as Newcombe (1998, method 10) and Zou
& Donner (2008) do for rates; design effect and critical value are those of the difference of rates.

References:
    Zeger, Liang & Albert (1988), Models for longitudinal data: a generalized estimating equation approach.
        Biometrics 44.
    Zou & Donner (2008), Construction of confidence limits about effect measures. Statistics in Medicine 27.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit

from unigap.gap.intervals import rate_design_effect, wilson

# B datasets, G clusters

BOUND = 60.0
"""No normal prior of a sane width leaves a logit outside plus and minus this."""
TINY = 1e-15


def logit_gap(
    sums_BDG: np.ndarray,
    units_BG: np.ndarray,
    critical_B: np.ndarray,
    *,
    independent: bool,
    width: float,
    least: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First minus second difficulty-averaged logit of B datasets, with limits (docs/gap.md eq. 8 to 10).

    The estimate takes the larger design effect for both directions, so that the prior pulls both alike and the gap in
    logits has the sign of the gap in rates; the limits take each direction's own. A positive correlation is reduced by
    Newcombe's continuity correction, though not below 0.

    Args:
        sums_BDG: Sum of scores of each direction and cluster.
        units_BG: Units of each cluster; at least two clusters.
        critical_B: Critical values of the difference of rates.
        independent: Each unit is a cluster, and there are enough of them.
        width: Standard deviation of the prior of each theta, logits.
        least: The least design effect.

    Returns:
        Gaps, lower limits and upper limits, each (B,).
    """
    total_B = units_BG.sum(axis=-1)
    p_B, q_B = np.moveaxis(sums_BDG.sum(axis=-1), 1, 0) / total_B
    n_DB = np.stack([total_B, total_B])
    if not independent:
        n_DB = n_DB / np.stack([rate_design_effect(sums_BDG[:, d], units_BG, least) for d in range(2)])
    n_B = n_DB.min(axis=0)
    u_B, g_B = averaged_logit(p_B, n_B, width), averaged_logit(q_B, n_B, width)
    lu_B, uu_B = logit_limits(p_B, n_DB[0], width, critical_B)
    lg_B, ug_B = logit_limits(q_B, n_DB[1], width, critical_B)
    # The larger number of units shrinks the estimate less, so its limits need not hold it.
    lu_B, uu_B, lg_B, ug_B = np.minimum(lu_B, u_B), np.maximum(uu_B, u_B), np.minimum(lg_B, g_B), np.maximum(ug_B, g_B)
    spread_B = np.sqrt(p_B * (1 - p_B) * q_B * (1 - q_B))
    correction_B = np.divide(1, 2 * n_B * spread_B, where=spread_B > 0, out=np.ones_like(spread_B))
    correlation_B = rate_correlation(sums_BDG, units_BG)
    correlation_B = np.where(correlation_B > 0, np.maximum(correlation_B - correction_B, 0.0), correlation_B)
    low_B = u_B - g_B - _square_and_add(u_B - lu_B, ug_B - g_B, correlation_B)
    high_B = u_B - g_B + _square_and_add(uu_B - u_B, g_B - lg_B, correlation_B)
    return u_B - g_B, low_B, high_B


def averaged_logit(rate_B: np.ndarray, n_B: np.ndarray, width: float) -> np.ndarray:
    """theta with n (p - sigmoid(theta)) = theta / width^2: the posterior mode under a normal prior (eq. 8)."""

    def below(theta_B: np.ndarray) -> np.ndarray:
        return n_B * (rate_B - expit(theta_B)) > theta_B / width**2

    return _bisect(below, np.full_like(rate_B, -BOUND), np.full_like(rate_B, BOUND))


def logit_limits(
    rate_B: np.ndarray, n_B: np.ndarray, width: float, critical_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Limits of one direction's logit: Wilson's, or the posterior's where those do not reach as far (eq. 9).

    The posterior's are where its standardised score is plus and minus the critical value. They are finite when all or
    none is right; Wilson's do not move towards 0 with the prior, which would cost coverage.
    """

    def score(theta_B: np.ndarray) -> np.ndarray:
        right_B = expit(theta_B)
        information_B = n_B * right_B * (1 - right_B) + 1 / width**2
        return (n_B * (rate_B - right_B) - theta_B / width**2) / np.sqrt(information_B)

    edges = np.full_like(rate_B, -BOUND), np.full_like(rate_B, BOUND)
    low_B = _bisect(lambda theta_B: score(theta_B) > critical_B, *edges)
    high_B = _bisect(lambda theta_B: score(theta_B) > -critical_B, *edges)
    wilson_low_B, wilson_high_B = wilson(rate_B, n_B, critical_B)
    low_B = np.where(rate_B > 0, np.minimum(low_B, logit(np.maximum(wilson_low_B, TINY))), low_B)
    high_B = np.where(rate_B < 1, np.maximum(high_B, -logit(np.maximum(1 - wilson_high_B, TINY))), high_B)
    return low_B, high_B


def rate_correlation(sums_BDG: np.ndarray, units_BG: np.ndarray) -> np.ndarray:
    """Correlation of two rates from sums of scores by cluster; 0 when a rate does not vary.

    Args:
        sums_BDG: Sum of scores of each direction and cluster.
        units_BG: Units of each cluster.
    """
    rates_BD = sums_BDG.sum(axis=-1) / units_BG.sum(axis=-1)[..., None]
    residuals_BDG = sums_BDG - rates_BD[..., None] * units_BG[..., None, :]
    covariance_BDD = residuals_BDG @ np.swapaxes(residuals_BDG, -1, -2)
    spread_B = np.sqrt(covariance_BDD[..., 0, 0] * covariance_BDD[..., 1, 1])
    return np.divide(covariance_BDD[..., 0, 1], spread_B, where=spread_B > 1e-12, out=np.zeros_like(spread_B))


def _square_and_add(a_B: np.ndarray, b_B: np.ndarray, correlation_B: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(a_B**2 - 2 * correlation_B * a_B * b_B + b_B**2, 0.0))


def _bisect(below: Callable[[np.ndarray], np.ndarray], low_B: np.ndarray, high_B: np.ndarray) -> np.ndarray:
    for _ in range(55):
        middle_B = (low_B + high_B) / 2
        is_below_B = below(middle_B)
        low_B, high_B = np.where(is_below_B, middle_B, low_B), np.where(is_below_B, high_B, middle_B)
    return low_B
