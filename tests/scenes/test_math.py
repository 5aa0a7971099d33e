import random
import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scenes.oracle import NAMES, UnreadableError, complain_about_math, read_math

from unigap.items import Count
from unigap.scenes import Fact, facts, make_items, make_units, split_of
from unigap.scenes.math import _SINGLE, MATH1, MATH2, MATH3, SENTENCES, VERBS, Math, grow
from unigap.scenes.vocabulary import OBJECTS

LEVELS = [(MATH1, 1, 4), (MATH2, 2, 4), (MATH3, 3, 5)]
by_level = pytest.mark.parametrize(("family", "num_operations", "largest_result"), LEVELS)


def take(family: Math, num: int, *, seed: int, split="test") -> list[Fact]:
    return list(islice(facts(family, seed=seed, split=split), num))


@by_level
def test_an_independent_evaluator_derives_every_label(family: Math, num_operations: int, largest_result: int):
    for item in make_items([family.name], num_units=8000, seed=11):
        wrong = complain_about_math(item.to_json(), num_operations=num_operations, largest_result=largest_result)
        assert wrong is None, f"{item.prompt} | {item.question}: {wrong}"


@by_level
@given(seed=st.integers(0, 2**63))
@settings(max_examples=30, deadline=None)
def test_labels_hold_for_any_seed(family: Math, num_operations: int, largest_result: int, seed: int):
    for split in ("train", "test"):
        for (item,) in islice(make_units(family.name, seed=seed, split=split), 10):
            assert not complain_about_math(
                item.to_json(), num_operations=num_operations, largest_result=largest_result
            ), item


@by_level
def test_thoughts_are_the_steps_in_evaluation_order(family: Math, num_operations: int, largest_result: int):
    for fact in take(family, 3000, seed=12, split="train"):
        (draft,) = fact.drafts
        *steps, last = draft.thought.splitlines()
        assert last == f"Draw {draft.caption}."
        written = [
            f"√{operands[0]} = {result}"
            if operator == "√"
            else f"{operands[0]}^{operands[1]} = {result}"
            if operator == "^"
            else f"{operands[0]} {operator} {operands[1]} = {result}"
            for operator, operands, result in read_math(draft.prompt).steps
        ]
        assert steps == written, draft.prompt


@by_level
@pytest.mark.parametrize("split", ["train", "test"])
def test_results_are_uniform_in_each_split(family: Math, num_operations: int, largest_result: int, split: str):
    num = 20_000
    seen = Counter()
    for fact in take(family, num, seed=13, split=split):
        answer = fact.drafts[0].answer
        assert isinstance(answer, Count)
        seen[answer.n] += 1
    assert sorted(seen) == list(range(1, largest_result + 1))
    # A binomial count strays past 4.5 standard deviations once in 150,000 draws.
    share = 1 / largest_result
    spread = 4.5 * (num * share * (1 - share)) ** 0.5
    assert all(abs(count - num * share) < spread for count in seen.values()), seen
    items = list(make_items([family.name], num_units=50, seed=13))
    assert family.chance(items).rate == share


def test_expressions_are_never_shared_between_splits():
    for family, _, _ in LEVELS:
        train, test = set(), set()
        for seed in range(40):
            train |= {fact.key for fact in take(family, 250, seed=seed, split="train")}
            test |= {fact.key for fact in take(family, 250, seed=seed, split="test")}
        assert not train & test
        # The sentences of one key may say it in words or with more parentheses; none of them says another key's.
        assert all(split_of(family.name, key, family.test_share) == "test" for key in test)


def test_all_ways_to_write_an_expression_have_its_key():
    """Words and redundant parentheses re-parse to the steps of the key itself."""
    for family, _, _ in LEVELS:
        for fact in take(family, 2000, seed=14):
            key = read_math(f"apples {fact.key}")
            assert read_math(fact.drafts[0].prompt).steps == key.steps


def test_every_operation_and_every_result_has_single_expressions():
    for value in range(1, 5):
        operators = {expression.operator for row in _SINGLE[value] for expression in row}
        assert operators == set("+-*/%^√") - ({"+"} if value == 1 else set())  # 1 + 0 is no sum to work out
    assert all(_SINGLE[value] for value in range(1, 21))
    rng = random.Random(0)
    assert {grow(value, 3, rng).value for value in range(1, 21)} == set(range(1, 21))


def test_operations_are_mixed():
    seen = Counter(symbol for fact in take(MATH3, 3000, seed=15) for symbol in re.findall(r"[-+*/%^√]", fact.key))
    assert set(seen) == set("+-*/%^√")
    assert min(seen.values()) > 0.02 * sum(seen.values()), seen


def test_every_sentence_verb_and_object_turns_up_in_both_directions():
    assert len(SENTENCES) >= 8
    drafts = [fact.drafts[0] for fact in take(MATH2, 4000, seed=16, split="train")]
    starts = {draft.prompt.split()[0] for draft in drafts}
    assert set(VERBS) <= starts
    assert {draft.answer.object for draft in drafts} == set(OBJECTS) == set(NAMES)
    for draft in drafts:
        assert draft.question.endswith("?") and draft.prompt.endswith(".")
        assert draft.question.isascii() or set(re.findall(r"[^\x00-\x7f]", draft.question)) == {"√"}


def test_some_expressions_are_in_words_and_some_have_spare_parentheses():
    prompts = [fact.drafts[0].prompt for fact in take(MATH2, 2000, seed=17)]
    assert sum("minus" in prompt or "plus" in prompt for prompt in prompts) > 30
    spare = re.compile(r"\(\d+ \* \d+\) [-+]")
    assert any(spare.search(prompt) for prompt in prompts)


@pytest.mark.parametrize(
    "sentence",
    [
        "Draw as many apples as 3 plus 2 times 2.",
        "Draw as many apples as the square root of 4 plus 2.",
        "Draw as many apples as 8 divided by 2 divided by 2.",
        "Draw as many apples as 7 / 0.",
        "Draw as many apples as √8.",
        "Draw as many apples as 2 and 3.",
        "Draw as many apples and cups as 2 + 3.",
        "Draw as many apple as 2 + 3.",
    ],
)
def test_the_evaluator_refuses_what_is_not_clear(sentence: str):
    with pytest.raises(UnreadableError):
        read_math(sentence)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("9 - 5 - 1", 3), ("9 - (5 - 1)", 5), ("2 * 3 % 4", 2),
        ("8 / 2^2", 2), ("√16 - 3", 1), ("(9 - 5) / 2 + 2", 4), ("5^0 * 3 + 1", 4), ("9 minus 5 plus 1", 5),
        ("3 plus the square root of 4", 5), ("7 modulo 4", 3), ("2 to the power of 3", 8),
    ],
)  # fmt: skip
def test_the_evaluator_keeps_standard_precedence(text: str, value: int):
    assert read_math(f"Draw as many cups as {text}.").value == value


@pytest.mark.parametrize(("field", "value"), [("caption", "9 cups"), ("prompt", "Draw as many cups as 1 + 1 + 1.")])
def test_the_evaluator_finds_a_planted_error(field: str, value: str):
    (item,) = next(make_units("math1", seed=1))
    data = item.to_json() | {field: value}
    assert complain_about_math(data, num_operations=1, largest_result=4)
