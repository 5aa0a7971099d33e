"""The task folder of lmms-eval: its documented fields, its functions, and its own loader where it is installed."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import Image
from tests.fakes import make_item

from unigap.bridges.lmms_eval import METRIC, aggregate, export_lmms_eval, process_results, read_drawing
from unigap.cli import main
from unigap.errors import CannotJudgeError
from unigap.items import Count, FreeText, Item, read_items, write_items
from unigap.scenes import make_items
from unigap.scenes.render import parse_scene, render

ROOT = Path(__file__).parents[2]

FIELDS = set(
    "task dataset_path dataset_kwargs test_split output_type doc_to_visual doc_to_text doc_to_target process_results "
    "generation_kwargs metric_list metadata".split()
)
"""Of lmms-eval 0.7.3, `lmms_eval.api.task.TaskConfig`: those that are used here."""


class Loader(yaml.SafeLoader):
    """Reads "!function module.name" as lmms-eval does: from the file beside the task."""


Loader.add_constructor("!function", lambda loader, node: ("function", loader.construct_scalar(node)))  # type: ignore[arg-type]


def load_utils(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("utils", folder / "utils.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """4 counting items, and one with a picture of its own that is shown in both directions."""
    Image.new("RGB", (8, 6), "red").save(tmp_path / "own.png")
    items = [*make_items(("counting",), num_units=4, seed=0)]
    items.append(make_item(0, images=("own.png",), prompt_images=("own.png",)))
    write_items(tmp_path / "my items.jsonl", items)
    with pytest.raises(SystemExit) as done:
        main(
            [
                "items",
                "export",
                str(tmp_path / "my items.jsonl"),
                "--format",
                "lmms-eval",
                "--out",
                str(tmp_path / "tasks"),
            ]
        )
    assert done.value.code == 0
    return tmp_path / "tasks"


def test_the_command_writes_a_task_for_each_direction_and_their_group(folder: Path):
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "unigap_my_items.yaml", "unigap_my_items_understanding.yaml", "unigap_my_items_generation.yaml", "utils.py",
        "understanding.jsonl", "generation.jsonl",
    }  # fmt: skip
    group = yaml.safe_load((folder / "unigap_my_items.yaml").read_text())
    utils = load_utils(folder)
    assert group == {
        "group": "unigap_my_items",
        "task": [f"unigap_my_items_{way}" for way in ("understanding", "generation")],
    }
    for name in group["task"]:
        task = yaml.load((folder / f"{name}.yaml").read_text(), Loader)
        assert task["task"] == name and set(task) == FIELDS
        named = [value[1] for value in task.values() if isinstance(value, tuple)]
        named.append(task["metric_list"][0]["aggregation"][1])
        assert len(named) == 4 and all(callable(getattr(utils, one.removeprefix("utils."))) for one in named)
        lines = (folder / task["dataset_kwargs"]["data_files"]["test"]).read_text().splitlines()
        docs = [json.loads(line) for line in lines]
        assert len(docs) == 5 and all(set(doc) == {"id", "family", "target", "item"} for doc in docs)
        assert {type(value) for doc in docs for value in doc.values()} == {str}  # one schema whatever the answers


def test_documents_show_what_the_items_show_and_pictures_travel_with_the_folder(folder: Path):
    items, utils = list(read_items(folder.parent / "my items.jsonl")), load_utils(folder)
    (folder.parent / "own.png").unlink()
    docs = [json.loads(line) for line in (folder / "generation.jsonl").read_text().splitlines()]
    for item, doc in zip(items, docs, strict=True):
        assert (utils.question_text(doc), utils.prompt_text(doc)) == (item.question, item.prompt)
        assert len(utils.question_visual(doc)) == 1
    assert [len(utils.prompt_visual(doc)) for doc in docs] == [1] * 5
    assert utils.prompt_visual(docs[4])[0].getpixel((0, 0)) == (255, 0, 0)


def test_right_and_wrong_replies_are_told_apart_in_both_directions(folder: Path, tmp_path: Path):
    utils = load_utils(folder)
    docs = [json.loads(line) for line in (folder / "generation.jsonl").read_text().splitlines()]
    item = Item.from_json(json.loads(docs[0]["item"]))
    assert isinstance(item.answer, Count)
    render(parse_scene(item.images[0])).save(tmp_path / "right.png")
    right = json.dumps({"text": "here", "images": ["draft.png", str(tmp_path / "right.png")]})
    found = [
        utils.judge_answer(docs[0], [item.caption]),
        utils.judge_answer(docs[0], [f"{item.answer.n + 1} {item.answer.object}s"]),
        utils.judge_drawing(docs[0], [right]),
        utils.judge_drawing(docs[0], ["I cannot draw."]),
        utils.judge_drawing(docs[0], ['{"text": "no", "images": []}']),
    ]
    told = [(one[METRIC]["verdict"], one[METRIC]["error"]) for one in found]
    assert told == [
        ("correct", None),
        ("incorrect", "wrong_count"),
        ("correct", None),
        *[("incorrect", "unreadable")] * 2,
    ]


def test_a_drawing_that_the_harness_lost_is_an_error_and_a_damaged_one_is_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(FileNotFoundError):
        read_drawing(json.dumps({"text": "", "images": [str(tmp_path / "none.png")]}))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG bad")
    assert str(read_drawing(json.dumps({"images": [str(tmp_path / "bad.png")]}))).startswith(
        "the drawing cannot be read"
    )
    Image.new("RGB", (9, 9)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 81 are more than twice as many: Pillow takes it for a bomb
    assert "exceeds limit" in str(read_drawing(json.dumps({"images": [str(tmp_path / "huge.png")]})))


def results(*units: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"unit": unit, "verdict": verdict} for unit, verdict in units]


def test_a_pair_counts_once_and_one_with_an_unscored_half_leaves_the_rate():
    # a: both right = 1; b: one wrong = 0; c: a half unscored, left out; d: right = 1.  2 of 3.
    pairs = [("a", "correct"), ("b", "correct"), ("c", "incorrect"), ("a", "correct"), ("b", "incorrect")]
    assert aggregate(results(*pairs, ("c", "unscored"), ("d", "correct"))) == pytest.approx(2 / 3)
    assert math.isnan(aggregate(results(("c", "unscored"))))


def test_a_judge_that_cannot_read_the_answers_is_refused_when_the_folder_is_written(tmp_path: Path):
    with pytest.raises(CannotJudgeError, match="exact reads answers of kind .*; 1 of 1 items have another"):
        export_lmms_eval([make_item(0, answer=FreeText(text="a"))], tmp_path, name="x")
    assert not list(tmp_path.iterdir())


def test_process_results_rules_by_the_judge_named():
    doc = {"item": json.dumps(make_item(1).to_json())}
    found = process_results(doc, [make_item(1).caption], "understanding", "exact", Path())
    assert found[METRIC]["verdict"] == "correct"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed")
def test_the_loader_of_lmms_eval_loads_the_tasks_and_gives_the_rate(tmp_path: Path):
    export_lmms_eval(list(make_items(("counting",), num_units=4, seed=0)), tmp_path, name="counting")
    done = subprocess.run(
        [sys.executable, "-m", "tests.bridges.lmms_eval_case", str(tmp_path), "unigap_counting"],
        check=True, cwd=ROOT, timeout=600, capture_output=True, text=True,
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told) == {"unigap_counting_understanding", "unigap_counting_generation"}
    for task in told.values():
        assert (task["value"], task["requests"]) == (3 / 4, 4)  # the first of 4 was answered wrongly
