"""Answers of a model, unit by unit, counted over repeats of a training and among what a model can draw at all."""

from collections.abc import Iterable, Mapping, Sequence

from unigap.arms import Question
from unigap.gap.repeats import OverRepeats, difference_over_repeats, rate_over_repeats
from unigap.report.comparable import LoadedRun

Answers = Mapping[str, tuple[str, float]]
"""Unit -> its cluster and its score in [0, 1]; units that are not scored are left out."""

MARGIN = 0.10
"""What a change has to stay below to be called none."""


def answers(run: LoadedRun, question: Question, families: Iterable[str] = ()) -> Answers:
    """A run's answers to one question; of all its families if none are named."""
    wanted = set(families)
    items = [item for item in run.scores.items if not wanted or item.family in wanted]
    units = run.scores.units(items, question)
    return {unit.unit: (unit.cluster, unit.score) for unit in units if unit.score is not None}


def drawable(given: Answers, oracle: Answers) -> Answers:
    """The units that the same model draws right from the true caption.

    A model that draws worse gets fewer of them; what is left is about knowing, and finding what is known.
    """
    return {unit: found for unit, found in given.items() if unit in oracle and oracle[unit][1] == 1}


def rate(repeats: Sequence[Answers]) -> OverRepeats:
    """Share that is right."""
    scores = [[score for _, score in one.values()] for one in repeats]
    return rate_over_repeats(scores, [[cluster for cluster, _ in one.values()] for one in repeats])


def change(after: Sequence[Answers], before: Sequence[Answers]) -> OverRepeats:
    """After minus before, repeat by repeat, on the units that both have."""
    common = [sorted(a.keys() & b.keys()) for a, b in zip(after, before, strict=True)]
    first, second = (
        [[one[unit][1] for unit in units] for one, units in zip(side, common, strict=True)] for side in (after, before)
    )
    clusters = [[one[unit][0] for unit in units] for one, units in zip(after, common, strict=True)]
    return difference_over_repeats(first, second, clusters)


def in_a_word(found: OverRepeats) -> str:
    """A change as "yes" (above 0), "no" (below `MARGIN`) or "can't tell", by what both intervals allow, with it."""
    if not found.values:
        return "can't tell, nothing to count"
    word = "yes" if found.low > 0 else "no" if found.high < MARGIN else "can't tell"
    return f"{word}, {100 * found.rate:+.0f} points [{100 * found.low:+.0f}, {100 * found.high:+.0f}]"
