"""The main job on the embedded model itself: one process or several, our items or the authors' own files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unigap.cli import main
from unigap.items import Object
from unigap.records import RunFolder
from unigap.scenes import make_items
from unigap.scenes.render import place, render

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "unisandbox" / "benchmark" / "test_reasoning"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the authors' files are not in {SHARED.name}'s place")


def unigap(*arguments: str) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 0


def torchrun(num_processes: int, *arguments: str) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "-m", "unigap", *arguments], env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def outcomes(folder: Path) -> dict[tuple, tuple]:
    """Everything that a record says but how long it took."""
    return {
        record.key: (
            record.seed,
            record.outcome,
            record.text,
            record.thought,
            record.refined_prompt,
            record.image_sha256,
        )
        for record in RunFolder.open(folder).records()
    }


SMALL = ("eval", "--families", "math1", "mapping1", "counting", "--num-units", "4")


def test_two_processes_give_the_records_of_one_and_another_number_goes_on(tmp_path: Path):
    unigap(*SMALL, "--out", str(tmp_path / "one"))
    torchrun(2, *SMALL, "--out", str(tmp_path / "two"))
    assert len(list((tmp_path / "two").glob("records-*.jsonl"))) == 2
    whole = outcomes(tmp_path / "one")
    # 4 units of math1 and counting, 4 pairs of mapping1: 16 items x (2 text + 4 drawing arms)
    assert len(whole) == 16 * 6
    assert outcomes(tmp_path / "two") == whole
    fewer = (*SMALL[:-1], "2", "--arms", "normal", "think")
    torchrun(2, *fewer, "--out", str(tmp_path / "grown"))
    unigap(*SMALL, "--out", str(tmp_path / "grown"))
    assert outcomes(tmp_path / "grown") == whole


def test_the_gap_of_the_embedded_model_is_in_the_table_and_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    unigap("eval", "--families", "math1", "plain", "--num-units", "24", "--out", str(out))
    printed = capsys.readouterr().out
    assert "math1" in printed and "report.html" in printed
    families = json.loads((out / "summary.json").read_text())["families"]
    assert families["math1"]["understanding"]["think"]["rate"] > 0.8
    assert families["math1"]["generation"]["normal"]["rate"] < 0.7
    for arm, gap in families["math1"]["gap"].items():
        rates = [families["math1"][direction][arm]["rate"] for direction in ("understanding", "generation")]
        assert gap["rate"] == pytest.approx(rates[0] - rates[1])
        assert gap["low"] < gap["rate"] < gap["high"]
    assert families["plain"]["trained"] == "direct" and families["math1"]["trained"] == "parts"
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page and "math1" in page


def test_the_image_folder_loads_by_its_metadata(tmp_path: Path):
    out = tmp_path / "run"
    unigap("eval", "--families", "plain", "--num-units", "3", "--directions", "generation", "--out", str(out))
    images = out / "images"
    lines = [json.loads(line) for line in (images / "metadata.jsonl").read_text().splitlines()]
    assert {line["file_name"] for line in lines} == {str(path.relative_to(images)) for path in images.rglob("*.png")}
    assert {line["arm"] for line in lines} == {"normal", "think", "refined", "oracle"}


def test_a_drawing_of_every_item_is_judged_as_the_fact_it_shows():
    # The exact judge against the renderer: the answer's own picture is right, another object's is not.
    import random

    from unigap.judges.exact import ExactJudge

    judge, rng = ExactJudge(), random.Random(0)
    for item in make_items(["mapping2"], num_units=20, seed=1):
        assert isinstance(item.answer, Object) and isinstance(item.other, Object)
        right, other = (render(place({answer.object: 1}, rng)) for answer in (item.answer, item.other))
        rulings = judge.judge_pictures([item, item], [right, other])
        assert [ruling.verdict for ruling in rulings] == ["correct", "incorrect"]
        assert rulings[1].error == "pair_other"


@needs_shared
def test_the_authors_own_file_is_asked_and_what_is_outside_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "run"
    unigap("eval", "--items", str(SHARED / "math_1.jsonl"), "--arms", "normal", "think", "--out", str(out))
    inside = len({key.item_id for key in outcomes(out)})
    outside = len((out / "outside.jsonl").read_text().splitlines())
    assert inside + outside == 100 and inside >= 50
    assert f"{outside} items are outside" in capsys.readouterr().out
    records = list(RunFolder.open(out).records())
    assert any(record.detail.startswith("rewritten: ") for record in records)


@pytest.mark.slow
def test_pictures_do_not_depend_on_batch_size_but_for_float_ties(tmp_path: Path):
    """At most 1 picture in 1,000 may differ between batch sizes."""
    drawings: dict[int, list[np.ndarray]] = {}
    arguments = ("eval", "--families", "math2", "mapping2", "plain", "--num-units", "60", "--directions", "generation")
    for batch in (1, 7, 64):
        out = tmp_path / str(batch)
        unigap(*arguments, "--arms", "normal", "oracle", "--batch-size", str(batch), "--out", str(out))
        folder = RunFolder.open(out)
        records = sorted(folder.records(), key=lambda record: record.key)
        drawings[batch] = [np.asarray(Image.open(out / str(record.image))) for record in records]
    differ = sum(
        not (np.array_equal(a, b) and np.array_equal(a, c)) for a, b, c in zip(drawings[1], drawings[7], drawings[64])
    )
    assert differ <= len(drawings[1]) / 1000
