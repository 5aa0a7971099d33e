"""Can a reward tell right drawings from wrong ones of the same prompt? What to know before any training (`--check`).

Within a prompt, over all pairs of a right and a wrong drawing (by a reader that is trusted),

    AUC = share of pairs in which the right one has the higher reward, ties counting one half             (7)

pairs of all prompts pooled: 1 is a perfect grader, .5 is chance, and below it the reward teaches the wrong thing. Apart
for each kind of mistake, because a policy learns exactly what its grader can see. Intervals resample prompts.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image
from rich.console import Console
from rich.table import Table

from unigap.gap.bootstrap import resample_counts
from unigap.items import Item
from unigap.judges.protocol import Judge, Submission
from unigap.train.rewards import Reward

NUM_RESAMPLES = 2000
EVERY = "all"


@dataclass(frozen=True, kw_only=True)
class Auc:
    """(7) for one kind of prompt and one kind of mistake."""

    kind: str
    """Family and variant of the prompts, or `EVERY`."""
    error: str
    """Code of the mistake (`unigap.judges.exact`), or `EVERY`."""
    auc: float
    """NaN without pairs."""
    low: float
    """Of the 95% interval; NaN with fewer than two prompts that have pairs."""
    high: float
    num_pairs: int
    num_prompts: int
    """That have at least one pair."""


@dataclass(frozen=True, kw_only=True)
class RewardCheck:
    """What a reward says of a policy's drawings."""

    reward: str
    rates: dict[str, float]
    """Share of right drawings by kind of prompt."""
    errors: dict[str, Counter[str]]
    """Mistakes by kind of prompt."""
    num_drawings: int
    num_ungraded: int
    """Drawings without a reward or a verdict; they are in no pair."""
    aucs: tuple[Auc, ...]

    def to_json(self) -> dict[str, Any]:
        aucs = [{name: None if value != value else value for name, value in vars(auc).items()} for auc in self.aucs]
        return {**vars(self), "aucs": aucs}


def check_reward(
    reward: Reward, reader: Judge, items: Sequence[Item], images: Sequence[Sequence[Image]], *, seed: int = 0
) -> RewardCheck:
    """Measure a reward on drawings of several prompts.

    Args:
        reward: What is to be trusted in training.
        reader: Who knows what is right.
        items: One a prompt.
        images: The drawings of each prompt.
        seed: Of the resamples.
    """
    owners = [index for index, group in enumerate(images) for _ in group]
    items_N, images_N = [items[index] for index in owners], [image for group in images for image in group]
    rewards_N = reward.grade(items_N, images_N)
    rulings = reader.judge([Submission(item=i, image=image) for i, image in zip(items_N, images_N, strict=True)])
    graded: dict[int, list[tuple[float, str]]] = defaultdict(list)
    errors: dict[str, Counter[str]] = defaultdict(Counter)
    num_ungraded = 0
    for owner, value, ruling in zip(owners, rewards_N.tolist(), rulings, strict=True):
        if value != value or ruling.verdict == "unscored":
            num_ungraded += 1
            continue
        error = ruling.error or ""
        graded[owner].append((value, error))
        errors[kind_of(items[owner])][error] += 1
    kinds = sorted({kind_of(item) for item in items})
    names = [EVERY, *sorted({error for counts in errors.values() for error in counts if error})]
    aucs = [
        _auc(kind, error, [group for owner, group in graded.items() if kind in (EVERY, kind_of(items[owner]))], seed)
        for kind in ([EVERY, *kinds] if len(kinds) > 1 else kinds)
        for error in names
    ]
    rates = {kind: errors[kind][""] / max(1, errors[kind].total()) for kind in kinds}
    return RewardCheck(
        reward=reward.name,
        rates=rates,
        errors={kind: Counter({e: n for e, n in errors[kind].items() if e}) for kind in kinds},
        num_drawings=len(owners),
        num_ungraded=num_ungraded,
        aucs=tuple(auc for auc in aucs if auc.num_pairs or auc.error == EVERY),
    )


def kind_of(item: Item) -> str:
    return f"{item.family} {item.variant}".strip()


def _auc(kind: str, error: str, groups: Sequence[Sequence[tuple[float, str]]], seed: int) -> Auc:
    wins, pairs = [], []
    for group in groups:
        right = np.array([value for value, mistake in group if not mistake])
        wrong = np.array([value for value, mistake in group if mistake and error in (EVERY, mistake)])
        if len(right) and len(wrong):
            ahead = right[:, None] - wrong
            wins.append((ahead > 0).sum() + (ahead == 0).sum() / 2)
            pairs.append(ahead.size)
    found = {"kind": kind, "error": error, "num_pairs": sum(pairs), "num_prompts": len(pairs)}
    if not pairs:
        return Auc(auc=np.nan, low=np.nan, high=np.nan, **found)
    low = high = np.nan
    if len(pairs) > 1:
        counts_RG = resample_counts(len(pairs), NUM_RESAMPLES, seed)
        low, high = np.quantile((counts_RG @ np.array(wins)) / (counts_RG @ np.array(pairs)), (0.025, 0.975))
    return Auc(auc=float(sum(wins) / sum(pairs)), low=float(low), high=float(high), **found)


def print_check(check: RewardCheck, console: Console) -> None:
    """The table, and what it means."""
    kinds = list(dict.fromkeys(auc.kind for auc in check.aucs))
    errors = list(dict.fromkeys(auc.error for auc in check.aucs))
    table = Table(title=f"AUC within a prompt: {check.reward}", title_justify="left")
    table.add_column("prompts")
    table.add_column("right", justify="right")
    for error in errors:
        table.add_column("all mistakes" if error == EVERY else error, justify="right")
    by_place = {(auc.kind, auc.error): auc for auc in check.aucs}
    for kind in kinds:
        rate = f"{check.rates[kind]:.0%}" if kind in check.rates else ""
        table.add_row(kind, rate, *(_cell(by_place.get((kind, error))) for error in errors))
    console.print(table)
    lines = [
        f"{check.num_drawings} drawings, {check.num_ungraded} without a grade. Below each AUC its 95% interval and the "
        "pairs of a right and a wrong drawing it is of."
    ]
    lines += [
        f"{auc.kind}: the reward does not tell {'mistakes' if auc.error == EVERY else auc.error} from what is right "
        f"(AUC {auc.auc:.2f} [{auc.low:.2f}, {auc.high:.2f}]); training on it will not mend them."
        for auc in check.aucs
        if auc.low <= 0.5
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _cell(auc: Auc | None) -> str:
    if auc is None or not auc.num_pairs:
        return "-"
    limits = f"{auc.low:.2f}-{auc.high:.2f}" if auc.low == auc.low else "one prompt"
    return f"{auc.auc:.2f}\n{limits}\n{auc.num_pairs:,}"
