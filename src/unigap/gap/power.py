"""How many units would show a difference between two runs.

The discordance psi (the share of units that one run alone has right) decides: two runs that differ in 10 of 100 units
show a difference sooner than two that differ in 60 of 100 and are as far apart.

References:
    Connor (1987), Sample size for testing differences in proportions for the paired-sample design. Biometrics 43.
    Duffy (1984), Asymptotic and exact power for the McNemar test and its analogue with R controls per case.
        Biometrics 40.
"""

from math import ceil, sqrt

import numpy as np
from scipy import stats

LEVEL, POWER = 0.05, 0.8
"""Two-sided level of one test, and the chance to reject that is asked for."""


def mcnemar_power(num_units: int, discordance: float, difference: float) -> float:
    """Chance that McNemar's exact test rejects at `LEVEL` (docs/compare.md eq. 9; Duffy 1984).

    The number of discordant units m is Binomial(num_units, psi); of them Binomial(m, (1 + difference / psi) / 2) are
    the other run's.

    Args:
        num_units: Independent units with one sample.
        discordance: psi, the share of units that one run alone has right.
        difference: Of the two rates; at most psi in size.
    """
    # Other numbers of discordant units are as unlikely as 1e-12 together.
    low, high = stats.binom.ppf([5e-13, 1 - 5e-13], num_units, discordance)
    m = np.arange(low, high + 1)
    # The largest count k with 2 P(Binomial(m, 1/2) <= k) <= LEVEL; -1 if there is none.
    k = stats.binom.ppf(LEVEL / 2, m, 0.5)
    k = np.where(2 * stats.binom.cdf(k, m, 0.5) <= LEVEL, k, k - 1)
    share = (1 + difference / discordance) / 2
    rejects = stats.binom.cdf(k, m, share) + stats.binom.sf(m - k - 1, m, share)
    return float(stats.binom.pmf(m, num_units, discordance) @ rejects)


def units_needed(discordance: float, difference: float, *, design_effect: float = 1.0, exact: bool = False) -> int:
    """Units with which a difference is found with probability `POWER` at `LEVEL`, as one test (docs/compare.md eq. 8).

    n = D (z_{1 - LEVEL/2} sqrt(psi) + z_{POWER} sqrt(psi - difference^2))^2 / difference^2

    A difference needs at least its own size of discordance; psi is raised to that.

    Args:
        discordance: psi as `compare.Difference.discordance` gives it.
        difference: To be found; a share of the largest possible, so half the difference of two gaps.
        design_effect: Variance of the difference relative to that of independent units.
        exact: Raise n until McNemar's exact test, which is more careful than the formula, has the power (eq. 9).

    Raises:
        ValueError: The difference is not in (0, 1).
    """
    if not 0 < difference < 1:
        raise ValueError(f"the difference to find must lie between 0 and 1 (0.05 is five points), got {difference}")
    psi = max(discordance, difference)
    reach = stats.norm.ppf(1 - LEVEL / 2) * sqrt(psi) + stats.norm.ppf(POWER) * sqrt(psi - difference**2)
    num_units = ceil(design_effect * (reach / difference) ** 2)
    if not exact:
        return num_units
    step = max(1, num_units // 200)  # finer than psi is ever known
    while mcnemar_power(num_units, psi, difference) < POWER:
        num_units += step
    return num_units
