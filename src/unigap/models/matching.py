"""Drawings of a flow judged when they are finished: how well the network matches them, in place of a likelihood.

A path's log-probability (`unigap.models.sde`) credits the chance in its steps, which has as many directions as a
picture has values, and hardly any of them matter. The flow-matching error of the finished picture, with noises of its
own, has the same use and much less noise (advantage-weighted matching, Xue et al. 2025, arXiv 2509.25050):

    l = -|v(x_t, t) - (n - x_0)|^2 / (2 D),    x_t = (1 - t) x_0 + t n                        (docs/heads.md eq. 12)

for D values and views (t, n) of each picture x_0, drawn once and kept, so that sampler and trainer speak of the same.
It is the log density of the view's velocity under a normal of deviation 1, but for a constant, so the divergence of
two networks is half the mean square between what they expect (eq. 9).

Shape suffixes: N pictures, S views of each; a picture is (...) of any shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from unigap.disk import hash64
from unigap.models.policy import Likelihood, Likelihoods, MatchingSampling
from unigap.models.protocol import Request


@dataclass(frozen=True, eq=False)
class Finished:
    """A picture as it was drawn."""

    context: Any
    """What it was drawn from, in the model's own form."""
    clean: Tensor
    """x_0, float32."""
    image: Image


@dataclass(frozen=True, eq=False)
class MatchDrawn:
    """A drawing and its views (`unigap.models.policy.Drawing`)."""

    picture: Finished
    times: Tensor
    """(S,)."""
    noise: Tensor
    """(S, ...)."""
    log_p: np.ndarray
    """(S,) float32, in nats a value."""

    @property
    def context(self) -> Any:
        return self.picture.context

    @property
    def image(self) -> Image:
        return self.picture.image


def matching_likelihoods(errors: Tensor) -> Likelihoods:
    """Of views, from what the network expects beyond the true velocity, (N, S, ...)."""
    errors = errors.float()
    return Likelihoods(-0.5 * errors.flatten(2).square().mean(dim=2), means=errors)


class MatchingPolicy(ABC):
    """What is alike in policies of finished pictures; a model adds the abstract methods."""

    likelihood: Likelihood = "matching"

    def __init__(self, model: Any) -> None:
        self.model = model

    def sample(
        self, requests: Sequence[Request], *, sampling: MatchingSampling, seeds: Sequence[int]
    ) -> list[MatchDrawn]:
        """One drawing a request, each from its own seed, with what the model makes of its views.

        Raises:
            TrainingError: A drawing is none.
            ValueError: A request cannot be drawn here.
        """
        module, size = self.module(sampling), self.model.batch_size
        found: list[MatchDrawn] = []
        for start in range(0, len(requests), size):
            part = slice(start, start + size)
            finished = self.draw(requests[part], sampling, seeds[part])
            drawn = [
                self._with_views(picture, sampling.num_views, seed)
                for picture, seed in zip(finished, seeds[part], strict=True)
            ]
            with torch.no_grad():
                log_p_NS = module(self.collate(drawn)).log_p.cpu().numpy()
            found += [replace(one, log_p=log_p_S) for one, log_p_S in zip(drawn, log_p_NS, strict=True)]
        return found

    def _with_views(self, picture: Finished, num: int, seed: int) -> MatchDrawn:
        random = np.random.Generator(np.random.Philox(hash64(f"{seed}/views") >> 1))
        times = self.times(torch.from_numpy(random.standard_normal(num)).float())
        noise = torch.from_numpy(random.standard_normal((num, *picture.clean.shape))).float()
        return MatchDrawn(picture, times.to(picture.clean.device), noise.to(picture.clean.device), np.zeros(num))

    @abstractmethod
    def draw(self, requests: Sequence[Request], sampling: MatchingSampling, seeds: Sequence[int]) -> list[Finished]:
        """The drawings, without views."""

    @abstractmethod
    def times(self, normal_S: Tensor) -> Tensor:
        """Times of views (S,) from standard normal draws: those of the model's own training."""

    @abstractmethod
    def collate(self, drawn: Sequence[MatchDrawn]) -> dict[str, Tensor]:
        """See `unigap.models.policy.Policy`."""

    @abstractmethod
    def module(self, sampling: MatchingSampling) -> nn.Module:
        """See `unigap.models.policy.Policy`."""


def stack_views(drawn: Sequence[MatchDrawn]) -> dict[str, Tensor]:
    """clean (N, ...), times (N, S) and noise (N, S, ...) of a batch."""
    return {
        "clean": torch.stack([one.picture.clean for one in drawn]),
        "times": torch.stack([one.times for one in drawn]),
        "noise": torch.stack([one.noise for one in drawn]),
    }


def noised_views(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """x_t of all views and their true velocities n - x_0, both (N, S, ...)."""
    clean, noise = batch["clean"][:, None], batch["noise"]
    t = batch["times"].view(*batch["times"].shape, *[1] * (noise.ndim - 2))
    return (1 - t) * clean + t * noise, noise - clean
