"""Resampling of clusters and critical values."""

import numpy as np
import pytest
from scipy import stats

from unigap.gap.bootstrap import critical_values, resample_counts, resample_sums
from unigap.gap.intervals import difference_interval


def test_resamples_draw_as_many_clusters_as_there_are_each_equally_often() -> None:
    counts_RG = resample_counts(25, 4000, 0)
    assert np.all(counts_RG.sum(axis=1) == 25)
    # A cluster's count is binomial(25, 1/25): mean 1, variance .96; over 4,000 resamples the mean errs by .0155.
    assert counts_RG.mean(axis=0) == pytest.approx(np.ones(25), abs=0.07)
    assert counts_RG.var() == pytest.approx(0.96, abs=0.03)
    assert np.array_equal(counts_RG, resample_counts(25, 4000, 0))
    assert not np.array_equal(counts_RG, resample_counts(25, 4000, 1))


def test_sums_follow_the_counts() -> None:
    columns_BCG = np.arange(12.0).reshape(1, 2, 6)
    sums_BCR = resample_sums(columns_BCG, num_resamples=7, seed=3)
    assert np.allclose(sums_BCR[0, 1], resample_counts(6, 7, 3) @ np.arange(6.0, 12.0))


def test_critical_value_is_the_quantile_of_absolute_pivots_and_at_least_students_t() -> None:
    pivots_BR = np.stack([np.linspace(-4, 4, 2001), np.linspace(-1, 1, 2001)])
    # |t*| is uniform on [0, 4] and [0, 1]: quantiles 3.8 and .95; t of 29 degrees is 2.0452.
    assert critical_values(pivots_BR, 30, 0.95) == pytest.approx([3.8, 2.0452], abs=0.01)


def test_one_huge_cluster_makes_the_bootstrap_interval_wider_than_students_t() -> None:
    # 29 clusters of 2 units that disagree either way, and one of 60 where understanding alone is right: a resample may
    # hold it three times or not at all, and then it says little of how far the estimate can be off.
    owner = [*np.repeat(range(29), 2).tolist(), *[29] * 60]
    first, second = [1.0, 0.0] * 29 + [1.0] * 60, [0.0, 1.0] * 29 + [0.0] * 60
    interval = difference_interval(first, second, owner)
    assert interval.method == "cluster bootstrap"
    assert interval.critical > 2 * stats.t.ppf(0.975, 29)
