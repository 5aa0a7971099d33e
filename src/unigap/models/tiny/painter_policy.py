"""The embedded model with a painter as a policy: drawings along paths with chance, and what was likely about them.

The sampler draws step by step; the trainer finds all steps again in one pass (docs/heads.md, eq. 6 to 10).

Shape suffixes: N drawings, S steps with chance, C = 9 cells, W = 192 numbers of a cell.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL.Image import fromarray
from torch import Tensor, nn

from unigap.errors import TrainingError
from unigap.models.matching import (
    Finished,
    MatchDrawn,
    MatchingPolicy,
    matching_likelihoods,
    noised_views,
    stack_views,
)
from unigap.models.policy import Likelihood, Likelihoods, MatchingSampling, PathSampling
from unigap.models.protocol import Request
from unigap.models.sde import PathDrawn, path_likelihoods, sample_path
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.flow import (
    CELL_VALUES,
    LEAST_TIME,
    latents_of,
    schedule,
    to_pixels,
    training_times,
    velocity,
)
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.network import Network
from unigap.models.tiny.painter import Painter, PainterSampling
from unigap.models.tiny.painting import pad_prompts, read
from unigap.models.tiny.pictures import TOKENS_PER_PICTURE
from unigap.scenes.vocabulary import NUM_CELLS


class PainterPolicy:
    """See `unigap.models.policy.Policy`; schedule and guidance are those of the model's own sampling."""

    likelihood: Likelihood = "path"

    def __init__(self, model: TinyModel) -> None:
        self.model = model

    def matching(self) -> "PainterMatching":
        """The same model as a policy whose finished pictures are learned from."""
        return PainterMatching(self.model)

    @torch.no_grad()
    def sample(self, requests: Sequence[Request], *, sampling: PathSampling, seeds: Sequence[int]) -> list[PathDrawn]:
        """Each starts from the noise that `TinyModel.draw` starts from with the same seed.

        Raises:
            TrainingError: The latents of a drawing are not finite.
            ValueError: A request leaves no room for a picture.
        """
        prompts = [self.model.encode(request, tok.DRAW)[0] for request in requests]
        if max(map(len, prompts)) + TOKENS_PER_PICTURE > self.model.network.config.max_tokens:
            raise ValueError(f"a request is too long to draw: {max(map(len, prompts))} tokens")
        drawn, size = [], self.model.batch_size
        for start in range(0, len(prompts), size):
            drawn += self._sample(prompts[start : start + size], sampling, seeds[start : start + size])
        return drawn

    def _sample(self, prompts: list[list[int]], sampling: PathSampling, seeds: Sequence[int]) -> list[PathDrawn]:
        module = self.module(sampling)
        painter, scale = module.painter, module.scale
        context = read(module.network, painter, *pad_prompts(module.network, painter, prompts))
        both = context.both() if scale != 1 else context

        def velocity_at(x_NCW: Tensor, t: float) -> Tensor:
            return velocity(x_NCW, painter.clean(x_NCW, x_NCW.new_full((len(x_NCW),), t), both, scale), t)

        device = module.network.cos.device
        times, num = self._times(sampling), len(module.times) - 1
        start_NCW, *noise = (draw_NCW.to(device) for draw_NCW in path_noise(seeds, 1 + num))
        path = sample_path(velocity_at, start_NCW, times, sampling.noise_level, noise)
        if not path.states[-1].isfinite().all():
            raise TrainingError(f"latents of drawings of {self.model.name} are not finite; nothing was updated")
        pictures = to_pixels(self.model.codebook, path.states[-1].cpu().numpy())
        states_NSCW, log_p_NS = torch.stack(path.states[: num + 1], dim=1), path.log_p.cpu().numpy()
        return [
            PathDrawn(prompt, states_SCW, log_p_S, fromarray(picture))
            for prompt, states_SCW, log_p_S, picture in zip(prompts, states_NSCW, log_p_NS, pictures, strict=True)
        ]

    def collate(self, drawn: Sequence[PathDrawn]) -> dict[str, Tensor]:
        """Prompts, and the states of the paths (N, S + 1, C, W)."""
        network, painter = self.model.network, self.model.painter
        assert painter is not None
        ids_NT, lengths_N = pad_prompts(network, painter, [one.context for one in drawn])
        return {"ids": ids_NT, "lengths": lengths_N, "states": torch.stack([one.states for one in drawn])}

    def module(self, sampling: PathSampling) -> "PathLogP":
        """What gives log-probabilities of given paths, with a gradient."""
        own, painter = self.model.sampling, self.model.painter
        assert painter is not None and isinstance(own, PainterSampling)
        scale = own.cfg_text_scale if sampling.guided else 1.0
        times = self._times(sampling)
        with_chance = times[: sampling.num_with_chance(times) + 1]
        return PathLogP(self.model.network, painter, with_chance, sampling.noise_level, scale)

    def _times(self, sampling: PathSampling) -> list[float]:
        own = self.model.sampling
        assert isinstance(own, PainterSampling)
        return schedule(sampling.num_steps, own.timestep_shift)


class PathLogP(nn.Module):
    """Batch of `PainterPolicy.collate` to `Likelihoods`.

    Args:
        times: Of the states of a path that are known: S + 1 of them, from 1.
    """

    def __init__(self, network: Network, painter: Painter, times: Sequence[float], level: float, scale: float) -> None:
        super().__init__()
        self.network = network
        self.painter = painter
        self.times, self.level, self.scale = times, level, scale

    def forward(self, batch: dict[str, Tensor]) -> Likelihoods:
        states = batch["states"]
        shape = (len(states), len(self.times) - 1)
        context = read(self.network, self.painter, batch["ids"], batch["lengths"], num=shape[1])
        x_PCW = states[:, :-1].flatten(0, 1)
        t_P = torch.tensor(self.times[:-1], device=states.device).repeat(shape[0])
        both = context.both() if self.scale != 1 else context
        v_PCW = velocity(x_PCW, self.painter.clean(x_PCW, t_P, both, self.scale), t_P[:, None, None])
        return path_likelihoods(v_PCW.unflatten(0, shape), states, self.times, self.level)


class PainterMatching(MatchingPolicy):
    """See `unigap.models.matching`; what is learned from are a drawing's pixels, which the reward saw."""

    model: TinyModel

    def draw(self, requests: Sequence[Request], sampling: MatchingSampling, seeds: Sequence[int]) -> list[Finished]:
        own = self.model.sampling
        assert isinstance(own, PainterSampling)
        scale = own.cfg_text_scale if sampling.guided else 1.0
        settings = replace(own, num_steps=sampling.num_steps, cfg_text_scale=scale)
        found = []
        for request, output in zip(requests, self.model.draw(requests, sampling=settings, seeds=seeds), strict=True):
            if output.image is None:
                raise TrainingError(f"{self.model.name} drew nothing: {output.detail}; nothing was updated")
            clean_CW = torch.from_numpy(latents_of(np.asarray(output.image)[None])[0])
            found.append(
                Finished(
                    self.model.encode(request, tok.DRAW)[0], clean_CW.to(self.model.network.cos.device), output.image
                )
            )
        return found

    def times(self, normal_S: Tensor) -> Tensor:
        return training_times(normal_S)

    def collate(self, drawn: Sequence[MatchDrawn]) -> dict[str, Tensor]:
        """Prompts, and the views of the pictures."""
        network, painter = self.model.network, self.model.painter
        assert painter is not None
        ids_NT, lengths_N = pad_prompts(network, painter, [one.context for one in drawn])
        return {"ids": ids_NT, "lengths": lengths_N, **stack_views(drawn)}

    def module(self, sampling: MatchingSampling) -> "MatchLogP":
        assert self.model.painter is not None
        return MatchLogP(self.model.network, self.model.painter)


class MatchLogP(nn.Module):
    """Batch of `PainterMatching.collate` to `Likelihoods`; errors are weighed by time as in training."""

    def __init__(self, network: Network, painter: Painter) -> None:
        super().__init__()
        self.network = network
        self.painter = painter

    def forward(self, batch: dict[str, Tensor]) -> Likelihoods:
        x_NSCW, _ = noised_views(batch)
        t_NS = batch["times"]
        context = read(self.network, self.painter, batch["ids"], batch["lengths"], num=t_NS.shape[1])
        clean_PCW = self.painter.clean(x_NSCW.flatten(0, 1), t_NS.flatten(), context, 1.0)
        errors_NSCW = batch["clean"][:, None] - clean_PCW.view_as(x_NSCW)
        return matching_likelihoods(errors_NSCW / t_NS.clamp(min=LEAST_TIME)[..., None, None])


def path_noise(seeds: Sequence[int], num: int) -> list[Tensor]:
    """`num` draws (N, C, W), standard normal, each picture's from its own seed alone; the first is `start_noise`."""
    drawn = [np.random.Generator(np.random.Philox(s)).standard_normal((num, NUM_CELLS, CELL_VALUES)) for s in seeds]
    return list(torch.from_numpy(np.stack(drawn, axis=1)).float())
