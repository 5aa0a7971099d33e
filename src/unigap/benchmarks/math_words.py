"""The words of an arithmetic sentence as tokens: its expression, and the steps said after it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from unigap.benchmarks.phrases import NotUnderstood


@dataclass(frozen=True)
class Token:
    """One piece of a sentence.

    Kinds: number, name (of a variable), op, open, close, root (its degree), scale ("half of": its factor), pair ("the
    sum of": its operator), and, percent, round, again ("twice"), word. An op's text is its sign; "power" is that of
    "squared", whose exponent ends there.
    """

    kind: str
    text: str
    worded: bool = False


@dataclass(frozen=True)
class Sentence:
    """What a sentence computes, and the words around it."""

    expression: tuple[Token, ...]
    steps: tuple[tuple[Token, ...], ...]
    """Each is applied to the result so far: an operator and its operand, a root, or a rounding."""
    variables: Mapping[str, Fraction]
    each_power: int | None
    """ "where all terms are squared": 2."""
    before: str
    """The words before the expression, which name the object in most sentences."""


_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = {
    word: 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}


def number_word(word: str) -> int | None:
    """ "four" -> 4, "twenty-five" -> 25; None if it is no number."""
    if word in _ONES:
        return _ONES.index(word)
    tens, _, ones = word.partition("-")
    if tens not in _TENS or (ones and ones not in _ONES[1:10]):
        return None
    return _TENS[tens] + (_ONES.index(ones) if ones else 0)


_PHRASES: dict[str, tuple[tuple[str, str], ...]] = {
    "raised to the power of": (("op", "^"),),
    "raised to the power": (("op", "^"),),
    "to the power of": (("op", "^"),),
    "the square root of": (("root", "2"),),
    "square root of": (("root", "2"),),
    "the cube root of": (("root", "3"),),
    "cube root of": (("root", "3"),),
    "the square root": (("root", "2"),),
    "square root": (("root", "2"),),
    "cube root": (("root", "3"),),
    "the sum of": (("pair", "+"),),
    "the product of": (("pair", "*"),),
    "the quotient of": (("pair", "/"),),
    "the difference of": (("pair", "-"),),
    "the difference between": (("pair", "-"),),
    "half of": (("scale", "1/2"),),
    "a third of": (("scale", "1/3"),),
    "double": (("scale", "2"),),
    "triple": (("scale", "3"),),
    "multiplied by": (("op", "*"),),
    "multiply by": (("op", "*"),),
    "divided by": (("op", "/"),),
    "divide by": (("op", "/"),),
    "subtracted from": (("op", "from"),),
    "subtract": (("op", "-"),),
    "added to": (("op", "+"),),
    "add": (("op", "+"),),
    "squared": (("op", "power"), ("number", "2")),
    "cubed": (("op", "power"), ("number", "3")),
    "rounded down": (("round", "down"),),
    "round down": (("round", "down"),),
    "rounded up": (("round", "up"),),
    "round up": (("round", "up"),),
    "rounded to the nearest": (("round", "nearest"),),
    "percent of": (("percent", "%"), ("op", "*")),
    "% of": (("percent", "%"), ("op", "*")),
    "plus": (("op", "+"),),
    "minus": (("op", "-"),),
    "times": (("op", "*"),),
    "modulo": (("op", "%"),),
    "modulus": (("op", "%"),),
    "mod": (("op", "%"),),
    "percent": (("percent", "%"),),
    "twice": (("again", "2"),),
}
_BY_LENGTH = sorted(((tuple(phrase.split()), pieces) for phrase, pieces in _PHRASES.items()), key=lambda p: -len(p[0]))

_SYMBOLS = {
    "+": "+", "＋": "+", "-": "-", "−": "-", "–": "-", "—": "-", "*": "*", "×": "*", "·": "*", "∗": "*", "⋅": "*",
    "/": "/", "÷": "/", "∕": "/", "%": "%", "^": "^", "**": "^",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_ROOTS = {"√": "2", "∛": "3", "∜": "4"}
_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?|[⁰¹²³⁴⁵⁶⁷⁸⁹]+|\*\*|[A-Za-z]+(?:[-'’][A-Za-z]+)*|\S")
_WHERE = re.compile(r"\b(?:where|with|if|for)\s+([A-Za-z])\s*(?:=|is|equals)\s*(-?[0-9]+)", re.IGNORECASE)
_EACH = re.compile(
    r",?\s*\bwhere\s+(?:all|each|every)(?:\s+of)?(?:\s+the)?\s+(?:terms?|numbers?)\s+(?:is|are)\s+(squared|cubed)",
    re.IGNORECASE,
)
_REMAINDER = re.compile(
    r"\b(?:the )?remainder\s+(?:of|when|from|after)\s+(.+?)\s+(?:is\s+)?divided\s+by\b", re.IGNORECASE
)

_CHANGES = frozenset(
    "absolute almost approximately decreased except fewer floor half increased least less log logarithm more most "
    "negative not remainder thrice unlike factorial maximum minimum average mean without".split()
)
"""Words that change the number asked for and that nothing here reads."""

_INSIDE = frozenset(("number", "name", "op", "open", "close", "root", "scale", "pair", "percent"))


def read_sentence(text: str) -> Sentence | NotUnderstood:
    """Split a sentence into the words before its expression, the expression, and later steps."""
    variables = {match[1]: Fraction(match[2]) for match in _WHERE.finditer(text)}
    text = _WHERE.sub(" ", text)
    each = _EACH.search(text)
    text = _REMAINDER.sub(r"\1 mod", _EACH.sub(" ", text))
    tokens = _tokens(text, variables)
    if changed := next((t.text for t in tokens if t.kind == "word" and t.text.lower() in _CHANGES), None):
        return NotUnderstood(f'the word "{changed}" changes what is asked')
    runs = [run for run in _runs(tokens) if _computes(tokens[run[0] : run[1]])]
    if not runs:
        return NotUnderstood("no arithmetic expression")
    start, end = runs[0]
    before = tokens[:start]
    if stray := next((t for t in before if t.kind not in ("word", "and") and not (t.worded and t.text == "1")), None):
        return NotUnderstood(f"{stray.text!r} stands before the expression")
    steps = _steps(tokens[end:])
    if isinstance(steps, NotUnderstood):
        return steps
    return Sentence(
        expression=tuple(tokens[start:end]),
        steps=steps,
        variables=variables,
        each_power=(3 if each[1].lower() == "cubed" else 2) if each else None,
        before=" ".join(token.text for token in before),
    )


def _tokens(text: str, variables: Mapping[str, Fraction]) -> list[Token]:
    pieces = _TOKEN.findall(text)
    lower = [piece.lower() for piece in pieces]
    tokens: list[Token] = []
    at = 0
    while at < len(pieces):
        found = next((p for p in _BY_LENGTH if tuple(lower[at : at + len(p[0])]) == p[0]), None)
        if found is not None:
            tokens += (Token(kind, piece, True) for kind, piece in found[1])
            at += len(found[0])
            continue
        tokens += _token(pieces, at, tokens, variables)
        at += 1
    return tokens


def _token(pieces: Sequence[str], at: int, before: Sequence[Token], variables: Mapping[str, Fraction]) -> list[Token]:
    piece = pieces[at]
    after_value = bool(before) and before[-1].kind in ("number", "name", "close", "percent")
    after = pieces[at + 1] if at + 1 < len(pieces) else ""
    if piece[0].isdigit() and piece.isascii():
        return [Token("number", piece)]
    if piece[0] in "⁰¹²³⁴⁵⁶⁷⁸⁹":
        return [Token("op", "^"), Token("number", piece.translate(_SUPERSCRIPTS))]
    if (number := number_word(piece.lower())) is not None:
        return [Token("number", str(number), True)]
    if piece in variables:
        return [Token("name", piece)]
    if piece in _ROOTS:
        return [Token("root", _ROOTS[piece])]
    if piece in "([{":
        return [*([Token("op", "implicit")] if after_value else []), Token("open", piece)]
    if piece in ")]}":
        return [Token("close", piece)]
    if piece == "%" and after_value and not (after[:1].isalnum() or after in (*_ROOTS, "(", "[", "{")):
        return [Token("percent", piece)]
    if piece in _SYMBOLS:
        return [Token("op", _SYMBOLS[piece])]
    if piece in "xX" and after_value and after[:1].isdigit():
        return [Token("op", "*")]
    return [Token("and" if piece.lower() == "and" else "word", piece)]


def _runs(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """(start, end) of every stretch of tokens an expression can be made of; "and" joins only inside "the sum of"."""
    runs: list[tuple[int, int]] = []
    start: int | None = None
    pairs = 0
    for at, token in enumerate((*tokens, Token("word", ""))):
        inside = token.kind in _INSIDE or (token.kind == "and" and start is not None and pairs > 0)
        if token.kind == "and" and inside and tokens[at + 1 : at + 2] and tokens[at + 1].kind not in _INSIDE:
            inside = False
        if inside:
            start = at if start is None else start
            pairs += (token.kind == "pair") - (token.kind == "and")
        elif start is not None:
            runs.append((start, at))
            start, pairs = None, 0
    return runs


def _computes(tokens: Sequence[Token]) -> bool:
    return any(t.kind in ("number", "name") for t in tokens) and any(
        t.kind in ("op", "root", "scale", "pair") for t in tokens
    )


def _steps(tokens: Sequence[Token]) -> tuple[tuple[Token, ...], ...] | NotUnderstood:
    steps: list[tuple[Token, ...]] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.kind == "op":
            end = at + 1
            while end < len(tokens) and tokens[end].kind in _INSIDE:
                end += 1
            if end == at + 1:
                return NotUnderstood(f"nothing follows {token.text!r}")
            steps.append(tuple(tokens[at:end]))
            at = end
            continue
        if token.kind == "root" and tokens[at + 1 : at + 2] and tokens[at + 1].kind == "again":
            steps.append((token, tokens[at + 1]))
            at += 2
            continue
        if token.kind in ("root", "round"):
            steps.append((token,))
        elif token.kind not in ("word", "and") and not (token.worded and token.text == "1"):
            return NotUnderstood(f"{token.text!r} stands after the expression")
        at += 1
    return tuple(steps)
