"""The embedded model's tokens: words, numbers, name syllables and picture codes in one vocabulary.

Text is split into words (lower case), whole numbers up to 99, single capital letters (symbols of mapping rules) and
punctuation. A capitalised word that is not in the vocabulary is taken for a name and spelled in syllables, and any
other unknown word letter by letter, so every alphabetic text has tokens and gives the same tokens back after decoding.
"""

import re
from collections.abc import Iterable, Sequence

PAD, BOS, EOS, ANSWER, DRAW, THINK, THOUGHT_END, IMAGE, IMAGE_END, SPELL, LINE = SPECIALS = (
    "<pad>", "<bos>", "<eos>", "<answer>", "<draw>", "<think>", "</think>", "<image>", "</image>", "<spell>", "\n",
)  # fmt: skip

_PIECE = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*|[0-9]+|\n|[^\sA-Za-z0-9]")
_ATTACH_LEFT = frozenset(".,:;)")  # ! and ? are symbols of mapping rules
MAX_NUMBER = 99

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def base_words() -> list[str]:
    """Words that are in every vocabulary, whatever the training text held."""
    numbers = [str(n) for n in range(MAX_NUMBER + 1)]
    capitals = [letter.upper() for letter in _LETTERS]
    return [*SPECIALS, *numbers, *capitals, *("##" + letter for letter in _LETTERS), *"@#$%&*^!?+-/=()√.,:"]


def split_words(text: str) -> list[str]:
    """Words of a text before names and unknown words are spelled: lower case except single capital letters."""
    words = []
    for piece in _PIECE.findall(text):
        if len(piece) == 1 and piece.isupper():
            words.append(piece)
        elif piece.isdigit() and int(piece) > MAX_NUMBER:
            words.extend(piece)
        elif piece.isdigit():
            words.append(str(int(piece)))
        else:
            words.append(piece)
    return words


class Tokenizer:
    """Text to ids and back, over a fixed word list.

    Args:
        words: Every text token, `base_words()` among them. A word "Ka" (capital first) starts a name, "##ka" goes
            on with it.
        num_codes: Size of the picture codebook; picture code c has id `first_code + c`.
    """

    def __init__(self, words: Sequence[str], num_codes: int) -> None:
        if missing := [word for word in base_words() if word not in set(words)]:
            raise ValueError(f"the word list lacks {len(missing)} base words (first: {missing[0]!r})")
        self.words = list(words)
        self.num_codes = num_codes
        self.ids = {word: index for index, word in enumerate(self.words)}
        if len(self.ids) != len(self.words):
            raise ValueError("the word list repeats a word")
        self.first_code = len(self.words)
        self.vocab_size = self.first_code + num_codes

    def __getitem__(self, special: str) -> int:
        return self.ids[special]

    def encode(self, text: str) -> list[int]:
        """Ids of a text. Characters that no token covers are left out; `unread_words` lists them."""
        ids: list[int] = []
        for word in split_words(text):
            ids.extend(self.ids[piece] for piece in self._pieces(word) if piece in self.ids)
        return ids

    def _pieces(self, word: str) -> list[str]:
        lower = word if len(word) == 1 else word.lower()
        if lower in self.ids:
            return [lower]
        if not word.isascii() or not word[0].isalpha():
            return [word]
        if syllables := self._syllables(word):
            return syllables
        return [SPELL, *("##" + letter for letter in word.lower() if letter in _LETTERS)]

    def _syllables(self, word: str) -> list[str]:
        if not word[0].isupper() or len(word) % 2 or len(word) < 4:
            return []
        pairs = [word[i : i + 2] for i in range(0, len(word), 2)]
        pieces = [pairs[0], *("##" + pair.lower() for pair in pairs[1:])]
        return pieces if all(piece in self.ids for piece in pieces) else []

    def unread_words(self, text: str) -> list[str]:
        """Words of the text that have no token of their own and are not names: what the model has never read."""
        found = []
        for word in split_words(text):
            pieces = self._pieces(word)
            if pieces[0] == SPELL or pieces[0] not in self.ids:
                found.append(word)
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; picture codes and special tokens other than line ends are left out."""
        text = ""
        glue = True
        for index in ids:
            word = self.words[index] if index < self.first_code else PAD
            if word == LINE:
                text, glue = text + "\n", True
            elif word == SPELL:
                text, glue = text if glue else text + " ", True
            elif word in SPECIALS:
                continue
            elif word.startswith("##"):
                text, glue = text + word[2:], False
            elif glue or word in _ATTACH_LEFT or text.endswith("("):
                text, glue = text + word, False
            else:
                text += " " + word
        return text

    def codes(self, codes: Iterable[int]) -> list[int]:
        """Ids of picture codes."""
        return [self.first_code + int(code) for code in codes]
