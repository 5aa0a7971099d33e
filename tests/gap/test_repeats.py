"""Rates over repeats: hand-worked limits of both intervals, and what has none."""

import math
from math import sqrt

import pytest

from unigap.gap.intervals import difference_interval, rate_interval
from unigap.gap.repeats import difference_over_repeats, rate_over_repeats


def test_limits_over_repeats_are_students_t_of_the_repeats_own_rates():
    # Rates 1/2, 3/4, 1 of four units each: mean 3/4, s = 1/4, t with 2 degrees 4.3027; half 4.3027 / (4 sqrt 3) = .621,
    # so [.129, 1.371], cut at 1.
    scores = [[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0] * 4]
    clusters = [[f"{repeat}/{unit}" for unit in range(4)] for repeat in range(3)]
    found = rate_over_repeats(scores, clusters)
    assert found.values == (0.5, 0.75, 1.0) and found.rate == 0.75
    low = 0.75 - 4.302653 * 0.25 / sqrt(3)
    assert found.repeats == (pytest.approx(low, abs=1e-6), 1.0)
    # Twelve units of as many clusters, nine right: the interval of any twelve such units.
    assert found.items == rate_interval([1.0] * 9 + [0.0] * 3, range(12))
    # A conclusion takes what both allow.
    assert (found.low, found.high) == (pytest.approx(min(low, found.items.low)), 1.0)


def test_the_same_items_asked_of_every_repeat_are_no_more_items():
    one = rate_over_repeats([[1.0] * 15 + [0.0] * 15], [range(30)])
    three = rate_over_repeats([[1.0] * 15 + [0.0] * 15] * 3, [range(30)] * 3)
    # Rows of a cluster agree fully, so 90 rows weigh as 30: the design effect is 3 x 30 / 29, and t stands for 1.96.
    assert three.items.design_effect == pytest.approx(3 * 30 / 29)
    assert three.items.low < one.items.low and three.items.high > one.items.high
    assert three.items.low == pytest.approx(one.items.low, abs=0.02)


def test_repeats_that_agree_have_no_interval_of_zero_width():
    found = rate_over_repeats([[1.0] * 20] * 3, [range(20)] * 3)
    assert found.rate == 1.0 and found.repeats is None
    assert found.low == found.items.low < 0.9


def test_one_repeat_has_items_alone_and_none_has_nothing():
    assert rate_over_repeats([[1.0, 0.0]], [["a", "b"]]).repeats is None
    empty = rate_over_repeats([[], []], [[], []])
    assert empty.values == () and math.isnan(empty.rate) and (empty.low, empty.high) == (0.0, 1.0)


def test_a_repeat_without_units_is_left_out():
    found = rate_over_repeats([[1.0, 0.0], [], [1.0, 1.0]], [["a", "b"], [], ["c", "d"]])
    assert found.values == (0.5, 1.0)


def test_a_difference_is_paired_within_its_repeat():
    first, second = [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    clusters = [["a", "b", "c"], ["d", "e", "f"]]
    found = difference_over_repeats(first, second, clusters)
    # 2/3 - 1/3 = 1/3 and 1/3 - 1/3 = 0: mean 1/6, s = 1 / (3 sqrt 2), t with one degree 12.706: cut at -1 and 1.
    assert found.values == (pytest.approx(1 / 3), 0.0) and found.rate == pytest.approx(1 / 6)
    assert found.repeats == (-1.0, 1.0)
    assert found.items == difference_interval([1, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 1], "abcdef")
