"""The gap we lead with: one model worked by hand, several models, symmetries, bad input."""

import math

import numpy as np
import pytest
from scipy.special import expit

from unigap.errors import NotComparableError
from unigap.gap.outcomes import Outcomes
from unigap.gap.score import gap_score

NAN = math.nan


def outcomes(right: np.ndarray, clusters: list[int] | None = None) -> Outcomes:
    """From (models, units, 2) or (models, units, 2, samples)."""
    right = np.asarray(right, dtype=float)
    right = right[..., None] if right.ndim == 3 else right
    num_models, num_units = right.shape[:2]
    return Outcomes(
        models=tuple(f"m{m}" for m in range(num_models)),
        units=tuple(f"count/{u:04d}" for u in range(num_units)),
        clusters=tuple(clusters or range(num_units)),
        right=right,
    )


def table(both: int, text: int, drawing: int, neither: int) -> np.ndarray:
    """One model: (1, units, 2)."""
    return np.array([[[1, 1]] * both + [[1, 0]] * text + [[0, 1]] * drawing + [[0, 0]] * neither])


def test_one_model_worked_by_hand() -> None:
    # 40 units, u = 28/40, g = 22/40, d = 6/40 = .15. Logits .8473 and .2007, gap .6466 but for the prior, which takes
    # about theta / (6.25 * 40 p q): .016 and .003. Swaps: 10 disagree, 8 one way: p = 2 (1 + 10 + 45) / 1024 = .109.
    result = gap_score(outcomes(table(20, 8, 2, 10)))
    (gap,) = result.gaps
    assert gap.rate.rate == pytest.approx(0.15) and gap.rate.low < 0 < gap.rate.high
    assert gap.logit.logit == pytest.approx(0.6466 - 0.013, abs=2e-3)
    assert gap.theta_pull.half < gap.logit.logit < gap.theta_pull.twice < 0.6466
    assert gap.p == pytest.approx(112 / 1024) and gap.test == "sign-flip exact"
    assert (gap.joint.p11.rate, gap.joint.p10.rate, gap.coverage) == (0.5, 0.2, (1.0, 1.0))
    assert (result.scale, result.item_fit, result.b_width, gap.b_pull, gap.variance) == (
        "difficulty-averaged logit", None, None, None, None,
    )  # fmt: skip
    assert str(gap).startswith("m0: gap 0.150 [-0.0") and "+0.63 logit [" in str(result)


def test_a_3x4_table_of_several_models_has_the_gaps_of_its_rows() -> None:
    # Understanding / generation right of 4: 3 / 1, 2 / 3, 4 / 4. Differences 1/2, -1/4, 0. The third model's rows are
    # alike, so its gap is 0 by symmetry.
    right = [[[1, 1], [1, 0], [1, 0], [0, 0]], [[1, 1], [1, 1], [0, 0], [0, 1]], [[1, 1]] * 4]
    result = gap_score(outcomes(np.array(right)))
    assert [gap.rate.rate for gap in result.gaps] == pytest.approx([0.5, -0.25, 0.0])
    first, second, third = (gap.logit for gap in result.gaps)
    assert first.logit > 1 and second.logit < 0 and third.logit == pytest.approx(0, abs=1e-7)
    assert all(gap.logit.low < gap.logit.logit < gap.logit.high for gap in result.gaps)
    assert result.scale == "Rasch logit" and "few clusters: 4" in str(result)
    assert result.item_fit is not None and result.item_fit.infit.shape == (4, 2)


def simulated(num_models: int, num_units: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    theta_MD, b_U = rng.normal([0.6, 0.0], 0.6, (num_models, 2)), rng.normal(0, 1.2, num_units)
    return (rng.random((num_models, num_units, 2)) < expit(theta_MD[:, None] - b_U[:, None])).astype(float)


@pytest.mark.parametrize("num_models", [1, 3])
@pytest.mark.parametrize("units_a_cluster", [1, 4])
def test_swapping_directions_negates_and_the_order_of_units_does_not_matter(
    num_models: int, units_a_cluster: int
) -> None:
    right = simulated(num_models, 120)
    clusters = [unit // units_a_cluster for unit in range(120)]
    order = np.random.default_rng(1).permutation(120)
    result, swapped, shuffled = (
        gap_score(o, num_resamples=400).gaps
        for o in (
            outcomes(right, clusters),
            outcomes(right[:, :, ::-1], clusters),
            outcomes(right[:, order], [clusters[unit] for unit in order]),
        )
    )
    for gap, mirror, same in zip(result, swapped, shuffled, strict=True):
        assert mirror.rate.rate == pytest.approx(-gap.rate.rate)
        assert (mirror.rate.low, mirror.rate.high) == pytest.approx((-gap.rate.high, -gap.rate.low), abs=1e-9)
        assert mirror.logit.logit == pytest.approx(-gap.logit.logit, abs=1e-8)
        # Resamples of several models meet the mirrored clusters in another order.
        off = 1e-8 if num_models == 1 else 0.1
        assert (mirror.logit.low, mirror.logit.high) == pytest.approx((-gap.logit.high, -gap.logit.low), abs=off)
        assert mirror.p == pytest.approx(gap.p)
        assert (same.rate.low, same.logit.low, same.logit.high) == pytest.approx(
            (gap.rate.low, gap.logit.low, gap.logit.high), abs=1e-6
        )


def test_intervals_of_several_models_hold_most_true_gaps() -> None:
    # 8 models x 200 units, gaps of .6 on average; 4 of 8 outside a 95% interval has probability below 4e-4.
    rng = np.random.default_rng(7)
    theta_MD, b_U = rng.normal([0.6, 0.0], 0.6, (8, 2)), rng.normal(0, 1.5, 200)
    right = (rng.random((8, 200, 2)) < expit(theta_MD[:, None] - b_U[:, None])).astype(float)
    gaps = gap_score(outcomes(right)).gaps
    truth = theta_MD[:, 0] - theta_MD[:, 1]
    assert sum(gap.logit.low <= true <= gap.logit.high for gap, true in zip(gaps, truth, strict=True)) >= 5
    assert all(gap.b_pull and abs(gap.b_pull.twice - gap.logit.logit) < 0.2 for gap in gaps)


def test_all_right_and_all_wrong_is_finite_and_has_width() -> None:
    (gap,) = gap_score(outcomes(table(0, 30, 0, 0))).gaps
    assert gap.rate.rate == gap.rate.high == 1 and gap.rate.low < 1
    assert math.isfinite(gap.logit.low) and gap.logit.low < gap.logit.logit < gap.logit.high < math.inf
    assert gap.theta_pull.twice - gap.theta_pull.half > 1  # the prior matters here, and it shows
    (same,) = gap_score(outcomes(table(30, 0, 0, 0))).gaps
    assert same.logit.logit == 0 and same.logit.low < 0 < same.logit.high


def test_item_and_sampling_variance_by_hand() -> None:
    # 20 units x 2 samples. Understanding always (1, 0): within variance 1/2, mean of 2: 1/4 a unit. Generation 0 in ten
    # units and 1 in ten: no sampling variance. Sampling: 20 * (1/4) / 400 = .0125. Differences are +-1/2: total
    # 20/19 * 20 * (1/4) / 400 = .013158, so items have .000658.
    understanding = [[1, 0]] * 20
    generation = [[0, 0]] * 10 + [[1, 1]] * 10
    (gap,) = gap_score(outcomes(np.array([list(zip(understanding, generation, strict=True))]))).gaps
    assert gap.variance is not None
    assert (gap.variance.sampling, gap.variance.items) == pytest.approx((0.0125, 0.000658), abs=1e-6)


def test_more_samples_narrow_the_interval_but_not_below_what_the_items_allow() -> None:
    rng = np.random.default_rng(8)
    chance_UD = rng.beta(1, 1, (60, 2))
    right = (rng.random((1, 60, 2, 16)) < chance_UD[None, :, :, None]).astype(float)
    one, many = (gap_score(outcomes(right[..., :num])).gaps[0] for num in (1, 16))
    assert many.rate.high - many.rate.low < 0.85 * (one.rate.high - one.rate.low)
    assert many.variance is not None and many.variance.items > many.variance.sampling
    # Standard error from the items alone: sd of the units' own differences, over sqrt(60).
    floor = (chance_UD[:, 0] - chance_UD[:, 1]).std() / math.sqrt(60)
    assert many.rate.high - many.rate.low > 2 * 1.96 * 0.8 * floor


def test_one_cluster_says_nothing_about_others() -> None:
    (gap,) = gap_score(outcomes(table(5, 3, 1, 1), clusters=[7] * 10)).gaps
    assert (gap.rate.low, gap.rate.high, gap.logit.low, gap.logit.high) == (-1, 1, -math.inf, math.inf)
    assert gap.p == 1.0


def test_a_missing_direction_is_refused_by_name_or_dropped() -> None:
    right = table(100, 60, 20, 60).astype(float)
    right[0, 17:29, 1] = NAN
    asked = outcomes(right)
    with pytest.raises(NotComparableError) as caught:
        gap_score(asked)
    assert str(caught.value).startswith(
        'gap_score: 12 of 240 items have no "generation" verdict (first: count/0017). Ask and judge that direction'
    )
    assert 'missing="drop"' in str(caught.value)
    result = gap_score(asked, missing="drop")
    assert (result.num_dropped, result.gaps[0].rate.num_units) == (12, 228)
    assert result.gaps[0].coverage == (1.0, 1.0)


def test_a_unit_that_another_model_answered_is_kept_for_difficulty_and_left_out_of_the_difference() -> None:
    right = simulated(3, 60)
    right[0, :5, 1] = NAN
    result = gap_score(outcomes(right), num_resamples=200)
    assert result.num_dropped == 0
    assert [gap.rate.num_units for gap in result.gaps] == [55, 60, 60]
    assert result.gaps[0].coverage == pytest.approx((1.0, 55 / 60))


def test_a_model_without_a_direction_is_refused_whatever_is_dropped() -> None:
    right = simulated(2, 30)
    right[1, :, 0] = NAN
    with pytest.raises(
        NotComparableError, match=r"model 'm1' has no item .* \(0 \"understanding\" and 30 \"generation\""
    ):
        gap_score(outcomes(right), missing="drop")


def test_wrong_shapes_and_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give \(models, units, 2, samples\)"):
        outcomes(np.zeros((1, 5, 3)))
    with pytest.raises(ValueError, match="not scored"):
        outcomes(np.full((1, 5, 2), 0.5))
