"""From verdicts on single answers to scores of units.

A unit is right iff all its items are. With several samples a unit's score is its average over samples, and sample k of
its items belongs together (both halves of a pair must be right in the same sample).

A unit with an unscored item leaves the denominator whole, whatever its other items got: keeping only those already
known to be wrong would make the rate too low. A unit with an item that has no settled record or no verdict is missing,
and leaves it too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from unigap.arms import Question
from unigap.items import Arm, Direction, Item
from unigap.records import Key, Record, Verdict

Status = Literal["correct", "incorrect", "refused", "unscored", "missing"]
"""Of an item, or a unit, in one sample. A refused answer is incorrect, but is counted apart."""

# A unit is as bad as its worst item, in this order: nothing can be said of a unit with a missing half.
_WORST_FIRST: tuple[Status, ...] = ("missing", "unscored", "refused", "incorrect", "correct")


@dataclass(frozen=True)
class UnitScore:
    """How one unit did in one direction and arm, over its samples."""

    unit: str
    cluster: str
    statuses: tuple[Status, ...]
    """One per sample."""

    @property
    def scored(self) -> int:
        return sum(status in ("correct", "incorrect", "refused") for status in self.statuses)

    @property
    def right(self) -> list[bool | None]:
        """Per sample; None where it is unscored or missing."""
        return [None if status in ("unscored", "missing") else status == "correct" for status in self.statuses]

    @property
    def score(self) -> float | None:
        """Share of scored samples that are right; None if none is scored."""
        return self.statuses.count("correct") / self.scored if self.scored else None

    @property
    def score_answered(self) -> float | None:
        """The same over samples that were not refused."""
        answered = self.scored - self.statuses.count("refused")
        return self.statuses.count("correct") / answered if answered else None


def right_answers(units: Sequence[UnitScore], num_samples: int = 0) -> np.ndarray:
    """1 right, 0 wrong, NaN unscored or missing, as (units, samples); at least `num_samples` columns."""
    num_samples = max(num_samples, *(len(unit.statuses) for unit in units)) if units else num_samples
    right_US = np.full((len(units), num_samples), np.nan)
    for row_S, unit in zip(right_US, units, strict=True):
        row_S[: len(unit.statuses)] = [np.nan if right is None else right for right in unit.right]
    return right_US


@dataclass
class Scores:
    """Verdicts of a run by unit. Built once by `collect_scores`, read by `summary`."""

    items: list[Item]
    """Without their texts."""
    errors: dict[tuple[str, Direction, Arm], Counter[str]] = field(default_factory=dict)
    """Of every (item id, direction, arm): how often each error code was given."""
    _statuses: dict[Question, dict[tuple[str, int], Status]] = field(default_factory=dict)
    _num_samples: dict[Question, int] = field(default_factory=dict)

    def questions(self, items: Sequence[Item]) -> list[Question]:
        """The directions and arms in which at least one of these items was asked."""
        return [
            question
            for question, statuses in self._statuses.items()
            if any((item.id, sample) in statuses for item in items for sample in range(self._num_samples[question]))
        ]

    def units(self, items: Iterable[Item], question: Question) -> list[UnitScore]:
        """The units of these items, in order, as answered in one direction and arm."""
        members: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            members[item.unit].append(item)
        return [
            UnitScore(unit, halves[0].cluster, tuple(self._unit_statuses(halves, question)))
            for unit, halves in members.items()
        ]

    def _unit_statuses(self, items: list[Item], question: Question) -> Iterator[Status]:
        statuses = self._statuses.get(question, {})
        for sample in range(self._num_samples.get(question, 1)):
            found = {statuses.get((item.id, sample), "missing") for item in items}
            yield next(status for status in _WORST_FIRST if status in found)

    def error_counts(self, items: Iterable[Item], question: Question) -> Counter[str]:
        """How often each error code was given, per answer (not per unit), most frequent first."""
        total: Counter[str] = Counter()
        for item in items:
            total.update(self.errors.get((item.id, *question), ()))
        return Counter(dict(total.most_common()))

    def num_judged(self, items: Iterable[Item], question: Question) -> int:
        """Answers, not units, that have a verdict which is not unscored."""
        statuses = self._statuses.get(question, {})
        samples = range(self._num_samples.get(question, 1))
        judged = ("correct", "incorrect", "refused")
        return sum(statuses.get((item.id, sample)) in judged for item in items for sample in samples)


def collect_scores(items: Iterable[Item], records: Iterable[Record], verdicts: Iterable[Verdict]) -> Scores:
    """Join items, records and verdicts; records and verdicts of other items are ignored.

    Only the outcome of a record and the word and code of a verdict are kept, so records may be streamed.
    """
    # Only who and what an item is stays in memory; a run's texts may not fit.
    scores = Scores([replace(item, question="", prompt="", caption="", other=None) for item in items])
    known = {item.id for item in scores.items}
    outcomes: dict[Key, str] = {}
    for record in records:
        if record.item_id in known:
            _enter(scores, record.key, "missing")
            outcomes[record.key] = record.outcome
    for verdict in verdicts:
        outcome = outcomes.get(verdict.key, "transport_error")
        if outcome == "transport_error":  # never settled, whatever an earlier judge made of it
            continue
        _enter(scores, verdict.key, "refused" if outcome == "refused" else verdict.verdict)
        if verdict.error:
            code = (verdict.item_id, verdict.direction, verdict.arm)
            scores.errors.setdefault(code, Counter())[verdict.error] += 1
    return scores


def _enter(scores: Scores, key: Key, status: Status) -> None:
    question = (key.direction, key.arm)
    scores._statuses.setdefault(question, {})[key.item_id, key.sample] = status
    scores._num_samples[question] = max(scores._num_samples.get(question, 1), key.sample + 1)
