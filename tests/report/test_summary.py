"""The numbers of a run, worked by hand on small tables."""

import json
import math

import pytest

from unigap.arms import Question
from unigap.gap.intervals import difference_interval, rate_interval
from unigap.gap.ladder import RUNGS

TEXT: Question = ("understanding", "normal")
TEXT_THINK: Question = ("understanding", "think")
DRAW: Question = ("generation", "normal")
DRAW_THINK: Question = ("generation", "think")
REFINED: Question = ("generation", "refined")
ORACLE: Question = ("generation", "oracle")


def test_rate_counts_units_and_a_pair_needs_both_halves(paper):
    # Pairs (A, B): yy right, yn and nn wrong, so 1 of 3; errors are per picture, so 3.
    items = paper.add_items("mapping1", 3, pair=True)
    paper.answer(items, DRAW, "yyynnn", error="pair_other")
    cell = paper.summary().families[0].cells[DRAW]
    assert (cell.correct, cell.scored, cell.rate) == (1, 3, pytest.approx(1 / 3))
    assert cell.errors == {"pair_other": 3}


def test_unscored_and_missing_units_leave_the_denominator_and_are_counted(paper):
    # y n u t -> 1 of 2. A pair with one unscored half leaves whole, although its other half is wrong.
    items = paper.add_items("math1", 4)
    paper.answer(items, DRAW, "ynut")
    pairs = paper.add_items("mapping1", 3, pair=True)
    paper.answer(pairs, DRAW, "nuyynn")
    math1, mapping1 = (family.cells[DRAW] for family in paper.summary().families)
    assert (math1.correct, math1.scored, math1.unscored, math1.missing) == (1, 2, 1, 1)
    assert (mapping1.correct, mapping1.scored, mapping1.unscored) == (1, 2, 1)


def test_an_item_that_was_asked_in_another_arm_only_is_missing(paper):
    items = paper.add_items("math1", 3)
    paper.answer(items, DRAW, "yyn")
    paper.answer(items[:1], DRAW_THINK, "y")
    cell = paper.summary().families[0].cells[DRAW_THINK]
    assert (cell.correct, cell.scored, cell.missing) == (1, 1, 2)


def test_refused_is_wrong_in_rate_and_left_out_of_rate_answered(paper):
    # y y n r: rate 2/4, rate_answered 2/3.
    items = paper.add_items("math1", 4)
    paper.answer(items, DRAW, "yynr")
    cell = paper.summary().families[0].cells[DRAW]
    assert (cell.refused, cell.rate, cell.rate_answered) == (1, 0.5, pytest.approx(2 / 3))
    assert cell.errors == {"x": 1, "refused": 1}


def test_samples_are_averaged_within_a_unit(paper):
    # Unit scores 1, 1/2, 0 -> rate 1/2 of 3 units. Halves of a pair must be right in the same sample: yn and ny -> 0.
    items = paper.add_items("math1", 3)
    paper.answer(items, DRAW, "yyn", sample=0)
    paper.answer(items, DRAW, "ynn", sample=1)
    pair = paper.add_items("mapping1", 1, pair=True)
    paper.answer(pair, DRAW, "yn", sample=0)
    paper.answer(pair, DRAW, "ny", sample=1)
    math1, mapping1 = (family.cells[DRAW] for family in paper.summary().families)
    assert (math1.correct, math1.scored, math1.rate) == (1.5, 3, pytest.approx(0.5))
    assert mapping1.rate == 0


def test_unreadable_is_a_share_of_answers(paper):
    items = paper.add_items("math1", 4)
    paper.answer(items[:2], DRAW, "nn", error="unreadable")
    paper.answer(items[2:], DRAW, "yn", error="wrong_count")
    cell = paper.summary().families[0].cells[DRAW]
    assert cell.unreadable == 0.5
    assert dict(cell.errors) == {"unreadable": 2, "wrong_count": 1}


def test_gap_is_understanding_minus_generation_on_units_scored_in_both(paper):
    # Units: text y y y n u, drawing n n y n y. The last is unscored in text, so d = 3/4 - 1/4.
    items = paper.add_items("math1", 5)
    paper.answer(items, TEXT, "yyynu")
    paper.answer(items, DRAW, "nnyny")
    gap = paper.summary().families[0].gaps["normal"]
    expected = difference_interval([1, 1, 1, 0], [0, 0, 1, 0], range(4))
    assert gap.rate == 0.5 and gap.scored == 4
    assert (gap.low, gap.high) == (expected.low, expected.high)


def test_gap_exists_only_for_arms_of_both_directions(paper):
    items = paper.add_items("math1", 2)
    paper.answer(items, TEXT, "yy")
    for question in (DRAW, DRAW_THINK, REFINED, ORACLE):
        paper.answer(items, question, "yn")
    family = paper.summary().families[0]
    assert list(family.gaps) == ["normal"]
    assert list(family.joint) == ["normal"]
    assert family.ladder is not None


def test_intervals_use_clusters_and_say_so(paper):
    items = [item for k in range(3) for item in paper.add_items("forward", 10, cluster=f"forward/person{k}")]
    paper.answer(items, DRAW, "y" * 10 + "n" * 20)
    cell = paper.summary().families[0].cells[DRAW]
    expected = rate_interval([1.0] * 10 + [0.0] * 20, [k for k in "abc" for _ in range(10)])
    assert cell.cluster_adjusted and (cell.low, cell.high) == (expected.low, expected.high)
    alone = paper.add_items("math1", 30)
    paper.answer(alone, DRAW, "y" * 10 + "n" * 20)
    cell = paper.summary().families[0].cells[DRAW]
    assert not cell.cluster_adjusted


def test_failures_split_by_the_first_arm_that_explains_them(paper):
    # unit             0 1 2 3 4 5 6
    # normal drawing   y n n n n n n
    # oracle           y n y y y y u     1: cannot draw, whatever the rest says
    # text             y n n y y y y     2: does not know
    # think            y y y y n n y     3: the reasoning does not reach the drawing
    # refined          y y y n y n y     4: the thought disturbs; 5: unexplained; 6: the oracle is unscored
    items = paper.add_items("math1", 7)
    for question, letters in (
        (DRAW, "ynnnnnn"),
        (ORACLE, "ynyyyyu"),
        (TEXT, "nnnnnnn"),
        (TEXT_THINK, "ynnyyyy"),
        (DRAW_THINK, "yyyynny"),
        (REFINED, "yyynyny"),
    ):
        paper.answer(items, question, letters)
    family = paper.summary().families[0]
    counts = dict.fromkeys(RUNGS, 1)
    data = family.to_json()
    assert data["split"] == counts | {"incomplete": 1}
    assert {cause: rung["count"] for cause, rung in data["ladder"]["rungs"].items()} == counts
    assert (data["ladder"]["units"], data["ladder"]["incomplete"]) == (6, 1)
    assert sum(rung["rate"] for rung in data["ladder"]["rungs"].values()) == pytest.approx(1)
    assert data["ladder"]["drawn_right_text_wrong"] == 0


def test_text_with_a_thought_decides_the_ladder_where_it_was_asked(paper):
    # Text at once is wrong, with a thought right: with both the unit does know; with the first alone it does not.
    items = paper.add_items("math1", 1)
    for question, letter in ((DRAW, "n"), (ORACLE, "y"), (TEXT, "n"), (DRAW_THINK, "y"), (REFINED, "y")):
        paper.answer(items, question, letter)
    assert paper.summary().families[0].to_json()["split"]["does_not_know"] == 1
    paper.answer(items, TEXT_THINK, "y")
    assert paper.summary().families[0].to_json()["split"]["reasoning_does_not_reach"] == 1


def test_joint_rates_count_units_scored_in_both_directions(paper):
    # Text y y y n n u, drawing y n n n y y: of 5 units both 1, text alone 2, drawing alone 1, neither 1.
    # phi = (1*1 - 2*1) / sqrt(3*2 * 2*3) = -1/6.
    items = paper.add_items("math1", 6)
    paper.answer(items, TEXT, "yyynnu")
    paper.answer(items, DRAW, "ynnnyy")
    joint = paper.summary().families[0].to_json()["joint"]["normal"]
    assert [joint[name]["rate"] for name in ("p11", "p10", "p01", "p00", "agreement")] == [0.2, 0.4, 0.2, 0.2, 0.4]
    assert joint["units"] == 5 and joint["phi"] == pytest.approx(-1 / 6)
    assert joint["p10"]["low"] < 0.4 < joint["p10"]["high"]


def test_joint_rates_pair_samples_and_bear_directions_with_fewer_of_them(paper):
    # Sample 0: both right; sample 1: text right, drawing wrong; sample 2 was asked in text alone.
    items = paper.add_items("math1", 1)
    for sample, (text, draw) in enumerate((("y", "y"), ("y", "n"), ("n", ""))):
        paper.answer(items, TEXT, text, sample=sample)
        if draw:
            paper.answer(items, DRAW, draw, sample=sample)
    joint = paper.summary().families[0].joint["normal"]
    assert (joint.p11.rate, joint.p10.rate, joint.num_units) == (0.5, 0.5, 1)


def test_variants_are_rows_of_their_own(paper):
    one, two = paper.add_items("plain", 3, variant="one"), paper.add_items("plain", 2, variant="two")
    paper.answer(one + two, DRAW, "yyyyn")
    family = paper.summary(plain="direct").families[0]
    assert [variant.name for variant in family.variants] == ["plain/one", "plain/two"]
    assert [variant.cells[DRAW].rate for variant in family.variants] == [1.0, 0.5]
    assert family.cells[DRAW].rate == 0.8
    assert family.trained == family.variants[0].trained == "direct"


def test_chance_is_the_familys_own_and_unknown_families_have_none(paper):
    for name in ("mapping1", "theirs"):
        paper.answer(paper.add_items(name, 2, pair=True), DRAW, "ynyy")
    mapping1, theirs = paper.summary().families
    assert mapping1.chance == (0.25, "coin flip between the two objects, per picture")
    assert theirs.chance == (None, "")


def test_families_stand_in_the_order_of_the_sandbox(paper):
    for name in ("theirs", "plain", "math2", "math1"):
        paper.answer(paper.add_items(name, 1), DRAW, "y")
    assert [family.name for family in paper.summary().families] == ["math1", "math2", "plain", "theirs"]


def test_json_has_the_documented_shape_and_no_nan(paper):
    items = paper.add_items("mapping1", 1, pair=True)
    paper.answer(items, TEXT, "uu")
    paper.answer(items, DRAW, "yn")
    summary = paper.summary(mapping1="parts")
    data = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert set(data) == {"schema", "run", "meaning", "families"}
    family = data["families"]["mapping1"]
    assert set(family) == {"understanding", "generation", "gap", "units", "trained", "joint", "ladder", "split"}
    assert family["trained"] == "parts" and family["split"] is None and family["ladder"] is None
    assert family["joint"]["normal"]["phi"] is None and family["joint"]["normal"]["p11"]["rate"] is None
    assert family["understanding"]["normal"]["rate"] is None and family["understanding"]["normal"]["unscored"] == 1
    assert set(family["generation"]["normal"]) == {
        "correct", "scored", "unscored", "missing", "refused", "rate", "rate_answered", "low", "high",
        "cluster_adjusted", "chance", "chance_strategy", "errors", "unreadable",
    }  # fmt: skip
    assert set(family["gap"]["normal"]) == {"rate", "low", "high", "scored", "cluster_adjusted"}
    assert math.isnan(summary.families[0].gaps["normal"].rate) and family["gap"]["normal"]["rate"] is None


def test_records_of_other_items_and_stray_verdicts_are_ignored(paper):
    items = paper.add_items("math1", 2)
    paper.answer(items, DRAW, "yn")
    paper.answer(paper.add_items("math2", 1), DRAW, "y")
    paper.items.pop()
    paper.records.pop(0)
    (family,) = paper.summary().families
    assert (family.cells[DRAW].scored, family.cells[DRAW].missing) == (1, 1)
