"""Patching a model whose drawing is a known function of one state."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.probe.known import KnownInspector, KnownModel

from unigap.items import Item
from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Submission
from unigap.models.inspection import Look
from unigap.models.protocol import Request
from unigap.probe.facets import draw_items
from unigap.probe.patching import Bench, choose_trials
from unigap.records import Ruling

ITEMS = draw_items("plain", 120, seed=0, split="train")


def look_and_bench(model: KnownModel, judge=None) -> tuple[Look, Bench]:
    requests = [Request(content=(item.prompt,), purpose="draw") for item in ITEMS]
    inspector, seeds = KnownInspector(model), list(range(len(ITEMS)))
    look = inspector.look(requests, sampling=model.sampling, seeds=seeds)
    trials = choose_trials(ITEMS, 40)
    return look, Bench(inspector, judge or ExactJudge(), ITEMS, requests, seeds, trials, model.sampling)


def test_where_the_picture_is_decided_it_follows_the_donor():
    look, bench = look_and_bench(KnownModel())
    found = bench.put(look.states[0].at(["end"]))
    rates = (found.follows, found.control, found.untouched, found.donor, found.keeps)
    assert [rate.rate for rate in rates] == [1, 0, 0, 1, 0]
    assert found.difference.rate == 1 and found.difference.low > 0.7 and found.follows.num_units == 40


def test_where_it_is_not_nothing_follows():
    look, bench = look_and_bench(KnownModel())
    for states in (look.states[0].at(["end-3", "end-2", "end-1"]), look.states[1]):
        found = bench.put(states)
        assert (found.follows.rate, found.control.rate, found.keeps.rate) == (0, 0, 1)
        assert found.difference.low < 0 < found.difference.high


def test_a_model_that_obeys_half_the_time_follows_half_the_time():
    model = KnownModel()
    model.obeys = 0.5
    look, bench = look_and_bench(model)
    found = bench.put(look.states[0].at(["end"]))
    assert found.follows.rate + found.keeps.rate == pytest.approx(1)
    assert found.follows.low < 0.5 < found.follows.high and found.difference.low > 0.2


def test_trials_differ_in_the_answer_alone():
    trials = choose_trials(ITEMS, 40)
    assert len({trial.receiver for trial in trials}) == 40
    for trial in trials:
        own, donor, control = (ITEMS[row].answer for row in (trial.receiver, trial.donor, trial.control))
        assert own.object == donor.object == control.object  # type: ignore[union-attr]
        assert donor.n not in (own.n, control.n) and trial.control != trial.receiver  # type: ignore[union-attr]
    assert choose_trials(ITEMS, 40) == trials != choose_trials(ITEMS, 40, seed=1)


def test_the_donor_of_half_a_pair_is_the_other_half_and_the_control_names_neither():
    items = draw_items("mapping1", 100, seed=0, split="test")
    trials = choose_trials(items, 100)
    assert len(trials) == 100
    for trial in trials:
        own, donor, control = (items[row] for row in (trial.receiver, trial.donor, trial.control))
        assert own.unit == donor.unit != control.unit and donor.answer == own.other
        assert donor.answer not in (control.answer, control.other)


def test_items_of_one_answer_have_no_trials():
    alike = [replace(item, answer=ITEMS[0].answer) for item in ITEMS]
    assert choose_trials(alike, 10) == []


class BrokenJudge(ExactJudge):
    """Fails at every other picture of each call."""

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        rulings = super().judge(submissions)
        return [Ruling.unscored("timeout") if row % 2 else ruling for row, ruling in enumerate(rulings)]


class DeadJudge(ExactJudge):
    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        return [Ruling.unscored("timeout") for _ in submissions]


def test_what_the_judge_fails_at_counts_nowhere():
    look, bench = look_and_bench(KnownModel(), BrokenJudge())
    found = bench.put(look.states[0].at(["end"]))
    assert (found.unscored, found.follows.num_units, found.follows.rate) == (20, 20, 1)
    look, bench = look_and_bench(KnownModel(), DeadJudge())
    with pytest.raises(ValueError, match="none of 40 trials"):
        bench.put(look.states[0].at(["end"]))


def test_targets_are_asked_of_the_receivers_object():
    bench = look_and_bench(KnownModel())[1]
    asked: Item = bench.targets[0]
    trial = bench.trials[0]
    assert asked.id == ITEMS[trial.receiver].id and asked.answer == ITEMS[trial.donor].answer
