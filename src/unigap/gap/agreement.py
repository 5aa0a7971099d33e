"""Agreement of judges: two by two, and of all together (docs/judges.md, "Several judges").

Two judges' verdicts on the same N answers make a table of shares

    p11  both say right        p10  the first alone        p01  the second alone        p00  neither

with p1. = p11 + p10 and p.1 = p11 + p01 the rates of right by each. Agreement is P_o = p11 + p00, agreement by chance
P_e = p1. p.1 + (1 - p1.)(1 - p.1), and Cohen's

    kappa = (P_o - P_e) / (1 - P_e)                                            (1)

Its influence of one answer (a by the first, b by the second, d = [a = b]) is

    psi = (d - P_o) / (1 - P_e) - (1 - P_o) / (1 - P_e)^2 ((2 p.1 - 1)(a - p1.) + (2 p1. - 1)(b - p.1))      (2)

whose sum of squares over N^2 is the variance of Fleiss, Cohen & Everitt (1969, eq. 13). Summed by cluster before it is
squared it gives the design effect. The interval holds 95% of kappa over draws of the table from a Dirichlet with 1/2 a
cell and N / deff answers: like Wilson's and unlike kappa +- 1.96 se, it has a width when no verdict differs.

Where nearly all answers are right, kappa is small however well judges agree (Feinstein & Cicchetti 1990), so agreement
on right and on wrong answers stand beside it:

    positive = 2 p11 / (2 p11 + p10 + p01)        negative = 2 p00 / (2 p00 + p10 + p01)                     (3)

For more judges: Krippendorff's alpha of nominal data, which allows for verdicts that are missing. With m verdicts on an
answer, k of them "right", over the answers with m >= 2, n verdicts in all and n1 of them "right",

    alpha = 1 - (n - 1) sum k (m - k) / (m - 1) / (n1 (n - n1))                                              (4)

References:
    Cohen (1960), A coefficient of agreement for nominal scales. Educational and Psychological Measurement 20.
    Fleiss, Cohen & Everitt (1969), Large sample standard errors of kappa and weighted kappa. Psychological Bulletin 72.
    Feinstein & Cicchetti (1990), High agreement but low kappa I; Cicchetti & Feinstein (1990), II: resolving the
        paradoxes. J. Clinical Epidemiology 43.
    Krippendorff (2004), Content Analysis, 2nd ed., section 11.3.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import isinf, nan

import numpy as np
from scipy import stats

from unigap.gap.correction import effective_answers
from unigap.gap.intervals import MIN_CLUSTERS, Interval, Method, cluster_indices, difference_interval, rate_interval

# N answers, J judges, G clusters, R draws

NUM_DRAWS = 20_000


@dataclass(frozen=True)
class Coefficient:
    """Kappa or alpha, with its 95% interval; None, with the reason, where the data define none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""
    """Why there is no value, or no interval."""

    def __str__(self) -> str:
        if self.value is None:
            return f"- ({self.why})"
        if self.low is None or self.high is None:
            return f"{self.value:.2f} ({self.why})"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two judges on the answers that both scored."""

    both_right: int
    first_alone: int
    """The first says right, the second wrong."""
    second_alone: int
    both_wrong: int
    observed: Interval
    """P_o; its rate is NaN without answers."""
    kappa: Coefficient
    difference: Interval
    """The first's rate of right minus the second's, paired (Tango)."""

    @property
    def num_answers(self) -> int:
        return self.both_right + self.first_alone + self.second_alone + self.both_wrong

    @property
    def positive(self) -> float | None:
        """Agreement on right answers, eq. 3; None if neither judge called any right."""
        return _specific(self.both_right, self.first_alone + self.second_alone)

    @property
    def negative(self) -> float | None:
        """Agreement on wrong answers; None if neither judge called any wrong."""
        return _specific(self.both_wrong, self.first_alone + self.second_alone)


def _specific(alike: int, apart: int) -> float | None:
    return 2 * alike / (2 * alike + apart) if alike or apart else None


def judge_agreement(
    first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable], *, level: float = 0.95
) -> Agreement:
    """Confusion and agreement of two judges on the same answers.

    Swapping the judges swaps `first_alone` and `second_alone`, negates the difference, and changes nothing else.

    Args:
        first: Whether the first judge calls each answer right.
        second: The same of the second, in the same order; leave out what one of them did not score.
        clusters: The cluster of each answer.
        level: Coverage of kappa's interval; the others have 95%.

    Raises:
        ValueError: Lengths differ.
    """
    if not len(first) == len(second) == len(clusters):
        raise ValueError(f"{len(first)} and {len(second)} verdicts for {len(clusters)} clusters; give one of each")
    a_N, b_N = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    return Agreement(
        both_right=int((a_N & b_N).sum()),
        first_alone=int((a_N & ~b_N).sum()),
        second_alone=int((~a_N & b_N).sum()),
        both_wrong=int((~a_N & ~b_N).sum()),
        observed=rate_interval((a_N == b_N).astype(float).tolist(), clusters),
        kappa=_kappa(a_N, b_N, clusters, level),
        difference=difference_interval(a_N.astype(float).tolist(), b_N.astype(float).tolist(), clusters),
    )


def cohen_kappa(table: np.ndarray) -> np.ndarray:
    """Eq. 1 of shares or counts (..., 4) in the order p11, p10, p01, p00; NaN where all are in one agreeing cell."""
    share = table / table.sum(axis=-1, keepdims=True)
    p11, p10, p01, p00 = np.moveaxis(share, -1, 0)
    # 1 - P_e = p1. (1 - p.1) + p.1 (1 - p1.), and P_o - P_e = 2 (p11 p00 - p10 p01): zeros stay exact zeros.
    chance_apart = (p11 + p10) * (p10 + p00) + (p11 + p01) * (p01 + p00)
    return np.divide(2 * (p11 * p00 - p10 * p01), chance_apart, where=chance_apart > 0, out=np.full(p11.shape, nan))


def _kappa(a_N: np.ndarray, b_N: np.ndarray, clusters: Sequence[Hashable], level: float) -> Coefficient:
    n = len(a_N)
    if not n:
        return Coefficient(None, why="no answer scored by both")
    table = np.array([(a_N & b_N).sum(), (a_N & ~b_N).sum(), (~a_N & b_N).sum(), (~a_N & ~b_N).sum()], dtype=float)
    value = float(cohen_kappa(table))
    if np.isnan(value):
        return Coefficient(None, why=f"undefined: both call every answer {'right' if a_N[0] else 'wrong'}")
    owner_N, num_clusters = cluster_indices(clusters)
    if num_clusters == 1:
        return Coefficient(value, -1.0, 1.0)
    effective = _effective(influence(a_N, b_N), owner_N, num_clusters)
    # Kappa is the same with judges swapped and with right and wrong swapped; so are the draws, in this order.
    alike, apart = sorted((table[0], table[3])), sorted((table[1], table[2]))
    sorted_4 = np.array([alike[1], apart[1], apart[0], alike[0]])
    rng = np.random.default_rng(0)
    drawn_R = cohen_kappa(rng.dirichlet(sorted_4 / n * effective + 0.5, NUM_DRAWS))
    low, high = (float(limit) for limit in np.quantile(drawn_R, ((1 - level) / 2, (1 + level) / 2)))
    return Coefficient(value, min(low, value), max(high, value))


def influence(a_N: np.ndarray, b_N: np.ndarray) -> np.ndarray:
    """psi of every answer, eq. 2; they sum to 0. kappa must be defined."""
    a_N, b_N = a_N.astype(float), b_N.astype(float)
    d_N = (a_N == b_N).astype(float)
    p, q, agree = a_N.mean(), b_N.mean(), d_N.mean()
    apart = p * (1 - q) + q * (1 - p)  # 1 - P_e
    slope_N = (2 * q - 1) * (a_N - p) + (2 * p - 1) * (b_N - q)
    return (d_N - agree) / apart - (1 - agree) / apart**2 * slope_N


def _effective(psi_N: np.ndarray, owner_N: np.ndarray, num_clusters: int) -> float:
    """Independent answers that these are worth: N / deff, and (z / t)^2 of it where clusters matter."""
    n = len(psi_N)
    square = float((psi_N**2).sum())
    sums_G = np.bincount(owner_N, weights=psi_N, minlength=num_clusters)
    # Without any spread nothing is known of how clusters differ, so each counts once.
    robust = num_clusters / (num_clusters - 1) * float((sums_G**2).sum())
    effect = max(1.0, robust / square) if square > 1e-12 else n / num_clusters
    independent = num_clusters == n
    method: Method = "few clusters" if num_clusters < MIN_CLUSTERS else "cluster-adjusted"
    if independent and num_clusters >= MIN_CLUSTERS:
        method, effect = "independent units", 1.0
    found = effective_answers(Interval(nan, nan, nan, n, num_clusters, method, effect))
    assert not isinf(found)
    return found


def krippendorff_alpha(verdicts_JN: np.ndarray, clusters: Sequence[Hashable], *, level: float = 0.95) -> Coefficient:
    """Agreement of any number of judges, eq. 4; interval by a jackknife over clusters with Student's t.

    Args:
        verdicts_JN: 1 right, 0 wrong, NaN where a judge scored nothing.
        clusters: The cluster of each answer.
        level: Coverage.

    Returns:
        Coefficient: No interval, and the reason, without disagreement or with a single cluster: a jackknife then says
            nothing.

    Raises:
        ValueError: Lengths differ.
    """
    if verdicts_JN.shape[1] != len(clusters):
        raise ValueError(f"verdicts on {verdicts_JN.shape[1]} answers for {len(clusters)} clusters; give one of each")
    m_N, k_N = (~np.isnan(verdicts_JN)).sum(axis=0).astype(float), np.nansum(verdicts_JN, axis=0)
    paired_N = m_N >= 2
    if not paired_N.any():
        return Coefficient(None, why="no answer scored by two judges")
    m_N, k_N = m_N[paired_N], k_N[paired_N]
    owner_N, num_clusters = cluster_indices([name for name, paired in zip(clusters, paired_N, strict=True) if paired])
    apart_N = k_N * (m_N - k_N) / (m_N - 1)
    sums_3G = np.stack([np.bincount(owner_N, weights=of_N) for of_N in (apart_N, m_N, k_N)])
    total_3 = sums_3G.sum(axis=1)
    value = float(_alpha(total_3))
    if np.isnan(value):
        return Coefficient(None, why=f"undefined: every verdict is {'right' if k_N[0] else 'wrong'}")
    if not total_3[0]:
        return Coefficient(value, why="no interval: no verdict differs")
    if num_clusters == 1:
        return Coefficient(value, why="no interval: a single cluster")
    without_G = _alpha(total_3[:, None] - sums_3G)
    if np.isnan(without_G).any():
        return Coefficient(value, why="no interval: it hangs on one cluster")
    spread = (num_clusters - 1) / num_clusters * ((without_G - without_G.mean()) ** 2).sum()
    half = float(stats.t.ppf((1 + level) / 2, num_clusters - 1) * np.sqrt(spread))
    return Coefficient(value, max(-1.0, value - half), min(1.0, value + half))


def _alpha(sums: np.ndarray) -> np.ndarray:
    apart, n, right = sums
    expected = right * (n - right)
    return 1 - np.divide((n - 1) * apart, expected, where=expected > 0, out=np.full(np.shape(n), nan))
