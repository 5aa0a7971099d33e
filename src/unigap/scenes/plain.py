"""Plain drawing: so many of one kind or of two, or a portrait. No skill but drawing, or naming, what is there."""

import random
from collections.abc import Sequence
from typing import Final

from unigap.items import Answer, Count, Counts, Item
from unigap.scenes import Chance, Draft, Fact, best_constant_answer
from unigap.scenes.render import Scene, all_portraits, place, scene_ref
from unigap.scenes.vocabulary import OBJECTS, counted, describe_portrait, list_counts

PROMPTS: Final = (
    "Draw {}.",
    "Draw a picture of {}.",
    "Show {}.",
    "Create {}.",
    "Make a picture with {}.",
    "Generate a picture of {}.",
    "Please produce {}.",
)
QUESTIONS: Final = ("What is in the picture?", "What does the picture show?", "Describe the picture.")

_PORTRAIT_FORMS: Final = ("{V} {{}}.", "{V} a portrait of {{}}.", "{V} a picture of {{}}.", "Please {v} {{}}.")
_PORTRAIT_QUESTIONS: Final = {
    "Draw": ("What is in the picture?", "Who is shown?"),
    "Show": ("What does the picture show?", "Describe the portrait."),
    "Create": ("Describe the picture.", "Who does the picture show?"),
    "Make": ("Who is in the picture?", "What does the portrait show?"),
    "Generate": ("What does the person look like?", "Describe the person."),
    "Produce": ("Describe the person in the picture.", "Who is in the portrait?"),
}
PORTRAIT_SENTENCES: Final = tuple(
    (tuple(form.format(V=verb, v=verb.lower()) for form in _PORTRAIT_FORMS), questions)
    for verb, questions in _PORTRAIT_QUESTIONS.items()
)
"""(prompts, questions) groups, no sentence in two of them."""

COUNTS_OF_ONE: Final = range(1, 10)
WEIGHTS_OF_ONE: Final = (4, 4, 4, 4, 4, 1, 1, 1, 1)


class Plain:
    """Variants "one" (1-9 of one kind, mostly 1-5), "two" (1-4 each of two kinds) and "portrait", equally often."""

    name = "plain"
    test_share = 0.2

    def sample(self, rng: random.Random) -> Fact:
        variant = rng.choice(("one", "two", "portrait"))
        answer: Answer
        scene: Scene
        if variant == "portrait":
            answer = scene = rng.choice(all_portraits())
            caption = describe_portrait(answer)
            prompts, questions = rng.choice(PORTRAIT_SENTENCES)
            # Of 72 portraits none can be spared from training: there the split goes by groups of sentences.
            key = f"{caption}/{prompts[0]}"
        else:
            if variant == "one":
                name, n = rng.choice(OBJECTS), rng.choices(COUNTS_OF_ONE, WEIGHTS_OF_ONE)[0]
                counts, answer = {name: n}, Count(object=name, n=n)
                key = caption = counted(name, n)
            else:
                counts = two_kinds(rng)
                answer = Counts(counts=counts)
                key = caption = list_counts(counts)
            scene = place(counts, rng)
            prompts, questions = PROMPTS, QUESTIONS
        draft = Draft(
            question=rng.choice(questions),
            prompt=rng.choice(prompts).format(caption),
            caption=caption,
            answer=answer,
            images=(scene_ref(scene),),
            variant=variant,
        )
        return Fact(key=key, drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(best_constant_answer(items), "best constant answer")


def two_kinds(rng: random.Random) -> dict[str, int]:
    """Two kinds of objects, 1-4 of each, in the order of OBJECTS."""
    first, second = sorted(rng.sample(range(len(OBJECTS)), 2))
    return {OBJECTS[first]: rng.randint(1, 4), OBJECTS[second]: rng.randint(1, 4)}


PLAIN = Plain()
