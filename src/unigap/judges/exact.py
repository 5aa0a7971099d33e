"""The exact judge: reads sandbox pictures and answers by rule, and is never unsure.

    answer       picture is correct if it shows                 text is correct if its final answer is
    Count        n of that object and nothing else              n; the object too where one is named
    Counts       exactly these counts and nothing else          exactly these counts, in any order
    Object       one or more of that object, nothing else       that object, singular, plural or alias
    Portrait     a portrait with all four attributes            all four attributes
    Character    the portrait                                   the name

Error codes: `blank`, `unreadable`, `wrong_object`, `wrong_count`, `extra_object`, `wrong_split` (right objects and
total), `wrong_attribute`, `pair_other` (exactly the tempting wrong answer), `conflicting` (a text with two finals). How
a text's final answer is found is defined in `unigap.judges.text_answers`. Where the question ends in options, a letter
says the content of its option (`unigap.judges.options`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from PIL.Image import Image

from unigap.errors import CannotJudgeError
from unigap.items import Answer, Character, Count, Counts, FreeText, Item, Object, Portrait
from unigap.judges.options import read_options, spell_options
from unigap.judges.protocol import Submission
from unigap.judges.text_answers import (
    TextReading,
    read_count,
    read_counts,
    read_name,
    read_object,
    read_portrait,
    show_number,
)
from unigap.records import Ruling
from unigap.scenes.read import Reading, read_pictures
from unigap.scenes.render import ATTRIBUTES
from unigap.scenes.vocabulary import counted, describe_portrait

Problem = tuple[str, str]
"""Error code, and what was found in words."""


class ExactJudge:
    """See `unigap.judges.protocol.Judge`."""

    name = "exact"
    version = "1"
    prompt_sha256: str | None = None
    pictures: frozenset[Literal["sandbox", "photo"]] = frozenset({"sandbox"})
    answer_kinds = frozenset({"count", "counts", "object", "portrait", "character"})
    batch_size = 256

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        drawn = [(one.item, one.image) for one in submissions if one.image is not None]
        pictures = iter(self.judge_pictures([item for item, _ in drawn], [image for _, image in drawn]))
        return [next(pictures) if one.text is None else self.judge_text(one.item, one.text) for one in submissions]

    def judge_pictures(self, items: Sequence[Item], images: Sequence[Image]) -> list[Ruling]:
        readings = read_pictures(images)
        return [_rule_on_picture(item, reading) for item, reading in zip(items, readings, strict=True)]

    def judge_picture(self, item: Item, image: Image) -> Ruling:
        return self.judge_pictures([item], [image])[0]

    def judge_text(self, item: Item, text: str) -> Ruling:
        """Rule on a text answer.

        Raises:
            CannotJudgeError: The item's answer is free text.
        """
        reading = _read_text(item, spell_options(text, read_options(item.question)))
        problem = (reading.problem, reading.why) if reading.problem else _text_problem(item.answer, reading)
        if problem and not reading.problem and item.other and not _text_problem(item.other, reading):
            problem = ("pair_other", f"{problem[1]}, the other answer")
        return _ruling(item.answer, problem, reading.to_json())


def _ruling(answer: Answer, problem: Problem | None, reading: Mapping[str, object]) -> Ruling:
    if problem is None:
        return Ruling.correct(reading=reading)
    code, found = problem
    return Ruling.incorrect(code, f"{found}, expected {_expected(answer, code)}", reading=reading)


def _expected(answer: Answer, code: str) -> str:
    match answer:
        case Count(object=name, n=n):
            return str(n) if code == "wrong_count" else counted(name, n)
        case Counts(counts=counts):
            return _list(counts)
        case Object(object=name):
            return name
        case Portrait():
            return describe_portrait(answer)
        case Character(name=name):
            return name
        case FreeText(text=text):
            return text


def _list(counts: Mapping[str, float]) -> str:
    return " and ".join(f"{show_number(n)} {counted(name, int(n)).split()[-1]}" for name, n in counts.items())


# ---- pictures --------------------------------------------------------------------------------------------------------


def _rule_on_picture(item: Item, reading: Reading) -> Ruling:
    answer, other = _as_drawn(item.answer), None if item.other is None else _as_drawn(item.other)
    problem = _picture_problem(answer, reading)
    if problem and other and not _picture_problem(other, reading):
        problem = ("pair_other", f"{_seen(reading)}, the other answer")
    return _ruling(answer, problem, reading.to_json())


def _as_drawn(answer: Answer) -> Answer:
    return answer.portrait if isinstance(answer, Character) else answer


def _seen(reading: Reading) -> str:
    if reading.kind == "objects":
        return _list(reading.counts)
    return describe_portrait(reading.portrait) if reading.portrait else reading.kind


def _picture_problem(answer: Answer, reading: Reading) -> Problem | None:
    """What keeps a picture from showing an answer; None if nothing does."""
    if reading.kind == "blank":
        return "blank", "nothing is drawn"
    if reading.kind == "unreadable":
        return "unreadable", f"unreadable ({reading.why})"
    if isinstance(answer, Portrait):
        if reading.portrait is None:
            return "wrong_object", _seen(reading)
        return _attribute_problem(answer, {name: getattr(reading.portrait, name) for name in ATTRIBUTES})
    if reading.kind != "objects":
        return "wrong_object", "a portrait"
    return _counts_problem(answer, reading.counts)


def _counts_problem(answer: Answer, found: Mapping[str, float]) -> Problem | None:
    """What is wrong with these objects; the numbers do not matter if the answer is an Object."""
    match answer:
        case Count(object=name, n=n):
            wanted: Mapping[str, float] = {name: n}
        case Counts(counts=counts):
            wanted = counts
        case Object(object=name):
            wanted = {name: max(1, found.get(name, 1))}
        case _:
            raise _cannot(answer)
    found = {name: n for name, n in found.items() if n}
    if found == wanted:
        return None
    if wanted.keys() - found.keys():
        return "wrong_object", _list(found) or "nothing"
    if found.keys() - wanted.keys():
        return "extra_object", _list(found)
    if len(wanted) > 1 and sum(found.values()) == sum(wanted.values()):
        return "wrong_split", _list(found)
    return "wrong_count", _list(found)


def _attribute_problem(person: Portrait, found: Mapping[str, str]) -> Problem | None:
    wrong = [f"{name} {found.get(name, 'not said')}" for name in ATTRIBUTES if found.get(name) != getattr(person, name)]
    return ("wrong_attribute", ", ".join(wrong)) if wrong else None


# ---- texts -----------------------------------------------------------------------------------------------------------


def _cannot(answer: Answer) -> CannotJudgeError:
    return CannotJudgeError(f"exact reads only sandbox answers; this one is of kind {answer.kind!r}")


def _read_text(item: Item, text: str) -> TextReading:
    match item.answer:
        case Count():
            return read_count(text)
        case Counts():
            return read_counts(text)
        case Object():
            return read_object(text)
        case Portrait():
            return read_portrait(text)
        case Character(name=name):
            return read_name(text, {name} | ({item.other.name} if isinstance(item.other, Character) else set()))
        case FreeText():
            raise _cannot(item.answer)


def _text_problem(answer: Answer, reading: TextReading) -> Problem | None:
    """What keeps a text from giving an answer; None if nothing does."""
    match answer:
        case Count(n=n) if reading.n is not None and reading.object is None:
            return None if reading.n == n else ("wrong_count", show_number(reading.n))
        case Count() | Counts():
            return _counts_problem(answer, reading.counts)
        case Object(object=name):
            return None if reading.object == name else ("wrong_object", reading.object or "no object")
        case Portrait():
            return _attribute_problem(answer, reading.attributes)
        case Character(name=name):
            return None if reading.name == name else ("wrong_object", reading.name or "no name")
        case FreeText():
            raise _cannot(answer)
