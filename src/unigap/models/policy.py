"""What a trainable model adds to be improved from rewards on its own drawings (`unigap.train.gvu`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from PIL.Image import Image
from torch import Tensor, nn

from unigap.models.protocol import Request, Sampling

Likelihood = Literal["tokens", "path", "matching"]
"""Of a drawing: of its tokens; of the steps with chance that it was drawn by (`unigap.models.sde`); or, in place of a
likelihood, how well the finished picture is matched (`unigap.models.matching`). The last two are of flows."""


@dataclass(frozen=True, kw_only=True)
class PathSampling(Sampling):
    """How a model that draws by a flow draws what is rewarded: with chance in the steps, and in few of them
    (`unigap.models.sde`). What is not here is as in the model's own sampling."""

    num_steps: int = 8
    """The last of them has no chance in it, so at least 2."""
    noise_level: float = 0.7
    """a of docs/heads.md eq. 6."""
    noise_until: float = 0.0
    """Time, from 1 (noise) to 0 (picture), that a step has to end at or before to have chance in it; the steps behind
    it follow the flow."""
    guided: bool = False
    """Whether the model's own guidance is on."""

    def __post_init__(self) -> None:
        if self.num_steps < 2 or self.noise_level <= 0 or not 0 <= self.noise_until < 1:
            raise ValueError(
                f"num_steps {self.num_steps} must be at least 2, noise_level {self.noise_level} above 0 and "
                f"noise_until {self.noise_until} from 0 to below 1: without a step that has chance in it a drawing has "
                "no probability"
            )

    def num_with_chance(self, times: Sequence[float]) -> int:
        """How many of the first steps along `times` have chance in them; never the last, whose noise would stay.

        Raises:
            ValueError: None has.
        """
        num = sum(following >= self.noise_until for following in times[1:-1])
        if not num:
            raise ValueError(
                f"no step has chance in it: the first of {self.num_steps} ends at time {times[1]:.3g}, below "
                f"noise_until {self.noise_until}; take more steps, or a lower noise_until"
            )
        return num


@dataclass(frozen=True, kw_only=True)
class MatchingSampling(Sampling):
    """How a model that draws by a flow draws what is rewarded when it is the finished picture that is learned from:
    without chance but for the noise it starts from."""

    num_steps: int = 8
    num_views: int = 4
    """Noised views of each picture in which it is to be matched."""
    guided: bool = False
    """Whether the model's own guidance is on while it draws; it is never on in the views."""

    def __post_init__(self) -> None:
        if min(self.num_steps, self.num_views) < 1:
            raise ValueError(f"num_steps {self.num_steps} and num_views {self.num_views} must be at least 1")


class Drawing(Protocol):
    """A drawing as a policy sampled it, with what it takes to find its probability again."""

    @property
    def image(self) -> Image: ...

    @property
    def log_p(self) -> np.ndarray:
        """Of each drawn token when it was drawn, (T,) float32, in nats, under the sampling settings; or of each step
        with chance of a path, or each view of a picture, in nats a value."""
        ...


D = TypeVar("D", bound=Drawing)


class Likelihoods(NamedTuple):
    """What a policy's module says of given drawings, with a gradient."""

    log_p: Tensor
    """(N, T), as `Drawing.log_p`."""
    entropy: Tensor | None = None
    """(N, T) of drawn tokens, in nats. That of a path's steps is fixed by the noise level: None, as of views."""
    means: Tensor | None = None
    """(N, T, ...) expected outcomes of a path's steps, in their standard deviations, or errors in a picture's views.
    None of tokens."""


class Policy(Protocol[D]):
    """Draws, and says how likely what was drawn is."""

    model: Any
    """The model that draws: its weights are the policy's, at any time."""
    likelihood: Likelihood
    """Paths are sampled with `PathSampling`, pictures to be matched with `MatchingSampling`."""

    def sample(self, requests: Sequence[Request], *, sampling: Any, seeds: Sequence[int]) -> list[D]:
        """One drawing a request; each depends on its own seed alone."""
        ...

    def collate(self, drawn: Sequence[D]) -> dict[str, Tensor]:
        """A batch for `module`."""
        ...

    def module(self, sampling: Any) -> nn.Module:
        """Batch to `Likelihoods`; of tokens a pair is enough: log-probabilities (N, T) and entropies (N, T)."""
        ...
