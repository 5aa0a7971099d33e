"""Units that show a difference: the formula by hand, and the power it promises by simulation."""

import numpy as np
import pytest

from unigap.gap.compare import compare_gaps, compare_rates, mcnemar
from unigap.gap.power import POWER, mcnemar_power, units_needed


def test_connors_formula_by_hand():
    # psi = .3, difference .1: (1.95996 * sqrt(.3) + .84162 * sqrt(.3 - .01))^2 / .01
    # = (1.07352 + .45322)^2 / .01 = 2.33094 / .01 = 233.1, so 234; half as much again with a design effect of 1.5.
    assert units_needed(0.3, 0.1) == 234
    assert units_needed(0.3, 0.1, design_effect=1.5) == 350


def test_exact_power_of_mcnemar_by_hand():
    # 6 units, all discordant, all the other run's with probability 1: 6 of 6 has p = 2/64 < .05, always found.
    assert mcnemar_power(6, 1.0, 1.0) == pytest.approx(1.0)
    # 5 of 5 has p = 2/32 > .05: never found.
    assert mcnemar_power(5, 1.0, 1.0) == 0.0
    # psi = 1, difference 0: found if 6 or 0 of 6 are the other's, 2 / 2^6.
    assert mcnemar_power(6, 1.0, 0.0) == pytest.approx(2 / 64)


@pytest.mark.parametrize(("num_units", "psi", "difference"), [(100, 0.3, 0.15), (400, 0.1, 0.05), (60, 0.5, 0.0)])
def test_exact_power_is_that_of_simulated_tests(num_units, psi, difference):
    rng = np.random.default_rng(0)
    ahead, behind = (psi + difference) / 2, (psi - difference) / 2
    counts = rng.multinomial(num_units, [ahead, behind, 1 - psi], size=4000)
    found = np.mean([mcnemar(behind, ahead) <= 0.05 for ahead, behind, _ in counts.tolist()])
    # Standard error at most sqrt(.25 / 4000) = .008.
    assert found == pytest.approx(mcnemar_power(num_units, psi, difference), abs=0.025)


def test_the_exact_test_needs_somewhat_more_units_than_the_formula_and_then_has_the_power():
    for psi, difference in ((0.3, 0.1), (0.1, 0.05), (0.6, 0.2)):
        formula, exact = units_needed(psi, difference), units_needed(psi, difference, exact=True)
        assert formula < exact < 1.2 * formula
        assert mcnemar_power(exact, psi, difference) >= POWER > mcnemar_power(formula, psi, difference)


def test_a_discordance_below_the_difference_is_raised_to_it():
    assert units_needed(0.0, 0.1, exact=True) == units_needed(0.1, 0.1, exact=True)
    # All 10% discordant units are one run's; 6 of them are found, so n with P(Binomial(n, .1) >= 6) = .8 is near 78.
    assert 74 <= units_needed(0.0, 0.1, exact=True) <= 82


@pytest.mark.parametrize("difference", [0, 1, -0.1, 5])
def test_a_difference_that_is_no_share_is_refused(difference):
    with pytest.raises(ValueError, match="five points"):
        units_needed(0.3, difference)


def test_dependent_units_have_the_power_that_their_design_effect_promises():
    # Clusters of 4 units, and in half of them all differ in the same direction: plan from one large table, test others.
    rng = np.random.default_rng(1)

    def make(num_clusters: int):
        share = np.repeat(rng.beta(1.2, 0.8, num_clusters), 4)  # of a unit's discordance that is the other run's: .6
        discordant = rng.random(4 * num_clusters) < 0.5
        ahead = rng.random(4 * num_clusters) < share
        first, other = np.where(discordant, ~ahead, 1), np.where(discordant, ahead, 1)
        names = np.repeat(np.arange(num_clusters), 4).tolist()
        found = compare_rates(first[:, None], other[:, None], names)
        assert found is not None
        return found

    pilot = make(1500)  # differences of .5 * (2 * .6 - 1) = .1
    assert pilot.interval.rate == pytest.approx(0.1, abs=0.03) and pilot.interval.design_effect > 1.3
    needed = units_needed(pilot.discordance.rate, 0.1, design_effect=pilot.interval.design_effect)
    found = np.mean([make(round(needed / 4)).p <= 0.05 for _ in range(100)])
    # Standard error sqrt(.8 * .2 / 100) = .04.
    assert found == pytest.approx(POWER, abs=0.1)


def test_gaps_have_the_power_that_half_their_difference_promises():
    rng = np.random.default_rng(2)

    def make(num: int):
        # The other run's drawings are right .2 more often: its gap is .2 smaller.
        columns = [(rng.random((num, 1)) < p).astype(float) for p in (0.8, 0.4, 0.8, 0.6)]
        found = compare_gaps((columns[0], columns[1]), (columns[2], columns[3]), range(num))
        assert found is not None
        return found

    pilot = make(1500)
    assert pilot.interval.rate == pytest.approx(-0.2, abs=0.06)
    needed = units_needed(pilot.discordance.rate, 0.2 / 2, design_effect=pilot.interval.design_effect)
    found = np.mean([make(needed).p <= 0.05 for _ in range(100)])
    assert found == pytest.approx(POWER, abs=0.1)
