"""The value of the expression in a sentence, under every reading that the sentence allows.

Symbols have one reading, the usual precedence: roots and powers, then * / and modulo, then + and -. A sentence with
operators in words may also mean

    left to right      "two plus three times four" = 20
    reaching further   "the square root of nine plus seven" = 4: a worded root, sum or power takes all that follows

and a few symbols are ambiguous by themselves: a^b^c from the left, 6 / 2(1 + 2) with the product first, the remainder
of a negative number. `readings` gives each combination that the sentence has an occasion for.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction

from unigap.benchmarks.math_words import Sentence, Token, read_sentence
from unigap.benchmarks.phrases import NotUnderstood

Value = Fraction | float
"""Exact, or a float where a root is irrational."""

MAX_EXPONENT = 64
MAX_VALUE = 10**12
"""Larger values are no number of things to draw, and cost time to compute."""


class UndefinedError(ArithmeticError):
    """An expression without a value: a division by zero, the root of a negative number, or one too large."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How ambiguous wording is read; all False is the usual precedence."""

    left_to_right: bool = False
    reaching_further: bool = False
    powers_from_the_left: bool = False
    product_without_sign_first: bool = False
    remainder_keeps_sign: bool = False
    difference_either_way: bool = False
    power_of_the_result: bool = False

    def __str__(self) -> str:
        return " and ".join(f.name.replace("_", " ") for f in fields(self) if getattr(self, f.name)) or "precedence"


@dataclass(frozen=True)
class Reading:
    """One way to read a sentence, and the value that it gives."""

    policy: Policy
    value: Value | None
    undefined: str = ""
    """Why there is no value."""

    @property
    def whole(self) -> int | None:
        """The value as an integer; None if it is none."""
        return int(self.value) if isinstance(self.value, Fraction) and self.value.denominator == 1 else None

    def __str__(self) -> str:
        if self.value is None:
            return self.undefined
        return str(self.value) if isinstance(self.value, Fraction) else f"{self.value:.4f}"


def readings(text: str) -> list[Reading] | NotUnderstood:
    """Every reading of a sentence's expression, the usual precedence first; readings of equal value once."""
    sentence = read_sentence(text)
    if isinstance(sentence, NotUnderstood):
        return sentence
    found: dict[str, Reading] = {}
    for policy in _policies(sentence):
        try:
            reading = Reading(policy, _evaluate(sentence, policy))
        except UndefinedError as error:
            reading = Reading(policy, None, str(error))
        except _SyntaxError as error:
            return NotUnderstood(f"no arithmetic expression: {error}")
        found.setdefault(str(reading), reading)
    return list(found.values())


def _policies(sentence: Sentence) -> list[Policy]:
    tokens = [*sentence.expression, *(token for step in sentence.steps for token in step)]
    binary = [token for token in tokens if token.kind == "op"]
    spoken = any(token.worded for token in binary)
    occasions = {
        "left_to_right": spoken and len(binary) > 1,
        "reaching_further": any(t.worded and (t.kind in ("root", "scale", "pair") or t.text == "^") for t in tokens),
        "powers_from_the_left": sum(token.text in ("^", "power") for token in binary) > 1,
        "product_without_sign_first": any(token.text == "implicit" for token in binary),
        "remainder_keeps_sign": any(token.text == "%" for token in binary)
        and any(token.text == "-" for token in binary),
        "difference_either_way": any(token.kind == "pair" and token.text == "-" for token in tokens),
        "power_of_the_result": sentence.each_power is not None,
    }
    options = [name for name, occasion in occasions.items() if occasion]
    subsets = itertools.chain.from_iterable(itertools.combinations(options, n) for n in range(len(options) + 1))
    return [replace(Policy(), **dict.fromkeys(subset, True)) for subset in subsets]


def _evaluate(sentence: Sentence, policy: Policy) -> Value:
    power = sentence.each_power
    parser = _Parser(sentence, policy, each_power=None if policy.power_of_the_result else power)
    value = parser.whole(sentence.expression)
    if policy.power_of_the_result and power is not None:
        value = _power(value, Fraction(power))
    for step in sentence.steps:
        value = parser.step(value, step)
    return _neat(value)


class _SyntaxError(Exception):
    """The tokens are no expression."""


_LEVELS = {"+": 1, "-": 1, "from": 1, "*": 2, "/": 2, "%": 2, "implicit": 2, "^": 4, "power": 4}


class _Parser:
    """Precedence climbing over one list of tokens."""

    def __init__(self, sentence: Sentence, policy: Policy, each_power: int | None) -> None:
        self.variables, self.policy, self.each_power = sentence.variables, policy, each_power
        self.tokens: Sequence[Token] = ()
        self.at = 0

    def whole(self, tokens: Sequence[Token]) -> Value:
        self.tokens, self.at = tokens, 0
        value = self._expression(0)
        if self.at < len(tokens):
            raise _SyntaxError(f"{tokens[self.at].text!r} is not expected there")
        return value

    def step(self, value: Value, tokens: Sequence[Token]) -> Value:
        """A later step ("then add 2") applied to a value."""
        head = tokens[0]
        if head.kind == "round":
            return Fraction(
                {"down": math.floor, "up": math.ceil}.get(head.text, lambda x: math.floor(x + Fraction(1, 2)))(value)
            )
        if head.kind == "root":
            for _ in range(1 + sum(token.kind == "again" for token in tokens[1:])):
                value = _root(value, int(head.text))
            return value
        return self._apply(head.text, value, self.whole(tokens[1:]))

    def _peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _expression(self, lowest: int) -> Value:
        value = self._postfixed(self._operand())
        while (token := self._peek()) is not None and token.kind == "op":
            level = self._level(token)
            if level < lowest:
                break
            self.at += 1
            loose = self.policy.reaching_further and token.worded and token.text == "^"
            rightmost = token.text == "^" and not self.policy.powers_from_the_left and not self.policy.left_to_right
            right = self._expression(0 if loose else level if rightmost else level + 1)
            value = self._postfixed(self._apply(token.text, value, right))
        return value

    def _level(self, token: Token) -> int:
        if token.text == "implicit" and self.policy.product_without_sign_first:
            return 3
        return 1 if self.policy.left_to_right else _LEVELS[token.text]

    def _postfixed(self, value: Value) -> Value:
        while (token := self._peek()) is not None and token.kind == "percent":
            self.at += 1
            value = _neat(value / 100)
        return value

    def _operand(self) -> Value:
        token = self._peek()
        if token is None:
            raise _SyntaxError("it ends where a number is expected")
        self.at += 1
        if token.kind == "number":
            return self._term(Fraction(token.text))
        if token.kind == "name" and token.text in self.variables:
            return self._term(self.variables[token.text])
        if token.kind == "open":
            value = self._expression(0)
            closing = self._peek()
            if closing is None or closing.kind != "close":
                raise _SyntaxError("a parenthesis is not closed")
            self.at += 1
            return value
        if token.kind == "op" and token.text in "+-":
            value = self._expression(3)
            return -value if token.text == "-" else value
        if token.kind in ("root", "scale"):
            value = self._reach(token)
            return _root(value, int(token.text)) if token.kind == "root" else _neat(value * Fraction(token.text))
        if token.kind == "pair":
            return self._pair(token)
        raise _SyntaxError(f"{token.text!r} is not expected there")

    def _term(self, value: Fraction) -> Value:
        return value if self.each_power is None else _power(value, Fraction(self.each_power))

    def _reach(self, token: Token) -> Value:
        return self._expression(0 if self.policy.reaching_further and token.worded else 3)

    def _pair(self, token: Token) -> Value:
        """ "the sum of a and b": what stands before "and" is whole, the rest as far as it reaches."""
        values = [self._expression(0)]
        while (joint := self._peek()) is not None and joint.kind == "and":
            self.at += 1
            values.append(self._reach(token))
        if len(values) < 2:
            raise _SyntaxError("one number where two are expected")
        total = values[0]
        for value in values[1:]:
            total = self._apply(token.text, total, value)
        return -total if token.text == "-" and self.policy.difference_either_way else total

    def _apply(self, operator: str, a: Value, b: Value) -> Value:
        match operator:
            case "+":
                return _neat(a + b)
            case "-":
                return _neat(a - b)
            case "from":
                return _neat(b - a)
            case "*" | "implicit":
                return _neat(a * b)
            case "^" | "power":
                return _power(a, b)
        if b == 0:
            raise UndefinedError("division by zero")
        if operator == "/":
            return _neat(a / b)
        if self.policy.remainder_keeps_sign:
            quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
            return _neat(a - b * quotient)
        return _neat(a % b)


def _neat(value: Value) -> Value:
    """A float that is an integer but for rounding becomes it."""
    if abs(value) > MAX_VALUE:
        raise UndefinedError(f"more than {MAX_VALUE:,}")
    if isinstance(value, float) and abs(value - round(value)) < 1e-9:
        return Fraction(round(value))
    return value


def _power(base: Value, exponent: Value) -> Value:
    if abs(exponent) > MAX_EXPONENT:
        raise UndefinedError(f"an exponent beyond {MAX_EXPONENT}")
    if base == 0 and exponent < 0:
        raise UndefinedError("division by zero")
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        if abs(base) > 1 and abs(exponent) * math.log10(abs(base)) > 24:
            raise UndefinedError(f"more than {MAX_VALUE:,}")
        return _neat(base ** int(exponent))
    if base < 0:
        raise UndefinedError("the root of a negative number")
    return _neat(float(base) ** float(exponent))


def _root(value: Value, degree: int) -> Value:
    if value < 0:
        raise UndefinedError("the root of a negative number")
    if isinstance(value, Fraction):
        top, bottom = round(value.numerator ** (1 / degree)), round(value.denominator ** (1 / degree))
        if (top**degree, bottom**degree) == (value.numerator, value.denominator):
            return Fraction(top, bottom)
    return _neat(float(value) ** (1 / degree))
