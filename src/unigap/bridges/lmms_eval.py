"""A task folder for lmms-eval (`--include_path FOLDER --tasks unigap_NAME`), and what its tasks call.

    FOLDER/unigap_NAME_understanding.yaml    FOLDER/unigap_NAME_generation.yaml    asked at once, the arm `normal`
    FOLDER/unigap_NAME.yaml                  both
    FOLDER/utils.py                          the folder's functions, each a line that calls this module
    FOLDER/understanding.jsonl, generation.jsonl, pictures/                        documents: {"id", "family", "item"}

A drawing comes back as lmms-eval's generating models give it: the JSON text {"text": ..., "images": [path, ...]}.
Written for lmms-eval 0.7.3.
"""

import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from unigap.arms import load_picture
from unigap.disk import dump_line, explain_os_errors, safe_name, write_files
from unigap.errors import CannotJudgeError
from unigap.items import DIRECTIONS, Direction, Item
from unigap.judges import find_judge
from unigap.judges.protocol import Judge, Submission
from unigap.models.protocol import Sampling
from unigap.records import Ruling

METRIC = "unigap_accuracy"
PICTURES = "pictures"
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_TOKENS: Mapping[Direction, int] = {"understanding": 64, "generation": Sampling().max_think_tokens}
"""Of a reply. Models that draw may write before they do."""

_UTILS = '''"""Functions of these tasks; unigap must be installed beside lmms-eval."""

from pathlib import Path

from unigap.bridges import lmms_eval

ROOT = Path(__file__).parent
JUDGE = {judge}


def question_visual(doc):
    return lmms_eval.doc_to_visual(doc, "understanding", ROOT)


def question_text(doc):
    return lmms_eval.doc_to_text(doc, "understanding")


def prompt_visual(doc):
    return lmms_eval.doc_to_visual(doc, "generation", ROOT)


def prompt_text(doc):
    return lmms_eval.doc_to_text(doc, "generation")


def judge_answer(doc, results):
    return lmms_eval.process_results(doc, results, "understanding", JUDGE, ROOT)


def judge_drawing(doc, results):
    return lmms_eval.process_results(doc, results, "generation", JUDGE, ROOT)


def accuracy(results):
    return lmms_eval.aggregate(results)
'''

_FUNCTIONS: Mapping[Direction, tuple[str, str, str]] = {
    "understanding": ("question_visual", "question_text", "judge_answer"),
    "generation": ("prompt_visual", "prompt_text", "judge_drawing"),
}


# ---- writing ---------------------------------------------------------------------------------------------------------


def export_lmms_eval(
    items: Sequence[Item], out: Path, *, name: str, judge: str = "exact", image_root: Path | None = None
) -> list[Path]:
    """Write a task folder; returns the files that were written, pictures aside.

    Args:
        name: The tasks are called unigap_NAME and so on; other characters than letters and digits become "_".
        judge: Who judges, as of `unigap eval`; can be changed in utils.py later.
        image_root: Folder that paths of the items' own pictures start from; they are copied.

    Raises:
        UnknownNameError: There is no such judge.
        CannotJudgeError: It cannot read the answers of some items.
        ItemFileError: A picture that an item shows cannot be read.
    """
    _check_answers(find_judge(judge), items)
    task = "unigap_" + re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    files: dict[str, bytes] = {"utils.py": _UTILS.format(judge=json.dumps(judge)).encode()}
    tasks = []
    for direction in DIRECTIONS:
        asked = [item for item in items if (item.question if direction == "understanding" else item.prompt)]
        if not asked:
            continue
        tasks.append(f"{task}_{direction}")
        files[f"{tasks[-1]}.yaml"] = _task_yaml(tasks[-1], direction).encode()
        files[f"{direction}.jsonl"] = b"".join(_document(item) for item in asked)
    members = "".join(f"  - {one}\n" for one in tasks)
    files[f"{task}.yaml"] = f"group: {task}\ntask:\n{members}".encode()
    pictures = dict(_pictures(items, image_root, out))
    with explain_os_errors(out, safe="Nothing was lost"):
        write_files([*pictures.items(), *((out / path, data) for path, data in files.items())])
    return [out / path for path in files]


def _check_answers(judge: Judge, items: Sequence[Item]) -> None:
    unread = [item for item in items if item.answer.kind not in judge.answer_kinds]
    if unread:
        raise CannotJudgeError(
            f"{judge.name} reads answers of kind {', '.join(sorted(judge.answer_kinds))}; {len(unread)} of "
            f"{len(items)} items have another (first: {unread[0].id[:80]!r}); name another with --judge"
        )


def _task_yaml(task: str, direction: Direction) -> str:
    visual, text, judge = _FUNCTIONS[direction]
    return f"""task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {direction}.jsonl
test_split: test
output_type: generate_until
doc_to_visual: !function utils.{visual}
doc_to_text: !function utils.{text}
doc_to_target: target
process_results: !function utils.{judge}
generation_kwargs:
  max_new_tokens: {MAX_TOKENS[direction]}
  temperature: 0
  do_sample: false
metric_list:
  - metric: {METRIC}
    aggregation: !function utils.accuracy
    higher_is_better: true
metadata:
  version: 1.0
"""


def _document(item: Item) -> bytes:
    kept = replace(
        item,
        images=tuple(_place(item, ref) for ref in item.images),
        prompt_images=tuple(_place(item, ref) for ref in item.prompt_images),
    )
    # As one text, so that all documents have the same columns whatever their answers are.
    return dump_line(
        {
            "id": item.id,
            "family": item.family,
            "target": item.caption,
            "item": json.dumps(kept.to_json(), ensure_ascii=False),
        }
    )


def _place(item: Item, ref: str) -> str:
    return ref if ref.startswith("scene:") else f"{PICTURES}/{safe_name(f'{item.id}/{ref}')}.png"


def _pictures(items: Iterable[Item], root: Path | None, out: Path) -> Iterable[tuple[Path, bytes]]:
    for item in items:
        for ref in {*item.images, *item.prompt_images}:
            if not ref.startswith("scene:"):
                png = io.BytesIO()
                load_picture(item, ref, root).save(png, "PNG")
                yield out / _place(item, ref), png.getvalue()


# ---- called by lmms-eval ---------------------------------------------------------------------------------------------


def _item(doc: Mapping[str, Any]) -> Item:
    return Item.from_json(json.loads(doc["item"]))


def doc_to_visual(doc: Mapping[str, Any], direction: Direction, root: Path) -> list[Image.Image]:
    item = _item(doc)
    refs = item.images if direction == "understanding" else item.prompt_images
    return [load_picture(item, ref, root) for ref in refs]


def doc_to_text(doc: Mapping[str, Any], direction: Direction) -> str:
    item = _item(doc)
    return item.question if direction == "understanding" else item.prompt


@cache
def _judge(name: str) -> Judge:
    return find_judge(name)


def process_results(
    doc: Mapping[str, Any], results: Sequence[str], direction: Direction, judge: str, root: Path
) -> dict[str, dict[str, Any]]:
    """The verdict on one reply, under the metric's name; `aggregate` makes the rate of them."""
    item = _item(doc)
    made = results[0]
    if direction == "understanding":
        ruling = _judge(judge).judge([Submission(item=item, text=made, image_root=root)])[0]
    elif isinstance(drawn := read_drawing(made), str):
        ruling = Ruling.incorrect("unreadable", drawn)
    else:
        ruling = _judge(judge).judge([Submission(item=item, image=drawn, image_root=root)])[0]
    about = {"unit": item.unit, "family": item.family, "item_id": item.id}
    return {METRIC: {**about, "verdict": ruling.verdict, "error": ruling.error, "why": ruling.why}}


def read_drawing(reply: str) -> Image.Image | str:
    """The picture that a generating model of lmms-eval names (the last, of several), or why there is none.

    Raises:
        FileNotFoundError: It names a file that is not there, which is the harness's failure and not the model's.
    """
    try:
        data = json.loads(reply)
    except ValueError:
        data = None
    if not isinstance(data, Mapping) or not isinstance(paths := data.get("images"), list):
        return f'no drawing came: expected {{"text": ..., "images": [...]}}, got {reply[:80]!r}'
    if not paths:
        return "no drawing came"
    try:
        with Image.open(str(paths[-1]), formats=FORMATS) as file:
            return file.convert("RGB")
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"the drawing cannot be read: {error}"


def aggregate(results: Sequence[Mapping[str, Any]]) -> float:
    """Share of units of which all items are right. A unit with an unscored item is left out, whatever its others are;
    NaN if none is left."""
    units: dict[str, list[str]] = defaultdict(list)
    for result in results:
        units[result["unit"]].append(result["verdict"])
    scored = [words for words in units.values() if "unscored" not in words]
    if not scored:
        return math.nan
    return sum(all(word == "correct" for word in words) for words in scored) / len(scored)
