"""The difficulty-averaged logit: its equations, its limits at the edges, coverage by simulation."""

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import expit, logit
from tests.gap.simulation import Case, cases, coverage

from unigap.gap.logit import averaged_logit, logit_gap, logit_limits, rate_correlation

Z = np.array([stats.norm.ppf(0.975)])


def one(value: float) -> np.ndarray:
    return np.array([value])


@pytest.mark.parametrize(("rate", "n", "width"), [(0.7, 50, 2.5), (1.0, 30, 2.5), (0.0, 5, 1.0), (0.02, 300, 5.0)])
def test_the_logit_is_the_mode_of_the_posterior(rate: float, n: int, width: float) -> None:
    def minus_log_posterior(theta: float) -> float:
        return -n * (rate * np.log(expit(theta)) + (1 - rate) * np.log(expit(-theta))) + theta**2 / (2 * width**2)

    mode = optimize.minimize_scalar(minus_log_posterior, bounds=(-20, 20), method="bounded", options={"xatol": 1e-10}).x
    assert averaged_logit(one(rate), one(float(n)), width)[0] == pytest.approx(mode, abs=1e-5)


def test_limits_are_wilsons_and_a_prior_moves_only_the_one_near_zero() -> None:
    # 15 of 20 right: Wilson (.5313, .8881), logits .1253 and 2.0715.
    wilson = pytest.approx((logit(0.5313), logit(0.8881)), abs=2e-3)
    low, high = logit_limits(one(0.75), one(20.0), 100.0, Z)
    assert (low[0], high[0]) == wilson
    low, high = logit_limits(one(0.75), one(20.0), 1.5, Z)
    assert low[0] < logit(0.5313) - 0.02 and high[0] == pytest.approx(logit(0.8881), abs=2e-3)


def test_all_right_is_finite_and_a_wider_prior_lets_it_go_further() -> None:
    narrow, wide = (averaged_logit(one(1.0), one(30.0), width)[0] for width in (1.25, 5.0))
    assert 0 < narrow < wide < 8
    # Wilson's lower limit is n / (n + z^2), logit 2.055. Far out the likelihood is flat and the standardised score is
    # -theta / width: with one unit the upper limit is near z * width = 4.9.
    assert logit_limits(one(1.0), one(30.0), 100.0, Z)[0][0] == pytest.approx(2.0553, abs=1e-3)
    assert logit_limits(one(1.0), one(1.0), 2.5, Z)[1][0] == pytest.approx(4.9, abs=0.2)


def test_correlation_of_two_rates() -> None:
    # 4 units, x = 1100, y = 1010: residuals are +-1/2, and their products cancel; with y = x they do not.
    x, y = np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0])
    units = np.ones((1, 4))
    assert rate_correlation(np.stack([x, y])[None], units)[0] == pytest.approx(0)
    assert rate_correlation(np.stack([x, x])[None], units)[0] == pytest.approx(1)
    assert rate_correlation(np.stack([x, 1 - x])[None], units)[0] == pytest.approx(-1)
    assert rate_correlation(np.stack([x, np.ones(4)])[None], units)[0] == 0


def test_swapping_negates_and_the_gap_has_the_sign_of_the_difference_of_rates() -> None:
    rng = np.random.default_rng(0)
    sums_BDG = rng.integers(0, 4, (200, 2, 25)).astype(float)
    units_BG, critical_B = np.full((200, 25), 3.0), np.full(200, 2.1)
    gap, low, high = logit_gap(sums_BDG, units_BG, critical_B, independent=False, width=2.5)
    again, least, most = logit_gap(sums_BDG[:, ::-1], units_BG, critical_B, independent=False, width=2.5)
    assert np.allclose(again, -gap) and np.allclose(least, -high) and np.allclose(most, -low)
    difference = sums_BDG[:, 0].sum(axis=1) - sums_BDG[:, 1].sum(axis=1)
    assert np.all(np.sign(gap.round(9)) == np.sign(difference))
    assert np.all((low < gap) & (gap < high))


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in cases(["independent", "dependent", "few"], [30, 100])
        if (case.first, case.second) in ((0.02, 0.02), (0.5, 0.3), (0.9, 0.1))
    ],
    ids=str,
)
def test_intervals_hold_the_truth_in_about_95_percent_of_simulated_datasets(case: Case) -> None:
    # 500 datasets: the share has a standard error of .01, so .91 is four below .95. The full table is in docs/gap.md.
    shares = coverage(case, 500, seed=1)
    assert shares["difference"] >= 0.91 and shares["logit"] >= 0.91 and shares["rate"] >= 0.88
    if case.first >= 0.1 and case.num_clusters >= 30:
        assert shares["difference"] <= 0.99
