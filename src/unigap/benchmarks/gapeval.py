"""GapEval's directories (arXiv 2602.02140), read as they are.

    ROOT/data_<n>/prompt.json             one object, or a list whose first element is that object
    ROOT/data_<n>/image/*.png             the problem picture (a folder called "inage" is read too)
    ROOT/data_<n>/ref/*.png               the reference picture; without one, the problem picture
    ROOT/data_<n>/<model>/text.json       {"output_text": ...}, the model's answer in text
    ROOT/data_<n>/<model>/*.png           its answers as pictures (.jpg and .jpeg too)
    ROOT/data_<n>/<model>/new_res.json    what their judge made of them

prompt.json says `category`, `subcategory`, `und_prompt` (or `problem`), `gen_prompt` and `reference`; other keys are
not read. "Multi Hop" is drawn from the prompt alone; every other category edits the problem picture.

An item's family is the paper's category (`FOLDED`), its variant "category: subcategory" as the file has it. Items that
show the same picture are one cluster. The answer is what `reference` says: counts if it is an object of `objects` and
`number` and the sandbox knows the objects by these names, else the text.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unigap.benchmarks.gapeval_results import AGREEMENT, read_rulings
from unigap.benchmarks.imported import Found, Made, names_in, read_json
from unigap.errors import ItemFileError
from unigap.items import Answer, Count, Counts, Direction, FreeText, Item
from unigap.records import JudgeRef, Key, Verdict
from unigap.scenes.vocabulary import OBJECTS, counted, list_counts, plural

PROMPT, TEXT, RESULTS = "prompt.json", "text.json", "new_res.json"
IMAGE_FOLDERS, REF_FOLDER = ("image", "inage"), "ref"
NOT_MODELS = frozenset((*IMAGE_FOLDERS, REF_FOLDER))
PICTURES = (".png", ".jpg", ".jpeg")

CATEGORIES: Mapping[str, str] = {
    "instruction_following": "Instruction Following",
    "numerical_perception": "Numerical Perception",
    "world_knowledge": "World Knowledge",
    "reasoning": "Reasoning",
}
"""Family -> the paper's name of it."""

FOLDED: Mapping[str, str] = {
    "instruction_following": "instruction_following", "rule_based": "instruction_following",
    "edit": "instruction_following", "edit_instruction_following": "instruction_following",
    "numerical_perception": "numerical_perception", "counting": "numerical_perception",
    "world_knowledge": "world_knowledge", "multi_hop": "world_knowledge", "animal": "world_knowledge",
    "cartoon": "world_knowledge", "celebrity": "world_knowledge", "landmark": "world_knowledge",
    "reasoning": "reasoning", "physics": "reasoning", "chess": "reasoning", "plants": "reasoning",
    "animals": "reasoning",
}  # fmt: skip
"""Category of a prompt.json, in lower case with "_" between words -> family. Others become "unfolded_NAME"."""

MULTI_HOP = "multi_hop"
_DATA = re.compile(r"data_([0-9]+)")


def is_gapeval(folder: Path) -> bool:
    """Whether a folder holds data_<n>/prompt.json."""
    return any((path / PROMPT).is_file() for path in data_folders(folder))


def data_folders(root: Path) -> list[Path]:
    """Its folders data_<n>, by number; links are not followed."""
    folders = (path for name, path in names_in(root).items() if _DATA.fullmatch(name) and not path.is_symlink())
    return [path for path in folders if path.is_dir()]


def read_gapeval(root: Path) -> list[Item]:
    """Read all items under a root; their pictures are named relative to it.

    Raises:
        ItemFileError: There are none, or a prompt.json is malformed (file, key, what was expected).
    """
    items = [_item(root, folder) for folder in data_folders(root)]
    if not items:
        raise ItemFileError(f"{root} holds no items: expected folders data_<n> with {PROMPT} and image/")
    return items


def _item(root: Path, folder: Path) -> Item:
    path = folder / PROMPT
    data = read_json(path)
    data = data[0] if isinstance(data, list) and data else data
    if not isinstance(data, Mapping):
        raise ItemFileError(f"{path}: a JSON {type(data).__name__}; expected one object, or a list that starts with it")
    category = _text(path, data, "category")
    subcategory = data.get("subcategory") or ""
    if not isinstance(subcategory, str):
        raise ItemFileError(f'{path}: "subcategory" is {subcategory!r}; expected a string')
    answer, caption = _reference(path, data.get("reference"))
    problem = problem_pictures(folder)
    shown, references = (
        tuple(str(picture.relative_to(root).as_posix()) for picture in pictures)
        for pictures in (problem, _pictures(folder / REF_FOLDER))
    )
    edits = not is_multi_hop(category)
    if edits and not shown:
        raise ItemFileError(
            f"{folder}: no picture in image/; category {category!r} edits one (only Multi Hop draws from text alone)"
        )
    return Item(
        id=folder.name,
        family=family_of(category),
        unit=folder.name,
        cluster=f"picture/{_sha256(problem)}" if problem else folder.name,
        question=_text(path, data, "und_prompt", "problem"),
        prompt=_text(path, data, "gen_prompt"),
        caption=caption,
        answer=answer,
        images=shown,
        prompt_images=shown if edits else (),
        reference_images=references,
        variant=f"{category}: {subcategory}",
        source="gapeval",
    )


def _text(path: Path, data: Mapping[str, Any], *keys: str) -> str:
    key = next((key for key in keys if key in data), keys[0])
    if not isinstance(value := data.get(key), str) or not value.strip():
        raise ItemFileError(f'{path}: "{key}" is {value!r}; expected {" or ".join(keys)}: a non-empty string')
    return value


def family_of(category: str) -> str:
    """The paper's category that a category of a prompt.json folds into."""
    name = category_key(category)
    if name.startswith("world_knowledge"):
        return "world_knowledge"
    return FOLDED.get(name, f"unfolded_{name}")


def is_multi_hop(category: str) -> bool:
    return category_key(category) == MULTI_HOP


def category_key(category: str) -> str:
    """A category in lower case, with "_" between words."""
    return re.sub("[^a-z0-9]+", "_", category.lower()).strip("_")


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    return digest.hexdigest()[:16]


def problem_pictures(folder: Path) -> list[Path]:
    """The problem pictures of a data folder."""
    found = (_pictures(folder / name) for name in IMAGE_FOLDERS)
    return next(filter(None, found), [])


def reference_pictures(folder: Path) -> list[Path]:
    """The reference pictures of a data folder; the problem pictures if it has none."""
    return _pictures(folder / REF_FOLDER) or problem_pictures(folder)


def _pictures(folder: Path) -> list[Path]:
    named = (path for path in names_in(folder).values() if path.suffix.lower() in PICTURES)
    return [path for path in named if path.is_file() and not path.is_symlink()]


# ---- references ------------------------------------------------------------------------------------------------------


def _reference(path: Path, value: Any) -> tuple[Answer, str]:
    """The answer, and the caption that says it."""
    parsed = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(parsed, str) and parsed.lstrip().startswith(("{", "[")):
        try:
            parsed = json.loads(parsed)
        except (ValueError, RecursionError):
            parsed = value
    if isinstance(parsed, Mapping) and (counts := _counts(parsed)):
        if len(counts) == 1:
            ((name, n),) = counts.items()
            return Count(object=name, n=n), counted(name, n)
        return Counts(counts=counts), list_counts(counts)
    if isinstance(parsed, Mapping):
        text = json.dumps(parsed, ensure_ascii=False)
    else:
        texts = parsed if isinstance(parsed, list) else [parsed]
        if not all(isinstance(text, str) for text in texts):
            raise ItemFileError(f'{path}: "reference" is {value!r}; expected a string, or a list of strings')
        text = "; ".join(text.strip() for text in texts if text.strip())
    if not text:
        raise ItemFileError(f'{path}: "reference" is {value!r}; expected what a right answer says')
    return FreeText(text=text), text


def _counts(data: Mapping[str, Any]) -> dict[str, int] | None:
    """{"objects": ["cat", "dogs"], "number": [3, 2]} as counts, in the order of the sandbox's objects."""
    objects, numbers = (_as_list(data.get(key)) for key in ("objects", "number"))
    # An alias ("kitten") stays text: written back, it would be another word.
    names = [_SAID.get(said.strip().lower()) if isinstance(said, str) else None for said in objects]
    if None in names or len(set(names)) != len(numbers) or len(names) != len(numbers):
        return None
    if not all(re.fullmatch("[0-9]{1,4}", str(n)) for n in numbers):
        return None
    counts = dict(zip(names, map(int, numbers), strict=True))
    return {name: counts[name] for name in OBJECTS if name in counts}


_SAID = {said: name for name in OBJECTS for said in (name, plural(name))}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# ---- a model's answers -----------------------------------------------------------------------------------------------


def models_in(root: Path) -> list[str]:
    """Who has answered under a root, by folder."""
    names = (name for folder in data_folders(root) for name in model_folders(folder))
    return sorted(set(names))


def model_folders(folder: Path) -> dict[str, Path]:
    """The folders of models inside a data folder."""
    inside = names_in(folder).items()
    return {name: path for name, path in inside if name not in NOT_MODELS and path.is_dir() and not path.is_symlink()}


def find_answers(root: Path, model: str, *, judge: JudgeRef | None = None) -> Found:
    """What a model answered, in both directions; they have one way of asking, which is the arm "normal" here.

    Several pictures of one item are its samples, in the order of their names; the text is sample 0.

    Args:
        root: GapEval's directories.
        model: Name of its folders.
        judge: Set: read their judge's results as verdicts of this judge.

    Raises:
        ItemFileError: As `read_gapeval`, or no folder is the model's (the message lists those there are).
    """
    items = read_gapeval(root)
    if model not in (known := models_in(root)):
        raise ItemFileError(
            f"{root} has no answers of {model!r}: expected folders data_<n>/{model}. "
            f"Models there: {', '.join(known) or 'none'}"
        )
    found = Found.joined([_find_item(item, model_folders(root / item.id).get(model), judge) for item in items])
    if num := sum(verdict.reading == AGREEMENT for verdict in found.verdicts):
        note = f"{num} verdicts on pictures say whether they agree with a wrong text, not whether they are right"
        found = replace(found, notes=(f"{note}; their reading says so",))
    return found


def _find_item(item: Item, folder: Path | None, judge: JudgeRef | None) -> Found:
    inside = names_in(folder) if folder else {}
    text, results = inside.pop(TEXT, None), inside.pop(RESULTS, None)
    pictures = [path for path in inside.values() if path.suffix.lower() in PICTURES]
    missing = [what for what, there in ((TEXT, text), ("picture", pictures)) if not there]
    made = [Made(key=_key(item, "generation", sample), picture=path) for sample, path in enumerate(pictures)]
    verdicts: list[Verdict] = []
    unreadable: list[str] = []
    try:
        if text is not None:
            made.append(Made(key=_key(item, "understanding"), text=_output_text(text)))
    except ItemFileError as error:
        unreadable.append(str(error))
    try:
        if results is not None and judge is not None:
            verdicts = _verdicts(item, results, pictures, judge)
    except ItemFileError as error:
        unreadable.append(str(error))
    return Found(
        items=(item,),
        made=tuple(made),
        missing=tuple(f"{item.id}: no {what}" for what in missing),
        unmatched=tuple(str(path) for path in inside.values() if path not in pictures),
        unreadable=tuple(unreadable),
        verdicts=tuple(verdicts),
    )


def _verdicts(item: Item, path: Path, pictures: Sequence[Path], judge: JudgeRef) -> list[Verdict]:
    rulings = read_rulings(path, [picture.name for picture in pictures], choice=is_choice(item))
    keys = [_key(item, "understanding"), *(_key(item, "generation", sample) for sample in range(len(pictures)))]
    said = zip(keys, (rulings.text, *rulings.pictures), strict=True)
    return [Verdict.of(key, ruling, judge) for key, ruling in said if ruling is not None]


def _key(item: Item, direction: Direction, sample: int = 0) -> Key:
    return Key(item.id, direction, "normal", sample)


def is_choice(item: Item) -> bool:
    """Whether their judge asks another question about the picture once the text is wrong."""
    category, _, subcategory = item.variant.lower().partition(": ")
    return category == "reasoning" and any(kind in subcategory for kind in ("mmlu", "mmmu", "puzzle"))


def _output_text(path: Path) -> str:
    data = read_json(path)
    if not isinstance(data, Mapping) or not isinstance(text := data.get("output_text"), str):
        raise ItemFileError(f'{path}: no "output_text"; expected {{"output_text": "..."}}')
    return text
