"""From run folders to single quantities with intervals, for claims (`unigap.report.reproduction`).

The statistics are those of `unigap.gap`; here units are read, paired and put into words.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from unigap.arms import Question
from unigap.gap.compare import compare_gaps
from unigap.gap.intervals import Interval, difference_interval, rate_interval
from unigap.gap.outcomes import Outcomes
from unigap.gap.published import published_scores
from unigap.gap.score import gap_score
from unigap.items import DIRECTIONS, Item
from unigap.records import RunFolder
from unigap.report.comparable import load_run
from unigap.report.estimate import both_directions
from unigap.report.four_rates import four_rates
from unigap.report.reproduction import Estimate
from unigap.scenes import find_family
from unigap.train.before_after import Cell

JUDGE = "exact"

Units = Mapping[tuple[str, str], tuple[float, str]]
"""(family, unit) -> share of its samples that are right, and its cluster."""


def read_units(folder: Path, question: Question, families: Iterable[str], variants: Sequence[str] = ()) -> Units:
    """The scored units of a run; of some variants alone, if any are named."""
    scores = load_run(folder, JUDGE).scores
    clusters = {item.unit: cluster_of(item) for item in RunFolder.open(folder).items()}
    found: dict[tuple[str, str], tuple[float, str]] = {}
    for family in families:
        items = [i for i in scores.items if i.family == family and (not variants or i.variant in variants)]
        for unit in scores.units(items, question):
            if unit.score is not None:
                found[family, unit.unit] = (unit.score, clusters[unit.unit])
    return found


def cluster_of(item: Item) -> str:
    """Of arithmetic, prompts with the same numbers in the same order go together: there are few expressions."""
    if re.fullmatch("math[123]", item.family):
        return f"{item.family}/{' '.join(re.findall('[0-9]+', item.prompt))}"
    return item.cluster


def minus(other: Units, first: Units, names: tuple[str, str]) -> Estimate:
    """`other` minus `first`, paired by unit; `names` are those of first and other."""
    keys = sorted(other.keys() & first.keys())
    others, firsts = [other[key][0] for key in keys], [first[key][0] for key in keys]
    found = difference_interval(others, firsts, [first[key][1] for key in keys])
    rates = zip(names, (mean(firsts), mean(others)), strict=True)
    return shifted(found, 0.0, ", ".join(f"{name} {rate:.0%}" for name, rate in rates))


def change(now: Cell, was: Cell, names: tuple[str, str] = ("before", "after")) -> Estimate:
    """The same of knowledge: paired by item, over characters."""
    return shifted(now.minus(was), 0.0, f"{names[0]} {was.interval().rate:.0%}, {names[1]} {now.interval().rate:.0%}")


def over_guessing(folder: Path, question: Question, families: Sequence[str]) -> Estimate:
    """Rate minus what the best strategy without the skill gets."""
    units = read_units(folder, question, families)
    items = list(RunFolder.open(folder).items())
    chance = {name: find_family(name).chance([i for i in items if i.family == name]).rate for name in families}
    guessed = mean([chance[family] for family, _ in units])
    found = rate_interval([score for score, _ in units.values()], [cluster for _, cluster in units.values()])
    return shifted(found, -guessed, f"right {found.rate:.0%}, guessing {guessed:.0%}")


def inverse_minus_forward(inverse: Cell, forward: Cell) -> Estimate:
    """Other items of the same characters: the mean of each pair of characters is compared with its own."""
    pair_of: dict[str, str] = {}
    right: dict[str, dict[str, list[float]]] = {"forward": {}, "inverse": {}}
    for item, error in zip(inverse.items, inverse.errors, strict=True):
        pair = item.cluster.removeprefix("inverse/")
        pair_of |= dict.fromkeys(pair.split(), pair)
        right["inverse"].setdefault(pair, []).append(error is None)
    for item, error in zip(forward.items, forward.errors, strict=True):
        right["forward"].setdefault(pair_of[item.cluster.removeprefix("forward/")], []).append(error is None)
    pairs = sorted(right["inverse"])
    means = {kind: [mean(found[pair]) for pair in pairs] for kind, found in right.items()}
    num_averaged = max(len(found) for found in right["inverse"].values())
    found = difference_interval(means["inverse"], means["forward"], pairs, num_samples=num_averaged)
    return shifted(found, 0.0, ", ".join(f"{kind} {mean(values):.0%}" for kind, values in means.items()))


def gain_minus_gain(weak: tuple[Units, Units], further: tuple[Units, Units]) -> Estimate:
    """What a weak start gains minus what a further one does; each is (before, after) on the same units."""
    keys = sorted(set.intersection(*(set(units) for units in (*weak, *further))))
    (weak_was, weak_now), (far_was, far_now) = (
        [np.array([[units[key][0]] for key in keys]) for units in pair] for pair in (weak, further)
    )
    found = compare_gaps((far_now, far_was), (weak_now, weak_was), [weak[0][key][1] for key in keys])
    if found is None:
        raise ValueError("the runs share no unit that all of them have scored")
    pairs = {"weak start": (weak_was, weak_now), "further start": (far_was, far_now)}
    words = (f"{name} {was.mean():.0%} to {now.mean():.0%}" for name, (was, now) in pairs.items())
    return shifted(found.interval, 0.0, ", ".join(words))


def logit_gap(folder: Path) -> Estimate:
    """The gap at once in logits over all families of a run together; the published score beside it, by category."""
    run = load_run(folder, JUDGE)
    units_D = [run.scores.units(run.scores.items, (direction, "normal")) for direction in DIRECTIONS]
    outcomes = Outcomes(
        models=(run.identity.model.name,),
        units=tuple(unit.unit for unit in units_D[0]),
        clusters=tuple(unit.cluster for unit in units_D[0]),
        right=both_directions(units_D)[None],
    )
    (gap,) = gap_score(outcomes, missing="drop").gaps
    rates_C4 = np.array([row.rates for row in four_rates(RunFolder.open(folder), JUDGE, by="category")])
    published = published_scores({gap.model: rates_C4})[gap.model].mean
    flags = f" (ill-conditioned in {' and '.join(published.flags)})" if published.flags else ""
    return Estimate(
        value=gap.logit.logit,
        low=gap.logit.low,
        high=gap.logit.high,
        num_units=gap.rate.num_units,
        num_clusters=gap.logit.num_clusters,
        detail=f"text {gap.understanding.rate:.0%}, drawing {gap.generation.rate:.0%}; Gap Score as published "
        f"{100 * published.value:.0f}{flags}",
    )


def shifted(found: Interval, by: float, detail: str) -> Estimate:
    """An interval as an estimate, moved by a constant."""
    return Estimate(
        value=found.rate + by,
        low=found.low + by,
        high=found.high + by,
        num_units=found.num_units,
        num_clusters=found.num_clusters,
        detail=detail,
    )


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
