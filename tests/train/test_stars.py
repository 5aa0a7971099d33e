"""Self-training: what is kept, under which prompt, what a step learns from, and going on after a real kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL.Image import Image
from safetensors.torch import load_file
from tests.fakes import FakeModel, make_item

from unigap.cli.train import stars as train_command
from unigap.errors import CannotAskError, TrainingError
from unigap.evaluate import EvalConfig, evaluate, judge_run
from unigap.items import Item, Object
from unigap.judges.exact import ExactJudge
from unigap.models.protocol import DrawOutput, Request, Sampling
from unigap.models.tiny.model import TinyModel
from unigap.models.trainable import Example
from unigap.records import Ruling, RunFolder
from unigap.scenes import find_family, split_of
from unigap.scenes.render import Grid, render
from unigap.train import stars
from unigap.train.files import read_folder
from unigap.train.stars import (
    Choice,
    StarsConfig,
    Thinning,
    choose,
    deepen,
    fresh_items,
    partial_thoughts,
    preparer,
    run_arms,
)

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "families": ("math2", "mapping1"), "units": 6, "steps": 3, "examples_per_step": 6, "checkpoint_every": 1,
    "threads": 1, "score_units": 0, "partial": 0.5, "replay": 0.34,
}  # fmt: skip


def small(out: Path, **changes: Any) -> StarsConfig:
    return StarsConfig(**SMALL | {"out": out} | changes)


# ---- what is kept ----------------------------------------------------------------------------------------------------


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


def judged(out: Path, judge: ExactJudge, *, model: FakeModel | None = None, samples: int = 1, num_items: int = 10):
    asked = EvalConfig(directions=("generation",), arms=("think",), samples=samples)
    folder = evaluate(model or FakeModel(), [make_item(n) for n in range(num_items)], out, asked).folder
    judge_run(folder, judge)
    return folder


def kept_ids(choices: Sequence[Choice]) -> list[int]:
    return [int(choice.item_id[-6:]) for choice in choices]


PLAIN = StarsConfig(families=("plain",))


def test_accepted_drawings_are_kept_and_what_the_judge_could_not_score_is_left_out_and_counted(tmp_path: Path):
    kept = choose(judged(tmp_path / "run", Picky()), "picky", PLAIN, 1)
    tally = kept.tallies["plain"]
    # Ten drawings: 0-2 unscored, 3-5 turned down, 6-9 accepted. Acceptance is 4 of the 7 that were scored.
    assert kept_ids(kept.choices["plain"]) == [6, 7, 8, 9]
    assert (tally.drawings, tally.scored, tally.accepted, tally.kept) == (10, 7, 4, 4)
    assert tally.errors == {"unscored": 3, "wrong_count": 3}
    assert tally.acceptance.rate == pytest.approx(4 / 7)
    assert (tally.text_calls, tally.draw_calls) == (10, 10)


def test_the_same_picture_for_the_same_prompt_is_kept_once(tmp_path: Path):
    repeated = choose(judged(tmp_path / "a", Picky(), model=SamePlace(), samples=3), "picky", PLAIN, 1)
    assert kept_ids(repeated.choices["plain"]) == [6, 7, 8, 9]
    assert (repeated.tallies["plain"].accepted, repeated.tallies["plain"].repeats) == (12, 8)
    # A random arrangement of 1-4 objects on nine cells is hardly ever drawn twice, so other pictures all stay.
    different = choose(judged(tmp_path / "b", Picky(), samples=3), "picky", PLAIN, 1)
    assert different.tallies["plain"].kept + different.tallies["plain"].repeats == 12
    assert different.tallies["plain"].kept >= 10


def test_without_rejection_as_many_are_kept_of_all_drawings(tmp_path: Path):
    folder = judged(tmp_path / "run", Picky(), num_items=60)
    unfiltered = choose(folder, "picky", replace(PLAIN, arm="unfiltered"), 1)
    numbers = kept_ids(unfiltered.choices["plain"])
    assert len(numbers) == len(set(numbers)) == 54  # as many as 6-59, which are accepted
    # Not the accepted ones: all six of the others are left out in 1 of C(60, 6) = 50 million draws.
    assert min(numbers) < 6


def test_nothing_accepted_stops_with_what_to_try(tmp_path: Path):
    with pytest.raises(TrainingError, match="none of 3 drawings was accepted.*wrong_count 3.*more --samples"):
        choose(judged(tmp_path / "run", Picky(), num_items=6), "picky", PLAIN, 1)


def test_a_judge_that_is_away_all_the_time_is_not_zero_acceptance(tmp_path: Path):
    with pytest.raises(TrainingError, match="could score none of 3 drawings.*asks the judge again"):
        choose(judged(tmp_path / "run", Picky(), num_items=3), "picky", PLAIN, 1)


def test_the_oracle_shows_the_answer_whatever_was_drawn(tmp_path: Path):
    folder = judged(tmp_path / "run", ExactJudge())
    oracle = choose(folder, "exact", replace(PLAIN, arm="oracle"), 1)
    drawn = choose(folder, "exact", PLAIN, 1)
    pictures = [e.image.tobytes() for e in oracle.examples("plain") if e.image]
    items = [folder.item(choice.item_id) for choice in oracle.choices["plain"]]
    rulings = ExactJudge().judge_pictures(items, [e.image for e in oracle.examples("plain") if e.image])
    assert {ruling.verdict for ruling in rulings} == {"correct"}
    assert pictures != [e.image.tobytes() for e in drawn.examples("plain") if e.image]
    assert pictures == [e.image.tobytes() for e in oracle.examples("plain") if e.image]  # the same every time


def test_pictures_that_cannot_be_exchanged_stop_the_shuffled_arm(tmp_path: Path):
    folder = judged(tmp_path / "run", Picky())  # ten items, each of an object of its own
    with pytest.raises(TrainingError, match="none of 4 accepted drawings can be exchanged.*more --units"):
        choose(folder, "picky", replace(PLAIN, arm="shuffled"), 1)


# ---- shuffled answers ------------------------------------------------------------------------------------------------


def test_shuffling_keeps_prompts_and_pictures_and_breaks_what_joins_them():
    groups = {f"item{n:02}": "cups" if n < 20 else "stars" for n in range(40)} | {"alone": "moons"}
    choices = [Choice(name, 0, name, 0) for name in groups]
    shuffled = stars._shuffle(choices, groups, random.Random(0))
    assert [choice.item_id for choice in shuffled] == sorted(groups.keys() - {"alone"})  # its picture would stay
    pictures = [choice.picture_item_id for choice in shuffled]
    assert Counter(pictures) == Counter(choice.item_id for choice in shuffled)
    assert all(groups[choice.item_id] == groups[choice.picture_item_id] for choice in shuffled)
    # A random permutation of n has one fixed point on average: two in two groups of 20.
    assert sum(choice.item_id == choice.picture_item_id for choice in shuffled) <= 8


def test_pictures_are_exchanged_where_the_sentence_does_not_tell_the_answer():
    count = make_item(3)
    half = make_item(1, family="mapping1", unit="mapping1/000000", answer=Object(object="cup"))
    assert stars._group(count) == stars._group(make_item(3 + 32)) != stars._group(make_item(4))  # the same object
    assert stars._group(half) == "mapping1/000000"


# ---- what a step learns from -----------------------------------------------------------------------------------------


def test_a_partial_thought_leaves_at_least_the_last_step_to_be_made():
    assert partial_thoughts("9 - 5 = 4\n4 + 1 = 5\nDraw 5 cups.") == ["9 - 5 = 4"]
    assert partial_thoughts("A means 7\n7 means #\n# means cup\nDraw 1 cup.") == ["A means 7", "A means 7\n7 means #"]
    assert partial_thoughts("9 - 5 = 4\nDraw 4 cups.") == partial_thoughts("Draw 4 cups.") == partial_thoughts("") == []


class Word(str):
    """A row that is easy to read."""

    id = property(lambda self: str(self))
    num_tokens = property(len)


ROWS = {
    "math1": [[Word(f"a{n}")] for n in range(5)],
    "math2": [[Word(f"b{n}"), Word(f"b{n}+1"), Word(f"b{n}+2")] for n in range(5)],
}


def test_what_a_place_holds_is_a_function_of_seed_and_place():
    source = Thinning(ROWS, identity="x", seed=0, partial=0.5)
    assert source.take(0, 30) == [
        row for start in (0, 7, 29) for row in source.take(start, {0: 7, 7: 22, 29: 1}[start])
    ]
    assert source.take(0, 30) != Thinning(ROWS, identity="x", seed=1, partial=0.5).take(0, 30)


def test_the_share_of_partial_thoughts_is_that_of_examples_that_have_one():
    def share(partial: float) -> float:
        rows = Thinning(ROWS, identity="x", seed=0, partial=partial).take(0, 2000)
        return sum("+" in row for row in rows) / sum(row.startswith("b") for row in rows)

    assert (share(0), share(1)) == (0, 1)
    assert share(0.3) == pytest.approx(0.3, abs=0.05)  # about 1000 of them: a standard error of 0.015


def test_a_curriculum_lets_the_families_in_one_by_one():
    source = Thinning(ROWS, identity="x", seed=0, stages=200)
    assert {row[0] for row in source.take(0, 100)} == {"a"}
    assert {row[0] for row in source.take(100, 100)} == {"a", "b"}
    assert source.families_at(10_000) == ("math1", "math2")
    assert source.identity != Thinning(ROWS, identity="x", seed=0).identity


@pytest.fixture(scope="module")
def tiny() -> TinyModel:
    return TinyModel.from_pretrained()


def test_the_embedded_model_learns_a_cell_as_the_share_of_what_is_left(tiny: TinyModel):
    grid = Grid(("cup", None, None, None, None, None, None, None, "cup"))
    example = Example(id="x", content=("Draw 2 cups.",), image=render(grid))
    plain, row = tiny.prepare(example), preparer(tiny)(example)
    assert row.ids == plain.ids and row.id == "x"
    (cup, empty), other = sorted(row.targets[-18], key=lambda pair: pair[1]), row.targets[-2:]
    assert (cup[1], empty[1]) == pytest.approx((2 / 9, 7 / 9))  # two cups are left for nine cells
    assert cup[0] == row.ids[-18]
    assert [pairs[0][1] for pairs in other] == [1.0, 1.0]  # one cup for one cell, and its lower half


def test_a_picture_that_is_no_scene_is_learned_as_it_is(tiny: TinyModel):
    halves = [render(Grid((name, *[None] * 8))) for name in ("cup", "ball")]
    image = halves[0].copy()
    image.paste(halves[1].crop((0, 4, 8, 8)), (0, 4))  # the upper half of a cup on the lower half of a ball
    example = Example(id="x", content=("Draw it.",), image=image)
    assert preparer(tiny)(example) == tiny.prepare(example)


def test_layers_on_top_change_nothing_until_they_are_trained(tiny: TinyModel):
    deep = TinyModel(tiny.network, tiny.tokenizer, tiny.codebook, sha256=tiny.sha256, card=tiny.card)
    deepen(deep, 2)
    assert (tiny.network.config.num_layers, deep.network.config.num_layers) == (6, 8)
    requests = [Request(content=(f"Draw {n} cups.",)) for n in (2, 3)]
    ours, theirs = (model.draw(requests, sampling=tiny.sampling, seeds=[1, 2]) for model in (deep, tiny))
    assert [a.image.tobytes() for a in ours if a.image] == [b.image.tobytes() for b in theirs if b.image]
    with pytest.raises(CannotAskError, match="only the embedded model"):
        deepen(FakeModel(), 2)  # type: ignore[arg-type]


# ---- prompts and settings --------------------------------------------------------------------------------------------


def test_prompts_are_of_the_training_split_and_no_prompt_comes_in_two_rounds(tmp_path: Path):
    first, second = (fresh_items(small(tmp_path, families=("mapping1",), units=30), number) for number in (1, 2))
    assert len({item.prompt for item in first + second}) == len(first) + len(second) == 2 * 2 * 30
    answers = [(item.answer, item.other) for item in first + second]
    pairs = {" ".join(sorted(a.object for a in both if isinstance(a, Object))) for both in answers}
    # With a fifth of all pairs in the test split, 50 or so of any split would all be train with 0.8^50 = 1 in 70,000.
    assert len(pairs) > 40
    assert {split_of("mapping1", pair, find_family("mapping1").test_share) for pair in pairs} == {"train"}


def test_a_family_with_too_few_prompts_is_refused_with_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stars, "make_units", lambda *args, **more: iter([(make_item(0),)] * 7))
    with pytest.raises(ValueError, match="plain has only 7 distinct units.*round 2 needs 6 to 12"):
        fresh_items(small(tmp_path, families=("plain",)), 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": ("math1", "math1")}, "named once each"),
        ({"replay": 1.0}, r"replay must be in \[0, 1\)"),
        ({"partial": 1.5}, r"partial in \[0, 1\]"),
        ({"units": 0}, "at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        small(tmp_path, **changes)


def test_a_model_that_cannot_be_trained_is_refused(tmp_path: Path):
    with pytest.raises(CannotAskError, match="cannot be trained"):
        stars.run(small(tmp_path, model="tests.train.test_stars:Untrained"))


class Untrained(FakeModel):
    @classmethod
    def from_pretrained(cls, folder: Path | None, *, device: str, dtype: object) -> "Untrained":
        return cls()


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("stars") / "run"
    stars.run(small(out, rounds=2))
    return out


def weights(out: Path) -> dict[str, bytes]:
    path = out / "round-2" / "train" / "model" / "model.safetensors"
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


def test_each_round_samples_from_the_model_of_the_round_before(whole: Path):
    base, first, second = (
        TinyModel.from_pretrained(folder).sha256 for folder in (None, *sorted(whole.glob("round-*/train/model")))
    )
    identities = [RunFolder.open(whole / f"round-{number}" / "samples").identity.model.sha256 for number in (1, 2)]
    assert identities == [base, first] and len({base, first, second}) == 3


def test_the_data_folder_holds_the_accepted_pictures_under_their_prompts_without_thoughts(whole: Path):
    examples, _ = read_folder(whole / "round-1" / "data")
    folder = RunFolder.open(whole / "round-1" / "samples")
    of_prompt = {item.prompt: item for item in folder.items()}
    choices = json.loads((whole / "round-1" / "kept.json").read_text())["choices"]
    assert len(examples) == sum(map(len, choices.values())) > 12
    assert all(example.thought is None for example in examples)
    items = [of_prompt[str(example.content[0])] for example in examples]
    rulings = ExactJudge().judge_pictures(items, [example.image for example in examples if example.image])
    assert {ruling.verdict for ruling in rulings} == {"correct"}


def test_the_card_says_what_was_sampled_and_which_drawings_are_now_trained(whole: Path):
    model = TinyModel.from_pretrained(whole / "round-1" / "train" / "model")
    assert model.trained_on["math2"] == "direct" and model.trained_on["math3"] == "parts"
    assert model.card["stars"]["sampled"]["mapping1"]["drawings"] == 12  # six pairs
    assert model.card["stars"]["arm"] == "stars"


def test_a_folder_of_other_settings_is_refused_and_more_rounds_are_not_other_settings(whole: Path):
    with pytest.raises(TrainingError, match="other settings.*seed: 0 there, 1 here"):
        stars.run(small(whole, rounds=2, seed=1))
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    assert stars.run(small(whole, rounds=2, checkpoint_every=2)) == whole / "round-2" / "train" / "model"
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}


def test_continued_pretraining_samples_nothing(tmp_path: Path):
    stars.run(small(tmp_path / "run", arm="continued", steps=1))
    assert not (tmp_path / "run" / "round-1" / "samples").exists()
    model = TinyModel.from_pretrained(tmp_path / "run" / "round-1" / "train" / "model")
    assert model.trained_on["math2"] == "parts"


def test_arms_can_share_their_samples_and_learn_from_the_same_drawings(tmp_path: Path):
    shared = tmp_path / "samples"
    settings = {"samples_in": shared, "steps": 1, "families": ("mapping1",)}
    arms = [small(tmp_path / arm, arm=arm, **settings) for arm in ("stars", "shuffled")]
    stars.run(arms[0])
    records = (shared / "records-00000.jsonl").read_bytes()
    stars.run(arms[1])
    assert (shared / "records-00000.jsonl").read_bytes() == records
    kept = [json.loads((arm.out / "round-1" / "kept.json").read_text())["choices"]["mapping1"] for arm in arms]
    assert all(prompt == picture for prompt, _, picture, _ in kept[0])
    assert {tuple(choice[:2]) for choice in kept[0]} == {tuple(choice[:2]) for choice in kept[1]}
    assert not (arms[1].out / "round-1" / "samples").exists()


def test_every_arm_is_measured_on_the_same_held_out_items_beside_the_model_before(tmp_path: Path):
    arm = small(tmp_path / "arm", arm="continued", steps=1, score_units=3, score_families=("math2",))
    runs = run_arms({"more": arm}, tmp_path / "measured")
    folders = [RunFolder.open(path) for path in runs.values()]
    assert list(runs) == ["before", "more"]
    assert [item.id for item in folders[0].items()] == [item.id for item in folders[1].items()]
    assert folders[0].identity.model.sha256 == TinyModel.from_pretrained().sha256 != folders[1].identity.model.sha256
    assert {len(folder.verdicts("exact")) for folder in folders} == {
        3 * 4
    }  # text and drawing, at once and after thought


def test_the_command_prints_what_sampling_cost_and_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = SMALL | {"families": ("mapping1",), "steps": 1, "score_units": 2}
    train_command(["--out", str(tmp_path), *flags(settings)])
    printed = capsys.readouterr().out
    assert "round 1, mapping1: 12 drawings, accepted" in printed and "12 text calls and 12 drawings in" in printed
    assert "before" in printed and "after" in printed and "counting" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    (sampled,) = report["sampling"]
    assert sampled["text_calls"] == sampled["draw_calls"] == 12 and sampled["seconds"] > 0
    assert sampled["kept"] == sampled["accepted"] == round(sampled["acceptance"][0] * 12)
    assert report["runs"]["after"]["families"]["mapping1"]["generation"]["normal"]["scored"] == 2


def flags(settings: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in settings.items():
        found += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else [value])]
    return found


def start(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "unigap", "train", "stars", "--out", str(out), *flags(SMALL | {"rounds": 2})]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_once(out: Path, seen: str) -> None:
    """Start the run and kill it as soon as a file of that pattern is there and not empty."""
    child = start(out)
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in out.glob(seen)):
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()[0]
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.mark.slow
def test_a_run_that_was_killed_while_sampling_and_while_training_ends_as_if_it_had_not_been(
    tmp_path: Path, whole: Path
):
    out = tmp_path / "run"
    kill_once(out, "round-1/samples/records-*.jsonl")
    kill_once(out, "round-2/train/checkpoint.safetensors")
    child = start(out)
    output, _ = child.communicate(timeout=240)
    assert child.returncode == 0, output
    assert "round 2, mapping1: 12 drawings, accepted" in output
    assert weights(out) == weights(whole)
    for number in (1, 2):
        kept = [
            json.loads((folder / f"round-{number}" / "kept.json").read_text())["choices"] for folder in (out, whole)
        ]
        assert kept[0] == kept[1]
