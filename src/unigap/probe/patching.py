"""Patching: with states of an item that has another answer put in, is that answer drawn?

Every drawing of a trial starts from the same seed. The donor's answer is the target; the control puts states of a third
item there, whose answer is not the target, so that what is found is not the mere disturbance (docs/probe.md eq. 5).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unigap.gap.intervals import Interval, difference_interval, rate_interval
from unigap.items import Answer, Count, Item
from unigap.judges.protocol import Judge, Submission
from unigap.models.inspection import Inspector, States, look_at
from unigap.models.protocol import DrawOutput, Request, Sampling
from unigap.probe.facets import cluster_of


@dataclass(frozen=True)
class Trial:
    """Three items, by index."""

    receiver: int
    donor: int
    """Its answer is the target; the receiver's is another."""
    control: int
    """Its answer is not the target."""


def choose_trials(items: Sequence[Item], num_trials: int, *, seed: int = 0) -> list[Trial]:
    """Trials with different receivers, as many as there are up to `num_trials`.

    Of counts, all three items ask for the same object, so that the number alone differs. The donor of half a mapping
    pair is the other half: the same rules, another symbol asked. Otherwise any item of the variant may be drawn.
    """
    rng = random.Random(seed)
    order = list(range(len(items)))
    rng.shuffle(order)
    trials = []
    for receiver in order:
        own = items[receiver]
        alike = [row for row in order if row != receiver and _alike(own, items[row])]
        donors = [row for row in alike if own.other is None or items[row].unit == own.unit]
        donors = [row for row in donors if _target(items[row]) != _target(own)]
        if not donors:
            continue
        donor = rng.choice(donors)
        target = _target(items[donor])
        # In the control's rules the target may not even be named, or some of what it draws would be the target.
        controls = [row for row in alike if items[row].unit != own.unit and target not in _named(items[row])]
        if controls:
            trials.append(Trial(receiver, donor, rng.choice(controls)))
        if len(trials) == num_trials:
            break
    return trials


def _alike(one: Item, other: Item) -> bool:
    if isinstance(one.answer, Count) and isinstance(other.answer, Count):
        return one.answer.object == other.answer.object
    return one.variant == other.variant and one.answer.kind == other.answer.kind


def _target(item: Item) -> Answer:
    return item.answer


def _named(item: Item) -> list[Answer]:
    return [item.answer, *([] if item.other is None else [item.other])]


@dataclass(frozen=True, kw_only=True)
class Patched:
    """What putting states at some positions did."""

    kind: str
    positions: tuple[str, ...]
    follows: Interval
    """The donor's answer is drawn."""
    control: Interval
    """It is drawn with states of the third item instead."""
    difference: Interval
    """`follows` minus `control`, paired by trial."""
    untouched: Interval
    """It is drawn with the receiver's own states."""
    donor: Interval
    """It is drawn for the donor's own request, from the same seed: no more can be expected to follow."""
    keeps: Interval
    """The receiver's answer is drawn although the donor's states are there."""
    unscored: int
    """Trials that the judge failed at; they count nowhere."""


class Bench:
    """Puts states of one model's requests into each other, and judges what is drawn."""

    def __init__(
        self,
        inspector: Inspector,
        judge: Judge,
        items: Sequence[Item],
        requests: Sequence[Request],
        seeds: Sequence[int],
        trials: Sequence[Trial],
        sampling: Sampling,
    ) -> None:
        self.inspector, self.judge, self.items, self.trials = inspector, judge, items, trials
        self.sampling = sampling
        self.requests = [requests[trial.receiver] for trial in trials]
        self.seeds = [seeds[trial.receiver] for trial in trials]
        self.clusters = [cluster_of(items[trial.receiver]) for trial in trials]
        self.targets = [self._asked(trial.receiver, trial.donor) for trial in trials]
        self.untouched = self._right(self._draw(self.requests, None))
        self.donor = self._right(self._draw([requests[trial.donor] for trial in trials], None))

    def put(self, states: States) -> Patched:
        """Put states of all items, text or queries, of the positions to be replaced.

        Raises:
            ValueError: No trial is left that the judge can rule on.
        """
        donors, controls = (
            self._draw(self.requests, states.rows([getattr(trial, who) for trial in self.trials]))
            for who in ("donor", "control")
        )
        own = [self._asked(trial.receiver, trial.receiver) for trial in self.trials]
        columns = [self._right(donors), self._right(controls), self.untouched, self.donor, self._right(donors, own)]
        scored = [row for row in range(len(self.trials)) if all(column[row] is not None for column in columns)]
        if not scored:
            raise ValueError(f"none of {len(self.trials)} trials could be judged")
        clusters = [self.clusters[row] for row in scored]
        rates = [[float(column[row] or 0) for row in scored] for column in columns]
        follows, control, untouched, donor, keeps = (rate_interval(rate, clusters) for rate in rates)
        return Patched(
            kind=states.kind,
            positions=states.positions,
            follows=follows,
            control=control,
            difference=difference_interval(rates[0], rates[1], clusters),
            untouched=untouched,
            donor=donor,
            keeps=keeps,
            unscored=len(self.trials) - len(scored),
        )

    def _asked(self, receiver: int, donor: int) -> Item:
        """The receiver, as if it asked for the donor's answer."""
        other = self.items[donor]
        return replace(self.items[receiver], answer=other.answer, caption=other.caption, other=None)

    def _draw(self, requests: Sequence[Request], put: States | None) -> list[DrawOutput]:
        return look_at(self.inspector, requests, sampling=self.sampling, seeds=self.seeds, put=put).drawings

    def _right(self, drawings: Sequence[DrawOutput], asked: Sequence[Item] | None = None) -> list[bool | None]:
        return judge_drawings(self.judge, self.targets if asked is None else asked, drawings)


def judge_drawings(judge: Judge, items: Sequence[Item], drawings: Sequence[DrawOutput]) -> list[bool | None]:
    """Whether each drawing is right; False without a picture, None where the judge failed."""
    drawn = [row for row, drawing in enumerate(drawings) if drawing.image is not None]
    found: list[bool | None] = [False] * len(drawings)
    for start in range(0, len(drawn), judge.batch_size):
        rows = drawn[start : start + judge.batch_size]
        rulings = judge.judge([Submission(item=items[row], image=drawings[row].image) for row in rows])
        for row, ruling in zip(rows, rulings, strict=True):
            found[row] = None if ruling.verdict == "unscored" else ruling.verdict == "correct"
    return found
