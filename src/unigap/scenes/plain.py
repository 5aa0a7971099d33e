"""Plain drawing: so many of one kind or of two, or a portrait. No skill but drawing, or naming, what is there."""

import random
from collections.abc import Sequence

from unigap.items import Count, Counts, Item
from unigap.scenes import Chance, Draft, Fact, best_constant_answer
from unigap.scenes.render import all_portraits, place, scene_ref
from unigap.scenes.vocabulary import OBJECTS, counted, describe_portrait, list_counts

PROMPTS = ("Draw {}.", "Draw a picture of {}.", "Show {}.", "Make a picture with {}.")
QUESTIONS = ("What is in the picture?", "What does the picture show?", "Describe the picture.")
PORTRAIT_PROMPTS = ("Draw {}.", "Draw a portrait of {}.", "Show {}.", "Make a picture of {}.")
COUNTS_OF_ONE, WEIGHTS_OF_ONE = range(1, 10), (4, 4, 4, 4, 4, 1, 1, 1, 1)


class Plain:
    """Variants "one" (1-9 of one kind), "two" (1-4 each of two kinds) and "portrait", in equal numbers."""

    name = "plain"
    test_share = 0.2

    def sample(self, rng: random.Random) -> Fact:
        variant = rng.choice(("one", "two", "portrait"))
        if variant == "portrait":
            answer = rng.choice(all_portraits())
            caption = describe_portrait(answer)
            scene = answer
        elif variant == "one":
            name, n = rng.choice(OBJECTS), rng.choices(COUNTS_OF_ONE, WEIGHTS_OF_ONE)[0]
            answer = Count(object=name, n=n)
            caption = counted(name, n)
            scene = place({name: n}, rng)
        else:
            first, second = sorted(rng.sample(OBJECTS, 2), key=OBJECTS.index)
            counts = {first: rng.randint(1, 4), second: rng.randint(1, 4)}
            answer = Counts(counts=counts)
            caption = list_counts(counts)
            scene = place(counts, rng)
        templates = PORTRAIT_PROMPTS if variant == "portrait" else PROMPTS
        question, template = rng.choice(QUESTIONS), rng.choice(templates)
        # Of 72 portraits none can be spared from training: there the split is by sentence.
        key = f"{caption}/{question}/{template}" if variant == "portrait" else caption
        draft = Draft(
            question=question,
            prompt=template.format(caption),
            caption=caption,
            answer=answer,
            images=(scene_ref(scene),),
            variant=variant,
        )
        return Fact(key=key, drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(best_constant_answer(items), "best constant answer")


PLAIN = Plain()
