"""Arithmetic: as many of an object as the value of an expression of one, two or three operations.

An expression is grown from its value downwards: the result is drawn first, then an operation and operands that give
it, then one of the operands is grown in the same way. So every step is exact, and within a split the results of a
family are equally likely: the best constant count scores 1/4 (math1, math2) or 1/5 (math3).
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from unigap.items import Count, Item
from unigap.scenes import Chance, Draft, Fact, Split, split_of
from unigap.scenes.vocabulary import OBJECTS, counted, plural

Operator = Literal["+", "-", "*", "/", "%", "^", "√"]

LARGEST_VALUE: Final = 20
"""Largest value of a step."""
LARGEST_LITERAL: Final = 81
"""Largest number written in an expression; past LARGEST_VALUE only before / and under a root."""

_RANK: Final[Mapping[Operator, int]] = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3, "√": 4}
_WORDS: Final[Mapping[Operator, str]] = {
    "+": "plus", "-": "minus", "*": "times", "/": "divided by", "%": "modulo", "^": "to the power of",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expression:
    """A number, or an operator with its operands; √ has only a right one."""

    value: int
    text: str
    """In symbols, with the parentheses that precedence needs and no others: names the expression."""
    operator: Operator | None = None
    left: "Expression | None" = None
    right: "Expression | None" = None

    def steps(self) -> Iterator[str]:
        """The operations in evaluation order, as "9 - 5 = 4"."""
        left, right = self.left, self.right
        if self.operator is None or right is None:
            return
        if left is not None and left.operator is not None:
            yield from left.steps()
        if right.operator is not None:
            yield from right.steps()
        yield single_operation(self.value, self.operator, 0 if left is None else left.value, right.value)

    def with_all_parentheses(self) -> str:
        """In symbols, every operation that is an operand in parentheses, needed or not; roots and powers have none."""
        if self.operator is None or self.operator in "√^" or self.left is None or self.right is None:
            return self.text
        operands = (
            f"({operand.with_all_parentheses()})" if operand.operator and operand.operator not in "√^" else operand.text
            for operand in (self.left, self.right)
        )
        return _write(self.operator, *operands)

    def in_words(self) -> str | None:
        """ "9 minus 5 plus 1"; None where words could be read in two ways.

        Words have no parentheses: a chain is spelled out only if it is read from the left by any convention, that is
        of + and -, or of * alone, and with a root at its end, where nothing can slip under it.
        """
        if self.operator is None:
            return self.text
        left, right = self.left, self.right
        assert right is not None
        if self.operator == "√":
            return f"the square root of {right.text}"
        assert left is not None
        chain = left.operator is None or (left.operator in "+-" and self.operator in "+-") or (
            left.operator == "*" == self.operator
        )  # fmt: skip
        if not chain or right.operator not in (None, "√"):
            return None
        first, last = left.in_words(), right.in_words()
        if first is None or last is None or "root" in first:
            return None
        return f"{first} {_WORDS[self.operator]} {last}"


def _write(operator: Operator, left: str, right: str) -> str:
    match operator:
        case "√":
            return f"√{right}"
        case "^":
            return f"{left}^{right}"
        case _:
            return f"{left} {operator} {right}"


def single_operation(value: int, operator: Operator, left: int, right: int) -> str:
    """ "9 - 5 = 4", as a thought writes it; √ has no left."""
    return f"{_write(operator, str(left), str(right))} = {value}"


def _operation(value: int, operator: Operator, left: Expression, right: Expression) -> Expression:
    """`left operator right`; √ ignores `left`."""
    rank = _RANK[operator]
    if operator == "√":
        return Expression(value, _write(operator, "", right.text), operator, None, right)
    a = f"({left.text})" if left.operator is not None and _RANK[left.operator] < rank else left.text
    # - / % do not regroup, and 2 + (3 - 1) may keep its own order: equal rank on the right has parentheses.
    b = f"({right.text})" if right.operator is not None and _RANK[right.operator] <= rank else right.text
    return Expression(value, _write(operator, a, b), operator, left, right)


_NUMBERS: Final = tuple(Expression(number, str(number)) for number in range(LARGEST_LITERAL + 1))


def _inverses() -> Iterator[tuple[int, Operator, int, int]]:
    """Every (value, operator, left, right) that an expression may hold; √ has left 0."""
    for value in range(1, LARGEST_VALUE + 1):
        for right in range(1, 11):
            if 1 <= value - right <= 10:
                yield value, "+", value - right, right
            if value + right <= LARGEST_VALUE:
                yield value, "-", value + right, right
            if value % right == 0:
                yield value, "*", value // right, right
            if value * right <= (LARGEST_LITERAL if value <= 10 else LARGEST_VALUE):
                yield value, "/", value * right, right
            if right > value:
                for left in range(right + value, LARGEST_VALUE + 1, right):
                    yield value, "%", left, right
        if value <= 9:
            yield value, "√", 0, value * value
    for base in range(1, 6):
        for power in range(5):
            if base**power <= LARGEST_VALUE:
                yield base**power, "^", base, power


OPERATIONS: Final = tuple(_inverses())
"""Every operation of the world, as (value, operator, left, right); √ has left 0."""


def _rows(operators: str) -> list[list[tuple[Operator, list[tuple[int, int]]]]]:
    """value -> [(operator, operand pairs that give the value)] of these operators.

    An operator with more pairs comes up to three times: evenly drawn, 1 * 1 would be a sixth of all that gives 1, by
    number of pairs, modulo would be most of it. Roots, of which a value has one, come twice.
    """
    table: list[dict[Operator, list[tuple[int, int]]]] = [{} for _ in range(LARGEST_VALUE + 1)]
    for value, operator, left, right in OPERATIONS:
        if operator in operators:
            table[value].setdefault(operator, []).append((left, right))
    return [
        [row for row in found.items() for _ in range(2 if row[0] == "√" else min(3, len(row[1])))] for found in table
    ]


_SINGLE: Final = [
    [
        [_operation(value, operator, _NUMBERS[left], _NUMBERS[right]) for left, right in pairs]
        for operator, pairs in rows
    ]
    for value, rows in enumerate(_rows("+-*/%^√"))
]
"""value -> operator, up to three times -> every expression of one operation."""

# Roots and powers only of numbers: √(8 + 1) is a puzzle of notation, not of arithmetic.
_OUTER: Final = _rows("+-*/%")


def grow(value: int, num_operations: int, rng: random.Random) -> Expression:
    """A random expression of a value, 1 to LARGEST_VALUE, with exactly so many operations."""
    pick = rng.random
    if num_operations == 1:
        rows = _SINGLE[value]
        expressions = rows[int(pick() * len(rows))]
        return expressions[int(pick() * len(expressions))]
    rows = _OUTER[value]
    operator, pairs = rows[int(pick() * len(rows))]
    left, right = pairs[int(pick() * len(pairs))]
    inner = num_operations - 1
    in_right = 0 if pick() < 0.6 else 1 + int(pick() * inner)
    if left > LARGEST_VALUE:  # only a number may be that large
        in_right = inner
    return _operation(
        value,
        operator,
        grow(left, inner - in_right, rng) if in_right < inner else _NUMBERS[left],
        grow(right, in_right, rng) if in_right else _NUMBERS[right],
    )


VERBS: Final = ("Draw", "Show", "Create", "Make", "Produce", "Generate")

SENTENCES: Final = (
    ("{V} as many {o} as the result of {e}.", "How many {o} are as many as the result of {e}?"),
    ("{V} as many {o} as {e}.", "How many {o} are as many as {e}?"),
    ("{V} a number of {o} equal to {e}.", "What number of {o} is equal to {e}?"),
    ("{V} {o} whose number equals the result of {e}.", "What number of {o} equals the result of {e}?"),
    ("{V} the number of {o} matching {e}.", "What number of {o} matches {e}?"),
    ("{V} {o} to match the outcome of {e}.", "How many {o} match the outcome of {e}?"),
    ("{V} the same number of {o} as calculated by {e}.", "What number of {o} is calculated by {e}?"),
    ("{V} the same quantity of {o} as {e}.", "What quantity of {o} is the same as {e}?"),
    ("{V} {o}, as many as {e} gives.", "How many {o} does {e} give?"),
    ("{V} the number of {o} that is equal to {e}.", "What number of {o} is {e}?"),
    ("Work out {e} and {v} that many {o}.", "Work out {e}. How many {o} is that?"),
    ("The number of {o} is {e}. {V} them.", "The number of {o} is {e}. How many are there?"),
    ("{V} a picture with {o}, whose number is the value of {e}.", "What number of {o} is the value of {e}?"),
)
"""(prompt, question) pairs: {V} a verb, {o} the plural object, {e} the expression."""

_TEMPLATES: Final = tuple(
    (prompt.replace("{V}", verb).replace("{v}", verb.lower()), question)
    for prompt, question in SENTENCES
    for verb in VERBS
)

IN_WORDS: Final = 0.5
"""Share of the expressions that can be said in words without doubt which are."""
ALL_PARENTHESES: Final = 0.15
"""Share of the expressions in symbols that have parentheses where none are needed."""


class Math:
    """`num_operations` operations with a result between 1 and `largest_result`, every result equally likely."""

    test_share = 0.2

    def __init__(self, num_operations: int, largest_result: int) -> None:
        self.name = f"math{num_operations}"
        self.num_operations, self.largest_result = num_operations, largest_result

    def sample(self, rng: random.Random) -> Fact:
        return self.sample_in("test" if rng.random() < self.test_share else "train", rng)

    def sample_in(self, split: Split, rng: random.Random) -> Fact:
        """A fact of one split. The result is drawn first: filtering finished facts would favor some results."""
        n = 1 + int(rng.random() * self.largest_result)
        expression = grow(n, self.num_operations, rng)
        while split_of(self.name, expression.text, self.test_share) != split:
            expression = grow(n, self.num_operations, rng)
        return Fact(key=expression.text, drafts=(self._draft(expression, rng),))

    def _draft(self, expression: Expression, rng: random.Random) -> Draft:
        name = OBJECTS[int(rng.random() * len(OBJECTS))]
        prompt, question = _TEMPLATES[int(rng.random() * len(_TEMPLATES))]
        written = expression.in_words() if rng.random() < IN_WORDS else None
        if written is None:
            written = expression.with_all_parentheses() if rng.random() < ALL_PARENTHESES else expression.text
        caption = counted(name, expression.value)
        objects = plural(name)
        return Draft(
            question=question.format(o=objects, e=written),
            prompt=prompt.format(o=objects, e=written),
            caption=caption,
            answer=Count(object=name, n=expression.value),
            thought="\n".join((*expression.steps(), f"Draw {caption}.")),
        )

    def chance(self, items: Sequence[Item]) -> Chance:
        """The right object, always as many. Our results are uniform by construction; those of others are counted."""
        rate = 1 / self.largest_result
        if any(not item.source.startswith("sandbox") for item in items):
            counts = Counter(item.answer.n for item in items if isinstance(item.answer, Count))
            rate = max(counts.values(), default=0) / len(items)
        return Chance(rate, "best constant count")


MATH1, MATH2, MATH3 = Math(1, 4), Math(2, 4), Math(3, 5)
