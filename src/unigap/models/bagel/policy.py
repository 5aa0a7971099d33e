"""BAGEL as a policy: drawings along paths with chance, and what was likely about them (docs/heads.md, eq. 6 to 10).

The sampler is `unigap.models.bagel.drawing.draw`, over contexts that are read once. The trainer packs a drawing as in
training: its texts, and behind them the picture at each step as a split of noise that sees the texts and itself. So all
steps are one pass, and the gradient reaches the texts' expert too.

Shape suffixes: N drawings, G branches of guidance, S steps with chance, L latent tokens of a picture, W numbers of one,
T packed tokens.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from unigap.disk import hash64
from unigap.errors import TrainingError
from unigap.models.bagel.attention import Chunk
from unigap.models.bagel.context import Picture, Reader, latent_ids
from unigap.models.bagel.drawing import BRANCHES, Canvas, develop, draw, guide, make_canvas, schedule
from unigap.models.bagel.isolated import CAUSAL, NOISE, Isolated
from unigap.models.bagel.model import BagelModel
from unigap.models.bagel.network import Bagel
from unigap.models.bagel.reading import Reading
from unigap.models.bagel.settings import BagelSampling, Guidance
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
from unigap.models.sde import PathDrawn, path_likelihoods, step_log_p, step_mean, step_std

Texts = tuple[tuple[int, ...], ...]
"""The texts of a context, each with its start and end token."""


class BagelPolicy:
    """See `unigap.models.policy.Policy`; size, schedule and guidance are those of the model's own sampling."""

    likelihood: Likelihood = "path"

    def __init__(self, model: BagelModel) -> None:
        self.model = model

    def matching(self) -> "BagelMatching":
        """The same model as a policy whose finished pictures are learned from."""
        return BagelMatching(self.model)

    def sample(self, requests: Sequence[Request], *, sampling: PathSampling, seeds: Sequence[int]) -> list[PathDrawn]:
        """Each starts from the noise that `BagelModel.draw` starts from with the same seed.

        Raises:
            TrainingError: The latents of a drawing are not finite.
            ValueError: A request shows a picture.
        """
        drawn, size = [], self.model.batch_size
        for start in range(0, len(requests), size):
            drawn += self._sample(requests[start : start + size], sampling, seeds[start : start + size])
        return drawn

    def _sample(self, requests: Sequence[Request], sampling: PathSampling, seeds: Sequence[int]) -> list[PathDrawn]:
        model = self.model
        reader, canvases = read_canvases(model, requests, settings_of(model, sampling), seeds)
        walk = _Walk(canvases, seeds, sampling, self._times(sampling), model.bagel.device)
        images = develop(model.checkpoint, draw(model.checkpoint, canvases, advance=walk.advance))
        drawn = []
        for canvas, states, log_p, image in zip(canvases, walk.states, walk.log_p, images, strict=True):
            if image is None:
                raise TrainingError(f"latents of a drawing of {model.name} are not finite; nothing was updated")
            branches = BRANCHES if sampling.guided else BRANCHES[:1]
            context = tuple(texts_of(reader, getattr(canvas.contexts, name)) for name in branches)
            drawn.append(PathDrawn(context, torch.stack(states), np.array(log_p, np.float32), image))
        return drawn

    def collate(self, drawn: Sequence[PathDrawn]) -> dict[str, Tensor]:
        """Texts and steps side by side, a sample for each drawing and branch; and the states (N, S + 1, L, W)."""
        states = torch.stack([one.states for one in drawn])
        packed = Packing(self.model, num_steps=states.shape[1] - 1, num_latents=states.shape[2])
        for one in drawn:
            for texts in one.context:
                packed.add(texts)
        return packed.tensors(states.device) | {"states": states}

    def module(self, sampling: PathSampling) -> "BagelPathLogP":
        """What gives log-probabilities of given paths, with a gradient."""
        times = self._times(sampling)
        return BagelPathLogP(self.model.bagel, times, sampling.noise_level, settings_of(self.model, sampling).guidance)

    def _times(self, sampling: PathSampling) -> list[float]:
        """From 1, as far as steps have chance in them."""
        times = schedule(sampling.num_steps + 1, self.model.sampling.timestep_shift).tolist()
        return times[: sampling.num_with_chance(times) + 1]


class _Walk:
    """The steps of canvases that are drawn together, each with the chance of its own seed."""

    def __init__(
        self,
        canvases: Sequence[Canvas],
        seeds: Sequence[int],
        sampling: PathSampling,
        times: Sequence[float],
        device: torch.device,
    ) -> None:
        self._level, self._last = sampling.noise_level, times[-1]
        self._random = [torch.Generator().manual_seed(hash64(f"{seed}/path") >> 1) for seed in seeds]
        self.states = [[canvas.noise.to(device)] for canvas in canvases]
        """Of each canvas: x before each step with chance, and after the last of them."""
        self.log_p: list[list[float]] = [[] for _ in canvases]

    def advance(self, canvas: int, x_LW: Tensor, v_LW: Tensor, t: float, following: float) -> Tensor:
        """A step of `unigap.models.bagel.drawing.draw`; those behind the last time with chance are Euler's."""
        if following < self._last:
            return step_mean(x_LW, v_LW, t, following, 0.0)
        mean, std = step_mean(x_LW, v_LW, t, following, self._level), step_std(t, following, self._level)
        noise_LW = torch.randn(x_LW.shape, generator=self._random[canvas])
        x_LW = mean + std * noise_LW.to(mean.device)
        self.log_p[canvas].append(step_log_p(x_LW[None], mean[None], std).item())
        self.states[canvas].append(x_LW)
        return x_LW


def settings_of(model: BagelModel, sampling: PathSampling | MatchingSampling) -> BagelSampling:
    """The model's own settings, with the steps of rewarded drawings, and their guidance or none."""
    own = model.sampling
    guidance = own.guidance if sampling.guided else replace(own.guidance, cfg_text_scale=1.0, cfg_img_scale=1.0)
    return replace(own, num_timesteps=sampling.num_steps + own.steps_between_points, guidance=guidance)


def read_canvases(
    model: BagelModel, requests: Sequence[Request], settings: BagelSampling, seeds: Sequence[int]
) -> tuple[Reader, list[Canvas]]:
    """Requests read, each with the noise that a drawing of its seed starts from.

    Raises:
        ValueError: A request shows a picture.
    """
    reader, canvases = Reader(model.checkpoint), []
    for request, seed in zip(requests, seeds, strict=True):
        reading = Reading(reader, settings, draws=True, seed=seed)
        reading.add(request.content, request.think_prompt)
        if reading.num_pictures:
            raise ValueError("a request shows a picture; BAGEL is rewarded for drawings from text alone")
        if request.thought is not None:
            reading.add_thought(model.tokenizer.encode(request.thought))
        canvases.append(make_canvas(model.checkpoint, reading.contexts, settings, seed))
    reader.read()
    return reader, canvases


def texts_of(reader: Reader, context: Chunk) -> Texts:
    """The texts that a context was read from."""
    contents = [reader.contents[chunk] for chunk in context.chain()]
    return tuple(content for content in contents if not isinstance(content, Picture))


class Packing:
    """Samples side by side: the texts of a context, and behind them, at one position, the picture at every step."""

    def __init__(self, model: BagelModel, *, num_steps: int, num_latents: int) -> None:
        self._model, self._num_steps, self._num_latents = model, num_steps, num_latents
        self._num_samples = self._length = 0
        self._found: dict[str, list[int]] = {name: [] for name in ("text_ids", "text_at", "latent_at", "positions")}
        self._splits: list[tuple[int, int, int]] = []

    def add(self, texts: Texts) -> None:
        position, token = 0, self._model.tokenizer
        for ids in texts:
            self._text(ids)
            self._split(len(ids), CAUSAL, range(position, position + len(ids)))
            position += len(ids)
        for _ in range(self._num_steps):
            self._text((token.start_of_image,))
            self._found["latent_at"] += range(self._length + 1, self._length + 1 + self._num_latents)
            self._text((token.end_of_image,), behind=1 + self._num_latents)
            self._split(self._num_latents + 2, NOISE, [position] * (self._num_latents + 2))
        self._num_samples += 1

    def _text(self, ids: Sequence[int], behind: int = 0) -> None:
        start = self._length + behind
        self._found["text_ids"] += ids
        self._found["text_at"] += range(start, start + len(ids))

    def _split(self, length: int, kind: int, positions: Sequence[int]) -> None:
        self._splits.append((self._num_samples, length, kind))
        self._found["positions"] += positions
        self._length += length

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        found = {name: torch.tensor(values, device=device) for name, values in self._found.items()}
        sampling, stride = self._model.sampling, self._model.checkpoint.config.vae.downsample
        shape = (sampling.height_px // stride, sampling.width_px // stride)
        ids_L = latent_ids(self._model.checkpoint, shape).to(device)
        return found | {"splits": torch.tensor(self._splits), "latent_ids": ids_L}


class BagelPathLogP(nn.Module):
    """Batch of `BagelPolicy.collate` to `Likelihoods`.

    Args:
        times: Of the states of a path that are known: S + 1 of them, from 1.
    """

    def __init__(self, bagel: Bagel, times: Sequence[float], level: float, guidance: Guidance) -> None:
        super().__init__()
        self.bagel = bagel
        self.times, self.level, self.guidance = times, level, guidance

    def forward(self, batch: dict[str, Tensor]) -> Likelihoods:
        states = batch["states"]
        num, length, (num_latents, width) = len(states), states.shape[1] - 1, states.shape[2:]
        num_branches = len(batch["latent_at"]) // (num * length * num_latents)
        x_NGSLW = states[:, None, :-1].expand(num, num_branches, length, num_latents, width)
        t_NGS = torch.tensor(self.times[:length], device=states.device).expand(num, num_branches, length)
        v_NGSLW = velocities(self.bagel, batch, x_NGSLW, t_NGS)
        v_NSLW = torch.stack([self._guide(v_NGSLW[:, :, s], t) for s, t in enumerate(self.times[:length])], dim=1)
        return path_likelihoods(v_NSLW, states, self.times, self.level)

    def _guide(self, v_NGLW: Tensor, t: float) -> Tensor:
        """As `unigap.models.bagel.drawing.draw` guides at time t."""
        g = self.guidance
        low, high = g.cfg_interval
        if v_NGLW.shape[1] == 1 or not low < t <= high:
            return v_NGLW[:, 0]
        v_text = v_NGLW[:, 1] if g.cfg_text_scale > 1 else None
        return guide(v_NGLW[:, 0], v_text, v_NGLW[:, 2] if g.cfg_img_scale > 1 else None, g)


def velocities(bagel: Bagel, batch: dict[str, Tensor], x_NGSLW: Tensor, t_NGS: Tensor) -> Tensor:
    """Of noised latents at their times, (N, G, S, L, W), in one packed pass behind the texts of `Packing`."""
    num_latents, width = x_NGSLW.shape[3:]
    t_T = t_NGS.reshape(-1).repeat_interleave(num_latents)
    ids_T = batch["latent_ids"].repeat(t_NGS.numel())
    latents = bagel.embed_latents(x_NGSLW.reshape(-1, width), ids_T, t_T)
    places_T = torch.cat((batch["text_at"], batch["latent_at"]))
    x_TD = torch.cat((bagel.embed_text(batch["text_ids"]), latents))[torch.argsort(places_T)]
    gen_T = torch.zeros(len(x_TD), dtype=torch.bool, device=x_TD.device)
    gen_T[batch["latent_at"]] = True
    hidden_TD = bagel.decode(x_TD, gen_T, batch["positions"], Isolated(batch["splits"]))
    return bagel.velocity(hidden_TD[batch["latent_at"]]).view_as(x_NGSLW)


# ---- finished pictures -----------------------------------------------------------------------------------------------


class BagelMatching(MatchingPolicy):
    """See `unigap.models.matching`; size and schedule of drawings are those of the model's own sampling."""

    model: BagelModel

    def draw(self, requests: Sequence[Request], sampling: MatchingSampling, seeds: Sequence[int]) -> list[Finished]:
        reader, canvases = read_canvases(self.model, requests, settings_of(self.model, sampling), seeds)
        last: dict[int, Tensor] = {}
        images = develop(
            self.model.checkpoint,
            draw(self.model.checkpoint, canvases, watch=lambda step: last.update({step.canvas: step.x})),
        )
        found = []
        for index, (canvas, image) in enumerate(zip(canvases, images, strict=True)):
            if image is None:
                raise TrainingError(f"latents of a drawing of {self.model.name} are not finite; nothing was updated")
            found.append(Finished(texts_of(reader, canvas.contexts.gen), last[index].float(), image))
        return found

    def times(self, normal_S: Tensor) -> Tensor:
        shift, t_S = self.model.bagel.config.timestep_shift, normal_S.sigmoid()
        return shift * t_S / (1 + (shift - 1) * t_S)

    def collate(self, drawn: Sequence[MatchDrawn]) -> dict[str, Tensor]:
        """Texts and views side by side; clean and noise of latents (N, L, W) and (N, S, L, W)."""
        views = stack_views(drawn)
        packed = Packing(self.model, num_steps=views["noise"].shape[1], num_latents=views["clean"].shape[1])
        for one in drawn:
            packed.add(one.context)
        return packed.tensors(views["clean"].device) | views

    def module(self, sampling: MatchingSampling) -> "BagelMatchLogP":
        return BagelMatchLogP(self.model.bagel)


class BagelMatchLogP(nn.Module):
    """Batch of `BagelMatching.collate` to `Likelihoods`."""

    def __init__(self, bagel: Bagel) -> None:
        super().__init__()
        self.bagel = bagel

    def forward(self, batch: dict[str, Tensor]) -> Likelihoods:
        x_NSLW, true_NSLW = noised_views(batch)
        v_NGSLW = velocities(self.bagel, batch, x_NSLW[:, None], batch["times"][:, None])
        return matching_likelihoods(v_NGSLW[:, 0] - true_NSLW)
