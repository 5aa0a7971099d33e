"""`unigap items import` and `export` with other people's formats, from files to tables."""

import json
import random
from pathlib import Path

import pytest
from PIL import Image
from tests.benchmarks.test_gapeval import answer, data
from tests.test_cli import evaluate, run, write

from unigap.gap.rates import read_rates
from unigap.records import RunFolder
from unigap.scenes import make_items
from unigap.scenes.render import place, render

LINES = [
    json.dumps({"Question": f"Draw as many cups as {n} + 1.", "Answer": f"{n + 1} cups", "id": str(n)})
    for n in (1, 2, 3)
]


def draw(path: Path, n: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    render(place({"cup": n}, random.Random(0))).save(path)
    return path


def test_pictures_made_elsewhere_are_imported_judged_and_reported(capsys, tmp_path):
    items = write(tmp_path / "math_1.jsonl", *LINES)
    for name, n in (("1", 2), ("2", 2), ("3", 4), ("5", 1)):
        draw(tmp_path / "made/test/normal/math_1" / f"{name}.png", n)
    arguments = ["items", "import", "--items", items, "--images", tmp_path / "made", "--model", "theirs", "--out"]
    code, out, err = run(capsys, *arguments, tmp_path / "run", "--pictures", "sandbox")
    assert code == 0, err
    assert "generation normal: 3 imported" in out
    assert "note: no folder" in err and "math_1 has no think arm" in err
    assert "belongs to no item, not read: " in err and "5.png" in err
    code, out, err = run(capsys, "judge", tmp_path / "run")
    assert code == 0, err
    cell = json.loads((tmp_path / "run" / "summary.json").read_text())["families"]["math1"]["generation"]["normal"]
    assert (cell["correct"], cell["scored"]) == (2, 3)
    assert "theirs" in (tmp_path / "run" / "report.html").read_text()
    assert run(capsys, "report", tmp_path / "run")[0] == 0
    code, _, err = run(capsys, *arguments, tmp_path / "photos")
    assert code == 0
    code, _, err = run(capsys, "judge", tmp_path / "photos")
    assert code == 2 and "exact reads only sandbox pictures, and theirs draws photo pictures" in err


def test_what_is_missing_or_unreadable_is_listed_and_exits_1(capsys, tmp_path):
    items = write(tmp_path / "math_1.jsonl", *LINES)
    where = tmp_path / "made/test/think/math_1"
    draw(where / "1.png", 2)
    draw(where / "2.png", 2).write_bytes(b"bad")
    code, out, err = run(
        capsys,
        "items",
        "import",
        "--items",
        items,
        "--images",
        tmp_path / "made",
        "--model",
        "m",
        "--out",
        tmp_path / "r",
    )
    assert code == 1 and "generation think: 1 imported" in out
    assert "missing: " in err and "3.png" in err and "unreadable: " in err and "2.png" in err
    assert "1 missing, 1 unreadable; the rest is in" in err and "Traceback" not in err
    assert len(RunFolder.open(tmp_path / "r").records()) == 1


def test_gapeval_answers_with_their_verdicts_become_rates(capsys, tmp_path):
    for number, (text, picture) in enumerate(((1, 1), (1, 0), (0, 1), (0, 0)), start=1):
        answer(
            data(tmp_path / "root", number),
            results={"text_eval": {"parsed": {"score": text}}, "image_eval": [{"parsed": {"score": picture}}]},
        )
    code, out, err = run(
        capsys, "items", "import", "--format", "gapeval", "--items", tmp_path / "root", "--model", "m", "--judge", "g",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    assert "understanding normal: 4 imported" in out and "8 verdicts" in out
    code, out, err = run(
        capsys, "items", "export", tmp_path / "run", "--format", "four-rates", "--judge", "g", "--by", "category",
        "--out", tmp_path / "rates",
    )  # fmt: skip
    assert code == 0, err
    assert "Reasoning: p11 0.2500, p10 0.2500, p01 0.2500, p00 0.2500 (n = 4)" in out
    rates = read_rates(tmp_path / "rates" / "four_rates.json")
    assert rates["m"].tolist() == [[0.25, 0.25, 0.25, 0.25]]
    assert run(capsys, "report", tmp_path / "run", "--judge", "g")[0] == 0
    code, _, err = run(capsys, "judge", tmp_path / "run")
    assert code == 2 and "exact" in err
    code, out, _ = run(
        capsys,
        "items",
        "export",
        tmp_path / "run",
        "--format",
        "gapeval",
        "--images",
        tmp_path / "root",
        "--out",
        tmp_path / "o",
    )
    assert code == 0 and str(tmp_path / "o" / "data_4" / "m") in out


def test_a_run_of_ours_is_written_for_gapeval_and_asked_items_can_be_too(capsys, tmp_path):
    evaluate(capsys, tmp_path / "run", "--families", "counting", "--arms", "think")
    code, _, err = run(
        capsys,
        "items",
        "export",
        tmp_path / "run",
        "--format",
        "gapeval",
        "--arm",
        "think",
        "--judge",
        "exact",
        "--out",
        tmp_path / "o",
    )
    assert code == 0, err
    assert len(list((tmp_path / "o").rglob("one-cup/new_res.json"))) == 3
    path = tmp_path / "items.jsonl"
    run(capsys, "items", "make", "--families", "counting", "--num-units", 2, "--out", path)
    code, _, err = run(capsys, "items", "export", path, "--format", "gapeval", "--out", tmp_path / "made")
    assert code == 0, err
    # What was exported can be asked again, by its folder.
    code, _, err = evaluate(capsys, tmp_path / "again", "--items", tmp_path / "made")
    assert code == 0, err
    ours = [item.question for item in make_items(["counting"], num_units=2, seed=0)]
    assert [item.question for item in RunFolder.open(tmp_path / "again").items()] == ours


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--model"),
        (["--model", "m"], "--images"),
        (["--model", "m", "--columns", "a=b"], "--columns is for --format gapeval-hub alone"),
        (["--model", "m", "--format", "gapeval"], "expected one folder of data_<n>"),
        (["--model", "m", "--format", "gapeval", "--images", "x"], "--images is for --format unisandbox alone"),
        (["--model", "m", "--format", "gapeval-hub"], "--model is not for --format gapeval-hub"),
        (["--format", "gapeval-hub", "--columns", "image"], "'image'; expected FIELD=COLUMN"),
        (["--model", "m", "--images", "none"], "has no pictures of math_1"),
    ],
)
def test_imports_that_cannot_be_carried_out_exit_2(capsys, tmp_path, arguments, said):
    items = write(tmp_path / "math_1.jsonl", *LINES)
    code, _, err = run(capsys, "items", "import", "--items", items, "--out", tmp_path / "run", *arguments)
    assert code == 2 and said in err and "Traceback" not in err, err
    assert not (tmp_path / "run").exists()


def test_items_that_are_not_there_are_named(capsys, tmp_path):
    code, _, err = run(
        capsys,
        "items",
        "import",
        "--items",
        tmp_path / "x.jsonl",
        "--images",
        tmp_path,
        "--model",
        "m",
        "--out",
        tmp_path / "run",
    )
    assert code == 2 and "no such file or folder: " in err and "x.jsonl" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "four-rates"], "name one with --judge (this run has: exact)"),
        (["--format", "four-rates", "--judge", "judy"], "unknown judge of this run 'judy'; known: exact"),
        (["--judge", "judy"], "unknown judge of this run 'judy'; known: exact"),
        (["--format", "four-rates", "--judge", "exact", "--arm", "think"], "no unit is scored in both directions"),
        (["--format", "four-rates", "--judge", "exact", "--by", "category"], "family 'math1' is in no category"),
    ],
)
def test_exports_that_cannot_be_carried_out_exit_2(capsys, tmp_path, arguments, said):
    evaluate(capsys, tmp_path / "run", "--families", "math1", "--arms", "normal")
    code, _, err = run(capsys, "items", "export", tmp_path / "run", "--out", tmp_path / "out", *arguments)
    assert code == 2 and said in err, err
    assert not (tmp_path / "out").exists()


def test_damaged_pictures_are_named_and_exit_1(capsys, tmp_path):
    evaluate(capsys, tmp_path / "run", "--families", "math1", "--arms", "normal")
    min((tmp_path / "run" / "images").rglob("*.png")).write_bytes(b"bad")
    code, out, err = run(capsys, "items", "export", tmp_path / "run", "--out", tmp_path / "out")
    assert code == 1 and "1 pictures of" in err and "left out: image unreadable" in err
    assert str(tmp_path / "out" / "test" / "normal" / "math_1") in out


def test_a_dataset_becomes_folders_that_can_be_asked(capsys, tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `data` is not installed")
    row = {"kind": "Multi Hop", "und_prompt": "Who?", "gen_prompt": "Draw who.", "reference": "Marie Curie"}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    arguments = [
        "items",
        "import",
        "--format",
        "gapeval-hub",
        "--items",
        tmp_path / "a.parquet",
        "--out",
        tmp_path / "o",
    ]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "no column for category" in err and "kind (string)" in err
    code, out, err = run(capsys, *arguments, "--columns", "category=kind")
    assert code == 0 and "1 items in folders data_<n>" in out, err
    code, _, err = evaluate(capsys, tmp_path / "run", "--items", tmp_path / "o")
    assert code == 2 and "exact reads only sandbox answers" in err


def test_a_picture_file_is_imported_whatever_its_mode(capsys, tmp_path):
    items = write(tmp_path / "math_1.jsonl", LINES[0])
    path = tmp_path / "made/test/normal/math_1/1.png"
    path.parent.mkdir(parents=True)
    Image.new("RGBA", (3, 3), (1, 2, 3, 0)).save(path)
    code, _, err = run(
        capsys,
        "items",
        "import",
        "--items",
        items,
        "--images",
        tmp_path / "made",
        "--model",
        "m",
        "--out",
        tmp_path / "r",
    )
    assert code == 0, err
    folder = RunFolder.open(tmp_path / "r")
    (record,) = folder.records()
    assert folder.load_image(record).getpixel((0, 0)) == (1, 2, 3)
