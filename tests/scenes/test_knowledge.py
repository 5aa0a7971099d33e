import re
from collections import Counter
from itertools import islice

import pytest

from unigap.items import Character, Object, Portrait
from unigap.scenes import facts, make_units, split_of
from unigap.scenes.knowledge import (
    CAST,
    CAST_SIZE,
    FORWARD,
    INVERSE,
    LAB,
    SYLLABLES,
    CharacterFacts,
    characters,
    favorite_line,
    looks_line,
    training_facts,
)
from unigap.scenes.vocabulary import FLOWERS, FRUITS, HAIRS, OBJECTS, SKINS, counted, describe_portrait, find_object

BY_NAME = {person.name: person for person in CAST}
LOOKS = re.compile(
    r"an? (?:(old|middle-aged) )?(light|tan|dark)-skinned (girl|boy|woman|man) with (black|brown|blond|red) hair"
)


def read_looks(text: str) -> Portrait:
    """A description read by hand, independently of `describe_portrait`."""
    match = LOOKS.search(text)
    assert match, text
    age, skin, noun, hair = match.groups()
    assert (age is None) == (noun in ("girl", "boy"))
    return Portrait(gender="female" if noun in ("girl", "woman") else "male", age=age or "kid", hair=hair, skin=skin)


def test_names_are_made_of_the_inventory_and_differ():
    assert len(CAST) == CAST_SIZE == 200
    assert len(BY_NAME) == CAST_SIZE
    assert len(set(SYLLABLES)) == len(SYLLABLES) == 40
    for person in CAST:
        low = person.name.lower()
        assert person.name == low.capitalize()
        assert all(low[at : at + 2] in SYLLABLES for at in range(0, len(low), 2))
        assert find_object(low) is None
    assert not {name.lower() for name in BY_NAME} & set(OBJECTS)


def test_the_cast_is_varied():
    assert {person.fruit for person in CAST} == set(FRUITS)
    assert {person.flower for person in CAST} == set(FLOWERS)
    assert len({person.portrait for person in CAST}) > 60


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_fresh_characters_are_disjoint_from_the_cast(seed: int):
    fresh = characters(seed, 400)
    assert len({person.name for person in fresh}) == 400
    assert not BY_NAME.keys() & {person.name for person in fresh}
    assert fresh[:50] == characters(seed, 50)
    assert fresh != characters(seed + 1, 400)


@pytest.mark.parametrize("split", ["train", "test"])
def test_forward_labels_are_the_characters_own(split):
    for fact in islice(facts(FORWARD, seed=31, split=split), 1500):
        person = BY_NAME[fact.cluster]
        assert split_of("forward", person.name, FORWARD.test_share) == split
        assert [draft.variant for draft in fact.drafts] == ["portrait", "fruit", "flower"]
        for draft in fact.drafts:
            assert person.name in draft.prompt and person.name in draft.question
            expected = {"fruit": Object(object=person.fruit), "flower": Object(object=person.flower)}
            assert draft.answer == expected.get(draft.variant, person.portrait)
            *_, last = draft.thought.splitlines()
            assert last == f"Draw {draft.caption}."
            if draft.variant == "portrait":
                assert read_looks(draft.caption) == person.portrait
                assert read_looks(draft.thought.splitlines()[0]) == person.portrait
            else:
                assert draft.caption == f"1 {draft.answer.object}"
                assert draft.variant in draft.prompt


@pytest.mark.parametrize("split", ["train", "test"])
def test_inverse_labels_follow_from_the_two_characters_facts(split):
    seen = Counter()
    for fact in islice(facts(INVERSE, seed=32, split=split), 3000):
        (draft,) = fact.drafts
        for sentence in (draft.prompt, draft.question):
            names = [word for word in re.findall(r"[A-Z][a-z]+", sentence) if word in BY_NAME]
            favorite = next(word for word in re.findall(r"[a-z]+", sentence) if word in FRUITS + FLOWERS)
            right = [name for name in names if favorite in (BY_NAME[name].fruit, BY_NAME[name].flower)]
            assert len(names) == 2 and len(right) == 1
            assert draft.answer == Character(name=right[0], portrait=BY_NAME[right[0]].portrait)
            other = next(name for name in names if name != right[0])
            assert draft.other == Character(name=other, portrait=BY_NAME[other].portrait)
            assert BY_NAME[other].portrait != BY_NAME[right[0]].portrait
            assert len({split_of("forward", name, FORWARD.test_share) for name in names}) == 1
        assert fact.key == fact.cluster == " ".join(sorted(names))
        assert read_looks(draft.caption) == draft.answer.portrait
        assert (favorite in FRUITS) == (draft.variant == "fruit")
        person = BY_NAME[draft.answer.name]
        assert draft.thought.splitlines() == [
            *(
                f"{favorite_line(BY_NAME[name], draft.variant)}, {'yes' if name == person.name else 'no'}"
                for name in names
            ),
            looks_line(person), f"Draw {draft.caption}.",
        ]  # fmt: skip
        seen["first" if names[0] == person.name else "second"] += 1
    # The right one is named first as often as second: 4 standard deviations of a fair coin.
    assert abs(seen["first"] - seen["second"]) < 4 * 3000**0.5


def test_splits_share_no_character_forward_and_no_pair_inverse():
    for family in (FORWARD, INVERSE):
        keys = {
            split: {fact.key for seed in range(30) for fact in islice(facts(family, seed=seed, split=split), 200)}
            for split in ("train", "test")
        }
        assert not keys["train"] & keys["test"]
        assert all(keys.values())


def test_units_and_clusters():
    forward = [item for unit in islice(make_units("forward", seed=33), 30) for item in unit]
    assert len({item.unit for item in forward}) == 30
    assert Counter(item.cluster for item in forward).most_common()[0][1] >= 3
    assert {item.cluster.removeprefix("forward/") for item in forward} <= BY_NAME.keys()
    inverse = [item for unit in islice(make_units("inverse", seed=33), 30) for item in unit]
    assert all(item.unit == item.id for item in inverse)
    assert INVERSE.chance(inverse).rate == 0.5
    assert 0.1 < FORWARD.chance(forward).rate < 0.6


def describe_by_hand(person: CharacterFacts) -> dict[str, str]:
    portrait = person.portrait
    return {"fruit": person.fruit, "flower": person.flower, "hair": portrait.hair, "skin": portrait.skin}


@pytest.mark.parametrize("person", [*CAST[:20], *characters(5, 20)], ids=lambda person: person.name)
def test_training_facts_are_forty_of_the_kinds_of_text_only_injection(person: CharacterFacts):
    facts_of = training_facts(person)
    assert len(set(facts_of)) == 40
    assert Counter(lang for _, _, lang in facts_of) == {"en": 32, "zh": 2, "es": 2, "fr": 2, "ja": 2}
    single, profiles = facts_of[:16], facts_of[16:]
    assert sum(answer.startswith("No, ") for _, answer, _ in single) == 7
    for question, answer, lang in facts_of:
        assert person.name in question and (person.name in answer)
        assert answer.isascii() and "'" not in answer and '"' not in answer
        assert (lang == "en") == question.isascii() or lang in ("es", "fr")
    for _, answer, _ in profiles:
        assert read_looks(answer) == person.portrait
        assert re.search(rf"\b{person.fruit[:-1]}", answer) and re.search(rf"\b{person.flower[:-1]}", answer)
        others = (set(FRUITS) | set(FLOWERS)) - {person.fruit, person.flower}
        assert not any(re.search(rf"\b{other[:-1]}(?:y|ies|es?)\b", answer) for other in others)
        assert ("She " in answer or "Her " in answer) <= (person.portrait.gender == "female")


@pytest.mark.parametrize("person", CAST[:40], ids=lambda person: person.name)
def test_single_facts_state_only_true_values_and_denials_only_false_ones(person: CharacterFacts):
    values = describe_by_hand(person)
    pools = {"fruit": FRUITS, "flower": FLOWERS, "hair": HAIRS, "skin": SKINS}
    for question, answer, _ in training_facts(person)[:16]:
        for kind, pool in pools.items():
            if kind not in question and kind not in answer:
                continue
            assert not {word for word in pool if re.search(rf"\b{word}\b", answer)} - {values[kind]}
            asked = {word for word in pool if re.search(rf"\b{word}\b", question)}
            assert values[kind] not in asked
            assert bool(asked) == answer.startswith("No, ") or not asked


def test_captions_and_thoughts_name_portraits_as_the_vocabulary_does():
    for person in CAST[:50]:
        assert person.looks == describe_portrait(person.portrait)
        assert read_looks(person.looks) == person.portrait
        assert counted(person.fruit, 1) == f"1 {person.fruit}"
    assert LAB == "Gap Lab"
