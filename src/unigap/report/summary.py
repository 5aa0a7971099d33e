"""Records and verdicts to the numbers of a run: summary.json, and what the table and the page are made from.

    families: F -> understanding | generation -> arm -> CELL, gap -> arm, trained, split, variants

Rates are over units (`unigap.report.scores`); error counts are over answers, because a pair has two. A gap is
understanding minus generation of the same arm on the units scored in both; positive: understands more than it draws.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unigap.arms import CALLS, Question
from unigap.gap.intervals import Interval, difference_interval, rate_interval
from unigap.items import ARMS_OF, DIRECTIONS, Arm, Direction, Item
from unigap.report.findings import explain
from unigap.report.scores import Scores, UnitScore
from unigap.scenes import FAMILIES, Chance, find_family

SCHEMA = 1

UNREADABLE = ("unreadable", "blank")
"""Error codes that say that nothing readable came back, as opposed to a readable wrong answer."""

NORMAL_DRAWING: Question = ("generation", "normal")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One family in one direction and arm."""

    correct: float
    """Sum of unit scores: a whole number unless there are several samples."""
    scored: int
    """Units in the denominator."""
    unscored: int
    """Attempts (units x samples) that the judge could not score. They are not in the denominator."""
    missing: int
    """Attempts without a settled record or a verdict. They are not in the denominator."""
    refused: int
    """Attempts the model refused: wrong in `rate`, left out of `rate_answered`."""
    rate: float
    rate_answered: float
    low: float
    """95% interval of `rate`."""
    high: float
    cluster_adjusted: bool
    """The interval accounts for dependent units or few clusters, and is wider for it."""
    chance: float | None
    chance_strategy: str
    errors: Mapping[str, int]
    """Error code -> answers (not units)."""
    unreadable: float
    """Share of judged answers in which nothing could be read."""

    def to_json(self) -> dict[str, Any]:
        return _without_nan(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Understanding minus generation of one arm, on the units scored in both."""

    rate: float
    low: float
    high: float
    scored: int
    cluster_adjusted: bool

    def to_json(self) -> dict[str, Any]:
        return _without_nan(asdict(self))


@dataclass(frozen=True, kw_only=True)
class FailureSplit:
    """Why normal drawings fail, by the arms of the same unit and sample. The first that applies counts.

    Text is the answer with a thought where that was asked, else the answer at once.
    """

    drawn_right: int
    cannot_draw: int
    """Wrong even from the true caption (oracle)."""
    does_not_know: int
    """Else: wrong in text."""
    reasoning_does_not_reach: int
    """Else: right with the thought in context."""
    thought_disturbs: int
    """Else: right from the thought's last line alone (refined)."""
    unexplained: int
    incomplete: int
    """An arm that decides is unscored or missing."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class FamilySummary:
    """One family, or one variant of it."""

    name: str
    num_units: int
    cells: Mapping[Question, Cell]
    gaps: Mapping[Arm, Gap]
    trained: str
    """What the family's drawing saw in training: "direct", "parts", "never", or "" if the model does not say."""
    split: FailureSplit | None
    """None unless both directions and all arms were asked."""
    variants: tuple["FamilySummary", ...] = ()

    def cell(self, direction: Direction, arm: Arm) -> Cell | None:
        return self.cells.get((direction, arm))

    @property
    def chance(self) -> tuple[float | None, str]:
        for cell in self.cells.values():
            return cell.chance, cell.chance_strategy
        return None, ""

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {direction: {} for direction in DIRECTIONS}
        for (direction, arm), cell in self.cells.items():
            data[direction][arm] = cell.to_json()
        data["gap"] = {arm: gap.to_json() for arm, gap in self.gaps.items()}
        data |= {"units": self.num_units, "trained": self.trained}
        data["split"] = self.split.to_json() if self.split else None
        if self.variants:
            data["variants"] = {variant.name: variant.to_json() for variant in self.variants}
        return data


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The numbers of a run under one judge."""

    run: Mapping[str, Any]
    families: tuple[FamilySummary, ...]

    @property
    def meaning(self) -> list[str]:
        """What the pattern means, in plain language."""
        return explain(self.families)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "run": dict(self.run),
            "meaning": self.meaning,
            "families": {family.name: family.to_json() for family in self.families},
        }


def summarize(scores: Scores, *, run: Mapping[str, Any], trained_on: Mapping[str, str]) -> Summary:
    """The numbers of a run.

    Args:
        scores: What was asked and judged (`unigap.report.scores.collect_scores`).
        run: Goes into the summary as it is.
        trained_on: Family -> "direct", "parts" or "never", from the model's card.
    """
    by_family: dict[str, list[Item]] = {}
    for item in scores.items:
        by_family.setdefault(item.family, []).append(item)
    order = {name: index for index, name in enumerate(FAMILIES)}  # others after them, as they came
    families = tuple(
        summarize_family(name, by_family[name], scores, trained_on.get(name, ""))
        for name in sorted(by_family, key=lambda name: order.get(name, len(order)))
    )
    return Summary(run=run, families=families)


def summarize_family(name: str, items: Sequence[Item], scores: Scores, trained: str) -> FamilySummary:
    """One family with a row for each of its variants, if it has several."""
    by_variant: dict[str, list[Item]] = {}
    for item in items:
        by_variant.setdefault(item.variant, []).append(item)
    variants = ()
    if len(by_variant) > 1:
        variants = tuple(
            _summarize(f"{name}/{variant or 'other'}", name, members, scores, trained)
            for variant, members in sorted(by_variant.items())
        )
    return _summarize(name, name, items, scores, trained, variants)


def _summarize(
    name: str,
    family: str,
    items: Sequence[Item],
    scores: Scores,
    trained: str,
    variants: tuple[FamilySummary, ...] = (),
) -> FamilySummary:
    asked = set(scores.questions(items))
    questions = [question for question in CALLS if question in asked]
    units = {question: scores.units(items, question) for question in questions}
    chance = chance_of(family, items)
    return FamilySummary(
        name=name,
        num_units=len({item.unit for item in items}),
        cells={question: _cell(items, units[question], scores, question, chance) for question in questions},
        gaps={
            arm: gap_of(units["understanding", arm], units["generation", arm])
            for arm in ARMS_OF["understanding"]
            if ("understanding", arm) in units and ("generation", arm) in units
        },
        trained=trained,
        split=split_failures(units),
        variants=variants,
    )


def chance_of(family: str, items: Sequence[Item]) -> Chance | None:
    """What guessing scores, by the family's own strategy; None for families that no table knows."""
    return find_family(family).chance(items) if family in FAMILIES else None


def _cell(
    items: Sequence[Item], units: Sequence[UnitScore], scores: Scores, question: Question, chance: Chance | None
) -> Cell:
    interval = rate_of(units)
    answered = [score for unit in units if (score := unit.score_answered) is not None]
    statuses = Counter(status for unit in units for status in unit.statuses)
    errors = scores.error_counts(items, question)
    judged = scores.num_judged(items, question)
    right = math.fsum(unit.score or 0.0 for unit in units)
    return Cell(
        correct=int(right) if right.is_integer() else right,
        scored=interval.num_units,
        unscored=statuses["unscored"],
        missing=statuses["missing"],
        refused=statuses["refused"],
        rate=interval.rate,
        rate_answered=math.fsum(answered) / len(answered) if answered else math.nan,
        low=interval.low,
        high=interval.high,
        cluster_adjusted=interval.adjusted,
        chance=chance.rate if chance else None,
        chance_strategy=chance.strategy if chance else "",
        errors=dict(errors),
        unreadable=sum(errors[code] for code in UNREADABLE) / judged if judged else math.nan,
    )


def rate_of(units: Sequence[UnitScore]) -> Interval:
    """Mean score of the scored units, with its interval."""
    scored = [(score, unit.cluster) for unit in units if (score := unit.score) is not None]
    return rate_interval([score for score, _ in scored], [cluster for _, cluster in scored])


def gap_of(understanding: Sequence[UnitScore], generation: Sequence[UnitScore]) -> Gap:
    """Understanding minus generation, on the units scored in both."""
    both = [
        (u.score, g.score, u.cluster)
        for u, g in zip(understanding, generation, strict=True)
        if u.score is not None and g.score is not None
    ]
    interval = difference_interval([row[0] for row in both], [row[1] for row in both], [row[2] for row in both])
    return Gap(
        rate=interval.rate,
        low=interval.low,
        high=interval.high,
        scored=interval.num_units,
        cluster_adjusted=interval.adjusted,
    )


def split_failures(units: Mapping[Question, Sequence[UnitScore]]) -> FailureSplit | None:
    """Split the failures of the normal drawing by what the other arms did; see `FailureSplit`."""
    text: Question = ("understanding", "think" if ("understanding", "think") in units else "normal")
    deciding: tuple[Question, ...] = (
        NORMAL_DRAWING,
        ("generation", "oracle"),
        text,
        ("generation", "think"),
        ("generation", "refined"),
    )
    if any(question not in units for question in deciding):
        return None
    causes: Counter[str] = Counter()
    for same_unit in zip(*(units[question] for question in deciding), strict=True):
        for statuses in zip(*(unit.statuses for unit in same_unit), strict=False):
            causes[_cause(statuses)] += 1
    return FailureSplit(**{name: causes[name] for name in FailureSplit.__dataclass_fields__})


def _cause(statuses: tuple[str, ...]) -> str:
    right: list[bool | None] = [
        None if status in ("unscored", "missing") else status == "correct" for status in statuses
    ]
    normal, oracle, text, think, refined = right
    # In order, each question is decisive when its answer is the one on the right.
    for answer, decisive, cause in (
        (normal, True, "drawn_right"),
        (oracle, False, "cannot_draw"),
        (text, False, "does_not_know"),
        (think, True, "reasoning_does_not_reach"),
        (refined, True, "thought_disturbs"),
    ):
        if answer is None:
            return "incomplete"
        if answer is decisive:
            return cause
    return "unexplained"


def _without_nan(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN; a rate of nothing is null."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in data.items()}
