"""What a trainable model adds to be improved from rewards on its own drawings (`unigap.train.gvu`)."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL.Image import Image
from torch import Tensor, nn

from unigap.models.protocol import Request, Sampling


class Drawing(Protocol):
    """A drawing as a policy sampled it, with what it takes to find its probability again."""

    @property
    def image(self) -> Image: ...

    @property
    def log_p(self) -> np.ndarray:
        """Of each drawn token when it was drawn, (T,) float32, in nats, under the sampling settings."""
        ...


D = TypeVar("D", bound=Drawing)


class Policy(Protocol[D]):
    """Draws, and says how likely what was drawn is."""

    model: Any
    """The model that draws: its weights are the policy's, at any time."""

    def sample(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[D]:
        """One drawing a request; each depends on its own seed alone."""
        ...

    def collate(self, drawn: Sequence[D]) -> dict[str, Tensor]:
        """A batch for `module`."""
        ...

    def module(self, sampling: Sampling) -> nn.Module:
        """Batch to log-probabilities (N, T) and entropies (N, T) of the drawn tokens, in nats, with a gradient."""
        ...
