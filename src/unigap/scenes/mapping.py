"""Mapping: follow rules from a symbol to an object, in one, two or three hops.

An item is a pair. Both halves show the same rules in the same order and ask about different symbols; only both right
scores, so drawing whichever object is named first earns nothing, and a coin flip per picture earns 1/4.
"""

import random
from collections.abc import Sequence
from functools import cache
from itertools import combinations, pairwise
from typing import Final

from unigap.items import Item, Object
from unigap.scenes import Chance, Draft, Fact, Split, split_of
from unigap.scenes.vocabulary import OBJECTS, counted, plural, with_article

MARKS: Final = "@#$%&*^!?"
DIGITS: Final = "123456789"
LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without I and O, which read like 1 and 0."""

LEVELS: Final[dict[int, tuple[str, ...]]] = {
    1: (MARKS + MARKS + DIGITS + LETTERS,),
    2: (LETTERS, MARKS + DIGITS),
    3: (LETTERS + MARKS + DIGITS, MARKS + DIGITS + LETTERS, MARKS + DIGITS + LETTERS),
}
"""The symbols a hop can start from, hop by hop, by chain length. A repeated symbol is drawn more often."""

RULES: Final = (
    "{} means {}",
    "{} represents {}",
    "{} stands for {}",
    "{} refers to {}",
    "{} maps to {}",
    "{} denotes {}",
    "{} signifies {}",
    "{} indicates {}",
    "{} corresponds to {}",
    "{} is linked to {}",
)

QUERIES: Final = (
    ("Draw the object that {} stands for.", "Which object does {} stand for?"),
    ("Draw what {} means.", "What does {} mean?"),
    ("Please generate the object represented by {}.", "Which object is represented by {}?"),
    ("Show the item that {} refers to.", "Which item does {} refer to?"),
    ("Make a picture of the object linked to {}.", "Which object is linked to {}?"),
    ("Create the object that {} leads to.", "Which object does {} lead to?"),
    ("Follow the rules from {} and draw the object.", "Follow the rules from {}. Which object is it?"),
    ("Produce a picture of what {} denotes.", "What does {} denote?"),
)
"""(prompt, question) pairs."""

_NAMED: Final = {
    **{mark: f"the symbol {mark}" for mark in MARKS},
    **{digit: f"the number {digit}" for digit in DIGITS},
    **{letter: f"the letter {letter}" for letter in LETTERS},
}
_BARE: Final = {symbol: symbol for symbol in _NAMED}
_OBJECT_FORMS: Final = (
    {name: name for name in OBJECTS},
    {name: with_article(name) for name in OBJECTS},
    {name: plural(name) for name in OBJECTS},
)


class Mapping:
    """2 x `hops` rules, shuffled: two chains of exactly `hops` rules, one for each half."""

    test_share = 0.2

    def __init__(self, hops: int) -> None:
        self.name = f"mapping{hops}"
        self.hops = hops

    def sample(self, rng: random.Random) -> Fact:
        return self.sample_in("test" if rng.random() < self.test_share else "train", rng)

    def sample_in(self, split: Split, rng: random.Random) -> Fact:
        """A fact of one split: which two objects its halves lead to decides."""
        pairs = _object_pairs(self.name, self.test_share)[split]
        objects = pairs[int(rng.random() * len(pairs))]
        key = " ".join(objects)
        chains = self._chains(objects if rng.random() < 0.5 else objects[::-1], rng)
        rules, prompt, question, named = self._words(chains, rng)
        drafts = tuple(
            Draft(
                question=rules + question.format(named[chain[0]]),
                prompt=rules + prompt.format(named[chain[0]]),
                caption=(caption := counted(chain[-1], 1)),
                answer=Object(object=chain[-1]),
                other=Object(object=other[-1]),
                thought="\n".join((*(f"{a} means {b}" for a, b in pairwise(chain)), f"Draw {caption}.")),
            )
            for chain, other in (chains, chains[::-1])
        )
        return Fact(key=key, drafts=drafts, paired=True)

    def _chains(self, objects: Sequence[str], rng: random.Random) -> list[list[str]]:
        """The symbols of each half, first to last, and its object; no symbol twice."""
        chains: list[list[str]] = [[], []]
        used: set[str] = set()
        for pool in LEVELS[self.hops]:
            for chain in chains:
                while (symbol := pool[int(rng.random() * len(pool))]) in used:
                    pass
                used.add(symbol)
                chain.append(symbol)
        for chain, name in zip(chains, objects):
            chain.append(name)
        return chains

    def _words(self, chains: list[list[str]], rng: random.Random) -> tuple[str, str, str, dict[str, str]]:
        """The rules as text, a prompt and a question to come after them, and how these name a symbol."""
        pick = rng.random
        named = _NAMED if pick() < 0.3 else _BARE
        form = pick()
        objects = _OBJECT_FORMS[0 if form < 0.6 else 1 if form < 0.85 else 2]
        one_verb = RULES[int(pick() * len(RULES))] if pick() < 0.5 else None
        links = [link for chain in chains for link in pairwise(chain)]
        rng.shuffle(links)
        rules = ""
        for number, (symbol, meaning) in enumerate(links, start=1):
            verb = one_verb or RULES[int(pick() * len(RULES))]
            rule = verb.format(named[symbol], objects.get(meaning) or named[meaning])
            rules += f"Rule {number}: {rule[0].upper()}{rule[1:]}. "
        prompt, question = QUERIES[int(pick() * len(QUERIES))]
        return rules, prompt, question, named

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(0.25, "coin flip between the two objects, per picture")


@cache
def _object_pairs(family: str, test_share: float) -> dict[Split, list[tuple[str, str]]]:
    """Split -> the pairs of objects whose items belong to it."""
    splits: dict[Split, list[tuple[str, str]]] = {"train": [], "test": []}
    for pair in combinations(sorted(OBJECTS), 2):
        splits[split_of(family, " ".join(pair), test_share)].append(pair)
    return splits


MAPPING1, MAPPING2, MAPPING3 = Mapping(1), Mapping(2), Mapping(3)
