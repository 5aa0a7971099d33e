"""UniSandbox's benchmark files (arXiv 2511.20561), read as they are; labels are taken as published, never corrected.

A file is JSON lines. Its fields say which of three formats a line has:

    math       Question, Answer and id (ID and Question_id are accepted)
    mapping    ID, Answer and Question_A or Question_B: the two halves of a pair share the ID
    knowledge  as math; the question is about a "character", or the file's name says forward, inverse or knowledge

The level of math and mapping is in the file's name ("math_2", "mapping3"); without one it is the number of operators
(math) or half the number of rules (mapping). Knowledge is `inverse` when a question is about several characters, else
`forward`.

The files hold drawing prompts only. The text question is derived from the prompt, and the item marked `derived`:

    any prompt of the sandbox's own (exported before)          ->  the question that the sandbox pairs with it
    math       How many objects does this prompt ask for: "PROMPT"
    mapping    RULES Please generate X.                       ->  RULES What is X?
    knowledge  Generate a photorealistic portrait of X.       ->  Describe X: gender, age group, hair and skin color.
               Generate a photorealistic image of X.          ->  What is X?
               From Y, generate a portrait of the one Z.      ->  From Y, describe the one Z: gender, ... skin color.
    otherwise  PROMPT Which object is that?  (mapping);  What does this prompt ask to draw: "PROMPT"  (knowledge)
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from unigap.benchmarks.phrases import NotUnderstood, parse_mapping, parse_math
from unigap.benchmarks.sentences import paired_question
from unigap.errors import ItemFileError
from unigap.items import Answer, Character, Count, FreeText, Item, Object, Portrait
from unigap.scenes.knowledge import CAST
from unigap.scenes.render import all_portraits
from unigap.scenes.vocabulary import NUM_CELLS, NUMBER_WORDS, counted, describe_portrait, find_object

EXPECTED = "expected Question, Answer and id (or ID), or ID, Question_A or Question_B, and Answer"
INCOMPLETE = "incomplete pair"
"""Variant of an item whose other half is missing: the pair can never score."""


@dataclass(frozen=True)
class _Line:
    number: int
    id: str
    prompt: str
    answer: str
    half: str
    """"A" or "B" of a pair, else ""."""
    both: bool
    """The line carries both halves' questions."""


def read_unisandbox(path: Path) -> list[Item]:
    """Read one file, in its own order.

    Raises:
        ItemFileError: A line is not of UniSandbox's formats, or two lines have the same id; or the file is empty.
    """
    return _items(path, _lines(path))


def _lines(path: Path) -> list[_Line]:
    lines: list[_Line] = []
    seen: dict[tuple[str, str], int] = {}
    for number, data in _objects(path):
        line = _line(path, number, data)
        if (line.id, line.half) in seen:
            raise ItemFileError(
                f"{path}, line {number}: id {line.id!r}{f' half {line.half}' if line.half else ''} is already on line "
                f"{seen[line.id, line.half]}; expected each id once. Joined files need ids of their own."
            )
        seen[line.id, line.half] = number
        lines.append(line)
    if not lines:
        raise ItemFileError(f"{path} holds no items; {EXPECTED}")
    return lines


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    """JSON objects and their line numbers; where files without a final newline were joined, a line holds several."""
    decoder = json.JSONDecoder()
    for number, line in _text_lines(path):
        start, text = 0, line.strip()
        while start < len(text):
            try:
                data, start = decoder.raw_decode(text, start)
            except (ValueError, RecursionError) as error:
                raise ItemFileError(f"{path}, line {number}: not JSON ({error}); {EXPECTED}") from None
            yield number, data
            start += len(text[start:]) - len(text[start:].lstrip())


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from enumerate(file, start=1)
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ItemFileError(f"{path} is not UTF-8 text ({error}); {EXPECTED}") from None


def _line(path: Path, number: int, data: Any) -> _Line:
    def refuse(found: str) -> ItemFileError:
        return ItemFileError(f"{path}, line {number}: {found}; {EXPECTED}")

    if not isinstance(data, Mapping):
        raise refuse(f"a JSON {type(data).__name__}")
    name = next((name for name in ("id", "ID", "Question_id") if name in data), None)
    if name is None or isinstance(data[name], bool) or not isinstance(data[name], str | int) or data[name] == "":
        raise refuse(f"no id (fields: {', '.join(map(str, data))})")
    # UniSandbox's judge takes a line with both questions as half A, whatever its answer belongs to.
    question = next((field for field in ("Question_A", "Question_B", "Question") if field in data), None)
    if question is None or not isinstance(data[question], str) or not data[question].strip():
        raise refuse("no question")
    answer = data.get("Answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int) or not str(answer).strip():
        raise refuse(f'"Answer" is {answer!r}')
    half = {"Question_A": "A", "Question_B": "B"}.get(question, "")
    both = "Question_A" in data and "Question_B" in data
    return _Line(number, str(data[name]), data[question], str(answer), half, both)


# ---- lines to items --------------------------------------------------------------------------------------------------

_LEVEL = re.compile(r"(math|mapping)[_-]?([123])")
_KNOWLEDGE_STEM = re.compile(r"forward|inverse|knowledge")
_CHARACTERS = re.compile(r"\bcharacters? ((?:[A-Z]\w*)(?:(?:,| and|, and) [A-Z]\w*)*)")
_OPERATORS = re.compile(r"[-+*/%^√×÷−]|\b(?:plus|minus|times|modulo|divided by|power of|square root|squared)\b")


def _family(stem: str, line: _Line) -> str:
    level = _LEVEL.search(stem)
    if line.half:
        hops = int(level[2]) if level else min(3, max(1, len(re.findall(r"\bRule\s*\d+\s*:", line.prompt)) // 2))
        return f"mapping{hops}"
    if level is None and (_CHARACTERS.search(line.prompt) or _KNOWLEDGE_STEM.search(stem)):
        several = re.search(r"\bcharacters\b", line.prompt) or "inverse" in stem
        return "inverse" if several else "forward"
    return f"math{level[2] if level else min(3, max(1, len(_OPERATORS.findall(line.prompt))))}"


def _items(path: Path, lines: Sequence[_Line]) -> list[Item]:
    answers = {(line.id, line.half): _answer(_family(path.stem, line), line) for line in lines}
    items = []
    for line in lines:
        family = _family(path.stem, line)
        answer = answers[line.id, line.half]
        other = answers.get((line.id, "B" if line.half == "A" else "A")) if line.half else None
        unit = f"{path.stem}/{line.id}"
        who = _characters(line.prompt) if family in ("forward", "inverse") else []
        items.append(
            Item(
                id=f"{unit}/{line.half}" if line.half else unit,
                family=family,
                unit=unit,
                cluster=f"{family}/{' '.join(sorted(who))}" if who else unit,
                question=derive_question(family, line.prompt),
                prompt=line.prompt,
                caption=_caption(answer),
                answer=answer,
                other=other if isinstance(other, Object) and other != answer else _other_character(answer, who),
                variant=_variant(family, line.prompt, incomplete=bool(line.half) and other is None),
                source=path.name,
                derived=True,
            )
        )
    return items


def _variant(family: str, prompt: str, *, incomplete: bool) -> str:
    if incomplete:
        return INCOMPLETE
    if family != "forward":
        return ""
    return next((word for word in ("portrait", "fruit", "flower") if re.search(rf"\b{word}\b", prompt)), "")


_COUNT = re.compile(r"\s*([0-9]+|[A-Za-z]+)\s+(.+?)\s*\.?\s*")


def _answer(family: str, line: _Line) -> Answer:
    """A published answer, typed if the sandbox can show it."""
    text = line.answer
    if family.startswith("math"):
        match = _COUNT.fullmatch(text)
        if match and (name := find_object(match[2])) is not None:
            n = _number(match[1].lower())
            if n is not None and n <= NUM_CELLS:
                return Count(object=name, n=n)
    elif (name := find_object(text.strip().removesuffix("."))) is not None:
        return Object(object=name)
    elif (portrait := _portraits().get(text.strip().removesuffix(".").lower())) is not None:
        if family == "forward":
            return portrait
        right = [name for name in _characters(line.prompt) if name in _CAST and _CAST[name].portrait == portrait]
        if len(right) == 1:
            return Character(name=right[0], portrait=portrait)
    return FreeText(text=text)


_CAST = {person.name: person for person in CAST}


@cache
def _portraits() -> dict[str, Portrait]:
    """The sandbox's portraits by their description."""
    return {describe_portrait(portrait).lower(): portrait for portrait in all_portraits()}


def _characters(prompt: str) -> list[str]:
    """Names in a knowledge prompt: the sandbox's own cast, or whoever is called a character."""
    own = [word for word in re.findall(r"[A-Z][a-z]+", prompt) if word in _CAST]
    called = _CHARACTERS.search(prompt)
    return own or (re.findall(r"[A-Z]\w*", called[1]) if called else [])


def _other_character(answer: Answer, names: Sequence[str]) -> Character | None:
    if not isinstance(answer, Character):
        return None
    return next((Character(name=n, portrait=_CAST[n].portrait) for n in names if n != answer.name), None)


def _number(word: str) -> int | None:
    if word in NUMBER_WORDS:
        return NUMBER_WORDS.index(word)
    return int(word) if word.isdigit() else None


def _caption(answer: Answer) -> str:
    match answer:
        case Count(object=name, n=n):
            return counted(name, n)
        case Object(object=name):
            return counted(name, 1)
        case Portrait():
            return describe_portrait(answer)
        case Character(portrait=portrait):
            return describe_portrait(portrait)
        case FreeText(text=text):
            return text.strip().removesuffix(".")
        case _:
            raise AssertionError(f"UniSandbox has no answer of kind {answer.kind}")


_TRAITS = "gender, age group, hair color and skin color"
_QUESTIONS = (
    (re.compile(r"Generate a photorealistic portrait of (.+)\."), rf"Describe \1: {_TRAITS}."),
    (re.compile(r"Generate a photorealistic image of (.+)\."), r"What is \1?"),
    (re.compile(r"(From .+), generate a portrait of (the one .+)\."), rf"\1, describe \2: {_TRAITS}."),
)


def derive_question(family: str, prompt: str) -> str:
    """The question whose answer in text is what the prompt asks to draw; the rules are in the module's docstring."""
    if (own := paired_question(prompt)) is not None:
        return own
    if family.startswith("math"):
        return f'How many objects does this prompt ask for: "{prompt}"'
    if family.startswith("mapping"):
        rules, please, what = prompt.rpartition("Please generate ")
        return f"{rules}What is {what.strip().removesuffix('.')}?" if please else f"{prompt} Which object is that?"
    for pattern, question in _QUESTIONS:
        if match := pattern.fullmatch(prompt.strip()):
            return match.expand(question)
    return f'What does this prompt ask to draw: "{prompt}"'


# ---- what is inside the sandbox's world ------------------------------------------------------------------------------


def inside(item: Item) -> str | None:
    """Why an item of UniSandbox cannot be asked and judged in the sandbox's world; None if it can.

    Whether the published label is right plays no part. Items of the sandbox itself are inside.
    """
    if item.source.startswith("sandbox"):
        return None
    if item.family in ("forward", "inverse"):
        if strangers := [name for name in _characters(item.prompt) if name not in _CAST]:
            return f"{' and '.join(strangers)}: not among the characters that the sandbox knows"
        return _not_shown(item.answer) if _characters(item.prompt) else "no character named"
    phrase = parse_mapping(item.prompt) if item.family.startswith("mapping") else parse_math(item.prompt)
    if isinstance(phrase, NotUnderstood):
        return phrase.reason
    return INCOMPLETE if item.variant == INCOMPLETE else _not_shown(item.answer)


def _not_shown(answer: Answer) -> str | None:
    if isinstance(answer, FreeText):
        return f'the published answer "{answer.text}" is nothing the sandbox can show'
    return None


@dataclass(frozen=True)
class Coverage:
    """How much of a file is inside the sandbox's world."""

    file: str
    unit: str
    """What is counted: "items", or "pairs", which are inside if both halves are."""
    inside: int
    total: int
    outside: Mapping[str, int]
    """Reason -> units, most frequent first; a pair counts for its first half's reason."""
    notes: tuple[str, ...] = field(default=())
    """Oddities of the file that were read as UniSandbox's own judge reads them."""

    def __str__(self) -> str:
        return f"{self.file}: {self.inside} of {self.total} {self.unit} inside"


def coverage(path: Path) -> Coverage:
    """Count what is inside and outside in one file.

    Raises:
        ItemFileError: As `read_unisandbox`.
    """
    lines = _lines(path)
    reasons: dict[str, list[str]] = defaultdict(list)
    for item in _items(path, lines):
        found = inside(item)
        reasons[item.unit].extend([found] if found else [])
    outside = Counter(found[0] for found in reasons.values() if found)
    notes = [
        f"line {line.number}: ID {line.id} carries Question_A and Question_B; read as half A"
        for line in lines
        if line.both
    ]
    halves = Counter(line.id for line in lines if line.half)
    notes += [f"ID {name}: only one half; the pair cannot score" for name, count in halves.items() if count == 1]
    return Coverage(
        path.name,
        "pairs" if halves else "items",
        len(reasons) - outside.total(),
        len(reasons),
        dict(outside.most_common()),
        tuple(notes),
    )
