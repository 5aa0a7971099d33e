"""The studentised cluster bootstrap: critical values for an estimate from dependent units.

Clusters are resampled whole, so that a unit keeps both its directions and everything it depends on. Each resample gives
a pivot t* = (d* - d) / se*, with its own cluster-robust standard error; a quantile of |t*| replaces that of the normal
distribution (docs/gap.md eq. 7). Studentising makes the interval second-order accurate where percentiles are not.

References:
    Hall (1988), On symmetric bootstrap confidence intervals. JRSS B 50; Hall (1992), The Bootstrap and Edgeworth
        Expansion, section 3.6.
    Cameron, Gelbach & Miller (2008), Bootstrap-based improvements for inference with clustered errors. Review of
        Economics and Statistics 90 (pairs cluster bootstrap-t).
"""

from functools import lru_cache

import numpy as np
from scipy import stats

# B datasets, R resamples, G clusters, C columns

NUM_RESAMPLES = 2000
"""The 95% quantile of |t*| then has a Monte Carlo error of about 0.04."""


@lru_cache(maxsize=8)
def resample_counts(num_clusters: int, num_resamples: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn in each resample; (resamples, clusters), read-only."""
    rng = np.random.default_rng(seed)
    counts_RG = rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=num_resamples)
    counts_RG = counts_RG.astype(float)
    counts_RG.flags.writeable = False
    return counts_RG


def resample_sums(columns_BCG: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
    """Sums of cluster totals over the clusters of each resample; (B, C, R)."""
    return columns_BCG @ resample_counts(columns_BCG.shape[-1], num_resamples, seed).T


def critical_values(pivots_BR: np.ndarray, num_clusters: int, level: float) -> np.ndarray:
    """What multiplies the standard error on both sides of an estimate: a quantile of |t*|, and at least Student's t.

    The symmetric form of Hall (1988). Resamples repeat clusters, so with few of them that carry any disagreement their
    quantile is too small; Student's t with G - 1 degrees is the least.

    Returns:
        One critical value for each dataset, (B,).
    """
    least = stats.t.ppf((1 + level) / 2, num_clusters - 1)
    return np.maximum(np.quantile(np.abs(pivots_BR), level, axis=-1), least)
