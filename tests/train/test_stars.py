"""Self-training: rounds, prompts, settings, arms side by side, and going on after a real kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.fakes import FakeModel, make_item

from unigap.cli.train import stars as train_command
from unigap.disk import hold_folder
from unigap.errors import CannotAskError, TrainingError
from unigap.items import Object
from unigap.judges.exact import ExactJudge
from unigap.models.protocol import Request
from unigap.models.tiny.learning import Naming
from unigap.models.tiny.model import TinyModel
from unigap.records import RunFolder
from unigap.scenes import find_family, split_of
from unigap.train import stars
from unigap.train.files import read_folder
from unigap.train.stars import StarsConfig, deepen, fresh_items, name_between, run_arms

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "families": ("math2", "mapping1"), "units": 6, "steps": 3, "examples_per_step": 6, "checkpoint_every": 1,
    "threads": 1, "score_units": 0, "partial": 0.5, "replay": 0.34,
}  # fmt: skip


def small(out: Path, **changes: Any) -> StarsConfig:
    return StarsConfig(**SMALL | {"out": out} | changes)


# ---- the model, prompts and settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "copies"), [(None, False), (0, False), (2, False), (6, False), (None, True), (4, True)]
)
def test_layers_that_are_added_change_nothing_until_they_are_trained(after: int | None, copies: bool):
    tiny = TinyModel.from_pretrained()
    deep = TinyModel(tiny.network, tiny.tokenizer, tiny.codebook, sha256=tiny.sha256, card=tiny.card)
    deepen(deep, 2, after, copies=copies)
    assert (tiny.network.config.num_layers, deep.network.config.num_layers) == (6, 8)
    born = [i for i, block in enumerate(deep.network.blocks) if not block.out.weight.any()]  # type: ignore[union-attr]
    assert born == ([6, 7] if after is None else [after, after + 1])
    before = tiny.network.blocks[(6 if after is None else after) - 1]
    copied = [bool((deep.network.blocks[i].qkv.weight == before.qkv.weight).all()) for i in born]  # type: ignore
    assert copied == [copies, copies]
    requests = [Request(content=(f"Draw {n} cups.",)) for n in (2, 3)]
    ours, theirs = (model.draw(requests, sampling=tiny.sampling, seeds=[1, 2]) for model in (deep, tiny))
    assert [a.image.tobytes() for a in ours if a.image] == [b.image.tobytes() for b in theirs if b.image]
    with pytest.raises(CannotAskError, match="only the embedded model"):
        deepen(FakeModel(), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="after layer 7: tiny has 6"):
        deepen(tiny, 2, 7)


def test_steps_are_named_by_models_that_begin_a_picture_with_a_token_and_have_the_layers():
    with pytest.raises(ValueError, match="behind layer 7: tiny has 6"):
        name_between(TinyModel.from_pretrained(), Naming((2, 7), 1.0))
    with pytest.raises(CannotAskError, match="tiny:flow cannot name steps"):
        name_between(TinyModel.from_pretrained(Path("flow")), Naming((2,), 1.0))


def test_a_name_behind_a_layer_that_will_not_be_there_is_refused_before_anything_is_sampled(tmp_path: Path):
    settings: dict[str, Any] = {"add_layers": 1, "name_steps": 6.0}
    with pytest.raises(ValueError, match="behind layer 8: tiny has 7"):
        stars.run(small(tmp_path / "run", **settings, name_after=(2, 8)))
    assert not (tmp_path / "run" / "round-1").exists()


def test_a_run_that_names_steps_learns_from_them_and_says_so_in_the_card(tmp_path: Path, whole: Path):
    samples = whole / "round-1" / "samples"
    settings: dict[str, Any] = {"samples_in": samples, "add_layers": 1, "add_after": 2, "steps": 1}
    runs = {
        name: stars.run(small(tmp_path / name, **settings, **changes))
        for name, changes in {"plain": {}, "named": {"name_steps": 6.0, "name_after": (2, 4)}}.items()
    }
    plain, named = (TinyModel.from_pretrained(folder) for folder in runs.values())
    assert (
        named.card["learning"] == {"naming": {"after": [2, 4], "weight": 6.0, "first": False}}
        and "learning" not in plain.card
    )
    assert plain.sha256 != named.sha256
    logs = [json.loads((folder.parent / "log.jsonl").read_text().splitlines()[0]) for folder in runs.values()]
    assert logs[0]["loss_image"] == logs[1]["loss_image"]  # the same pictures, before anything was learned
    assert logs[0]["loss_text"] < logs[1]["loss_text"]  # nothing has been named there before


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
        ({"replay": 1.0}, r"replay and text_first must be in \[0, 1\)"),
        ({"text_first": 1.0}, r"replay and text_first must be in \[0, 1\)"),
        ({"partial": 1.5}, r"partial in \[0, 1\]"),
        ({"units": 0}, "at least 1"),
        ({"add_after": 2}, "add_after 2 must be at least 0, and add_layers say how many"),
        ({"add_copies": True}, "add_copies needs add_layers, and a layer before them"),
        ({"add_copies": True, "add_layers": 2, "add_after": 0}, "add_copies needs add_layers, and a layer before them"),
        ({"name_steps": 6.0}, "name_steps 6.0 must be at least 0, and above it if name_after is given"),
        ({"name_after": (4,)}, "name_steps 0.0 must be at least 0, and above it if name_after is given"),
        ({"name_steps": float("nan"), "name_after": (4,)}, "name_steps nan must be at least 0"),
        ({"name_steps": 6.0, "name_after": (4, 4)}, r"numbers of layers from 1, increasing; got \[4, 4\]"),
        ({"name_steps": 6.0, "name_after": (0, 4)}, r"numbers of layers from 1, increasing; got \[0, 4\]"),
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


@pytest.mark.slow
def test_arms_started_at_the_same_time_sample_once(tmp_path: Path):
    pytest.importorskip("fcntl")
    shared, settings = tmp_path / "samples", SMALL | {"steps": 1, "families": ("mapping1",), "units": 2, "replay": 0.0}
    command = [sys.executable, "-m", "unigap", "train", "stars", "--samples-in", str(shared), *flags(settings)]
    arms = ("stars", "oracle")
    with hold_folder(shared):  # as a third that samples does
        children = [
            subprocess.Popen(
                [*command, "--arm", arm, "--out", str(tmp_path / arm)],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for arm in arms
        ]
        for child in children:
            assert child.stderr is not None
            said = next(line for line in child.stderr if "another process" in line)
            assert said == f"another process samples in {shared}; waiting for it\n"
        assert not list(shared.iterdir())
    for child in children:
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    # Two pairs are four prompts, drawn once; what the exact judge accepted of them is what both learn from.
    assert len((shared / "records-00000.jsonl").read_bytes().splitlines()) == 4
    kept = [json.loads((tmp_path / arm / "round-1" / "kept.json").read_text())["choices"] for arm in arms]
    assert kept[0] == kept[1]


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


def test_with_text_first_answers_are_learned_before_pictures(tmp_path: Path):
    config = small(
        tmp_path, families=("math1",), units=8, steps=4, examples_per_step=4, partial=0.0, replay=0.0, text_first=0.5
    )
    stars.run(config)
    folder = RunFolder.open(tmp_path / "round-1" / "samples")
    assert {(r.direction, r.arm) for r in folder.records()} == {("understanding", "think"), ("generation", "think")}
    steps = [json.loads(line) for line in (tmp_path / "round-1" / "train" / "log.jsonl").read_text().splitlines()]
    # Half of four steps, and nothing is replayed: two of text alone, then two of pictures alone.
    assert [("loss_text" in step, "loss_image" in step) for step in steps] == [(True, False)] * 2 + [(False, True)] * 2


def test_samples_drawn_without_answers_are_continued_with_text_first_and_serve_an_arm_without_it_as_before(
    tmp_path: Path,
):
    shared = tmp_path / "samples"
    settings = {"samples_in": shared, "steps": 2, "families": ("math1",), "units": 8, "replay": 0.0}
    drawn = small(tmp_path / "drawn", **settings)
    stars.run(drawn)
    records = (shared / "records-00000.jsonl").read_bytes()
    first = small(tmp_path / "first", text_first=0.5, **settings)
    stars.run(first)
    after = (shared / "records-00000.jsonl").read_bytes()
    assert after.startswith(records) and len(after.splitlines()) == 2 * len(records.splitlines()) == 16
    again = small(tmp_path / "again", **settings)
    stars.run(again)
    (ours,), (theirs,), (said,) = (stars.read_tallies(config).values() for config in (drawn, again, first))
    assert ours == theirs and (ours.answers, ours.text_calls) == (0, 8)
    assert (said.answers, said.text_calls, said.draw_calls) == (8, 8 + 16, 8)
