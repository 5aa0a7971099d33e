"""A second opinion on every label: reads the printed sentences and works them out again.

Nothing here comes from `unigap.scenes`: not its expressions, its templates, its plurals nor its tables. What it shares
with it is the English language, standard precedence (modulo ranks with * and /) and the names of the objects, which
are written down once more.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

NAMES = (
    "apple banana orange strawberry grape rose tulip daisy sunflower cup book cat dog spoon fork notebook pen lamp "
    "chair clock table pencil car bicycle plate laptop phone hat umbrella ball shirt guitar"
).split()
PLURALS = {name + "s": name for name in NAMES if name not in ("strawberry", "daisy")} | {
    "strawberries": "strawberry",
    "daisies": "daisy",
}


class UnreadableError(ValueError):
    """A sentence that does not say one clear thing."""


# ---- arithmetic ------------------------------------------------------------------------------------------------------

SPOKEN = (
    ("the square root of", "√"),
    ("to the power of", "^"),
    ("divided by", "/"),
    ("plus", "+"),
    ("minus", "-"),
    ("times", "*"),
    ("modulo", "%"),
)
_EXPRESSION = re.compile(r"[0-9√(][0-9√()+\-*/%^ ]*")
_TOKEN = re.compile(r"[0-9]+|[√()+\-*/%^]")


@dataclass(frozen=True)
class Sum:
    """What an arithmetic sentence says."""

    object: str
    value: Fraction
    steps: tuple[tuple[str, tuple[Fraction, ...], Fraction], ...]
    """(operator, operands, result) in evaluation order."""


def read_math(sentence: str) -> Sum:
    """The object and the value that a prompt or a question asks for.

    Raises:
        UnreadableError: No or several objects or expressions, or an expression that is not well formed.
    """
    objects = {PLURALS[word] for word in re.findall(r"[a-z]+", sentence.lower()) if word in PLURALS}
    singular = [word for word in re.findall(r"[a-z]+", sentence.lower()) if word in NAMES]
    if len(objects) != 1 or singular:
        raise UnreadableError(f"not one object in the plural: {sentence!r}")
    spoken = any(words in sentence for words, _ in SPOKEN)
    text = sentence
    for words, symbol in SPOKEN:
        text = text.replace(words, symbol)
    found = [match.group().strip() for match in _EXPRESSION.finditer(text)]
    if len(found) != 1:
        raise UnreadableError(f"not one expression but {found}: {sentence!r}")
    parser = Parser(_TOKEN.findall(found[0]))
    value = parser.parse()
    if spoken:
        _check_spoken(parser.tokens, sentence)
    return Sum(objects.pop(), value, tuple(parser.steps))


def _check_spoken(tokens: list[str], sentence: str) -> None:
    """Spoken arithmetic must give the same value however a listener groups it by convention, or be one operation."""
    operators = [token for token in tokens if not token.isdigit()]
    binary = {operator for operator in operators if operator != "√"}
    from_the_left = binary <= {"+", "-"} or binary == {"*"} or len(operators) - operators.count("√") == 1
    if "(" in operators or not from_the_left:
        raise UnreadableError(f"words that could be grouped in two ways: {sentence!r}")
    if "√" in operators[:-1]:
        raise UnreadableError(f"the root could reach over what follows: {sentence!r}")


class Parser:
    """Recursive descent over exact fractions; sums, then products, then powers (from the right), then roots."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.steps: list[tuple[str, tuple[Fraction, ...], Fraction]] = []

    def parse(self) -> Fraction:
        value = self.sum()
        if self.at != len(self.tokens):
            raise UnreadableError(f"stopped at {self.tokens[self.at :]} of {self.tokens}")
        return value

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        if self.at == len(self.tokens):
            raise UnreadableError(f"ends too early: {self.tokens}")
        self.at += 1
        return self.tokens[self.at - 1]

    def sum(self) -> Fraction:
        value = self.product()
        while self.peek() in ("+", "-"):
            operator = self.take()
            value = self.apply(operator, value, self.product())
        return value

    def product(self) -> Fraction:
        value = self.power()
        while self.peek() in ("*", "/", "%"):
            operator = self.take()
            value = self.apply(operator, value, self.power())
        return value

    def power(self) -> Fraction:
        base = self.root()
        if self.peek() == "^":
            self.take()
            return self.apply("^", base, self.power())
        return base

    def root(self) -> Fraction:
        if self.peek() == "√":
            self.take()
            return self.apply("√", self.root())
        token = self.take()
        if token == "(":
            value = self.sum()
            if self.take() != ")":
                raise UnreadableError(f"no closing parenthesis: {self.tokens}")
            return value
        if not token.isdigit():
            raise UnreadableError(f"{token!r} is not a number: {self.tokens}")
        return Fraction(int(token))

    def apply(self, operator: str, *operands: Fraction) -> Fraction:
        result = _work_out(operator, operands)
        self.steps.append((operator, operands, result))
        return result


def _work_out(operator: str, operands: tuple[Fraction, ...]) -> Fraction:
    match operator, operands:
        case "+", (a, b):
            return a + b
        case "-", (a, b):
            return a - b
        case "*", (a, b):
            return a * b
        case "/", (a, b) if b != 0:
            return a / b
        case "%", (a, b) if b > 0:
            return a - b * (a // b)
        case "^", (a, b) if b.denominator == 1 and b >= 0:
            return a ** int(b)
        case "√", (a,):
            for root in range(int(a) + 1):
                if root * root == a:
                    return Fraction(root)
    raise UnreadableError(f"{operator} of {[str(operand) for operand in operands]}")


# ---- mapping ---------------------------------------------------------------------------------------------------------

_RULE = re.compile(r"Rule ([0-9]+): (.+?)\. (?=Rule [0-9]+: |[A-Z])")
_SYMBOL = re.compile(r"(?:^|(?<= ))(?:[Tt]he (?:symbol|letter|number) )?([A-Z]|[0-9]|[@#$%&*^!?])(?=[ .?]|$)")
_MEANING = (
    "means", "represents", "stands for", "refers to", "maps to", "denotes", "signifies", "indicates", "corresponds to",
    "is linked to",
)  # fmt: skip


@dataclass(frozen=True)
class Puzzle:
    """What a mapping sentence says."""

    rules: tuple[tuple[str, str], ...]
    """(symbol, meaning) as written, the meaning an object's name or a symbol."""
    query: str
    chain: tuple[str, ...]
    """From the queried symbol to the object."""


def read_mapping(sentence: str) -> Puzzle:
    """The rules, what is asked, and where the rules lead.

    Raises:
        UnreadableError: A rule or query of another form, a symbol with two meanings, a chain that ends nowhere.
    """
    rules: list[tuple[str, str]] = []
    end = 0
    for match in _RULE.finditer(sentence):
        if match.start() != end or int(match[1]) != len(rules) + 1:
            raise UnreadableError(f"rules out of order: {sentence!r}")
        rules.append(_read_rule(match[2]))
        end = match.end()
    meaning = dict(rules)
    if len(meaning) != len(rules):
        raise UnreadableError(f"a symbol has two meanings: {sentence!r}")
    asked = _SYMBOL.findall(sentence[end:])
    if len(asked) != 1:
        raise UnreadableError(f"not one symbol is asked about, but {asked}: {sentence!r}")
    return Puzzle(tuple(rules), asked[0], _follow(asked[0], meaning))


def _read_rule(text: str) -> tuple[str, str]:
    parts = re.split(rf" (?:{'|'.join(_MEANING)}) ", text)
    if len(parts) != 2:
        raise UnreadableError(f"not a rule: {text!r}")
    left, right = (_SYMBOL.fullmatch(part) for part in parts)
    if left is None:
        raise UnreadableError(f"not a symbol: {parts[0]!r}")
    return left[1], right[1] if right else _read_object(parts[1])


def _read_object(text: str) -> str:
    """ "cup", "a cup", "an apple", "cups": with the right article, or none."""
    article, _, name = text.rpartition(" ")
    if name in NAMES and article in ("", "an" if name[0] in "aeiou" else "a"):
        return name
    if name in PLURALS and article == "":
        return PLURALS[name]
    raise UnreadableError(f"not an object: {text!r}")


def _follow(symbol: str, meaning: Mapping[str, str]) -> tuple[str, ...]:
    chain = [symbol]
    while chain[-1] not in NAMES:
        if chain[-1] not in meaning or meaning[chain[-1]] in chain:
            raise UnreadableError(f"the chain {chain} leads nowhere in {dict(meaning)}")
        chain.append(meaning[chain[-1]])
    return tuple(chain)


# ---- the checks of one unit ------------------------------------------------------------------------------------------


def counted(name: str, n: int) -> str:
    """ "1 cup", "3 cups", by the plurals above."""
    return f"1 {name}" if n == 1 else f"{n} {next(key for key, value in PLURALS.items() if value == name)}"


def complain_about_math(item: Mapping[str, object], *, num_operations: int, largest_result: int) -> str | None:
    """What is wrong with a math item, given as JSON; None if nothing is."""
    readings = []
    for direction in ("question", "prompt"):
        try:
            readings.append(read_math(str(item[direction])))
        except UnreadableError as error:
            return str(error)
    first, second = readings
    if first != second:
        return f"question and prompt differ: {first} and {second}"
    if len(first.steps) != num_operations:
        return f"{len(first.steps)} operations, not {num_operations}"
    for step in first.steps:
        if wrong := _complain_about_step(*step):
            return wrong
    if first.value.denominator != 1 or not 1 <= first.value <= largest_result:
        return f"the result is {first.value}"
    if item["answer"] != {"kind": "count", "object": first.object, "n": int(first.value)}:
        return f"the answer is {item['answer']}, the sentences say {first.value} of {first.object}"
    if item["caption"] != counted(first.object, int(first.value)):
        return f"the caption is {item['caption']!r}"
    return None


def _complain_about_step(operator: str, operands: tuple[Fraction, ...], result: Fraction) -> str | None:
    written = f"{operator} of {[str(operand) for operand in operands]}"
    if result.denominator != 1 or not 0 <= result <= 20:
        return f"{written} gives {result}"
    # No step gives more than 20, so what is larger is a number of the text.
    if any(operand > (81 if operator in "/√" else 20) for operand in operands):
        return f"{written}: too large a number"
    return None


def complain_about_mapping(pair: tuple[Mapping[str, object], ...], *, hops: int) -> str | None:
    """What is wrong with a mapping pair, given as JSON; None if nothing is."""
    if len(pair) != 2:
        return f"{len(pair)} halves"
    puzzles = []
    for item in pair:
        try:
            asked, drawn = read_mapping(str(item["question"])), read_mapping(str(item["prompt"]))
        except UnreadableError as error:
            return str(error)
        if asked != drawn:
            return f"question and prompt differ: {asked} and {drawn}"
        if item["answer"] != {"kind": "object", "object": asked.chain[-1]}:
            return f"the answer is {item['answer']}, the rules lead to {asked.chain[-1]}"
        if item["caption"] != f"1 {asked.chain[-1]}":
            return f"the caption is {item['caption']!r}"
        puzzles.append(asked)
    a, b = puzzles
    if a.rules != b.rules:
        return f"the halves have different rules: {a.rules} and {b.rules}"
    if len(a.rules) != 2 * hops or len(a.chain) != hops + 1 or len(b.chain) != hops + 1:
        return f"{len(a.rules)} rules with chains {a.chain} and {b.chain}, not {hops} hops each"
    if set(a.chain) & set(b.chain):
        return f"the chains {a.chain} and {b.chain} meet"
    if pair[0]["other"] != pair[1]["answer"] or pair[1]["other"] != pair[0]["answer"]:
        return "the tempting answer is not the other half's"
    return None
