"""Single quantities from run folders: who is paired with whom, what counts together, and the signs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL.Image import Image
from tests.fakes import FakeModel, make_item

from unigap.evaluate import EvalConfig, evaluate
from unigap.gap.intervals import difference_interval
from unigap.items import Item
from unigap.judges.exact import ExactJudge
from unigap.judging import judge_run
from unigap.records import Ruling
from unigap.report.quantities import (
    Units,
    cluster_of,
    gain_minus_gain,
    inverse_minus_forward,
    minus,
    read_units,
    shifted,
)
from unigap.scenes import make_items
from unigap.train.before_after import Cell
from unigap.train.changes import forward_items, inverse_items, new_characters


def units(*scores: float) -> Units:
    return {("plain", str(number)): (score, str(number)) for number, score in enumerate(scores)}


def test_minus_is_paired_by_unit_and_leaves_out_what_only_one_has():
    before = units(*[0.0] * 20, *[1.0] * 10)
    after = {key: value for key, value in units(*[1.0] * 30).items() if key[1] != "29"}
    found = minus(after, before, ("before", "after"))
    # 29 common units: 20 wrong and 9 right before, all right after.
    assert found.value == pytest.approx(20 / 29) and found.num_units == 29 == found.num_clusters
    assert found.detail == "before 31%, after 100%" and found.low < found.value < found.high
    assert minus(before, after, ("a", "b")).value == pytest.approx(-found.value)


def test_a_weak_start_that_gains_more_is_above_zero():
    weak = (units(*[0.0] * 40), units(*[1.0] * 30, *[0.0] * 10))  # gains 30 of 40
    further = (units(*[1.0] * 20, *[0.0] * 20), units(*[1.0] * 30, *[0.0] * 10))  # gains 10 of 40
    found = gain_minus_gain(weak, further)
    assert found.value == pytest.approx(0.5) and found.low > 0
    assert found.detail == "weak start 0% to 75%, further start 50% to 75%"
    assert gain_minus_gain(further, weak).value == pytest.approx(-0.5)


def test_arithmetic_with_the_same_numbers_goes_together_and_nothing_else_does():
    items = list(make_items(["math1"], num_units=200, seed=1))
    found: dict[str, set[str]] = {}
    for item in items:
        found.setdefault(cluster_of(item), set()).add(item.cluster)
    # There are 32 held-out single operations: far fewer than prompts.
    assert len(found) < 40 < len(items) == sum(map(len, found.values()))
    (pair,) = {cluster_of(item) for item in make_items(["mapping1"], num_units=1, seed=1)}
    assert pair == "mapping1/000000"


def test_inverse_is_compared_with_forward_of_the_same_pair_of_characters():
    changes = new_characters(4, seed=0)  # two pairs
    forward, inverse = list(forward_items(changes, held_out=True)), list(inverse_items(changes))
    first = {changes[0].person.name, changes[1].person.name}
    right = Cell(forward, [None] * len(forward))
    half = Cell(inverse, [None if item.id.split("/")[1] in first else "wrong_object" for item in inverse])
    found = inverse_minus_forward(half, right)
    # All forward right; of inverse the first pair's alone: the mean over pairs is (1 + 0) / 2 - 1.
    assert found.value == pytest.approx(-0.5) and found.num_units == 2
    assert found.detail == "forward 100%, inverse 50%"


def test_an_estimate_may_be_moved_by_a_constant():
    interval = difference_interval([1.0] * 30, [0.0] * 30, range(30))
    moved = shifted(interval, -0.5, "words")
    assert (moved.value, moved.high) == (0.5, 0.5) and moved.low == pytest.approx(interval.low - 0.5)


class FirstRight(ExactJudge):
    def judge_pictures(self, items: Sequence[Item], images: Sequence[Image]) -> list[Ruling]:
        return [Ruling.correct() if int(i.id[-6:]) < 3 else Ruling.incorrect("wrong_count", "") for i in items]


def test_units_of_a_run_are_read_by_family_question_and_variant(tmp_path: Path):
    asked = EvalConfig(directions=("generation",), arms=("normal",))
    items = [make_item(n, variant="one" if n < 5 else "two") for n in range(8)]
    judge_run(evaluate(FakeModel(), items, tmp_path / "run", asked).folder, FirstRight())
    everything = read_units(tmp_path / "run", ("generation", "normal"), ["plain"])
    assert len(everything) == 8 and np.mean([score for score, _ in everything.values()]) == 3 / 8
    assert len(read_units(tmp_path / "run", ("generation", "normal"), ["plain"], ["one"])) == 5
    assert not read_units(tmp_path / "run", ("generation", "normal"), ["math1"])
    assert not read_units(tmp_path / "run", ("understanding", "normal"), ["plain"])
