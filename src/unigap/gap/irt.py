"""The Rasch model of several models in two directions, with difficulties shared by the directions.

    P(model m is right at item i in direction d) = sigmoid(theta_md - b_i)                          (docs/gap.md eq. 11)

b_i has no direction: that drawing is harder than reading is part of the gap, by definition. Priors: theta ~ N(0,
theta_width^2), b ~ N(0, b_width^2); they also fix where 0 is.

Each b_i is integrated out and theta is the mode of what remains (eq. 12). Estimating all b_i beside theta by a joint
mode looks simpler, but adds a parameter with every item and stays biased however many items there are (Neyman & Scott
1948). The integral of a log-concave function over b is log-concave (Prekopa 1973), and the prior makes it strictly so:
there is one mode, and Newton's method with step halving finds it from anywhere.

References:
    Rasch (1960), Probabilistic Models for Some Intelligence and Attainment Tests.
    Bock & Aitkin (1981), Marginal maximum likelihood estimation of item parameters. Psychometrika 46.
    Wright & Masters (1982), Rating Scale Analysis, chapter 5 (infit and outfit).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import expit, log_expit, softmax

from unigap.gap.bootstrap import resample_counts
from unigap.gap.outcomes import Outcomes

# M models, D directions, P = M D respondents (a model in a direction), U units, Q nodes of b, G clusters, R resamples

NUM_NODES = 161
"""Equally spaced over plus and minus 6 widths, where the trapezoid rule converges faster than any power of the spacing.
Gauss-Hermite nodes are too far apart for the narrow posteriors that many models give."""

TOLERANCE = 1e-8
"""Largest slope of the log posterior, right answers per logit, at which an estimate counts as converged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemFit:
    """How well each unit follows the model in each direction; (units, 2); NaN if unscored.

    With several samples, averages vary less than single answers, and mean squares are smaller.
    """

    residual: np.ndarray
    """Right minus expected right, over its standard deviation; about standard normal. Far above 0 in understanding and
    below 0 in generation: reads easily and draws badly, beyond the common gap."""
    infit: np.ndarray
    """Mean square residual, weighted by information; about 1. Above about 1.3: weak models right, strong ones wrong."""
    outfit: np.ndarray
    """The same unweighted: sensitive to single surprises."""


class Rasch:
    """Abilities of models in two directions and difficulties of items (docs/gap.md eq. 11 to 14).

    Estimates, after `fit`: `theta_` and `theta_se_` (models, 2), `theta_covariance_` (inverse observed information,
    respondents in the order of `theta_.ravel()`), `b_` and `b_sd_` (posterior mean and deviation of each unit),
    `item_fit_`, `gradient_norm_`, `num_iter_`.
    """

    def __init__(self, *, theta_width: float = 2.5, b_width: float = 1.5, max_iter: int = 100) -> None:
        self.theta_width = theta_width
        """Standard deviation of the prior of abilities, logits."""
        self.b_width = b_width
        """Standard deviation of the prior of difficulties, logits."""
        self.max_iter = max_iter

    def fit(self, outcomes: Outcomes) -> Self:
        """Estimate from at least two models. Unscored cells leave the likelihood; a cell counts once however many
        samples it averages, because samples of an item do not tell of other items.

        Raises:
            ValueError: Fewer than two models; with one, difficulty and ability cannot be told apart.
            RuntimeError: Not converged in `max_iter` steps.
        """
        if len(outcomes.models) < 2:
            raise ValueError("a Rasch model needs at least two models; with one, average over difficulty (gap.logit)")
        rate_MUD = outcomes.rates
        # Respondents as columns: model by model, understanding before generation.
        rate_UP = rate_MUD.transpose(1, 0, 2).reshape(len(outcomes.units), -1)
        self._scored_UP = (~np.isnan(rate_UP)).astype(float)
        self._right_UP = np.nan_to_num(rate_UP)
        self._nodes_Q = np.linspace(-6, 6, NUM_NODES) * self.b_width
        self._log_prior_Q = -0.5 * (self._nodes_Q / self.b_width) ** 2
        theta_P = self._climb()
        self._posterior_UQ = self._difficulties(theta_P)[1]
        self._theta_P = theta_P
        self.theta_ = theta_P.reshape(-1, 2)
        self.theta_covariance_ = np.linalg.inv(self._information(theta_P, self._posterior_UQ))
        self.theta_se_ = np.sqrt(np.diag(self.theta_covariance_)).reshape(-1, 2)
        self.b_ = self._posterior_UQ @ self._nodes_Q
        self.b_sd_ = np.sqrt(np.maximum(self._posterior_UQ @ self._nodes_Q**2 - self.b_**2, 0.0))
        self.item_fit_ = self._item_fit()
        return self

    # ---- the mode ----------------------------------------------------------------------------------------------------

    def _climb(self) -> np.ndarray:
        theta_P = np.zeros(self._scored_UP.shape[1])
        value, posterior_UQ = self._difficulties(theta_P)
        for step in range(self.max_iter):
            gradient_P = self._gradient(theta_P, posterior_UQ)
            self.gradient_norm_, self.num_iter_ = float(np.abs(gradient_P).max()), step
            if self.gradient_norm_ < TOLERANCE:
                return theta_P
            move_P = np.linalg.solve(self._information(theta_P, posterior_UQ), gradient_P)
            reached, posterior_UQ = self._difficulties(theta_P + move_P)
            # Near the mode the posterior is flat to rounding, and a full step is right.
            while reached < value - 1e-9 * abs(value):
                move_P = move_P / 2
                reached, posterior_UQ = self._difficulties(theta_P + move_P)
            theta_P, value = theta_P + move_P, reached
        raise RuntimeError(f"Rasch: slope {self.gradient_norm_:.1e} after {self.max_iter} steps, not below {TOLERANCE}")

    def _difficulties(self, theta_P: np.ndarray) -> tuple[float, np.ndarray]:
        """Log posterior of theta (up to a constant), and the posterior of each difficulty over the nodes."""
        eta_PQ = theta_P[:, None] - self._nodes_Q
        log_UQ = self._right_UP @ log_expit(eta_PQ) + (self._scored_UP - self._right_UP) @ log_expit(-eta_PQ)
        log_UQ += self._log_prior_Q
        most_U = log_UQ.max(axis=1)
        log_evidence_U = most_U + np.log(np.exp(log_UQ - most_U[:, None]).sum(axis=1))
        value = log_evidence_U.sum() - 0.5 * (theta_P**2).sum() / self.theta_width**2
        return float(value), softmax(log_UQ, axis=1)

    def _gradient(self, theta_P: np.ndarray, posterior_UQ: np.ndarray) -> np.ndarray:
        return self._residuals(theta_P, posterior_UQ).sum(axis=0) - theta_P / self.theta_width**2

    def _residuals(self, theta_P: np.ndarray, posterior_UQ: np.ndarray) -> np.ndarray:
        """Right minus expected right; the score of each unit and respondent. (U, P), 0 where unscored."""
        return self._right_UP - self._scored_UP * (posterior_UQ @ self._chance(theta_P))

    def _chance(self, theta_P: np.ndarray) -> np.ndarray:
        return expit(theta_P - self._nodes_Q[:, None])

    def _information(self, theta_P: np.ndarray, posterior_UQ: np.ndarray) -> np.ndarray:
        """Minus the second derivative of the log posterior: complete minus missing information (Louis 1982)."""
        chance_QP = self._chance(theta_P)
        weight_QP = posterior_UQ.T @ self._scored_UP
        complete_P = (weight_QP * chance_QP * (1 - chance_QP)).sum(axis=0) + 1 / self.theta_width**2
        missing_PP = np.empty((len(theta_P), len(theta_P)))
        for p in range(len(theta_P)):
            both_UP = self._scored_UP * self._scored_UP[:, p, None]
            missing_PP[p] = ((both_UP.T @ posterior_UQ) * chance_QP.T).dot(chance_QP[:, p])
        expected_UP = self._scored_UP * (posterior_UQ @ chance_QP)
        missing_PP -= expected_UP.T @ expected_UP
        return np.diag(complete_P) - missing_PP

    # ---- fit and resampling ------------------------------------------------------------------------------------------

    def _item_fit(self) -> ItemFit:
        chance_UP = expit(self._theta_P - self.b_[:, None])
        variance_UP = self._scored_UP * chance_UP * (1 - chance_UP)
        residual_UP = self._scored_UP * (self._right_UP - chance_UP)
        standard_UP = np.divide(residual_UP**2, variance_UP, where=variance_UP > 0, out=np.zeros_like(residual_UP))

        def by_direction(values_UP: np.ndarray) -> np.ndarray:
            return values_UP.reshape(len(values_UP), -1, 2).sum(axis=1)

        num_UD, variance_UD = by_direction(self._scored_UP), by_direction(variance_UP)

        def share(total_UD: np.ndarray, of_UD: np.ndarray) -> np.ndarray:
            return np.divide(total_UD, of_UD, where=num_UD > 0, out=np.full(num_UD.shape, np.nan))

        return ItemFit(
            residual=share(by_direction(residual_UP), np.sqrt(variance_UD)),
            infit=share(by_direction(residual_UP**2), variance_UD),
            outfit=share(by_direction(standard_UP), num_UD),
        )

    def gap_errors(self, owner_U: np.ndarray) -> np.ndarray:
        """Standard error of each model's gap (docs/gap.md eq. 13), logits: the larger of a cluster-robust sandwich and
        of the posterior's curvature. A row of right answers leaves almost no residual, but is not known that well.

        Args:
            owner_U: Index of the cluster of each unit.
        """
        residuals_UP = self._residuals(self._theta_P, self._posterior_UQ)
        sums_GP = _by_cluster(residuals_UP, owner_U) @ self.theta_covariance_
        gaps_GM = sums_GP[:, ::2] - sums_GP[:, 1::2]
        num = len(gaps_GM)
        contrast_MP = np.kron(np.eye(len(self.theta_)), [1, -1])
        curvature_M = np.einsum("mp,pq,mq->m", contrast_MP, self.theta_covariance_, contrast_MP)
        return np.sqrt(np.maximum(num / (num - 1) * (gaps_GM**2).sum(axis=0), curvature_M))

    def gap_pivots(self, owner_U: np.ndarray, *, num_resamples: int, seed: int) -> np.ndarray:
        """(gap* - gap) / se* of each model and resample of clusters; (models, R) (docs/gap.md eq. 14).

        Abilities are estimated again, given the posteriors of the difficulties; at the data themselves this gives the
        estimates back. Both standard errors of `gap_errors` are taken in the same way.

        Args:
            owner_U: Index of the cluster of each unit.
            num_resamples: R.
            seed: Of the resamples.
        """
        counts_RG = resample_counts(int(owner_U.max()) + 1, num_resamples, seed)
        chance_QP = self._chance(self._theta_P)
        residuals_UP = self._residuals(self._theta_P, self._posterior_UQ)
        # Clusters in an order that the data decide, so that the same resamples meet the same clusters.
        order_G = np.lexsort(_by_cluster(residuals_UP, owner_U).round(9).T)
        owner_U = np.argsort(order_G)[owner_U]
        residuals_GP = _by_cluster(residuals_UP, owner_U)
        slopes_UP = self._scored_UP * (self._posterior_UQ @ (chance_QP * (1 - chance_QP)))
        slopes_GP = _by_cluster(slopes_UP, owner_U)
        right_RP = counts_RG @ _by_cluster(self._right_UP, owner_U)
        pivots = []
        weights_RQ, scored_before = np.empty(0), None
        shift_RD, information_RD = np.empty((num_resamples, 2)), np.empty((num_resamples, 2))
        num = counts_RG.shape[1]
        for m in range(len(self.theta_)):
            for d in range(2):
                p = 2 * m + d
                scored_U = self._scored_UP[:, p]
                if scored_before is None or not np.array_equal(scored_U, scored_before):
                    weights_RQ = counts_RG @ _by_cluster(scored_U[:, None] * self._posterior_UQ, owner_U)
                    scored_before = scored_U
                theta_R, information_RD[:, d] = self._abilities(right_RP[:, p], weights_RQ, self._theta_P[p])
                shift_RD[:, d] = theta_R - self._theta_P[p]
            # A cluster's share in gap*: (r_u - a_u shift_u) / I_u - (r_g - a_g shift_g) / I_g, with residuals r and
            # slopes a at the estimates, so that its sum of squares is a quadratic form of the resampled products.
            terms_4G = np.stack(
                [residuals_GP[:, 2 * m], slopes_GP[:, 2 * m], residuals_GP[:, 2 * m + 1], slopes_GP[:, 2 * m + 1]]
            )
            products_R44 = (counts_RG @ (terms_4G[:, None] * terms_4G).reshape(16, num).T).reshape(-1, 4, 4)
            u_R, g_R = 1 / information_RD.T
            loading_R4 = np.stack([u_R, -shift_RD[:, 0] * u_R, -g_R, shift_RD[:, 1] * g_R], axis=1)
            robust_R = num / (num - 1) * np.einsum("ri,rij,rj->r", loading_R4, products_R44, loading_R4)
            pivots.append((shift_RD[:, 0] - shift_RD[:, 1]) / np.sqrt(np.maximum(robust_R, u_R + g_R)))
        return np.stack(pivots)

    def _abilities(self, right_R: np.ndarray, weights_RQ: np.ndarray, start: float) -> tuple[np.ndarray, np.ndarray]:
        """Mode of one respondent's ability in each resample, given difficulties spread over the nodes, and information.

        Newton's method; from the estimate of the data four steps leave less than 1e-9.
        """
        theta_R, information_R = np.full(len(right_R), start), np.ones(len(right_R))
        for _ in range(5):
            chance_RQ = expit(theta_R[:, None] - self._nodes_Q)
            expected_R = np.einsum("rq,rq->r", weights_RQ, chance_RQ)
            information_R = (
                expected_R - np.einsum("rq,rq,rq->r", weights_RQ, chance_RQ, chance_RQ) + self.theta_width**-2
            )
            theta_R = theta_R + (right_R - expected_R - theta_R / self.theta_width**2) / information_R
        return theta_R, information_R


def _by_cluster(values_UP: np.ndarray, owner_U: np.ndarray) -> np.ndarray:
    sums_GP = np.zeros((int(owner_U.max()) + 1, values_UP.shape[1]))
    np.add.at(sums_GP, owner_U, values_UP)
    return sums_GP
