"""The rewrite into the sandbox's own words changes the wording and never the fact."""

import math
import re
from fractions import Fraction
from pathlib import Path

import pytest

from unigap.benchmarks.phrases import MappingPhrase, MathPhrase, NotUnderstood, parse_mapping, parse_math
from unigap.benchmarks.sentences import OWN_SYMBOLS, is_own
from unigap.benchmarks.unisandbox import inside, read_unisandbox
from unigap.items import Count, Object
from unigap.models.tiny.rewrite import rewrite, say_mapping, say_math
from unigap.scenes import make_items

PUBLISHED = Path(__file__).parents[4] / "shared" / "data" / "unisandbox" / "benchmark" / "test_reasoning"
REASONING = ("math1", "math2", "math3", "mapping1", "mapping2", "mapping3")


def value_of(phrase: MathPhrase) -> Fraction:
    """The expression's value, by Python's own grammar: "√ 9" becomes "root(9)"."""
    spelled = {"√": "root", "^": "**"}
    text = " ".join(
        f"(Fraction({piece}))" if piece.isdigit() else spelled.get(piece, piece) for piece in phrase.expression
    )
    return eval(text, {"Fraction": Fraction, "root": lambda value: Fraction(math.isqrt(int(value)))})


def object_of(phrase: MappingPhrase) -> str | None:
    """What the query leads to; None if nowhere."""
    symbol = phrase.query
    for _ in phrase.rules:
        rule = next((rule for rule in phrase.rules if rule.left == symbol), None)
        if rule is None or rule.names_object:
            return rule.right if rule is not None else None
        symbol = rule.right
    return None


def fact_of(text: str) -> tuple[object, ...]:
    phrase = parse_mapping(text) if "Rule 1" in text else parse_math(text)
    if isinstance(phrase, MathPhrase):
        return phrase.object, value_of(phrase)
    assert isinstance(phrase, MappingPhrase), f"{text}: {phrase}"
    return object_of(phrase), len(phrase.rules)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Provide the same number of bikes as calculated by 3^2-7.",
            "Draw as many bicycles as the result of 3^2 - 7.",
        ),
        (
            'How many objects does this prompt ask for: "Create as many kittens as the square root of (9 times 1)."',
            "How many cats are as many as the result of √(9 * 1)?",
        ),
        (
            "Rule 1: The symbol ] represents phones. Rule 2: The symbol a is tied to ']'. "
            "Please generate the device represented by the letter 'a'.",
            "Rule 1: @ means phone. Rule 2: A means @. Draw the object that A stands for.",
        ),
        (
            "Rule 1: 10 means a mug. Rule 2: 'I' maps to 10. What is the thing represented by the symbol 'I'?",
            "Rule 1: 1 means cup. Rule 2: A means 1. Which object does A stand for?",
        ),
    ],
)
def test_foreign_phrasing_is_said_again_in_the_sandbox_s_words(text: str, expected: str):
    assert rewrite(text) == expected
    assert is_own(expected)
    assert fact_of(expected) == fact_of(text)


def test_renamed_symbols_stay_apart():
    rewritten = rewrite(
        "Rule 1: [ means cup. Rule 2: ] means dog. Rule 3: @ means [. Rule 4: # means ]. Draw what # means."
    )
    assert rewritten is not None
    phrase = parse_mapping(rewritten)
    assert isinstance(phrase, MappingPhrase)
    assert [rule.left for rule in phrase.rules] == ["$", "%", "@", "#"]
    assert object_of(phrase) == "dog"


@pytest.mark.parametrize(
    "text", ["Draw 3 cups.", "Draw as many cookies as 1 + 1.", "Who is Zefyria?", "", "Rule 1: what?"]
)
def test_what_is_not_understood_is_not_rewritten(text: str):
    assert rewrite(text) is None


def test_the_sandbox_s_own_text_is_left_as_it_is():
    for item in make_items((*REASONING, "forward", "inverse"), num_units=100, seed=4):
        assert rewrite(item.prompt) == item.prompt
        assert rewrite(item.question) == item.question


def test_saying_the_sandbox_s_own_facts_again_keeps_them():
    for item in make_items(REASONING, num_units=100, seed=5):
        for text, question in ((item.prompt, False), (item.question, True)):
            phrase = parse_mapping(text) if "Rule 1" in text else parse_math(text)
            assert not isinstance(phrase, NotUnderstood)
            if isinstance(phrase, MathPhrase):
                said = say_math(phrase, question=question)
                assert isinstance(item.answer, Count)
                assert fact_of(said) == (item.answer.object, item.answer.n)
            else:
                said = say_mapping(phrase, question=question)
                assert said is not None
                assert isinstance(item.answer, Object)
                assert fact_of(said) == (item.answer.object, len(phrase.rules))
            assert is_own(said)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="UniSandbox's published files are not at ../shared/data/unisandbox")
@pytest.mark.parametrize("name", ["math_1", "math_2", "math_3", "mapping1", "mapping2", "mapping3"])
def test_published_prompts_inside_the_sandbox_are_all_rewritten_with_their_facts(name: str):
    items = [item for item in read_unisandbox(PUBLISHED / f"{name}.jsonl") if inside(item) is None]
    assert items
    for item in items:
        for text in (item.prompt, item.question):
            rewritten = rewrite(text)
            assert rewritten is not None
            assert is_own(rewritten)
            assert fact_of(rewritten) == fact_of(text)
            if name.startswith("mapping"):
                symbols = re.findall(r"Rule \d+: (\S+) means", rewritten)
                assert rewritten == text or set(symbols) <= set(OWN_SYMBOLS)
