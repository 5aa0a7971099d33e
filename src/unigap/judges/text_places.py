"""Reading places, relations, single attributes and yes or no out of a text, by rule (see `unigap.judges.text_answers`
for which part of a text is final).

**Places.** A row word (top, upper, bottom, lower) and a column word (left, right) next to each other, in either order
and with words like "corner" or "row" between them, are one cell; "middle" and "center" stand for whichever of the two
is missing ("top middle", "middle left"), and alone for the middle cell. One of them with "row" or "column" is that
line; "top" alone is the top row. What is counted before a place is there ("a cup in the top left"), unless the text
begins with a place: then what follows it ("top left: a cup"). Lines and statements of a list are read together.

**Relations.** "left", "right", "above" ("over", "on top of") and "below" ("under"); two of them conflict. If the last
object named before that word is the one that was to be looked from, the sentence is turned around: "the pen is to the
right of the cup" says that the cup is left of the pen.

**Attributes.** As of a portrait; where the one that is asked for is not found so, its values alone count ("red").

**Yes or no.** The first word of the text, if it is one of them: what follows explains ("Yes. No other dog is there."),
unless it answers anew, marked as the answer or with one of the two words by itself ("Yes. No."). Else "no" or "not"
anywhere in the final statement is no, and "yes" yes. Neither is unreadable.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from unigap.judges.text_answers import (
    STRONG,
    TextReading,
    find_final,
    find_mentions,
    normalise,
    read_portrait,
    statements,
    unreadable,
    values_of,
)
from unigap.scenes.places import COLUMNS, OPPOSITE, ROWS
from unigap.scenes.vocabulary import find_object

_ROW_WORDS: Final = {"top": "top", "upper": "top", "uppermost": "top", "bottom": "bottom", "lower": "bottom"}
_COLUMN_WORDS: Final = {"left": "left", "leftmost": "left", "right": "right", "rightmost": "right"}
_MIDDLE_WORDS: Final = ("middle", "center", "centre", "central", "mid")
_WORD: Final = rf"(?:{'|'.join((*_ROW_WORDS, *_COLUMN_WORDS, *_MIDDLE_WORDS))})(?:most)?"
_LINE: Final = r"(?:row|column)"
_FILL: Final = rf"(?:[\s,:-]|\b(?:{_LINE}|corner|side|part|cell|hand|of|the|in|and (?=[\w\s:]*(?:row|column)))\b)*"
_PLACE: Final = re.compile(rf"\b{_WORD}\b(?:{_FILL}\b{_WORD}\b)?(?:[\s-]+{_LINE}\b)?")


def read_layout(text: str) -> TextReading:
    """Places with what is there; a place alone has nothing beside it."""
    joined = re.sub(r"(?<=\w)(?:[.;]\s+|,?\s*\n\s*)(?!\s*(?:the )?answer)", ", ", text.strip(), flags=re.IGNORECASE)
    return find_final(joined, _parse_layout, STRONG, "a place")


def _parse_layout(part: str) -> TextReading | None:
    found = list(_PLACE.finditer(part))
    if not found:
        return None
    edges = [0, *(edge for match in found for edge in match.span()), len(part)]
    chunks = [part[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    # "a cup in the top left" or "top left: a cup": what stands before the first place says which.
    there = chunks[:-1] if _counts(chunks[0]) or not any(map(_counts, chunks)) else chunks[1:]
    places: dict[str, dict[str, float]] = {}
    for match, chunk in zip(found, there, strict=True):
        counts = _counts(chunk)
        if places.setdefault(_name(match[0]), counts) != counts:
            return TextReading(final=part, problem="conflicting", why=f"{part!r} names a place twice")
    if len(places) > 1 and not any(places.values()):
        return TextReading(final=part, problem="conflicting", why=" and ".join(places))
    return TextReading(final=part, places=places)


def _counts(chunk: str) -> dict[str, float]:
    """Objects of a part of a text; one without a number is one."""
    return {one.object: 1 if one.n is None else one.n for one in find_mentions(chunk) if one.object}


def _name(phrase: str) -> str:
    """The place that a phrase names, in the words of `unigap.scenes.places`."""
    words = re.findall(rf"\b({_WORD})\b", phrase)
    lines = re.findall(_LINE, phrase)
    row = next((_ROW_WORDS[word] for word in words if word in _ROW_WORDS), "")
    column = next((_COLUMN_WORDS[word] for word in words if word in _COLUMN_WORDS), "")
    if len(words) == 1 and lines:
        return f"{row or 'middle'} row" if lines == ["row"] else f"{column or 'center'} column"
    if len(words) == 1 and (row or column):
        return f"{row} row" if row else f"{column} column"
    place = f"{row or ROWS[1]} {column or COLUMNS[1]}"
    return "center" if place == "middle center" else place


# ---- relations -------------------------------------------------------------------------------------------------------

_RELATIONS: Final = {"left": "left of", "right": "right of", "above": "above", "over": "above", "below": "below"}
_RELATIONS.update({"under": "below", "underneath": "below", "beneath": "below", "on top of": "above"})
_RELATION: Final = re.compile(rf"(?<!\bnot )\b({'|'.join(sorted(_RELATIONS, key=len, reverse=True))})\b")


def read_relation(text: str, seen_from: str) -> TextReading:
    """Where something is, seen from another object."""

    def parse(part: str) -> TextReading | None:
        found = list(_RELATION.finditer(part))
        if not found:
            return None
        relations = {_RELATIONS[match[1]] for match in found}
        if len(relations) > 1:
            return TextReading(final=part, problem="conflicting", why=" and ".join(sorted(relations)))
        relation = relations.pop()
        before = [name for word in re.findall(r"[a-z]+", part[: found[-1].start()]) if (name := find_object(word))]
        # "Seen from the pen, it is left": the pen is named, and yet not what the sentence is about.
        about_other = before[-1:] == [seen_from] and not re.search(
            r"\bfrom\b[^,]*$|\bfrom the \w+,", part[: found[-1].start()]
        )
        return TextReading(final=part, relation=OPPOSITE[relation] if about_other else relation)

    return find_final(text, parse, STRONG, "left, right, above or below")


# ---- attributes ------------------------------------------------------------------------------------------------------


def read_traits(text: str, asked: Collection[str]) -> TextReading:
    """Some attributes of a person."""
    whole = read_portrait(text)
    if whole.problem == "conflicting":
        return whole
    final = normalise(text).rpartition("answer")[2]
    found = dict(whole.attributes)
    for attribute in asked:
        values = {value for word, value in values_of(attribute).items() if re.search(rf"\b{word}\b", final)}
        if attribute not in found and len(values) > 1:
            return TextReading(final=final, problem="conflicting", why=f"{attribute} {' and '.join(sorted(values))}")
        if attribute not in found and values:
            found[attribute] = values.pop()
    if not found:
        return unreadable(final, "no attribute of a person")
    return TextReading(final=final.strip(), attributes=found)


# ---- yes or no -------------------------------------------------------------------------------------------------------


def read_yes_no(text: str) -> TextReading:
    """Yes or no."""
    parts = [part for part in statements(normalise(text)) if _said(part) is not None]
    leading = [part for part in parts[:1] if _LEADING.match(part)] + [part for part in parts[1:] if _ANEW.match(part)]
    said = {_said(part) for part in leading}
    if len(said) > 1:
        return TextReading(final=text, problem="conflicting", why="both yes and no")
    if not parts:
        return unreadable(text, "neither yes nor no")
    final = (leading or parts)[-1]
    return TextReading(final=final, yes=_said(final))


_MARK: Final = r"(?:the )?(?:final )?answer(?: is)?\W+"
_LEADING: Final = re.compile(rf"\W*(?:{_MARK})?(yes|no)\b")
_ANEW: Final = re.compile(rf"\W*(?:{_MARK}(?:yes|no)\b|(?:yes|no)\W*(?:[,:]|$))")


def _said(part: str) -> bool | None:
    if match := _LEADING.match(part):
        return match[1] == "yes"
    if re.search(r"\b(?:no|not)\b", part):
        return False
    return True if re.search(r"\byes\b", part) else None


def layout_in_words(places: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """ "cup in the top left"; for reasons."""
    for place, counts in places.items():
        listed = " and ".join(f"{n:g} {name}" for name, n in counts.items())
        yield f"{listed} in the {place}" if listed else f"the {place}"
