"""How well a reward tells right from wrong, by hand and in chance."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.fakes import make_item

from unigap.judges.exact import ExactJudge
from unigap.records import Ruling
from unigap.train.reward_check import EVERY, Auc, RewardCheck, check_reward, print_check


class Given:
    """Rewards and rulings as written in the pixels: red is the reward in hundredths, green the mistake."""

    name = "given"
    mistakes = ("", "wrong_count", "wrong_object", "unscored")

    def grade(self, items, images):
        return np.array([np.nan if image.getpixel((0, 0))[0] == 255 else image.getpixel((0, 0))[0] for image in images])


class GivenJudge(ExactJudge):
    def judge(self, submissions):
        codes = [Given.mistakes[one.image.getpixel((0, 0))[1]] for one in submissions]
        rulings = {"": Ruling.correct(), "unscored": Ruling.unscored("timeout")}
        return [rulings.get(code) or Ruling.incorrect(code, "") for code in codes]


def drawing(reward: int, mistake: str = "") -> Image.Image:
    return Image.new("RGB", (1, 1), (reward, Given.mistakes.index(mistake), 0))


def check(*groups: list[Image.Image], variants: str = "") -> RewardCheck:
    items = [make_item(k, variant=variants[k : k + 1]) for k in range(len(groups))]
    return check_reward(Given(), GivenJudge(), items, groups)


def only(found: RewardCheck, error: str = EVERY, kind: str = "plain") -> Auc:
    (auc,) = [auc for auc in found.aucs if (auc.kind, auc.error) == (kind, error)]
    return auc


def test_pairs_within_a_prompt_are_pooled_and_ties_count_one_half():
    # Prompt 0: right 5, 3; wrong 3, 1: wins 5>3, 5>1, 3=3 (half), 3>1: 3.5 of 4.
    # Prompt 1: right 90; wrong 95: 0 of 1. Across prompts 90 > 3 would be a win: it is no pair. 3.5 / 5 = .7.
    found = check(
        [drawing(5), drawing(3), drawing(3, "wrong_count"), drawing(1, "wrong_count")],
        [drawing(90), drawing(95, "wrong_object")],
    )
    auc = only(found)
    assert (auc.auc, auc.num_pairs, auc.num_prompts) == (pytest.approx(0.7), 5, 2)
    # Each mistake against all right drawings of its prompt.
    assert only(found, "wrong_count").auc == pytest.approx(3.5 / 4) and only(found, "wrong_object").auc == 0
    assert found.rates == {"plain": 3 / 6} and found.errors["plain"] == {"wrong_count": 2, "wrong_object": 1}


def test_prompts_with_only_right_or_only_wrong_drawings_say_nothing():
    found = check([drawing(5), drawing(3)], [drawing(5, "wrong_count")])
    assert np.isnan(only(found).auc) and only(found).num_pairs == 0


def test_kinds_of_prompts_have_rows_of_their_own():
    right_first, wrong_first = [drawing(9), drawing(1, "wrong_count")], [drawing(1), drawing(9, "wrong_count")]
    found = check(right_first, wrong_first, variants="ab")
    assert [only(found, kind=kind).auc for kind in (EVERY, "plain a", "plain b")] == [0.5, 1, 0]


def test_what_has_no_grade_or_no_verdict_is_counted_and_in_no_pair():
    found = check([drawing(9), drawing(255), drawing(8, "unscored"), drawing(1, "wrong_count")])
    assert (found.num_drawings, found.num_ungraded, only(found).num_pairs) == (4, 2, 1)


def test_intervals_of_a_grader_that_guesses_hold_one_half():
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(40):
        groups = [
            [drawing(int(rng.integers(250)), "wrong_count" if rng.random() < 0.5 else "") for _ in range(8)]
            for _ in range(30)
        ]
        items = [make_item(k) for k in range(30)]
        auc = only(check_reward(Given(), GivenJudge(), items, groups, seed=seed))
        held += auc.low <= 0.5 <= auc.high
    assert held >= 33  # 38 of 40 expected; 32 or fewer has probability .003


def test_a_grader_that_cannot_see_a_mistake_is_named():
    groups = [[drawing(9), drawing(1, "wrong_object"), drawing(9, "wrong_count")] for _ in range(5)]
    found = check(*groups)
    out = io.StringIO()
    print_check(found, Console(file=out, width=200))
    assert "does not tell wrong_count from what is right (AUC 0.50" in out.getvalue()
    assert "does not tell wrong_object" not in out.getvalue()
    assert json.loads(json.dumps(found.to_json()))["reward"] == "given"
