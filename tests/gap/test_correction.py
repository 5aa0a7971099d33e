"""Corrected rates: worked by hand, recovered from simulation, and refused where they would not be sound."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigap.gap.correction import (
    KnownRates,
    LabelledGroup,
    LabelledRates,
    corrected_joint,
    corrected_rate,
    effective_answers,
    why_not,
)
from unigap.gap.intervals import Interval, rate_interval

PERFECT = KnownRates(num_wrong=200, num_accepted=0, num_right=200, num_rejected=0)
NOISY = KnownRates(num_wrong=100, num_accepted=10, num_right=100, num_rejected=20)


def rate(right: int, of: int) -> Interval:
    return rate_interval([1.0] * right + [0.0] * (of - right), range(of))


def test_a_judge_that_never_erred_reads_0_of_n_with_wilsons_upper_bound():
    # Wilson at 0 of n: high = z^2 / (n + z^2) = 3.8415 / 203.8415 = 0.018845.
    assert PERFECT.false_accept.high == pytest.approx(0.018845, abs=1e-6)
    assert str(PERFECT.false_accept) == "0 of 200, at most 1.9%"
    # 10 of 100: centre (.1 + .0192) / 1.0384 = .11484, half width .05961.
    assert str(NOISY.false_accept) == "10 of 100: 10.0% [5.5%, 17.4%]"


def test_rogan_gladen_by_hand():
    # FA .1, FR .2: pi = (.45 - .1) / (1 - .3) = .5
    corrected = corrected_rate(rate(45, 100), NOISY).corrected
    assert corrected and corrected.rate == pytest.approx(0.5)
    # Wider than the raw interval: divided by .7, and the card's own uncertainty comes on top.
    raw = rate(45, 100)
    assert corrected.high - corrected.low > (raw.high - raw.low) / 0.7


def test_answers_that_the_judge_was_not_asked_about_are_wrong_and_no_false_accepts():
    # 20% refused. pi = (.45 - .1 x .8) / .7 = .52857; with the refused counted as asked it would be .5.
    corrected = corrected_rate(rate(45, 100), NOISY, asked=0.8).corrected
    assert corrected and corrected.rate == pytest.approx(0.37 / 0.7)
    assert corrected.high <= 0.9


def test_a_perfect_card_leaves_the_estimate_and_widens_the_interval_by_its_own_uncertainty():
    raw = rate(90, 100)
    few = KnownRates(num_wrong=20, num_accepted=0, num_right=20, num_rejected=0)
    by_many, by_few = corrected_rate(raw, PERFECT).corrected, corrected_rate(raw, few).corrected
    assert by_many and by_few and by_many.rate == by_few.rate == raw.rate
    assert by_few.high - by_few.low > by_many.high - by_many.low > 0


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (KnownRates(num_wrong=100, num_accepted=30, num_right=100, num_rejected=30), "sum to 0.60"),
        (KnownRates(num_wrong=19, num_accepted=0, num_right=100, num_rejected=0), "knows 19 wrong answers"),
        (KnownRates(num_wrong=100, num_accepted=0, num_right=0, num_rejected=0), "knows 0 right answers"),
    ],
)
def test_a_card_that_says_too_little_corrects_nothing(rates, said):
    result = corrected_rate(rate(45, 100), rates)
    assert result.corrected is None and said in result.notes[0] and said in str(result)
    assert result.raw == rate(45, 100)


def test_just_below_the_bound_is_corrected():
    assert why_not(KnownRates(num_wrong=100, num_accepted=30, num_right=100, num_rejected=29)) is None


def test_a_rate_that_no_truth_explains_is_refused_and_one_that_chance_explains_is_cut():
    # A judge that accepts 10% of wrong answers cannot accept 1 in 1,000 of any; 8 in 100 it can.
    refused = corrected_rate(rate(1, 1000), NOISY)
    assert refused.corrected is None and "no true rate explains 0.001" in refused.notes[0]
    cut = corrected_rate(rate(8, 100), NOISY)
    assert cut.corrected and cut.corrected.rate == 0 == cut.corrected.low < cut.corrected.high
    assert "cut to 0" in cut.notes[0]
    # FR .2: accepting 1,000 of 1,000 is as impossible.
    assert corrected_rate(rate(1000, 1000), NOISY).corrected is None


@settings(max_examples=60, deadline=None)
@given(
    right=st.integers(0, 60), wrong=st.integers(0, 60), accepted=st.integers(0, 20), rejected=st.integers(0, 20),
    refused=st.integers(0, 20),
)  # fmt: skip
def test_no_interval_is_of_zero_width_or_leaves_its_estimate_outside(right, wrong, accepted, rejected, refused):
    n = right + wrong + refused
    if not n:
        return
    rates = KnownRates(num_wrong=40, num_accepted=accepted, num_right=40, num_rejected=rejected)
    corrected = corrected_rate(rate(right, n), rates, asked=(right + wrong) / n).corrected
    if corrected and right + wrong:
        assert 0 <= corrected.low <= corrected.rate <= corrected.high <= (right + wrong) / n + 1e-12
        assert corrected.low < corrected.high
        if accepted + rejected == 0 and not refused:
            raw = rate(right, n)
            assert corrected.low <= raw.low and corrected.high >= raw.high  # a correction adds no information


def test_dependent_answers_are_worth_fewer():
    alike = rate_interval([1.0, 1.0, 0.0, 0.0] * 20, [k // 2 for k in range(80)])
    assert effective_answers(alike) < 45  # pairs that always agree: 40 clusters, and t for z
    assert effective_answers(rate(40, 80)) == 80
    assert effective_answers(rate_interval([1.0, 0.0], ["one", "one"])) == 0
    lone = corrected_rate(rate_interval([1.0, 0.0] * 30, ["one"] * 60), PERFECT).corrected
    assert lone and lone.high - lone.low > 0.9


def test_rates_out_of_range_are_the_callers_mistake():
    with pytest.raises(ValueError, match="expected 0 <= rate <= asked"):
        corrected_rate(rate(90, 100), NOISY, asked=0.5)
    with pytest.raises(ValueError, match="at least one answer"):
        corrected_rate(rate_interval([], []), NOISY)


def coverage(pi: float, fa: float, fr: float, n: int, known: int, num: int, seed: int) -> float:
    """Share of simulated datasets whose corrected interval holds the true rate; refusals do not count as held."""
    rng = np.random.default_rng(seed)
    held = 0
    for _ in range(num):
        right = rng.binomial(n, pi)
        said = rng.binomial(right, 1 - fr) + rng.binomial(n - right, fa)
        rates = KnownRates(
            num_wrong=known, num_accepted=int(rng.binomial(known, fa)),
            num_right=known, num_rejected=int(rng.binomial(known, fr)),
        )  # fmt: skip
        corrected = corrected_rate(rate(said, n), rates).corrected
        held += corrected is not None and corrected.low <= pi <= corrected.high
    return held / num


@pytest.mark.parametrize(("pi", "fa", "fr"), [(0.5, 0.1, 0.2), (0.9, 0.05, 0.05), (0.1, 0.2, 0.1)])
def test_intervals_hold_the_true_rate_95_times_in_100(pi, fa, fr):
    # 300 datasets: the standard error at .95 is .0126, so .91 is more than three below.
    assert coverage(pi, fa, fr, n=100, known=100, num=300, seed=1) >= 0.91


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_labels_drawn_by_verdict_are_weighted_back_by_hand():
    # 80 accepted, of 10 labelled 2 wrong -> 16 wrong; 20 rejected, of 10 labelled 8 wrong -> 16 wrong.
    # FA = 16 / 32 = .5; FR = 4 / (4 + 64) = .0588. Unweighted it would be FA .2, FR .2.
    rates = LabelledRates(
        accepted=LabelledGroup(size=80, num_right=8, num_wrong=2, wrong_share=0.2, effective=10),
        rejected=LabelledGroup(size=20, num_right=2, num_wrong=8, wrong_share=0.8, effective=10),
    )
    assert rates.false_accept.rate == pytest.approx(0.5) and rates.false_reject.rate == pytest.approx(4 / 68)
    assert rates.false_accept.low < 0.5 < rates.false_accept.high
    assert (rates.false_accept.count, rates.false_accept.of) == (2, 10)


def test_correcting_a_run_by_its_own_labels_gives_the_direct_estimate():
    # Accepted 60 of 100: .1 of them wrong; rejected 40: .75 wrong. True rate .6 x .9 + .4 x .25 = .64.
    rates = LabelledRates(
        accepted=LabelledGroup(size=60, num_right=36, num_wrong=4, wrong_share=0.1, effective=40),
        rejected=LabelledGroup(size=40, num_right=10, num_wrong=30, wrong_share=0.75, effective=40),
    )
    corrected = corrected_rate(rate(60, 100), rates).corrected
    assert corrected and corrected.rate == pytest.approx(0.64)


def test_a_verdict_without_labels_is_not_guessed():
    rates = LabelledRates(
        accepted=LabelledGroup(size=60, num_right=30, num_wrong=30, wrong_share=0.5, effective=60),
        rejected=LabelledGroup(size=40),
    )
    assert np.isnan(rates.false_accept.rate) and why_not(rates) == "a verdict that the judge gave has no label yet"
    # A judge that rejected nothing has nothing to label there.
    all_accepted = replace(rates, rejected=LabelledGroup(size=0))
    assert all_accepted.false_accept.rate == 1 and all_accepted.false_reject.rate == 0


# ---- both directions -------------------------------------------------------------------------------------------------


def test_joint_cells_by_hand():
    # Perfect on texts; on drawings FA .2, FR 0. True p11 .4, p10 .4, p01 0, p00 .2 of 100.
    # Measured: 40 + .2 x 40 = 48 both, 32 text alone, .2 x 20 = 4 drawing alone, 16 neither.
    u = [True] * 80 + [False] * 20
    g = [True] * 48 + [False] * 32 + [True] * 4 + [False] * 16
    lax = KnownRates(num_wrong=100, num_accepted=20, num_right=100, num_rejected=0)
    joint = corrected_joint(u, g, range(100), PERFECT, lax)
    found = {name: cell.corrected for name, cell in joint.cells.items()}
    assert all(found.values())
    # p01 comes out as 4 - .2 (4 + 16) = 0 exactly.
    rates = [cell.rate for cell in found.values() if cell]
    assert rates == pytest.approx([0.4, 0.4, 0.0, 0.2], abs=1e-12)
    gap = joint.gap.corrected
    assert gap and gap.rate == pytest.approx(0.4) and joint.gap.raw.rate == pytest.approx(0.28)
    assert gap.low < 0.4 < gap.high and sum(rates) == pytest.approx(1)


def test_a_negative_cell_is_cut_and_said():
    # As above with 1 instead of 4 in p01: 1 - .2 x 20 x ... is below 0.
    u = [True] * 80 + [False] * 20
    g = [True] * 48 + [False] * 32 + [True] * 1 + [False] * 19
    lax = KnownRates(num_wrong=100, num_accepted=20, num_right=100, num_rejected=0)
    joint = corrected_joint(u, g, range(100), PERFECT, lax)
    assert joint.cells["p01"].corrected and joint.cells["p01"].corrected.rate == 0
    assert sum(cell.corrected.rate for cell in joint.cells.values() if cell.corrected) == pytest.approx(1)
    assert "was cut to 0" in joint.gap.notes[0]


def test_joint_cells_agree_with_the_rates_of_each_direction():
    rng = np.random.default_rng(0)
    u = [None if x < 0.1 else bool(x < 0.6) for x in rng.random(400)]
    g = [None if x < 0.05 else bool(x < 0.4) for x in rng.random(400)]
    joint = corrected_joint(u, g, range(400), NOISY, NOISY)
    cells = {name: cell.corrected.rate for name, cell in joint.cells.items() if cell.corrected}
    for answers, margin in ((u, cells["p11"] + cells["p10"]), (g, cells["p11"] + cells["p01"])):
        raw = rate_interval([float(a is True) for a in answers], range(400))
        alone = corrected_rate(raw, NOISY, asked=sum(a is not None for a in answers) / 400).corrected
        assert alone and margin == pytest.approx(alone.rate)


def test_joint_cells_of_a_planted_judge_are_recovered():
    rng = np.random.default_rng(3)
    n, true = 20_000, rng.choice(4, size=20_000, p=[0.35, 0.3, 0.05, 0.3])
    right_ND = np.stack([np.isin(true, (0, 1)), np.isin(true, (0, 2))], axis=1)
    flip = np.where(right_ND, rng.random((n, 2)) < 0.2, rng.random((n, 2)) < 0.1)
    said_ND = right_ND ^ flip
    sure = KnownRates(num_wrong=10**5, num_accepted=10**4, num_right=10**5, num_rejected=2 * 10**4)
    joint = corrected_joint(said_ND[:, 0].tolist(), said_ND[:, 1].tolist(), range(n), sure, sure)
    for name, wanted in {"p11": 0.35, "p10": 0.3, "p01": 0.05, "p00": 0.3}.items():
        cell = joint.cells[name].corrected
        # Standard error of a raw cell is .0034; divided by .7 twice at most .007.
        assert cell and abs(cell.rate - wanted) < 0.025 and cell.low < wanted < cell.high
    assert abs(joint.cells["p11"].raw.rate - 0.35) > 0.05  # raw is far off


def test_joint_needs_both_cards_and_answers_that_belong_together():
    bad = KnownRates(num_wrong=5, num_accepted=0, num_right=100, num_rejected=0)
    joint = corrected_joint([True, False] * 10, [False, True] * 10, range(20), PERFECT, bad)
    assert joint.gap.corrected is None and all(cell.corrected is None for cell in joint.cells.values())
    with pytest.raises(ValueError, match="2 and 1 answers for 2 clusters"):
        corrected_joint([True, False], [True], range(2), PERFECT, PERFECT)
