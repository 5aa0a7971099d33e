"""Expressions in sentences: every reading, against an evaluator of their own."""

import operator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigap.benchmarks.arithmetic import readings
from unigap.benchmarks.phrases import NotUnderstood

APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "%": operator.mod}
SPOKEN = {"+": "plus", "-": "minus", "*": "times", "/": "divided by", "%": "modulo"}
UNICODE = {"+": "+", "-": "−", "*": "×", "/": "÷", "%": "%"}
WORDS = "zero one two three four five six seven eight nine".split()


def values(text: str) -> list[str]:
    found = readings(text)
    assert not isinstance(found, NotUnderstood), found
    return [str(reading) for reading in found]


def by_hand(numbers: list[int], operators: list[str]) -> Fraction:
    """The usual precedence in two passes: products first, then sums."""
    terms, signs = [Fraction(numbers[0])], []
    for sign, number in zip(operators, numbers[1:], strict=True):
        if sign in "*/%":
            terms[-1] = APPLY[sign](terms[-1], Fraction(number))
        else:
            signs.append(sign)
            terms.append(Fraction(number))
    total = terms[0]
    for sign, term in zip(signs, terms[1:], strict=True):
        total = APPLY[sign](total, term)
    return total


flat = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 9), min_size=n + 1, max_size=n + 1),
        st.lists(st.sampled_from("+-*/%"), min_size=n, max_size=n),
    )
)


@given(flat)
@settings(max_examples=300, deadline=None)
def test_symbols_have_the_value_of_the_usual_precedence_first(expression):
    numbers, operators = expression
    for signs in ({op: op for op in APPLY}, UNICODE):
        text = str(numbers[0]) + "".join(f" {signs[op]} {n}" for op, n in zip(operators, numbers[1:], strict=True))
        assert values(f"Draw as many cups as the result of {text}.")[0] == str(by_hand(numbers, operators))


@given(flat)
@settings(max_examples=300, deadline=None)
def test_words_have_the_usual_precedence_and_left_to_right_among_their_readings(expression):
    numbers, operators = expression
    text = WORDS[numbers[0]]
    straight = Fraction(numbers[0])
    try:
        for op, number in zip(operators, numbers[1:], strict=True):
            text += f" {SPOKEN[op]} {WORDS[number]}"
            straight = APPLY[op](straight, Fraction(number))
    except ZeroDivisionError:
        return
    found = values(f"Draw as many cups as {text}.")
    assert found[0] == str(by_hand(numbers, operators))
    assert str(straight) in found


trees = st.recursive(
    st.integers(0, 9).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
        lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", APPLY[t[1]](t[0][1], t[2][1]))
    ),
    max_leaves=6,
)


@given(trees, trees)
@settings(max_examples=200, deadline=None)
def test_parentheses_are_followed_however_deep(a, b):
    assert values(f"Draw as many cups as {a[0]} - {b[0]}.")[0] == str(a[1] - b[1])


@given(st.integers(0, 40), st.integers(1, 3))
def test_roots_of_squares_are_exact_and_powers_undo_them(n, times):
    assert values(f"Show √{n * n} + {times} cups") == [str(n + times)]
    assert values(f"Show ∛({n}^3) + {times} cups") == [str(n + times)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("√16 - 2", ["2"]),  # in symbols the root is of its number alone
        ("the square root of 9 plus 7", ["10", "4"]),  # 3 + 7, or the root of 16
        ("two plus three times four", ["14", "20"]),
        ("2 + 3 * 4", ["14"]),
        ("the sum of 3 and 4", ["7"]),
        ("the sum of 3 and 4 times 2", ["14", "11"]),  # (3 + 4) * 2, or 3 + 8
        ("the difference between 2 and 5", ["-3", "3"]),
        ("2 ^ 3 ^ 2", ["512", "64"]),
        ("6 / 2(1 + 2)", ["9", "1"]),
        ("(2 - 9) % 4", ["1", "-3"]),  # remainder with the sign of the divisor, or of the dividend
        ("3 squared minus 8", ["1"]),
        ("3² - 8", ["1"]),
        ("2 to the power of 3 minus 5", ["3", "1/4"]),
        ("50% of 8", ["4"]),
        ("25 percent of 12", ["3"]),
        ("the remainder when 9 is divided by 4", ["1"]),
        ("11 / 4 equals then rounded down", ["2"]),
        ("the square root of 16 minus 3, then add 2", ["3", "5.6056"]),
        ("4 subtracted from 6", ["2"]),
        ("half of 8", ["4"]),
        ("√(M² + 8) where M = 1", ["3"]),
        ("(1 + 2) where all terms are squared", ["5", "9"]),  # 1 + 4, or 3 squared
        ("twenty-four divided by eight", ["3"]),
        ("8 ÷ 2 × 2", ["8"]),
        ("2.5 * 2", ["5"]),
        ("1 / 0", ["division by zero"]),
        ("√(1 - 2)", ["the root of a negative number"]),
        ("9 ^ 9 ^ 9", ["an exponent beyond 64", "more than 1,000,000,000,000"]),
    ],
)
def test_readings_of_wordings(text, expected):
    assert values(f"as many cups as {text}") == expected


@pytest.mark.parametrize("text", ["as many cups as you like", "as many cups as (2 + 1", "as many cups as 2 + * 3",
                                  "three less than 2 + 4 cups", "", "2 + 2 = 4 = 5"])  # fmt: skip
def test_what_is_no_expression_is_not_understood(text):
    assert isinstance(readings(text), NotUnderstood)


@given(st.text(max_size=60) | st.text("0123456789+-*/%^√()., andof squared", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text):
    readings(text)
