"""Choice: a small puzzle with four options, an object or so many of one, each as likely to be right as the others.

The text answer may be an option's letter or its content (`unigap.judges.options`); the drawing shows the content of the
right option and nothing else. Five kinds of puzzle: arithmetic, mapping, the odd one out, the next of a sequence, and
the missing object of a pattern in a picture.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from unigap.items import Answer, Count, Item, Object
from unigap.scenes import Chance, Draft, Fact
from unigap.scenes.mapping import DIGITS, MARKS
from unigap.scenes.math import grow
from unigap.scenes.render import Grid, scene_ref
from unigap.scenes.vocabulary import FLOWERS, FRUITS, GRID_SIDE, NUM_CELLS, OBJECTS, counted, plural, with_article

LETTERS: Final = "ABCD"

SENTENCES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "arithmetic": (
        ("Draw the option with as many {xs} as {e}.", "Which option has as many {xs} as {e}?"),
        (
            "Work out {e}, then draw the option that has this number of {xs}.",
            "Work out {e}. Which option has this number of {xs}?",
        ),
        (
            "In one of four options, the number of {xs} equals {e}. Draw this option.",
            "In one of four options, the number of {xs} equals {e}. Which option is it?",
        ),
    ),
    "mapping": (
        ("{rules} Draw the object that {symbol} leads to.", "{rules} Which object does {symbol} lead to?"),
        (
            "{rules} Follow the rules from {symbol} and draw the object at the end.",
            "{rules} Follow the rules from {symbol}. Which object is at the end?",
        ),
        (
            "Here is a code. {rules} Draw the object that {symbol} finally means.",
            "Here is a code. {rules} Which object does {symbol} finally mean?",
        ),
    ),
    "odd": (
        ("Draw the odd one out.", "Which one is the odd one out?"),
        (
            "Three of four objects belong together. Draw the one that does not belong to them.",
            "Three of four objects belong together. Which one does not belong to them?",
        ),
        (
            "Three of these objects are of the same kind. Draw the one that is not.",
            "Three of these objects are of the same kind. Which one is not?",
        ),
    ),
    "sequence": (
        (
            "A row of pictures shows {terms}. The number always changes by the same amount. Draw the next picture.",
            "A row of pictures shows {terms}. The number always changes by the same amount. Which picture is next?",
        ),
        (
            "Continue this sequence with its equal steps and draw what comes next: {terms}.",
            "Continue this sequence with its equal steps: {terms}. What comes next?",
        ),
        (
            "From picture to picture, the number of {xs} goes {numbers}, by equal steps. Draw the picture after that.",
            "From picture to picture, the number of {xs} goes {numbers}, by equal steps. Which picture is after that?",
        ),
    ),
    "pattern": (
        (
            "The objects in the picture follow a pattern, but one place is empty. Draw only what belongs in it.",
            "The objects in the picture follow a pattern, but one place is empty. What belongs in it?",
        ),
        (
            "One object of the pattern in the picture is missing. Draw it by itself.",
            "One object of the pattern in the picture is missing. Which one is it?",
        ),
        (
            "Look at the pattern of the objects in the picture. Draw just the one that would complete it.",
            "Look at the pattern of the objects in the picture. Which one would complete it?",
        ),
    ),
}  # fmt: skip
"""Kind of puzzle -> (prompt, question) pairs, to which the options are added."""

TABLEWARE: Final = ("cup", "spoon", "fork", "plate")
KINDS: Final = (FRUITS, FLOWERS, TABLEWARE)
"""Objects three of which belong together; anything else does not."""
NEVER_ODD: Final = "ball"
"""Round, like most fruits: among them the banana could be the odd one."""

MEANINGS: Final = ("{} stands for {}.", "{} means {}.", "{} leads to {}.")


@dataclass(frozen=True)
class Puzzle:
    """A puzzle before it is put into words."""

    key: str
    right: str
    """The content of the right option: an object, or counted ones ("3 cups")."""
    wrong: Sequence[str]
    """Three others."""
    answer: Answer
    steps: Sequence[str]
    words: Mapping[str, str] = field(default_factory=dict)
    picture: str | None = None


def _counts(name: str, n: int, rng: random.Random) -> tuple[str, list[str], Count]:
    """The right option and three other numbers near it."""
    near = [other for other in range(max(1, n - 4), min(NUM_CELLS, n + 4) + 1) if other != n]
    return counted(name, n), [counted(name, other) for other in rng.sample(near, 3)], Count(object=name, n=n)


def _arithmetic(rng: random.Random) -> Puzzle:
    name, n = rng.choice(OBJECTS), rng.randint(1, NUM_CELLS)
    expression = grow(n, rng.randint(1, 2), rng)
    written = expression.in_words() if rng.random() < 0.5 else None
    words = {"e": written or expression.text, "xs": plural(name)}
    return Puzzle(expression.text, *_counts(name, n, rng), steps=tuple(expression.steps()), words=words)


def _mapping(rng: random.Random) -> Puzzle:
    objects, digits = rng.sample(OBJECTS, 4), rng.sample(DIGITS, 4)
    marks = rng.sample(MARKS.replace("?", "").replace("!", ""), 2)
    links = [(f"the number {digit}", with_article(name)) for digit, name in zip(digits, objects)]
    links += [(f"the sign {mark}", f"the number {digit}") for mark, digit in zip(marks, rng.sample(digits, 2))]
    asked, through = links[-1]
    name = dict(links)[through].partition(" ")[2]
    rng.shuffle(links)
    meaning = rng.choice(MEANINGS)
    sentences = (meaning.format(left, right) for left, right in links)
    return Puzzle(
        key=f"{name} of {' '.join(sorted(objects))}",
        right=name,
        wrong=[other for other in objects if other != name],
        answer=Object(object=name),
        steps=(f"{asked} means {through}", f"{through} means {name}"),
        words={"rules": " ".join(text[0].upper() + text[1:] for text in sentences), "symbol": asked},
    )


def _odd(rng: random.Random) -> Puzzle:
    kind = rng.choice(KINDS)
    together = rng.sample(kind, 3)
    name = rng.choice([other for other in OBJECTS if other not in (*kind, NEVER_ODD)])
    called = {FRUITS: "fruits", FLOWERS: "flowers", TABLEWARE: "for the table"}[kind]
    return Puzzle(
        key=f"{name} of {' '.join(sorted(together))}",
        right=name,
        wrong=together,
        answer=Object(object=name),
        steps=(f"{', '.join(map(plural, together))}: {called}", f"{plural(name)}: not {called}"),
    )


_SEQUENCES: Final = [
    tuple(range(first, first + 4 * step, step))
    for step in (-2, -1, 1, 2)
    for first in range(1, NUM_CELLS + 1)
    if 1 <= first + 3 * step <= NUM_CELLS
]
"""Four terms with equal steps, the last of which is asked for."""


def _sequence(rng: random.Random) -> Puzzle:
    name, (*shown, n) = rng.choice(OBJECTS), rng.choice(_SEQUENCES)
    terms = [counted(name, term) for term in shown]
    numbers = ", ".join(map(str, shown))
    step = shown[1] - shown[0]
    return Puzzle(
        f"{numbers} {name}",
        *_counts(name, n, rng),
        steps=(f"{shown[2]} {'+' if step > 0 else '-'} {abs(step)} = {n}",),
        words={"terms": ", ".join(terms), "numbers": numbers, "xs": plural(name)},
    )


PATTERNS: Final[Mapping[str, Callable[[int, int], int]]] = {
    "every row has one kind of object": lambda row, column: row,
    "every column has one kind of object": lambda row, column: column,
    "the objects on a diagonal are the same": lambda row, column: (row + column) % 3,
    "the objects on the other diagonal are the same": lambda row, column: (row - column) % 3,
    "two objects take turns": lambda row, column: (row + column) % 2,
    "the first and the last row are the same": lambda row, column: row % 2,
    "the first and the last column are the same": lambda row, column: column % 2,
}
"""What the pattern is -> which of up to three kinds of objects lies in a place."""


def _pattern(rng: random.Random) -> Puzzle:
    said = rng.choice(tuple(PATTERNS))
    objects = rng.sample(OBJECTS, 4)
    cells = [objects[PATTERNS[said](*divmod(cell, GRID_SIDE))] for cell in range(NUM_CELLS)]
    empty = rng.randrange(NUM_CELLS)
    name = cells[empty]
    shown = tuple(None if cell == empty else content for cell, content in enumerate(cells))
    return Puzzle(
        key=" ".join(content or "." for content in shown),
        right=name,
        wrong=[other for other in objects if other != name],
        answer=Object(object=name),
        steps=(said,),
        picture=scene_ref(Grid(shown)),
    )


PUZZLES: Final[Mapping[str, Callable[[random.Random], Puzzle]]] = {
    "arithmetic": _arithmetic,
    "mapping": _mapping,
    "odd": _odd,
    "sequence": _sequence,
    "pattern": _pattern,
}


class Choice:
    """Every kind of puzzle and every letter equally often."""

    name = "choice"
    test_share = 0.2

    def sample(self, rng: random.Random) -> Fact:
        variant = rng.choice(tuple(PUZZLES))
        puzzle = PUZZLES[variant](rng)
        contents = rng.sample([puzzle.right, *puzzle.wrong], len(LETTERS))
        options = " ".join(f"{letter}: {content}." for letter, content in zip(LETTERS, contents))
        letter = LETTERS[contents.index(puzzle.right)]
        prompt, question = rng.choice(SENTENCES[variant])
        caption = puzzle.right if isinstance(puzzle.answer, Count) else counted(puzzle.right, 1)
        pictures = () if puzzle.picture is None else (puzzle.picture,)
        draft = Draft(
            question=f"{question.format(**puzzle.words)} {options}",
            prompt=f"{prompt.format(**puzzle.words)} {options}",
            caption=caption,
            answer=puzzle.answer,
            images=pictures,
            prompt_images=pictures,
            variant=variant,
            thought="\n".join((*puzzle.steps, f"{letter}: {puzzle.right}", f"Draw {caption}.")),
        )
        return Fact(key=f"{variant} {puzzle.key}", drafts=(draft,))

    def chance(self, items: Sequence[Item]) -> Chance:
        return Chance(1 / len(LETTERS), "one of four options at random")


CHOICE = Choice()
