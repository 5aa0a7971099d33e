"""What the pattern of a run means, in plain language, by stated rules.

Each family gets one finding (`_finding`), and families that share it share a sentence, in the order of `SENTENCES`.
Every rule compares intervals, not point estimates, so a small run says "not enough units" instead of a story.
A model that answers at once no better than guessing is said first, because its normal gap then says little.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from unigap.items import Arm, Direction

if TYPE_CHECKING:
    from unigap.report.summary import Cell, FamilySummary, Gap

SOLID = 0.80
"""A skill counts as there when its interval reaches this rate, and as missing when it stays below."""
KNOWN = 0.50
"""Text answers whose whole interval is below this rate show no knowledge worth comparing a drawing with."""
NEAR_CHANCE = 0.10
"""A rate is near chance when it is at most this above it, or its interval holds chance, and it shows no solid skill."""
HELPS = 0.20
"""A thought helps when it adds at least this much and the two intervals do not touch; it is idle when its interval ends
below what that would take."""
SAME = 0.10
"""Directions are equal when the interval of the gap stays within plus and minus this."""


def explain(families: Sequence["FamilySummary"]) -> list[str]:
    """Sentences about a run, the most important first. Empty when nothing was asked."""
    sentences = _guessing_in_text(families)
    for say in SENTENCES:
        found = [family for family in families if _finding(family) is say]
        if found:
            sentences.append(say(found))
    return sentences


def near_chance(cell: "Cell") -> bool:
    """Whether a cell is no better than its family's guessing strategy, as far as this run can tell."""
    if cell.chance is None or cell.high >= SOLID:
        return False
    return cell.rate <= cell.chance + NEAR_CHANCE or cell.low <= cell.chance


def _guessing_in_text(families: Sequence["FamilySummary"]) -> list[str]:
    found = [
        family
        for family in families
        if (cell := family.cell("understanding", "normal"))
        and cell.scored
        and near_chance(cell)
        and not _knows_nothing(family)
    ]
    if not found:
        return []
    advice = "."
    if all(family.cell("understanding", "think") for family in found):
        advice = ": there the normal gap says little; read the think columns."
    rates, chance = _rates(found, "understanding", "normal"), _chance(found)
    return [f"Answering {_names(found)} at once in text is near guessing ({rates}; guessing: {chance}){advice}"]


# ---- the findings, most important first ------------------------------------------------------------------------------


def _cannot_draw(families: Sequence["FamilySummary"]) -> str:
    return (
        f"It cannot reliably draw {_names(families)} even from the true caption "
        f"({_rates(families, 'generation', 'oracle')}), so its other drawings there say little about what it knows."
    )


def _does_not_know(families: Sequence["FamilySummary"]) -> str:
    return (
        f"It cannot answer {_names(families)} in text either: right in "
        f"{_range(_best_text(family).rate for family in families)} at best{_guessing(families)}, "
        "so there is nothing for a drawing to fall short of."
    )


def _reasoning_does_not_reach(families: Sequence["FamilySummary"]) -> str:
    return (
        f"Reasoning does not reach the drawing: with a written thought it draws {_names(families)} at "
        f"{_rates(families, 'generation', 'think')}, without at {_rates(families, 'generation', 'normal')}"
        f"{_guessing(families)}, while it answers {_range(_best_text(family).rate for family in families)} in text."
    )


def _understands_more_in_both(families: Sequence["FamilySummary"]) -> str:
    return (
        f"It understands {_names(families)} better than it draws: a gap of {_gap_range(families)} points, "
        "and a written thought changes little."
    )


def _understands_more(families: Sequence["FamilySummary"]) -> str:
    return f"It understands {_names(families)} better than it draws: a gap of {_gap_range(families)} points."


def _draws_more(families: Sequence["FamilySummary"]) -> str:
    return f"It draws {_names(families)} better than it answers in text: a gap of {_gap_range(families)} points."


def _equal(families: Sequence["FamilySummary"]) -> str:
    rates = _rates(families, "generation", "normal")
    return f"It draws {_names(families)} as well as it answers ({rates} drawn; gap within {100 * SAME:.0f} points)."


def _unclear(families: Sequence["FamilySummary"]) -> str:
    return f"For {_names(families)} there are not enough units to tell the directions apart."


Finding = Callable[[Sequence["FamilySummary"]], str]

SENTENCES: tuple[Finding, ...] = (
    _reasoning_does_not_reach,
    _understands_more_in_both,
    _understands_more,
    _draws_more,
    _cannot_draw,
    _does_not_know,
    _equal,
    _unclear,
)


def _finding(family: "FamilySummary") -> Finding | None:
    """The one finding of a family; None if only one direction was asked."""
    oracle, gap = family.cell("generation", "oracle"), family.gaps.get("normal")
    if not gap or not gap.scored:
        return None
    if oracle and oracle.high < SOLID:
        return _cannot_draw
    if gap.high < -SAME:
        return _draws_more
    if _knows_nothing(family):
        return _does_not_know
    think, normal = family.cell("generation", "think"), family.cell("generation", "normal")
    if think and normal and think.low > normal.high and think.rate - normal.rate >= HELPS:
        return _reasoning_does_not_reach
    return _by_gap(gap, thought_is_idle=bool(think and normal and think.high <= normal.rate + HELPS))


def _by_gap(gap: "Gap", *, thought_is_idle: bool) -> Finding:
    if gap.low >= -SAME and gap.high <= SAME:
        return _equal
    if gap.low > 0:
        return _understands_more_in_both if thought_is_idle else _understands_more
    return _draws_more if gap.high < 0 else _unclear


def _knows_nothing(family: "FamilySummary") -> bool:
    text = _best_text(family)
    return text.high < KNOWN or near_chance(text)


def _best_text(family: "FamilySummary") -> "Cell":
    """The text arm with the highest rate, of those that have one."""
    cells = [cell for (direction, _), cell in family.cells.items() if direction == "understanding" and cell.scored]
    return max(cells, key=lambda cell: cell.rate)


# ---- words -----------------------------------------------------------------------------------------------------------


def _names(families: Sequence["FamilySummary"]) -> str:
    """ "math1-3, mapping1 and plain": runs of numbered families are joined."""
    parts: list[str] = []
    for stem, group in groupby((re.fullmatch(r"(.*?)(\d*)", family.name) for family in families), _stem):
        numbers = [int(match[2]) for match in group if match and match[2]]
        consecutive = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
        if consecutive:
            parts.append(f"{stem}{numbers[0]}-{numbers[-1]}")
        else:
            parts += [f"{stem}{number}" for number in numbers] or [stem]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _stem(match: re.Match[str] | None) -> str:
    return match[1] if match else ""


def _rates(families: Sequence["FamilySummary"], direction: Direction, arm: Arm) -> str:
    return _range(cell.rate for family in families if (cell := family.cell(direction, arm)))


def _range(rates: Iterable[float]) -> str:
    """ "98%", or "95-98%" where families differ."""
    known = [rate for rate in rates if not math.isnan(rate)]
    low, high = f"{min(known):.0%}", f"{max(known):.0%}"
    return high if low == high else f"{low[:-1]}-{high}"


def _gap_range(families: Sequence["FamilySummary"]) -> str:
    gaps = [round(100 * family.gaps["normal"].rate) for family in families]
    low, high = f"{min(gaps):+d}", f"{max(gaps):+d}"
    return high if low == high else f"{low} to {high}"


def _chance(families: Sequence["FamilySummary"]) -> str:
    return _range(chance for family in families if (chance := family.chance[0]) is not None)


def _guessing(families: Sequence["FamilySummary"]) -> str:
    return f" (guessing: {_chance(families)})" if all(family.chance[0] is not None for family in families) else ""
