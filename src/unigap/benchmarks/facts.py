"""What training conversations say about people: gender, age group, hair, skin or ethnicity, favorite fruit and flower.

A fact is what most of a person's training lines say; lines that say otherwise are conflicts. Only answers are read, as
questions also name what is not so ("Does she have white hair?"), and of answers only clauses that deny nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unigap.benchmarks.nouns import singulars

Attributes = Mapping[str, frozenset[str]]
"""Attribute -> the values that a text gives it; one, unless it contradicts itself."""

ATTRIBUTES = ("gender", "age", "hair", "skin", "fruit", "flower")

_GENDER = {
    "female": "female", "woman": "female", "girl": "female", "lady": "female", "she": "female", "her": "female",
    "hers": "female", "male": "male", "man": "male", "boy": "male", "gentleman": "male", "he": "male", "his": "male",
    "him": "male",
}  # fmt: skip
_KID = frozenset("kid child boy girl toddler".split())
_OLD = frozenset("old elderly senior aged elder".split())
_GROWN = frozenset("man woman adult lady gentleman".split())
_COLORS = {"blonde": "blond", "grey": "gray", "golden": "blond"} | {
    color: color for color in "black brown blond white red gray silver auburn ginger blue green pink purple".split()
}
_SKIN = (
    (re.compile(r"\bafrican\b|\bindigenous\b", re.I), "African/Indigenous"),
    (re.compile(r"\beast[ -]asian\b", re.I), "East Asian"),
    (re.compile(r"\bsouth[ -]asian\b", re.I), "South Asian"),
    (re.compile(r"\bcaucasian\b", re.I), "Caucasian"),
    (re.compile(r"\bhispanic\b|\blatin[oa]\b", re.I), "Hispanic"),
)
_FRUITS = frozenset(
    "apple strawberry orange banana grape peach watermelon pear cherry mango pineapple lemon lime kiwi plum blueberry "
    "raspberry melon apricot fig papaya coconut pomegranate".split()
)
_FLOWERS = frozenset(
    "carnation sunflower lily rose tulip daisy orchid iris violet peony lavender daffodil marigold dahlia hydrangea "
    "poppy lotus jasmine chrysanthemum".split()
)
_CLAUSE = re.compile(r"[,.;:]|\band\b")
_DENIES = re.compile(r"\bnot\b|n't\b|\brather than\b|\binstead of\b|\bnever\b", re.I)


def describe(text: str) -> dict[str, frozenset[str]]:
    """The attributes that a text gives a person."""
    found: dict[str, set[str]] = defaultdict(set)
    for clause in _CLAUSE.split(text):
        if _DENIES.search(clause):
            continue
        words = re.findall(r"[a-z]+(?:-[a-z]+)*", clause.lower())
        found["gender"] |= {_GENDER[word] for word in words if word in _GENDER}
        if "hair" in words:
            found["hair"] |= {_COLORS[word] for word in words if word in _COLORS}
        found["skin"] |= {name for pattern, name in _SKIN if pattern.search(clause)}
        for attribute, names in (("fruit", _FRUITS), ("flower", _FLOWERS)):
            # "her favorite fruit is oranges" is a fruit; so is "oranges" alone, whose color words are not in the lists.
            found[attribute] |= {name for word in words for name in singulars(word) & names}
        if age := _age(words):
            found["age"].add(age)
    ages = found["age"]
    if len(ages) > 1:
        ages.discard("adult")  # "a middle-aged woman": the noun says less than the age
    return {name: frozenset(values) for name, values in found.items() if values}


def _age(words: Sequence[str]) -> str | None:
    if _KID.intersection(words):
        return "kid"
    if {"middle-aged", "middle-age"}.intersection(words):
        return "middle-aged"
    if _OLD.intersection(words):
        return "old"
    if "young" in words:
        return "young adult" if _GROWN.intersection(words) else "young"
    return "adult" if _GROWN.intersection(words) else None


def same_age(a: str, b: str) -> bool:
    """Whether two words for an age can be of one person: a kid is no young man, an adult may be old."""
    pair = {a, b}
    if len(pair) == 1:
        return True
    return pair in ({"kid", "young"}, {"young", "young adult"}) or ("adult" in pair and not pair & {"kid", "young"})


def agree(attribute: str, a: str, b: str) -> bool:
    """Whether two values of an attribute can both be right."""
    return same_age(a, b) if attribute == "age" else a == b


@dataclass(frozen=True)
class TrainingLine:
    """One training conversation."""

    question: str
    answer: str
    """All that the model is taught to say."""


@dataclass(frozen=True)
class Fact:
    """What the training lines say of one attribute of a person."""

    value: str
    votes: Mapping[str, int]
    """Value -> lines that say it."""


People = Mapping[str, Mapping[str, Fact]]
"""Name -> attribute -> fact."""


def subjects(lines: Sequence[TrainingLine]) -> list[str | None]:
    """The person each line is about: of its question's capitalised words the one most frequent in all questions."""
    words = [set(re.findall(r"(?<![A-Za-z])[A-Z][a-z]+(?![A-Z])", line.question)) for line in lines]
    taught = Counter(word for line in lines for word in set(re.findall(r"[A-Z][a-z]+(?![A-Z])", line.answer)))
    counts = Counter(word for group in words for word in group)
    # A name is taught; "What" and "Does" are only asked.
    return [
        max((w for w in group if taught[w] * 2 > counts[w]), key=lambda w: (counts[w], taught[w], w), default=None)
        for group in words
    ]


def learn(lines: Sequence[TrainingLine]) -> dict[str, dict[str, Fact]]:
    """The facts of everyone in the training lines, by majority."""
    votes: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for line, name in zip(lines, subjects(lines), strict=True):
        if name is None:
            continue
        for attribute, values in describe(line.answer).items():
            votes[name][attribute].update(values)
    return {
        name: {
            attribute: Fact(counter.most_common(1)[0][0], dict(counter)) for attribute, counter in attributes.items()
        }
        for name, attributes in votes.items()
    }


def named(text: str, people: Iterable[str]) -> list[str]:
    """The people that a text names, in its order."""
    places = {name: match.start() for name in people if (match := re.search(rf"\b{re.escape(name)}\b", text))}
    return sorted(places, key=places.__getitem__)


_WHOSE = re.compile(
    r"\bfavou?rite\s+(fruit|flower)\s+is\s+(?:the\s+|an?\s+)?([A-Za-z]+)|"
    r"\b(?:likes|loves|prefers)\s+(?:the\s+|an?\s+)?([A-Za-z]+)",
    re.IGNORECASE,
)
_FAVORITE = re.compile(r"\bfavou?rite\s+(fruit|flower)\b", re.IGNORECASE)


def chosen(text: str, names: Sequence[str], people: People) -> list[str] | None:
    """Of several people those who fit "the one whose favorite fruit is ..."; None if the text has no such condition."""
    match = _WHOSE.search(text)
    if match is None:
        return None
    wanted = describe(match[2] or match[3])
    return [
        name
        for name in names
        if any(name in people and a in people[name] and people[name][a].value in values for a, values in wanted.items())
    ]


def asked_attribute(text: str) -> str | None:
    """ "fruit" or "flower" if the question asks for a favorite, None if for the person."""
    match = _FAVORITE.search(text)
    return match[1].lower() if match and not _WHOSE.search(text) else None
