"""Mapping prompts of any wording and chain length: what each rule defines, and where the asked symbol leads.

Unlike `phrases.parse_mapping` this accepts objects outside the sandbox's vocabulary: a label is audited whether or not
the sandbox could draw it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unigap.benchmarks.nouns import same_noun
from unigap.benchmarks.phrases import Rule


@dataclass(frozen=True)
class MappingQuestion:
    """The rules of a question and what it asks."""

    rules: tuple[Rule, ...]
    symbol: str | None
    """None if it asks about none."""
    category: str
    """What the symbol is said to stand for: "object", "fruit"; "" if unsaid."""
    not_understood: tuple[str, ...]
    """Rules that could not be read."""


@dataclass(frozen=True)
class Ending:
    """Where one chain of rules ends."""

    path: tuple[str, ...]
    """The asked symbol, the symbols after it, and the object if there is one."""
    reaches_object: bool
    loops: bool = False

    @property
    def num_rules(self) -> int:
        """Rules applied."""
        return len(self.path) - 1

    def __str__(self) -> str:
        last = "" if self.reaches_object else " -> (back to the start)" if self.loops else " -> (undefined)"
        return " -> ".join(self.path) + last


_HEAD = re.compile(r"\bRule\s*[0-9]+\s*[:.)]\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;]\s*(?=[A-Z][a-z]+\b)")
_PIECE = re.compile(r"'[^'\s]{1,4}'|\"[^\"\s]{1,4}\"|[0-9]+|[A-Za-z]+(?:-[A-Za-z]+)*|\S")
_QUOTES = str.maketrans("‘’“”`", "''\"\"'")
_KINDS = frozenset("symbol letter number digit character hashtag sign mark numeral".split())
_ARTICLES = frozenset(("a", "an", "the"))
_LINKS = frozenset(
    "is are be to for with as of onto by in on into from a an the symbol name used mapped linked tied designated "
    "associated connected defined assigned known shown said equal code".split()
)
_CATEGORY = re.compile(
    r"\b(?:generate|draw|paint|show|produce|create|make|what is|give)\s+(?:the |an |a )?(.+?)\s+"
    r"(?:represented|associated|that|which|denoted|indicated|symbolized|meant|for|linked|of|behind)\b",
    re.IGNORECASE,
)


def read_mapping(text: str) -> MappingQuestion | None:
    """Read "Rule 1: ... Rule n: ..." and the query after them; None if there is no rule."""
    text = text.translate(_QUOTES)
    first = _HEAD.search(text)
    if first is None:
        return None
    bodies = [body for body in _HEAD.split(text[first.start() :]) if body.strip()]
    head = _SENTENCE_END.search(bodies[-1])
    query = bodies[-1][head.end() :] if head else ""
    if head:
        bodies[-1] = bodies[-1][: head.start()]
    rules: list[Rule] = []
    refused: list[str] = []
    for body in bodies:
        found = _read_rule(body)
        rules += found
        if not found:
            refused.append(body.strip())
    category = _CATEGORY.search(query)
    return MappingQuestion(tuple(rules), _asked(query), category[1] if category else "", tuple(refused))


def _read_rule(body: str) -> list[Rule]:
    """The rule, and those that "which means ..." adds to its right side."""
    clauses = re.split(r",?\s+(?:which|that|and it)\s+(?=[a-z]+s\b)", body.strip())
    pieces = _PIECE.findall(clauses[0])
    at = next((i for i in range(min(3, len(pieces))) if not _is_filler(pieces, i)), None)
    if at is None or (left := _symbol(pieces, at)) is None:
        return []
    rules = []
    rest = pieces[at + 1 :]
    for clause in (None, *clauses[1:]):
        rule = _right_side(left, rest if clause is None else _PIECE.findall(clause))
        if rule is None:
            return []
        rules.append(rule)
        left = rule.right
    return rules


def _is_filler(pieces: Sequence[str], at: int) -> bool:
    """Whether a piece before the left symbol is an article or the name of a kind ("The symbol")."""
    word = pieces[at].lower()
    follows = pieces[at + 1].lower() if at + 1 < len(pieces) else ""
    return word in _KINDS or word == "the" or (word in _ARTICLES and follows in _KINDS)


def _right_side(left: str, pieces: list[str]) -> Rule | None:
    while len(pieces) > 1 and pieces[-1] in (".", ",", ";"):
        pieces = pieces[:-1]
    if len(pieces) > 2 and pieces[-1].lower() in _KINDS and _symbol(pieces, len(pieces) - 2) is not None:
        pieces = pieces[:-1]
    if pieces and pieces[0].lower() in _KINDS:  # "Symbol % sign maps to ..." names the kind after the symbol
        pieces = pieces[1:]
    if len(pieces) > 1 and (right := _symbol(pieces, len(pieces) - 1)) is not None:
        return Rule(left, right, names_object=False)
    noun = pieces[1:]  # the first word is the verb, whichever it is
    while len(noun) > 1 and noun[0].lower() in _LINKS:
        noun = noun[1:]
    if not noun or not all(word[0].isalpha() for word in noun):
        return None
    return Rule(left, " ".join(noun), names_object=True)


def _symbol(pieces: Sequence[str], at: int) -> str | None:
    """The piece as a symbol: quoted, a number, a mark, a capital letter, or any letter that is called one."""
    piece = pieces[at]
    if len(piece) > 2 and piece[0] == piece[-1] and piece[0] in "'\"":
        return piece[1:-1]
    if piece.isdigit():
        return piece
    if len(piece) != 1:
        return None
    called = at > 0 and pieces[at - 1].lower() in _KINDS
    if piece.isalpha():
        return piece if called or piece.isupper() or at == 0 else None
    return piece if called or piece not in ".,:;" else None


def _asked(query: str) -> str | None:
    pieces = _PIECE.findall(query)
    if len(pieces) > 1 and pieces[-1] in (".", "?", "!") and pieces[-2].lower() not in _KINDS | {"by"}:
        pieces = pieces[:-1]
    symbols = [symbol for at in range(1, len(pieces)) if (symbol := _symbol(pieces, at)) is not None]
    return symbols[-1] if symbols else None


def endings(question: MappingQuestion) -> list[Ending]:
    """Every end that the asked symbol leads to; several where a symbol on the way is defined more than once."""
    if question.symbol is None:
        return []
    known = {rule.left for rule in question.rules}
    start = question.symbol
    if start not in known:
        # "the letter 'a'" for a rule about A: the only symbol that differs in case alone.
        others = [left for left in known if left.lower() == start.lower()]
        start = others[0] if len(others) == 1 else start
    found: list[Ending] = []
    open_paths: list[tuple[str, ...]] = [(start,)]
    while open_paths:
        path = open_paths.pop()
        rules = list(dict.fromkeys(rule for rule in question.rules if rule.left == path[-1]))
        if not rules:
            found.append(Ending(path, reaches_object=False))
        for rule in rules:
            if rule.names_object:
                found.append(Ending((*path, rule.right), reaches_object=True))
            elif rule.right in path:
                found.append(Ending(path, reaches_object=False, loops=True))
            else:
                open_paths.append((*path, rule.right))
    return found


def defined_twice(question: MappingQuestion) -> list[str]:
    """Symbols with rules that disagree."""
    meanings: dict[str, list[Rule]] = {}
    for rule in question.rules:
        others = meanings.setdefault(rule.left, [])
        if not any(rule == other or (rule.names_object and same_noun(rule.right, other.right)) for other in others):
            others.append(rule)
    return [symbol for symbol, rules in meanings.items() if len(rules) > 1]
