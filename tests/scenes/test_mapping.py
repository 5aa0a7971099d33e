from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scenes.oracle import UnreadableError, complain_about_mapping, read_mapping

from unigap.items import Item
from unigap.scenes import facts, make_units
from unigap.scenes.mapping import DIGITS, LETTERS, MAPPING1, MAPPING2, MAPPING3, MARKS, QUERIES, Mapping
from unigap.scenes.vocabulary import OBJECTS

LEVELS = [(MAPPING1, 1), (MAPPING2, 2), (MAPPING3, 3)]
by_level = pytest.mark.parametrize(("family", "hops"), LEVELS)


def pairs(family: Mapping, num: int, *, seed: int, split="test") -> list[tuple[Item, ...]]:
    return list(islice(make_units(family.name, seed=seed, split=split), num))


@by_level
def test_an_independent_resolver_derives_every_label(family: Mapping, hops: int):
    for pair in pairs(family, 4000, seed=21):
        wrong = complain_about_mapping(tuple(item.to_json() for item in pair), hops=hops)
        assert wrong is None, f"{pair[0].prompt} | {pair[1].question}: {wrong}"


@by_level
@given(seed=st.integers(0, 2**63))
@settings(max_examples=30, deadline=None)
def test_labels_hold_for_any_seed(family: Mapping, hops: int, seed: int):
    for split in ("train", "test"):
        for pair in pairs(family, 10, seed=seed, split=split):
            assert not complain_about_mapping(tuple(item.to_json() for item in pair), hops=hops), pair


@by_level
def test_halves_are_one_unit_and_differ_only_in_the_symbol_asked_about(family: Mapping, hops: int):
    for a, b in pairs(family, 500, seed=22):
        assert a.unit == b.unit == a.cluster == b.cluster
        assert (a.id, b.id) == (f"{a.unit}/A", f"{a.unit}/B")
        asked = read_mapping(a.prompt).query, read_mapping(b.prompt).query
        words = a.prompt.split()
        changed = [(x, y) for x, y in zip(words, b.prompt.split(), strict=True) if x != y]
        # "the letter A" and "the number 3" differ in two words, bare symbols in one.
        assert 1 <= len(changed) <= 2
        assert tuple(word.rstrip(".") if len(word) > 1 else word for word in changed[-1]) == asked


@by_level
def test_thoughts_are_the_chain_a_hop_a_line(family: Mapping, hops: int):
    for fact in islice(facts(family, seed=23, split="train"), 1500):
        for draft in fact.drafts:
            chain = read_mapping(draft.prompt).chain
            lines = [f"{left} means {right}" for left, right in pairwise(chain)]
            assert draft.thought.splitlines() == [*lines, f"Draw {draft.caption}."]
            assert len(lines) == hops


@by_level
def test_object_pairs_are_never_shared_between_splits(family: Mapping, hops: int):
    seen = {}
    for split in ("train", "test"):
        seen[split] = {
            frozenset((a.answer.object, b.answer.object))
            for seed in range(40)
            for a, b in pairs(family, 150, seed=seed, split=split)
        }
    assert not seen["train"] & seen["test"]
    assert 0.1 < len(seen["test"]) / (len(OBJECTS) * (len(OBJECTS) - 1) / 2) < 0.3
    # Every object is learned as an answer.
    assert set().union(*seen["train"]) == set(OBJECTS)


@by_level
def test_neither_half_nor_place_gives_the_answer_away(family: Mapping, hops: int):
    """The asked object is named first in half of the items; every kind of symbol and query turns up."""
    units = pairs(family, 3000, seed=24)
    puzzles = [read_mapping(a.prompt) for a, _ in units]
    objects = [[meaning for _, meaning in puzzle.rules if meaning in OBJECTS] for puzzle in puzzles]
    first = sum(named[0] == puzzle.chain[-1] for named, puzzle in zip(objects, puzzles, strict=True))
    assert abs(first / len(units) - 0.5) < 0.045  # five standard deviations of a fair coin
    symbols = {symbol for puzzle in puzzles for symbol, _ in puzzle.rules}
    assert symbols == set(MARKS + DIGITS + LETTERS)
    assert len(symbols) == len(MARKS) + len(DIGITS) + len(LETTERS)
    for prompt, _ in QUERIES:
        before, after = prompt.split("{}")
        assert any(before in a.prompt and a.prompt.endswith(after) for a, _ in units), prompt


def test_chance_is_a_coin_flip_for_each_picture_of_a_pair():
    chance = MAPPING2.chance([])
    assert chance.rate == 0.25
    assert chance.strategy == "coin flip between the two objects, per picture"


RULES = "Rule 1: # means cup. Rule 2: A maps to #. Rule 3: @ means a dog. Rule 4: the letter B denotes @. "


def test_the_resolver_follows_a_chain():
    puzzle = read_mapping(RULES + "Draw the object that A stands for.")
    assert puzzle.chain == ("A", "#", "cup")
    assert read_mapping(RULES + "Draw what the letter B means.").chain == ("B", "@", "dog")


@pytest.mark.parametrize(
    "sentence",
    [
        RULES + "Draw the object that C stands for.",
        RULES + "Draw the object that A or B stands for.",
        RULES + "Draw the object.",
        RULES.replace("3: @", "3: #") + "Draw what A means.",
        RULES.replace("Rule 3", "Rule 4") + "Draw what A means.",
        RULES.replace("a dog", "an dog") + "Draw what A means.",
        RULES.replace("# means cup", "# means A") + "Draw what A means.",
    ],
)
def test_the_resolver_refuses_what_leads_nowhere(sentence: str):
    with pytest.raises(UnreadableError):
        read_mapping(sentence)


def test_the_resolver_finds_planted_errors():
    a, b = next(make_units("mapping2", seed=1))
    good = (a.to_json(), b.to_json())
    assert complain_about_mapping(good, hops=2) is None
    assert complain_about_mapping(good, hops=3)
    assert complain_about_mapping((good[0], good[0]), hops=2)
    assert complain_about_mapping((good[0] | {"answer": good[1]["answer"]}, good[1]), hops=2)
