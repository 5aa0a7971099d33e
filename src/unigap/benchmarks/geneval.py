"""GenEval's evaluation_metadata.jsonl (arXiv 2310.11513) and GenEval++'s metadata (arXiv 2508.09987), as they are.

    {"tag": "position", "exclude": [...], "prompt": "...",
     "include": [{"class": "cow", "count": 1}, {"class": "bench", "count": 1, "position": ["left of", 0]}]}

| key of an entry | meaning |
| --- | --- |
| `class`, `count` | at least so many in GenEval; exactly so many in GenEval++, or with an `exclude` of one more |
| `color` | of all of them |
| `position` | [relation, index of the entry it is seen from]; GenEval |
| `region` | left, right, above, below: where in the picture; GenEval++ |
| `size` | larger or smaller than the other entries; GenEval++ |

An item is asked as a picture alone, as there is no picture to ask about. Its family is "geneval/TAG", or
"geneval++/TAG" where the file's name or a tag says that it is GenEval++'s. A picture is right only if everything in its
line is.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from unigap.benchmarks.lines import read_objects
from unigap.errors import ItemFileError
from unigap.items import Composition, Item, Part
from unigap.scenes.places import RELATIONS
from unigap.scenes.vocabulary import NUM_CELLS, find_object

EXPECTED: Final = 'expected {"tag": ..., "include": [{"class": ..., "count": ...}, ...], "prompt": ...}'

GENEVAL_TAGS: Final = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PLUS_TAGS: Final = (
    "counting", "color_attr", "color_count_attr", "color_spatial_attr", "spatial_count_attr", "size_spatial_attr",
    "multi_object_count_attr",
)  # fmt: skip

REGIONS: Final = {"left": "left part", "right": "right part", "above": "upper part", "below": "lower part"}
SIZES: Final = ("larger", "smaller")
_KEYS: Final = {"class", "count", "color", "position", "region", "size"}


def is_geneval(line: Mapping[str, Any]) -> bool:
    """Whether a line is one of these files'."""
    return {"tag", "include", "prompt"} <= line.keys()


def read_geneval(path: Path) -> list[Item]:
    """Read one file, in its own order; ids are the numbers of GenEval's own folders ("STEM/00000").

    Raises:
        ItemFileError: A line is not of the format; the message says which, and what was expected.
    """
    lines = list(read_objects(path, EXPECTED))
    tags = {line.get("tag") for _, line in lines}
    plus = "++" in path.stem or any(tag in PLUS_TAGS and tag not in GENEVAL_TAGS for tag in tags)
    return [_item(path, number, index, line, plus=plus) for index, (number, line) in enumerate(lines)]


def _item(path: Path, number: int, index: int, line: Mapping[str, Any], *, plus: bool) -> Item:
    tag, prompt = line.get("tag"), line.get("prompt")
    if not isinstance(tag, str) or not tag or not isinstance(prompt, str) or not prompt.strip():
        raise ItemFileError(f"{path}, line {number}: tag {tag!r} and prompt {prompt!r} must be texts; {EXPECTED}")
    try:
        parts = _parts(line.get("include"), line.get("exclude", []), exact=plus)
        answer = Composition(parts=parts, only=False)
    except ValueError as error:
        raise ItemFileError(f"{path}, line {number}: {error}; {EXPECTED}") from None
    name = f"{path.stem}/{index:05d}"
    return Item(
        id=name,
        family=f"{'geneval++' if plus else 'geneval'}/{tag}",
        unit=name,
        cluster=name,
        question="",
        prompt=prompt,
        caption=prompt,
        answer=answer,
        source=path.name,
    )


def _parts(include: Any, exclude: Any, *, exact: bool) -> tuple[Part, ...]:
    """What a line asks for.

    Raises:
        ValueError: It cannot be told.
    """
    if not isinstance(include, Sequence) or isinstance(include, str) or not include:
        raise ValueError(f'"include" is {include!r}')
    if not isinstance(exclude, Sequence) or isinstance(exclude, str):
        raise ValueError(f'"exclude" is {exclude!r}')
    limits = dict(
        _class_and_count(entry, f"exclude[{place}]", {"class", "count"}) for place, entry in enumerate(exclude)
    )
    parts = []
    for place, entry in enumerate(include):
        name, count = _class_and_count(entry, f"include[{place}]", _KEYS)
        limit = limits.pop(name, None)
        if limit is not None and limit != count + 1:
            raise ValueError(f"exclude of {name!r} from {limit} on does not fit {count} of it; expected {count + 1}")
        relation, to = _position(entry, place)
        parts.append(
            Part(
                object=find_object(name) or name,
                n=count,
                at_least=limit is None and not exact,
                color=_word(entry, "color"),
                size=_one_of(entry, "size", SIZES),
                place=REGIONS.get(_one_of(entry, "region", REGIONS), ""),
                relation=relation,
                to=to,
            )
        )
    for name, limit in limits.items():
        if limit != 1:
            raise ValueError(f"exclude of {name!r} from {limit} on, of which nothing is included; expected 1")
        parts.append(Part(object=find_object(name) or name, n=0))
    return tuple(parts)


def _class_and_count(entry: Any, where: str, known: set[str]) -> tuple[str, int]:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is {entry!r}")
    name, count = entry.get("class"), entry.get("count")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'{where}: "class" is {name!r}')
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f'{where}: "count" is {count!r}, expected a whole number from 1 on')
    if unknown := sorted(entry.keys() - known):
        raise ValueError(
            f"{where} asks for {', '.join(unknown)}, which nothing here can judge; known: {', '.join(sorted(known))}"
        )
    return name.strip(), count


def _position(entry: Mapping[str, Any], place: int) -> tuple[str, int | None]:
    if entry.get("position") is None:
        return "", None
    match entry["position"]:
        case [str(relation), int(to)] if relation in RELATIONS and 0 <= to < place:
            return relation, to
    raise ValueError(
        f'include[{place}]: "position" is {entry["position"]!r}, expected [one of {", ".join(RELATIONS)}; the index of '
        "an entry before it]"
    )


def _word(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f'"{key}" is {value!r}, expected a word')
    return value


def _one_of(entry: Mapping[str, Any], key: str, known: Sequence[str] | Mapping[str, str]) -> str:
    value = _word(entry, key)
    if value and value not in known:
        raise ValueError(f'"{key}" is {value!r}, expected one of: {", ".join(known)}')
    return value


def inside(item: Item) -> str | None:
    """Why an item cannot be drawn and read in the sandbox's world; None if it can."""
    answer = item.answer
    assert isinstance(answer, Composition)
    for part in answer.parts:
        if find_object(part.object) is None:
            return f"{part.object}: not an object of the sandbox"
        if part.color or part.size or part.place:
            asked = "color" if part.color else "size" if part.size else "region"
            return (
                f"{asked}: objects of the sandbox have one each" if asked != "region" else "regions of half a picture"
            )
    total = sum(part.n for part in answer.parts)
    return f"{total} objects: a picture holds at most {NUM_CELLS}" if total > NUM_CELLS else None
