"""What outside readers say of a policy while it is trained on a reward, and the alarm when the two part."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import numpy as np
from PIL.Image import Image

from unigap.arms import item_seed
from unigap.errors import TrainingError
from unigap.items import Item
from unigap.judges.protocol import Judge, Submission
from unigap.models.policy import D, Policy
from unigap.models.protocol import Request, Sampling
from unigap.records import Key
from unigap.train.metrics import truncate_log
from unigap.train.rewards import Reward

PARTED_Z = 2.58
"""Standard errors, one per direction: about one false alarm in 40,000 looks if neither had moved."""

LOG = "monitor.jsonl"


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What is read every few steps, on prompts that are never trained on."""

    items: Sequence[Item]
    judges: Sequence[Judge]
    """Outside readers; each can raise the alarm."""


class Watch(Generic[D]):
    """Draws the monitor's prompts, always with the same seeds, and compares with the first time.

    A policy that draws by a flow draws them as it will afterwards, with the model's own sampling: without chance in its
    steps, in as many as it always takes, and with guidance if it has any. Tokens are sampled as in training.

    Args:
        sampling: Of what is rewarded.
        seed: Of the drawings.
        stops: Whether the alarm stops the run.
        folder: Keeps every look in `LOG`.
        begun: Steps of the run so far; what the log says of later ones is dropped.
    """

    def __init__(
        self,
        policy: Policy[D],
        reward: Reward,
        monitor: Monitor,
        sampling: Sampling,
        *,
        seed: int,
        stops: bool,
        folder: Path,
        begun: int,
    ) -> None:
        self._policy, self._reward, self._monitor, self._sampling = policy, reward, monitor, sampling
        self._seed, self._stops, self._path = seed, stops, folder / LOG
        truncate_log(self._path, begun)
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        self._first: dict[str, Any] = json.loads(lines[0])["values"] if lines else {}

    def look(self, step: int) -> dict[str, float]:
        """Mean reward and every judge's rates on the monitor's prompts, which the file keeps drawing by drawing.

        What a judge could not score is left out of its rate, counted, and never a wrong drawing.

        Raises:
            TrainingError: Reward and a judge have parted, and the alarm is to stop.
        """
        items = list(self._monitor.items)
        requests = [Request(content=(item.prompt,), purpose="draw") for item in items]
        seeds = [item_seed(self._seed, Key(item.id, "generation", "normal", 0)) for item in items]
        images = self._draw(requests, seeds)
        submissions = [Submission(item=item, image=image) for item, image in zip(items, images, strict=True)]
        values = {"reward": [_number(value) for value in self._reward.grade(items, images).tolist()]}
        found = {"monitor/reward": _mean(values["reward"])}
        for judge in self._monitor.judges:
            rulings = judge.judge(submissions)
            values[judge.name] = [_RIGHT[ruling.verdict] for ruling in rulings]
            found[f"monitor/{judge.name}"] = _mean(values[judge.name])
            unread = sum(ruling.error in ("blank", "unreadable") for ruling in rulings)
            found[f"monitor/{judge.name} unreadable"] = unread / len(items)
            found[f"monitor/{judge.name} unscored"] = sum(ruling.verdict == "unscored" for ruling in rulings)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **found, "values": values}) + "\n")
        self._first = {**values, **self._first}
        said = [parted(self._first, values, judge.name) for judge in self._monitor.judges]
        if self._stops and any(said):
            raise TrainingError(
                f"stopped at step {step}: {'; '.join(filter(None, said))}. The grader likes what is not better. "
                "Look at the drawings; try a stronger or frozen grader, a higher kl_coef or a lower rate. alarm=warn "
                "goes on all the same."
            )
        return found

    def _draw(self, requests: Sequence[Request], seeds: Sequence[int]) -> list[Image]:
        """
        Raises:
            TrainingError: A drawing is none.
        """
        if self._policy.likelihood == "tokens":
            return [one.image for one in self._policy.sample(requests, sampling=self._sampling, seeds=seeds)]
        model, images = self._policy.model, []
        for start in range(0, len(requests), model.batch_size):
            part = slice(start, start + model.batch_size)
            for output in model.draw(requests[part], sampling=model.sampling, seeds=seeds[part]):
                if output.image is None:
                    raise TrainingError(f"{model.name} cannot draw a watched prompt any more: {output.detail}")
                images.append(output.image)
        return images


_RIGHT = {"correct": 1.0, "incorrect": 0.0, "unscored": None}


def parted(first: dict[str, list[Any]], now: dict[str, list[Any]], judge: str) -> str:
    """What happened if the reward rose and the judge's rate fell, each by more than `PARTED_Z` paired standard errors;
    "" if not."""
    reward_up, reward_z = _paired(first["reward"], now["reward"])
    rate_up, rate_z = _paired(first[judge], now[judge])
    if reward_z > PARTED_Z and rate_z < -PARTED_Z:
        return (
            f"on the monitor's prompts the reward rose by {reward_up:.3g} ({reward_z:.1f} standard errors) while the "
            f"rate of {judge} fell by {-100 * rate_up:.0f} points ({-rate_z:.1f})"
        )
    return ""


def _paired(first: Sequence[float | None], now: Sequence[float | None]) -> tuple[float, float]:
    """Mean difference over what has both, and how many standard errors it is."""
    pairs = [b - a for a, b in zip(first, now, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return 0.0, 0.0
    mean, deviation = float(np.mean(pairs)), float(np.std(pairs, ddof=1))
    return mean, mean / (deviation / math.sqrt(len(pairs))) if deviation else 0.0


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
