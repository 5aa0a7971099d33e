"""The ladder: a partition by hand, its sum to the loss, what is incomplete, samples, clusters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigap.gap.intervals import rate_interval
from unigap.gap.ladder import RUNGS, climb

LETTERS = {"y": True, "n": False, "?": None}


def statuses(*letters: str) -> list[list[bool | None]]:
    """One word a unit, one letter a sample."""
    return [[LETTERS[letter] for letter in word] for word in letters]


def test_each_failure_stands_on_the_first_rung_that_applies():
    # unit     0 1 2 3 4 5 6 7
    # normal   y y n n n n n n
    # oracle   y n n y y y y y    2: cannot draw, whatever the rest says
    # text     y n n n y y y y    3: does not know; 1: drawn right although the text is wrong
    # think    y n y y y y n n    4, 5: the reasoning does not reach the drawing
    # refined  y n y y y n y n    6: the thought disturbs; 7: unexplained
    ladder = climb(
        normal=statuses(*"yynnnnnn"),
        oracle=statuses(*"ynnyyyyy"),
        text=statuses(*"ynnnyyyy"),
        think=statuses(*"ynyyyynn"),
        refined=statuses(*"ynyyynyn"),
        clusters=range(8),
    )
    assert [rung.cause for rung in ladder.rungs] == list(RUNGS)
    assert [rung.count for rung in ladder.rungs] == [2, 1, 1, 2, 1, 1]
    assert (ladder.num_units, ladder.incomplete, ladder.drawn_right_text_wrong) == (8, 0, 1)
    # Half of a loss of 6/8 is on the rungs 2 and 3: .125 + .125, .25 and two of .125.
    assert [rung.share.rate for rung in ladder.rungs[1:]] == [0.125, 0.125, 0.25, 0.125, 0.125]


@pytest.mark.parametrize("lacking", ["normal", "oracle", "text", "think", "refined"])
def test_a_unit_without_one_of_the_five_is_incomplete_even_if_the_others_decide(lacking):
    # Of two units drawn right, one lacks an answer that its rung does not need: it must not stay where a unit drawn
    # wrong would go.
    answers = {name: statuses("y", "y") for name in ("normal", "oracle", "text", "think", "refined")}
    ladder = climb(**(answers | {lacking: statuses("y", "?")}), clusters=["a", "b"])
    assert (ladder.num_units, ladder.incomplete) == (1, 1)
    assert [rung.count for rung in ladder.rungs] == [1, 0, 0, 0, 0, 0]


def test_samples_divide_a_unit_and_only_complete_ones_count():
    # Unit 0, samples: drawn right, cannot draw, (oracle unscored), drawn right with the text wrong: thirds of 2, 1.
    # Unit 1 has two samples in the normal drawing alone, and one of the rest: one complete sample, unexplained.
    ladder = climb(
        normal=statuses("ynny", "ny"),
        oracle=statuses("yn?y", "y"),
        text=statuses("yyyn", "y"),
        think=statuses("ynnn", "n"),
        refined=statuses("ynnn", "n"),
        clusters=["a", "b"],
    )
    assert [rung.count for rung in ladder.rungs] == pytest.approx([2 / 3, 1 / 3, 0, 0, 0, 1])
    assert ladder.num_units == 2 and ladder.drawn_right_text_wrong == pytest.approx(1 / 3)


def test_intervals_respect_clusters():
    right, wrong = statuses(*"y" * 60), statuses(*"n" * 30 + "y" * 30)
    clusters = [index // 2 for index in range(60)]
    ladder = climb(normal=wrong, oracle=wrong, text=right, think=right, refined=right, clusters=clusters)
    assert ladder.rungs[1].share == rate_interval([1.0] * 30 + [0.0] * 30, clusters)
    assert ladder.rungs[1].share.adjusted


def test_without_units_every_share_is_unknown():
    ladder = climb(normal=[], oracle=[], text=[], think=[], refined=[], clusters=[])
    assert ladder.num_units == ladder.incomplete == 0
    assert all((rung.share.low, rung.share.high) == (0, 1) for rung in ladder.rungs)


def test_lists_of_different_length_are_refused():
    one, two = statuses("y"), statuses("y", "n")
    with pytest.raises(ValueError, match=r"\[1, 1, 2, 1, 1\] units for 1 clusters"):
        climb(normal=one, oracle=one, text=two, think=one, refined=one, clusters=["a"])


sample = st.tuples(*[st.sampled_from([True, False, None])] * 5)


@given(st.lists(st.lists(sample, min_size=1, max_size=3), min_size=1, max_size=12))
def test_shares_sum_to_one_and_those_of_failures_to_the_loss(units):
    columns = [[[one[k] for one in unit] for unit in units] for k in range(5)]
    normal, oracle, text, think, refined = columns
    ladder = climb(normal=normal, oracle=oracle, text=text, think=think, refined=refined, clusters=range(len(units)))
    complete = [[one for one in unit if None not in one] for unit in units]
    rates = [sum(one[0] for one in unit) / len(unit) for unit in complete if unit]
    assert ladder.num_units == len(rates) and ladder.num_units + ladder.incomplete == len(units)
    assert sum(rung.count for rung in ladder.rungs) == pytest.approx(ladder.num_units)
    if rates:
        loss = 1 - sum(rates) / len(rates)
        assert sum(rung.share.rate for rung in ladder.rungs[1:]) == pytest.approx(loss)
        assert all(rung.share.low < rung.share.high for rung in ladder.rungs)
