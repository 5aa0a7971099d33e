"""The Rasch fit: an independent fit of the same posterior, recovery, symmetries, prior, item fit."""

import numpy as np
import pytest
from scipy import optimize
from scipy.special import expit, log_expit

from unigap.gap.irt import TOLERANCE, Rasch
from unigap.gap.outcomes import Outcomes

# M models, U units, D directions


def outcomes(right_MUD: np.ndarray) -> Outcomes:
    right = np.asarray(right_MUD, dtype=float)[..., None]
    num_models, num_units = right.shape[:2]
    return Outcomes(
        models=tuple(f"m{m}" for m in range(num_models)),
        units=tuple(f"u{u}" for u in range(num_units)),
        clusters=tuple(range(num_units)),
        right=right,
    )


def simulate(theta_MD: np.ndarray, b_U: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.random((len(theta_MD), len(b_U), 2)) < expit(theta_MD[:, None] - b_U[:, None])).astype(float)


def log_posterior(theta_MD: np.ndarray, right_MUD: np.ndarray, theta_width: float, b_width: float) -> float:
    """By brute force: each difficulty integrated over a fine grid, one unit at a time."""
    b = np.linspace(-12, 12, 4801)
    total = -0.5 * float((theta_MD**2).sum()) / theta_width**2
    for u in range(right_MUD.shape[1]):
        likelihood = np.exp(-0.5 * (b / b_width) ** 2)
        for m in range(right_MUD.shape[0]):
            for d in range(2):
                if not np.isnan(right_MUD[m, u, d]):
                    sign = 2 * right_MUD[m, u, d] - 1
                    likelihood = likelihood * np.exp(log_expit(sign * (theta_MD[m, d] - b)))
        total += float(np.log(likelihood.sum()))
    return total


TABLE = np.array(  # 3 models x 4 units x (understanding, generation); one answer is not scored
    [
        [[1, 1], [1, 0], [1, 0], [0, 0]],
        [[1, 1], [1, 1], [0, 0], [0, 1]],
        [[1, 1], [1, 1], [1, 1], [1, np.nan]],
    ]
)


def test_fit_is_the_mode_of_the_posterior_computed_by_brute_force() -> None:
    def minus(theta_P: np.ndarray) -> float:
        return -log_posterior(theta_P.reshape(3, 2), TABLE, 2.0, 1.5)

    found = optimize.minimize(minus, np.zeros(6), method="BFGS", options={"gtol": 1e-7})
    fit = Rasch(theta_width=2.0, b_width=1.5).fit(outcomes(TABLE))
    assert fit.theta_.ravel() == pytest.approx(found.x, abs=1e-4)
    assert fit.gradient_norm_ < TOLERANCE


def test_covariance_is_the_inverse_of_the_curvature_found_by_finite_differences() -> None:
    fit = Rasch(theta_width=2.0, b_width=1.5).fit(outcomes(TABLE))
    mode, step = fit.theta_.ravel(), 1e-3
    curvature = np.empty((6, 6))
    for i in range(6):
        for j in range(6):
            corners = [
                a
                * c
                * log_posterior((mode + step * (a * np.eye(6)[i] + c * np.eye(6)[j])).reshape(3, 2), TABLE, 2, 1.5)
                for a in (1, -1)
                for c in (1, -1)
            ]
            curvature[i, j] = -sum(corners) / (4 * step**2)
    assert fit.theta_covariance_ == pytest.approx(np.linalg.inv(curvature), abs=1e-3)


def test_a_hand_worked_3x4_table() -> None:
    # Right of 4, understanding / generation: 3 / 1, 2 / 3, 4 / 3 of 3 scored. The first model recognises more than it
    # draws, the second draws more, and the third is all right in both: finite, and its gap comes from one answer more.
    # Right answers by unit: 6 of 6, 5, 3, 2 of 5, so difficulty rises from left to right.
    # At the mode, expected right answers = right answers - theta / width^2, row by row.
    fit = Rasch(theta_width=2.0).fit(outcomes(TABLE))
    gap = fit.theta_[:, 0] - fit.theta_[:, 1]
    assert gap[0] > 1 and gap[1] < 0 and 0 < gap[2] < 1
    assert np.all(np.isfinite(fit.theta_)) and np.all(np.diff(fit.b_) > 0)
    right = np.array([[3, 1], [2, 3], [4, 3]])
    assert (right - fit.theta_ / 4)[0, 0] == pytest.approx(
        sum(mean_chance(fit, unit, fit.theta_[0, 0]) for unit in range(4)), abs=1e-6
    )
    assert fit.theta_[0, 0] == pytest.approx(fit.theta_[1, 1])  # equal rows of sums have equal abilities


def mean_chance(fit: Rasch, unit: int, theta: float) -> float:
    return float(fit._posterior_UQ[unit] @ expit(theta - fit._nodes_Q))


def test_abilities_are_recovered() -> None:
    # 10 models x 500 units: a theta has a standard error near .12. The largest of 20 errors is under 3.3 of them, and
    # the mean square of the standardised errors of 20 is within 1 +- 4 sqrt(2 / 20).
    rng = np.random.default_rng(0)
    theta_MD, b_U = rng.normal([0.8, 0], 1, (10, 2)), rng.normal(0, 1.5, 500)
    fit = Rasch().fit(outcomes(simulate(theta_MD, b_U, rng)))
    standardised = ((fit.theta_ - theta_MD) - (fit.theta_ - theta_MD).mean()) / fit.theta_se_
    assert np.abs(standardised).max() < 3.3 and (standardised**2).mean() < 2.3
    assert np.corrcoef(fit.b_, b_U)[0, 1] > 0.9


@pytest.mark.parametrize("num_models", [2, 6])
def test_about_95_percent_of_intervals_hold_the_true_gap(num_models: int) -> None:
    # 60 datasets of 150 units; 120 or 360 gaps of 1.2 and 0 logits, binomial sd of the share at most .02.
    rng = np.random.default_rng(num_models)
    held = []
    for _ in range(60):
        theta_MD = rng.normal(0, 0.7, (num_models, 1)) + np.array([[0.6, -0.6], [0, 0]])[np.arange(num_models) % 2]
        fit = Rasch().fit(outcomes(simulate(theta_MD, rng.normal(0, 1.5, 150), rng)))
        error_M = fit.gap_errors(np.arange(150))
        gap_M, truth_M = (theta[:, 0] - theta[:, 1] for theta in (fit.theta_, theta_MD))
        held += (np.abs(gap_M - truth_M) < 1.976 * error_M).tolist()  # t of 149 degrees
    assert 0.89 <= np.mean(held) <= 0.995


def test_swapping_directions_negates_gaps_and_order_of_units_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    right = simulate(rng.normal(0, 1, (3, 2)), rng.normal(0, 1, 80), rng)
    right[0, 3, 1] = np.nan
    order = rng.permutation(80)
    fit, swapped, shuffled = (Rasch().fit(outcomes(r)) for r in (right, right[..., ::-1], right[:, order]))
    assert swapped.theta_ == pytest.approx(fit.theta_[:, ::-1], abs=1e-9)
    assert shuffled.theta_ == pytest.approx(fit.theta_, abs=1e-9)
    assert shuffled.b_ == pytest.approx(fit.b_[order], abs=1e-9)
    owner = np.arange(80)
    pivots = fit.gap_pivots(owner, num_resamples=300, seed=0)
    assert shuffled.gap_pivots(owner, num_resamples=300, seed=0) == pytest.approx(pivots, abs=1e-6)


def test_an_unscored_answer_leaves_the_likelihood() -> None:
    # Not the same as wrong, and a unit that nobody was scored on changes nothing.
    right = TABLE.copy()
    wrong = np.nan_to_num(right)
    padded = np.concatenate([right, np.full((3, 1, 2), np.nan)], axis=1)
    theta = Rasch().fit(outcomes(right)).theta_
    assert Rasch().fit(outcomes(wrong)).theta_[2, 1] < theta[2, 1] - 0.5
    assert Rasch().fit(outcomes(padded)).theta_ == pytest.approx(theta, abs=1e-8)


def test_a_row_of_right_answers_is_finite_and_its_error_is_not_taken_from_its_residuals() -> None:
    rng = np.random.default_rng(3)
    right = simulate(np.zeros((3, 2)), rng.normal(0, 1, 100), rng)
    right[0, :, 0] = 1
    fit = Rasch().fit(outcomes(right))
    assert 3 < fit.theta_[0, 0] < 8
    assert fit.gap_errors(np.arange(100))[0] > 0.5  # residuals alone: under .2


def test_pivots_of_independent_units_are_about_standard_normal() -> None:
    rng = np.random.default_rng(4)
    fit = Rasch().fit(outcomes(simulate(rng.normal(0, 0.5, (4, 2)), rng.normal(0, 1, 200), rng)))
    pivots_MR = fit.gap_pivots(np.arange(200), num_resamples=1000, seed=0)
    assert pivots_MR.mean(axis=1) == pytest.approx(np.zeros(4), abs=0.2)
    assert pivots_MR.std(axis=1) == pytest.approx(np.ones(4), abs=0.15)


def test_item_fit_singles_out_units_that_do_not_follow_the_model() -> None:
    # 12 models without a gap. Unit 0 is read right by all and drawn right by none: about p = .5 in both directions, so
    # the residuals are near 12 * .5 / sqrt(12 * .25) = 3.5 and -3.5. Unit 1 is drawn right by the weakest model alone.
    rng = np.random.default_rng(5)
    ability_M = np.linspace(-2, 2, 12)
    right = simulate(np.repeat(ability_M[:, None], 2, axis=1), rng.normal(0, 1, 60), rng)
    right[:, 0] = [1, 0]
    right[:, 1] = 0
    right[0, 1, 1] = 1
    fit = Rasch().fit(outcomes(right)).item_fit_
    assert fit.residual[0, 0] > 2.5 and fit.residual[0, 1] < -2.5
    assert np.abs(fit.residual[2:]).max() < 2.5
    assert fit.infit[1, 1] > 1.2 and fit.outfit[1, 1] == fit.outfit.max() > 3
    assert 0.8 < np.median(fit.infit) < 1.1


def test_one_model_and_too_few_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two models"):
        Rasch().fit(outcomes(TABLE[:1]))
    with pytest.raises(RuntimeError, match="after 1 steps"):
        Rasch(max_iter=1).fit(outcomes(TABLE))
