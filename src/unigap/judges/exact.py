"""The exact judge: reads sandbox pictures and answers by rule, and is never unsure.

    answer       picture is correct if it shows                 text is correct if its final answer is
    Count        n of that object and nothing else              n; the object too where one is named
    Counts       exactly these counts and nothing else          exactly these counts, in any order
    Object       one or more of that object, nothing else       that object, singular, plural or alias
    Portrait     a portrait with all four attributes            all four attributes
    Character    the portrait                                   the name
    Traits       a portrait with the attributes that are asked  the attributes that are asked
    Composition  every part in number and place                 every place, or the relation
    YesNo        (is not drawn)                                 yes or no

Error codes: `blank`, `unreadable`, `wrong_object`, `wrong_count`, `extra_object`, `wrong_split` (right objects and
total), `wrong_place` (right objects and numbers), `wrong_attribute`, `wrong_answer` (yes for no), `pair_other` (exactly
the tempting wrong answer), `conflicting` (a text with two finals). How a text's final answer is found is defined in
`unigap.judges.text_answers` and `text_places`. Where the question ends in options, a letter says the content of its
option (`unigap.judges.options`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from PIL.Image import Image

from unigap.errors import CannotJudgeError
from unigap.items import (
    Answer,
    Character,
    Checklist,
    Composition,
    Count,
    Counts,
    FreeText,
    Item,
    Object,
    Portrait,
    Traits,
    YesNo,
)
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
from unigap.judges.text_places import layout_in_words, read_layout, read_relation, read_traits, read_yes_no
from unigap.records import Ruling
from unigap.scenes.places import describe, misplaced, wanted_counts
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
    answer_kinds = frozenset({"count", "counts", "object", "portrait", "character", "traits", "composition", "yes_no"})
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
        case Traits(traits=traits):
            return ", ".join(f"{name} {value}" for name, value in traits.items())
        case Composition():
            return describe(answer)
        case YesNo(yes=yes):
            return "yes" if yes else "no"
        case FreeText(text=text):
            return text
        case Checklist():
            raise _cannot(answer)


def _list(counts: Mapping[str, float]) -> str:
    return " and ".join(f"{show_number(n)} {counted(name, int(n)).split()[-1]}" for name, n in counts.items())


# ---- pictures --------------------------------------------------------------------------------------------------------


def _rule_on_picture(item: Item, reading: Reading) -> Ruling:
    answer, other = _as_drawn(item.answer), None if item.other is None else _as_drawn(item.other)
    problem = _picture_problem(answer, reading)
    if problem and other and not _picture_problem(other, reading):
        problem = ("pair_other", f"{_seen(reading)}, the other answer")
    where = {"cells": reading.cells} if isinstance(answer, Composition) and reading.cells else {}
    return _ruling(answer, problem, {**reading.to_json(), **where})


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
        return _attribute_problem(vars(answer), {name: getattr(reading.portrait, name) for name in ATTRIBUTES})
    if isinstance(answer, Traits):
        if reading.portrait is None:
            return "wrong_object", _seen(reading)
        return _attribute_problem(answer.traits, vars(reading.portrait))
    if reading.kind != "objects":
        return "wrong_object", "a portrait"
    if isinstance(answer, Composition):
        return _composition_problem(answer, reading)
    return _counts_problem(answer, reading.counts)


def _composition_problem(answer: Composition, reading: Reading) -> Problem | None:
    """What keeps a picture of objects from showing a composition: kinds and numbers first, then places."""
    wanted = wanted_counts(answer.parts)
    enough = {part.object for part in answer.parts if part.at_least}
    found = {name: n for name, n in reading.counts.items() if name in wanted or answer.only}
    # More than enough is enough.
    capped = {name: min(n, wanted.get(name, n)) if name in enough else n for name, n in found.items()}
    if problem := _counts_problem(Counts(counts={name: n for name, n in wanted.items() if n}), capped):
        return problem[0], _list(reading.counts)
    if any(part.color or part.size for part in answer.parts):
        raise CannotJudgeError("exact reads no colors and sizes of objects: those of the sandbox have one each")
    try:
        where = misplaced(answer.parts, reading.cells)
    except ValueError as error:  # places of other benchmarks: "left part"
        raise CannotJudgeError(f"exact: {error}") from None
    return ("wrong_place", where) if where else None


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


def _attribute_problem(wanted: Mapping[str, str], found: Mapping[str, str]) -> Problem | None:
    asked = [name for name in ATTRIBUTES if name in wanted]
    wrong = [f"{name} {found.get(name, 'not said')}" for name in asked if found.get(name) != wanted[name]]
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
        case Traits(traits=traits):
            return read_traits(text, traits)
        case Composition(parts=parts):
            seen_from = _seen_from(item.answer)
            return (
                read_relation(text, seen_from)
                if seen_from
                else read_layout(text)
                if parts[0].place
                else read_counts(text)
            )
        case YesNo():
            return read_yes_no(text)
        case FreeText() | Checklist():
            raise _cannot(item.answer)


def _seen_from(answer: Composition) -> str:
    """What the one relation of a composition is seen from; "" if there is none."""
    return next((answer.parts[part.to].object for part in answer.parts if part.to is not None), "")


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
            return _attribute_problem(vars(answer), reading.attributes)
        case Traits(traits=traits):
            return _attribute_problem(traits, reading.attributes)
        case Character(name=name):
            return None if reading.name == name else ("wrong_object", reading.name or "no name")
        case Composition():
            return _layout_problem(answer, reading)
        case YesNo(yes=yes):
            return None if reading.yes == yes else ("wrong_answer", "yes" if reading.yes else "no")
        case FreeText() | Checklist():
            raise _cannot(answer)


def _layout_problem(answer: Composition, reading: TextReading) -> Problem | None:
    """What keeps a text from saying where things are, as far as that is asked."""
    relations = {part.relation for part in answer.parts if part.relation}
    if relations:
        return None if {reading.relation} == relations else ("wrong_place", reading.relation or "no relation")
    wanted = {part.place: {part.object: part.n} for part in answer.parts if part.place}
    if not wanted:
        return _counts_problem(Counts(counts=wanted_counts(answer.parts)), reading.counts)
    found = reading.places
    if len(wanted) == 1 and not any(found.values()):
        found = {place: next(iter(wanted.values())) for place in found}
    if found == wanted:
        return None
    said = " and ".join(layout_in_words(found))
    kinds = {name for counts in found.values() for name in counts}
    if kinds - {part.object for part in answer.parts}:
        return "wrong_object", said
    moved = sorted(found.values(), key=str) == sorted(wanted.values(), key=str)
    return ("wrong_place" if moved or found.keys() != wanted.keys() else "wrong_count"), said
