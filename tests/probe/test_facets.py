"""What is asked of states, of which items, and what counts as held out."""

from dataclasses import replace

import numpy as np
import pytest

from unigap.items import Object
from unigap.probe.facets import FAMILIES, cluster_of, draw_items, facets_of, word_counts


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_held_out_is_in_no_item_to_fit_on(family: str):
    """Expressions, pairs of objects, characters, and plain pictures of one split are not in the other."""
    train, test = (draw_items(family, 120, seed=0, split=split) for split in ("train", "test"))
    assert len(train) == len(test) == 120
    if family.startswith("mapping"):
        keys = [{frozenset((item.answer.object, item.other.object)) for item in some} for some in (train, test)]  # type: ignore[union-attr]
    else:
        keys = [{cluster_of(item) for item in some} for some in (train, test)]
    # Without its parentheses, an expression of three operations may be another's.
    assert len(keys[0] & keys[1]) <= (1 if family == "math3" else 0)
    assert not {item.prompt for item in train} & {item.prompt for item in test}


def test_an_expression_is_the_same_in_symbols_and_words():
    (item,) = draw_items("math1", 1, seed=0, split="test")
    said = [
        replace(item, prompt=prompt)
        for prompt in ("Draw as many cups as 9 - 5.", "Show the number of pens that is equal to 9 minus 5.")
    ]
    assert cluster_of(said[0]) == cluster_of(said[1]) == "9-5"
    assert cluster_of(replace(item, prompt="Draw cups, as many as the square root of 16 gives.")) == "√16"
    (plain,) = draw_items("plain", 1, seed=0, split="test")
    assert cluster_of(plain) == plain.caption


def test_facets_of_counts_are_the_count_and_the_object():
    train, test = (draw_items("math1", 300, seed=0, split=split) for split in ("train", "test"))
    count, thing = facets_of(train, test)
    assert (count.name, count.train.classes, count.words) == ("count", ("1", "2", "3", "4"), ("1", "2", "3", "4"))
    assert (thing.name, thing.words) == ("object", ())  # a text answer begins with the count
    row = count.test_rows[7]
    assert count.test.classes[count.test.answers[7]] == str(test[row].answer.n)  # type: ignore[union-attr]
    assert count.test.allowed.all()
    # The best constant answer of these items.
    assert count.test.chance == max(np.bincount(count.test.answers)) / len(count.test)


def test_a_rules_object_is_told_from_the_other_one_of_its_rules():
    train, test = (draw_items("mapping1", 300, seed=0, split=split) for split in ("train", "test"))
    (facet,) = facets_of(train, test)
    assert facet.words == facet.test.classes and facet.test.chance == 0.5
    for row, answer, allowed in zip(facet.test_rows, facet.test.answers, facet.test.allowed, strict=True):
        item = test[row]
        assert isinstance(item.answer, Object) and isinstance(item.other, Object)
        names = {facet.test.classes[column] for column in np.flatnonzero(allowed)}
        assert names == {item.answer.object, item.other.object}
        assert facet.test.classes[answer] == item.answer.object
    # Halves of a pair are one cluster.
    assert len(set(facet.test.clusters)) == 150


def test_a_class_that_was_never_fitted_is_not_asked_for():
    train, test = (draw_items("mapping1", 300, seed=0, split=split) for split in ("train", "test"))
    some = test[0].answer.object  # type: ignore[union-attr]
    train = [item for item in train if some not in (item.answer.object, item.other.object)]  # type: ignore[union-attr]
    (facet,) = facets_of(train, test)
    assert some not in facet.test.classes and 0 not in facet.test_rows
    assert len(facet.test_rows) < 300 and (facet.test.allowed.sum(axis=1) == 2).all()


def test_too_few_items_are_refused():
    items = draw_items("math1", 30, seed=0, split="train")
    with pytest.raises(ValueError, match="30 items to fit on and 8 held out are too few"):
        facets_of(items, items[:8])


def test_portraits_are_told_by_their_attributes_and_favorites_by_their_kind():
    train, test = (draw_items("forward", 150, seed=0, split=split) for split in ("train", "test"))
    names = {facet.name: len(facet.test.classes) for facet in facets_of(train, test)}
    assert names == {"gender": 2, "age": 3, "hair": 4, "skin": 3, "fruit": 5, "flower": 4}


def test_words_are_counted_as_they_stand():
    train, test = word_counts(["2 + 2 cups.", "a cup"], ["2 cups 2 pens", ""])
    # Words in order of appearance: 2, +, cups, ., a, cup; "pens" is not among them.
    np.testing.assert_array_equal(train, [[2, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(test, [[2, 0, 1, 0, 0, 0], [0] * 6])
