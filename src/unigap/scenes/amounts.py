"""Amounts: a picture with some of one object and some of another, and what a change of their numbers comes to.

The numbers are only in the picture and the change only in the sentence. The five variants swap the two numbers, double
one, raise the lower one to the higher, ask for what is missing to make them equal, or for as many as all together.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

from unigap.items import Count, Counts, Item
from unigap.scenes import Chance, Draft, Fact, constant_rate, numbers_of
from unigap.scenes.editing import MOST
from unigap.scenes.render import place, scene_ref
from unigap.scenes.vocabulary import NUM_CELLS, OBJECTS, counted, list_counts, plural

SENTENCES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "swap": (
        (
            "Draw the picture with the numbers of {xs} and {ys} swapped.",
            "If the numbers of {xs} and {ys} in the picture were swapped, how many of each would there be?",
        ),
        (
            "Draw as many {xs} as there are {ys} in the picture, and as many {ys} as there are {xs} in it.",
            "Another picture has as many {xs} as this one has {ys}, and as many {ys} as this one has {xs}. How many of "
            "each does it have?",
        ),
        (
            "Redraw the picture so that the {xs} and the {ys} trade their numbers.",
            "The {xs} and the {ys} in the picture trade their numbers. How many of each are there then?",
        ),
    ),
    "double": (
        (
            "Draw the picture with twice as many {xs} and the same number of {ys}.",
            "The picture gets twice as many {xs} and keeps the same number of {ys}. How many of each are there then?",
        ),
        (
            "Double the number of {xs} in the picture and leave the {ys} as they are.",
            "The number of {xs} in the picture is doubled and the {ys} are left as they are. How many of each are "
            "there then?",
        ),
        (
            "Make a picture that has as many {ys} as this one and two {xs} for each one here.",
            "Another picture has as many {ys} as this one and two {xs} for each one here. How many of each does it "
            "have?",
        ),
    ),
    "equal": (
        (
            "Draw the picture with just enough {xs} added to have as many {xs} as {ys}.",
            "Just enough {xs} are added to the picture to have as many {xs} as {ys}. How many of each are there "
            "then?",
        ),
        (
            "Redraw the picture with more {xs}, as many as there are {ys}, whose number stays the same.",
            "The picture gets more {xs}, as many as there are {ys}, whose number stays the same. How many of each are "
            "there then?",
        ),
        (
            "Make the numbers of {xs} and {ys} in the picture equal by adding {xs} only.",
            "The numbers of {xs} and {ys} in the picture are made equal by adding {xs} only. How many of each are "
            "there then?",
        ),
    ),
    "missing": (
        (
            "Draw only the {xs} that have to be added to the picture to have as many {xs} as {ys}.",
            "How many {xs} have to be added to the picture to have as many {xs} as {ys}?",
        ),
        (
            "The picture has fewer {xs} than {ys}. Draw just the {xs} that are missing for equal numbers.",
            "The picture has fewer {xs} than {ys}. How many {xs} are missing for equal numbers?",
        ),
        (
            "Each of the {ys} in the picture is to go with one of the {xs}. Draw just the {xs} that are still needed.",
            "Each of the {ys} in the picture is to go with one of the {xs}. How many {xs} are still needed?",
        ),
    ),
    "total": (
        (
            "Draw as many {zs} as there are {xs} and {ys} together in the picture, and nothing else.",
            "How many {zs} does it take to have as many as there are {xs} and {ys} together in the picture?",
        ),
        (
            "Draw one {z} for every object in the picture, and nothing else.",
            "How many {zs} are needed to have one {z} for every object in the picture?",
        ),
        (
            "Count all the objects in the picture and draw that many {zs}, and nothing else.",
            "Count all the objects in the picture. How many {zs} does it take to have that many?",
        ),
    ),
}  # fmt: skip
"""Variant -> (prompt, question) pairs. {xs} and {ys} are in the picture, {zs} are not; of two numbers to be made equal,
that of {xs} is the lower."""


def _rows() -> dict[str, list[list[tuple[int, int]]]]:
    """Variant -> rows of (x, y); a row is drawn first, then a pair of it, so that no constant is right too often."""
    pairs = [(x, y) for x in range(1, 7) for y in range(1, 7) if x + y <= NUM_CELLS]
    rows = {variant: defaultdict[int, list[tuple[int, int]]](list) for variant in SENTENCES}
    for x, y in pairs:
        rows["total"][x + y].append((x, y))
        if x != y and max(x, y) <= MOST:
            rows["swap"][x].append((x, y))
        if 2 * x <= MOST and y <= MOST:
            rows["double"][x].append((x, y))
        if x < y:
            rows["missing"][y - x].append((x, y))
        if x < y <= MOST:
            rows["equal"][y].append((x, y))
    return {variant: list(found.values()) for variant, found in rows.items()}


_ROWS: Final = _rows()


class Amounts:
    """Two kinds of objects in the given picture; in the drawn one the same two, or one kind that the prompt names."""

    name = "amounts"
    test_share = 0.2

    def sample(self, rng: random.Random) -> Fact:
        variant = rng.choice(tuple(SENTENCES))
        x, y = rng.choice(rng.choice(_ROWS[variant]))
        names = rng.sample(OBJECTS, 3)
        given = {names[0]: x, names[1]: y}
        answer, step = _work_out(variant, given, names[2])
        picture = (scene_ref(place(given, rng)),)
        prompt, question = rng.choice(SENTENCES[variant])
        words = {"z": names[2]} | dict(zip(("xs", "ys", "zs"), map(plural, names)))
        counts = {answer.object: answer.n} if isinstance(answer, Count) else dict(answer.counts)
        caption = list_counts(counts)
        draft = Draft(
            question=question.format(**words),
            prompt=prompt.format(**words),
            caption=caption,
            answer=answer,
            other=Counts(counts=_in_order(given)) if isinstance(answer, Counts) else None,
            images=picture,
            prompt_images=picture,
            variant=variant,
            thought=f"in the picture: {list_counts(given)}\n{step}\nDraw {caption}.",
        )
        return Fact(key=f"{variant} {counted(names[0], x)} {counted(names[1], y)}", drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(constant_rate(self, items, numbers_of), "right objects, best constant numbers per variant")


def _work_out(variant: str, given: dict[str, int], third: str) -> tuple[Count | Counts, str]:
    """The answer, and how it is found in one line."""
    (a, x), (b, y) = given.items()
    match variant:
        case "swap":
            return _both(a, y, b, x), f"swapped: {counted(a, y)} and {counted(b, x)}"
        case "double":
            return _both(a, 2 * x, b, y), f"2 * {x} = {counted(a, 2 * x)}"
        case "equal":
            return _both(a, y, b, y), f"as many {plural(a)} as {plural(b)}: {y}"
        case "missing":
            return Count(object=a, n=y - x), f"{y} - {x} = {counted(a, y - x)}"
        case "total":
            return Count(object=third, n=x + y), f"{x} + {y} = {counted(third, x + y)}"
        case _:
            raise ValueError(f"no variant is called {variant!r}")


def _both(a: str, x: int, b: str, y: int) -> Counts:
    return Counts(counts=_in_order({a: x, b: y}))


def _in_order(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda count: OBJECTS.index(count[0])))


AMOUNTS = Amounts()
