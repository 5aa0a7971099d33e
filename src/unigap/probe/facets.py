"""Which items are looked at, and what of their answers a probe is to tell."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from unigap.items import Count, Item, Object, Portrait
from unigap.probe.linear import Labels
from unigap.scenes import Split, make_units
from unigap.scenes.render import ATTRIBUTES

FAMILIES = ("math1", "math2", "math3", "mapping1", "mapping2", "forward", "plain")
"""Families with facets. In `plain` the answer is written in the prompt: what a probe of such states can find at all."""

LEAST = 20
"""A facet with fewer items to fit on, or held out, says nothing."""


def draw_items(family: str, num_items: int, *, seed: int, split: Split) -> list[Item]:
    """That many items of one split, or as many as there are; of `plain` those of one kind of object."""
    return list(islice(_wanted(family, seed, split), num_items))


def _wanted(family: str, seed: int, split: Split) -> Iterator[Item]:
    for unit in make_units(family, seed=seed, split=split):
        yield from (item for item in unit if family != "plain" or item.variant == "one")


@dataclass(frozen=True, eq=False)
class Facet:
    """One thing to be told of an answer, for the items that have it."""

    name: str
    """ "count", "object", "hair", ..."""
    train_rows: tuple[int, ...]
    """Items to fit on, by index."""
    test_rows: tuple[int, ...]
    train: Labels
    test: Labels
    words: tuple[str, ...]
    """How a text answer begins for each class; () if the facet is not where it begins."""


def facets_of(train: Sequence[Item], test: Sequence[Item]) -> list[Facet]:
    """The facets of some items; held-out items with a class that no item fitted on has are left out.

    The two objects of a mapping pair are all that its probe chooses between: which objects there are is written in
    the rules, and which of them is meant is what has to be worked out.

    Raises:
        ValueError: No facet has LEAST items on both sides.
    """
    found: dict[str, tuple[list[int], list[int]]] = {}
    for side, items in enumerate((train, test)):
        for row, item in enumerate(items):
            for name in _values(item):
                found.setdefault(name, ([], []))[side].append(row)
    facets = []
    for name, (train_rows, test_rows) in found.items():
        classes = tuple(sorted({_values(train[row])[name] for row in train_rows}))
        test_rows = [row for row in test_rows if _told(test[row], name) <= set(classes)]
        if len(train_rows) < LEAST or len(test_rows) < LEAST or len(classes) < 2:
            continue
        own, held_out = ([items[row] for row in rows] for items, rows in ((train, train_rows), (test, test_rows)))
        labels = [_labels(some, name, classes) for some in (own, held_out)]
        words = classes if name == "count" or isinstance(own[0].answer, Object) else ()
        facets.append(Facet(name, tuple(train_rows), tuple(test_rows), labels[0], labels[1], words))
    if not facets:
        raise ValueError(f"{len(train)} items to fit on and {len(test)} held out are too few: ask for more of them")
    return facets


def _values(item: Item) -> dict[str, str]:
    """Facet -> value."""
    match item.answer:
        case Count(object=name, n=n):
            return {"count": str(n), "object": name}
        case Object(object=name):
            return {item.variant or "object": name}
        case Portrait():
            return {attribute: getattr(item.answer, attribute) for attribute in ATTRIBUTES}
        case _:
            return {}


def _told(item: Item, name: str) -> set[str]:
    """The value, and the one that it is to be told from where there is only one."""
    return {_values(item)[name], *([item.other.object] if isinstance(item.other, Object) else [])}


def _labels(items: Sequence[Item], name: str, classes: tuple[str, ...]) -> Labels:
    answer_N = np.array([classes.index(_values(item)[name]) for item in items])
    allowed_NK = np.ones((len(items), len(classes)), bool)
    for row, item in enumerate(items):
        if isinstance(item.other, Object):
            allowed_NK[row] = [value in _told(item, name) for value in classes]
    return Labels(classes, answer_N, allowed_NK, tuple(map(cluster_of, items)))


_SAID = {"plus": "+", "minus": "-", "times": "*", "divided": "/", "modulo": "%", "power": "^", "root": "√"}


def cluster_of(item: Item) -> Hashable:
    """Items of one cluster ask for the same: the same expression, in symbols or words, or the same plain picture."""
    if not isinstance(item.answer, Count):
        return item.cluster
    said = "".join(
        _SAID.get(word, word if word.isdigit() or word in _SAID.values() else "") for word in _split(item.prompt)
    )
    return item.caption if said.isdigit() else said


def word_counts(train: Sequence[str], test: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """How often each word of the first texts is in each text, (N, words) and (M, words).

    A probe of these finds what a linear reader of the words alone finds, without any model: 2 + 1 is more than 1 + 1.
    """
    words = {word: column for column, word in enumerate(dict.fromkeys(w for text in train for w in _split(text)))}
    counts = [np.zeros((len(texts), len(words)), np.float32) for texts in (train, test)]
    for table, texts in zip(counts, (train, test), strict=True):
        for row, text in enumerate(texts):
            for word in _split(text):
                if word in words:
                    table[row, words[word]] += 1
    return counts[0], counts[1]


def _split(text: str) -> list[str]:
    spaced = "".join(character if character.isalnum() else f" {character} " for character in text)
    return spaced.split()
