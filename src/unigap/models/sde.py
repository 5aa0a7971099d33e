"""Drawing by a flow with chance in every step, so that a drawing has a probability: what Flow-GRPO rewards.

The flow dx = v dt and, for any sigma_t, the reverse-time equation
    dx = [v + sigma_t^2 / (2 t) (x + (1 - t) v)] dt + sigma_t dw,    sigma_t = a sqrt(t / (1 - t))
have the same density at every t (docs/heads.md eq. 6; Liu et al., arXiv 2505.05470): x + (1 - t) v is the noise n in
x_t = (1 - t) x_0 + t n, and -n / t the expected score. A step of it is a normal draw (eq. 7), so its log-probability
and the divergence from another network's step have closed forms (eq. 8, 9). Both are means over a picture's values
here, as in Flow-GRPO's release, and not sums (eq. 10). Times run from 1 (noise) to 0 (picture).

Shape suffixes: N pictures, S steps with chance; a state x is (N, ...) of any shape.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from unigap.models.policy import Likelihoods

Velocity = Callable[[Tensor, float], Tensor]
"""(x_t, t) to v, which points from picture to noise."""


def sigma(t: float, following: float, level: float) -> float:
    """a sqrt(t / (1 - t)) with a = level; at t = 1, where that has no value, it is the following time's."""
    at = following if t >= 1 else t
    return level * math.sqrt(at / (1 - at))


def step_mean(x: Tensor, v: Tensor, t: float, following: float, level: float) -> Tensor:
    """Expected state after the step from t to `following` (eq. 7); at level 0, Euler's."""
    drift = v + sigma(t, following, level) ** 2 / (2 * t) * (x + (1 - t) * v)
    return x - (t - following) * drift


def step_std(t: float, following: float, level: float) -> float:
    """Standard deviation of that step, of every value."""
    return sigma(t, following, level) * math.sqrt(t - following)


def step_log_p(x_after: Tensor, mean: Tensor, std: float) -> Tensor:
    """log density (N,) of a step's outcome, in nats a value: the mean over all values (eq. 10)."""
    z = (x_after.float() - mean.float()).flatten(1) / std
    return -0.5 * z.square().mean(dim=1) - math.log(std) - 0.5 * math.log(2 * math.pi)


def path_kl(means: Tensor, reference_means: Tensor) -> Tensor:
    """KL (N, S) of each step of the policy from the reference's, in nats a value (eq. 9, 10).

    Args:
        means: As in `Likelihoods`: over the step's standard deviation, so that half their squared difference is left.
    """
    return 0.5 * (means - reference_means).flatten(2).square().mean(dim=2)


@dataclass(frozen=True, eq=False)
class Path:
    """Drawings as they were sampled."""

    states: tuple[Tensor, ...]
    """x at every time, the noise first and the picture last."""
    log_p: Tensor
    """(N, S) float32, in nats a value: of every step with chance."""


@dataclass(frozen=True, eq=False)
class PathDrawn:
    """One drawing as a policy sampled it (`unigap.models.policy.Drawing`)."""

    context: Any
    """What it was drawn from, in the model's own form."""
    states: Tensor
    """(S + 1, ...) float32: x before each step with chance, and after the last of them."""
    log_p: np.ndarray
    """(S,) float32, in nats a value."""
    image: Image


def sample_path(velocity: Velocity, x: Tensor, times: Sequence[float], level: float, noise: Sequence[Tensor]) -> Path:
    """Draw along `times` with chance in the first steps, as many as there is noise for, and then by Euler's.

    Args:
        x: Start noise (N, ...).
        level: a of eq. 6; 0 gives the ODE's drawings, whose steps have no log-probability (log_p is empty).
        noise: Standard normal, like x.

    Raises:
        ValueError: There is noise for the last step as well, where it would stay in the picture.
    """
    if len(noise) > len(times) - 2:
        raise ValueError(f"{len(times) - 1} steps take at most {len(times) - 2} draws of noise, found {len(noise)}")
    states, log_p = [x], []
    for step, (t, following) in enumerate(pairwise(times)):
        has_chance = level > 0 and step < len(noise)
        x = step_mean(x, velocity(x, t), t, following, level if has_chance else 0.0)
        if has_chance:
            mean, std = x, step_std(t, following, level)
            x = mean + std * noise[step]
            log_p.append(step_log_p(x, mean, std))
        states.append(x)
    return Path(tuple(states), torch.stack(log_p, dim=1) if log_p else x.new_zeros((len(x), 0)))


def path_likelihoods(velocities: Tensor, states: Tensor, times: Sequence[float], level: float) -> Likelihoods:
    """Of the sampled steps of paths, under the network that the velocities are of.

    Args:
        velocities: (N, S, ...) at the states before each step with chance.
        states: (N, S + 1, ...): those states, and the one after the last of these steps.
        times: Of these states, from 1.
    """
    log_p, means = [], []
    for step, (t, following) in enumerate(pairwise(times)):
        mean, std = step_mean(states[:, step], velocities[:, step], t, following, level), step_std(t, following, level)
        log_p.append(step_log_p(states[:, step + 1], mean, std))
        means.append(mean.float() / std)
    return Likelihoods(torch.stack(log_p, dim=1), means=torch.stack(means, dim=1))
