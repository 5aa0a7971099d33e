"""Arithmetic: as many of an object as the value of an expression of one, two or three operations.

An expression is grown from its value downwards: the result is drawn first, then an operation and operands that give
it, then one of the operands is expanded in the same way. So every step is exact, no sample is thrown away, and the
results of a family are equally likely: the best constant count scores 1/4 (math1, math2) or 1/5 (math3).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from unigap.items import Count, Item
from unigap.scenes import Chance, Draft, Fact
from unigap.scenes.vocabulary import OBJECTS, counted, plural

Operator = Literal["+", "-", "*", "/", "%", "^", "√"]

LARGEST_VALUE: Final = 20
"""Largest value of an intermediate step."""
LARGEST_LITERAL: Final = 81
"""Largest number written in an expression; past LARGEST_VALUE only before / and %, and under a root."""

_RANK: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3, "√": 4}


@dataclass(frozen=True, slots=True)
class Expression:
    """A number, or an operator with operands; √ has only a right one."""

    value: int
    operator: Operator | None = None
    left: "Expression | None" = None
    right: "Expression | None" = None

    def __str__(self) -> str:
        """Symbols, with the parentheses that precedence needs."""
        if self.operator is None:
            return str(self.value)
        rank = _RANK[self.operator]
        assert self.right is not None
        if self.left is None:
            return f"√{self._inside(self.right, rank)}"
        # - / % and ^ do not regroup: an operand of equal rank on the right keeps its parentheses.
        right = self._inside(self.right, rank + 1)
        left = self._inside(self.left, rank + (self.operator == "^"))
        return f"{left}^{right}" if self.operator == "^" else f"{left} {self.operator} {right}"

    @staticmethod
    def _inside(operand: "Expression", rank: int) -> str:
        text = str(operand)
        return text if operand.operator is None or _RANK[operand.operator] >= rank else f"({text})"

    def steps(self) -> Iterator[str]:
        """The operations in evaluation order, as "9 - 5 = 4"."""
        for operand in (self.left, self.right):
            if operand is not None:
                yield from operand.steps()
        if self.operator is not None:
            assert self.right is not None
            match self.operator:
                case "√":
                    yield f"√{self.right.value} = {self.value}"
                case "^":
                    yield f"{self.left.value}^{self.right.value} = {self.value}"  # type: ignore[union-attr]
                case _:
                    yield f"{self.left.value} {self.operator} {self.right.value} = {self.value}"  # type: ignore[union-attr]


_WORDS: Final = {"+": "plus", "-": "minus", "*": "times", "/": "divided by", "%": "modulo", "^": "to the power of"}


def in_words(expression: Expression) -> str | None:
    """ "9 minus 5 plus 1", or None where words alone would be ambiguous (parentheses, a root before more, * beside +)."""
    if expression.operator is None:
        return str(expression.value)
    if expression.operator == "√":
        right = expression.right
        return f"the square root of {right.value}" if right is not None and right.operator is None else None
    left, right = expression.left, expression.right
    assert left is not None and right is not None
    if right.operator not in (None, "√") or left.operator not in (None, "√"):
        if right.operator is not None or _RANK[left.operator] != _RANK[expression.operator] or expression.operator == "^":
            return None
    parts = in_words(left), in_words(right)
    if parts[0] is None or parts[1] is None or "square root" in parts[0]:  # "the square root of 4 plus 9" is two things
        return None
    return f"{parts[0]} {_WORDS[expression.operator]} {parts[1]}"


def _inverses() -> dict[int, list[tuple[Operator, int, int]]]:
    """value -> every (operator, left, right) that gives it; √ has left 0."""
    table: dict[int, list[tuple[Operator, int, int]]] = {value: [] for value in range(LARGEST_VALUE + 1)}

    def add(value: int, operator: Operator, left: int, right: int) -> None:
        if 0 <= value <= LARGEST_VALUE:
            table[value].append((operator, left, right))

    for right in range(1, 10):
        for left in range(1, LARGEST_VALUE + 1):
            if left < 10:
                add(left + right, "+", left, right)
                add(left * right, "*", left, right)
            add(left - right, "-", left, right)
            if right > 1 and left >= right:
                add(left % right, "%", left, right)
        for quotient in range(1, 10):
            if right > 1 or quotient < 10:
                add(quotient, "/", quotient * right, right)
        add(right, "√", 0, right * right)
    for base, power in ((1, 2), (2, 2), (3, 2), (4, 2), (2, 3), (1, 3), (2, 4)):
        add(base**power, "^", base, power)
    return table


_INVERSES: Final = _inverses()
_BY_OPERATOR: Final = {
    value: {
        operator: [(left, right) for op, left, right in rows if op == operator] for operator in {row[0] for row in rows}
    }
    for value, rows in _INVERSES.items()
}
_OPERATORS: Final[dict[int, list[Operator]]] = {value: sorted(found) for value, found in _BY_OPERATOR.items()}


def grow(value: int, num_operations: int, rng: random.Random) -> Expression:
    """A random expression of a value with exactly so many operations."""
    if num_operations == 0:
        return Expression(value)
    if num_operations == 1:
        operator = rng.choice(_OPERATORS[value])
    else:  # roots and powers are leaves: √(8 + 1) is a puzzle of notation, not of arithmetic
        operator = rng.choice([found for found in _OPERATORS[value] if found not in "√^"])
    left, right = rng.choice(_BY_OPERATOR[value][operator])
    in_right = 0 if left <= LARGEST_VALUE and rng.random() < 0.7 else rng.randint(0, num_operations - 1)
    if left > LARGEST_VALUE:
        in_right = num_operations - 1
    return Expression(
        value,
        operator,
        None if operator == "√" else grow(left, num_operations - 1 - in_right, rng),
        grow(right, in_right, rng),
    )


SENTENCES: Final = (
    ("Draw as many {0} as the result of {1}.", "How many {0} are as many as the result of {1}?"),
    ("Show the number of {0} that equals {1}.", "What number of {0} equals {1}?"),
    ("Create the same number of {0} as {1}.", "What is the same number of {0} as {1}?"),
    ("Make a picture with {1} {0}.", "How many {0} are {1} {0}?"),
    ("Produce a number of {0} equal to {1}.", "What number of {0} is equal to {1}?"),
    ("Generate {0}, as many as {1}.", "How many {0} are as many as {1}?"),
    ("The number of {0} is {1}. Draw them.", "The number of {0} is {1}. How many are there?"),
    ("Work out {1} and draw that many {0}.", "Work out {1}. How many {0} are that many?"),
    ("Provide as many {0} as {1} gives.", "How many {0} does {1} give?"),
    ("Draw the {0} that match the outcome of {1}.", "How many {0} match the outcome of {1}?"),
)
"""(prompt, question) pairs; {0} is the plural object, {1} the expression."""


class Math:
    """`num_operations` operations with a result between 1 and `largest_result`, every result equally likely."""

    test_share = 0.2

    def __init__(self, num_operations: int, largest_result: int) -> None:
        self.name = f"math{num_operations}"
        self.num_operations, self.largest_result = num_operations, largest_result

    def sample(self, rng: random.Random) -> Fact:
        n = rng.randint(1, self.largest_result)
        expression = grow(n, self.num_operations, rng)
        symbols = str(expression)
        written = (in_words(expression) if rng.random() < 0.4 else None) or symbols
        name = rng.choice(OBJECTS)
        prompt, question = rng.choice(SENTENCES)
        caption = counted(name, n)
        draft = Draft(
            question=question.format(plural(name), written),
            prompt=prompt.format(plural(name), written),
            caption=caption,
            answer=Count(object=name, n=n),
            thought="\n".join((*expression.steps(), f"Draw {caption}.")),
        )
        return Fact(key=symbols, drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        """The right object, always in the same number: results are uniform by construction."""
        return Chance(1 / self.largest_result, "best constant count")


MATH1, MATH2, MATH3 = Math(1, 4), Math(2, 4), Math(3, 5)
