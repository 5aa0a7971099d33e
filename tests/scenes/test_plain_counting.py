import re
from collections import Counter
from itertools import islice

import pytest
from tests.scenes.oracle import NAMES, PLURALS

from unigap.items import Count, Counts, Item, Portrait
from unigap.scenes import facts, find_family, make_units
from unigap.scenes.plain import PORTRAIT_SENTENCES
from unigap.scenes.render import Grid, all_portraits, parse_scene
from unigap.scenes.vocabulary import describe_portrait

families = pytest.mark.parametrize("name", ["plain", "counting"])
splits = pytest.mark.parametrize("split", ["train", "test"])


def items_of(name: str, num: int, *, seed: int, split="test") -> list[Item]:
    return [item for unit in islice(make_units(name, seed=seed, split=split), num) for item in unit]


def read_counts(caption: str) -> dict[str, int]:
    """ "2 cups and 1 apple", read by hand; singular only of 1, plural only of more."""
    counts = {}
    for part in caption.split(" and "):
        number, word = part.split()
        assert (word in NAMES) == (number == "1"), caption
        counts[word if number == "1" else PLURALS[word]] = int(number)
    return counts


def counts_of(item: Item) -> dict[str, int]:
    match item.answer:
        case Count(object=name, n=n):
            return {name: n}
        case Counts(counts=counts):
            return dict(counts)
    raise AssertionError(item.answer)


@families
@splits
def test_caption_answer_and_picture_say_the_same(name: str, split):
    for item in items_of(name, 4000, seed=41, split=split):
        scene = parse_scene(item.images[0])
        if isinstance(item.answer, Portrait):
            assert scene == item.answer
            assert item.caption == describe_portrait(item.answer)
            continue
        assert isinstance(scene, Grid)
        shown = Counter(cell for cell in scene.cells if cell is not None)
        assert read_counts(item.caption) == counts_of(item) == shown
        assert len(item.images) == 1


def test_plain_variants_are_equally_frequent_and_prompts_hold_the_caption():
    items = items_of("plain", 600, seed=42) + items_of("plain", 1500, seed=42, split="train")
    variants = Counter(item.variant for item in items)
    assert set(variants) == {"one", "two", "portrait"}
    # Portraits come a little short: there are only 72 of them to say.
    assert min(variants.values()) > 0.7 * max(variants.values()), variants
    for item in items:
        assert item.caption in item.prompt
        assert item.caption not in item.question
    sizes = Counter(item.answer.n for item in items if isinstance(item.answer, Count))
    assert set(sizes) == set(range(1, 10))
    assert sum(sizes[n] for n in range(1, 6)) > 0.75 * sum(sizes.values())
    assert all(set(counts_of(item).values()) <= {1, 2, 3, 4} for item in items if item.variant == "two")


def test_portraits_are_all_in_training_and_their_sentences_in_one_split_only():
    prompts, questions = {}, {}
    for split in ("train", "test"):
        drafts = [
            fact.drafts[0]
            for seed in range(2)
            for fact in islice(facts(find_family("plain"), seed=seed, split=split), 3000)
            if fact.drafts[0].variant == "portrait"
        ]
        prompts[split] = {draft.prompt for draft in drafts}
        questions[split] = {(draft.question, draft.images) for draft in drafts}
        assert split == "test" or {draft.answer for draft in drafts} == set(all_portraits())
    assert not prompts["train"] & prompts["test"]
    assert not questions["train"] & questions["test"]
    sentences = [text for group in PORTRAIT_SENTENCES for texts in group for text in texts]
    assert len(sentences) == len(set(sentences))


@families
def test_no_fact_is_shared_between_splits(name: str):
    family = find_family(name)
    keys = {
        split: {fact.key for seed in range(20) for fact in islice(facts(family, seed=seed, split=split), 300)}
        for split in ("train", "test")
    }
    assert not keys["train"] & keys["test"]


def test_counting_shows_its_picture_with_both_directions():
    items = items_of("counting", 2000, seed=43)
    for item in items:
        assert item.images == item.prompt_images
        assert item.caption not in item.prompt + item.question
        assert not re.search(r"\d", item.prompt + item.question)
    variants = Counter(item.variant for item in items)
    assert variants["two"] > 3 * variants["one"] > 0
    assert max(max(counts_of(item).values()) for item in items) == 6


@families
def test_chance_is_the_best_constant_answer(name: str):
    items = items_of(name, 300, seed=44)
    answers = Counter(repr(item.answer) for item in items)
    chance = find_family(name).chance(items)
    assert chance.rate == max(answers.values()) / 300
    assert chance.strategy == "best constant answer"


def test_all_positions_and_objects_turn_up():
    items = items_of("counting", 3000, seed=45, split="train")
    cells = Counter()
    objects = set()
    for item in items:
        scene = parse_scene(item.images[0])
        assert isinstance(scene, Grid)
        cells.update(index for index, cell in enumerate(scene.cells) if cell)
        objects |= set(counts_of(item))
    assert objects == set(NAMES)
    assert min(cells.values()) > 0.9 * max(cells.values())
