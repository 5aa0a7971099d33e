"""Where things are in a picture of nine cells: places by name, relations between cells, compositions drawn and checked.

A is left of B if its column is further left, and by at least as many columns as there are rows between the two; so a
diagonal neighbor is left of it and above it, and what lies more below than beside is only below. Relations hold for
every copy of A and every copy of B.
"""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Final

from unigap.items import Composition, Part
from unigap.scenes.render import Grid
from unigap.scenes.vocabulary import GRID_SIDE, NUM_CELLS, counted, with_article

ROWS: Final = ("top", "middle", "bottom")
COLUMNS: Final = ("left", "center", "right")

CELLS: Final = tuple(
    "center" if (row, column) == ("middle", "center") else f"{row} {column}" for row, column in product(ROWS, COLUMNS)
)
"""Names of the nine cells, row by row: "top left", ..., "center", ..., "bottom right"."""

PLACES: Final[dict[str, tuple[int, ...]]] = (
    {name: (cell,) for cell, name in enumerate(CELLS)}
    | {f"{name} row": tuple(range(row * GRID_SIDE, (row + 1) * GRID_SIDE)) for row, name in enumerate(ROWS)}
    | {f"{name} column": tuple(range(column, NUM_CELLS, GRID_SIDE)) for column, name in enumerate(COLUMNS)}
)
"""Name of a cell, a row or a column -> its cells."""

RELATIONS: Final = ("left of", "right of", "above", "below")
OPPOSITE: Final = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def related(cell: int, relation: str, other: int) -> bool:
    """Whether a cell lies so, seen from the other one."""
    down, right = (b - a for a, b in zip(divmod(other, GRID_SIDE), divmod(cell, GRID_SIDE), strict=True))
    along, across = (right, down) if relation in ("left of", "right of") else (down, right)
    towards = -along if relation in ("left of", "above") else along
    return towards > 0 and towards >= abs(across)


def misplaced(parts: Sequence[Part], cells: Sequence[str | None]) -> str:
    """What lies elsewhere than asked, in words; "" if nothing does. Only places and relations are looked at.

    Raises:
        ValueError: A place that has no name here.
    """
    at: dict[str, list[int]] = {}
    for cell, name in enumerate(cells):
        if name is not None:
            at.setdefault(name, []).append(cell)
    for part in parts:
        found = at.get(part.object, [])
        if part.place:
            if part.place not in PLACES:
                raise ValueError(f"no place is called {part.place!r}; expected one of: {', '.join(PLACES)}")
            there = sum(cell in PLACES[part.place] for cell in found)
            if there < part.n or (there > part.n and not part.at_least):
                return f"{counted(part.object, there)} in the {part.place}"
        if part.to is not None:
            target = parts[part.to].object
            if not all(related(cell, part.relation, other) for cell in found for other in at.get(target, [])):
                return f"{with_article(part.object)} not {part.relation} {with_article(target)}"
    return ""


def wanted_counts(parts: Sequence[Part]) -> dict[str, int]:
    """Object -> how many in all."""
    counts = Counter[str]()
    for part in parts:
        counts[part.object] += part.n
    return dict(counts)


def arrange(composition: Composition, rng: random.Random) -> Grid:
    """A picture that shows a composition and nothing else. Where no two parts may lie in the same cell, every
    arrangement is equally likely; else those are preferred in which the parts overlap.

    Raises:
        ValueError: It does not fit into nine cells, asks for colors or sizes, or contradicts itself.
    """
    parts = composition.parts
    if any(part.color or part.size for part in parts):
        raise ValueError("objects of the sandbox have one color and one size each")
    names = [name for name, n in wanted_counts(parts).items() for _ in range(n)]
    if len(names) > NUM_CELLS:
        raise ValueError(f"a picture holds at most {NUM_CELLS} objects, asked for {len(names)}")
    for _ in range(20_000):
        cells: list[str | None] = [None] * NUM_CELLS
        # Objects of a place are put there at once: drawing all nine cells blindly would rarely hit it.
        for part in parts:
            free = [cell for cell in PLACES.get(part.place, range(NUM_CELLS)) if cells[cell] is None]
            for cell in rng.sample(free, min(part.n, len(free))):
                cells[cell] = part.object
        if sum(name is not None for name in cells) == len(names) and not misplaced(parts, cells):
            return Grid(tuple(cells))
    raise ValueError(f"no picture of nine cells was found that shows {describe(composition)}")


def describe(composition: Composition) -> str:
    """ "a cup in the top left and 2 pens in the bottom row", "a cup to the left of a pen", "at least 1 red bus"."""
    parts = composition.parts
    # A part that says where it is, seen from another, names that one too.
    told = {part.to for part in parts}
    listed = [_describe(part, parts) for index, part in enumerate(parts) if index not in told]
    *first, last = listed
    return f"{', '.join(first)} and {last}" if first else last


def _describe(part: Part, parts: Sequence[Part]) -> str:
    words = part.object if part.n == 1 else counted(part.object, part.n).partition(" ")[2]
    looks = " ".join(filter(None, (part.size, part.color, words)))
    number = "no" if part.n == 0 else str(part.n)
    text = (
        f"at least {number} {looks}" if part.at_least else with_article(looks) if part.n == 1 else f"{number} {looks}"
    )
    if part.place:
        text += f" in the {part.place}"
    if part.to is not None:
        other = _describe(parts[part.to], parts)
        text += f" {f'to the {part.relation}' if part.relation in RELATIONS[:2] else part.relation} {other}"
    return text
