"""What a judge's own error rates say about the rates it measured (docs/judge_card.md).

FA, false accept: the share of wrong answers that a judge calls right. FR, false reject: the share of right ones that it
calls wrong. A judge that errs this often, at random given the truth, turns a true rate pi into

    p = (1 - FR) pi + FA (s - pi)                                              (1)

where s is the share of answers that it was asked about at all; the others (refused, malformed) are wrong whatever it
would say. Solved for pi this is Rogan & Gladen's estimator (1978, s = 1). The same for two directions at once is a
matrix inversion. Intervals are by Monte Carlo over both uncertainties, of the measured rate and of FA and FR.

References:
    Rogan & Gladen (1978), Estimating prevalence from the results of a screening test. Am. J. Epidemiology 107.
    Lang & Reiczigel (2014), Confidence limits for prevalence of disease adjusted for estimated sensitivity and
        specificity. Preventive Veterinary Medicine 113 (why the error rates' own uncertainty belongs in the interval).
    Begg & Greenes (1983), Assessment of diagnostic tests when disease verification is subject to selection bias.
        Biometrics 39 (error rates from labels that were drawn by verdict).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isinf, nan
from typing import Protocol

import numpy as np
from scipy import stats

from unigap.gap.intervals import Interval, difference_interval, rate_interval, wilson

MAX_ERRORS = 0.6
"""A judge with FA + FR of this or more is not corrected: dividing by 1 - FA - FR multiplies every uncertainty."""
MIN_KNOWN = 20
"""Fewest right, and fewest wrong, answers of known truth that a correction is based on."""
NUM_DRAWS = 20_000

CELLS = ("p11", "p10", "p01", "p00")
"""Understanding and generation right, the first alone, the second alone, neither."""

# R draws, N answers


@dataclass(frozen=True)
class ErrorRate:
    """How often a judge is wrong about answers of one truth."""

    rate: float
    """NaN when there are none."""
    low: float
    high: float
    """95% interval."""
    count: int
    of: int

    def __str__(self) -> str:
        if not self.of:
            return "0 of 0"
        if not self.count:
            return f"0 of {self.of}, at most {self.high:.1%}"
        return f"{self.count} of {self.of}: {self.rate:.1%} [{self.low:.1%}, {self.high:.1%}]"


class ErrorRates(Protocol):
    """A judge's error rates, however they came to be known."""

    @property
    def false_accept(self) -> ErrorRate: ...

    @property
    def false_reject(self) -> ErrorRate: ...

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        """FA and FR as plausible given what was seen, `num` of each."""
        ...


@dataclass(frozen=True, kw_only=True)
class KnownRates:
    """From answers whose truth was known beforehand: two binomials, Wilson intervals, Jeffreys draws."""

    num_wrong: int
    num_accepted: int
    """Of the wrong ones."""
    num_right: int
    num_rejected: int
    """Of the right ones."""

    @property
    def false_accept(self) -> ErrorRate:
        return _binomial(self.num_accepted, self.num_wrong)

    @property
    def false_reject(self) -> ErrorRate:
        return _binomial(self.num_rejected, self.num_right)

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        fa_R = rng.beta(self.num_accepted + 0.5, self.num_wrong - self.num_accepted + 0.5, num)
        return fa_R, rng.beta(self.num_rejected + 0.5, self.num_right - self.num_rejected + 0.5, num)


def _binomial(count: int, of: int) -> ErrorRate:
    if not of:
        return ErrorRate(nan, 0.0, 1.0, 0, 0)
    low, high = wilson(np.array([count / of]), of, float(stats.norm.ppf(0.975)))
    return ErrorRate(count / of, float(low[0]), float(high[0]), count, of)


@dataclass(frozen=True, kw_only=True)
class LabelledGroup:
    """Answers that got one verdict, and what people said of some of them."""

    size: int
    """All answers of the run with this verdict."""
    num_right: int = 0
    """Labelled, and right by the label."""
    num_wrong: int = 0
    wrong_share: float = nan
    """Weighted by how many answers each label stands for; NaN without labels."""
    effective: float = 0.0
    """(sum of weights)^2 / sum of squared weights: how many equally weighted labels these are worth (Kish)."""

    @property
    def known(self) -> bool:
        return self.size == 0 or self.num_right + self.num_wrong > 0

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Number of wrong answers in the group."""
        if not self.size:
            return np.zeros(num)
        wrong = self.wrong_share * self.effective
        return self.size * rng.beta(wrong + 0.5, self.effective - wrong + 0.5, num)


@dataclass(frozen=True, kw_only=True)
class LabelledRates:
    """From labels of answers that were drawn by the judge's verdict: w is the share of wrong ones in a group of N.

    FA = N_a w_a / (N_a w_a + N_r w_r),  FR = N_r (1 - w_r) / (N_r (1 - w_r) + N_a (1 - w_a))        (2)
    """

    accepted: LabelledGroup
    rejected: LabelledGroup

    @property
    def false_accept(self) -> ErrorRate:
        of = self.accepted.num_wrong + self.rejected.num_wrong
        return self._rate(0, self.accepted.num_wrong, of)

    @property
    def false_reject(self) -> ErrorRate:
        of = self.accepted.num_right + self.rejected.num_right
        return self._rate(1, self.rejected.num_right, of)

    def _rate(self, which: int, count: int, of: int) -> ErrorRate:
        if not of or not (self.accepted.known and self.rejected.known):
            return ErrorRate(nan, 0.0, 1.0, count, of)
        a, r = (np.array([g.size * g.wrong_share if g.size else 0.0]) for g in (self.accepted, self.rejected))
        rate = float(self._from_wrong(a, r)[which][0])
        low, high = np.quantile(self.draw(np.random.default_rng(0), NUM_DRAWS)[which], (0.025, 0.975))
        # Jeffreys draws are never exactly 0 or 1, which an estimate may be.
        return ErrorRate(rate, min(float(low), rate), max(float(high), rate), count, of)

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        return self._from_wrong(self.accepted.draw(rng, num), self.rejected.draw(rng, num))

    def _from_wrong(self, a_R: np.ndarray, r_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        right_a_R, right_r_R = self.accepted.size - a_R, self.rejected.size - r_R
        wrong_R, right_R = a_R + r_R, right_a_R + right_r_R
        none = np.zeros_like(a_R)
        fa_R = np.divide(a_R, wrong_R, out=none.copy(), where=wrong_R > 0)
        return fa_R, np.divide(right_r_R, right_R, out=none.copy(), where=right_R > 0)


# ---- one rate --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A measured value with the corrected one beside it."""

    raw: Interval
    corrected: Interval | None
    """None if a correction would not be sound; `notes` says why."""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        second = str(self.corrected) if self.corrected else "not corrected"
        return "; ".join((f"{self.raw}, corrected {second}", *self.notes))


def why_not(rates: ErrorRates) -> str | None:
    """Why nothing is corrected by these error rates; None if they will do."""
    for name, rate in (("wrong", rates.false_accept), ("right", rates.false_reject)):
        if rate.of < MIN_KNOWN:
            return f"the judge's card knows {rate.of} {name} answers of this kind; {MIN_KNOWN} are needed"
        if np.isnan(rate.rate):
            return "a verdict that the judge gave has no label yet"
    total = rates.false_accept.rate + rates.false_reject.rate
    if total >= MAX_ERRORS:
        return f"false accepts and rejects sum to {total:.2f}; from {MAX_ERRORS} on a correction says little"
    return None


def corrected_rate(raw: Interval, rates: ErrorRates, *, asked: float = 1.0, seed: int = 0) -> Corrected:
    """The true rate behind a measured one (docs/judge_card.md eq. 1; Rogan & Gladen 1978).

    pi = (p - FA s) / (1 - FA - FR), cut to [0, s]. The interval holds 95% of that over draws of p (Jeffreys, with the
    effective number of answers) and of FA and FR; a draw with FA + FR >= 1 says nothing and is spread over [0, s].

    Args:
        raw: The measured rate of right answers; each answer scores once (a pair of items is two answers).
        rates: Of the judge on answers like these.
        asked: s, share of the answers that the judge ruled on; the others are wrong by what they are.
        seed: Of the draws.

    Returns:
        Corrected: `corrected` is None if `rates` do not allow a correction, or if no true rate explains the measured.

    Raises:
        ValueError: The rate is of no answers, or exceeds `asked`.
    """
    if not raw.num_units or not 0 <= raw.rate <= asked <= 1:
        raise ValueError(
            f"expected 0 <= rate <= asked <= 1 over at least one answer; got rate {raw.rate}, asked {asked}"
        )
    if reason := why_not(rates):
        return Corrected(raw=raw, corrected=None, notes=(reason,))
    rng = np.random.default_rng(seed)
    shares_R3 = _draw_shares(np.array([raw.rate, asked - raw.rate, 1 - asked]), np.array([True, True, False]), raw, rng)
    fa_R, fr_R = rates.draw(rng, NUM_DRAWS)
    s_R = shares_R3[:, 0] + shares_R3[:, 1]
    informative_R = fa_R + fr_R < 1
    divisor_R = np.where(informative_R, 1 - fa_R - fr_R, 1.0)
    pi_R = np.where(informative_R, (shares_R3[:, 0] - fa_R * s_R) / divisor_R, rng.uniform(0, s_R))
    low, high = (float(limit) for limit in np.quantile(pi_R, (0.025, 0.975)))
    fa, fr = rates.false_accept.rate, rates.false_reject.rate
    exact = (raw.rate - fa * asked) / (1 - fa - fr)
    notes: list[str] = []
    if exact < 0 or exact > asked:
        bound = f"below the {fa:.3f} that it" if exact < 0 else f"above the {1 - fr:.3f} that it"
        notes.append(
            f"cut to {'0' if exact < 0 else f'{asked:.3g}'}: the judge accepts {bound} would of answers all alike"
        )
        if high <= 0 or low >= asked:
            why = f"no true rate explains {raw.rate:.3f}: the judge's card does not describe these answers"
            return Corrected(raw=raw, corrected=None, notes=(why,))
    interval = _no_narrower(raw, min(max(exact, 0.0), asked), low, high, least=0.0, most=asked)
    return Corrected(raw=raw, corrected=interval, notes=tuple(notes))


def _no_narrower(raw: Interval, rate: float, low: float, high: float, *, least: float, most: float) -> Interval:
    """The corrected interval, at least as far to each side as the raw one: a correction adds no information."""
    low, high = min(low, rate - (raw.rate - raw.low)), max(high, rate + (raw.high - raw.rate))
    return replace(raw, rate=rate, low=max(low, least), high=min(high, most))


def effective_answers(raw: Interval) -> float:
    """Independent answers that a measured rate is worth, by its design effect and its t reference.

    n / deff (z / t)^2 with G - 1 degrees where the interval is adjusted (Korn & Graubard 1998); 0 for one cluster.
    """
    n = raw.num_units / raw.design_effect
    if not raw.adjusted:
        return n
    t = float(stats.t.ppf(0.975, raw.num_clusters - 1)) if raw.num_clusters > 1 else inf
    return 0.0 if isinf(t) else n * float(stats.norm.ppf(0.975) / t) ** 2


def _draw_shares(share_K: np.ndarray, possible_K: np.ndarray, raw: Interval, rng: np.random.Generator) -> np.ndarray:
    """Shares of K outcomes as plausible given those seen, (draws, K); what was never seen stays out unless possible."""
    used_K = possible_K | (share_K > 0)
    drawn_RK = np.zeros((NUM_DRAWS, len(share_K)))
    drawn_RK[:, used_K] = rng.dirichlet(share_K[used_K] * effective_answers(raw) + 0.5, NUM_DRAWS)
    return drawn_RK


# ---- both directions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CorrectedJoint:
    """Joint rates of the two directions, and the gap, each beside its corrected value."""

    cells: Mapping[str, Corrected] = field(default_factory=dict)
    """By the names in CELLS."""
    gap: Corrected
    """Understanding minus generation, p10 - p01."""


def corrected_joint(
    understanding: Sequence[bool | None],
    generation: Sequence[bool | None],
    clusters: Sequence[Hashable],
    understanding_rates: ErrorRates,
    generation_rates: ErrorRates,
    *,
    seed: int = 0,
) -> CorrectedJoint:
    """True joint rates behind measured ones, by inverting both judges' confusion matrices (docs/judge_card.md eq. 3).

    With T the table of outcomes (accepted, rejected, not asked) of both directions, T = A_u P A_g^T for the true table
    P if the two judges' errors are independent given the truth; P = A_u^-1 T A_g^-T. Cells below 0 are cut to 0 and
    the rest renormalised, with a note.

    Args:
        understanding: Per answer, whether the judge accepted it; None if it was not asked (refused, malformed).
        generation: The same items and samples in the same order.
        clusters: The cluster of each.
        understanding_rates: Of the judge on the texts.
        generation_rates: Of the judge on the drawings.
        seed: Of the draws.

    Raises:
        ValueError: There are no answers, or lengths differ.
    """
    n = len(clusters)
    if not n or len(understanding) != n or len(generation) != n:
        raise ValueError(f"{len(understanding)} and {len(generation)} answers for {n} clusters; give one of each")
    u_N, g_N = (np.array([2 if a is None else 1 - a for a in answers]) for answers in (understanding, generation))
    right_ND = np.stack([u_N == 0, g_N == 0], axis=1)
    patterns = ((True, True), (True, False), (False, True), (False, False))
    raws = [rate_interval((right_ND == p).all(axis=1).astype(float).tolist(), clusters) for p in patterns]
    raw_gap = difference_interval(
        right_ND[:, 0].astype(float).tolist(), right_ND[:, 1].astype(float).tolist(), clusters
    )

    def result(corrected: Sequence[Interval | None], notes: tuple[str, ...]) -> CorrectedJoint:
        *cells, gap = corrected
        pairs = zip(CELLS, raws, cells, strict=True)
        return CorrectedJoint(
            cells={name: Corrected(raw=raw, corrected=cell, notes=notes) for name, raw, cell in pairs},
            gap=Corrected(raw=raw_gap, corrected=gap, notes=notes),
        )

    margins = ((u_N, understanding_rates), (g_N, generation_rates))
    for of_N, rates in margins:
        raw = rate_interval((of_N == 0).astype(float).tolist(), clusters)
        margin = corrected_rate(raw, rates, asked=float((of_N != 2).mean()), seed=seed)
        if margin.corrected is None:
            return result([None] * 5, margin.notes)
    table_33 = np.histogram2d(u_N, g_N, bins=[np.arange(4) - 0.5] * 2)[0] / n
    asked_33 = np.outer([True, True, False], [True, True, False])
    widest = max(raws, key=lambda raw: raw.num_units - effective_answers(raw))
    rng = np.random.default_rng(seed)
    tables_R33 = _draw_shares(table_33.ravel(), asked_33.ravel(), widest, rng).reshape(-1, 3, 3)
    drawn = [_inverse(*rates.draw(rng, NUM_DRAWS)) for _, rates in margins]
    cells_RC, _ = _collapse(tables_R33, *(inverse_R33 for inverse_R33, _ in drawn))
    informative_R = drawn[0][1] & drawn[1][1]
    cells_RC = np.where(informative_R[:, None], cells_RC, rng.dirichlet(np.ones(len(CELLS)), NUM_DRAWS))
    estimates = [_inverse(np.array([r.false_accept.rate]), np.array([r.false_reject.rate]))[0] for _, r in margins]
    estimate_1C, least = _collapse(table_33[None], *estimates)
    notes = (f"a cell of {least[0]:.3f} was cut to 0 and the rest renormalised",) if least[0] < -1e-12 else ()
    values_R5 = np.column_stack([cells_RC, cells_RC[:, 1] - cells_RC[:, 2]])
    points = [*estimate_1C[0], estimate_1C[0, 1] - estimate_1C[0, 2]]
    limits = zip(*np.quantile(values_R5, (0.025, 0.975), axis=0), strict=True)
    bounds = [(0.0, 1.0)] * len(CELLS) + [(-1.0, 1.0)]
    intervals = [
        _no_narrower(raw, float(point), float(low), float(high), least=least_value, most=most_value)
        for raw, point, (low, high), (least_value, most_value) in zip(
            [*raws, raw_gap], points, limits, bounds, strict=True
        )
    ]
    return result(intervals, notes)


def _inverse(fa_R: np.ndarray, fr_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverses (R, 3, 3) of A = [[1-FR, FA, 0], [FR, 1-FA, 0], [0, 0, 1]], and which of them say anything."""
    informative_R = fa_R + fr_R < 1
    divisor_R = np.where(informative_R, 1 - fa_R - fr_R, 1.0)
    inverse_R33 = np.zeros((len(fa_R), 3, 3))
    inverse_R33[:, 0, 0], inverse_R33[:, 0, 1] = (1 - fa_R) / divisor_R, -fa_R / divisor_R
    inverse_R33[:, 1, 0], inverse_R33[:, 1, 1] = -fr_R / divisor_R, (1 - fr_R) / divisor_R
    inverse_R33[:, 2, 2] = 1
    return inverse_R33, informative_R


def _collapse(tables_R33: np.ndarray, u_R33: np.ndarray, g_R33: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True cells (R, 4), cut to [0, 1] and renormalised, and the least of each before that."""
    true_R33 = u_R33 @ tables_R33 @ g_R33.transpose(0, 2, 1)
    p11_R, p10_R = true_R33[:, 0, 0], true_R33[:, 0, 1:].sum(axis=1)
    p01_R, p00_R = true_R33[:, 1:, 0].sum(axis=1), true_R33[:, 1:, 1:].sum(axis=(1, 2))
    cells_RC = np.stack([p11_R, p10_R, p01_R, p00_R], axis=1)
    cut_RC = np.maximum(cells_RC, 0)
    return cut_RC / cut_RC.sum(axis=1, keepdims=True), cells_RC.min(axis=1)
