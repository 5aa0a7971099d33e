"""The fit behind the published Gap Score: objective, gradient and AdamW, for many runs side by side.

The objective has no minimum (it falls for ever as the covariance collapses), so the order of operations and the number
of steps are part of the score; docs/published_score.md has the equations P1 to P7.

Shapes: C categories, R runs, D directions (understanding, generation), P = 2 C + 7 parameters, T = 2 C abilities.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from unigap.errors import UnigapError

LOG_EPS, START_CLAMP, MIN_DIAGONAL = 1e-8, 1e-5, 1e-4
WEIGHT_DECAY, BETA1, BETA2, ADAM_EPS = 1e-4, 0.9, 0.999, 1e-8
START_FACTOR = (float(np.float32(0.1)), float(np.float32(0.05)), float(np.float32(0.1)))
"""Start of the covariance factor: raw diagonal of understanding, off-diagonal, raw diagonal of generation.

Rounded to float32 like the script's, also in float64: a last digit of the start can be seen in the score.
"""


@dataclass(frozen=True, kw_only=True)
class PublishedSettings:
    """What the score depends on besides the rates; the defaults are those of the published script."""

    steps: int = 2000
    """Steps of AdamW. The fit does not converge, so another number is another score."""
    lr: float = 0.05
    """Learning rate of AdamW."""
    total_count: float = 1000.0
    """Pseudo-counts a category and direction, whatever the number of items."""
    lambda_fail: float = 2.7
    """How much failing together (p00) raises the score."""
    lambda_success: float = 1.05
    """How much succeeding together (p11) lowers it."""
    prior: float = 1e-3
    """Weight of |beta|^2 + |mu|^2 in the objective."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"the fit needs at least 1 step, got {self.steps}")
        for name in ("lr", "total_count"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")


def adjusted_gaps(delta: np.ndarray, rates: np.ndarray, settings: PublishedSettings) -> np.ndarray:
    """P6 and P7: sigmoid(logit(|delta| / (1 + |delta|)) + lambda_fail p00 - lambda_success p11).

    Away from the clamp this is K / (1 + K) with K = |delta| exp(lambda_fail p00 - lambda_success p11).
    """
    size = np.abs(delta).astype(np.float64)
    gap = np.clip(size / (1 + size), 1e-6, 1 - 1e-6)
    return expit(_logit(gap) + settings.lambda_fail * rates[..., 3] - settings.lambda_success * rates[..., 0])


def fit_deltas(
    rates_RC4: np.ndarray, scale_RCD: np.ndarray, settings: PublishedSettings, dtype: type = np.float64
) -> np.ndarray:
    """theta_understanding - theta_generation of each run and category, after the step with the lowest loss (P1 to P5).

    AdamW with decoupled weight decay on every parameter. All parameters of all runs lie in one array, a run a column,
    so that a step costs a fixed number of array operations.

    Args:
        rates_RC4: Joint rates of each run.
        scale_RCD: Factor on each start of theta; 1 is the published procedure.
        settings: Steps, learning rate, pseudo-count and prior.
        dtype: float64, or float32 for what the script does.
    Raises:
        UnigapError: A run never had a finite loss.
    """
    if len(rates_RC4) == 1:  # NumPy adds up a lone column in another order, which the score would show
        return fit_deltas(np.repeat(rates_RC4, 2, axis=0), np.repeat(scale_RCD, 2, axis=0), settings, dtype)[:1]
    # Added up in float64 and then rounded, as the script does.
    right_DCR = np.moveaxis(success_rates(rates_RC4), 1, 2).astype(dtype, order="C") * settings.total_count
    wrong_DCR = np.moveaxis(_failure_rates(rates_RC4), 1, 2).astype(dtype, order="C") * settings.total_count
    x_PR = _start(right_DCR, wrong_DCR, scale_RCD.T.astype(dtype))
    num_thetas = 2 * right_DCR.shape[1]
    first_PR, second_PR = np.zeros_like(x_PR), np.zeros_like(x_PR)
    lowest_R = np.full(x_PR.shape[1], np.inf, dtype)
    kept_TR = x_PR[:num_thetas].copy()
    with np.errstate(all="ignore"):  # a loss that is not finite is never the lowest; runs without any are reported
        for step in range(1, settings.steps + 1):
            loss_R, gradient_PR = loss_and_gradient(x_PR, right_DCR, wrong_DCR, settings.prior)
            x_PR *= 1 - settings.lr * WEIGHT_DECAY
            first_PR += (1 - BETA1) * (gradient_PR - first_PR)
            second_PR *= BETA2
            second_PR += (1 - BETA2) * gradient_PR * gradient_PR
            scale_PR = np.sqrt(second_PR) / (1 - BETA2**step) ** 0.5 + ADAM_EPS
            x_PR -= settings.lr / (1 - BETA1**step) * (first_PR / scale_PR)
            lower_R = loss_R < lowest_R
            np.copyto(lowest_R, loss_R, where=lower_R)
            np.copyto(kept_TR, x_PR[:num_thetas], where=lower_R)
    if lost := int(np.isinf(lowest_R).sum()):
        raise UnigapError(f"{lost} of {len(lowest_R)} fits never had a finite loss; give a smaller learning rate")
    understanding_CR, generation_CR = np.split(kept_TR, 2)
    return (understanding_CR - generation_CR).T


def _start(right_DCR: np.ndarray, wrong_DCR: np.ndarray, scale_DCR: np.ndarray) -> np.ndarray:
    """P1: theta at the clamped logits of the observed rates, mu at their mean, beta at 0."""
    theta_DCR = clamped_logit(right_DCR / (right_DCR + wrong_DCR + LOG_EPS)) * scale_DCR
    num_categories, num_runs = theta_DCR.shape[1:]
    x_PR = np.zeros((2 * num_categories + 7, num_runs), theta_DCR.dtype)
    theta, mu, _, factor = _split(x_PR, num_categories)
    theta[:], mu[:], factor[:] = theta_DCR, theta_DCR.mean(axis=1), np.array(START_FACTOR)[:, None]
    return x_PR


def _split(x_PR: np.ndarray, num_categories: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Views of theta_DCR, mu_DR, beta_DR and the three raw entries of the covariance factor."""
    end = 2 * num_categories  # slices, not np.split, which would cost a fifth of a step
    return x_PR[:end].reshape(2, num_categories, -1), x_PR[end : end + 2], x_PR[end + 2 : end + 4], x_PR[end + 4 :]


def loss_and_gradient(
    x_PR: np.ndarray, right_DCR: np.ndarray, wrong_DCR: np.ndarray, prior: float
) -> tuple[np.ndarray, np.ndarray]:
    """The objective P2 to P4 of every run and its gradient with respect to each parameter.

    With L = [[a, 0], [c, b]], z = L^-1 (theta - mu) and w = Sigma^-1 (theta - mu) = L^-T z, the quadratic term has the
    gradients w in theta, -sum w in mu and -sum w z^T (its lower triangle) in L.

    Args:
        x_PR: Parameters: theta of understanding, theta of generation, mu, beta, raw factor.
        right_DCR: Pseudo-counts of right answers.
        wrong_DCR: Pseudo-counts of wrong answers.
        prior: Weight of |beta|^2 + |mu|^2.
    Returns:
        Loss (R) and gradient (P, R).
    """
    num_categories = right_DCR.shape[1]
    theta_DCR, mu_DR, beta_DR, (raw_a, c, raw_b) = _split(x_PR, num_categories)
    gradient_PR = np.empty_like(x_PR)
    to_theta_DCR, to_mu_DR, to_beta_DR, to_factor = _split(gradient_PR, num_categories)

    p = expit(theta_DCR - beta_DR[:, None])
    q = 1 - p
    p_eps, q_eps = p + LOG_EPS, q + LOG_EPS
    loss_R = -(right_DCR * np.log(p_eps) + wrong_DCR * np.log(q_eps)).sum(axis=(0, 1))
    slope_DCR = (wrong_DCR / q_eps - right_DCR / p_eps) * q * p

    a, b = np.logaddexp(0, raw_a) + MIN_DIAGONAL, np.logaddexp(0, raw_b) + MIN_DIAGONAL
    understanding_CR, generation_CR = theta_DCR - mu_DR[:, None]
    z_u = understanding_CR / a
    z_g = (generation_CR - c * z_u) / b
    w_g = z_g / b
    w_u = (z_u - c * w_g) / a
    loss_R += 0.5 * (z_u * z_u + z_g * z_g).sum(axis=0) + num_categories * (np.log(a) + np.log(b))
    loss_R += prior * ((beta_DR * beta_DR).sum(axis=0) + (mu_DR * mu_DR).sum(axis=0))

    to_theta_DCR[0], to_theta_DCR[1] = slope_DCR[0] + w_u, slope_DCR[1] + w_g
    to_mu_DR[0], to_mu_DR[1] = -w_u.sum(axis=0), -w_g.sum(axis=0)
    to_mu_DR += 2 * prior * mu_DR
    to_beta_DR[:] = 2 * prior * beta_DR - slope_DCR.sum(axis=1)
    to_factor[0] = (num_categories / a - (w_u * z_u).sum(axis=0)) * expit(raw_a)
    to_factor[1] = -(w_g * z_u).sum(axis=0)
    to_factor[2] = (num_categories / b - (w_g * z_g).sum(axis=0)) * expit(raw_b)
    return loss_R, gradient_PR


def success_rates(rates: np.ndarray) -> np.ndarray:
    """Rates of understanding and of generation (in front of the other axes) from joint rates (the last axis)."""
    return np.stack([rates[..., 0] + rates[..., 1], rates[..., 0] + rates[..., 2]])


def on_the_clamp(rates_C4: np.ndarray) -> np.ndarray:
    """Which rates (directions, categories) are so near 0 or 1 that the clamp, not the data, is their start."""
    rates_DC = success_rates(rates_C4)
    return (rates_DC <= START_CLAMP) | (rates_DC >= 1 - START_CLAMP)


def _failure_rates(rates: np.ndarray) -> np.ndarray:
    return np.stack([rates[..., 2] + rates[..., 3], rates[..., 1] + rates[..., 3]])


def clamped_logit(rates: np.ndarray) -> np.ndarray:
    """Where P1 starts theta."""
    return _logit(np.clip(rates, START_CLAMP, 1 - START_CLAMP))


def _logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))
