"""What is written in UniSandbox's formats is what its scripts expect, and comes back as what went out."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unigap.benchmarks.unisandbox import inside, read_unisandbox
from unigap.benchmarks.unisandbox_export import Exported, export_run
from unigap.benchmarks.unisandbox_lines import answer_text, export_unisandbox, picture_names, read_ids
from unigap.benchmarks.unisandbox_results import (
    COLUMNS,
    LOG,
    RESULTS,
    read_results,
    read_verdicts,
    write_results,
)
from unigap.errors import ItemFileError, RunFolderError
from unigap.items import Count, Counts, FreeText, Item, Portrait
from unigap.records import JudgeRef, Key, ModelRef, Record, Ruling, RunFolder, RunIdentity, Verdict
from unigap.scenes import make_items

FAMILIES = ("math1", "math2", "math3", "mapping1", "mapping2", "mapping3", "forward", "inverse")
JUDGE = JudgeRef(name="a judge", version="1")


def sandbox(*families: str, num_units: int = 12) -> list[Item]:
    return list(make_items(families, num_units=num_units, seed=0))


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- items -----------------------------------------------------------------------------------------------------------


def test_lines_have_the_fields_that_unisandbox_s_scripts_read(tmp_path: Path):
    export_unisandbox(sandbox("math1", "mapping2", "inverse", num_units=2), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        name for stem in ("math_1", "mapping2", "inverse") for name in (f"{stem}.jsonl", f"{stem}.ids.json")
    )
    assert [list(line) for line in lines_of(tmp_path / "math_1.jsonl")] == [["Question", "Answer", "id"]] * 2
    mapping = lines_of(tmp_path / "mapping2.jsonl")
    assert [list(line)[1] for line in mapping] == ["Question_A", "Question_B"] * 2
    assert [line["ID"] for line in mapping] == ["0", "0", "1", "1"]
    assert [line["ID"] for line in lines_of(tmp_path / "inverse.jsonl")] == [0, 1]
    assert read_ids(tmp_path, "mapping2") == {
        f"{k}_{half}": f"mapping2/{k:06d}/{half}" for k in (0, 1) for half in ("A", "B")
    }


def test_exported_items_come_back_the_same_fact_with_the_same_question(tmp_path: Path):
    items = {item.id: item for item in sandbox(*FAMILIES)}
    back = []
    for path in export_unisandbox(items.values(), tmp_path):
        ids = read_ids(tmp_path, path.stem)
        found = read_unisandbox(path)
        names = {item.id: name for item, name in zip(found, ids, strict=True)}
        back += [(items[ids[names[item.id]]], item) for item in found]
    assert len(back) == len(items)
    for ours, theirs in back:
        assert (theirs.prompt, theirs.question, theirs.family) == (ours.prompt, ours.question, ours.family)
        assert (theirs.answer, theirs.other, theirs.caption) == (ours.answer, ours.other, ours.caption)
        assert inside(theirs) is None


def test_ids_of_a_published_file_are_kept(tmp_path: Path):
    path = tmp_path / "in" / "math_2.jsonl"
    path.parent.mkdir()
    lines = [{"Question": f"Draw as many cups as {n} + 0.", "Answer": f"{n} cups", "id": f"{n}"} for n in (31, 5, 7)]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (written,) = export_unisandbox(read_unisandbox(path), tmp_path / "out")
    assert lines_of(written) == lines


def test_ids_that_are_no_numbers_are_counted_and_mapped(tmp_path: Path):
    (item,) = sandbox("math1", num_units=1)
    items = [Item(**(vars(item) | {"id": name, "unit": name})) for name in ("a/b", "../x", "a/b" * 4000)]
    assert list(picture_names(items).values()) == ["1", "2", "3"]
    export_unisandbox(items, tmp_path)
    assert list(read_ids(tmp_path, "math_1").values()) == [item.id for item in items]


def test_what_has_no_format_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no format for family 'plain'"):
        export_unisandbox(sandbox("plain", num_units=1), tmp_path)
    half = sandbox("mapping1", num_units=1)[0]
    with pytest.raises(ValueError, match="is not half of a pair"):
        export_unisandbox([Item(**(vars(half) | {"id": "mapping1/7"}))], tmp_path)


def test_answers_are_said_as_unisandbox_says_them():
    assert answer_text(Count(object="cup", n=1)) == "1 cup"
    assert answer_text(Counts(counts={"dog": 1, "cup": 2})) == "2 cups and 1 dog"
    assert answer_text(FreeText(text="An elderly man.")) == "An elderly man."
    portrait = Portrait(gender="male", age="old", hair="red", skin="tan")
    assert answer_text(portrait) == "An old tan-skinned man with red hair."


# ---- results ---------------------------------------------------------------------------------------------------------


def rulings_for(items: list[Item]) -> dict[str, Ruling | None]:
    """In turn: right, wrong, judge failed, no picture."""
    kinds = (
        Ruling.correct("fine", reading={"kind": "objects", "counts": {"cup": 2}}),
        Ruling.incorrect("wrong_count", 'says "3, not 2"\non two lines'),
        Ruling.unscored("timeout"),
        None,
    )
    return {item.id: kinds[index % 4] for index, item in enumerate(items)}


@pytest.mark.parametrize("family", ["math1", "mapping1", "forward"])
def test_results_have_unisandbox_s_columns_and_come_back(tmp_path: Path, family: str):
    items = sandbox(family, num_units=8)
    where = tmp_path / {"math1": "math_1"}.get(family, family)
    rulings = rulings_for(items)
    write_results(where, items, rulings)

    kind = {"math1": "math", "mapping1": "mapping", "forward": "knowledge"}[family]
    with (where / RESULTS).open(encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS[kind]
    names = picture_names(items)
    rows = {row.picture: row for row in read_results(where / RESULTS)}
    assert list(rows) == list(names.values())
    for item in items:
        row, ruling = rows[names[item.id]], rulings[item.id]
        assert (row.question, row.answer) == (item.prompt, answer_text(item.answer))
        assert (row.ruling is None) == (ruling is None)
        if ruling is not None and row.ruling is not None:
            assert (row.ruling.verdict, row.ruling.why) == (ruling.verdict, ruling.why)

    verdicts = read_verdicts(where / RESULTS, {name: i for i, name in names.items()}, JUDGE, arm="think")
    assert [verdict.key for verdict in verdicts] == [
        Key(item.id, "generation", "think", 0) for item in items if rulings[item.id] is not None
    ]


def test_a_pair_scores_if_both_halves_are_right_and_the_log_counts_pairs(tmp_path: Path):
    items = sandbox("mapping1", num_units=3)
    right = Ruling.correct()
    wrong = Ruling.incorrect("pair_other", "the other")
    rulings = dict(zip((item.id for item in items), (right, right, right, wrong, wrong, wrong), strict=True))
    write_results(tmp_path / "mapping1", items, rulings)
    with (tmp_path / "mapping1" / RESULTS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["A_Score"], row["B_Score"], row["Both_Correct"], row["Final_Score"]) for row in rows] == [
        ("1", "1", "True", "1"),
        ("1", "0", "False", "0"),
        ("0", "0", "False", "0"),
    ]
    assert (tmp_path / "mapping1" / LOG).read_text(encoding="utf-8").splitlines() == [
        "=" * 60,
        "Evaluation finished!",
        "Total IDs: 3",
        "Correct IDs: 1",
        "Accuracy: 33.33%",
        f"CSV: {tmp_path / 'mapping1' / RESULTS}",
        "=" * 60,
    ]


def test_the_log_of_math_has_a_duration(tmp_path: Path):
    items = sandbox("math1", num_units=4)
    write_results(tmp_path / "math_1", items, rulings_for(items))
    lines = (tmp_path / "math_1" / LOG).read_text(encoding="utf-8").splitlines()
    assert lines[2:6] == ["Total: 4", "Correct: 1", "Accuracy: 25.00%", "Duration: 0.00s"]


def test_of_repeated_rows_the_last_counts_and_a_failed_judge_is_unscored(tmp_path: Path):
    path = tmp_path / RESULTS
    rows = [
        ("5", "q", "2 cups", "5.png", "NO", "0", "Phase 1 ..."),
        ("6", "q", "2 cups", "6.png", "NO", "0", "Error: Failed to generate image caption"),
        ("5", "q", "2 cups", "5.png", "YES", "1", "Phase 1 ..."),
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS["math"], *rows])
    found = {row.picture: row.ruling for row in read_results(path)}
    assert found["5"] == Ruling.correct("Phase 1 ...")
    assert found["6"] == Ruling.unscored("Failed to generate image caption")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", "line 1: columns are 'a,b'"),
        (",".join(COLUMNS["math"]) + "\n1,q,a,p,MAYBE,0,x\n", "line 2: result 'MAYBE'"),
    ],
)
def test_a_file_that_is_no_result_file_is_refused(tmp_path: Path, text: str, expected: str):
    path = tmp_path / RESULTS
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ItemFileError) as error:
        read_results(path)
    assert expected in str(error.value)


def test_results_about_unknown_pictures_are_refused(tmp_path: Path):
    items = sandbox("math1", num_units=1)
    write_results(tmp_path / "math_1", items, rulings_for(items))
    with pytest.raises(ItemFileError, match="picture '0' is not in the map of ids"):
        read_verdicts(tmp_path / "math_1" / RESULTS, {}, JUDGE, arm="normal")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60).filter(lambda why: not why.startswith("Error:")))
def test_any_reason_survives_the_csv(tmp_path_factory: pytest.TempPathFactory, why: str):
    items = sandbox("math1", num_units=2)
    where = tmp_path_factory.mktemp("r") / "math_1"
    write_results(where, items, {items[0].id: Ruling.incorrect("wrong_count", why), items[1].id: Ruling.correct(why)})
    rows = read_results(where / RESULTS)
    assert [(row.result, row.analysis) for row in rows] == [("NO", why), ("YES", why)]


@pytest.mark.parametrize("text", ["\x00", ",".join(COLUMNS["math"]) + "\n" + "x" * 200_000])
def test_a_csv_that_cannot_be_parsed_is_refused(tmp_path: Path, text: str):
    (tmp_path / RESULTS).write_text(text, encoding="utf-8")
    with pytest.raises(ItemFileError, match=RESULTS):
        read_results(tmp_path / RESULTS)
    (tmp_path / RESULTS).write_bytes(b"\xff\xfe")
    with pytest.raises(ItemFileError, match="is not a csv file in UTF-8"):
        read_results(tmp_path / RESULTS)


def test_the_caption_that_the_judge_made_stands_in_its_column(tmp_path: Path):
    items = sandbox("forward", num_units=3)
    readings = ({"caption": "Fruit: fig"}, {"kind": "noise"}, None)
    rulings = {item.id: Ruling.correct("fine", reading=reading) for item, reading in zip(items, readings, strict=True)}
    write_results(tmp_path / "forward", items, rulings)
    captions = [row.caption for row in read_results(tmp_path / "forward" / RESULTS)]
    assert captions == ["Fruit: fig", '{"kind": "noise"}', ""]


# ---- a run -----------------------------------------------------------------------------------------------------------

MODEL = ModelRef(name="m", sha256="0")


def make_run(path: Path, items: list[Item], pictures: dict[Key, Image.Image]) -> RunFolder:
    """A run whose pictures were all judged right."""
    run = RunFolder.start(path, RunIdentity(model=MODEL, sampling={}, think_prompt_sha256="0", seed=0), config={})
    run.add_items(items)
    records = [Record(**key._asdict(), seed=0, model=MODEL, sampling={}, outcome="ok", usage={}) for key in pictures]
    with run.record_writer() as writer:
        writer.write(records, list(pictures.values()), [key.item_id.split("/")[0] for key in pictures])
    with run.verdict_log(JUDGE.name) as log:
        log.append(Verdict.of(key, Ruling.correct(), JUDGE).to_json() for key in pictures)
    return run


def test_a_run_is_written_in_unisandbox_s_layout(tmp_path: Path):
    items = sandbox("math1", "mapping1", "plain", num_units=2)
    keys = [Key(item.id, "generation", arm, 0) for item in items for arm in ("normal", "think", "oracle")]
    keys.remove(Key("math1/000001", "generation", "think", 0))
    pictures = {key: Image.new("RGB", (24, 24), (index, 0, 1)) for index, key in enumerate(keys)}
    run = make_run(tmp_path / "run", items, pictures)

    out = tmp_path / "out"
    done = export_run(run, out, judge=JUDGE.name)
    assert [str(folder.relative_to(out)) for folder in done.folders] == [
        f"test/{arm}/{stem}" for arm in ("normal", "think") for stem in ("math_1", "mapping1")
    ]
    assert done.damaged == ()
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    normal = ["mapping1/0_A", "mapping1/0_B", "mapping1/1_A", "mapping1/1_B", "math_1/0", "math_1/1"]
    assert found == [f"test/normal/{name}.png" for name in normal] + [f"test/think/{name}.png" for name in normal[:-1]]
    with Image.open(out / "test/normal/math_1/1.png") as image:
        index = keys.index(Key("math1/000001", "generation", "normal", 0))
        assert image.convert("RGB").getpixel((0, 0)) == (index, 0, 1)
    results = [row.result for row in read_results(out / "test/think/math_1" / RESULTS)]
    assert results == ["YES", "IMAGE_NOT_FOUND"]
    assert "Accuracy: 50.00%" in (out / "test/think/math_1" / LOG).read_text(encoding="utf-8")

    assert export_run(run, tmp_path / "again").folders
    assert not list((tmp_path / "again").rglob(RESULTS))


def test_pictures_are_cropped_to_what_is_not_black_as_their_sampler_does(tmp_path: Path):
    items = sandbox("math1", num_units=2)
    framed, black = Image.new("RGB", (24, 24)), Image.new("RGB", (24, 24))
    framed.paste((9, 9, 9), (3, 5, 13, 20))
    keys = [Key(item.id, "generation", "normal", 0) for item in items]
    export_run(make_run(tmp_path / "run", items, dict(zip(keys, (framed, black), strict=True))), tmp_path / "out")
    sizes = []
    for name in ("0", "1"):
        with Image.open(tmp_path / "out/test/normal/math_1" / f"{name}.png") as image:
            sizes.append(image.size)
    assert sizes == [(10, 15), (24, 24)]


def test_a_damaged_picture_is_left_out_and_named_and_the_rest_is_written(tmp_path: Path):
    items = sandbox("math1", num_units=2)
    keys = [Key(item.id, "generation", "normal", 0) for item in items]
    run = make_run(tmp_path / "run", items, {key: Image.new("RGB", (4, 4), "white") for key in keys})
    next((tmp_path / "run" / "images").rglob("math1_000000*.png")).write_bytes(b"broken")
    done = export_run(run, tmp_path / "out", judge=JUDGE.name)
    assert len(done.damaged) == 1 and "image unreadable" in done.damaged[0]
    results = [row.result for row in read_results(tmp_path / "out/test/normal/math_1" / RESULTS)]
    assert results == ["IMAGE_NOT_FOUND", "YES"]


def test_pictures_of_another_run_are_never_mixed_in(tmp_path: Path):
    items = sandbox("math1", num_units=3)
    keys = [Key(item.id, "generation", "normal", 0) for item in items]
    pictures = {key: Image.new("RGB", (4, 4), "white") for key in keys}
    large = make_run(tmp_path / "large", items, pictures)
    small = make_run(tmp_path / "small", items[:2], {key: pictures[key] for key in keys[:2]})
    first = export_run(large, tmp_path / "out")
    assert export_run(large, tmp_path / "out") == first == Exported(folders=first.folders, damaged=())
    with pytest.raises(RunFolderError, match=r"holds 1 pictures that are not of this run \(first: 2.png\)"):
        export_run(small, tmp_path / "out")
