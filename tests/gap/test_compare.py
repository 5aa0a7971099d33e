"""Differences between runs: tests by hand and by enumeration, error rates and coverage by simulation, equivalence."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unigap.gap import compare
from unigap.gap.compare import Difference, compare_gaps, compare_rates, holm, mcnemar, sign_flip
from unigap.gap.intervals import difference_interval


def column(*scores: float) -> np.ndarray:
    return np.array(scores, dtype=float)[:, None]


def paired(both: int, first: int, other: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two columns of units that both, one alone or neither have right."""
    return (
        column(*[1] * both, *[1] * first, *[0] * other, *[0] * neither),
        column(*[1] * both, *[0] * first, *[1] * other, *[0] * neither),
    )


# ---- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_first", "only_other", "p"),
    [
        (2, 8, 0.109375),  # 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10 = 2 * 56 / 1024
        (8, 2, 0.109375),
        (0, 6, 0.03125),  # 2 / 2^6
        (0, 5, 0.0625),  # 2 / 2^5: five discordant units cannot reach .05
        (3, 3, 1.0),  # 2 (1 + 6 + 15 + 20) / 64 is above 1
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(only_first, only_other, p):
    assert mcnemar(only_first, only_other) == pytest.approx(p)


def brute_force(sums: list[float]) -> float:
    totals = [sum(s * v for s, v in zip(signs, sums)) for signs in itertools.product((1, -1), repeat=len(sums))]
    return sum(abs(total) >= abs(sum(sums)) - 1e-9 for total in totals) / len(totals)


def test_sign_flip_by_hand():
    # Sums 1, 2, 3: |+-1 +-2 +-3| >= 6 for 2 of 8 patterns. With -1, 2, 3: 4 or more for +-(1+2+3) and +-(-1+2+3).
    assert sign_flip([1, 2, 3]) == (pytest.approx(0.25), "sign-flip exact")
    assert sign_flip([-1, 2, 3])[0] == pytest.approx(0.5)
    assert sign_flip([0.0, 0.0])[0] == sign_flip([])[0] == 1.0


@given(st.lists(st.sampled_from([-2, -1, -1 / 3, 0, 1 / 3, 0.1 + 0.2, 1, 2.5]), max_size=9))
@settings(deadline=None)
def test_sign_flip_is_the_enumeration_of_all_signs(sums):
    assert sign_flip(sums)[0] == pytest.approx(brute_force(sums))


def test_sign_flip_of_single_answers_to_independent_units_is_mcnemar():
    assert sign_flip([1] * 9 + [-1] * 3 + [0] * 20)[0] == pytest.approx(mcnemar(3, 9))


def test_drawn_signs_give_the_exact_p_and_never_zero(monkeypatch):
    sums = [3, 1, 2, -1, 2, 2, -1, 1, 3, 0.5]
    exact, _ = sign_flip(sums)
    monkeypatch.setattr(compare, "MAX_PATTERNS", 1)
    drawn, test = sign_flip(sums, seed=1)
    # A share of 99,999 draws has a standard error of at most .5 / sqrt(99999) = .0016.
    assert test == "sign-flip Monte Carlo" and drawn == pytest.approx(exact, abs=0.005)
    assert sign_flip(sums, seed=1)[0] == drawn
    assert sign_flip([1.0 + k / 64 for k in range(40)])[0] == 1 / 100_000


def test_many_different_sums_are_drawn():
    assert sign_flip([1.0 + k / 64 for k in range(25)])[1] == "sign-flip Monte Carlo"
    assert sign_flip([1.0] * 500 + [2.0] * 500)[1] == "sign-flip exact"


def test_holm_by_hand():
    # Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04 -> not below the one before: .06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_where_half_of_the_hypotheses_can_be_true():
    # Factors 2, 2, 2, 1 instead of 4, 3, 2, 1: .02, .04, .06, .04 -> .06.
    assert holm([0.01, 0.02, 0.03, 0.04], max_true=2) == pytest.approx([0.02, 0.04, 0.06, 0.06])


def test_at_most_one_true_hypothesis_a_row_keeps_the_family_wise_error():
    rng = np.random.default_rng(0)
    errors = 0
    for _ in range(3000):
        true, false = rng.random(10), rng.random(10) * 0.01  # of each row one is true, and the other clearly false
        errors += min(holm([*true, *false], max_true=10)[:10]) <= 0.05
    # Standard error sqrt(.05 * .95 / 3000) = .004.
    assert 0.035 <= errors / 3000 <= 0.062


# ---- differences -----------------------------------------------------------------------------------------------------


def rates(first: np.ndarray, other: np.ndarray, clusters=None, **options) -> Difference:
    found = compare_rates(first, other, range(len(first)) if clusters is None else clusters, **options)
    assert found is not None
    return found


def gaps(first, other, clusters=None, **options) -> Difference:
    found = compare_gaps(first, other, range(len(first[0])) if clusters is None else clusters, **options)
    assert found is not None
    return found


def test_a_rate_by_hand():
    # 50 units: both right 20, first alone 2, other alone 12, neither 16: 22/50 against 32/50.
    # Of 14 discordant units 2 or fewer are one run's: p = 2 (1 + 14 + 91) / 2^14.
    first, other = paired(20, 2, 12, 16)
    found = rates(first, other)
    assert (found.first, found.other) == (0.44, 0.64) and found.interval.rate == pytest.approx(0.2)
    assert found.p == pytest.approx(2 * 106 / 2**14) and found.test == "McNemar exact"
    assert found.discordance.rate == pytest.approx(14 / 50)
    assert found.interval == difference_interval(other[:, 0], first[:, 0], range(50))
    assert str(found).startswith("0.200 [0.0") and "p = 0.0129 (McNemar exact)" in str(found)


def test_a_gap_by_hand():
    # Gaps of units: first run 1, 1, 0, -1; other run 0, 0, 0, 1. Differences -1, -1, 0, 2, of 4 units: 0.
    # |+-1 +-1 +-2| >= 0 always: p = 1.
    first = column(1, 1, 0, 0), column(0, 0, 0, 1)
    other = column(1, 0, 1, 1), column(1, 0, 1, 0)
    found = gaps(first, other)
    assert (found.first, found.other, found.interval.rate, found.p) == (0.25, 0.25, 0.0, 1.0)
    assert found.test == "sign-flip exact"
    assert found.discordance.rate == 0.5  # mean of 1, 1, 0, 2 as a share of 2
    assert -2 <= found.interval.low < 0 < found.interval.high <= 2


def test_a_gap_that_changes_everywhere_is_two_points_of_one():
    ones, zeros = column(*[1] * 30), column(*[0] * 30)
    found = gaps((zeros, ones), (ones, zeros))
    assert (found.first, found.other, found.interval.rate) == (-1, 1, 2)
    assert found.p == pytest.approx(2 / 2**30)
    assert 1.5 < found.interval.low < found.interval.high == 2


def test_gap_and_rate_agree_where_understanding_is_the_same():
    # With equal understanding, the gap differs by minus the difference of the drawings, with about the same interval.
    rng = np.random.default_rng(3)
    known, drawn, redrawn = ((rng.random((200, 1)) < p).astype(float) for p in (0.8, 0.4, 0.6))
    rate, gap = rates(drawn, redrawn), gaps((known, drawn), (known, redrawn))
    assert gap.interval.rate == pytest.approx(-rate.interval.rate)
    assert gap.p == pytest.approx(rate.p)
    assert (gap.interval.low, gap.interval.high) == pytest.approx((-rate.interval.high, -rate.interval.low), abs=0.02)


def test_swapping_the_runs_negates_and_the_order_of_units_is_irrelevant():
    rng = np.random.default_rng(4)
    first, other = (rng.random((2, 60, 2)) < 0.6).astype(float)
    clusters = [index // 3 for index in range(60)]
    forth, back = rates(first, other, clusters), rates(other, first, clusters)
    assert (back.interval.rate, back.interval.low, back.interval.high) == pytest.approx(
        (-forth.interval.rate, -forth.interval.high, -forth.interval.low)
    )
    assert back.p == forth.p
    order = rng.permutation(60)
    again = rates(first[order], other[order], [clusters[index] for index in order])
    assert (again.p, again.interval.low) == pytest.approx((forth.p, forth.interval.low))


def test_units_and_samples_that_are_not_scored_in_both_are_left_out():
    nan = np.nan
    # Unit 0: samples 0 and 2 in both: 1/2 against 1. Unit 1: nothing in common. Unit 2: 0 against 1.
    first = np.array([[1, 1, 0], [1, nan, nan], [0, 0, 0]])
    other = np.array([[1, nan, 1], [nan, 1, 1], [1, 1, 1]])
    found = rates(first, other)
    assert found.interval.num_units == 2 and (found.first, found.other) == (0.25, 1.0)
    assert compare_rates(first[1:2], other[1:2], ["a"]) is None


def test_dependent_units_and_several_samples_are_tested_by_sign_flips():
    first, other = paired(3, 0, 6, 3)
    assert rates(first, other).test == "McNemar exact"
    # Three clusters that all say the same: the smallest p there is, 2 / 2^3.
    threes = rates(first, other, [0] * 2 + [1] * 5 + [2] * 5)
    assert threes.test == "sign-flip exact" and threes.p >= 0.25
    twice = rates(np.repeat(first, 2, axis=1), np.repeat(other, 2, axis=1))
    assert twice.test == "sign-flip exact" and twice.p == pytest.approx(2 / 2**6)


def test_repeating_a_run_gives_no_difference_with_an_interval():
    right = column(*[1, 0] * 30)
    for found in (rates(right, right), gaps((right, right), (right, right))):
        assert found.interval.rate == 0 and found.p == 1
        assert found.interval.low < 0 < found.interval.high


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"shapes \[\(2, 1\), \(1, 1\)\] for 2 clusters"):
        compare_rates(column(1, 0), column(1), "ab")
    with pytest.raises(ValueError, match=r"1 \(right\), 0 \(wrong\) or NaN"):
        compare_rates(column(0.5), column(1), "a")
    with pytest.raises(ValueError, match="five points"):
        compare_rates(column(1), column(1), "a", margin=5)


# ---- error rates and coverage by simulation --------------------------------------------------------------------------


def simulate(
    rng: np.random.Generator,
    probabilities: list[float],
    *,
    num_clusters: int,
    size: int,
    num_samples: int,
    shared: float,
) -> list[np.ndarray]:
    """Answers of the same units with these rates; a share of the variance is common to a cluster."""
    owner = np.repeat(np.arange(num_clusters), size)
    common = np.sqrt(shared) * rng.standard_normal(num_clusters)[owner][:, None]
    own = np.sqrt(1 - shared)
    return [
        (common + own * rng.standard_normal((len(owner), num_samples)) < stats.norm.ppf(p)).astype(float)
        for p in probabilities
    ]


@pytest.mark.parametrize(("size", "num_samples"), [(1, 1), (1, 4), (4, 1)])
def test_equal_runs_are_called_different_in_at_most_5_percent(size, num_samples):
    rng = np.random.default_rng(5)
    ps = []
    for _ in range(300):
        first, other = simulate(rng, [0.5, 0.5], num_clusters=40, size=size, num_samples=num_samples, shared=0.5)
        names = np.repeat(np.arange(40), size).tolist()
        ps.append(rates(first, other, names).p)
    # Standard error sqrt(.05 * .95 / 300) = .013. Exact tests of few discordant units stay below the level.
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.085


@pytest.mark.parametrize("probabilities", [[0.9, 0.5, 0.9, 0.5], [0.95, 0.2, 0.8, 0.3]])
@pytest.mark.parametrize(("size", "num_samples"), [(1, 1), (1, 3), (3, 1)])
def test_intervals_of_gap_differences_cover(probabilities, size, num_samples):
    rng = np.random.default_rng(6)
    u, g, v, h = probabilities
    covered = []
    for _ in range(200):
        columns = simulate(rng, probabilities, num_clusters=60, size=size, num_samples=num_samples, shared=0.4)
        names = np.repeat(np.arange(60), size).tolist()
        interval = gaps((columns[0], columns[1]), (columns[2], columns[3]), names).interval
        covered.append(interval.low <= (v - h) - (u - g) <= interval.high)
    # Standard error sqrt(.05 * .95 / 200) = .015.
    assert 0.905 <= np.mean(covered) <= 0.995


def test_averages_over_samples_narrow_the_interval():
    rng = np.random.default_rng(7)
    widths = []
    for num_samples in (1, 8):
        first, other = simulate(rng, [0.5, 0.5], num_clusters=100, size=1, num_samples=num_samples, shared=0.3)
        interval = rates(first, other).interval
        widths.append(interval.high - interval.low)
    # Differences of single answers vary by 2 * .25 * (1 - r), of eight by an eighth of that; 1 / sqrt(8) = .35.
    assert widths[1] < 0.5 * widths[0]


# ---- equivalence -----------------------------------------------------------------------------------------------------


def test_equal_runs_are_equivalent_if_there_are_units_enough():
    many = rates(*paired(200, 4, 4, 192), margin=0.05).equivalence
    few = rates(*paired(10, 1, 1, 8), margin=0.05).equivalence
    assert many is not None and few is not None
    # 8 of 400 discordant: standard error sqrt(.02 / 400) = .007, so +-.012 at 90%.
    assert many.p < 0.001 and -0.05 < many.interval.low < many.interval.high < 0.05
    assert few.p > 0.05 and few.interval.low < -0.05


def test_a_difference_beyond_the_margin_is_not_equivalent():
    found = rates(*paired(100, 0, 40, 60), margin=0.05).equivalence
    assert found is not None and found.p == 1.0


def test_a_difference_can_be_found_and_yet_be_smaller_than_the_margin():
    found = rates(*paired(1000, 0, 20, 980), margin=0.05)
    assert found.equivalence is not None
    assert found.p < 0.001 and found.equivalence.p < 0.001


@given(st.integers(0, 30), st.integers(0, 30), st.integers(20, 200), st.sampled_from([0.02, 0.1, 0.3]))
@settings(max_examples=20, deadline=None)
def test_p_is_below_5_percent_iff_the_90_percent_interval_is_inside_the_margin(first, other, neither, margin):
    found = rates(*paired(10, first, other, neither), margin=margin).equivalence
    assert found is not None
    inside = -margin < found.interval.low and found.interval.high < margin
    assert (found.p < 0.05) == inside or abs(found.p - 0.05) < 1e-4


def test_runs_that_differ_by_the_margin_are_called_equivalent_in_at_most_5_percent():
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(100):
        # Discordance .2, difference .1: 15% and 5% alone right, 80% alike.
        both, first, other, neither = rng.multinomial(200, [0.4, 0.05, 0.15, 0.4])
        found = rates(*paired(both, first, other, neither), margin=0.1).equivalence
        assert found is not None
        wrong += found.p <= 0.05
    assert wrong / 100 <= 0.12  # standard error sqrt(.05 * .95 / 100) = .022
