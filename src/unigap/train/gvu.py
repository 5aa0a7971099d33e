"""GvU: a model's own understanding rewards its drawings (arXiv 2603.06043), and an outside check on that.

Each step draws a group of pictures for every prompt, lets a grader say how well it could have guessed the prompt from
each (`unigap.train.rewards`), and moves the policy towards the better ones of each group (`unigap.train.grpo`). No
answer is ever shown to it. Every few steps the same fresh prompts are drawn again and read by rule; when the reward
goes up while what is drawn gets worse, the run stops and says so.
"""

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unigap.disk import hash64, write_files
from unigap.environment import describe_environment
from unigap.errors import TrainingError, UnknownNameError
from unigap.items import Item
from unigap.models.policy import D, Drawing, Likelihood, MatchingSampling, PathSampling, Policy
from unigap.models.protocol import Request, Sampling
from unigap.progress import show_progress
from unigap.train.checkpoint import load_checkpoint, save_checkpoint, write_folder
from unigap.train.grpo import Normalization, center_by_group, center_by_token, leave_one_out
from unigap.train.learner import Learner
from unigap.train.metrics import Track, open_metrics, read_log
from unigap.train.monitor import Monitor, Watch
from unigap.train.rewards import LikelihoodReward, Reward
from unigap.train.trained import Adapters, list_names

# P prompts of a step, G drawings of each, N = P x G, T drawn tokens

Advantage = Literal["centered", "standardized", "leave_one_out", "by_token"]
Alarm = Literal["stop", "warn"]
FlowLikelihood = Literal["path", "matching"]


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
    drawings_per_pass: int = 0
    """Drawings that go through the network at once when the gradient is computed; 0 takes a whole rollout. Fewer need
    less memory, and give the same gradient but for rounding."""
    clip: tuple[float, float] | None = None
    """How far below and above 1 that ratio counts; unused with one update. None: .2 for tokens, 1e-4 for a flow."""
    advantage: Advantage = "centered"
    """How rewards become advantages (`unigap.train.grpo`); by_token takes every prompt token's likelihood apart."""
    normalization: Normalization = "sequence"
    kl_coef: float = 0.01
    """Of the divergence from the policy's start, in nats a drawn token (or a value of a step), against rewards."""
    reward_scale: float = 1.0
    """Multiplies advantages: what one unit of reward is worth against `kl_coef`."""
    trains: tuple[str, ...] = ("all",)
    """Parts of the model that train, by the model's own names; the rest is frozen."""
    lora_rank: int = 0
    """Above 0: low-rank adapters on the linear layers of `trains`, and nothing else trains. They are merged into the
    final model and kept beside it."""
    lora_alpha: int = 16
    """The adapters' product is scaled by lora_alpha / lora_rank."""
    lr: float = 3e-4
    """Peak rate of AdamW."""
    warmup_steps: int = 10
    decay_from: float = 1.0
    """Share of the run after which the rate falls linearly to zero; 1 keeps it."""
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    """Of sampling; for a model that draws tokens."""
    likelihood: FlowLikelihood = "path"
    """Of a model that draws by a flow: what becomes likelier. path: the steps with chance that a drawing took
    (Flow-GRPO); matching: the finished picture, by its flow-matching error (advantage-weighted matching)."""
    path_steps: int = 8
    """Of a model that draws by a flow, steps of a rewarded drawing: fewer than it draws with later."""
    noise_level: float = 0.7
    """Of such a model: how much chance there is in a rewarded drawing's steps (docs/heads.md eq. 6)."""
    noise_until: float = 0.7
    """Of such a model: time, from 1 (noise) to 0, at which chance ends; never later than before the last step."""
    views: int = 4
    """Of such a model, with likelihood matching: noised views of each picture."""
    guided: bool = False
    """Of such a model: whether rewarded drawings have its guidance, at twice the cost."""
    seed: int = 0
    """Of prompts and drawings."""
    monitor_every: int = 20
    """Steps between readings of the fresh prompts; the start and the end are always read."""
    alarm: Alarm = "stop"
    """What happens when the reward and an outside reader part (`unigap.train.monitor.parted`)."""
    patience: int = 10
    """Steps in a row without any spread of rewards within a group, after which the run stops."""
    tolerance: float | None = None
    """Largest difference of the sampler's and the trainer's log-probabilities. None: .02 nats a token, .001 a value."""
    checkpoint_every: int = 20
    track: Track = "none"

    def __post_init__(self) -> None:
        if self.group_size < 2 or min(self.steps, self.prompts_per_step, self.updates_per_rollout) < 1:
            raise ValueError("group_size must be at least 2; steps, prompts_per_step, updates_per_rollout at least 1")
        kinds_of = {
            "advantage": Advantage,
            "normalization": Normalization,
            "alarm": Alarm,
            "likelihood": FlowLikelihood,
        }
        for name, kinds in kinds_of.items():
            if getattr(self, name) not in get_args(kinds):
                raise UnknownNameError(name, getattr(self, name), get_args(kinds))
        tolerance = 1.0 if self.tolerance is None else self.tolerance
        if min(self.lr, self.max_grad_norm, self.temperature, tolerance) <= 0:
            raise ValueError("lr, max_grad_norm, temperature and tolerance must be above 0")
        if min(self.kl_coef, self.lora_rank, self.drawings_per_pass) < 0 or not self.trains:
            raise ValueError(
                "kl_coef, lora_rank and drawings_per_pass must be at least 0, and trains must name something"
            )
        if min(self.monitor_every, self.checkpoint_every, self.patience, self.warmup_steps) < 1:
            raise ValueError("monitor_every, checkpoint_every, patience and warmup_steps must be at least 1")

    @property
    def adapters(self) -> Adapters | None:
        # No dropout: the trainer's log-probabilities have to be the sampler's.
        return Adapters(rank=self.lora_rank, alpha=self.lora_alpha) if self.lora_rank else None

    def sampling_of(self, policy: Policy[Any]) -> Sampling:
        """What rewarded drawings are sampled with.

        Raises:
            ValueError: A setting has no meaning for this policy, or leaves nothing to chance.
        """
        kind = policy.likelihood
        if kind != "tokens" and kind != self.likelihood:
            raise ValueError(f"likelihood is {self.likelihood!r}, and the policy's is {kind!r}")
        unused = UNUSED[kind]
        if given := [name for name in unused if getattr(self, name) != getattr(GvuConfig, name)]:
            how = {"tokens": "draws tokens", "path": "is rewarded along paths", "matching": "matches finished pictures"}
            raise ValueError(f"{policy.model.name} {how[kind]}; {', '.join(given)} would change nothing")
        if kind == "tokens":
            return Sampling(image_temperature=self.temperature)
        if kind == "matching":
            return MatchingSampling(num_steps=self.path_steps, num_views=self.views, guided=self.guided)
        level, until = self.noise_level, self.noise_until
        return PathSampling(num_steps=self.path_steps, noise_level=level, noise_until=until, guided=self.guided)


UNUSED: dict[Likelihood, tuple[str, ...]] = {
    "tokens": ("likelihood", "path_steps", "noise_level", "noise_until", "views", "guided"),
    "path": ("temperature", "views"),
    "matching": ("temperature", "noise_level", "noise_until"),
}
"""Settings that mean nothing to a policy."""
RESULT_FREE = ("monitor_every", "alarm", "patience", "checkpoint_every", "track", "tolerance", "drawings_per_pass")
"""Settings that may be changed when a run goes on."""


def train_gvu(
    policy: Policy[D],
    reward: Reward,
    items: Sequence[Item],
    monitor: Monitor,
    config: GvuConfig,
    out: Path,
    *,
    card: Mapping[str, Any] | None = None,
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
        TrainingError: A reward, loss, gradient or sampled probability is not finite; sampler and trainer disagree; the
            first updates changed nothing; no group has a spread of rewards for `config.patience` steps; reward and
            reader part. The checkpoint before is whole.
        ValueError: Training and monitor share prompts, or the reward has no tokens to tell apart.
    """
    if shared := {item.caption for item in items} & {item.caption for item in monitor.items}:
        raise ValueError(f"{len(shared)} prompts are both trained on and monitored (first: {min(shared)!r})")
    if config.advantage == "by_token" and not isinstance(reward, LikelihoodReward):
        raise ValueError(f"advantage by_token needs a reward made of token likelihoods; {reward.name} is none")
    model = policy.model
    sampling = config.sampling_of(policy)
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
    learner = Learner(policy, sampling, config)
    learner.load(tensors)
    stops = config.alarm == "stop"
    watch = Watch(policy, reward, monitor, sampling, seed=config.seed, stops=stops, folder=out, begun=begun)
    flat_steps = 0
    with (
        show_progress("GvU", config.steps - begun, unit="steps") as advance,
        open_metrics(out, start=begun, track=config.track, config=identity) as log,
    ):
        for step in range(begun, config.steps):
            began = time.monotonic()
            seen = watch.look(step) if step % config.monitor_every == 0 else {}
            items_P = choose_items(items, config, step)
            drawn_N = draw_groups(policy, items_P, sampling, config, step)
            rewards_PG, advantages_PG = grade_groups(reward, items_P, drawn_N, config, step)
            flat_steps = 0 if has_spread(rewards_PG) else flat_steps + 1
            check_spread(flat_steps, rewards_PG, step, config)
            metrics = learner.learn(drawn_N, advantages_PG.flatten(), items_P, step)
            metrics |= describe_rollout(drawn_N, rewards_PG)
            log(step, {**metrics, **seen, "seconds": round(time.monotonic() - began, 3)})
            advance(1)
            if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
                save_checkpoint(out, learner.tensors(), step=step + 1, identity=identity)
    about = {
        "name": model.card.get("name", model.name),
        "base": {"sha256": model.sha256, "base": model.card.get("base")},
        "config": asdict(config),
        "reward": reward.name,
        "trained_on": dict(model.trained_on),
        "minutes": round(sum(line["seconds"] for line in read_log(out)) / 60, 1),
        "final": watch.look(config.steps),
        **describe_environment(),
        **(card or {}),
    }
    write_folder(out / "model", lambda folder: learner.save(folder, about))
    return out / "model"


def choose_items(items: Sequence[Item], config: GvuConfig, step: int) -> list[Item]:
    """The prompts of a step: a function of (seed, step)."""
    return random.Random(f"gvu/{config.seed}/{step}").sample(list(items), config.prompts_per_step)


def draw_groups(
    policy: Policy[D], items_P: Sequence[Item], sampling: Sampling, config: GvuConfig, step: int
) -> list[D]:
    """`config.group_size` drawings of every prompt, group after group."""
    requests = [Request(content=(item.prompt,), purpose="draw") for item in items_P for _ in range(config.group_size)]
    seeds = [hash64(f"gvu/{config.seed}/{step}/{n}") >> 1 for n in range(len(requests))]
    return policy.sample(requests, sampling=sampling, seeds=seeds)


def grade_groups(
    reward: Reward, items_P: Sequence[Item], drawn_N: Sequence[Drawing], config: GvuConfig, step: int
) -> tuple[Tensor, Tensor]:
    """Rewards (P, G), NaN where there is none, and advantages (P, G) times `config.reward_scale`.

    Raises:
        TrainingError: A reward is infinite.
    """
    shape = (len(items_P), config.group_size)
    items_N = [item for item in items_P for _ in range(config.group_size)]
    images_N = [one.image for one in drawn_N]
    if config.advantage == "by_token":
        assert isinstance(reward, LikelihoodReward)
        seen_N = reward.token_log_likelihoods(items_N, images_N)
        rewards_N = reward.of_tokens(seen_N, items_N, images_N)
        groups_P = [np.stack(seen_N[start : start + shape[1]]) for start in range(0, len(seen_N), shape[1])]
        advantages_PG = torch.stack([center_by_token(torch.from_numpy(seen_GL)) for seen_GL in groups_P])
        rewards_PG = torch.from_numpy(rewards_N).float().view(shape)
    else:
        rewards_PG = torch.from_numpy(reward.grade(items_N, images_N)).float().view(shape)
        advantages_PG = advantages(rewards_PG, config.advantage)
    if (infinite_P := rewards_PG.isinf().any(dim=1)).any():
        names = [item.id for item, bad in zip(items_P, infinite_P.tolist(), strict=True) if bad]
        raise TrainingError(
            f"step {step}: rewards of {len(names)} prompts are infinite ({reward.name}); nothing was updated. Prompts: "
            f"{list_names(names)}."
        )
    return rewards_PG, config.reward_scale * advantages_PG


def advantages(rewards_PG: Tensor, kind: Advantage) -> Tensor:
    """See `unigap.train.grpo`, equations (1) to (3)."""
    if kind == "leave_one_out":
        return leave_one_out(rewards_PG)
    return center_by_group(rewards_PG, divide_by_std=kind == "standardized")


def describe_rollout(drawn_N: Sequence[Drawing], rewards_PG: Tensor) -> dict[str, float]:
    """Of a rollout: mean reward, its spread within groups, and whether the drawings have become all alike."""
    graded = rewards_PG[(~rewards_PG.isnan()).all(dim=1)]
    return {
        "reward": rewards_PG.nanmean().item(),
        "reward_spread": graded.std(dim=1).mean().item() if len(graded) else math.nan,
        "ungraded": int(rewards_PG.isnan().sum()),
        "distinct": len({one.image.tobytes() for one in drawn_N}) / len(drawn_N),
    }


def has_spread(rewards_PG: Tensor) -> bool:
    """Whether the rewards of any group differ by more than rounding."""
    groups = [row_G[~row_G.isnan()] for row_G in rewards_PG]
    return any(len(known) > 1 and (known.max() - known.min() > 1e-6 * known.abs().max()) for known in groups)


def check_spread(flat_steps: int, rewards_PG: Tensor, step: int, config: GvuConfig) -> None:
    """
    Raises:
        TrainingError: There has been nothing to learn from for `config.patience` steps.
    """
    if flat_steps < config.patience:
        return
    ungraded = int(rewards_PG.isnan().sum())
    raise TrainingError(
        f"step {step}: for {flat_steps} steps no group has had any spread of rewards (last: {rewards_PG.numel()} "
        f"drawings, {ungraded} ungraded, mean {rewards_PG.nanmean().item():.3g}), so there is nothing to learn from. "
        "Check the grader (unigap train gvu --check), raise group_size, temperature (of a flow: noise_level), or "
        "choose harder prompts."
    )
