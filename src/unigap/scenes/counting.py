"""Counting: how many of each in a given picture, and the same objects drawn again in other places."""

import random
from collections.abc import Sequence

from unigap.items import Count, Counts, Item
from unigap.scenes import Chance, Draft, Fact, best_constant_answer
from unigap.scenes.render import place, scene_ref
from unigap.scenes.vocabulary import OBJECTS, counted, list_counts

SENTENCES = (
    ("How many of each object are in the picture?", "Draw as many of each object as in the picture, in other places."),
    ("Count the objects in the picture.", "Draw the objects of the picture again, in other places."),
    ("How many objects of each kind does the picture show?", "Draw the same number of each object as the picture shows."),
)
"""(question, prompt) pairs."""


class Counting:
    """One kind (a fifth of the items, 1-6 copies) or two kinds (1-4 copies each)."""

    name = "counting"
    test_share = 0.2

    def sample(self, rng: random.Random) -> Fact:
        if rng.random() < 0.2:
            name, n = rng.choice(OBJECTS), rng.randint(1, 6)
            counts, answer, caption = {name: n}, Count(object=name, n=n), counted(name, n)
        else:
            first, second = sorted(rng.sample(OBJECTS, 2), key=OBJECTS.index)
            counts = {first: rng.randint(1, 4), second: rng.randint(1, 4)}
            answer, caption = Counts(counts=counts), list_counts(counts)
        picture = scene_ref(place(counts, rng))
        question, prompt = rng.choice(SENTENCES)
        draft = Draft(
            question=question,
            prompt=prompt,
            caption=caption,
            answer=answer,
            images=(picture,),
            prompt_images=(picture,),
            variant="one" if isinstance(answer, Count) else "two",
        )
        return Fact(key=caption, drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(best_constant_answer(items), "best constant answer")


COUNTING = Counting()
