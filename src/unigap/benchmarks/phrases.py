"""What arithmetic and mapping prompts say, whoever phrased them.

Parsing is strict on purpose: a sentence is understood only if every word of it is. A prompt that is refused is listed
as outside the sandbox's world; one that was read wrongly would be asked with another label than its own.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unigap.scenes.vocabulary import find_object


@dataclass(frozen=True)
class NotUnderstood:
    """Why a text could not be read."""

    reason: str


@dataclass(frozen=True)
class MathPhrase:
    """ "Draw as many cups as √16 - 2."."""

    object: str
    """Canonical name."""
    expression: tuple[str, ...]
    """Numbers and symbols, e.g. ("√", "16", "-", "2")."""


@dataclass(frozen=True)
class Rule:
    """A symbol that means another symbol, or an object."""

    left: str
    right: str
    """A symbol as written, or an object: its canonical name, or in an audit the words."""
    names_object: bool


@dataclass(frozen=True)
class MappingPhrase:
    """Rules, and the symbol that is asked about."""

    rules: tuple[Rule, ...]
    query: str


# ---- arithmetic ------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[0-9]+|[A-Za-z]+(?:[-'][A-Za-z]+)*|\S")
_PUNCTUATION = frozenset(".,:;?!\"“”'‘’")

_SYMBOLS = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"} | {symbol: symbol for symbol in "+-*/%^√()"}
_BINARY = frozenset("+-*/%^")

_IN_WORDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("raised", "to", "the", "power", "of"): ("^",),
    ("to", "the", "power", "of"): ("^",),
    ("the", "square", "root", "of"): ("√",),
    ("square", "root", "of"): ("√",),
    ("multiplied", "by"): ("*",),
    ("divided", "by"): ("/",),
    ("squared",): ("^", "2"),
    ("cubed",): ("^", "3"),
    ("plus",): ("+",),
    ("minus",): ("-",),
    ("times",): ("*",),
    ("modulo",): ("%",),
    ("mod",): ("%",),
}
"""Operators in words, longest first. They are read as their symbols, with the precedence that these have."""

_NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
_IN_WORDS |= {(word,): (str(number),) for number, word in enumerate(_NUMERALS)}
_BY_FIRST_WORD = {first: [found for found in _IN_WORDS.items() if found[0][0] == first] for first, *_ in _IN_WORDS}

_FRAME = frozenset(
    "a amount an and are as ask asked asks be by calculated computed count create describe display do does draw equal "
    "equals equivalent evaluates exactly for from generate give gives how image in is it item items make many match "
    "matches matching number numbers object objects of on out outcome outcomes paint photo picture pictures please "
    "produce prompt provide quantity render result results same show shows that the them there these thing things "
    "this to value values what which whose with work yields".split()
)
"""Words that say "draw so many of them", and nothing else."""

_CHANGES = frozenset(
    "absolute add added all almost approximately decrease decreased double down each except fewer floor half increase "
    "increased least less more most negative not pair pairs per remainder round rounded square squares subtract "
    "subtracted take taken term terms then triple twice up where without".split()
)
"""Words that change the number that is asked for; they are never part of an object's name."""


def parse_math(text: str) -> MathPhrase | NotUnderstood:
    """Read a sentence, or a few, with one object and one arithmetic expression, whether it asks to draw or to say."""
    runs: list[list[str]] = [[]]
    leftovers: list[list[str]] = [[]]
    for kind, piece in _math_pieces(_TOKEN.findall(text)):
        if kind == "unknown":
            return NotUnderstood(f"the character {piece!r} is not known")
        for other, groups in (("expression", runs), ("leftover", leftovers)):
            if kind == other:
                groups[-1].append(piece)
            elif groups[-1]:
                groups.append([])
    expressions = [run for run in runs if run]
    name = _only_object([group for group in leftovers if group])
    if isinstance(name, NotUnderstood):
        return name
    if len(expressions) != 1 or not _well_formed(expressions[0]):
        found = " and ".join(repr(" ".join(run)) for run in expressions) or "none"
        return NotUnderstood(f"no single arithmetic expression (found: {found})")
    return MathPhrase(name, tuple(expressions[0]))


def _math_pieces(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    lower = [token.lower() for token in tokens]
    index = 0
    while index < len(tokens):
        for phrase, meaning in _BY_FIRST_WORD.get(lower[index], ()):
            if tuple(lower[index : index + len(phrase)]) == phrase:
                yield from (("expression", piece) for piece in meaning)
                index += len(phrase)
                break
        else:
            token = tokens[index]
            index += 1
            if token.isascii() and token.isdigit():
                yield "expression", token
            elif token in _SYMBOLS:
                yield "expression", _SYMBOLS[token]
            elif token in _PUNCTUATION or token.lower() in _FRAME:
                yield "frame", token.lower()
            elif token[0].isascii() and token[0].isalpha():
                yield "leftover", token.lower()
            else:
                yield "unknown", token


def _only_object(groups: list[list[str]]) -> str | NotUnderstood:
    """The one object among the words that are neither frame nor expression."""
    changes = [" ".join(group) for group in groups if _CHANGES.intersection(group)]
    names = [" ".join(group) for group in groups if not _CHANGES.intersection(group)]
    if not names:
        return NotUnderstood("no object named")
    objects: set[str] = set()
    for name in names:
        found = find_object(name)
        if found is None:
            return NotUnderstood(f'object "{name}" is not in the vocabulary')
        objects.add(found)
    if changes:
        return NotUnderstood(f'the words "{changes[0]}" change what is asked')
    if len(objects) > 1:
        return NotUnderstood(f"several objects named: {', '.join(sorted(objects))}")
    return objects.pop()


def _well_formed(pieces: Sequence[str]) -> bool:
    """Whether operands and operators take turns, at least one operator among them, and parentheses close."""
    depth, need_operand, operators = 0, True, 0
    for piece in pieces:
        if need_operand:
            if piece.isdigit():
                need_operand = False
            elif piece == "(":
                depth += 1
            elif piece == "√":
                operators += 1
            else:
                return False
        elif piece == ")":
            depth -= 1
            if depth < 0:
                return False
        elif piece in _BINARY:
            operators += 1
            need_operand = True
        else:
            return False
    return depth == 0 and not need_operand and operators > 0


# ---- mapping ---------------------------------------------------------------------------------------------------------

_RULE_HEAD = re.compile(r"\s*\bRule\s*[0-9]+\s*:\s*")
_QUERY_HEAD = re.compile(r"\.\s*(?=[A-Z][a-z]+\b)")
_PIECE = re.compile(r"'[^'\s]{1,3}'|\"[^\"\s]{1,3}\"|[0-9]+|[A-Za-z]+|\S")
_NOT_SYMBOLS = frozenset(".,:;'\"")

_KINDS = frozenset(("symbol", "letter", "number", "digit", "character", "hashtag", "sign", "mark"))
_RELATION = frozenset(
    "a an are associated connected connects corresponds defines denotes denoted designated designates equals equates "
    "for goes identifies indicates is leads linked links mapped maps means of onto pertains points redirects "
    "references refers relates represents signifies signs stands symbol symbolises symbolizes the tied to translates "
    "with".split()
)
_REFUSED_IN_QUERY = frozenset(("not", "except", "other", "neither", "without", "unlike", "both", "all", "nor"))


def parse_mapping(text: str) -> MappingPhrase | NotUnderstood:
    """Read "Rule 1: ... Rule n: ..." and the query after them, whether it asks to draw or to say."""
    start, *bodies = _RULE_HEAD.split(text)
    if start.strip() or not bodies:
        return NotUnderstood("no rules, or words before them")
    head = _QUERY_HEAD.search(bodies[-1])
    if head is None:
        return NotUnderstood("no query after the rules")
    bodies[-1], query_text = bodies[-1][: head.start()], bodies[-1][head.end() :]
    rules = []
    for number, body in enumerate(bodies, start=1):
        rule = _parse_rule(_PIECE.findall(body), number)
        if isinstance(rule, NotUnderstood):
            return rule
        rules.append(rule)
    query = _parse_query(_PIECE.findall(query_text))
    return MappingPhrase(tuple(rules), query) if query is not None else NotUnderstood("query not understood")


def _parse_rule(pieces: list[str], number: int) -> Rule | NotUnderstood:
    refused = NotUnderstood(f"rule text not understood: {' '.join(pieces)!r} (rule {number})")
    while len(pieces) > 1 and pieces[-1] == ".":
        pieces = pieces[:-1]
    index = next((i for i in range(min(3, len(pieces))) if pieces[i].lower() not in _KINDS | {"the"}), None)
    if index is None or (left := _symbol(pieces, index)) is None:
        return refused
    rest = pieces[index + 1 :]
    if rest[:1] == ["symbol"]:
        rest = rest[1:]
    if rest[-1:] == ["symbol"] and len(rest) > 2:
        rest = rest[:-1]
    if not rest:
        return refused
    right = _symbol(rest, len(rest) - 1)
    relation = rest[:-1] if right is not None else rest
    split = next((i for i, word in enumerate(relation) if word not in _RELATION | _KINDS), len(relation))
    if right is not None:
        return Rule(left, right, names_object=False) if relation and split == len(relation) else refused
    noun = relation[split:]
    if split == 0 or not noun or not all(word.isalpha() for word in noun):
        return refused
    found = find_object(" ".join(noun))
    if found is None:
        return NotUnderstood(f'object "{" ".join(noun).lower()}" is not in the vocabulary')
    return Rule(left, found, names_object=True)


def _symbol(pieces: Sequence[str], index: int) -> str | None:
    """The piece as a symbol: quoted, a number, a mark, a capital letter, or any letter that is called one."""
    piece = pieces[index]
    if len(piece) > 2 and piece[0] == piece[-1] and piece[0] in "'\"":
        return piece[1:-1]
    if piece.isdigit():
        return piece
    if len(piece) != 1 or piece in _NOT_SYMBOLS:
        return None
    called = index > 0 and pieces[index - 1].lower() in _KINDS
    return piece if called or not piece.isalpha() or piece.isupper() else None


def _parse_query(pieces: list[str]) -> str | None:
    if _REFUSED_IN_QUERY.intersection(piece.lower() for piece in pieces):
        return None
    if pieces[-1:] == ["."]:
        pieces = pieces[:-1]
    symbols = [symbol for index in range(len(pieces)) if (symbol := _symbol(pieces, index)) is not None]
    if len(symbols) == 2 and pieces[-1] == "?":  # the question mark that ends the question
        symbols.pop()
    return symbols[0] if len(symbols) == 1 else None
