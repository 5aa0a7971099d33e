"""The page of a GvU run, from its logs."""

import json
import re
from pathlib import Path

import pytest

from unigap.report.reward_curves import read_curves, write_reward_page

CONFIG = ("group_size", "prompts_per_step", "updates_per_rollout", "advantage", "kl_coef", "lr", "seed")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """20 steps with rewards .1 to 2.0 in tenths; the watched prompts at steps 0 and 20: 1 of 4 right, then 3 of 4."""
    folder = tmp_path / "<run>"
    folder.mkdir()
    steps = [{"step": k, "reward": (k + 1) / 10, "kl": 0.01 * k, "entropy": 0.5, "distinct": 1.0} for k in range(20)]
    looks = [
        {"step": step, "monitor/exact unreadable": 0.25, "values": {"reward": [0.2, 0.4, 0.6, 0.8], "exact": right}}
        for step, right in ((0, [1.0, 0.0, 0.0, 0.0]), (20, [1.0, 1.0, 1.0, 0.0]))
    ]
    for name, lines in (("log.jsonl", steps), ("monitor.jsonl", looks)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    about = {"reward": "geometric_mean by <tiny>", "base": "0" * 64, "config": dict.fromkeys(CONFIG, 1)}
    (folder / "run.json").write_text(json.dumps(about))
    return folder


def test_points_follow_from_the_logs(run: Path):
    page = read_curves(run)
    training, watched, right, unreadable = page.outside
    # Means of ten steps: (.1 + ... + 1.0) / 10 = .55 at step 5, (1.1 + ... + 2.0) / 10 = 1.55 at step 15.
    assert [(p.step, round(p.rate, 6)) for p in training.points] == [(5, 0.55), (15, 1.55)]
    assert [p.rate for p in watched.points] == [pytest.approx(0.5)] * 2
    # 1 of 4, Wilson's formula with Student's t of 3 degrees, 3.182, as for few units: c = t^2 / n = 2.532;
    # (.25 + 1.266 -+ sqrt(2.532 (.1875 + .633))) / 3.532 = .0211 to .8373 without the design effect of 4 / 3.
    low, high = right.points[0].low, right.points[0].high
    assert right.points[0].rate == 0.25 and low < 0.0211 and high > 0.8373 and right.points[1].rate == 0.75
    assert [p.rate for p in unreadable.points] == [0.25, 0.25]


def test_the_page_shows_them_and_escapes_names(run: Path):
    text = write_reward_page(run).read_text()
    assert "<tiny>" not in text and "geometric_mean by &lt;tiny&gt;" in text
    assert "right by exact: 25% at first, 75% at last" in text
    # x: steps 0 and 20 of 20; y: 1000 (1 - rate).
    assert "0.0,750.0 1000.0,250.0" in re.findall(r'<polyline class="curve" points="([^"]*?) ?"', text)


def test_a_prompt_that_could_not_be_read_leaves_the_rate(run: Path):
    lines = (run / "monitor.jsonl").read_text().replace("[1.0, 1.0, 1.0, 0.0]", "[1.0, null, 1.0, 0.0]")
    (run / "monitor.jsonl").write_text(lines)
    assert read_curves(run).outside[2].points[1].rate == pytest.approx(2 / 3)


def test_a_folder_without_logs_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no log.jsonl and monitor.jsonl"):
        read_curves(tmp_path)
