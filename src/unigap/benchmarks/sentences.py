"""The sandbox's own sentences, recognised: which question goes with a prompt, and whether a text is in its words."""

import re
from collections.abc import Iterator
from functools import cache

from unigap.scenes.knowledge import CAST, FORWARD_SENTENCES, INVERSE_SENTENCES, LAB
from unigap.scenes.mapping import DIGITS, LETTERS, MARKS, QUERIES, RULES
from unigap.scenes.math import SENTENCES, VERBS
from unigap.scenes.vocabulary import FLOWERS, FRUITS, OBJECTS, plural, with_article

OWN_SYMBOLS = MARKS + DIGITS + LETTERS

_VERBS = "|".join((*VERBS, *(verb.lower() for verb in VERBS)))
_EXPRESSION = "(?:[0-9]+|[√ ()+*/%^-]|plus|minus|times|divided by|modulo|to the power of|the square root of)+"
_MARK = rf"(?:[Tt]he symbol |[Tt]he number |[Tt]he letter )?[{re.escape(OWN_SYMBOLS)}]"
_FORMS = "|".join(
    sorted((form for name in OBJECTS for form in (name, plural(name), with_article(name))), key=len, reverse=True)
)
_NAMES = "|".join(person.name for person in CAST)
_PLACES = {
    "V": _VERBS, "v": _VERBS, "o": "|".join(plural(name) for name in OBJECTS), "e": _EXPRESSION, "": _MARK,
    "name": _NAMES, "a": _NAMES, "b": _NAMES, "lab": re.escape(LAB), "kind": "fruit|flower",
    "favorite": "|".join(FRUITS + FLOWERS),
}  # fmt: skip
"""Placeholder -> what may stand there."""


def _pattern(template: str, *, named: bool) -> str:
    """A template as a regular expression; with `named`, a placeholder is a group of its name ("{}" of "mark")."""
    pieces, seen = [], set()
    for piece in re.split(r"(\{\w*\})", template):
        name = piece[1:-1]
        if piece[:1] != "{":
            pieces.append(re.escape(piece))
        elif not named:
            pieces.append(f"(?:{_PLACES[name]})")
        elif name in seen:
            pieces.append(f"(?P={name or 'mark'})")
        else:
            pieces.append(f"(?P<{name or 'mark'}>{_PLACES[name]})")
            seen.add(name)
    return "".join(pieces)


@cache
def _rules() -> str:
    sides = (template.format(_MARK, f"(?:{_MARK}|{_FORMS})") for template in RULES)
    return rf"(?P<rules>(?:Rule [0-9]+: (?:{'|'.join(sides)})\. )+)"


def _pairs() -> Iterator[tuple[str, str, str]]:
    """(what comes before, prompt template, question template) of every sentence."""
    yield from (("", *pair) for pair in SENTENCES)
    yield from ((_rules(), *pair) for pair in QUERIES)
    yield from (("", *pair) for sentences in FORWARD_SENTENCES.values() for pair in sentences)
    yield from (("", *pair) for pair in INVERSE_SENTENCES)


@cache
def _prompts() -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(before + _pattern(prompt, named=True)), question) for before, prompt, question in _pairs()]


@cache
def _any() -> re.Pattern[str]:
    """Any prompt or question; one expression without group names, as it is tried on every text a model reads."""
    texts: dict[str, list[str]] = {}
    for before, prompt, question in _pairs():
        texts.setdefault(before, []).extend(_pattern(text, named=False) for text in (prompt, question))
    return re.compile("|".join(f"{before}(?:{'|'.join(group)})" for before, group in texts.items()))


def paired_question(prompt: str) -> str | None:
    """The question that the sandbox asks with this prompt; None if the prompt is not one of its own."""
    for pattern, question in _prompts():
        if match := pattern.fullmatch(prompt):
            words = match.groupdict()
            return words.pop("rules", "") + question.format(words.pop("mark", ""), **words)
    return None


def is_own(text: str) -> bool:
    """Whether a text is a prompt or question of the sandbox's own."""
    return _any().fullmatch(text) is not None
