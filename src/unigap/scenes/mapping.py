"""Mapping: follow rules from a symbol to an object, in one, two or three hops.

An item is a pair. Both halves show the same rules in the same order and ask about different symbols; only both right
scores, so drawing whichever object is named first earns nothing, and a coin flip per picture earns 1/4.
"""

import random
from collections.abc import Sequence
from typing import Final

from unigap.items import Item, Object
from unigap.scenes import Chance, Draft, Fact
from unigap.scenes.vocabulary import OBJECTS, counted

MARKS: Final = "@#$%&*^!?"
DIGITS: Final = "123456789"
LETTERS: Final = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # without I and O: they read like 1 and 0

RULES: Final = ("{} means {}", "{} stands for {}", "{} represents {}", "{} refers to {}", "{} maps to {}", "{} denotes {}")

QUERIES: Final = (
    ("Draw the object that {} stands for.", "Which object does {} stand for?"),
    ("Draw what {} represents.", "What does {} represent?"),
    ("Generate the object represented by {}.", "Which object is represented by {}?"),
    ("Show the object behind {}.", "Which object is behind {}?"),
    ("Make a picture of the object that {} leads to.", "Which object does {} lead to?"),
)
"""(prompt, question) pairs."""

LEVELS: Final[dict[int, tuple[str, ...]]] = {
    1: (MARKS,),
    2: (LETTERS, MARKS + DIGITS),
    3: (LETTERS, MARKS + DIGITS, MARKS + DIGITS + LETTERS),
}
"""Which symbols each hop of a chain starts from, by chain length."""


class Mapping:
    """2 x `hops` rules, shuffled: two chains of exactly `hops` rules, one for each half."""

    test_share = 0.2

    def __init__(self, hops: int) -> None:
        self.name = f"mapping{hops}"
        self.hops = hops

    def sample(self, rng: random.Random) -> Fact:
        objects = rng.sample(OBJECTS, 2)
        chains: list[list[str]] = [[], []]
        used: set[str] = set()
        for pool in LEVELS[self.hops]:
            for chain, symbol in zip(chains, rng.sample([s for s in pool if s not in used], 2), strict=True):
                chain.append(symbol)
                used.add(symbol)
        links = [
            (left, right)
            for chain, name in zip(chains, objects, strict=True)
            for left, right in zip(chain, [*chain[1:], name], strict=True)
        ]
        rng.shuffle(links)
        same_verb = rng.choice(RULES) if rng.random() < 0.5 else None
        rules = " ".join(
            f"Rule {number}: {(same_verb or rng.choice(RULES)).format(left, right)}."
            for number, (left, right) in enumerate(links, start=1)
        )
        prompt, question = rng.choice(QUERIES)
        drafts = []
        for half in (0, 1):
            chain, name = chains[half], objects[half]
            hops = [f"{left} means {right}" for left, right in zip(chain, [*chain[1:], name], strict=True)]
            caption = counted(name, 1)
            drafts.append(
                Draft(
                    question=f"{rules} {question.format(chain[0])}",
                    prompt=f"{rules} {prompt.format(chain[0])}",
                    caption=caption,
                    answer=Object(object=name),
                    other=Object(object=objects[1 - half]),
                    thought="\n".join((*hops, f"Draw {caption}.")),
                )
            )
        return Fact(key=" ".join(sorted(objects)), drafts=tuple(drafts), paired=True)

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(0.25, "coin flip between the two objects, per picture")


MAPPING1, MAPPING2, MAPPING3 = Mapping(1), Mapping(2), Mapping(3)
