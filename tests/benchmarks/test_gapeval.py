"""GapEval's directories and its judge's results are read as their authors describe them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unigap.benchmarks.files import FileItems, read_item_file
from unigap.benchmarks.gapeval import family_of, find_answers, is_choice, models_in, read_gapeval, reference_pictures
from unigap.benchmarks.gapeval_results import AGREEMENT, read_ruling, read_rulings
from unigap.benchmarks.imported import MAX_JSON_BYTES, import_found, imported_judge
from unigap.errors import ItemFileError
from unigap.items import Count, Counts, FreeText
from unigap.records import Key

JUDGE = imported_judge("their judge")

PHYSICS = {
    "category": "physics",
    "subcategory": "optics",
    "und_prompt": "Where does the light go?",
    "gen_prompt": "Draw where the light goes.",
    "reference": "to the left",
}


def picture(path: Path, colour: str = "white") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 5), colour).save(path)
    return path


def data(root: Path, number: int, prompt: Any = PHYSICS, *, colour: str | None = "white", **changes: Any) -> Path:
    """A data folder, with a problem picture unless colour is None."""
    folder = root / f"data_{number}"
    folder.mkdir(parents=True)
    (folder / "prompt.json").write_text(json.dumps(prompt | changes if changes else prompt), encoding="utf-8")
    if colour is not None:
        picture(folder / "image" / "problem.png", colour)
    return folder


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def answer(
    folder: Path, model: str = "m", *, text: str | None = "left", pictures: int = 1, results: Any = None
) -> None:
    if text is not None:
        write_json(folder / model / "text.json", {"output_text": text})
    for k in range(pictures):
        picture(folder / model / f"{k}.png", "red")
    if results is not None:
        write_json(folder / model / "new_res.json", results)


# ---- items -----------------------------------------------------------------------------------------------------------


def test_an_edit_shows_its_picture_in_both_directions(tmp_path: Path):
    data(tmp_path, 3)
    (item,) = read_gapeval(tmp_path)
    assert (item.id, item.unit, item.family, item.variant) == ("data_3", "data_3", "reasoning", "physics: optics")
    assert (item.question, item.prompt) == (PHYSICS["und_prompt"], PHYSICS["gen_prompt"])
    assert (item.answer, item.caption) == (FreeText(text="to the left"), "to the left")
    assert item.images == item.prompt_images == ("data_3/image/problem.png",)
    assert not item.derived


def test_multi_hop_draws_from_the_prompt_alone(tmp_path: Path):
    data(tmp_path, 1, category="Multi Hop", colour=None)
    data(tmp_path, 2, category="Multi Hop")
    without, with_picture = read_gapeval(tmp_path)
    assert (without.images, without.prompt_images, without.cluster) == ((), (), "data_1")
    assert (with_picture.images, with_picture.prompt_images) == (("data_2/image/problem.png",), ())
    assert without.family == "world_knowledge"


def test_a_list_misspelled_folder_and_older_key_are_read(tmp_path: Path):
    prompt = {key: value for key, value in PHYSICS.items() if key != "und_prompt"} | {"problem": "Where?"}
    folder = data(tmp_path, 1, [prompt, {"category": "nothing"}], colour=None)
    picture(folder / "inage" / "2.png")
    picture(folder / "inage" / "10.png")
    (item,) = read_gapeval(tmp_path)
    assert item.question == "Where?"
    assert item.images == ("data_1/inage/2.png", "data_1/inage/10.png")


def test_a_reference_picture_falls_back_to_the_problem(tmp_path: Path):
    folder = data(tmp_path, 1)
    assert [path.name for path in reference_pictures(folder)] == ["problem.png"]
    picture(folder / "ref" / "right.png")
    assert [path.name for path in reference_pictures(folder)] == ["right.png"]


def test_items_come_in_order_of_their_numbers_and_share_a_cluster_if_they_show_one_picture(tmp_path: Path):
    for number, colour in ((10, "white"), (2, "red"), (1, "white")):
        data(tmp_path, number, colour=colour)
    (tmp_path / "notes").mkdir()
    items = read_gapeval(tmp_path)
    assert [item.id for item in items] == ["data_1", "data_2", "data_10"]
    assert items[0].cluster == items[2].cluster != items[1].cluster


@pytest.mark.parametrize(
    ("category", "family"),
    [
        ("counting", "numerical_perception"),
        ("reasoning", "reasoning"),
        ("Multi Hop", "world_knowledge"),
        ("physics", "reasoning"),
        ("rule_based", "instruction_following"),
        ("edit/instruction following", "instruction_following"),
        ("world knowledge", "world_knowledge"),
        ("world_knowledge_cartoon", "world_knowledge"),
        ("landmark", "world_knowledge"),
        ("Cooking & Baking", "unfolded_cooking_baking"),
    ],
)
def test_categories_fold_into_the_paper_s_four(category: str, family: str):
    assert family_of(category) == family


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ('{"objects": ["cats", "cup"], "number": [2, 3]}', Counts(counts={"cup": 3, "cat": 2})),
        ({"objects": ["Dog"], "number": ["4"]}, Count(object="dog", n=4)),
        ({"objects": "dog", "number": 1}, Count(object="dog", n=1)),
        (['{"objects": ["dog"], "number": [4]}'], Count(object="dog", n=4)),
        ('{"objects": ["zebra"], "number": [4]}', FreeText(text='{"objects": ["zebra"], "number": [4]}')),
        ('{"objects": ["kitten"], "number": [4]}', FreeText(text='{"objects": ["kitten"], "number": [4]}')),
        (
            '{"objects": ["cat", "cat"], "number": [4, 1]}',
            FreeText(text='{"objects": ["cat", "cat"], "number": [4, 1]}'),
        ),
        ('{"objects": ["cat", "dog"], "number": [4]}', FreeText(text='{"objects": ["cat", "dog"], "number": [4]}')),
        ('{"objects": ["cat"], "number": [true]}', FreeText(text='{"objects": ["cat"], "number": [true]}')),
        ("{left}", FreeText(text="{left}")),
        (["Marie Curie", "Maria Sklodowska"], FreeText(text="Marie Curie; Maria Sklodowska")),
    ],
)
def test_an_answer_is_typed_where_the_reference_counts_what_the_sandbox_knows(tmp_path: Path, reference, expected):
    data(tmp_path, 1, category="counting", reference=reference)
    (item,) = read_gapeval(tmp_path)
    assert item.answer == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gen_prompt": ""}, "\"gen_prompt\" is ''; expected gen_prompt: a non-empty string"),
        ({"und_prompt": 3}, '"und_prompt" is 3; expected und_prompt or problem: a non-empty string'),
        ({"category": None}, '"category" is None; expected category: a non-empty string'),
        ({"subcategory": 7}, '"subcategory" is 7; expected a string'),
        ({"reference": 7}, '"reference" is 7; expected a string, or a list of strings'),
        ({"reference": []}, '"reference" is []; expected what a right answer says'),
    ],
)
def test_a_malformed_prompt_names_file_and_key(tmp_path: Path, changes: dict[str, Any], said: str):
    data(tmp_path, 1)
    folder = data(tmp_path, 2, **changes)
    with pytest.raises(ItemFileError) as error:
        read_gapeval(tmp_path)
    assert str(folder / "prompt.json") in str(error.value) and said in str(error.value)


def test_folders_that_are_not_gapeval_s_are_refused(tmp_path: Path):
    with pytest.raises(ItemFileError, match=r"holds no items: expected folders data_<n>"):
        read_gapeval(tmp_path)
    data(tmp_path, 1, colour=None)
    with pytest.raises(ItemFileError, match=r"no picture in image/; category 'physics' edits one"):
        read_gapeval(tmp_path)
    path = tmp_path / "data_1" / "prompt.json"
    for text, said in (("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "a JSON list"), ("3", "a JSON int")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ItemFileError, match=rf"prompt\.json: {said}"):
            read_gapeval(tmp_path)
    path.write_bytes(b" " * (MAX_JSON_BYTES + 1))
    with pytest.raises(ItemFileError, match=f"files over {MAX_JSON_BYTES} are not read"):
        read_gapeval(tmp_path)
    path.unlink()
    with pytest.raises(ItemFileError, match="cannot be read: No such file"):
        read_gapeval(tmp_path)


def test_a_folder_is_an_item_file_whose_pictures_lie_in_it(tmp_path: Path):
    data(tmp_path, 1)
    items = FileItems.read([tmp_path])
    assert [item.id for item in items] == ["data_1"] and items.image_root == tmp_path
    assert items.inside() == items
    assert read_item_file(tmp_path).coverage is None


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_a_model_s_answers_are_records_of_both_directions(tmp_path: Path):
    answer(data(tmp_path / "root", 1), text="To the left.")
    answer(data(tmp_path / "root", 2), "other", text=" ", pictures=0)
    answer(tmp_path / "root" / "data_2", text=" ", pictures=2)
    picture(tmp_path / "root" / "data_2" / "m" / "notes.tiff")
    assert models_in(tmp_path / "root") == ["m", "other"]
    found = find_answers(tmp_path / "root", "m")
    assert found.missing == () and found.unmatched == (str(tmp_path / "root/data_2/m/notes.tiff"),)
    folder = import_found(found, tmp_path / "run", model="m", source="gapeval").folder
    kept = {record.key: (record.outcome, record.text, record.image is not None) for record in folder.records()}
    assert kept == {
        Key("data_1", "understanding", "normal", 0): ("ok", "To the left.", False),
        Key("data_1", "generation", "normal", 0): ("ok", None, True),
        Key("data_2", "understanding", "normal", 0): ("malformed", None, False),
        Key("data_2", "generation", "normal", 0): ("ok", None, True),
        Key("data_2", "generation", "normal", 1): ("ok", None, True),
    }


def test_missing_and_unreadable_answers_are_listed_and_the_rest_goes_on(tmp_path: Path):
    answer(data(tmp_path, 1), pictures=0)
    answer(data(tmp_path, 2), text=None)
    (data(tmp_path, 3) / "m").mkdir()
    (tmp_path / "data_3/m/text.json").write_text("{", encoding="utf-8")
    data(tmp_path, 4)
    write_json(tmp_path / "data_3/m/new_res.json", [])
    found = find_answers(tmp_path, "m", judge=JUDGE)
    assert found.missing == (
        "data_1: no picture",
        "data_2: no text.json",
        "data_3: no picture",
        "data_4: no text.json",
        "data_4: no picture",
    )
    assert len(found.unreadable) == 2
    assert "text.json: not JSON" in found.unreadable[0] and 'no "text_eval"' in found.unreadable[1]
    assert len(found.made) == 2


@pytest.mark.parametrize("model", ["../m", "image", "ref", "n", ""])
def test_a_model_is_one_of_the_folders_there(tmp_path: Path, model: str):
    answer(data(tmp_path, 1))
    with pytest.raises(ItemFileError, match="Models there: m$"):
        find_answers(tmp_path, model)


# ---- their judge's results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "verdict"),
    [
        ({"status": "success", "parsed": {"reason": "r", "score": 1}}, "correct"),
        ({"status": "ok", "parsed": {"score": 0}}, "incorrect"),
        ({"parsed": {"judge_result": True}}, "correct"),
        ({"parsed": {"judge_result": "False"}}, "incorrect"),
        ({"parsed": {"Score": " Yes "}}, "correct"),
        ({"parsed": {"socre": "1"}}, "correct"),
        ({"parsed": {"judge_reslut": "no"}}, "incorrect"),
        ({"parsed": {"score": 0.0}}, "incorrect"),
        ({"parsed": None, "raw_response": 'Well: {"reason": "r", "score": 1}. Done.'}, "correct"),
        ({"parsed": '```json\n{"score": 0}\n```'}, "incorrect"),
        ({"raw_response": 'first {"score": 1}, then {"score": 1}'}, "correct"),
        ({"raw_response": 'first {"score": 1}, then {"score": 0}'}, "unscored"),
        ({"parsed": {"score": 2}}, "unscored"),
        ({"parsed": {"score": None}}, "unscored"),
        ({"parsed": {"reason": "1"}}, "unscored"),
        ({"raw_response": "yes"}, "unscored"),
        ({"status": "error", "parsed": {"score": 1}}, "unscored"),
        ({"status": "error", "raw_response": "timeout"}, "unscored"),
        ({}, "unscored"),
        ({"parsed": {"score": "raw"}}, "incorrect"),
    ],
)
def test_a_score_is_read_as_leniently_as_their_parser_does(entry: dict[str, Any], verdict: str):
    assert read_ruling(entry).verdict == verdict


def test_a_ruling_keeps_the_reason_and_the_judge_s_failure():
    assert read_ruling({"parsed": {"reason": "the left one", "score": 0}}).why == "the left one"
    assert read_ruling({"status": "error", "raw_response": "timeout"}).why == "their judge failed: timeout"
    assert read_ruling({"parsed": {"score": "raw"}}).error == "copied"


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='{}[]":, score01truefalse\\', max_size=200))
def test_any_reply_is_scored_or_not_and_never_fails(text: str):
    ruling = read_ruling({"raw_response": text})
    assert ruling.verdict in ("correct", "incorrect", "unscored")
    assert (ruling.verdict == "unscored") == (ruling.error is None and ruling.verdict != "correct")


def test_a_deeply_nested_reply_is_no_score():
    assert read_ruling({"raw_response": '{"a":' * 10_000}).verdict == "unscored"


def test_results_are_verdicts_of_a_judge_named_for_them(tmp_path: Path):
    good, bad = {"status": "success", "parsed": {"score": 1}}, {"status": "success", "parsed": {"score": 0}}
    failed = {"status": "error", "raw_response": "timeout"}
    answer(data(tmp_path, 1), results={"text_eval": good, "image_eval": [bad]})
    answer(data(tmp_path, 2), results={"text_eval": failed, "image_eval": bad})
    answer(data(tmp_path, 3), pictures=2, results={"image_eval": [good, bad]})
    answer(data(tmp_path, 4), pictures=2, results={"text_eval": good, "image_eval": [good]})
    report = import_found(
        find_answers(tmp_path, "m", judge=JUDGE), tmp_path / "run", model="m", source="gapeval", judge=JUDGE
    )
    assert report.folder.judges() == [JUDGE]
    words = {
        (verdict.item_id[-1], verdict.direction[0], verdict.sample): verdict.verdict
        for verdict in report.folder.verdicts(JUDGE.name)
    }
    assert words == {
        ("1", "u", 0): "correct",
        ("1", "g", 0): "incorrect",
        ("2", "u", 0): "unscored",
        ("2", "g", 0): "incorrect",
        ("3", "g", 0): "correct",
        ("3", "g", 1): "incorrect",
        ("4", "u", 0): "correct",
        ("4", "g", 0): "unscored",  # one result for two pictures
        ("4", "g", 1): "unscored",
    }
    again = import_found(
        find_answers(tmp_path, "m", judge=JUDGE), tmp_path / "run", model="m", source="gapeval", judge=JUDGE
    )
    assert again.num_verdicts == 0 and report.num_verdicts == 9


def test_a_choice_picture_judged_for_agreement_says_so(tmp_path: Path):
    good, bad = {"parsed": {"score": 1}}, {"parsed": {"score": 0}}
    for number, (subcategory, text) in enumerate((("puzzle", bad), ("mmlu/mmmu", good), ("draw", bad)), start=1):
        answer(
            data(tmp_path, number, category="reasoning", subcategory=subcategory),
            results={"text_eval": text, "image_eval": [good]},
        )
    assert [is_choice(item) for item in read_gapeval(tmp_path)] == [True, True, False]
    found = find_answers(tmp_path, "m", judge=JUDGE)
    readings = {v.item_id: v.reading for v in found.verdicts if v.direction == "generation"}
    assert readings == {"data_1": AGREEMENT, "data_2": None, "data_3": None}
    assert found.notes == (
        "1 verdicts on pictures say whether they agree with a wrong text, not whether they are right; "
        "their reading says so",
    )


@pytest.mark.parametrize("value", [[], {}, {"text_eval": [3]}, {"image_eval": "x"}])
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, value: Any):
    write_json(tmp_path / "new_res.json", value)
    with pytest.raises(ItemFileError, match=r"new_res\.json"):
        read_rulings(tmp_path / "new_res.json", ["0.png"])
