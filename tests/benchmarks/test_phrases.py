"""Parsing of arithmetic and mapping prompts: what is understood, and what is refused rather than misread."""

import pytest

from unigap.benchmarks.phrases import MappingPhrase, MathPhrase, NotUnderstood, Rule, parse_mapping, parse_math
from unigap.scenes import make_items


@pytest.mark.parametrize(
    ("text", "name", "expression"),
    [
        ("Generate as many cups as the result of 8 / 4.", "cup", "8 / 4"),
        ("Create the same number of hats as 8/4+2 .", "hat", "8 / 4 + 2"),
        ("Produce a number of dogs equal to 10 ÷ √25.", "dog", "10 / √ 25"),
        ("Create the same quantity of kittens as the square root of 9 plus 1 minus 2.", "cat", "√ 9 + 1 - 2"),
        ("Provide as many bikes as two squared minus three.", "bicycle", "2 ^ 2 - 3"),
        ("Show the number of spoons that equals (5^0) * 3 + 1.", "spoon", "( 5 ^ 0 ) * 3 + 1"),
        ("How many roses are 3 times 1 roses?", "rose", "3 * 1"),
        ("Create the same quantity of apples as 4 / 1 equals.", "apple", "4 / 1"),
    ],
)
def test_one_object_and_one_expression_are_found(text: str, name: str, expression: str):
    assert parse_math(text) == MathPhrase(name, tuple(expression.split()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Create as many cookies as 3^2 - 8.", 'object "cookies" is not in the vocabulary'),
        ("Provide the number of teddy bears equal to 2^4 / 8.", 'object "teddy bears" is not in the vocabulary'),
        ("Show the outcome of (7 % 5) * 1 + 3.", "no object named"),
        ("Generate the outcome of the square root of 16 minus 3, then add 2.", "no object named"),
        ("Draw as many cups as 11 / 4 equals then rounded down.", 'the words "then rounded down" change'),
        ("Produce as many pairs of cups as (9 - 3) / 2.", 'the words "pairs" change'),
        ("Draw as many red cups as 1 + 1.", 'object "red cups" is not in the vocabulary'),
        ("Draw as many cups and dogs as 1 + 1.", "several objects named: cup, dog"),
        ("Draw 3 cups.", "no single arithmetic expression (found: '3')"),
        ("Draw as many cups as 1 + 1 or as 2 + 2.", 'object "or"'),
        ("Draw as many cups as 1 + 1 and as 2 + 2.", "no single arithmetic expression (found: '1 + 1' and '2 + 2')"),
        ("Draw as many cups as 2.5 + 1.", "no single arithmetic expression"),
        ("Draw as many cups as (1 + 1.", "no single arithmetic expression"),
        ("Draw as many cups as 1 + / 2.", "no single arithmetic expression"),
        ("Create the same quantity of shirts as √(M² + 9) where M = 1.", "the character '²' is not known"),
        ("", "no object named"),
    ],
)
def test_what_is_not_wholly_understood_is_refused(text: str, reason: str):
    found = parse_math(text)
    assert isinstance(found, NotUnderstood)
    assert reason in found.reason


def test_rules_and_query_are_read_in_any_phrasing():
    text = (
        "Rule 1: The symbol '%' is mapped to the letter 'X'. Rule 2: 8 means books. Rule 3: 'X' signs onto 8 .Rule 4: "
        "The letter D is linked to * symbol. Rule 5: * is a symbol for a cup. Rule 6: The symbol a refers to ?. "
        "Please generate the personal care item associated with the letter 'D'."
    )
    assert parse_mapping(text) == MappingPhrase(
        (
            Rule("%", "X", names_object=False),
            Rule("8", "book", names_object=True),
            Rule("X", "8", names_object=False),
            Rule("D", "*", names_object=False),
            Rule("*", "cup", names_object=True),
            Rule("a", "?", names_object=False),
        ),
        "D",
    )


@pytest.mark.parametrize(
    ("query", "symbol"),
    [
        ("Please generate the object represented by the symbol ?.", "?"),
        ("What does ? stand for?", "?"),
        ("Which object does the letter B lead to?", "B"),
        ("Please generate the item represented by the letter '#'.", "#"),
        ("Draw what 12 means. Which object is that?", "12"),
    ],
)
def test_the_query_is_the_one_symbol_it_names(query: str, symbol: str):
    found = parse_mapping(f"Rule 1: A means cup. {query}")
    assert isinstance(found, MappingPhrase)
    assert found.query == symbol


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Rule 1: A means pizza. Draw what A means.", 'object "pizza" is not in the vocabulary'),
        ("Rule 1: A means teddy bear. Draw what A means.", 'object "teddy bear" is not in the vocabulary'),
        ("Rule 1: A does not mean cup. Draw what A means.", "rule text not understood"),
        ("Rule 1: 'Q' stands for the number 8, which means cup. Draw what Q means.", "rule text not understood"),
        ("Rule 1: A means cup. Rule 2: B bonds with 5. Draw what A means.", "rule text not understood"),
        ("Rule 1: A means cup.", "no query after the rules"),
        ("Rule 1: A means cup. Draw what is not A.", "query not understood"),
        ("Rule 1: A means cup. Draw what A and B mean.", "query not understood"),
        ("Ignore this. Rule 1: A means cup. Draw what A means.", "no rules, or words before them"),
        ("Draw a cup.", "no rules"),
    ],
)
def test_rules_that_are_not_wholly_understood_are_refused(text: str, reason: str):
    found = parse_mapping(text)
    assert isinstance(found, NotUnderstood)
    assert reason in found.reason


def test_the_sandbox_speaks_a_dialect_that_is_understood():
    for item in make_items(("math1", "math2", "math3"), num_units=150, seed=3):
        for text in (item.prompt, item.question):
            found = parse_math(text)
            assert isinstance(found, MathPhrase), f"{text}: {found}"
            assert found.object == item.answer.object
    for item in make_items(("mapping1", "mapping2", "mapping3"), num_units=75, seed=3):
        for text in (item.prompt, item.question):
            assert isinstance(parse_mapping(text), MappingPhrase), f"{text}: {parse_mapping(text)}"
