"""Joint rates: a hand-worked table, and what unscored samples do to it."""

import math

import numpy as np
import pytest

from unigap.gap.intervals import rate_interval
from unigap.gap.joint import joint_rates

NAN = math.nan


def test_a_hand_worked_table_of_four_cells() -> None:
    # 40 units: 20 both, 8 understanding alone, 2 generation alone, 10 neither. u = .7, g = .55.
    # phi = (.5 * .25 - .2 * .05) / sqrt(.7 * .3 * .55 * .45) = .115 / .22798 = .50443.
    understanding = np.array([1] * 28 + [0] * 12)[:, None]
    generation = np.array([1] * 20 + [0] * 8 + [1] * 2 + [0] * 10)[:, None]
    joint = joint_rates(understanding, generation, range(40))
    assert [cell.rate for cell in (joint.p11, joint.p10, joint.p01, joint.p00)] == [0.5, 0.2, 0.05, 0.25]
    assert joint.agreement == rate_interval([1.0] * 30 + [0.0] * 10, range(40))
    assert joint.phi == pytest.approx(0.50443, abs=1e-5)
    assert "agreement 0.750 [0.598, 0.858]" in str(joint) and "phi 0.50" in str(joint)


def test_cells_average_over_samples_scored_in_both_directions() -> None:
    # Unit 1: samples (1,1) and (1,0): half both, half understanding alone. Unit 2: the second sample has no generation,
    # so (0,1) alone. Unit 3: no common sample, left out.
    understanding = [[1, 1], [0, 1], [1, NAN]]
    generation = [[1, 0], [1, NAN], [NAN, 0]]
    joint = joint_rates(understanding, generation, "abc")
    assert joint.num_units == 2
    assert [cell.rate for cell in (joint.p11, joint.p10, joint.p01, joint.p00)] == [0.25, 0.25, 0.5, 0.0]


def test_swapping_directions_swaps_the_cells_of_one_alone() -> None:
    rng = np.random.default_rng(0)
    understanding, generation = (rng.random((2, 50, 2)) < 0.6).astype(float)
    joint, swapped = (
        joint_rates(understanding, generation, range(50)),
        joint_rates(generation, understanding, range(50)),
    )
    assert (joint.p10, joint.p01) == (swapped.p01, swapped.p10)
    assert joint.phi == pytest.approx(swapped.phi)


def test_intervals_respect_clusters() -> None:
    # Each cluster is three copies of one unit: the interval of the 30 copied units, not of 90.
    understanding = np.repeat([1] * 18 + [0] * 12, 3)[:, None]
    joint = joint_rates(understanding, understanding, np.repeat(range(30), 3).tolist())
    alone = joint_rates(understanding, understanding, range(90))
    assert joint.p11.adjusted
    assert joint.p11.high - joint.p11.low > 1.6 * (alone.p11.high - alone.p11.low)


def test_phi_of_a_constant_margin_is_not_a_number() -> None:
    assert math.isnan(joint_rates([[1]] * 30, [[1], [0]] * 15, range(30)).phi)
    assert math.isnan(joint_rates(np.empty((0, 1)), np.empty((0, 1)), []).p11.rate)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="one cluster per unit"):
        joint_rates([[1], [0]], [[1]], range(2))
    with pytest.raises(ValueError, match="0 \\(wrong\\) or NaN"):
        joint_rates([[0.5]], [[1]], range(1))
