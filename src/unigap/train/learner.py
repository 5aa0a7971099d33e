"""A policy's weights on the way: its frozen start, its optimizer, and the updates of one rollout.

What is said of tokens here is said of the steps of a path where the policy draws by a flow; nats are then nats a value.

Two things are checked on real rollouts. Of each: the sampler's log-probabilities of what it drew are those that the
trainer computes; else the two are not the same policy. After the first updates: the policy is no longer its start, and
the sampler draws with the new weights.
"""

import copy
import math
import random
from collections.abc import Sequence
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
from unigap.train.grpo import PolicyLoss, k3, policy_loss
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
        config = self._config
        batch = self._policy.collate(drawn_N)
        device = next(iter(self._parameters.values())).device
        sampled_NT = torch.from_numpy(np.stack([one.log_p for one in drawn_N])).to(device)
        by_flow = self._policy.by_flow
        with torch.no_grad():
            reference = Likelihoods(*self._reference(batch))
        metrics: dict[str, float] = {}
        for update in range(config.updates_per_rollout):
            said = Likelihoods(*self._module(batch))
            log_p_NT = said.log_p
            if update == 0:
                tolerance = TOLERANCE[by_flow] if config.tolerance is None else config.tolerance
                metrics["sampler_apart"] = check_sampler(log_p_NT.detach(), sampled_NT, step, tolerance)
                if self._learned == FIRST_UPDATES:
                    check_moved(log_p_NT.detach(), sampled_NT, reference.log_p, step)
            found = policy_loss(
                log_p_NT,
                # In the first update the two are equal but for rounding; the ratio is then exactly 1.
                sampled_NT if update else log_p_NT.detach(),
                advantages_N.to(device),
                kl_NT=divergence(said, reference),
                kl_coef=config.kl_coef,
                clip=(config.clip or CLIP[by_flow]) if update else None,
                normalization=config.normalization,
            )
            metrics |= {"kl": found.kl, "clipped": found.clipped, "largest_ratio": found.largest_ratio}
            metrics |= {} if said.entropy is None else {"entropy": said.entropy.mean().item()}
            metrics["grad_norm"] = self._update(found, items_P, step)
        self._learned += bool(advantages_N.any())
        return metrics

    def _update(self, found: PolicyLoss, items_P: Sequence[Item], step: int) -> float:
        config, names = self._config, [item.id for item in items_P]
        if not math.isfinite(found.loss.item()):
            raise TrainingError(
                f"step {step}: the loss is {found.loss.item()}; nothing was updated. Prompts: {list_names(names)}. "
                "Look at their rewards, or lower the rate, then run again: a checkpoint is resumed."
            )
        found.loss.backward()
        norm = clip_or_raise(list(self._parameters.values()), config.max_grad_norm, names, step)
        factor = rate_factor(step, steps=config.steps, warmup_steps=config.warmup_steps, decay_from=config.decay_from)
        self._optimizers.step(factor)
        return norm


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
