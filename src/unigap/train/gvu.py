"""GvU: a model's own understanding rewards its drawings (arXiv 2603.06043), and an outside check on that.

Each step draws a group of pictures for every prompt, lets a grader say how well it could have guessed the prompt from
each (`unigap.train.rewards`), and moves the policy towards the better ones of each group (`unigap.train.grpo`). No
answer is ever shown to it. Every few steps the same fresh prompts are drawn again and read by rule; when the reward
goes up while what is drawn gets worse, the run stops and says so.
"""

import copy
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unigap.arms import item_seed
from unigap.disk import hash64, write_files
from unigap.environment import describe_environment
from unigap.errors import TrainingError, UnknownNameError
from unigap.items import Item
from unigap.judges.protocol import Judge, Submission
from unigap.models.policy import D, Drawing, Policy
from unigap.models.protocol import Request, Sampling
from unigap.progress import show_progress
from unigap.records import Key
from unigap.train.checkpoint import load_checkpoint, save_checkpoint, write_folder
from unigap.train.grpo import Normalization, PolicyLoss, center_by_group, leave_one_out, policy_loss
from unigap.train.metrics import Track, open_metrics, read_log, truncate_log
from unigap.train.optimizers import Optimizers, rate_factor
from unigap.train.rewards import Reward

# P prompts of a step, G drawings of each, N = P x G, T drawn tokens, M drawings of the monitor

Advantage = Literal["centered", "standardized", "leave_one_out"]
Alarm = Literal["stop", "warn"]


@dataclass(frozen=True, kw_only=True)
class GvuConfig:
    """How the policy is moved. What is drawn and who grades are arguments of `train_gvu`."""

    steps: int = 200
    """Rollouts: each draws, grades and updates."""
    prompts_per_step: int = 12
    group_size: int = 8
    """Drawings a prompt. Their mean is the baseline, so at least 2; with 2 and division by their standard deviation
    only the sign of a difference is left."""
    updates_per_rollout: int = 1
    """Optimizer steps on the same drawings; the ratio to the policy that drew them is clipped."""
    clip: tuple[float, float] = (0.2, 0.2)
    """How far below and above 1 that ratio counts; unused with one update."""
    advantage: Advantage = "centered"
    normalization: Normalization = "sequence"
    kl_coef: float = 0.01
    """Of the divergence from the policy's start, per drawn token in nats, against rewards of a group."""
    reward_scale: float = 1.0
    """Multiplies advantages: what one unit of reward is worth against `kl_coef`."""
    lr: float = 3e-4
    """Peak rate of AdamW."""
    warmup_steps: int = 10
    decay_from: float = 1.0
    """Share of the run after which the rate falls linearly to zero; 1 keeps it."""
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    """Of sampling."""
    seed: int = 0
    """Of prompts and drawings."""
    monitor_every: int = 20
    """Steps between readings of the fresh prompts; the start and the end are always read."""
    alarm: Alarm = "stop"
    """What happens when reward and reader part (`parted`)."""
    patience: int = 10
    """Steps in a row without any spread of rewards within a group, after which the run stops."""
    tolerance: float = 0.02
    """Largest difference, in nats a token, between the sampler's and the trainer's log-probabilities."""
    checkpoint_every: int = 20
    track: Track = "none"

    def __post_init__(self) -> None:
        if self.group_size < 2 or min(self.steps, self.prompts_per_step, self.updates_per_rollout) < 1:
            raise ValueError("group_size must be at least 2; steps, prompts_per_step, updates_per_rollout at least 1")
        for name, kinds in (("advantage", Advantage), ("normalization", Normalization), ("alarm", Alarm)):
            if getattr(self, name) not in get_args(kinds):
                raise UnknownNameError(name, getattr(self, name), get_args(kinds))
        if min(self.lr, self.max_grad_norm, self.temperature, self.tolerance) <= 0 or self.kl_coef < 0:
            raise ValueError("lr, max_grad_norm, temperature and tolerance must be above 0, kl_coef at least 0")
        if min(self.monitor_every, self.checkpoint_every, self.patience, self.warmup_steps) < 1:
            raise ValueError("monitor_every, checkpoint_every, patience and warmup_steps must be at least 1")


RESULT_FREE = ("monitor_every", "alarm", "patience", "checkpoint_every", "track", "tolerance")


@dataclass(frozen=True, kw_only=True)
class Monitor:
    """What is read every few steps, on prompts that are never trained on."""

    items: Sequence[Item]
    judges: Sequence[Judge]
    """The first decides the alarm; with sandbox pictures, the exact reader."""


def train_gvu(
    policy: Policy[D],
    reward: Reward,
    items: Sequence[Item],
    monitor: Monitor,
    config: GvuConfig,
    out: Path,
    *,
    card: dict[str, Any] | None = None,
) -> Path:
    """Improve the policy's drawings of `items` by the reward, and write the model to `out/model`.

    Goes on where `out` has a checkpoint of the same run. `out/log.jsonl` has a line a step, `out/monitor.jsonl` one for
    each look at the monitor's prompts.

    Args:
        policy: Its model is changed on the way.
        reward: Grades drawings. One whose grader is the policy's own model grades with moving weights.
        items: Prompts to draw from; none may be among the monitor's.
        card: Added to the model's card.

    Raises:
        TrainingError: A loss, gradient or sampled probability is not finite; sampler and trainer disagree; no group has
            a spread of rewards for `config.patience` steps; reward and reader part. The checkpoint before is whole.
        ValueError: Training and monitor share items.
    """
    if shared := {item.caption for item in items} & {item.caption for item in monitor.items}:
        raise ValueError(f"{len(shared)} prompts are both trained on and monitored (first: {min(shared)!r})")
    model = policy.model
    sampling = Sampling(image_temperature=config.temperature)
    identity = {
        "base": model.sha256,
        "reward": reward.name,
        "items": f"{hash64(json.dumps([item.to_json() for item in items], sort_keys=True)):016x}",
        "config": {name: value for name, value in asdict(config).items() if name not in RESULT_FREE},
    }
    begun, tensors = load_checkpoint(out, identity)
    if begun == config.steps and (out / "model").is_dir():
        return out / "model"
    out.mkdir(parents=True, exist_ok=True)
    write_files([(out / "run.json", json.dumps({**identity, **describe_environment()}, indent=2).encode())])
    learner = _Learner(policy, sampling, config)
    learner.load(tensors)
    watch = _Watch(policy, reward, monitor, sampling, config, out / MONITOR, begun)
    flat_steps = 0
    with (
        show_progress("GvU", config.steps - begun, unit="steps") as advance,
        open_metrics(out, start=begun, track=config.track, config=identity) as log,
    ):
        for step in range(begun, config.steps):
            began = time.monotonic()
            seen = watch.look(step) if step % config.monitor_every == 0 else {}
            items_P = choose_items(items, config, step)
            drawn_N, rewards_PG = draw_groups(policy, reward, items_P, sampling, config, step)
            advantages_PG = config.reward_scale * advantages(rewards_PG, config.advantage)
            flat_steps = 0 if advantages_PG.any() else flat_steps + 1
            _check_spread(flat_steps, rewards_PG, step, config)
            metrics = learner.learn(drawn_N, advantages_PG.flatten(), items_P, step)
            metrics |= describe_rollout(drawn_N, rewards_PG)
            log(step, {**metrics, **seen, "seconds": round(time.monotonic() - began, 3)})
            advance(1)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_checkpoint(out, learner.tensors(), step=step + 1, identity=identity)
    minutes = sum(line["seconds"] for line in read_log(out)) / 60
    about = {
        "name": model.card.get("name", model.name),
        "base": {"sha256": model.sha256, "base": model.card.get("base")},
        "config": asdict(config),
        "reward": reward.name,
        "trained_on": dict(model.trained_on),
        "minutes": round(minutes, 1),
        "final": watch.look(config.steps),
        **describe_environment(),
        **(card or {}),
    }
    write_folder(out / "model", lambda folder: model.save_pretrained(folder, about))
    return out / "model"


def choose_items(items: Sequence[Item], config: GvuConfig, step: int) -> list[Item]:
    """The prompts of a step: a function of (seed, step)."""
    return random.Random(f"gvu/{config.seed}/{step}").sample(list(items), config.prompts_per_step)


def draw_groups(
    policy: Policy[D],
    reward: Reward,
    items_P: Sequence[Item],
    sampling: Sampling,
    config: GvuConfig,
    step: int,
) -> tuple[list[D], Tensor]:
    """`config.group_size` drawings of every prompt, group after group, and their rewards (P, G)."""
    items_N = [item for item in items_P for _ in range(config.group_size)]
    requests = [Request(content=(item.prompt,), purpose="draw") for item in items_N]
    seeds = [hash64(f"gvu/{config.seed}/{step}/{n}") >> 1 for n in range(len(items_N))]
    drawn_N = policy.sample(requests, sampling=sampling, seeds=seeds)
    rewards_N = reward.grade(items_N, [one.image for one in drawn_N])
    return drawn_N, torch.from_numpy(rewards_N).float().view(len(items_P), config.group_size)


def describe_rollout(drawn_N: Sequence[Drawing], rewards_PG: Tensor) -> dict[str, float]:
    """Of a rollout: mean reward, its spread within groups, and whether the drawings have become all alike."""
    graded = rewards_PG[(~rewards_PG.isnan()).all(dim=1)]
    return {
        "reward": rewards_PG.nanmean().item(),
        "reward_spread": graded.std(dim=1).mean().item() if len(graded) else math.nan,
        "ungraded": int(rewards_PG.isnan().sum()),
        "distinct": len({one.image.tobytes() for one in drawn_N}) / len(drawn_N),
    }


def advantages(rewards_PG: Tensor, kind: Advantage) -> Tensor:
    """See `unigap.train.grpo`, equations (1) to (3)."""
    if kind == "leave_one_out":
        return leave_one_out(rewards_PG)
    return center_by_group(rewards_PG, divide_by_std=kind == "standardized")


def check_sampler(log_p_NT: Tensor, sampled_NT: Tensor, step: int, tolerance: float) -> float:
    """The largest difference between what the sampler says it drew with and what the trainer computes.

    Raises:
        TrainingError: It is above `tolerance`, or not finite: then the two are not the same policy.
    """
    apart = (log_p_NT.detach() - sampled_NT).abs().max().item()
    if not apart <= tolerance:
        raise TrainingError(
            f"step {step}: the sampler's and the trainer's log-probabilities differ by up to {apart:.3g} nats a token "
            f"(allowed: {tolerance:g}). Same weights, precision and temperature in both? Nothing was updated."
        )
    return apart


def _check_spread(flat_steps: int, rewards_PG: Tensor, step: int, config: GvuConfig) -> None:
    if flat_steps < config.patience:
        return
    ungraded = int(rewards_PG.isnan().sum())
    raise TrainingError(
        f"step {step}: for {flat_steps} steps no group has had any spread of rewards (last: {rewards_PG.numel()} "
        f"drawings, {ungraded} ungraded, mean {rewards_PG.nanmean().item():.3g}), so there is nothing to learn from. "
        "Check the grader (unigap train gvu --check), raise temperature or group_size, or choose harder prompts."
    )


class _Learner(Generic[D]):
    """The policy's module, its frozen start and the optimizer."""

    def __init__(self, policy: Policy[D], sampling: Sampling, config: GvuConfig) -> None:
        self._policy, self._config = policy, config
        self._module = policy.module(sampling)
        self._reference = copy.deepcopy(self._module).requires_grad_(False)
        self._parameters = dict(self._module.named_parameters())
        self._optimizers = Optimizers([], list(self._parameters.items()), muon_lr=1.0, adamw_lr=config.lr)

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"weights.{name}": parameter.detach() for name, parameter in self._parameters.items()}
        return weights | self._optimizers.tensors()

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`; an empty mapping leaves everything as it is."""
        if tensors:
            for name, parameter in self._parameters.items():
                parameter.copy_(tensors[f"weights.{name}"])
            self._optimizers.load(tensors)

    def learn(self, drawn_N: Sequence[D], advantages_N: Tensor, items_P: Sequence[Item], step: int) -> dict[str, float]:
        """All updates of one rollout; returns the metrics of the last."""
        config = self._config
        batch = self._policy.collate(drawn_N)
        device = next(iter(self._parameters.values())).device
        sampled_NT = torch.from_numpy(np.stack([one.log_p for one in drawn_N])).to(device)
        with torch.no_grad():
            reference_NT, _ = self._reference(batch)
        metrics: dict[str, float] = {}
        for update in range(config.updates_per_rollout):
            log_p_NT, entropy_NT = self._module(batch)
            if update == 0:
                metrics["sampler_apart"] = check_sampler(log_p_NT, sampled_NT, step, config.tolerance)
            found = policy_loss(
                log_p_NT,
                # In the first update the two are equal but for rounding; the ratio is then exactly 1.
                sampled_NT if update else log_p_NT.detach(),
                advantages_N.to(device),
                reference_log_p_NT=reference_NT,
                kl_coef=config.kl_coef,
                clip=config.clip if update else None,
                normalization=config.normalization,
            )
            metrics |= {"kl": found.kl, "clipped": found.clipped, "largest_ratio": found.largest_ratio}
            metrics |= {"entropy": entropy_NT.mean().item(), "grad_norm": self._update(found, items_P, step)}
        return metrics

    def _update(self, found: PolicyLoss, items_P: Sequence[Item], step: int) -> float:
        config, parameters = self._config, list(self._parameters.values())
        found.loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).item()
        if not (math.isfinite(found.loss.item()) and math.isfinite(norm)):
            raise TrainingError(
                f"step {step}: loss {found.loss.item()}, gradient norm {norm}; nothing was updated. Prompts: "
                + ", ".join(item.id for item in items_P)
            )
        torch.nn.utils.clip_grads_with_norm_(parameters, config.max_grad_norm, torch.tensor(norm))
        self._optimizers.step(
            rate_factor(step, steps=config.steps, warmup_steps=config.warmup_steps, decay_from=config.decay_from)
        )
        return norm


# ---- the outside check -----------------------------------------------------------------------------------------------


PARTED_Z = 2.58
"""Standard errors, one per direction: about one false alarm in 40,000 looks if neither had moved."""


MONITOR = "monitor.jsonl"


class _Watch(Generic[D]):
    """Draws the monitor's prompts, always with the same seeds, and compares with the first time."""

    def __init__(
        self,
        policy: Policy[D],
        reward: Reward,
        monitor: Monitor,
        sampling: Sampling,
        config: GvuConfig,
        path: Path,
        begun: int,
    ) -> None:
        self._policy, self._reward, self._monitor = policy, reward, monitor
        self._sampling, self._config, self._path = sampling, config, path
        truncate_log(path, begun)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._first: dict[str, Any] | None = json.loads(lines[0])["values"] if lines else None

    def look(self, step: int) -> dict[str, float]:
        """Mean reward and every judge's rates on the monitor's prompts, which the file keeps drawing by drawing.

        Raises:
            TrainingError: Reward and first judge have parted, and the alarm is to stop.
        """
        items = list(self._monitor.items)
        drawn = self._policy.sample(
            [Request(content=(item.prompt,), purpose="draw") for item in items],
            sampling=self._sampling,
            seeds=[item_seed(self._config.seed, Key(item.id, "generation", "normal", 0)) for item in items],
        )
        images = [one.image for one in drawn]
        submissions = [Submission(item=item, image=image) for item, image in zip(items, images, strict=True)]
        values = {"reward": [_number(value) for value in self._reward.grade(items, images).tolist()]}
        found = {"monitor/reward": _mean(values["reward"])}
        for judge in self._monitor.judges:
            rulings = judge.judge(submissions)
            values[judge.name] = [_RIGHT[ruling.verdict] for ruling in rulings]
            found[f"monitor/{judge.name}"] = _mean(values[judge.name])
            unread = sum(ruling.error in ("blank", "unreadable") for ruling in rulings)
            found[f"monitor/{judge.name} unreadable"] = unread / len(items)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **found, "values": values}) + "\n")
        if self._first is None:
            self._first = values
        elif self._config.alarm == "stop" and (said := parted(self._first, values, self._monitor.judges[0].name)):
            raise TrainingError(
                f"stopped at step {step}: {said}. The grader likes what is not better. Look at the drawings; try a "
                "stronger or frozen grader, a higher kl_coef or a lower rate. alarm=warn goes on all the same."
            )
        return found


_RIGHT = {"correct": 1.0, "incorrect": 0.0, "unscored": None}


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


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


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
