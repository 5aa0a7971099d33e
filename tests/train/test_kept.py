"""What a round of self-training keeps, and under which prompt."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL.Image import Image
from tests.fakes import FakeModel, make_item

from unigap.errors import TrainingError
from unigap.evaluate import EvalConfig, evaluate
from unigap.items import Item, Object
from unigap.judges.exact import ExactJudge
from unigap.judging import judge_run
from unigap.models.protocol import DrawOutput, Request, Sampling, TextOutput
from unigap.records import Ruling, RunFolder
from unigap.train.kept import Arm, Choice, Kept, _group, _shuffle, choose, load_kept, save_kept, with_answers


class Picky(ExactJudge):
    """Accepts as the exact judge does, but is away for items 0-2, and turns 3-5 down."""

    name = "picky"

    def judge_pictures(self, items: Sequence[Item], images: Sequence[Image]) -> list[Ruling]:
        return [
            self._rule(int(item.id[-6:]), ruling) for item, ruling in zip(items, super().judge_pictures(items, images))
        ]

    def _rule(self, number: int, ruling: Ruling) -> Ruling:
        if number < 3:
            return Ruling.unscored("timeout: no reply")
        return Ruling.incorrect("wrong_count", "as you like") if number < 6 else ruling


class SamePlace(FakeModel):
    """Puts the objects of every drawing in the same places, so that two drawings of a prompt are one picture."""

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        return super().draw(requests, sampling=sampling, seeds=[1] * len(seeds))


class Thinker(FakeModel):
    """Thinks in two steps of the first item, in one of the second."""

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        said = super().answer(requests, sampling=sampling, seeds=seeds)
        steps = ("9 - 5 = 4\n4 + 1 = 5", "7 means cup\n")
        return [
            replace(output, text=f"{step}\n{(output.text or '').splitlines()[1]}")
            for output, step in zip(said, steps, strict=True)
        ]


def judged(out: Path, judge: ExactJudge, *, model: FakeModel | None = None, samples: int = 1, num_items: int = 10):
    asked = EvalConfig(directions=("generation",), arms=("think",), samples=samples)
    folder = evaluate(model or FakeModel(), [make_item(n) for n in range(num_items)], out, asked).folder
    judge_run(folder, judge)
    return folder


def kept_ids(choices: Sequence[Choice]) -> list[int]:
    return [int(choice.item_id[-6:]) for choice in choices]


def chosen(folder: RunFolder, judge: str, arm: Arm = "stars") -> Kept:
    return choose(folder, judge, ("plain",), arm=arm, seed=0, number=1)


def test_accepted_drawings_are_kept_and_what_the_judge_could_not_score_is_left_out_and_counted(tmp_path: Path):
    kept = chosen(judged(tmp_path / "run", Picky()), "picky")
    tally = kept.tallies["plain"]
    # Ten drawings: 0-2 unscored, 3-5 turned down, 6-9 accepted. Acceptance is 4 of the 7 that were scored.
    assert kept_ids(kept.choices["plain"]) == [6, 7, 8, 9]
    assert (tally.drawings, tally.scored, tally.accepted, tally.kept) == (10, 7, 4, 4)
    assert tally.errors == {"unscored": 3, "wrong_count": 3}
    assert tally.acceptance.rate == pytest.approx(4 / 7)
    assert (tally.text_calls, tally.draw_calls) == (10, 10)


def test_the_same_picture_for_the_same_prompt_is_kept_once(tmp_path: Path):
    repeated = chosen(judged(tmp_path / "a", Picky(), model=SamePlace(), samples=3), "picky")
    assert kept_ids(repeated.choices["plain"]) == [6, 7, 8, 9]
    assert (repeated.tallies["plain"].accepted, repeated.tallies["plain"].repeats) == (12, 8)
    # A random arrangement of 1-4 objects on nine cells is hardly ever drawn twice, so other pictures all stay.
    different = chosen(judged(tmp_path / "b", Picky(), samples=3), "picky")
    assert different.tallies["plain"].kept + different.tallies["plain"].repeats == 12
    assert different.tallies["plain"].kept >= 10


def test_without_rejection_as_many_are_kept_of_all_drawings(tmp_path: Path):
    folder = judged(tmp_path / "run", Picky(), num_items=60)
    unfiltered = chosen(folder, "picky", "unfiltered")
    numbers = kept_ids(unfiltered.choices["plain"])
    assert len(numbers) == len(set(numbers)) == 54  # as many as 6-59, which are accepted
    # Not the accepted ones: all six of the others are left out in 1 of C(60, 6) = 50 million draws.
    assert min(numbers) < 6


def test_nothing_accepted_stops_with_what_to_try(tmp_path: Path):
    with pytest.raises(TrainingError, match="none of 3 drawings was accepted.*wrong_count 3.*more --samples"):
        chosen(judged(tmp_path / "run", Picky(), num_items=6), "picky")


def test_a_judge_that_is_away_all_the_time_is_not_zero_acceptance(tmp_path: Path):
    with pytest.raises(TrainingError, match="could score none of 3 drawings.*asks the judge again"):
        chosen(judged(tmp_path / "run", Picky(), num_items=3), "picky")


def test_samples_of_another_family_are_refused_by_name(tmp_path: Path):
    folder = judged(tmp_path / "run", Picky(), num_items=7)
    with pytest.raises(TrainingError, match="holds drawings of plain, which is not among math1, math2; .*--samples-in"):
        choose(folder, "picky", ("math1", "math2"), arm="stars", seed=0, number=1)


def test_the_oracle_shows_the_answer_whatever_was_drawn(tmp_path: Path):
    folder = judged(tmp_path / "run", ExactJudge())
    oracle = chosen(folder, "exact", "oracle")
    drawn = chosen(folder, "exact")
    pictures = [e.image.tobytes() for e in oracle.examples("plain") if e.image]
    items = [folder.item(choice.item_id) for choice in oracle.choices["plain"]]
    rulings = ExactJudge().judge_pictures(items, [e.image for e in oracle.examples("plain") if e.image])
    assert {ruling.verdict for ruling in rulings} == {"correct"}
    assert pictures != [e.image.tobytes() for e in drawn.examples("plain") if e.image]
    assert pictures == [e.image.tobytes() for e in oracle.examples("plain") if e.image]  # the same every time


def test_pictures_that_cannot_be_exchanged_stop_the_shuffled_arm(tmp_path: Path):
    folder = judged(tmp_path / "run", Picky())  # ten items, each of an object of its own
    with pytest.raises(TrainingError, match="none of 4 accepted drawings can be exchanged.*more --units"):
        chosen(folder, "picky", "shuffled")


# ---- shuffled answers ------------------------------------------------------------------------------------------------


def test_the_results_are_those_of_the_thought_that_the_picture_was_drawn_from(tmp_path: Path):
    folder = judged(tmp_path / "run", ExactJudge(), model=Thinker(), num_items=2)
    kept = chosen(folder, "exact")
    first, second = kept.choices["plain"]
    assert list(kept.results("plain")) == [["4", "5"], ["cup"]]
    exchanged = [first._replace(picture_item_id=second.item_id), second._replace(picture_item_id=first.item_id)]
    shuffled = Kept(folder, {"plain": exchanged}, kept.tallies, oracle=False, seed=0)
    assert list(shuffled.results("plain")) == [["cup"], ["4", "5"]]


def test_shuffling_keeps_prompts_and_pictures_and_breaks_what_joins_them():
    groups = {f"item{n:02}": "cups" if n < 20 else "stars" for n in range(40)} | {"alone": "moons"}
    choices = [Choice(name, 0, name, 0) for name in groups]
    shuffled = _shuffle(choices, groups, random.Random(0))
    assert [choice.item_id for choice in shuffled] == sorted(groups.keys() - {"alone"})  # its picture would stay
    pictures = [choice.picture_item_id for choice in shuffled]
    assert Counter(pictures) == Counter(choice.item_id for choice in shuffled)
    assert all(groups[choice.item_id] == groups[choice.picture_item_id] for choice in shuffled)
    # A random permutation of n has one fixed point on average: two in two groups of 20.
    assert sum(choice.item_id == choice.picture_item_id for choice in shuffled) <= 8


def test_pictures_are_exchanged_where_the_sentence_does_not_tell_the_answer():
    count = make_item(3)
    half = make_item(1, family="mapping1", unit="mapping1/000000", answer=Object(object="cup"))
    assert _group(count) == _group(make_item(3 + 32)) != _group(make_item(4))  # the same object
    assert _group(half) == "mapping1/000000"


def test_answers_given_after_a_thought_are_kept_where_they_are_right_each_once(tmp_path: Path):
    asked = EvalConfig(directions=("understanding", "generation"), arms=("think",), samples=2)
    items = [make_item(n) for n in range(4)]
    folder = evaluate(FakeModel(), items, tmp_path / "run", asked).folder
    judge_run(folder, ExactJudge())
    verdicts = folder.verdicts("exact")
    said = [r for r in folder.records() if r.direction == "understanding"]
    right = {r.item_id: r.text for r in said if (v := verdicts.get(r.key)) and v.verdict == "correct"}
    drawn = choose(folder, "exact", ("plain",), arm="stars", seed=0, number=1)
    chosen = with_answers(drawn, "exact")
    kept = list(chosen.said("plain"))
    # The fake answers alike in both samples, so two records of an item are one example.
    assert {example.id.partition("#")[0]: example.answer for example in kept} == right
    assert len(kept) == len(right) > 0
    assert all(example.content[-1] == folder.item(example.id.partition("#")[0]).question for example in kept)
    # Eight drawings cost a thought each; eight answers, a thought and an answer each.
    before, after = drawn.tallies["plain"], chosen.tallies["plain"]
    assert (before.drawings, before.answers, before.text_calls) == (8, 0, 8)
    assert (after.drawings, after.answers, after.answers_kept, after.text_calls) == (8, 8, len(right), 24)
    assert after.seconds > before.seconds and f"8 answers in text, {len(right)} kept; 24 text calls" in str(after)
    save_kept(tmp_path / "kept.json", chosen)
    again = load_kept(tmp_path / "kept.json", folder.path, arm="stars", seed=0)
    assert [example.id for example in again.said("plain")] == [example.id for example in kept]


def test_answers_nobody_scored_are_told_from_answers_nobody_accepted(tmp_path: Path):
    class Away(ExactJudge):
        def judge_text(self, item: Item, text: str) -> Ruling:
            return Ruling.unscored("timeout: no reply")

    class Strict(ExactJudge):
        def judge_text(self, item: Item, text: str) -> Ruling:
            return Ruling.incorrect("wrong_count", "as you like")

    asked = EvalConfig(directions=("understanding", "generation"), arms=("think",))
    cases = [("away", Away, "could score none of 4 answers in text.*asks the judge again")]
    cases += [("strict", Strict, "none of 4 answers in text was accepted.*leave --text-first out")]
    for name, judge, message in cases:
        folder = evaluate(FakeModel(), [make_item(n) for n in range(4)], tmp_path / name, asked).folder
        judge_run(folder, judge())
        with pytest.raises(TrainingError, match=message):
            with_answers(chosen(folder, "exact"), "exact")
    silent = judged(tmp_path / "silent", ExactJudge(), num_items=4)  # drawings alone
    with pytest.raises(TrainingError, match="none of 0 answers in text was accepted"):
        with_answers(chosen(silent, "exact"), "exact")
