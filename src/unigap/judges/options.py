"""Options of a question: "A: 3 cups. B: 5 cups. ..." at its end, and answers that name one by its letter."""

import re
from collections.abc import Mapping

from unigap.scenes.vocabulary import find_object

_LETTERS = "ABCDEFGH"
_MARKER = re.compile(rf"(?<![A-Za-z0-9])\(?([{_LETTERS}])[:)] *")
_SMALL = re.compile(r"\b((?:option|answer|choice)(?: is)?:? *\(?)([b-h])(?![\w'’])", re.IGNORECASE)


def read_options(question: str) -> dict[str, str]:
    """Letter -> content of the options that a question ends with; {} if it lists none, or letters out of order."""
    markers = list(_MARKER.finditer(question))
    letters = "".join(marker[1] for marker in markers)
    if len(letters) < 2 or not _LETTERS.startswith(letters):
        return {}
    ends = [*(marker.start() for marker in markers[1:]), len(question)]
    return {marker[1]: question[marker.end() : end].strip(" .,;\n") for marker, end in zip(markers, ends)}


def spell_options(text: str, options: Mapping[str, str]) -> str:
    """The text with every letter of an option replaced by its content, so that "B" and "B: 5 cups" both say "5 cups".

    Letters are capitals that stand alone, and small ones that are the whole text ("b)") or follow "option", "answer" or
    "choice". "A" before an object is an article.
    """
    if not options:
        return text
    bare = re.fullmatch(r"\W*([A-Za-z])\W*", text)
    if bare and bare[1].upper() in options:
        return options[bare[1].upper()]
    text = _SMALL.sub(lambda match: match[1] + match[2].upper(), text)
    letter = re.compile(rf"(?<![\w'’])([{''.join(options)}])(?![\w'’])")
    return letter.sub(lambda match: match[1] if _is_article(match, text) else options[match[1]], text)


def _is_article(letter: re.Match[str], text: str) -> bool:
    following = re.match(r" ([A-Za-z]+)(?: ([A-Za-z]+))?", text[letter.end() :])
    return letter[1] == "A" and following is not None and any(word and find_object(word) for word in following.groups())
