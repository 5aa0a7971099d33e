"""Multi-hop knowledge: two facts or more that have to be joined, nothing of which is in the prompt.

Three variants are about the fictional cast (`unigap.scenes.knowledge`): one of two characters, known by a first fact,
is asked for a second ("favorite"); the one of two who shares a favorite with a third is asked for ("shared"); and the
one character of the whole cast whom a description fits is asked for a favorite ("only"). A model that was never told
about the cast can only guess there. The fourth, "general", asks for a number of the real world.
"""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from typing import Final

from unigap.items import Character, Count, Item, Object
from unigap.scenes import Chance, Draft, Fact, constant_rate
from unigap.scenes.knowledge import CAST, LAB, CharacterFacts, cast_half, favorite_line, looks_line
from unigap.scenes.vocabulary import FRUITS, OBJECTS, counted, plural
from unigap.scenes.world import WORLD

FAVORITE_SENTENCES: Final = (
    (
        "Of {a} and {b} from the {lab}, only one {clue}. Draw the favorite {kind} of that one.",
        "Of {a} and {b} from the {lab}, only one {clue}. What is the favorite {kind} of that one?",
    ),
    (
        "Draw the {kind} that is liked best by whichever of {a} and {b} {clue}.",
        "Which {kind} is liked best by whichever of {a} and {b} {clue}?",
    ),
    (
        "Either {a} or {b} {clue}. Show the {kind} that this character prefers.",
        "Either {a} or {b} {clue}. Which {kind} does this character prefer?",
    ),
    (
        "Find out who {clue}, {a} or {b} from the {lab}, and make a picture of the favorite {kind} of that character.",
        "Find out who {clue}, {a} or {b} from the {lab}. What is the favorite {kind} of that character?",
    ),
)
SHARED_SENTENCES: Final = (
    (
        "Draw the one of {a} and {b} who has the same favorite {kind} as {c}.",
        "Who of {a} and {b} has the same favorite {kind} as {c}?",
    ),
    (
        "{c} from the {lab} has a favorite {kind}. Draw a portrait of {a} or {b}, whoever has the same one.",
        "{c} from the {lab} has a favorite {kind}. Who has the same one, {a} or {b}?",
    ),
    (
        "Either {a} or {b} shares the favorite {kind} of {c}. Show what that one looks like.",
        "Either {a} or {b} shares the favorite {kind} of {c}. Which one is it?",
    ),
)
ONLY_SENTENCES: Final = (
    (
        "Exactly one character from the {lab} is {looks} and likes the {favorite} best. Draw the favorite {kind} of "
        "this character.",
        "Exactly one character from the {lab} is {looks} and likes the {favorite} best. What is the favorite {kind} of "
        "this character?",
    ),
    (
        "Draw the {kind} that is preferred by the only character from the {lab} who is {looks} and whose favorite "
        "{known} is the {favorite}.",
        "Which {kind} is preferred by the only character from the {lab} who is {looks} and whose favorite {known} "
        "is the {favorite}?",
    ),
    (
        "In the {lab}, {looks} has the {favorite} as favorite {known}. Only one character fits. Show which {kind} this "
        "character likes best.",
        "In the {lab}, {looks} has the {favorite} as favorite {known}. Only one character fits. Which {kind} does this "
        "character like best?",
    ),
)
GENERAL_SENTENCES: Final = (
    ("Find {f} and draw that many {o}.", "Find {f}. How many {o} is that?"),
    (
        "Draw a picture with {o}, whose number is {f}.",
        "A picture shows {o}, whose number is {f}. How many {o} does it show?",
    ),
    ("The number of {o} is {f}. Draw them.", "The number of {o} is {f}. How many are there?"),
    ("What is {f}? Draw that many {o}.", "What is {f}? Give it as a number of {o}."),
)
"""(prompt, question) pairs of each variant."""

VARIANTS: Final = ("favorite", "shared", "only", "general")
COIN_FLIPS: Final = ("favorite", "shared")
_OTHER_KIND: Final = {"fruit": "flower", "flower": "fruit"}


class MultiHop:
    """Characters asked about together are of one half of the cast, as `forward` splits it."""

    name = "multihop"
    test_share = 0.5

    def sample(self, rng: random.Random) -> Fact:
        make: Mapping[str, Callable[[random.Random], Fact]] = {
            "favorite": _favorite, "shared": _shared, "only": _only, "general": _general,
        }  # fmt: skip
        return make[rng.choice(VARIANTS)](rng)

    def chance(self, items: Sequence[Item]) -> Chance:
        """Coin flips for one of two characters; elsewhere what is right most often."""
        flips = [item for item in items if item.variant in COIN_FLIPS]
        others = [item for item in items if item.variant not in COIN_FLIPS]
        right = 0.5 * len(flips) + (constant_rate(self, others, _guess) * len(others) if others else 0.0)
        return Chance(right / len(items) if items else float("nan"), "coin flip between two, else best constant answer")


def _guess(asked: Draft | Item) -> tuple[Hashable, Hashable]:
    """The sentence says whether a fruit, a flower or a number is asked for, and the object of a number."""
    match asked.answer:
        case Count(n=n):
            return "number", n
        case Object(object=name):
            return (asked.variant, name in FRUITS), name
        case _:
            return asked.variant, repr(asked.answer)


def _favorite(rng: random.Random) -> Fact:
    kind = rng.choice(("fruit", "flower"))
    known = rng.choice((_OTHER_KIND[kind], "hair"))
    half = cast_half(rng.choice(("train", "test")))
    while True:
        named = rng.sample(half, 2)
        a, b = named
        if a.favorite(kind) != b.favorite(kind) and _known(a, known) != _known(b, known):
            break
    person, other = named if rng.random() < 0.5 else named[::-1]
    value = _known(person, known)
    clue = f"has {value} hair" if known == "hair" else f"likes the {value} best"
    pair = " ".join(sorted((a.name, b.name)))
    prompt, question = rng.choice(FAVORITE_SENTENCES)
    words = {"a": a.name, "b": b.name, "clue": clue, "kind": kind, "lab": LAB}
    caption = counted(person.favorite(kind), 1)
    lines = [looks_line(one) if known == "hair" else favorite_line(one, known) for one in named]
    draft = Draft(
        question=question.format(**words),
        prompt=prompt.format(**words),
        caption=caption,
        answer=Object(object=person.favorite(kind)),
        other=Object(object=other.favorite(kind)),
        variant="favorite",
        thought="\n".join((*lines, favorite_line(person, kind), f"Draw {caption}.")),
    )
    return Fact(key=pair, drafts=(draft,), cluster=pair)


def _known(person: CharacterFacts, what: str) -> str:
    return person.portrait.hair if what == "hair" else person.favorite(what)


def _shared(rng: random.Random) -> Fact:
    kind = rng.choice(("fruit", "flower"))
    half = cast_half(rng.choice(("train", "test")))
    while True:
        person, other, third = rng.sample(half, 3)
        same = person.favorite(kind) == third.favorite(kind) != other.favorite(kind)
        if same and person.portrait != other.portrait:
            break
    named = (person, other) if rng.random() < 0.5 else (other, person)
    names = " ".join(sorted(one.name for one in (person, other, third)))
    prompt, question = rng.choice(SHARED_SENTENCES)
    words = {"a": named[0].name, "b": named[1].name, "c": third.name, "kind": kind, "lab": LAB}
    lines = [favorite_line(one, kind) for one in (third, *named)]
    draft = Draft(
        question=question.format(**words),
        prompt=prompt.format(**words),
        caption=person.looks,
        answer=Character(name=person.name, portrait=person.portrait),
        other=Character(name=other.name, portrait=other.portrait),
        variant="shared",
        thought="\n".join((*lines, looks_line(person), f"Draw {person.looks}.")),
    )
    return Fact(key=names, drafts=(draft,), cluster=names)


def _only(rng: random.Random) -> Fact:
    kind = rng.choice(("fruit", "flower"))
    known = _OTHER_KIND[kind]
    person = rng.choice(_described_alone(known))
    prompt, question = rng.choice(ONLY_SENTENCES)
    words = {"looks": person.looks, "favorite": person.favorite(known), "known": known, "kind": kind, "lab": LAB}
    caption = counted(person.favorite(kind), 1)
    lines = (looks_line(person), favorite_line(person, known), favorite_line(person, kind))
    draft = Draft(
        question=question.format(**words),
        prompt=prompt.format(**words),
        caption=caption,
        answer=Object(object=person.favorite(kind)),
        variant="only",
        thought="\n".join((*lines, f"Draw {caption}.")),
    )
    return Fact(key=person.name, drafts=(draft,), cluster=person.name)


@cache
def _described_alone(known: str) -> tuple[CharacterFacts, ...]:
    """The characters whom looks and one favorite tell from all others of the cast."""
    fitting: dict[tuple[str, str], list[CharacterFacts]] = {}
    for person in CAST:
        fitting.setdefault((person.looks, person.favorite(known)), []).append(person)
    return tuple(people[0] for people in fitting.values() if len(people) == 1)


def _general(rng: random.Random) -> Fact:
    fact, name = rng.choice(WORLD), rng.choice(OBJECTS)
    prompt, question = rng.choice(GENERAL_SENTENCES)
    words = {"f": fact.number, "o": plural(name)}
    caption = counted(name, fact.n)
    draft = Draft(
        question=question.format(**words),
        prompt=prompt.format(**words),
        caption=caption,
        answer=Count(object=name, n=fact.n),
        variant="general",
        thought="\n".join((*fact.hops, f"Draw {caption}.")),
    )
    return Fact(key=fact.number, drafts=(draft,), cluster=fact.number)


MULTIHOP = MultiHop()
