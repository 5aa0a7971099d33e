"""Items: one fact, asked in both directions.

An item carries a `question` (to be answered in text) and a `prompt` (to be answered with a picture) about the same
fact, the typed `answer`, and a plain `caption` that says the answer without asking for any skill. Everything here is
plain data and round-trips through one JSON object a line (docs/formats.md).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from unigap.errors import ItemFileError, UnknownNameError

SCHEMA = 1
SUITE_VERSION = "1"
"""Version of the sandbox: raised whenever a (family, seed) would give other items."""

Direction = Literal["understanding", "generation"]
Arm = Literal["normal", "think", "refined", "oracle"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
ARMS: tuple[Arm, ...] = get_args(Arm)
ARMS_OF: Mapping[Direction, tuple[Arm, ...]] = {"understanding": ("normal", "think"), "generation": ARMS}


@dataclass(frozen=True, kw_only=True)
class Count:
    """`n` copies of one object and nothing else."""

    kind: Literal["count"] = "count"
    object: str
    """Canonical singular name, e.g. "cup"."""
    n: int


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Several kinds of objects with their counts, and nothing else."""

    kind: Literal["counts"] = "counts"
    counts: Mapping[str, int]
    """Canonical singular name -> count, at least two entries."""


@dataclass(frozen=True, kw_only=True)
class Object:
    """One kind of object; any number of copies, at least one, and nothing else."""

    kind: Literal["object"] = "object"
    object: str


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """A person, by the attributes that a portrait shows."""

    kind: Literal["portrait"] = "portrait"
    gender: str
    age: str
    hair: str
    skin: str


@dataclass(frozen=True, kw_only=True)
class Character:
    """A fictional character: in text the `name` is the answer, in a picture the `portrait` is."""

    kind: Literal["character"] = "character"
    name: str
    portrait: Portrait


@dataclass(frozen=True, kw_only=True)
class Traits:
    """A person of whom some attributes are asked; the others do not matter."""

    kind: Literal["traits"] = "traits"
    traits: Mapping[str, str]
    """Attribute of a portrait -> its value, at least one."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Objects of one kind in a composition, and everything that is asked of them."""

    object: str
    """Canonical singular name; of files of others their own."""
    n: int = 1
    """0: there must be none."""
    at_least: bool = False
    """More of them are right too."""
    color: str = ""
    size: str = ""
    """Beside the other parts: "larger" or "smaller"."""
    place: str = ""
    """Where all of them are: in the sandbox a key of `unigap.scenes.places.PLACES`."""
    relation: str = ""
    """Where each of them is, seen from each of the part `to`: "left of", "right of", "above" or "below"."""
    to: int | None = None
    """Index of that part."""


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Objects with their numbers, colors and places: right only if every part is."""

    kind: Literal["composition"] = "composition"
    parts: tuple[Part, ...]
    only: bool = True
    """Nothing else may be in the picture."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a composition has at least one part")
        for index, part in enumerate(self.parts):
            if bool(part.relation) != (part.to is not None):
                raise ValueError(f'part {index}: "relation" and "to" belong together')
            if part.to is not None and (part.to == index or not 0 <= part.to < len(self.parts)):
                raise ValueError(
                    f'part {index}: "to" is {part.to}, expected the index of another of {len(self.parts)} parts'
                )
        for index, part in enumerate(self.parts):
            seen, at = {index}, part.to
            while at is not None:
                if at in seen:
                    raise ValueError(
                        f'part {index}: "to" leads back to a part it came from; nothing says where they are'
                    )
                seen.add(at)
                at = self.parts[at].to


@dataclass(frozen=True, kw_only=True)
class Check:
    """One yes/no question about a picture, to which the right answer is yes."""

    id: int
    question: str
    parents: tuple[int, ...] = ()
    """Ids of questions without whose yes this one's does not count."""
    category: str = ""


@dataclass(frozen=True, kw_only=True)
class Checklist:
    """Questions that a picture is judged by: right only if all are answered yes."""

    kind: Literal["checklist"] = "checklist"
    checks: tuple[Check, ...]

    def __post_init__(self) -> None:
        if not self.checks or len({check.id for check in self.checks}) < len(self.checks):
            raise ValueError("a checklist has at least one question, each with an id of its own")


@dataclass(frozen=True, kw_only=True)
class YesNo:
    """The answer to a yes/no question."""

    kind: Literal["yes_no"] = "yes_no"
    yes: bool


@dataclass(frozen=True, kw_only=True)
class FreeText:
    """An answer outside the sandbox's world, kept as its authors wrote it; needs a judge that reads language."""

    kind: Literal["text"] = "text"
    text: str


Answer = Count | Counts | Object | Portrait | Character | Traits | Composition | Checklist | YesNo | FreeText
ANSWER_KINDS: dict[str, type[Answer]] = {
    "count": Count,
    "counts": Counts,
    "object": Object,
    "portrait": Portrait,
    "character": Character,
    "traits": Traits,
    "composition": Composition,
    "checklist": Checklist,
    "yes_no": YesNo,
    "text": FreeText,
}


def answer_from_json(data: Mapping[str, Any]) -> Answer:
    """Build a typed answer from its JSON object.

    Raises:
        ValueError: Unknown kind, or fields that the kind does not have.
    """
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in ANSWER_KINDS:
        raise ValueError(f'answer "kind" is {kind!r}, expected one of: {", ".join(ANSWER_KINDS)}')
    fields = dict(data)
    try:
        match kind:
            case "character":
                fields["portrait"] = Portrait(**fields["portrait"])
            case "composition":
                fields["parts"] = tuple(Part(**part) for part in fields["parts"])
            case "checklist":
                checks = (Check(**{**check, "parents": tuple(check["parents"])}) for check in fields["checks"])
                fields["checks"] = tuple(checks)
        return ANSWER_KINDS[kind](**fields)
    except KeyError as error:
        raise ValueError(f"answer of kind {kind!r} has no {error}") from None
    except TypeError as error:
        raise ValueError(f"answer of kind {kind!r}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One fact, asked both ways."""

    id: str
    """Unique in a run, e.g. "mapping2/000137/A". Any string: file names are derived from it safely."""
    family: str
    unit: str
    """What scores once: all items of a unit must be right. Equals `id` except in A/B pairs."""
    cluster: str
    """What resamples together because it is dependent: a pair, a fictional character, a source picture."""
    question: str
    """Asks for the answer in text; "" if it is asked for as a picture alone."""
    prompt: str
    """Asks for the answer as a picture; "" if it is asked for in text alone."""
    caption: str
    """Says the answer plainly; the oracle arm draws from it alone."""
    answer: Answer
    other: Answer | None = None
    """The tempting wrong answer: that of the pair's other half, or of the other named character."""
    images: tuple[str, ...] = ()
    """Pictures shown with the question: "scene:..." (unigap.scenes.render) or a path beside the item file."""
    prompt_images: tuple[str, ...] = ()
    """Pictures shown with the prompt (an edit, or a picture to count and redraw)."""
    reference_images: tuple[str, ...] = ()
    """Pictures that show a right answer, for judges; left out of the JSON if there are none."""
    variant: str = ""
    """Kind within the family, e.g. "two" of plain; shown as its own row in detailed tables."""
    lang: str = "en"
    source: str = "sandbox"
    """Where the item is from: "sandbox:seed=0", or a file name."""
    derived: bool = False
    """True when the question was made from the prompt by rule because the source has none."""
    suite_version: str = SUITE_VERSION
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """The item as one JSON object, keys sorted by `json.dumps(sort_keys=True)` where bytes matter."""
        data = asdict(self)
        if not self.reference_images:
            del data["reference_images"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Item":
        """Inverse of `to_json`.

        Raises:
            ValueError: A field is missing, unknown or of the wrong type; the message names it.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"expected a JSON object, found {type(data).__name__}")
        if data.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f'item "schema" is {data["schema"]!r}; this version reads {SCHEMA}')
        fields = dict(data)
        for name in ("id", "family", "question", "prompt", "caption"):
            other = {"question": "prompt", "prompt": "question"}.get(name, "")
            if not isinstance(fields.get(name), str) or not (fields[name] or fields.get(other)):
                raise ValueError(f'"{name}" must be a non-empty string, found {fields.get(name)!r}')
        if not isinstance(fields.get("answer"), Mapping):
            raise ValueError(f'"answer" must be an object with a "kind", found {fields.get("answer")!r}')
        fields["answer"] = answer_from_json(fields["answer"])
        if fields.get("other") is not None:
            fields["other"] = answer_from_json(fields["other"])
        for name in ("images", "prompt_images", "reference_images"):
            value = fields.get(name, ())
            if isinstance(value, str) or not all(isinstance(path, str) for path in value):
                raise ValueError(f'"{name}" must be a list of strings, found {value!r}')
            fields[name] = tuple(value)
        fields.setdefault("unit", fields["id"])
        fields.setdefault("cluster", fields["unit"])
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(str(error).replace("Item.__init__() ", "")) from None


@dataclass(frozen=True)
class Suite:
    """A named list of families."""

    name: str
    families: tuple[str, ...] = field(default=())


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            "sandbox",
            (
                "math1",
                "math2",
                "math3",
                "mapping1",
                "mapping2",
                "mapping3",
                "forward",
                "inverse",
                "plain",
                "counting",
            ),
        ),
        Suite("bidirectional", ("editing", "amounts", "multihop", "choice")),
        Suite(
            "composition",
            (
                "composition/single_object",
                "composition/two_object",
                "composition/counting",
                "composition/colors",
                "composition/position",
                "composition/attribution",
            ),
        ),
    )
}


def find_suite(name: str) -> Suite:
    """A suite by name, or a family's own name as a suite of one.

    Raises:
        UnknownNameError: No suite has that name.
    """
    if name not in SUITES:
        raise UnknownNameError("suite", name, SUITES)
    return SUITES[name]


def items_sha256(items: Iterable[Item]) -> str:
    """Hash of the items' canonical JSON, in order: pins (suite version, seed)."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item.to_json(), sort_keys=True, ensure_ascii=False).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def write_items(path: Path, items: Iterable[Item]) -> int:
    """Write items as JSON lines, UTF-8; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(item.to_json(), ensure_ascii=False) + "\n")
            count += 1
    return count


def read_items(path: Path) -> Iterator[Item]:
    """Read a JSON-lines item file, one item at a time.

    Raises:
        ItemFileError: The file has no items, or a line is not an item (file, line number, what was expected).
    """
    empty = True
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            empty = False
            try:
                yield Item.from_json(json.loads(line))
            except ValueError as error:  # JSONDecodeError is a ValueError
                raise ItemFileError(f"{path}, line {number}: not an item: {error}") from None
    if empty:
        raise ItemFileError(f"{path} holds no items; expected one JSON object a line")
