"""Intervals: published and hand-worked numbers, coverage by simulation, symmetry, degenerate inputs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from unigap.gap.intervals import MIN_CLUSTERS, difference_interval, difference_limits, rate_interval


def zeros_and_ones(ones: int, n: int) -> list[float]:
    return [1.0] * ones + [0.0] * (n - ones)


@pytest.mark.parametrize(
    ("ones", "n", "low", "high"),
    # Newcombe (1998), Two-sided confidence intervals for the single proportion, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_limits(ones: int, n: int, low: float, high: float) -> None:
    interval = rate_interval(zeros_and_ones(ones, n), range(n))
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert interval.method == "independent units" and interval.design_effect == 1.0


def null_spread(ahead: float, behind: float, delta: float) -> float:
    """Standard deviation of a difference whose mean is delta, from a search for the likeliest shares."""

    def minus_log_likelihood(q: float) -> float:
        rest = 1 - 2 * q - delta
        cells = ((ahead, q + delta), (behind, q), (1 - ahead - behind, rest))
        return -sum(share * math.log(max(value, 1e-300)) for share, value in cells if share)

    found = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(max(0, -delta), (1 - delta) / 2), method="bounded", options={"xatol": 1e-12}
    )
    return math.sqrt(2 * found.x + delta - delta**2)


@pytest.mark.parametrize(("ahead", "behind", "n"), [(12, 2, 50), (3, 3, 40), (0, 4, 25), (30, 0, 31)])
def test_paired_difference_inverts_tangos_score_test(ahead: int, behind: int, n: int) -> None:
    # At either limit |d - delta| = z s(delta) sqrt(n / (n - 1)) / sqrt(n), s by an independent search.
    first = [1] * ahead + [0] * (n - ahead)
    second = [0] * ahead + [1] * behind + [0] * (n - ahead - behind)
    interval = difference_interval(first, second, range(n))
    d = (ahead - behind) / n
    assert interval.rate == pytest.approx(d)
    for limit in (interval.low, interval.high):
        spread = null_spread(ahead / n, behind / n, limit)
        assert abs(d - limit) == pytest.approx(1.959964 * spread / math.sqrt(n - 1), abs=1e-5)


def test_without_disagreement_the_limits_have_a_closed_form() -> None:
    # b = c = 0: q = 0 for delta >= 0, so n delta^2 = z^2 (delta - delta^2), delta = z^2 / (n + z^2). All 25 agree,
    # and a variance of 0 says nothing of n / (n - 1): delta = 3.8415 / 28.8415 = .13319.
    interval = difference_interval([1.0] * 25, [1.0] * 25, range(25))
    assert (interval.low, interval.high) == pytest.approx((-0.13319, 0.13319), abs=1e-5)


def exact_coverage(n: int, p10: float, p01: float) -> float:
    """Chance that the interval of n independent pairs holds p10 - p01: all outcomes, each with its probability."""
    ahead, behind = (grid.ravel() for grid in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    ahead, behind = ahead[ahead + behind <= n], behind[ahead + behind <= n]
    ones = np.ones((len(ahead), n))
    # One unit a cluster; which units disagree does not matter.
    ahead_BG, behind_BG = np.arange(n) < ahead[:, None], np.arange(n) >= n - behind[:, None]
    limits = difference_limits(np.stack([ones, ahead_BG, behind_BG], axis=1), "independent units")
    chance = stats.multinomial.pmf(np.stack([ahead, behind, n - ahead - behind], axis=1), n, [p10, p01, 1 - p10 - p01])
    holds = (limits.low <= p10 - p01 + 1e-9) & (p10 - p01 - 1e-9 <= limits.high)
    return float(chance[holds].sum())


def test_exact_coverage_of_a_paired_difference_stays_near_95_percent() -> None:
    # Rates (.5, .2) and (.2, .1), independent or correlated within pairs by .5, and equal rates.
    for p, q, correlation in ((0.5, 0.2, 0.0), (0.5, 0.2, 0.5), (0.2, 0.1, 0.0), (0.3, 0.3, 0.5)):
        p11 = p * q + correlation * math.sqrt(p * (1 - p) * q * (1 - q))
        assert 0.93 <= exact_coverage(30, p - p11, q - p11) <= 0.985, (p, q, correlation)


def test_cluster_adjusted_rate_worked_by_hand() -> None:
    # 25 clusters of 2 units, 15 with both right, 5 with one, 5 with none: p = 35/50 = .7.
    # Residual sums: 15 of 2 - 1.4 = .6, 5 of 1 - 1.4 = -.4, 5 of -1.4; squares 15*.36 + 5*.16 + 5*1.96 = 16.
    # V = 25/24 * 16 / 2500 = .0066667; p q / n = .0042; deff = 1.5873; n_eff = 31.5; t(24) = 2.0639.
    scores = [1, 1] * 15 + [1, 0] * 5 + [0, 0] * 5
    interval = rate_interval(scores, [index // 2 for index in range(50)])
    assert interval.design_effect == pytest.approx(1.5873, abs=1e-4)
    t = 2.0639
    centre = (0.7 + t * t / 63) / (1 + t * t / 31.5)
    half = t * math.sqrt(0.21 / 31.5 + t * t / (4 * 31.5**2)) / (1 + t * t / 31.5)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half), abs=1e-4)
    assert interval.adjusted and "cluster-adjusted" in str(interval)


def test_identical_units_of_a_cluster_count_once() -> None:
    # Every cluster is four copies of one outcome: deff = 4 * 40/39, so n_eff = 39; t(39) / z = 1.032 widens it more.
    outcomes = zeros_and_ones(24, 40)
    copies = rate_interval(np.repeat(outcomes, 4).tolist(), np.repeat(range(40), 4).tolist())
    once = rate_interval(outcomes, range(40))
    assert copies.design_effect == pytest.approx(4 * 40 / 39)
    assert once.high - once.low < copies.high - copies.low
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.06)


def test_few_clusters_are_adjusted_even_when_units_are_independent() -> None:
    few = rate_interval(zeros_and_ones(5, MIN_CLUSTERS - 1), range(MIN_CLUSTERS - 1))
    enough = rate_interval(zeros_and_ones(5, MIN_CLUSTERS), range(MIN_CLUSTERS))
    assert few.adjusted and not enough.adjusted


def covered(truth: float, low: float, high: float) -> bool:
    return low <= truth <= high


def test_rate_interval_covers_95_percent() -> None:
    rng = np.random.default_rng(0)
    for n, p in ((30, 0.25), (100, 0.5), (100, 0.95)):
        intervals = [rate_interval((rng.random(n) < p).astype(float), range(n)) for _ in range(500)]
        assert 0.92 <= np.mean([covered(p, i.low, i.high) for i in intervals]) <= 0.99, (n, p)


def test_paired_interval_covers_95_percent_and_is_narrower_for_agreeing_directions() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for correlation in (0.0, 0.9):
        covariance = [[1, correlation], [correlation, 1]]
        intervals = []
        for _ in range(500):
            latent = rng.multivariate_normal([0, 0], covariance, 100)
            first, second = latent[:, 0] < stats.norm.ppf(0.7), latent[:, 1] < stats.norm.ppf(0.5)
            intervals.append(difference_interval(first.astype(float), second.astype(float), range(100)))
        assert 0.92 <= np.mean([covered(0.2, i.low, i.high) for i in intervals]) <= 0.99
        widths.append(np.mean([i.high - i.low for i in intervals]))
    assert widths[1] < 0.75 * widths[0]


def test_clustered_intervals_cover_where_plain_wilson_does_not() -> None:
    rng = np.random.default_rng(2)
    adjusted, plain, difference = [], [], []
    for _ in range(400):
        cluster_rates = rng.beta(0.5, 0.5, 40)  # intra-cluster correlation 1 / (1 + .5 + .5) = .5
        owner = np.repeat(np.arange(40), 6)
        first = (rng.random(240) < cluster_rates[owner]).astype(float)
        second = (rng.random(240) < cluster_rates[owner]).astype(float)
        interval, naive = rate_interval(first, owner.tolist()), rate_interval(first, range(240))
        paired = difference_interval(first, second, owner.tolist())
        adjusted.append(covered(0.5, interval.low, interval.high))
        plain.append(covered(0.5, naive.low, naive.high))
        difference.append(covered(0.0, paired.low, paired.high))
    assert 0.91 <= np.mean(adjusted) <= 0.99
    assert np.mean(plain) < 0.85
    assert np.mean(difference) >= 0.92


unit_scores = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 30)),
    min_size=1,
    max_size=60,
)


@given(unit_scores)
def test_interval_holds_the_estimate_has_width_and_swapping_negates(rows: list[tuple[float, float, int]]) -> None:
    first, second, clusters = zip(*rows, strict=True)
    rate = rate_interval(first, clusters)
    assert 0 <= rate.low <= rate.rate + 1e-12 and rate.rate - 1e-12 <= rate.high <= 1
    assert rate.high - rate.low > 1e-3
    difference = difference_interval(first, second, clusters)
    assert -1 <= difference.low <= difference.rate + 1e-12 and difference.rate - 1e-12 <= difference.high <= 1
    assert difference.high - difference.low > 1e-3
    swapped = difference_interval(second, first, clusters)
    assert (swapped.rate, swapped.low, swapped.high) == pytest.approx(
        (-difference.rate, -difference.high, -difference.low), abs=1e-9
    )


@given(unit_scores)
def test_turning_right_into_wrong_mirrors_a_rate(rows: list[tuple[float, float, int]]) -> None:
    scores, _, clusters = zip(*rows, strict=True)
    interval, mirrored = rate_interval(scores, clusters), rate_interval([1 - score for score in scores], clusters)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - interval.high, 1 - interval.low), abs=1e-9)


@pytest.mark.parametrize("n", [1, 5, 100])
def test_none_and_all_right(n: int) -> None:
    none, every = rate_interval([0.0] * n, range(n)), rate_interval([1.0] * n, range(n))
    assert none.low == 0.0 and 0 < none.high <= 1
    assert every.high == 1.0 and 0 <= every.low < 1
    widest = difference_interval([1.0] * n, [0.0] * n, range(n))
    assert widest.rate == widest.high == 1.0 and widest.low < 1
    equal = difference_interval([1.0] * n, [1.0] * n, range(n))
    assert equal.low == -equal.high < 0


def test_all_right_in_few_clusters_counts_clusters_not_units() -> None:
    # 3 characters, 30 items each, all right: n_eff = 3 and t(2) = 4.3027, so low = 3 / (3 + 18.513) = .1394.
    interval = rate_interval([1.0] * 90, [index // 30 for index in range(90)])
    assert interval.low == pytest.approx(3 / (3 + 4.3027**2), abs=1e-4)


def test_one_cluster_says_nothing_about_others() -> None:
    interval = rate_interval([1.0, 0.0, 1.0], ["a"] * 3)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_order_of_units_and_names_of_clusters_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    first, second = (rng.random((2, 90)) < 0.6).astype(float)
    clusters = rng.integers(0, 30, 90)
    order = rng.permutation(90)
    interval = difference_interval(first, second, clusters.tolist())
    assert interval.method == "cluster bootstrap"
    again = difference_interval(first[order], second[order], [f"c{index}" for index in clusters[order]])
    assert (again.low, again.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_few_clusters_carry_a_mark_and_students_t() -> None:
    # 10 units, 4 ahead, 1 behind: deff = 10/9, and t(9) = 2.2622 in place of 1.96.
    first, second = [1] * 4 + [0] * 6, [0] * 4 + [1] + [0] * 5
    interval = difference_interval(first, second, range(10))
    assert interval.method == "few clusters" and "few clusters: 10" in str(interval)
    assert interval.critical == pytest.approx(2.2622, abs=1e-4)
    assert interval.design_effect == pytest.approx(10 / 9)


def test_scores_that_average_samples_may_be_narrower_only_when_told() -> None:
    # Unit scores 1/2 against 1/2 or 1/4: the differences 0 and 1/4 vary far less than 0 and 1 would.
    first, second = [0.5] * 60, [0.5, 0.25] * 30
    alone = difference_interval(first, second, range(60))
    told = difference_interval(first, second, range(60), num_samples=4)
    assert told.high - told.low < 0.6 * (alone.high - alone.low)


def test_no_units_is_not_a_number() -> None:
    assert math.isnan(rate_interval([], []).rate)
    assert math.isnan(difference_interval([], [], []).rate)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="2 scores for 1 clusters"):
        rate_interval([1.0, 0.0], ["a"])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        rate_interval([1.5], ["a"])
