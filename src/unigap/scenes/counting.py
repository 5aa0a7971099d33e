"""Counting: how many of each in a given picture, and the same objects drawn again in other places."""

import random
from collections.abc import Sequence
from typing import Final

from unigap.items import Count, Counts, Item
from unigap.scenes import Chance, Draft, Fact, best_constant_answer
from unigap.scenes.plain import two_kinds
from unigap.scenes.render import place, scene_ref
from unigap.scenes.vocabulary import OBJECTS, counted, list_counts

SENTENCES: Final = (
    (
        "Draw as many of each object as in the picture, in other places.",
        "How many of each object are in the picture?",
    ),
    (
        "Draw the objects of the picture again, in other places.",
        "Count the objects in the picture.",
    ),
    (
        "Draw the same number of each object as the picture shows.",
        "How many objects of each kind does the picture show?",
    ),
    (
        "Count the objects in the picture and draw as many in other places.",
        "Count each kind of object in the picture. How many are there?",
    ),
    (
        "Make a picture with the same objects in other places.",
        "What is the number of each object in the picture?",
    ),
)
"""(prompt, question) pairs."""


class Counting:
    """One kind (a fifth of the items, 1-6 copies) or two kinds (1-4 copies each)."""

    name = "counting"
    test_share = 0.2

    def sample(self, rng: random.Random) -> Fact:
        if rng.random() < 0.2:
            name, n = rng.choice(OBJECTS), rng.randint(1, 6)
            counts, answer, caption, variant = {name: n}, Count(object=name, n=n), counted(name, n), "one"
        else:
            counts = two_kinds(rng)
            answer, caption, variant = Counts(counts=counts), list_counts(counts), "two"
        picture = (scene_ref(place(counts, rng)),)
        prompt, question = rng.choice(SENTENCES)
        draft = Draft(
            question=question,
            prompt=prompt,
            caption=caption,
            answer=answer,
            images=picture,
            prompt_images=picture,
            variant=variant,
        )
        return Fact(key=caption, drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(best_constant_answer(items), "best constant answer")


COUNTING = Counting()
