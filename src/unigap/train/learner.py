"""A policy's weights on the way: its frozen start, its optimizer, and the updates of one rollout.

What is said of tokens here is said of the steps of a path where the policy draws by a flow; nats are then nats a value.

Two things are checked on real rollouts. Of each: the sampler's log-probabilities of what it drew are those that the
trainer computes; else the two are not the same policy. After the first updates: the policy is no longer its start, and
the sampler draws with the new weights.
"""

import copy
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
import torch
from torch import Tensor

from unigap.errors import TrainingError
from unigap.items import Item
from unigap.models.policy import D, Likelihoods, Policy
from unigap.models.protocol import Sampling
from unigap.models.sde import path_kl
from unigap.train.grpo import k3, policy_loss
from unigap.train.optimizers import Optimizers, rate_factor
from unigap.train.trained import choose_trained, clip_or_raise, list_names, merge_weights, save_adapter

if TYPE_CHECKING:
    from unigap.train.gvu import GvuConfig

# P prompts of a step, N drawings, T drawn tokens


class Learner(Generic[D]):
    """The policy's module, its frozen start and the optimizer."""

    def __init__(self, policy: Policy[D], sampling: Sampling, config: "GvuConfig") -> None:
        self._policy, self._config = policy, config
        self._module = policy.module(sampling)
        self._reference = copy.deepcopy(self._module).requires_grad_(False)
        torch.manual_seed(random.Random(f"gvu/adapters/{config.seed}").getrandbits(63))
        trained = set(choose_trained(self._module, policy.model.parts, config.trains, config.adapters))
        self._parameters = {name: p for name, p in self._module.named_parameters() if name in trained}
        self._optimizers = Optimizers([], list(self._parameters.items()), muon_lr=1.0, adamw_lr=config.lr)
        self._learned = 0

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

    def save(self, folder: Path, card: dict[str, Any]) -> None:
        """The whole model, adapters merged; these also apart in `folder/adapter`."""
        adapters = self._config.adapters
        self._policy.model.save_pretrained(folder, card, weights=merge_weights(self._module.state_dict(), adapters))
        if adapters:
            save_adapter(folder / "adapter", {name: p.detach() for name, p in self._parameters.items()}, adapters)

    def learn(self, drawn_N: Sequence[D], advantages_N: Tensor, items_P: Sequence[Item], step: int) -> dict[str, float]:
        """All updates of one rollout; returns the metrics of the last."""
        size = self._config.drawings_per_pass or len(drawn_N)
        starts = range(0, len(drawn_N), size)
        passes = [self._prepare(drawn_N[n : n + size], advantages_N[n : n + size]) for n in starts]
        metrics: dict[str, float] = {}
        for update in range(self._config.updates_per_rollout):
            said = [self._backward(one, len(drawn_N), items_P, step, first=update == 0) for one in passes]
            if update == 0 and self._learned == FIRST_UPDATES:
                check_moved(
                    torch.cat([one.log_p for one in said]),
                    torch.cat([one.sampled_log_p for one in passes]),
                    torch.cat([one.reference.log_p for one in passes]),
                    step,
                )
            names = [item.id for item in items_P]
            norm = clip_or_raise(list(self._parameters.values()), self._config.max_grad_norm, names, step)
            metrics |= {**pool_metrics([one.metrics for one in said], list(map(len, passes))), "grad_norm": norm}
            self._optimizers.step(self._rate_factor(step))
        self._learned += bool(advantages_N.any())
        return metrics

    @torch.no_grad()
    def _prepare(self, drawn_N: Sequence[D], advantages_N: Tensor) -> "_Pass":
        device = next(iter(self._parameters.values())).device
        batch = self._policy.collate(drawn_N)
        sampled_NT = torch.from_numpy(np.stack([one.log_p for one in drawn_N])).to(device)
        return _Pass(batch, sampled_NT, advantages_N.to(device), Likelihoods(*self._reference(batch)))

    def _backward(self, one: "_Pass", num_drawn: int, items_P: Sequence[Item], step: int, *, first: bool) -> "_Said":
        """Add the gradient of one pass, weighed by its share of the rollout's `num_drawn` drawings."""
        config, by_flow = self._config, self._policy.likelihood != "tokens"
        said = Likelihoods(*self._module(one.batch))
        log_p_NT, metrics = said.log_p.detach(), {}
        if first:
            tolerance = TOLERANCE[by_flow] if config.tolerance is None else config.tolerance
            metrics["sampler_apart"] = check_sampler(log_p_NT, one.sampled_log_p, step, tolerance)
        found = policy_loss(
            said.log_p,
            # In the first update the two are equal but for rounding; the ratio is then exactly 1.
            log_p_NT if first else one.sampled_log_p,
            one.advantages,
            kl_NT=divergence(said, one.reference),
            kl_coef=config.kl_coef,
            clip=None if first else (config.clip or CLIP[by_flow]),
            normalization=config.normalization,
        )
        if not math.isfinite(found.loss.item()):
            raise TrainingError(
                f"step {step}: the loss is {found.loss.item()}; nothing was updated. Prompts: "
                f"{list_names([item.id for item in items_P])}. "
                "Look at their rewards, or lower the rate, then run again: a checkpoint is resumed."
            )
        # All drawings of a rollout have equally many tokens, so shares of drawings are shares of tokens too.
        (found.loss * (len(one) / num_drawn)).backward()
        metrics |= {"kl": found.kl, "clipped": found.clipped, "largest_ratio": found.largest_ratio}
        metrics |= {} if said.entropy is None else {"entropy": said.entropy.mean().item()}
        return _Said(log_p_NT, metrics)

    def _rate_factor(self, step: int) -> float:
        config = self._config
        return rate_factor(step, steps=config.steps, warmup_steps=config.warmup_steps, decay_from=config.decay_from)


@dataclass(frozen=True, eq=False)
class _Pass:
    """Drawings that go through the network together."""

    batch: dict[str, Tensor]
    sampled_log_p: Tensor
    """(N, T): their log-probabilities when they were drawn."""
    advantages: Tensor
    """(N,)."""
    reference: Likelihoods
    """By the frozen start."""

    def __len__(self) -> int:
        return len(self.advantages)


@dataclass(frozen=True, eq=False)
class _Said:
    """What came of a pass."""

    log_p: Tensor
    """(N, T), without a gradient."""
    metrics: dict[str, float]


LARGEST = ("sampler_apart", "largest_ratio")
"""Metrics of which the largest counts; others are means over drawings."""


def pool_metrics(passes: Sequence[Mapping[str, float]], weights: Sequence[int]) -> dict[str, float]:
    """Metrics of passes as those of one, each weighed by how many drawings it has."""
    pooled = {}
    for name in passes[0]:
        values = [one[name] for one in passes]
        mean = sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
        pooled[name] = max(values) if name in LARGEST else mean
    return pooled


TOLERANCE = {False: 0.02, True: 1e-3}
"""Largest difference of log-probabilities: of tokens, and of paths, where a mean over values leaves little rounding."""
CLIP = {False: (0.2, 0.2), True: (1e-4, 1e-4)}
"""Of the ratio of tokens, and of paths, where a mean over values keeps it near 1 (Flow-GRPO's release has 1e-4)."""


def divergence(said: Likelihoods, reference: Likelihoods) -> Tensor:
    """KL (N, T) of the policy from its reference: the estimate k3 for tokens, the closed form for paths."""
    if said.means is None:
        return k3(said.log_p, reference.log_p)
    assert reference.means is not None
    return path_kl(said.means, reference.means)


def check_sampler(log_p_NT: Tensor, sampled_NT: Tensor, step: int, tolerance: float) -> float:
    """The largest difference between what the sampler says it drew with and what the trainer computes.

    Raises:
        TrainingError: It is above `tolerance`, or not finite: then the two are not the same policy.
    """
    apart = (log_p_NT - sampled_NT).abs().max().item()
    if not apart <= tolerance:
        raise TrainingError(
            f"step {step}: the sampler's and the trainer's log-probabilities differ by up to {apart:.3g} nats "
            f"(allowed: {tolerance:g}). Same weights, precision and temperature in both? Nothing was updated."
        )
    return apart


FIRST_UPDATES = 5
"""Rollouts learned from, after which the policy must be another one than at the start."""


def check_moved(log_p_NT: Tensor, sampled_NT: Tensor, reference_NT: Tensor, step: int) -> None:
    """Whether the first updates arrived, in the trainer and in the sampler.

    Args:
        log_p_NT: What the trainer computes of what was drawn.
        sampled_NT: What the sampler says it drew with.
        reference_NT: Of the same by the policy's start.

    Raises:
        TrainingError: Trainer or sampler still have the weights of the start.
    """
    moved = (log_p_NT - reference_NT).abs().mean().item()
    if moved == 0:
        raise TrainingError(
            f"step {step}: {FIRST_UPDATES} updates have not changed the log-probability of anything drawn. Are the "
            "parameters that train those of the module that draws? Is the rate too small for their precision?"
        )
    behind, still = ((sampled_NT - other).abs().mean().item() for other in (log_p_NT, reference_NT))
    if behind > moved / 2 and still < behind / 2:  # both: rounding alone can be as large as a small change
        raise TrainingError(
            f"step {step}: after {FIRST_UPDATES} updates the sampler still draws with the weights of the start: its "
            f"log-probabilities differ from the start's by {still:.2g} nats, and from the trainer's by "
            f"{behind:.2g}. Hand it the new weights."
        )
