"""Runs compared with the first of them: every difference, corrected for all that are printed together.

The statistics are those of `unigap.gap.compare`; docs/compare.md says what they mean and assume.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from unigap.arms import CALLS, Question
from unigap.gap.compare import Difference, compare_gaps, compare_rates, holm
from unigap.gap.power import LEVEL, POWER, units_needed
from unigap.items import ARMS_OF, Arm, Direction
from unigap.report.comparable import Aspect, LoadedRun, common_units, differences, refuse_incomparable
from unigap.report.scores import UnitScore

SCHEMA = 1

Asked = Literal[Direction, "gap"]
Outcome = Literal["higher", "lower", "equivalent", "not settled"]


class Contrast(NamedTuple):
    """One difference of two runs."""

    family: str
    asked: Asked
    arm: Arm
    left_out: int
    """Units of both runs that are not scored in both."""
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class UnitsNeeded:
    """Units that would show a difference: one test at `LEVEL`, with probability `POWER`."""

    estimate: int
    """At the discordance seen."""
    low: int
    """At the ends of the 95% interval of the discordance."""
    high: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """One difference, with p-values corrected for everything in the table."""

    contrast: Contrast
    p_holm: float
    p_equivalent_holm: float | None
    units_needed: UnitsNeeded | None

    @property
    def equivalent(self) -> bool:
        """Smaller than the margin, by the corrected p-value; a difference can be found and yet be equivalent."""
        return self.p_equivalent_holm is not None and self.p_equivalent_holm <= LEVEL

    @property
    def outcome(self) -> Outcome:
        """Of the other run, by the corrected p-values at `LEVEL`."""
        if self.p_holm <= LEVEL:
            return "higher" if self.contrast.difference.interval.rate > 0 else "lower"
        return "equivalent" if self.equivalent else "not settled"

    def to_json(self) -> dict[str, Any]:
        found, interval = self.contrast.difference, self.contrast.difference.interval
        data: dict[str, Any] = {
            "family": self.contrast.family,
            "asked": self.contrast.asked,
            "arm": self.contrast.arm,
            "units": interval.num_units,
            "clusters": interval.num_clusters,
            "left_out": self.contrast.left_out,
            "first": found.first,
            "other": found.other,
            "difference": interval.rate,
            "low": interval.low,
            "high": interval.high,
            "method": interval.method,
            "test": found.test,
            "p": found.p,
            "p_holm": self.p_holm,
            "discordance": found.discordance.rate,
            "outcome": self.outcome,
        }
        if (test := found.equivalence) is not None:
            limits = {"low90": test.interval.low, "high90": test.interval.high}
            data["equivalence"] = limits | {"p": test.p, "p_holm": self.p_equivalent_holm, "holds": self.equivalent}
        if self.units_needed is not None:
            data["units_needed"] = vars(self.units_needed)
        return data


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One run against the first."""

    other: LoadedRun
    num_common: int
    """Units with the same items in both."""
    differs: Mapping[Aspect, Sequence[str]]
    """What differs, and was allowed to."""
    not_compared: Sequence[str]
    """What has nothing scored in one of the two."""
    rows: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.other.to_json(),
            "units": len(self.other.units),
            "units_common": self.num_common,
            "differs": {aspect: list(lines) for aspect, lines in self.differs.items()},
            "not_compared": list(self.not_compared),
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True, kw_only=True)
class ComparisonTable:
    """Everything that is printed together, and corrected together."""

    first: LoadedRun
    comparisons: Sequence[Comparison]
    margin: float | None
    power: float | None
    """The difference whose `UnitsNeeded` the rows hold."""

    @property
    def rows(self) -> list[Row]:
        return [row for comparison in self.comparisons for row in comparison.rows]

    def to_json(self) -> dict[str, Any]:
        """As docs/compare.md describes it."""
        power = None if self.power is None else {"difference": self.power, "level": LEVEL, "power": POWER}
        return {
            "schema": SCHEMA,
            "first": self.first.to_json() | {"units": len(self.first.units)},
            "margin": self.margin,
            "power": power,
            "comparisons": [comparison.to_json() for comparison in self.comparisons],
        }


def compare_runs(
    runs: Sequence[LoadedRun],
    *,
    allow: Collection[Aspect] = (),
    margin: float | None = None,
    power: float | None = None,
) -> ComparisonTable:
    """Compare every run with the first, on the units they share, and correct for all comparisons together.

    Args:
        runs: At least two.
        allow: What may differ; with "items", the units with the same items in both are compared.
        margin: Also test whether differences are smaller than this; in (0, 1).
        power: Also say how many units would show a difference of this size; in (0, 1).

    Raises:
        ValueError: Fewer than two runs; a run differs from the first in what is not allowed, or has no unit in common;
            a margin or difference outside (0, 1).
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison needs at least two runs, {len(runs)} named; others are compared with the first")
    first, *others = runs
    differing = [differences(first, other) for other in others]
    refuse_incomparable(first, others, differing, allow)
    pairs = [_compare_pair(first, other, margin) for other in others]
    rows = iter(_corrected([contrast for found, _ in pairs for contrast in found], power))
    comparisons = [
        Comparison(
            other=other,
            num_common=len(common_units(first, other)),
            differs=differs,
            not_compared=not_compared,
            rows=[next(rows) for _ in found],
        )
        for other, differs, (found, not_compared) in zip(others, differing, pairs)
    ]
    return ComparisonTable(first=first, comparisons=comparisons, margin=margin, power=power)


def _corrected(contrasts: Sequence[Contrast], power: float | None) -> list[Row]:
    equivalences = [row.difference.equivalence.p for row in contrasts if row.difference.equivalence]
    # No difference is both zero and beyond the margin, so no more hypotheses than rows can be true together.
    adjusted = holm([row.difference.p for row in contrasts] + equivalences, max_true=len(contrasts))
    same: Sequence[float | None] = adjusted[len(contrasts) :] or [None] * len(contrasts)
    return [
        Row(
            contrast=row,
            p_holm=p_holm,
            p_equivalent_holm=p_same,
            units_needed=None if power is None else _units_needed(row, power),
        )
        for row, p_holm, p_same in zip(contrasts, adjusted, same)
    ]


def _units_needed(row: Contrast, difference: float) -> UnitsNeeded:
    found = row.difference
    size = difference / 2 if row.asked == "gap" else difference
    effect, exact = found.interval.design_effect, found.test == "McNemar exact"
    low, estimate, high = (
        units_needed(discordance, size, design_effect=effect, exact=exact)
        for discordance in (found.discordance.low, found.discordance.rate, found.discordance.high)
    )
    return UnitsNeeded(estimate=estimate, low=low, high=high)


# ---- the differences of two runs -------------------------------------------------------------------------------------


def _compare_pair(first: LoadedRun, other: LoadedRun, margin: float | None) -> tuple[list[Contrast], list[str]]:
    """Every difference, and what cannot be compared."""
    contrasts: list[Contrast] = []
    not_compared: list[str] = []

    def add(family: _Family, asked: Asked, arm: Arm, difference: Difference | None) -> None:
        if difference is None:
            not_compared.append(f"{family.name} {asked} {arm}: no unit is scored in both")
        else:
            left_out = len(family.clusters) - difference.interval.num_units
            contrasts.append(Contrast(family.name, asked, arm, left_out, difference))

    for family in _families(first, other):
        for direction, arm in CALLS:
            asked_in = [run for run, has in zip((first, other), family.answers) if (direction, arm) in has]
            if len(asked_in) == 2:
                a_US, b_US = family.scores((direction, arm))
                add(family, direction, arm, compare_rates(a_US, b_US, family.clusters, margin=margin))
            elif asked_in:
                not_compared.append(f"{family.name} {direction} {arm}: asked in {asked_in[0].path} alone")
        for arm in ARMS_OF["understanding"]:
            if all((direction, arm) in has for direction in ("understanding", "generation") for has in family.answers):
                u_US, v_US, g_US, h_US = family.scores(("understanding", arm), ("generation", arm))
                add(family, "gap", arm, compare_gaps((u_US, g_US), (v_US, h_US), family.clusters, margin=margin))
    return contrasts, not_compared


@dataclass(frozen=True)
class _Family:
    """The common units of a family, in order, as both runs answered them."""

    name: str
    clusters: list[str]
    answers: tuple[dict[Question, list[UnitScore]], dict[Question, list[UnitScore]]] = field(
        default_factory=lambda: ({}, {})
    )

    def scores(self, *questions: Question) -> list[np.ndarray]:
        """For each question (units, samples) of the first run and of the other; NaN where not scored."""
        columns = [has[question] for question in questions for has in self.answers]
        width = max(len(unit.statuses) for units in columns for unit in units)
        return [np.array([_padded(unit, width) for unit in units]) for units in columns]


def _padded(unit: UnitScore, width: int) -> list[float]:
    scores = [math.nan if right is None else float(right) for right in unit.right]
    return scores + [math.nan] * (width - len(scores))


def _families(first: LoadedRun, other: LoadedRun) -> Iterator[_Family]:
    common = common_units(first, other)
    members: list[dict[str, list]] = [{}, {}]
    for run, by_family in zip((first, other), members):
        for item in run.scores.items:
            if (item.family, item.unit) in common:
                by_family.setdefault(item.family, []).append(item)
    for name in members[0]:
        cluster_of = {item.unit: item.cluster for item in members[0][name]}
        family = _Family(name, list(cluster_of.values()))
        for run, by_family, answers in zip((first, other), members, family.answers):
            for question in run.scores.questions(by_family[name]):
                units = {unit.unit: unit for unit in run.scores.units(by_family[name], question)}
                answers[question] = [units[unit] for unit in cluster_of]
        yield family
