"""Foreign phrasing of arithmetic and mapping prompts, rewritten into the sandbox's own.

The embedded model has read one dialect. Other people's prompts are parsed (unigap.benchmarks.phrases) and said again
in it, so that what is tested is the fact and not the wording. Symbols the model has never read are renamed, each to
one of its own; a text in the sandbox's own words is left as it is.
"""

import re
from collections.abc import Iterable

from unigap.benchmarks.phrases import MappingPhrase, MathPhrase, NotUnderstood, parse_mapping, parse_math
from unigap.benchmarks.sentences import OWN_SYMBOLS, is_own
from unigap.scenes.mapping import DIGITS, LETTERS, MARKS, QUERIES, RULES
from unigap.scenes.math import SENTENCES, VERBS
from unigap.scenes.vocabulary import plural

_RULE = re.compile(r"\bRule\s*[0-9]+\s*:")
_QUESTION = re.compile(r"\b(?:How|What|Which)\b")


def rewrite(text: str) -> str | None:
    """The text in the sandbox's words; the same text if it is in them already; None if it cannot be understood."""
    if is_own(text):
        return text
    question = _QUESTION.search(text) is not None
    phrase = parse_mapping(text) if _RULE.search(text) else parse_math(text)
    match phrase:
        case MathPhrase():
            return say_math(phrase, question=question)
        case MappingPhrase():
            return say_mapping(phrase, question=question)
        case NotUnderstood():
            return None


def say_math(phrase: MathPhrase, *, question: bool) -> str:
    """The sandbox's first sentence about this fact."""
    prompt, asked = SENTENCES[0]
    template = asked if question else prompt.replace("{V}", VERBS[0])
    return template.format(o=plural(phrase.object), e=_spell(phrase.expression))


def _spell(pieces: Iterable[str]) -> str:
    text = " ".join(pieces)
    for tight, symbol in ((r" ?\^ ?", "^"), (r"√ ", "√"), (r"\( ", "("), (r" \)", ")")):
        text = re.sub(tight, symbol, text)
    return text


def say_mapping(phrase: MappingPhrase, *, question: bool) -> str | None:
    """The sandbox's first rule and query about this fact, with symbols that the model has read; None if too many."""
    symbols = [phrase.query]
    for rule in phrase.rules:
        symbols += [rule.left] if rule.names_object else [rule.left, rule.right]
    called = _rename(symbols)
    if called is None:
        return None
    rules = (
        RULES[0].format(called[rule.left], rule.right if rule.names_object else called[rule.right])
        for rule in phrase.rules
    )
    numbered = " ".join(f"Rule {number}: {rule}." for number, rule in enumerate(rules, start=1))
    prompt, asked = QUERIES[0]
    return f"{numbered} {(asked if question else prompt).format(called[phrase.query])}"


def _rename(symbols: Iterable[str]) -> dict[str, str] | None:
    """Each symbol's name in the sandbox: its own where there is one, else the first free one of its kind."""
    wanted = list(dict.fromkeys(symbols))
    own = set(OWN_SYMBOLS)
    if len(wanted) > len(own):
        return None
    called = {symbol: symbol for symbol in wanted if symbol in own}
    for symbol in wanted:
        if symbol in called:
            continue
        kinds = LETTERS + DIGITS + MARKS if symbol.isalpha() else MARKS + DIGITS + LETTERS
        if symbol.isdigit():
            kinds = DIGITS + MARKS + LETTERS
        taken = set(called.values())
        called[symbol] = next(name for name in (*symbol.upper(), *kinds) if name in own and name not in taken)
    return called
