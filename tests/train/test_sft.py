"""`unigap train sft`: a folder of files in, a model folder out that the evaluation reads."""

import json
import re
from pathlib import Path

import pytest
from tests.train.small import SETTINGS, picture, small_model

from unigap.cli import main
from unigap.models.tiny.model import TinyModel
from unigap.train.files import write_conversations, write_prompt_images
from unigap.train.metrics import read_log
from unigap.train.sft import SFTConfig

FLAGS = (
    "checkpoint-every data decay-from dtype ema-decay examples-per-step lora-alpha lora-dropout lora-rank lr "
    "max-grad-norm max-warmup-steps model muon-lr optimizer out replay seed snapshot-every steps threads "
    "tokens-per-batch track trained-on trains warmup-share weight-decay"
)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    small_model().save_pretrained(folder, {"trained_on": {"plain": "direct", "math1": "parts"}})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_prompt_images(folder / "cups.parquet", [(f"Draw {n} cups.", picture("cup", n)) for n in (1, 2, 3, 4)])
    write_conversations(folder / "sums.jsonl", [(f"How many are {n} plus 1?", f"{n + 1} cups") for n in range(6)])
    return folder


def settings(base: Path, out: Path, *more: object) -> list[object]:
    small = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", value)]
    return ["train", "sft", "--model", f"tiny:{base}", "--out", out, *small, *more]


def test_flags_are_frozen(capsys):
    code, text, _ = run(capsys, "train", "sft", "--help")
    assert code == 0
    assert sorted(set(re.findall(r"^\W*--([a-z][a-z-]*)", text, flags=re.MULTILINE))) == FLAGS.split()


def test_the_model_that_comes_out_is_one_that_the_evaluation_reads(capsys, tmp_path: Path, base: Path, data: Path):
    out = tmp_path / "sft"
    code, text, err = run(capsys, *settings(base, out, "--data", data, "--replay", 0.3, "--trains", "blocks", "head"))
    assert code == 0, err
    assert f"unigap eval --model tiny:{out / 'model'}" in text
    assert len(read_log(out)) == 6
    card = TinyModel.from_pretrained(out / "model").card
    assert card["command"] == "unigap train sft" and card["examples"] == {"pictures": 4, "answers": 6}
    assert card["base"]["sha256"] == TinyModel.from_pretrained(base).sha256
    assert card["trains"]["parts"] == ["blocks", "head"]
    assert card["data"]["replay"]["examples a step"] == 3
    # Whose drawings these pictures are, nobody said.
    assert card["trained_on"] == {}
    code, text, err = run(
        capsys, "eval", "--model", f"tiny:{out / 'model'}", "--families", "plain", "--num-units", 2, "--out",
        tmp_path / "eval",
    )  # fmt: skip
    assert code == 0, err
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["families"]["plain"]["generation"]["normal"]["scored"] == 2


def test_text_alone_leaves_what_is_known_about_drawing(capsys, tmp_path: Path, base: Path):
    write_conversations(tmp_path / "data" / "sums.jsonl", [("How many are 1 plus 1?", "2 cups")])
    said = ["--trained-on", "math1=direct"]
    code, _, err = run(capsys, *settings(base, tmp_path / "sft", "--data", tmp_path / "data", "--steps", 1, *said))
    assert code == 0, err
    card = TinyModel.from_pretrained(tmp_path / "sft" / "model").card
    assert card["trained_on"] == {"plain": "direct", "math1": "direct"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--data", "no/such/folder"], "holds no training data"),
        (["--trains", "tower"], "unknown part 'tower'; known: all, blocks"),
        (["--replay", "1.5"], "replay must be in [0, 1)"),
        (["--trained-on", "math1"], "'math1' is not FAMILY=direct"),
        (["--steps", "0"], "at least 1"),
        (["--model", "tests.test_cli:OneCup"], "cannot be trained here"),
        (["--replay", "0.01"], "part 'replay' would give none of 10 examples a step"),
    ],
)
def test_what_cannot_be_carried_out_exits_2_and_says_why(
    capsys, tmp_path: Path, base: Path, data: Path, arguments, named
):
    code, out, err = run(capsys, *settings(base, tmp_path / "sft", "--data", data, *arguments))
    assert code == 2, out + err
    assert named in " ".join((out + err).split()) and "Traceback" not in err
    assert not (tmp_path / "sft").exists()


def test_a_wrong_line_is_an_error_before_anything_trains(capsys, tmp_path: Path, base: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.jsonl").write_text('{"id": 1}\n')
    code, _, err = run(capsys, *settings(base, tmp_path / "sft", "--data", tmp_path / "data"))
    assert code == 2 and "bad.jsonl, line 1: not a conversation" in err
    assert not (tmp_path / "sft").exists()


def test_the_settings_of_the_loop_are_those_given():
    config = SFTConfig(data=Path("x"), steps=7, trains=("head",), replay=0.5)
    assert config.for_loop().steps == 7 and config.for_loop().trains == ("head",)
    assert not hasattr(config.for_loop(), "data")
