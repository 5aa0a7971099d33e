"""What is written in GapEval's layout comes back, and never replaces what is there."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.benchmarks.test_gapeval import PHYSICS, answer, data, picture

from unigap.benchmarks.gapeval import find_answers, read_gapeval, reference_pictures
from unigap.benchmarks.gapeval_export import category_of, export_gapeval, export_gapeval_run
from unigap.benchmarks.imported import import_found, imported_judge
from unigap.errors import ItemFileError, RunFolderError
from unigap.items import Item
from unigap.judges.exact import ExactJudge
from unigap.records import Key, ModelRef, Record, Ruling, RunFolder, RunIdentity, Verdict
from unigap.scenes import make_items

JUDGE = imported_judge("theirs")
THEIRS = (
    PHYSICS,
    PHYSICS | {"category": "Multi Hop", "subcategory": ""},
    PHYSICS | {"category": "counting", "reference": '{"objects": ["cup", "cat"], "number": [3, 2]}'},
    PHYSICS | {"category": "reasoning", "subcategory": "mmlu/mmmu", "reference": "B"},
)


def make_root(root: Path) -> Path:
    """Four items of theirs, answered and judged."""
    for number, prompt in enumerate(THEIRS, start=5):
        folder = data(root, number, prompt, colour=None if prompt["category"] == "Multi Hop" else "white")
        picture(folder / "ref" / "right.png", "blue")
        results = {
            "text_eval": {"status": "success", "parsed": {"reason": "why", "score": number % 2}},
            "image_eval": [{"status": "success", "parsed": {"reason": "so", "score": 1}}],
        }
        answer(folder, text=f"answer {number}", results=results)
    return root


def test_gapeval_s_items_answers_and_verdicts_survive_a_run(tmp_path: Path):
    root = make_root(tmp_path / "root")
    run = import_found(
        find_answers(root, "m", judge=JUDGE), tmp_path / "run", model="m", source="gapeval", judge=JUDGE
    ).folder
    done = export_gapeval_run(run, tmp_path / "out", judge="theirs", image_root=root)
    assert [str(path.relative_to(tmp_path / "out")) for path in done.folders] == [f"data_{n}/m" for n in (5, 6, 7, 8)]

    before, after = read_gapeval(root), read_gapeval(tmp_path / "out")
    for old, new in zip(before, after, strict=True):
        kept = ("id", "family", "unit", "question", "prompt", "caption", "answer", "variant")
        assert [getattr(new, name) for name in kept] == [getattr(old, name) for name in kept]
        assert len(new.images) == len(old.images) and len(new.prompt_images) == len(old.prompt_images)
        (ref,) = reference_pictures(tmp_path / "out" / new.id)
        with Image.open(ref) as image:
            assert image.getpixel((0, 0)) == (0, 0, 255)
    old, new = find_answers(root, "m", judge=JUDGE), find_answers(tmp_path / "out", "m", judge=JUDGE)
    assert [(made.key, made.text) for made in new.made] == [(made.key, made.text) for made in old.made]
    assert [(v.key, v.verdict, v.why) for v in new.verdicts] == [(v.key, v.verdict, v.why) for v in old.verdicts]
    assert len(new.verdicts) == 8


def make_run(path: Path, items: list[Item], *, name: str = "tiny", arm: str = "normal") -> RunFolder:
    """Two drawings an item and a text; the third item's text was refused, and the fourth was never answered."""
    model = ModelRef(name=name, sha256="0")
    run = RunFolder.start(path, RunIdentity(model=model, sampling={}, think_prompt_sha256="0", seed=0), config={})
    run.add_items(items)
    with run.record_writer() as writer:
        for index, item in enumerate(items[:3]):
            keys = [Key(item.id, "understanding", arm, 0), *(Key(item.id, "generation", arm, k) for k in (0, 1))]  # type: ignore[arg-type]
            refused = index == 2
            records = [
                Record(
                    **key._asdict(),
                    seed=0,
                    model=model,
                    sampling={},
                    usage={},
                    outcome="refused" if refused else "ok",
                    text=None if refused or key.direction == "generation" else "2 cups",
                )
                for key in keys
            ]
            drawn = None if refused else Image.new("RGB", (4, 4), "red")
            writer.write(records, [None, drawn, drawn], [item.family] * 3)
    with run.verdict_log("exact") as log:
        judge = imported_judge("exact")
        log.append(
            Verdict.of(record.key, Ruling.unscored("late") if record.sample else Ruling.correct("ok"), judge).to_json()
            for record in run.records()
        )
    return run


def test_a_run_of_the_sandbox_gets_categories_pictures_and_a_map_of_ids(tmp_path: Path):
    items = [
        next(iter(make_items([family], num_units=1, seed=0))) for family in ("counting", "math1", "plain", "inverse")
    ]
    run = make_run(tmp_path / "run", items)
    export_gapeval_run(run, tmp_path / "out", judge="exact")
    assert json.loads((tmp_path / "out" / "ids.json").read_text()) == {
        f"data_{n}": item.id for n, item in enumerate(items, start=1)
    }
    back = read_gapeval(tmp_path / "out")
    assert [item.variant for item in back] == [
        "counting: counting",
        "Multi Hop: math1",
        "Multi Hop: plain",
        "Multi Hop: inverse",
    ]
    assert [(item.question, item.prompt) for item in back] == [(item.question, item.prompt) for item in items]
    assert back[0].answer == items[0].answer
    assert [len(item.prompt_images) for item in back] == [1, 0, 0, 0]
    judge = ExactJudge()
    for n, item in enumerate(items, start=1):
        (ref,) = reference_pictures(tmp_path / "out" / f"data_{n}")[:1]
        with Image.open(ref) as image:
            assert judge.judge_picture(item, image.convert("RGB")).verdict == "correct"
    assert sorted(path.name for path in (tmp_path / "out/data_1/tiny").iterdir()) == [
        "0.png", "1.png", "new_res.json", "text.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out/data_3/tiny/text.json").read_text()) == {"output_text": ""}
    assert not (tmp_path / "out/data_4/tiny").exists()
    assert json.loads((tmp_path / "out/data_1/tiny/new_res.json").read_text())["image_eval"] == [
        {"status": "success", "parsed": {"reason": "ok", "score": 1}, "raw_response": '{"reason": "ok", "score": 1}'},
        {"status": "error", "parsed": None, "raw_response": "late"},
    ]


def test_only_the_arm_asked_for_is_written(tmp_path: Path):
    items = list(make_items(["plain"], num_units=2, seed=0))
    run = make_run(tmp_path / "run", items, arm="think")
    assert export_gapeval_run(run, tmp_path / "out").folders == ()
    assert len(export_gapeval_run(run, tmp_path / "out", arm="think").folders) == 2


def test_a_run_is_added_to_a_root_that_asks_the_same_and_leaves_it_as_it_was(tmp_path: Path):
    root = make_root(tmp_path / "root")
    run = import_found(find_answers(root, "m"), tmp_path / "run", model="image", source="gapeval").folder
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    export_gapeval_run(run, root)
    assert {path: path.read_bytes() for path in before} == before
    # "image" is a folder of theirs, so a model of that name needs another.
    assert sorted(path.name for path in (root / "data_5").iterdir()) == [
        "image",
        "m",
        "model-image",
        "prompt.json",
        "ref",
    ]
    picture(root / "data_5" / "model-image" / "9.png")
    with pytest.raises(RunFolderError, match=r"1 pictures that are not of this run \(first: 9\.png\)"):
        export_gapeval_run(run, root)


def test_a_root_that_asks_something_else_is_refused(tmp_path: Path):
    make_root(tmp_path / "root")
    items = list(make_items(["plain"], num_units=6, seed=0))
    with pytest.raises(RunFolderError, match=r"data_5/prompt\.json asks something else"):
        export_gapeval(items, tmp_path / "root")


@pytest.mark.parametrize(
    ("ref", "said"), [("../secret.png", "is outside"), ("none.png", "is not in"), ("bad.png", "cannot be read")]
)
def test_pictures_are_taken_from_inside_their_folder_alone(tmp_path: Path, ref: str, said: str):
    (item,) = make_items(["plain"], num_units=1, seed=0)
    picture(tmp_path / "secret.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "bad.png").write_bytes(b"bad")
    item = Item(**(vars(item) | {"images": (ref,)}))
    with pytest.raises(ItemFileError, match=said):
        export_gapeval([item], tmp_path / "out", image_root=root)
    with pytest.raises(ItemFileError, match="--images"):
        export_gapeval([item], tmp_path / "out")
    assert not (tmp_path / "out" / "data_1" / "prompt.json").exists()


def test_a_damaged_picture_is_named_and_the_rest_is_written(tmp_path: Path):
    run = make_run(tmp_path / "run", list(make_items(["plain"], num_units=2, seed=0)))
    next((tmp_path / "run" / "images").rglob("*0000*-1.png")).write_bytes(b"bad")
    done = export_gapeval_run(run, tmp_path / "out", judge="exact")
    assert len(done.damaged) == 1 and len(list((tmp_path / "out").rglob("tiny/*.png"))) == 3
    assert find_answers(tmp_path / "out", "tiny", judge=JUDGE).unreadable == ()


@pytest.mark.parametrize(
    ("family", "category"),
    [
        ("editing", ("rule_based", "editing")),
        ("amounts", ("counting", "amounts")),
        ("counting", ("counting", "counting")),
        ("multihop", ("Multi Hop", "multihop")),
        ("mapping1", ("Multi Hop", "mapping1")),
    ],
)
def test_categories_are_those_whose_judging_fits(family: str, category: tuple[str, str]):
    assert {category_of(item) for item in make_items([family], num_units=5, seed=0)} == {category}


def test_a_choice_is_judged_by_what_it_shows_and_an_edit_that_counts_nothing_by_its_rule():
    choices = list(make_items(["choice"], num_units=20, seed=0))
    assert {(bool(item.prompt_images), category_of(item)) for item in choices} == {
        (True, ("reasoning", "draw")),
        (False, ("Multi Hop", "choice")),
    }
    (item,) = make_items(["inverse"], num_units=1, seed=0)
    edit = Item(**(vars(item) | {"prompt_images": ("scene:grid:.,.,.,.,.,.,.,.,.",)}))
    assert category_of(edit) == ("rule_based", "inverse")


def test_a_character_is_named_and_described_since_text_and_picture_are_compared_with_one_reference(tmp_path: Path):
    (item,) = make_items(["inverse"], num_units=1, seed=0)
    (folder,) = export_gapeval([item], tmp_path).values()
    assert json.loads((folder / "prompt.json").read_text())["reference"].startswith(f"{item.answer.name}: A")  # type: ignore[union-attr]
